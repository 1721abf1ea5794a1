"""How a class becomes a workflow: the decorators, and what they find out about it."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar, overload

from orchestrator.errors import DefinitionError, UsageError
from orchestrator.protocol.texts import check_name

ClassT = TypeVar("ClassT", bound=type)
MethodT = TypeVar("MethodT", bound=Callable[..., Any])
RunT = TypeVar("RunT", bound=Callable[..., Coroutine[Any, Any, Any]])

RESERVED_PREFIX = "__"
"""Names that start so belong to the engine, e.g. the query ``__stack``."""

_ROLE = "__orchestrator_role__"
_DEFINITION = "__orchestrator_workflow__"


@dataclass(frozen=True)
class Handler:
    """A function of a workflow that the outside calls by name: ``run``, a signal or a query."""

    name: str
    fn: Callable[..., Any]
    has_self: bool = True

    @cached_property
    def hints(self) -> tuple[Any, ...]:
        """The annotations of the parameters, in order; None where there is none."""
        known = self._annotations
        return tuple(known.get(parameter.name) for parameter in self._parameters)

    @cached_property
    def result_hint(self) -> Any:
        """The annotation of the return value, or None."""
        return self._annotations.get("return")

    @cached_property
    def is_async(self) -> bool:
        """Whether a call makes a coroutine."""
        return inspect.iscoroutinefunction(self.fn)

    def hints_for(self, count: int) -> tuple[Any, ...]:
        """The hints for a call with ``count`` arguments.

        Raises:
            DefinitionError: the function does not take that many.
        """
        if count != len(self.hints) or self._rest_hint is not _NO_REST:
            required = sum(parameter.default is parameter.empty for parameter in self._parameters)
            if count < required or (count > len(self.hints) and self._rest_hint is _NO_REST):
                takes = str(required) if required == len(self.hints) else f"{required} to {len(self.hints)}"
                raise DefinitionError(
                    f"{self.fn.__qualname__}() takes {takes} argument(s), and {count} were given"
                )
            return self.hints[:count] + (self._rest_hint,) * (count - len(self.hints))
        return self.hints

    @cached_property
    def _parameters(self) -> tuple[inspect.Parameter, ...]:
        every = list(inspect.signature(self.fn).parameters.values())
        if self.has_self:
            every = every[1:]
        for parameter in every:
            if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
                raise DefinitionError(
                    f"{self.fn.__qualname__}() requires the keyword {parameter.name!r}; "
                    "arguments arrive by position, so make it a positional parameter"
                )
        return tuple(p for p in every if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))

    @cached_property
    def _rest_hint(self) -> Any:
        for parameter in inspect.signature(self.fn).parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                return self._annotations.get(parameter.name)
        return _NO_REST

    @cached_property
    def _annotations(self) -> dict[str, Any]:
        return annotations_of(self.fn)


_NO_REST = object()


@dataclass(frozen=True)
class WorkflowDefinition:
    """What the engine knows of a workflow class.

    Attributes:
        name: the workflow type.
        cls: the class; an instance of it is made for each run.
        run: the entry.
        signals: handlers by name.
        queries: handlers by name; not async.
        init_takes_input: ``__init__`` gets the arguments of ``run``.
        failure_exception_types: exceptions that fail the workflow, besides ``FailureError`` and
            ``TimeoutError``; any other exception blocks it until the code is fixed.
        dynamic_signals: it may handle signals that ``signals`` does not name.
    """

    name: str
    cls: type
    run: Handler
    signals: dict[str, Handler] = field(default_factory=dict)
    queries: dict[str, Handler] = field(default_factory=dict)
    init_takes_input: bool = False
    failure_exception_types: tuple[type[BaseException], ...] = ()
    dynamic_signals: bool = False

    def accepts_signal(self, name: str) -> bool:
        """Whether a signal of this name may be sent to the workflow."""
        return name in self.signals or (self.dynamic_signals and not name.startswith(RESERVED_PREFIX))

    def check(self) -> None:
        """Raise :class:`DefinitionError` if an annotation cannot be resolved."""
        for handler in (self.run, *self.signals.values(), *self.queries.values()):
            handler.hints_for(len(handler.hints))


@dataclass(frozen=True)
class _Role:
    kind: str
    name: str


# --- decorators ---


@overload
def defn(cls: ClassT, /) -> ClassT: ...
@overload
def defn(
    *,
    name: str | None = None,
    failure_exception_types: Sequence[type[BaseException]] = (),
    dynamic_signals: bool = False,
) -> Callable[[ClassT], ClassT]: ...
def defn(
    cls: type | None = None,
    /,
    *,
    name: str | None = None,
    failure_exception_types: Sequence[type[BaseException]] = (),
    dynamic_signals: bool = False,
) -> Any:
    """Make a class a workflow. It has exactly one ``@workflow.run`` method.

    Args:
        cls: the class, when the decorator is used without parentheses.
        name: the workflow type; default the name of the class.
        failure_exception_types: exceptions that fail the workflow when ``run`` raises them. Failures of
            this package and ``TimeoutError`` always do; any other exception is taken for a bug, and
            the run waits, blocked, for fixed code.
        dynamic_signals: accept signals of any name; those without a handler wait for
            ``workflow.set_signal_handler``. By default a signal that the class does not declare is
            refused, so that its sender learns of a misspelt name.

    Raises:
        DefinitionError: the class is declared wrongly; the message says how.
    """

    def decorate(decorated: ClassT) -> ClassT:
        definition = _define(
            decorated, name or decorated.__name__, tuple(failure_exception_types), dynamic_signals
        )
        setattr(decorated, _DEFINITION, definition)
        _tell_entry(decorated, definition)
        return decorated

    return decorate if cls is None else decorate(cls)


def run(fn: RunT) -> RunT:
    """Mark the entry of a workflow: one async method; its parameters are the workflow's input."""
    if not inspect.iscoroutinefunction(fn):
        raise DefinitionError(f"@workflow.run: {fn.__qualname__} must be declared with 'async def'")
    return _mark(fn, _Role("run", fn.__name__))


