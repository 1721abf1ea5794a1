"""The page in a real browser. Everything that needs none is tested by ``tests/unit/api/pages``."""
