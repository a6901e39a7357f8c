"""Which format some bytes are in, and what is said of those that are not read."""

from __future__ import annotations

import gzip
import zlib

import pytest

from server import errors
from server.preprocessing import media
from server.preprocessing.formats import AVIF, HEIC, HEIF, Format, sniff
from tests.support.heif import box, file


def said(data: bytes) -> str:
    with pytest.raises(errors.NotAPicture) as caught:
        sniff(data)
    return caught.value.sentence


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xff\x0a" + bytes(20), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"II\xbc\x01", "JPEG XR"),
        (b"%PDF-1.7\n", "PDF"),
        (b"\r\n junk before %PDF-1.4", "PDF"),
        (b"8BPS\0\1", "PSD"),
        (b"\0\0\1\0\1\0\x10\x10", "ICO"),
        (b"\0\0\2\0\1\0\x10\x10", "CUR"),
        (b"icns", "ICNS"),
        (b"FUJIFILMCCD-RAW 0201", "raw"),
        (b"IIU\0\x18\0\0\0", "raw"),
        (b"IIRO\x08\0\0\0", "raw"),
        (b"MMOR\0\0\0\x08", "raw"),
        (box(b"ftyp", b"crx \0\0\0\1crx isom"), "raw"),
        (box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41"), "film"),
        (box(b"ftyp", b"qt  \0\0\2\0qt  "), "film"),
        (box(b"moov", bytes(20)), "film"),
        (b"\x1aE\xdf\xa3\x93B\x82", "film"),
        (b"RIFF\0\0\0\0AVI LIST", "film"),
        (b"RIFF\0\0\0\0WAVEfmt ", "sound"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "PostScript"),
        (b"PK\3\4\x14\0", "archive"),
        (b"PK\3\4" + bytes(26) + b"[Content_Types].xml", "Office"),
        (b"PK\3\4" + bytes(26) + b"mimetypeapplication/vnd.oasis.opendocument.text", "Office"),
        (b"\x76\x2f\x31\x01", "OpenEXR"),
        (b"#?RADIANCE\n", "Radiance"),
        (b"DDS |", "DDS"),
        (b"P6\n3 2\n255\n", "Netpbm"),
        (b"P5 3 2 255 ", "Netpbm"),
        (b"qoif\0\0", "QOI"),
        (b"\xd7\xcd\xc6\x9a", "metafile"),
        (b"\1\0\0\0" + bytes(36) + b" EMF", "metafile"),
        (b"gimp xcf v011", "XCF"),
        (b"FLIF", "FLIF"),
        (b"BPG\xfb", "BPG"),
        (b"SIMPLE  =                    T", "FITS"),
        (bytes(128) + b"DICM", "DICOM"),
        (b"\x8aMNG\r\n\x1a\n", "MNG"),
        (b"\x0a\5\1\x08", "PCX"),
        (bytes(100) + b"TRUEVISION-XFILE.\0", "TGA"),
        (b"data:image/png;base64,iVBORw0KGgo", "base64"),
        (b"/9j/4AAQSkZJRg", "base64"),
        (SVG, "SVG"),
        (b"\xef\xbb\xbf" + SVG, "SVG"),
        (SVG.decode().encode("utf-16"), "SVG"),
        (b'<?xml version="1.0"?>\n<!-- a > b --><!DOCTYPE svg [<!ENTITY a "<x>">]>\n' + SVG, "SVG"),
        (b'<svg:svg xmlns:svg="http://www.w3.org/2000/svg"/>', "SVG"),
        (gzip.compress(SVG, mtime=0), "SVG"),
        (gzip.compress(b"tar", mtime=0), "gzip"),
        (b"\x1f\x8b damaged", "gzip"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\n<HTML><body>404</body>", "web page"),
        (b'<?xml version="1.0"?><feed/>', "XML or JSON"),
        (b'{"error": "not found"}', "XML or JSON"),
        (b"[1, 2]", "XML or JSON"),
    ],
)
def test_what_is_often_sent_is_named(data: bytes, name: str) -> None:
    sentence = said(data)
    assert sentence.startswith("This is ")
    assert name in sentence
    assert ": " in sentence  # and what to send instead


@pytest.mark.parametrize(
    "data", [b"hello", b"\0" * 600, b"<", b"< svg", b"{", b"\xff\xfe", b"\0\0\2\0" + bytes(40), b"PA 1"]
)
def test_what_we_do_not_know_gets_the_list_of_what_is_read(data: bytes) -> None:
    assert (
        said(data) == "The upload is not a picture in a format we read: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC."
    )


@pytest.mark.parametrize(
    ("brands", "form"),
    [
        (b"avif\0\0\0\0mif1miaf", AVIF),
        (b"avis\0\0\0\0msf1", AVIF),
        (b"mif1\0\0\0\0mif1avifmiaf", AVIF),
        (b"mif1\0\0\0\0" + b"abcd" * 30 + b"avif", AVIF),
        (b"heic\0\0\0\0mif1heic", HEIC),
        (b"heic\0\0\0\0mif1avif", HEIC),
        (b"heix\0\0\0\0mif1", HEIC),
        (b"hevc\0\0\0\0msf1hevc", HEIC),
        (b"mif1\0\0\0\0mif1heic", HEIC),
        (b"mif1\0\0\0\0mif1", HEIF),
        (b"msf1\0\0\0\0iso8", HEIF),
    ],
)
def test_the_brands_of_a_file_tell_heic_from_avif(brands: bytes, form: Format) -> None:
    assert sniff(box(b"ftyp", brands)) is form
    assert sniff(box(b"ftyp", brands) + box(b"free", b"avisheicmif1")) is form
    long = (1).to_bytes(4) + b"ftyp" + (16 + len(brands)).to_bytes(8) + brands
    assert sniff(long) is form


def test_only_the_brands_within_their_box_count() -> None:
    assert "film" in said(box(b"ftyp", b"isom\0\0\2\0") + box(b"avif") + box(b"heic"))
    assert "film" in said(box(b"ftyp", b"isomavifisom"))  # where the version of the major brand stands


def test_a_file_that_names_no_end_is_not_read_to_its_end() -> None:
    """Brands without end, a drawing's comments without end, a page packed to nothing: each is looked at in part."""
    assert "film" in said(bytes(4) + b"ftypisom" + bytes(4) + b"abcd" * 2_000_000 + b"heic")
    assert said(b"<!-- a -->" * 500_000 + SVG).startswith("The upload")
    assert said(b"<!" * 2_000_000).startswith("The upload")
    packed = zlib.compressobj(9, wbits=31)
    assert "gzip" in said(packed.compress(bytes(50_000_000)) + packed.flush())


def test_a_refusal_by_name_comes_from_measuring_too() -> None:
    for ask in (media.decode, media.measure):
        with pytest.raises(errors.NotAPicture, match="PDF"):
            ask(b"%PDF-1.7", max_pixels=100)
    assert media.measure(file("plain"), max_pixels=10**6) == (96, 64)
