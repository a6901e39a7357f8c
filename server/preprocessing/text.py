"""Text to tokens, as the artifact's tokenizer.json says. Only this module imports tokenizers.

The file itself says how a text is put into lower case, cut to the tower's length and padded. This module adds only a
bound on the length of a text.
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
"""Of one text. Towers read 64 to 128 tokens, but a tokenizer reads the entire text before it cuts it: 10,000 characters
took MiniLM's up to 40 ms. A longer text is refused, not cut, since a cut could change the tokens that are kept: a
tokenizer may drop any amount of white space."""


class Tokenizer:
    """Turns texts into tokens. Many threads may use one at once. `read` makes it."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, tower: TextTower) -> None:
        self._tokenizer = tokenizer
        self._tower = tower

    @classmethod
    def read(cls, path: Path, tower: TextTower) -> Tokenizer:
        """Raises ArtifactInvalid when the file is not a tokenizer that cuts and pads as the tower needs it."""
        # The callers' threads are parallel enough: with threads of its own the package warns at every fork.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        # Imported here, so that a model without a text tower saves its 5 MB.
        import tokenizers

        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
        except Exception as exc:  # a bare Exception is what the package raises
            raise ArtifactInvalid(f"tokenizers {tokenizers.__version__} cannot read {path}: {exc}.") from exc
        cut = (tokenizer.truncation or {}).get("max_length")
        padded = (tokenizer.padding or {}).get("length")
        if cut != tower.length or padded != (tower.length if tower.padded else None):
            raise ArtifactInvalid(
                f"{path} cuts texts to {cut} tokens and pads them to {padded}, but the text tower reads "
                f"{'always' if tower.padded else 'at most'} {tower.length}."
            )
        return cls(tokenizer, tower)

    def is_word(self, word: str) -> bool:
        """Whether this is a word of the language that the model reads: one that it has a token of its own for.

        A misspelt word is read in pieces.
        """
        (encoding,) = self._tokenizer.encode_batch([word], add_special_tokens=False)
        read = [token for token, real in zip(encoding.tokens, encoding.attention_mask, strict=True) if real]
        return len(read) == 1 and word in read[0]  # a token may have marks of its own beside the word

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
            raise TextRejected("The text is not valid Unicode: it holds half of a surrogate pair.") from exc
        except MemoryError:
            raise  # the machine's limit, not the text's fault
        except Exception as exc:  # a bare Exception: the tokenizer has no token for unknown words
            raise TextRejected() from exc
        if not encoding.ids:
            raise TextRejected("The text has nothing in it that this model can read.")
        return np.array(encoding.ids, np.int64)
