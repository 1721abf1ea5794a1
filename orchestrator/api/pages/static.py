"""The files that pages load: ours, and those of others in ``static/vendor``, named by their content.

They are read once. A page names a file with the first digits of its sum, so a browser keeps it for good and
asks for another one when it has changed.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Response
from starlette.exceptions import HTTPException

FOLDER = Path(__file__).parent / "static"

_KEPT = "public, max-age=31536000, immutable"
_DIGEST_CHARS = 12
"""Of a file's sum: it tells versions apart, and guards nothing."""

_KINDS = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""What is served, by the end of its name; anything else in the folder is not."""


class Asset(NamedTuple):
    """A file. ``path`` is where it is served, below the page's root."""

    content: bytes
    digest: str
    media_type: str
    path: str


def _read(file: Path) -> Asset:
    content = file.read_bytes()
    digest = sha256(content).hexdigest()[:_DIGEST_CHARS]
    return Asset(content, digest, _KINDS[file.suffix], f"/static/{digest}/{_name(file)}")


def _name(file: Path) -> str:
    return file.relative_to(FOLDER).as_posix()


ASSETS = {_name(file): _read(file) for file in sorted(FOLDER.rglob("*")) if file.suffix in _KINDS}
"""All files, by their names below ``static/``."""


def static_routes() -> APIRouter:
    """Where the files are served."""
    router = APIRouter(include_in_schema=False)

    @router.api_route("/static/{digest}/{name:path}", methods=["GET", "HEAD"])
    async def static(digest: str, name: str) -> Response:
        asset = ASSETS.get(name)
        if asset is None:
            raise HTTPException(404, f"there is no file {name!r}")
        headers = {
            # A page of another version asked: it gets what there is, and asks again next time.
            "Cache-Control": _KEPT if digest == asset.digest else "no-cache",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(asset.content, headers=headers, media_type=asset.media_type)

    return router
