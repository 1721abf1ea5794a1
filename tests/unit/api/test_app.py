from __future__ import annotations

import json
import re

import httpx


async def test_openapi_has_every_schema_that_it_refers_to(http: httpx.AsyncClient) -> None:
    text = (await http.get("http://127.0.0.1:7350/openapi.json")).text
    found = json.loads(text)
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert named
    assert named <= found["components"]["schemas"].keys()


async def test_openapi_shows_an_example_of_every_body(http: httpx.AsyncClient) -> None:
    found = (await http.get("http://127.0.0.1:7350/openapi.json")).json()
    bodies = [
        route["requestBody"]["content"]["application/json"]
        for methods in found["paths"].values()
        for route in methods.values()
        if "requestBody" in route
    ]
    assert len(bodies) >= 7
    assert all(body["example"] for body in bodies)
