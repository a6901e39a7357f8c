"""Embedding spaces: which there are, filling one beside the live one, and the switch."""
