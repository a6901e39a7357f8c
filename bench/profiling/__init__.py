"""python -m bench profile: where a request's time goes, and what a picture costs in core-seconds."""
