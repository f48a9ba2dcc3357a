"""What the doctor reads and signs: findings, coded terms and the DICOM objects that carry them.

Knows no torch and no HTTP.
"""
