"""What an activity is: a function with a name.

``@activity.defn`` marks functions, sync or async, and methods; a worker is given the functions, or
methods bound to an instance::

    @activity.defn
    async def charge(order_id: str, cents: int) -> str: ...

    class Mail:
        @activity.defn(name="send-mail")
        def send(self, address: str) -> None: ...

    Worker(log, activities=[charge, Mail().send])
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import ModuleType
from typing import Any, TypeVar, get_type_hints, overload

from orchestrator.errors import DefinitionError, UsageError
from orchestrator.protocol.texts import check_name

ATTRIBUTE = "__orchestrator_activity__"
"""Where ``@activity.defn`` leaves the definition on the function."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class ActivityDefinition:
    """An activity's name and function.

    ``fn`` of a method that is not bound to an instance expects that instance as its first argument;
    :func:`definition_of` a bound method gives a definition that can be called.
    """

    name: str
    fn: Callable[..., Any]
    is_async: bool

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.fn)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        # Not at decoration time: names in annotations may be defined further down the module.
        try:
            return get_type_hints(self.fn)
        except NameError as error:
            raise DefinitionError(
                f"the annotations of activity {self.name!r} cannot be resolved: {error}; "
                "define or import that name at the top of the module, outside of `if TYPE_CHECKING`"
            ) from error

    @cached_property
    def _parameters(self) -> tuple[inspect.Parameter, ...]:
        parameters = tuple(self._signature.parameters.values())
        return parameters[1:] if parameters and parameters[0].name == "self" else parameters

    @cached_property
    def _positional(self) -> tuple[inspect.Parameter, ...]:
        return tuple(p for p in self._parameters if p.kind is not p.VAR_POSITIONAL)

    @cached_property
    def _rest(self) -> inspect.Parameter | None:
        return next((p for p in self._parameters if p.kind is p.VAR_POSITIONAL), None)

    @cached_property
    def parameter_hints(self) -> tuple[Any, ...]:
        """The type of each positional parameter but ``self``; ``Any`` where none is given."""
        return tuple(self._hints.get(p.name, Any) for p in self._positional)

    @cached_property
    def return_hint(self) -> Any:
        """The type of the result; ``Any`` if none is given."""
        return self._hints.get("return", Any)

    @cached_property
    def required_arguments(self) -> int:
        """How many arguments a call needs at least."""
        return sum(1 for p in self._positional if p.default is p.empty)

    def hints_for(self, arguments: int) -> tuple[Any, ...]:
        """The types to decode that many arguments as.

        Raises:
            DefinitionError: the activity does not take that many.
        """
        named = self.parameter_hints
        if arguments == len(named):
            return named
        if arguments < self.required_arguments or (arguments > len(named) and self._rest is None):
            raise DefinitionError(
                f"activity {self.name!r} was called with {arguments} argument(s); "
                f"its signature is {self._signature}"
            )
        rest_hint = self._hints.get(self._rest.name, Any) if self._rest else Any
        return named[:arguments] + (rest_hint,) * (arguments - len(named))


@overload
def defn(fn: F, /) -> F: ...


@overload
def defn(*, name: str | None = None) -> Callable[[F], F]: ...


def defn(fn: F | None = None, /, *, name: str | None = None) -> F | Callable[[F], F]:
    """Declare a function or method as an activity; the function itself stays as it is.

    Args:
        fn: the function, sync or async, with positional parameters only.
        name: what workflows and histories call it; default the function's name. Keep it when the
            function is renamed: open workflows ask for activities by this name.

    Raises:
        DefinitionError: this cannot be an activity.
    """
    if fn is None:
        return lambda decorated: _declare(decorated, name)
    return _declare(fn, name)


def _declare(fn: F, name: str | None) -> F:
    if not inspect.isfunction(fn):
        raise DefinitionError(
            f"@activity.defn expects a function, found {fn!r}; decorate the function or method itself, "
            "below @staticmethod or @classmethod"
        )
    if inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        raise DefinitionError(f"activity {fn.__qualname__!r} is a generator; an activity returns one value")
    try:
        name = check_name(fn.__name__ if name is None else name, "the name")
    except UsageError as error:
        raise DefinitionError(f"activity {fn.__qualname__!r}: {error}") from None
    for parameter in inspect.signature(fn).parameters.values():
        if parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_KEYWORD):
            raise DefinitionError(
                f"parameter {parameter.name!r} of activity {fn.__qualname__!r} is keyword-only; "
                "arguments of activities are passed by position"
            )
    definition = ActivityDefinition(name, fn, inspect.iscoroutinefunction(fn))
    setattr(fn, ATTRIBUTE, definition)
    return fn


def definition_of(fn: Callable[..., Any] | ActivityDefinition) -> ActivityDefinition:
    """The definition of a decorated function or bound method (or of a definition: itself).

    Raises:
        DefinitionError: it is not decorated.
    """
    if isinstance(fn, ActivityDefinition):
        return fn
    definition = getattr(fn, ATTRIBUTE, None)
    if not isinstance(definition, ActivityDefinition):
        raise DefinitionError(f"{fn!r} is not an activity; decorate it with @activity.defn")
    return replace(definition, fn=fn) if inspect.ismethod(fn) else definition


def by_name(
    activities: Sequence[Callable[..., Any] | ActivityDefinition],
) -> dict[str, ActivityDefinition]:
    """The definitions by name.

    Raises:
        DefinitionError: one is not decorated, is a method without its instance, or two share a name.
    """
    found: dict[str, ActivityDefinition] = {}
    for fn in activities:
        definition = definition_of(fn)
        if next(iter(inspect.signature(definition.fn).parameters), "") == "self":
            raise DefinitionError(
                f"activity {definition.name!r} is a method of a class; pass it bound to an instance, "
                f"such as {definition.fn.__qualname__.replace('.', '().', 1)}"
            )
        definition.hints_for(definition.required_arguments)  # a bad annotation shows here, not in an attempt
        other = found.setdefault(definition.name, definition)
        if other.fn != definition.fn:
            raise DefinitionError(
                f"two activities are named {definition.name!r}: {_place(other)} and {_place(definition)}; "
                "give one another name with @activity.defn(name=...)"
            )
    return found


def find_definitions(module: ModuleType) -> tuple[ActivityDefinition, ...]:
    """The activities among a module's functions, its own and imported ones, in the order of names.

    Methods are not found: they need an instance, so pass them to the worker yourself.
    """
    candidates = (fn for fn in vars(module).values() if inspect.isroutine(fn))
    definitions = [definition_of(fn) for fn in candidates if hasattr(fn, ATTRIBUTE)]
    found = by_name(definitions)
    return tuple(found[name] for name in sorted(found))


def _place(definition: ActivityDefinition) -> str:
    return f"{definition.fn.__module__}.{definition.fn.__qualname__}"