def init(fn: MethodT) -> MethodT:
    """Mark ``__init__`` to get the same arguments as ``run``."""
    if fn.__name__ != "__init__":
        raise DefinitionError(f"@workflow.init: {fn.__qualname__} must be __init__")
    return _mark(fn, _Role("init", fn.__name__))


@overload
def signal(fn: MethodT, /) -> MethodT: ...
@overload
def signal(*, name: str | None = None) -> Callable[[MethodT], MethodT]: ...
def signal(fn: Any = None, /, *, name: str | None = None) -> Any:
    """Mark a method, async or not, that is called for each signal of its name."""

    def decorate(method: MethodT) -> MethodT:
        return _mark(method, _Role("signal", name or method.__name__))

    return decorate if fn is None else decorate(fn)


@overload
def query(fn: MethodT, /) -> MethodT: ...
@overload
def query(*, name: str | None = None) -> Callable[[MethodT], MethodT]: ...
def query(fn: Any = None, /, *, name: str | None = None) -> Any:
    """Mark a method that answers queries of its name. It is not async and changes nothing."""

    def decorate(method: MethodT) -> MethodT:
        if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
            raise DefinitionError(
                f"@workflow.query: {method.__qualname__} must not be async; a query answers at once"
            )
        return _mark(method, _Role("query", name or method.__name__))

    return decorate if fn is None else decorate(fn)


# --- looking them up ---


def definition_of(cls: type) -> WorkflowDefinition:
    """The definition of a workflow class.

    Raises:
        DefinitionError: the class has no ``@workflow.defn`` of its own.
    """
    definition = vars(cls).get(_DEFINITION) if isinstance(cls, type) else None
    if not isinstance(definition, WorkflowDefinition):
        name = getattr(cls, "__qualname__", repr(cls))
        raise DefinitionError(f"{name} is not a workflow; decorate the class with @workflow.defn")
    return definition


def find_definitions(module: types.ModuleType) -> list[WorkflowDefinition]:
    """The workflows that a module defines or imports, in the order in which it names them.

    Raises:
        DefinitionError: two of them have the same name, or an annotation cannot be resolved.
    """
    found: dict[str, WorkflowDefinition] = {}
    for value in list(vars(module).values()):
        if not isinstance(value, type) or _DEFINITION not in vars(value):
            continue
        definition = definition_of(value)
        known = found.setdefault(definition.name, definition)
        if known.cls is not value:
            raise DefinitionError(
                f"module {module.__name__} has two workflows named {definition.name!r}: "
                f"{known.cls.__qualname__} and {value.__qualname__}; give one of them another name="
            )
    for definition in found.values():
        definition.check()
    return list(found.values())


