"""From an address to a log."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from orchestrator.errors import ConfigError
from orchestrator.log.aio import AioLog


def connect(address: str) -> AioLog:
    """The asyncio side of the log at an address such as ``http://127.0.0.1:7350``. Sends nothing yet.

    Raises:
        ConfigError: the address is of no known kind.
    """
    scheme = urlsplit(address).scheme
    opener = _SCHEMES.get(scheme)
    if opener is None:
        raise ConfigError(
            f"the address {address!r} is not understood; expected one like 'http://127.0.0.1:7350'"
        )
    return opener(address)


def _http(address: str) -> AioLog:
    from orchestrator.log.http import HttpLog  # late: who runs in one process needs no HTTP client

    return HttpLog(address)


def _kafka(address: str) -> AioLog:
    raise ConfigError(
        f"{address!r}: Kafka is not in this version; use an address like 'http://127.0.0.1:7350'"
    )


_SCHEMES: dict[str, Callable[[str], AioLog]] = {"http": _http, "https": _http, "kafka": _kafka}
