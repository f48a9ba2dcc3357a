"""What the EndoLens module does, apart from its widget: MRML over the server's REST interface.

Runs in 3D Slicer and with PyPI's ``slicer-core``. It needs Python 3.9, as Slicer 5.8 has, and nothing that Slicer does
not bring.
"""
