"""What tests share: databases, servers, pictures, checkpoints. No test lies here."""
