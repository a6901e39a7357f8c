"""python -m bench load: a server under load: what is sent, how it is counted and judged, and the report."""
