"""python -m bench search: is what a search finds right and quick, for clients of every size, and beside others?

`workload` makes clients, vectors, queries and exact answers; `fill` brings them into databases; `systems` and
`libraries` have who is asked; `measure` how they take turns; `document` the tables and docs/search-benchmarks.md.
`crossover` and `costs` measure what the planner's threshold and docs/operations.md's figures come from.
`library_app.py` runs in environments of its own.
"""
