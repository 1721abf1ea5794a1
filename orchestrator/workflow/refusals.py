"""What code may not ask of the event loop of a workflow, because it cannot be replayed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn

from orchestrator.errors import NotDeterministic


class RefusingLoop(asyncio.AbstractEventLoop):
    """Raises ``NotDeterministic``, with the name of what to use, from each method of the table below."""


_FORBIDDEN = {
    "threads, by which nothing can be replayed; use an activity": (
        "call_soon_threadsafe run_in_executor set_default_executor"
    ),
    "the network; use an activity": (
        "getaddrinfo getnameinfo create_connection create_server sendfile start_tls create_unix_connection "
        "create_unix_server connect_accepted_socket create_datagram_endpoint sock_recv sock_recv_into "
        "sock_recvfrom sock_recvfrom_into sock_sendall sock_sendto sock_connect sock_accept sock_sendfile"
    ),
    "files and pipes; use an activity": (
        "connect_read_pipe connect_write_pipe add_reader remove_reader add_writer remove_writer"
    ),
    "processes; use an activity": "subprocess_shell subprocess_exec",
    "signals of the operating system; use @workflow.signal": "add_signal_handler remove_signal_handler",
    "the loop itself, which belongs to the engine; await instead": (
        "run_forever run_until_complete stop close set_task_factory set_exception_handler"
    ),
}


def _forbidden(name: str, why: str) -> Callable[..., NoReturn]:
    def refuse(self: RefusingLoop, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotDeterministic(f"loop.{name}() in a workflow is about {why}")

    return refuse


for _why, _names in _FORBIDDEN.items():
    for _name in _names.split():
        setattr(RefusingLoop, _name, _forbidden(_name, _why))
