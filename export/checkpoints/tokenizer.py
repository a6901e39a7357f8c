"""A checkpoint's tokenizer as the one file that the `tokenizers` package runs, and the proof that both are the same.

What transformers does around a tokenizer (truncation, padding, and for SigLIP all of its cleaning in Python) moves
into the file, so that a reader of the file needs nothing else.
"""

from __future__ import annotations

import contextlib
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, processors
from transformers import CLIPTokenizerFast, GemmaTokenizerFast, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import import_protobuf
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from export.checkpoints.checkpoint import TextTower
from export.checkpoints.configs import read_json
from export.errors import ExportRefused, is_out_of_memory
from export.quiet import quiet

FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
)
"""All files that a tokenizer of a CLIP or SigLIP may be read from."""

# Named one by one: transformers has tokenizers that unpickle their vocabulary.
_CLASSES = {
    "CLIPTokenizer": CLIPTokenizerFast,
    "GemmaTokenizer": GemmaTokenizerFast,
    "Siglip2Tokenizer": GemmaTokenizerFast,
    "PreTrainedTokenizer": PreTrainedTokenizerFast,
    "TokenizersBackend": PreTrainedTokenizerFast,
}

TEXTS = (
    "red shoe",
    "a photo of a cat",
    "Men's running shoes, size 42",
    "USB-C cable 2m (black)",
    "IKEA KALLAX shelf 77x147 cm",
    "t-shirt",
    "50% off!!!",
    "€19.99",
    "iPhone 15 Pro Max 256GB",
    "don't you'll we've I'm he'd",
    "",
    " ",
    "   \t \n ",
    "  leading and trailing  ",
    "two  spaces   and\ttabs\nand lines\r\n",
    "no-break\u00a0space, thin\u2009space, ideographic\u3000space",
    "zero\u200bwidth\u200dand\ufeffmarks",
    "MiXeD CaSe AND UPPER",
    "Größe Straße ÄÖÜ",
    "café",
    "cafe\u0301",
    "İstanbul ışık",
    "ΣΊΣΥΦΟΣ Σας",
    "ﬁne ﬂower Ⅷ ①",
    "👟",
    "red 👟 and 👗!",
    "👩‍👩‍👧‍👦 family",
    "👍🏽 🇩🇪 🏳️‍🌈 ❤️",
    "حذاء أحمر للجري",
    "נעליים אדומות",
    "left ‏חולצה‎ right 123",
    "红色的鞋子",
    "赤い靴 スニーカー",
    "빨간 신발",
    "รองเท้าสีแดง",
    "लाल जूते",
    "красные туфли",
    "κόκκινα παπούτσια",
    "control \x00 \x01 \x1b \x7f \x85 characters",
    "a\ufffdb\ue000c",
    "<|startoftext|>",
    "<|endoftext|>",
    "a <|endoftext|> b",
    "</s>",
    "one</s>two <s> <unk> <pad> <eos> <bos>",
    " </s> first. </S> <UNK>!",
    "&amp; &lt;b&gt;bold&lt;/b&gt; &#39;",
    "<b>bold</b> {braces} [brackets] _under_ ~tilde~ `tick`",
    "▁lower one eighth block▁",
    "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "a very long description " * 40,
    "1234567890 3.14 1,000,000",
    "https://example.org/a?b=c&d=e#f",
    "🧵" * 120,
)
"""The texts that a tokenizer is proved with: short queries, long ones, and unusual ones."""

_DIFFERENT_SHOWN = 20

# Code points that are no characters, for use inside a program.
_MARKS = [chr(point) for point in range(0xFDD0, 0xFDF0)]


def has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in FILES)


