"""``/docs``: the HTTP API, from its OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from fastapi import APIRouter, Request, Response

from orchestrator.api.pages.rendering import page_router, render


class Told(NamedTuple):
    """What a call takes, or what it answers with a status. ``example`` "" is none."""

    title: str
    words: str
    example: str


class Call(NamedTuple):
    """One method of one path."""

    method: str
    path: str
    summary: str
    about: str
    told: tuple[Told, ...]


def docs_pages(openapi: Callable[[], dict[str, Any]]) -> APIRouter:
    """The page; ``openapi`` makes the document."""
    router = page_router()

    @router.get("/docs")
    async def docs(request: Request) -> Response:
        document = openapi()
        return render(request, "docs.html", about=document["info"]["description"], calls=calls(document))

    return router


def calls(document: dict[str, Any]) -> list[Call]:
    """What can be called, in the order of the document."""
    return [
        Call(
            method.upper(),
            path,
            found.get("summary", ""),
            found.get("description", ""),
            tuple(
                _told(title, part)
                for title, part in [("Body", found.get("requestBody")), *found["responses"].items()]
                if part
            ),
        )
        for path, methods in document["paths"].items()
        for method, found in methods.items()
    ]


def _told(title: str, part: dict[str, Any]) -> Told:
    content = part.get("content", {}).get("application/json", {})
    example = json.dumps(content["example"], indent=2) if "example" in content else ""
    return Told(title, part.get("description", ""), example)
