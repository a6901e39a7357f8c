"""The embedded PostgreSQL, for those who bring none."""