def read_tokenizer(folder: Path, model: str) -> Any:
    """The checkpoint's own tokenizer, as transformers reads it, of one of the classes that CLIPs and SigLIPs have.

    Raises ExportRefused for another class, and for files that are missing or damaged.
    """
    config = read_json(folder, "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    fallback = "SiglipTokenizer" if (folder / "spiece.model").is_file() else "CLIPTokenizer"
    named = config.get("tokenizer_class") or fallback
    name = named.removesuffix("Fast") if isinstance(named, str) else ""
    kind: Any = _CLASSES.get(name)
    if name == "SiglipTokenizer":
        # Checkpoints that were repackaged for other runtimes have a tokenizer.json only.
        kind = _siglip_tokenizer() if (folder / "spiece.model").is_file() else PreTrainedTokenizerFast
    if kind is None:
        raise ExportRefused(
            f"{model} is tokenised by {named!r}, which this version does not read. Without the files of its tokenizer, "
            "its image tower is exported alone."
        )
    with _refusing(f"The tokenizer of {model} cannot be read"), quiet():
        tokenizer = kind.from_pretrained(folder, local_files_only=True)
        if kind is GemmaTokenizerFast:
            _lower_case(tokenizer)
        # Some damage shows only in use.
        tokenizer("a")
    return tokenizer


def _siglip_tokenizer() -> Any:
    try:
        import sentencepiece  # noqa: F401  # transformers hides the class without it
        from transformers import SiglipTokenizer
    except ImportError as exc:
        raise ExportRefused(
            "This tokenizer is a spiece.model, and reading it needs the package sentencepiece, which is missing: "
            "install it with pip."
        ) from exc
    return SiglipTokenizer


def _lower_case(tokenizer: Any) -> None:
    """SigLIP 2 learned from lower case only, which its checkpoints do not say: their class is Gemma's own.

    Transformers 5 made a class of its own for them, which does this.
    """
    backend = tokenizer.backend_tokenizer
    after = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *after])


def length_of(tokenizer: Any, positions: int, model: str) -> int:
    """How many tokens a text has at most: the tokenizer's own limit, or the tower's where it says none."""
    limit = tokenizer.model_max_length
    if not isinstance(limit, int | float) or isinstance(limit, bool) or limit < 2:
        raise ExportRefused(f"The tokenizer of {model} has model_max_length {limit!r}; it must be a number from 2.")
    if limit > positions and limit < VERY_LARGE_INTEGER:
        raise ExportRefused(
            f"The tokenizer of {model} makes up to {limit} tokens of a text, but its text tower has {positions} "
            "positions: it is not this tower's tokenizer."
        )
    return int(min(limit, positions))


def check_vocabulary(tokenizer: Any, size: int, model: str) -> None:
    """Raises ExportRefused for a tokenizer that knows tokens which the tower's table of embeddings does not have."""
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= size:
        raise ExportRefused(
            f"The tokenizer of {model} has tokens up to {highest}, but its text tower knows {size}: it is not this "
            "tower's tokenizer."
        )
    if highest < 0:
        raise ExportRefused(f"The tokenizer of {model} has no tokens at all.")


def freeze(tokenizer: Any, length: int, model: str, *, padded: bool) -> bytes:
    """tokenizer.json, which truncates to `length`, and pads to it where `padded`, by itself."""
    with _refusing(f"The tokenizer of {model} cannot be written as a tokenizer.json"):
        if isinstance(tokenizer, PreTrainedTokenizerFast):
            made = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        else:
            made = _from_sentencepiece(tokenizer)
        made.enable_truncation(length, direction=tokenizer.truncation_side)
        made.no_padding()
        if padded:
            if tokenizer.pad_token_id is None:
                raise ExportRefused(f"The tokenizer of {model} has no padding token, and its text tower needs one.")
            made.enable_padding(
                direction=tokenizer.padding_side,
                pad_id=tokenizer.pad_token_id,
                pad_token=str(tokenizer.pad_token),
                length=length,
            )
        data: bytes = made.to_str().encode()
    return data


