"""Files written byte by byte, so that what they hold is known by arithmetic and needs no encoder."""
