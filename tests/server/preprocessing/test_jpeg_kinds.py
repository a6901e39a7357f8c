"""A kind of JPEG that is not read here is named, and is not called damaged."""

from __future__ import annotations

from typing import Any

import pytest

from server import errors
from server.preprocessing import media
from tests.support.jpegs import noise, patched, segment, with_segments
from tests.support.pictures import in_format

DATA = in_format(noise(64, 48), "JPEG")


def refusal(data: bytes) -> errors.MediaRejected:
    """Of measuring and of decoding, which agree."""
    found = []
    for call in (media.measure, media.decode):
        with pytest.raises(errors.MediaRejected) as caught:
            call(data, max_pixels=10**7)
        found.append(caught.value)
    assert (type(found[0]), found[0].sentence) == (type(found[1]), found[1].sentence)
    return found[0]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"precision": 12}, "12 bits a sample"),
        ({"precision": 16}, "16 bits a sample"),
        ({"marker": 0xC1, "precision": 12}, "12 bits a sample"),
        ({"marker": 0xC3}, "is lossless"),
        ({"marker": 0xC3, "precision": 16}, "is lossless"),
        ({"marker": 0xCB}, "is lossless"),
        ({"marker": 0xF7}, "is a JPEG-LS"),
        ({"marker": 0xC5}, "is hierarchical"),
        ({"marker": 0xCE}, "is hierarchical"),
        ({"marker": 0xDE}, "is hierarchical"),
        ({"marker": 0xC9}, "is coded arithmetically"),
        ({"marker": 0xCA}, "is coded arithmetically"),
        ({"count": 2}, "2 colour components"),
        ({"height": 0}, "height only behind the picture"),
        ({"width": 65_501}, "at most 65,500 a side"),
        ({"height": 65_535, "width": 1}, "at most 65,500 a side"),
        ({"factors": 0x32}, "fraction of its size"),
    ],
)
def test_a_kind_that_is_not_read_is_named(changes: dict[str, Any], named: str) -> None:
    data = DATA
    if "factors" in changes:  # three to two, of the first and the second component
        at = data.index(b"\xff\xc0") + 14
        data = data[:at] + b"\x21" + data[at + 1 :]
    refused = refusal(patched(data, **changes))
    assert type(refused) is errors.UnsupportedPicture
    assert named in refused.sentence
    assert "damaged" not in refused.sentence


def test_five_components_are_named() -> None:
    at = DATA.index(b"\xff\xc0")
    frame = segment(0xC0, DATA[at + 4 : at + 9] + b"\x05" + b"".join(bytes((number, 0x11, 0)) for number in range(5)))
    refused = refusal(DATA[:at] + frame + DATA[at + 19 :])
    assert type(refused) is errors.UnsupportedPicture
    assert "5 colour components" in refused.sentence


def test_a_hierarchical_jpeg_with_its_frames_is_named() -> None:
    at = DATA.index(b"\xff\xc0")
    hierarchical = with_segments(DATA, segment(0xDE, DATA[at + 4 : at + 19]), before=b"\xff\xc0")
    assert "is hierarchical" in refusal(hierarchical).sentence


@pytest.mark.parametrize(
    "changes", [{"precision": 0}, {"precision": 255}, {"width": 0}, {"count": 0}, {"count": 9}, {"factors": 0x51}]
)
def test_a_header_that_no_kind_has_is_damage(changes: dict[str, Any]) -> None:
    assert type(refusal(patched(DATA, **changes))) is errors.UnreadablePicture


def test_two_frame_headers_are_damage() -> None:
    at = DATA.index(b"\xff\xc0")
    assert type(refusal(DATA[:at] + DATA[at : at + 19] + DATA[at:])) is errors.UnreadablePicture


def test_extended_and_progressive_jpegs_are_read() -> None:
    for data in (patched(DATA, marker=0xC1), in_format(noise(64, 48), "JPEG", progressive=True)):
        assert media.decode(data, max_pixels=10**7).width == 64
