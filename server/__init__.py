"""The server: search by image over HTTP, and the operator's commands."""
