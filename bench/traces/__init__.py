"""python -m bench trace: a real trace, recorded by a collector of our own and drawn, and what making traces costs."""
