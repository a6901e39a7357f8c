"""python -m bench.gpu: what a GPU makes of an artifact's image tower."""
