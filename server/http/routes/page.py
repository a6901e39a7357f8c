"""The page at /, and the files it needs."""

from __future__ import annotations

from pathlib import Path

from litestar import MediaType, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.errors import NotFound
from server.lifespan import Services

WEB = Path(__file__).parent.parent / "web"
_FILES = {"app.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml"}

# The page loads nothing from elsewhere, so the browser need not be allowed to.
_POLICY = "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; frame-ancestors 'none'"
SECURITY = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@get("/", include_in_schema=False)
async def page(services: NamedDependency[Services]) -> Response[bytes]:
    """The page: type words, or drop, paste or choose a picture, and see the matches."""
    html = (WEB / "index.html").read_bytes()
    if services.embedder.reads_text:
        # Written into the page itself, so that the box for words neither appears late nor disappears again.
        html = html.replace(b'data-words="off"', b'data-words="on"', 1)
    return Response(html, media_type=MediaType.HTML, headers={**SECURITY, "Cache-Control": "no-cache"})


@get("/web/{name:str}", include_in_schema=False)
async def web(name: FromPath[str]) -> Response[bytes]:
    """A file that the page needs."""
    if name not in _FILES:
        raise NotFound
    headers = {**SECURITY, "Cache-Control": "no-cache"}
    return Response((WEB / name).read_bytes(), media_type=_FILES[name], headers=headers)
