"""Jobs: one task over many images, run by the workers of Ray Data. Only cluster.py imports Ray."""
