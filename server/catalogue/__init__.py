"""Vectors to SQL to matches: products, media, searches, and the indexes of large clients."""
