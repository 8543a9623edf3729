"""The algorithms, one file each, read from top to bottom: config, init, act, update."""
