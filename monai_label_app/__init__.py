"""EndoLens at work: the MONAI Label app, the command line, the server and the classifier."""
