"""The page at /, and the files it needs."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from html import escape
from pathlib import Path

from litestar import MediaType, Response, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from server.errors import KeysUnknown, NotFound
from server.http.cors import ANYBODY
from server.http.etags import has_it
from server.http.prefix import HEADER as PREFIX_HEADER
from server.http.prefix import prefix_of
from server.http.request import Request
from server.http.security import EMBEDDABLE, PAGE
from server.lifespan import Services

WEB = Path(__file__).parent.parent / "web"
_ELSEWHERE = ("twinlens-instantsearch.js", "twinlens-search.js")
"""Scripts for the pages of others. A browser asks for a module of another origin by CORS, without credentials."""

_SCRIPTS = (
    "address.js",
    "app.js",
    "card.js",
    "catalogue.js",
    "chips.js",
    "crop.js",
    "element.js",
    "facets.js",
    "failure.js",
    "figures.js",
    "intake.js",
    "key.js",
    "least.js",
    "operator.js",
    "outcome.js",
    "plot.js",
    "query.js",
    "samples.js",
    "scaling.js",
    "search.js",
    "sought.js",
    "swagger.js",
    "table.js",
    "thumbnail.js",
    "timeline.js",
    "traffic.js",
    "upload.js",
    "wording.js",
)
_FILES = {
    **dict.fromkeys((*_SCRIPTS, *_ELSEWHERE), "text/javascript"),
    "style.css": "text/css",
    "operator.css": "text/css",
    "icon.svg": "image/svg+xml",
}
_SWAGGER_FILES = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}


@get("/", include_in_schema=False)
async def page(request: Request, services: NamedDependency[Services]) -> Response[bytes]:
    """The page: type words, or drop, paste or choose a picture, and see the matches.

    What it must know of the server before it asks for anything stands in attributes of its `body`.

    Its addresses are relative. Where a proxy names its prefix they are relative to that, for a browser may be at
    `/prefix` as well as at `/prefix/`.
    """
    html = (WEB / "index.html").read_bytes()
    # Written into the page itself, so that the box for words neither appears late nor disappears again.
    known = {b"words": services.embedder.reads_text, b"word-grades": services.text_grades is not None}
    for name, there in known.items():
        if there:
            html = html.replace(b'data-%b="off"' % name, b'data-%b="on"' % name, 1)
    html = html.replace(b'data-max-upload=""', b'data-max-upload="%d"' % services.settings.max_upload, 1)
    return shown(request, services, html)


def shown(request: Request, services: Services, html: bytes, security: Mapping[str, str] = PAGE) -> Response[bytes]:
    """A page that finds its files below the proxy's prefix, and that knows whether it needs a key."""
    if _keys_needed(services):
        html = html.replace(b'data-keys="off"', b'data-keys="on"', 1)
    if prefix := prefix_of(request):
        html = html.replace(b"<head>", f'<head>\n  <base href="{escape(prefix)}/">'.encode(), 1)
    headers = {**security, "Cache-Control": "no-cache", "Vary": PREFIX_HEADER}
    return Response(html, media_type=MediaType.HTML, headers=headers)


def _keys_needed(services: Services) -> bool:
    try:
        return services.keyring.needed
    except KeysUnknown:
        return True


@get("/web/{name:str}", include_in_schema=False)
async def web(request: Request, name: FromPath[str]) -> Response[bytes]:
    """A file that the page needs, or a script for the pages of others, which any page may load."""
    if name not in _FILES:
        raise NotFound
    data = (WEB / name).read_bytes()
    if name in _ELSEWHERE:
        return _for_pages_elsewhere(request, name, data)
    headers = {**PAGE, "Cache-Control": "no-cache"}
    return Response(data, media_type=_FILES[name], headers=headers)


def _for_pages_elsewhere(request: Request, name: str, data: bytes) -> Response[bytes]:
    """A script that says who may load it: everybody. It holds no secret, and does nothing without a key that does."""
    etag = f'"{sha256(data).hexdigest()[:32]}"'
    headers = {**EMBEDDABLE, ANYBODY: "*", "Cache-Control": "public, max-age=3600", "ETag": etag}
    if has_it(request, etag):
        return Response(b"", status_code=304, headers=headers)
    return Response(data, media_type=_FILES[name], headers=headers)


@get("/web/swagger-ui/{name:str}", include_in_schema=False)
async def swagger_file(name: FromPath[str]) -> Response[bytes]:
    """A file of Swagger UI, for the page that shows the API's description. They are large and seldom change."""
    if name not in _SWAGGER_FILES:
        raise NotFound
    headers = {**PAGE, "Cache-Control": "public, max-age=3600"}
    return Response((WEB / "swagger-ui" / name).read_bytes(), media_type=_SWAGGER_FILES[name], headers=headers)
