"""What callers see when a part breaks: the parts (`breaks`), the callers (`traffic`), the figures (`command`)."""
