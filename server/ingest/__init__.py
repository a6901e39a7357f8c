"""Pictures join and leave the catalogue, and the store keeps their bytes."""
