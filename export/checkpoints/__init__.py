"""Where models come from: each kind of checkpoint, read into the same form."""
