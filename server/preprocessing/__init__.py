"""Bytes to pixels, and words to tokens, as the artifact's spec says."""
