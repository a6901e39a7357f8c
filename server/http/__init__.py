"""Callers: bytes in, matches out. With `server.app` the only part that knows Litestar."""
