"""A Chromium of this machine: found, never fetched. ``CHROMIUM`` names one; else it is looked for."""

from __future__ import annotations

import os
import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome")
"""As systems call it."""

HOW_TO_INSTALL = "on Debian and Ubuntu: apt install chromium; or name one: CHROMIUM=/path/to/chromium"

ARGUMENTS = (
    "--no-sandbox",  # root, as which containers run, has none; it only ever sees pages of ours
    "--disable-dev-shm-usage",  # 64 MB in a container, which a page may need more than
)


class NoBrowser(Exception):
    """This machine has no Chromium; says where it was looked for."""


def chromium() -> str:
    """The path of a Chromium.

    Raises:
        NoBrowser: there is none.
    """
    given = os.environ.get("CHROMIUM")
    for name in [given] if given else NAMES:
        if found := shutil.which(name):
            return found
    raise NoBrowser(f"no {given or ', '.join(NAMES)} here; {HOW_TO_INSTALL}")
