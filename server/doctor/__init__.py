"""What is wrong with a database, and taking over one with the legacy schema."""
