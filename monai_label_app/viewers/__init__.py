"""The viewers that show results: OHIF, and 3D Slicer by a module of ours."""