def _from_sentencepiece(tokenizer: Any) -> Tokenizer:
    """SiglipTokenizer: what it does in Python and in sentencepiece, as a pipeline of `tokenizers`.

    Python's: lower case; no ASCII punctuation; white space runs become one space; special tokens cut the text, and
    what they cut is stripped; a first "▁". Then sentencepiece's: its table of characters, white space once more, and
    the most probable pieces. Special tokens are one character each on the way, which no text has: cutting at them by
    `tokenizers` itself would come before the lower case, and leave no part knowing whether it is the first.

    Where two ways to cut a text are equally probable (one letter many times over), the two may choose differently:
    sentencepiece adds in single precision.
    """
    proto = import_protobuf().ModelProto.FromString(Path(tokenizer.vocab_file).read_bytes())
    spec = proto.trainer_spec
    if spec.model_type != spec.UNIGRAM:
        raise ExportRefused("Its spiece.model is not of the kind (unigram) that SigLIP's is.")
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    before: list[Any] = [normalizers.Replace(Regex(f"[{_MARKS[0]}-{_MARKS[-1]}]"), "\ufffe")]
    after: list[Any] = []
    special = sorted(tokenizer.added_tokens_decoder.items(), key=lambda one: (-len(one[1].content), one[0]))
    for mark, (number, token) in zip(_MARKS, special, strict=False):
        # Lower case comes first, so that "</S>" is one as well; but not where the token itself is no lower case.
        steps = after if token.content == token.content.lower() else before
        steps.append(normalizers.Replace(token.content, mark))
        pieces[number] = (mark, 0.0)
    marks = f"[{_MARKS[0]}-{_MARKS[-1]}]"
    stripped = [normalizers.Replace(Regex(f" +(?={marks})|(?<={marks}) +"), ""), normalizers.Strip()]
    steps = [*before, normalizers.Replace("▁", " ")]
    if tokenizer.do_lower_case:
        steps.append(normalizers.Lowercase())
    punctuation = "".join(f"\\{mark}" for mark in string.punctuation)
    steps += [
        *after,
        normalizers.Replace(Regex(f"[{punctuation}]"), ""),
        # Python's white space has four separators that the regular expression's lacks.
        normalizers.Replace(Regex(r"[\s\x1c-\x1f]+"), " "),
        *stripped,
    ]
    if proto.normalizer_spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap))
    if proto.normalizer_spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), *stripped]
    steps += [
        normalizers.Replace(" ", "▁"),
        normalizers.Prepend("▁"),
        normalizers.Replace(Regex(f"^▁(?={marks})"), ""),
    ]
    made = Tokenizer(models.Unigram(pieces, unk_id=spec.unk_id, byte_fallback=spec.byte_fallback))
    made.normalizer = normalizers.Sequence(steps)
    end = (str(tokenizer.eos_token), tokenizer.eos_token_id)
    made.post_processor = processors.TemplateProcessing(single=["$A", end[0]], special_tokens=[end])
    return made


def prove_tokens(tower: TextTower) -> int:
    """Run TEXTS through the checkpoint's own tokenizer and through the one made from it; how many texts, all equal.

    Raises ExportRefused with a table of the texts whose tokens differ.
    """
    with _refusing("The tokenizer does not run"), quiet():
        made = Tokenizer.from_str(tower.tokenizer_json.decode())
        differing = [
            (text, theirs, ours)
            for text in TEXTS
            if (theirs := tower.reference_tokens(text).tolist()) != (ours := made.encode(text).ids)
        ]
    if differing:
        table = "\n".join(
            f"  {ascii(text)[:40]:<40}  {_first_difference(theirs, ours)}"
            for text, theirs, ours in differing[:_DIFFERENT_SHOWN]
        )
        raise ExportRefused(
            f"The artifact does not make the tokens that the checkpoint's own tokenizer makes: {len(differing)} of "
            f"{len(TEXTS)} texts differ.\n{table}"
        )
    return len(TEXTS)


def _first_difference(theirs: list[int], ours: list[int]) -> str:
    at = next((at for at, (a, b) in enumerate(zip(theirs, ours, strict=False)) if a != b), min(len(theirs), len(ours)))
    shown = (", ".join(map(str, one[at : at + 3])) or "nothing" for one in (theirs, ours))
    return f"at {at}: {' / '.join(shown)} ({len(theirs)} / {len(ours)} tokens)"


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Raise ExportRefused for any error of a tokenizer; `tokenizers` panics with a BaseException."""
    try:
        yield
    except ExportRefused:
        raise
    except BaseException as exc:
        if is_out_of_memory(exc) or not (isinstance(exc, Exception) or type(exc).__name__ == "PanicException"):
            raise
        said = (str(exc).splitlines() or [""])[0][:200].rstrip(".")
        raise ExportRefused(
            f"{what}; it is damaged, or a part of it is missing ({type(exc).__name__}: {said})."
        ) from exc
