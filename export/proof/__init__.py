"""What is measured of a graph, and what it must reach to be published."""
