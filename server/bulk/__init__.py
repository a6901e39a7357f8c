"""The catalogue in bulk: a feed is brought in, and brought in step again."""
