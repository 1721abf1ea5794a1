"""The page of the HTTP API is a page as all others are."""

from __future__ import annotations

from tests.unit.api.pages.kit import Site, words


async def test_every_call_is_on_the_page_with_its_examples(site: Site) -> None:
    document = (await site.http.get("/openapi.json")).json()
    page = await site.get("/docs")
    listed = [f"{method.upper()} {path}" for path, of in document["paths"].items() for method in of]
    assert page.words("h2/code") == listed
    (start,) = [one for one in page.all("section") if words(one).startswith("POST /api/v1/workflows Start")]
    assert [one.text for one in start.findall("dl/dt")] == ["Body", "201", "default"]
    assert '"id": "order-17"' in "".join(start.find("dl/dd/pre").itertext())


async def test_it_leads_back_and_to_the_document(site: Site) -> None:
    page = await site.get("/docs")
    assert page.link("openapi.json") == "/openapi.json"
    assert "/workflows" in page.links()
