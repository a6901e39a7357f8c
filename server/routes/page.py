"""The page at /, and the files it needs."""

from __future__ import annotations

from pathlib import Path

from litestar import MediaType, Response, get
from litestar.static_files import create_static_files_router

WEB = Path(__file__).parent.parent / "web"

# The page brings everything with it, so the browser need not be allowed anything else.
_POLICY = "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; frame-ancestors 'none'"
SECURITY = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@get("/", include_in_schema=False)
async def page() -> Response[bytes]:
    """Drop, paste or choose a picture, and see its matches."""
    html = (WEB / "index.html").read_bytes()
    return Response(html, media_type=MediaType.HTML, headers={**SECURITY, "Cache-Control": "no-cache"})


web = create_static_files_router("/web", [WEB], include_in_schema=False, cache_control=None, name="web")
