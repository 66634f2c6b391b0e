"""Many images: one task over a data set of shards, by actors of Ray Data. Nothing here imports Ray but cluster.py."""
