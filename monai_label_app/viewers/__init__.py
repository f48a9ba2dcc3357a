"""The viewers that show results: OHIF."""
