"""Twinlens: search by image for product catalogues. A picture always finds itself.

This is the package that the distribution `twinlens` installs. The server, the export and the bench are no part of it:
they run from a checkout or an image, as `python -m server`, `python -m export` and `python -m bench`.
"""

from twinlens.search_keys import derive_search_key

__all__ = ["derive_search_key"]

__version__ = "0.1.0"
