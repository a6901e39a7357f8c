"""Graphs to an artifact on disk, proved again, listed and compared."""
