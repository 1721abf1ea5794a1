from __future__ import annotations

from tests.unit.api.pages.kit import site

__all__ = ["site"]
