"""The signals of one run: which function handles each, what waits for one, and what is being handled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.codec.payloads import PayloadConverter
from orchestrator.errors import DefinitionError, PayloadError, UsageError
from orchestrator.protocol.events import WorkflowSignaled
from orchestrator.protocol.values import Payloads
from orchestrator.workflow.definition import Handler, WorkflowDefinition

HandlerFn = Callable[..., Any]
"""A signal's or query's function that is set at run time."""


class Signals:
    """Handlers by name. A signal whose handler is not set yet is kept until it is."""

    __slots__ = ("_buffered", "_definition", "_handlers", "_running")

    def __init__(self, definition: WorkflowDefinition) -> None:
        """Begin with the handlers that the class declares."""
        self._definition = definition
        self._handlers: Mapping[str, Handler] = definition.signals
        self._buffered: dict[str, list[WorkflowSignaled]] = {}
        self._running: dict[str, int] = {}

    def handler_of(self, fact: WorkflowSignaled) -> Handler | None:
        """Who handles it; None if it was put aside until there is a handler."""
        handler = self._handlers.get(fact.signal_name)
        if handler is None:
            self._buffered.setdefault(fact.signal_name, []).append(fact)
        return handler

    def set_handler(self, name: str, fn: HandlerFn | None) -> list[WorkflowSignaled]:
        """Set or remove a handler; what was put aside for it is returned, in order.

        Raises:
            UsageError: signals of this name are refused, so none would ever arrive.
        """
        if not isinstance(name, str) or not self._definition.accepts_signal(name):
            raise UsageError(
                f"workflow {self._definition.name!r} declares no signal {name!r}, so those who send it are "
                "refused; declare it with @workflow.signal, or allow any name with "
                "@workflow.defn(dynamic_signals=True)"
            )
        self._handlers = with_handler(self._handlers, name, fn)
        return [] if fn is None else self._buffered.pop(name, [])

    def begin(self, name: str) -> None:
        """A handler of this signal is entered."""
        self._running[name] = self._running.get(name, 0) + 1

    def end(self, name: str) -> None:
        """It has returned or raised."""
        left = self._running.pop(name) - 1
        if left:
            self._running[name] = left

    @property
    def running(self) -> Mapping[str, int]:
        """How many handlers of which signals have begun and not ended."""
        return self._running


def why_unfit(handler: Handler, input: Payloads, converter: PayloadConverter) -> str:
    """Why a handler cannot be called with these arguments; "" if it can. Types of the user's are made."""
    try:
        converter.from_payloads(input, handler.hints_for(len(input)))
    except (PayloadError, DefinitionError) as error:
        return str(error)
    return ""


def with_handler(handlers: Mapping[str, Handler], name: str, fn: HandlerFn | None) -> Mapping[str, Handler]:
    """The handlers with one more or, if ``fn`` is None, without that of ``name``."""
    if not isinstance(name, str) or (not callable(fn) and fn is not None):
        raise UsageError(f"the handler of {name!r} is {fn!r}; give a name as text, and a function or None")
    others = {known: handler for known, handler in handlers.items() if known != name}
    return others if fn is None else {**others, name: Handler(name, fn, has_self=False)}
