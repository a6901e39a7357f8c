"""python -m bench servers: which HTTP server serves us best."""
