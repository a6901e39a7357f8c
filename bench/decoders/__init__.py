"""Who reads which pictures, and whose pixels differ: Twinlens beside the readers that others use."""
