"""Searching with parts of pictures: of the demo catalogue's, and of scenes of several of its things."""
