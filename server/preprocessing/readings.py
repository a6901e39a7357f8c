"""Versions of the readers: which pictures a later version may read otherwise than an earlier one did.

A picture's pixels depend on the preprocessing spec, which makes a space of its own, and on the readers of the file
formats, which do not: when a reader is mended, the pictures that it misread have wrong vectors in the same space. So
each vector is stored with the version of the readers, and the servers look again at what an older version has read.
"""

from __future__ import annotations

from typing import Final

READING: Final = 1
"""The version of the readers; 0: all before it. It is raised when a reader gives other pixels for a file that was read
before, and `may_differ` then says for which files."""
