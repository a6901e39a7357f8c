"""The server: search by image over HTTP, and the operator's commands."""

__version__ = "0.1.0"
"""As that of the package `twinlens`, which an image has no need of."""
