"""A server at half load for a long time: whether its memory, handles, connections and tasks stay as they are."""
