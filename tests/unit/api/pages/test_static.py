"""The files that pages load."""

from __future__ import annotations

import re
import tomllib
from hashlib import sha256

from orchestrator.api.pages.static import ASSETS, FOLDER
from tests.unit.api.pages.kit import Site

VENDOR = FOLDER / "vendor"


def test_files_of_others_are_as_they_gave_them_and_say_what_they_are() -> None:
    packages = tomllib.loads((VENDOR / "vendored.toml").read_text())
    sums = {name: found for package in packages.values() for name, found in package["files"].items()}
    assert sums == {
        file.name: sha256(file.read_bytes()).hexdigest()
        for file in VENDOR.iterdir()
        if file.name != "vendored.toml"
    }
    for package in packages.values():
        assert re.fullmatch(r"\d+(\.\d+)+", package["version"])
        assert package["licence"] in ("MIT", "0BSD")
        assert "Permission" in package["text"]


async def test_a_file_is_kept_for_good_under_the_name_of_its_content(site: Site) -> None:
    for name, asset in ASSETS.items():
        answer = await site.http.get(asset.path)
        assert answer.content == (FOLDER / name).read_bytes()
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["content-type"] == asset.media_type
        other = await site.http.get(f"/static/0123456789ab/{name}")
        assert (other.content, other.headers["cache-control"]) == (answer.content, "no-cache")


async def test_nothing_else_is_served(site: Site) -> None:
    for name in ("nothing.js", "vendor/vendored.toml", "../__init__.py", "..%2F__init__.py"):
        assert (await site.http.get(f"/static/0/{name}")).status_code == 404


def test_our_own_files_load_nothing_and_make_nothing_of_text() -> None:
    for name in ASSETS:
        if not name.startswith("vendor/"):
            text = (FOLDER / name).read_text().replace("http://www.w3.org/2000/svg", "")
            assert not re.search(
                r"https?://|@import|url\(|innerHTML|insertAdjacent|\beval\b|Function\(", text
            ), name


def test_colours_can_be_told_from_their_ground_in_both_schemes() -> None:
    css = (FOLDER / "page.css").read_text()
    colours = {
        name: (light, dark)
        for name, light, dark in re.findall(r"--([\w-]+): light-dark\(#(\w{6}), #(\w{6})\)", css)
    }
    for scheme in (0, 1):
        for name in ("text", "muted", "accent", "good", "bad", "warn", "off"):
            for ground in ("ground", "raised", "tint"):
                found = contrast(colours[name][scheme], colours[ground][scheme])
                assert found >= 4.5, f"{name} on {ground}: {found:.2f}, and WCAG AA asks for 4.5"
        assert contrast(colours["on-accent"][scheme], colours["accent"][scheme]) >= 4.5


def contrast(one: str, other: str) -> float:
    """As WCAG reckons it."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
