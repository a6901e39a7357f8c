"""A catalogue with its pictures as one file, and back."""
