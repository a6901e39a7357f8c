"""python -m bench peers: Twinlens beside others like it, on identical weights and pictures, in one run.

`systems` has who they are, `loads` what they are asked, `measure` how they take turns, and `document` writes
docs/benchmarks.md. `legacy_service.py` and `litserve_app.py` run in environments of their own.
"""
