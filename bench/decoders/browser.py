"""Chromium's canvas as a reader: what a visitor sees of a file on a white page."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bench.decoders.case import Case
from bench.decoders.worker import Answer

CHROMIUM = Path("/usr/bin/chromium")
NAME = "Chromium"
# Quiet, and without a sandbox that root cannot have.
_FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
          "--disable-sync", "--no-first-run")  # fmt: skip
_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
    "AVIF": "image/avif",
    "HEIF": "image/heic",
    "JXL": "image/jxl",
}
# Turned by EXIF; a profile applied only where asked, so that samples can be compared; laid on white, as a page would.
_SCRIPT = """async ([text, type, colours]) => {
  const bytes = Uint8Array.from(atob(text), one => one.charCodeAt(0));
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes], {type}), {colorSpaceConversion: colours});
  } catch (error) {
    return {error: String(error)};
  }
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", {colorSpace: "srgb", willReadFrequently: true});
  context.fillStyle = "white";
  context.fillRect(0, 0, bitmap.width, bitmap.height);
  context.drawImage(bitmap, 0, 0);
  const seen = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
  let out = "";
  for (let at = 0; at < seen.length; at += 8192) out += String.fromCharCode(...seen.subarray(at, at + 8192));
  return {width: bitmap.width, height: bitmap.height, seen: btoa(out)};
}"""


@contextlib.contextmanager
def chromium(program: Path = CHROMIUM) -> Iterator[tuple[Callable[[Case], Answer], str]]:
    """A function that has a case shown, and the browser's version. Raises playwright's Error at the start."""
    from playwright.sync_api import Error, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(program), args=list(_FLAGS))
        try:
            page = browser.new_page()

            def show(case: Case) -> Answer:
                try:
                    text = base64.b64encode(case.data).decode()
                    got = page.evaluate(_SCRIPT, [text, _TYPES[case.format], "default" if case.managed else "none"])
                except Error as exc:
                    return Answer("died", str(exc).splitlines()[0])
                if "error" in got:
                    return Answer("refused", got["error"])
                seen = np.frombuffer(base64.b64decode(got["seen"]), np.uint8)
                return Answer("read", samples=seen.reshape(got["height"], got["width"], 4)[..., :3])

            yield show, browser.version
        finally:
            browser.close()
