"""Who calls, and which ids callers may choose."""
