"""The classifier of endoscopy frames: network, checkpoint and the way from a frame to the network's input."""
