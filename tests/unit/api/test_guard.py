from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest
from fastapi import FastAPI

from orchestrator.api.guard import Guard, PublicUrl, public_url
from orchestrator.errors import ConfigError


@pytest.fixture
def app() -> FastAPI:
    app = FastAPI()

    @app.api_route("/things/{name:name}/parts/{part:name}", methods=["GET", "POST"])
    async def found(name: str, part: str) -> list[str]:
        return [name, part]

    app.add_middleware(Guard)
    return app


async def ask(app: FastAPI, method: str, path: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost:7350") as http:
        return await http.request(method, path, headers=headers)


@pytest.mark.parametrize("name", ["plain", "a/b", "a%2Fb", "parts", "ä ö?#", "100%"])
async def test_names_may_hold_anything(app: FastAPI, name: str) -> None:
    response = await ask(app, "GET", f"/things/{quote(name, safe='')}/parts/{quote(name, safe='')}")
    assert response.json() == [name, name]


@pytest.mark.parametrize(
    ("method", "headers", "error"),
    [
        ("GET", {"host": "evil.example"}, "foreign-host"),
        ("GET", {"host": "[::1"}, "foreign-host"),
        ("POST", {"host": "evil.example:7350"}, "foreign-host"),
        ("POST", {"origin": "http://evil.example"}, "foreign-origin"),
        ("POST", {"origin": "http://localhost:9999"}, "foreign-origin"),
        ("POST", {"origin": "null"}, "foreign-origin"),
    ],
)
async def test_other_sites_are_refused(
    app: FastAPI, method: str, headers: dict[str, str], error: str
) -> None:
    response = await ask(app, method, "/things/a/parts/b", **headers)
    assert (response.status_code, response.json()["error"]) == (403, error)


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {}),
        ("GET", {"origin": "http://evil.example"}),  # the browser does not show it the answer
        ("POST", {}),
        ("POST", {"origin": "http://localhost:7350"}),
        ("POST", {"host": "127.0.0.1:7350", "origin": "http://127.0.0.1:7350"}),
        ("POST", {"host": "[::1]:7350"}),
    ],
)
async def test_programs_and_own_pages_are_served(app: FastAPI, method: str, headers: dict[str, str]) -> None:
    assert (await ask(app, method, "/things/a/parts/b", **headers)).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "ops.example:8443", "origin": "https://ops.example:8443"}, 200),
        ({"host": "127.0.0.1:7350", "origin": "https://ops.example:8443"}, 200),  # nginx, as it comes
        ({"host": "127.0.0.1:7350", "origin": "http://ops.example:8443"}, 403),
        ({"host": "127.0.0.1:7350", "origin": "https://evil.example"}, 403),
        ({"host": "evil.example", "origin": "https://ops.example:8443"}, 403),
    ],
)
async def test_a_proxy_names_itself_or_this_machine(headers: dict[str, str], status: int) -> None:
    app = FastAPI()
    app.post("/things")(lambda: None)
    app.add_middleware(Guard, origin="https://ops.example:8443")
    assert (await ask(app, "POST", "/things", **headers)).status_code == status


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", PublicUrl("", "")),
        ("https://Ops.example", PublicUrl("https://ops.example", "")),
        ("http://ops.example:8080/", PublicUrl("http://ops.example:8080", "")),
        ("https://ops.example/a/b/", PublicUrl("https://ops.example", "/a/b")),
    ],
)
def test_a_public_address_has_two_parts(text: str, found: PublicUrl) -> None:
    assert public_url(text) == found


@pytest.mark.parametrize(
    "text",
    ["ops.example", "/orchestrator", "ftp://ops.example", "https://a@b", "https://[::1", "https://a?b=c"],
)
def test_what_is_no_public_address_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="is no address of a page"):
        public_url(text)