def annotations_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """The resolved annotations of a function, by parameter, and of its result under ``return``.

    Raises:
        DefinitionError: a name in them is not known where the function was defined.
    """
    try:
        return typing.get_type_hints(fn, include_extras=True)
    except (NameError, AttributeError) as error:
        raise DefinitionError(
            f"the annotations of {getattr(fn, '__qualname__', fn)} cannot be resolved: {error}; values are "
            "decoded by them, so import the types at module level, not under 'if TYPE_CHECKING'"
        ) from None
    except TypeError:  # a callable object has no annotations of its own
        return {}


# --- reading a class ---


def _mark(fn: MethodT, role: _Role) -> MethodT:
    if role.kind in ("signal", "query"):
        _check_name(role.name, f"@workflow.{role.kind}: {fn.__qualname__}")
    if hasattr(fn, _ROLE):
        raise DefinitionError(f"{fn.__qualname__} has two workflow decorators; it can have one role only")
    setattr(fn, _ROLE, role)
    return fn


def _check_name(name: str, where: str) -> None:
    try:
        check_name(name, "the name")
    except UsageError as error:
        raise DefinitionError(f"{where}: {error}") from None
    if name.startswith(RESERVED_PREFIX):
        raise DefinitionError(
            f"{where} has the name {name!r}; names with {RESERVED_PREFIX!r} are the engine's"
        )


def _tell_entry(cls: type, definition: WorkflowDefinition) -> None:
    """Let callers who pass ``Order.run`` know the class, which a function does not.

    A class that inherits its entry shares the function with the class that wrote it, so it tells neither.
    """
    entry = definition.run.fn
    if any(value is entry for value in vars(cls).values()):
        setattr(entry, _DEFINITION, definition)
    elif hasattr(entry, _DEFINITION):
        delattr(entry, _DEFINITION)


def _define(
    cls: type, name: str, failures: tuple[type[BaseException], ...], dynamic_signals: bool
) -> WorkflowDefinition:
    if not isinstance(cls, type):
        raise DefinitionError(f"@workflow.defn: {cls!r} is not a class")
    where = f"workflow {cls.__qualname__}"
    _check_name(name, where)
    for failure in failures:
        if not (isinstance(failure, type) and issubclass(failure, BaseException)):
            raise DefinitionError(
                f"{where}: failure_exception_types holds {failure!r}, which is no exception"
            )
    handlers: dict[str, dict[str, Handler]] = {"run": {}, "init": {}, "signal": {}, "query": {}}
    for role, fn in _roles(cls):
        known = handlers[role.kind].get(role.name)
        if known is not None:
            raise DefinitionError(
                f"{where} has two handlers for the {role.kind} {role.name!r}: "
                f"{known.fn.__name__} and {fn.__name__}"
            )
        handlers[role.kind][role.name] = Handler(role.name, fn)
    runs = list(handlers["run"].values())
    if not runs:
        raise DefinitionError(f"{where} has no entry; mark one async method with @workflow.run")
    if len(runs) > 1:
        names = ", ".join(handler.fn.__name__ for handler in runs)
        raise DefinitionError(f"{where} has {len(runs)} methods with @workflow.run ({names}); keep one")
    for inits in handlers["init"].values():
        _check_init(where, inits.fn, runs[0].fn)
    return WorkflowDefinition(
        name=name,
        cls=cls,
        run=runs[0],
        signals=handlers["signal"],
        queries=handlers["query"],
        init_takes_input=bool(handlers["init"]),
        failure_exception_types=failures,
        dynamic_signals=dynamic_signals,
    )


def _roles(cls: type) -> Iterator[tuple[_Role, Callable[..., Any]]]:
    """The marked methods of a class and its bases; an override has to repeat the decorator."""
    seen: set[str] = set()
    for base in cls.__mro__:
        for attribute, value in vars(base).items():
            role = getattr(value, _ROLE, None)
            if attribute in seen:
                if (
                    role is not None
                    and role.kind != "init"
                    and not hasattr(inspect.getattr_static(cls, attribute), _ROLE)
                ):
                    raise DefinitionError(
                        f"{cls.__qualname__}.{attribute} overrides a @workflow.{role.kind} of "
                        f"{base.__qualname__} without the decorator; repeat it"
                    )
                continue
            seen.add(attribute)
            if isinstance(role, _Role):
                yield role, value


def _check_init(where: str, init_fn: Callable[..., Any], run_fn: Callable[..., Any]) -> None:
    names = [list(inspect.signature(fn).parameters)[1:] for fn in (init_fn, run_fn)]
    if names[0] != names[1]:
        raise DefinitionError(
            f"{where}: @workflow.init takes ({', '.join(names[0])}), and @workflow.run "
            f"({', '.join(names[1])}); they get the same arguments, so declare the same parameters"
        )
