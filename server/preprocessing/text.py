"""Text to tokens, as the artifact's tokenizer.json says; nothing is added here. Nobody else imports tokenizers.

The file itself says how a text is put into lower case, cut to the tower's length and padded. What is bounded here is
only what one text can cost.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from server.artifact.artifact import TextTower, Tokens
from server.errors import ArtifactInvalid, TextRejected, TextTooLong

if TYPE_CHECKING:
    import tokenizers

MOST_CHARACTERS = 10_000
"""Of one text. Towers read 64 to 128 tokens, but a tokenizer walks through the whole text before it cuts it: 10,000
characters took MiniLM's up to 40 ms. A longer text is refused, not cut, since a cut could change the tokens that are
kept: a tokenizer may drop any amount of white space."""


class Tokenizer:
    """Turns words into tokens. One may be used from many threads at once. `read` makes it."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, tower: TextTower) -> None:
        self._tokenizer = tokenizer
        self._tower = tower

    @classmethod
    def read(cls, path: Path, tower: TextTower) -> Tokenizer:
        """Raises ArtifactInvalid when the file is not a tokenizer that cuts and pads as the tower needs it."""
        # Callers' threads are all the parallelism we want: with more, the package complains at every fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        # Imported here, as a model without words need not pay its 5 MB.
        import tokenizers

        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as exc:  # a bare Exception is what the package raises
            raise ArtifactInvalid(f"tokenizers {tokenizers.__version__} cannot read {path}: {exc}.") from exc
        cut = (tokenizer.truncation or {}).get("max_length")
        padded = (tokenizer.padding or {}).get("length")
        if cut != tower.length or padded != (tower.length if tower.padded else None):
            raise ArtifactInvalid(
                f"{path} cuts texts to {cut} tokens and pads them to {padded}, but the text tower takes "
                f"{'always' if tower.padded else 'at most'} {tower.length}."
            )
        return cls(tokenizer, tower)

    def tokens(self, text: str) -> Tokens:
        """int64[L], L at least 1. Raises TextTooLong, and TextRejected for what no tokenizer can read.

        Blocking, and releases the GIL.
        """
        if len(text) > MOST_CHARACTERS:
            raise TextTooLong(len(text), MOST_CHARACTERS)
        try:
            # `encode` would hold the GIL throughout; `_fast` leaves out where in the text each token was.
            (encoding,) = self._tokenizer.encode_batch_fast([text])
        except TypeError as exc:  # half a surrogate pair, which no UTF-8 can hold
            raise TextRejected("The text is not whole Unicode: it holds half of a surrogate pair.") from exc
        except MemoryError:
            raise  # our machine's limit, not the text's fault
        except Exception as exc:  # bare, from the package: a tokenizer without a token for what it does not know
            raise TextRejected() from exc
        if not encoding.ids:
            raise TextRejected("The text has nothing in it that this model reads.")
        return np.array(encoding.ids, np.int64)
