import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from orchestrator import workflow
from orchestrator.codec import avro
from orchestrator.codec.failures import (
    MAX_CAUSES,
    MAX_DETAILS_BYTES,
    MAX_FAILURE_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_STACK_BYTES,
    from_failure,
    to_failure,
)
from orchestrator.codec.payloads import DEFAULT
from orchestrator.errors import (
    ActivityFailure,
    ApplicationError,
    CanceledError,
    FailureError,
    TerminatedError,
    TimeoutFailure,
    UsageError,
    WorkerLostFailure,
    WorkflowFailure,
)
from orchestrator.protocol.tasks import Reply
from orchestrator.protocol.values import Failure, FailureKind, Payload, RetryState, TimeoutType


def encode(exc: BaseException) -> Failure:
    return to_failure(exc, DEFAULT)


def cross(exc: BaseException) -> Any:
    """The exception as another process sees it."""
    data = avro.encode(Reply(client_id="c", request_id="r", failure=encode(exc)))
    return from_failure(avro.decode(data).failure, DEFAULT)


def raised(exc: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise exc from cause
    except BaseException as error:
        return error


class SanctionsHit(ApplicationError):
    pass


class Forgetful(ApplicationError):
    def __init__(self) -> None:
        """Does not call super().__init__()."""


def public(exc: BaseException) -> dict[str, Any]:
    return {name: value for name, value in vars(exc).items() if not name.startswith("_")}


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (
            ApplicationError("no", {"a": 1}, b"x", None, type="T", non_retryable=True, next_retry_delay=1.5),
            FailureKind.APPLICATION,
        ),
        (ApplicationError(""), FailureKind.APPLICATION),
        (CanceledError("stop"), FailureKind.CANCELED),
        (TerminatedError("by hand"), FailureKind.TERMINATED),
        (TimeoutFailure("late", timeout_type="heartbeat"), FailureKind.TIMEOUT),
        (WorkerLostFailure("gone"), FailureKind.WORKER_LOST),
        (
            ActivityFailure(
                "failed",
                activity_type="charge",
                activity_id=7,
                attempt=3,
                retry_state="maximum-attempts-reached",
            ),
            FailureKind.ACTIVITY,
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_error_class_comes_back_with_all_it_says(exc: FailureError, kind: FailureKind) -> None:
    back = cross(exc)

    assert encode(exc).kind is kind
    assert type(back) is type(exc)
    assert public(back) == public(exc)
    assert str(back) == str(exc)
    assert back.cause is None


def test_every_kind_of_failure_has_an_exception() -> None:
    for kind in FailureKind:
        assert isinstance(from_failure(Failure(kind=kind, message="m"), DEFAULT), FailureError)


@pytest.mark.parametrize(
    ("exc", "type_name", "message"),
    [
        (ValueError("bad"), "ValueError", "bad"),
        (TimeoutError("user code"), "TimeoutError", "user code"),
        (KeyError("k"), "KeyError", "'k'"),
        (SanctionsHit("sanctions hit"), "SanctionsHit", "sanctions hit"),
        (WorkflowFailure("child", status="Failed"), "WorkflowFailure", "child"),
        (FailureError("plain"), "FailureError", "plain"),
        (Forgetful(), "Forgetful", ""),
        (KeyboardInterrupt(), "KeyboardInterrupt", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_classes_are_application_failures_by_their_simple_name(
    exc: BaseException, type_name: str, message: str
) -> None:
    failure = encode(exc)
    back = cross(exc)

    assert (failure.kind, failure.type, failure.message) == (FailureKind.APPLICATION, type_name, message)
    assert (type(back), back.type, back.message) == (ApplicationError, type_name, message)


def test_a_cancelled_task_is_a_cancellation() -> None:
    assert type(cross(asyncio.CancelledError())) is CanceledError
    assert cross(asyncio.CancelledError()).message == "cancelled"
    assert cross(asyncio.CancelledError("why")).message == "why"


def test_the_chain_of_causes_crosses() -> None:
    exc = ActivityFailure(
        "a", activity_type="t", activity_id=1, attempt=1, retry_state="timeout", cause=ValueError("v")
    )
    exc.__cause__ = raised(ApplicationError("middle"), OSError("disk"))

    back = cross(exc)

    assert [type(back), type(back.cause), type(back.cause.cause)] == [
        ActivityFailure,
        ApplicationError,
        ApplicationError,
    ]
    assert back.cause.cause.type == "OSError"
    assert back.cause.cause.cause is None


def test_the_context_is_the_cause_unless_suppressed() -> None:
    def fail(*, suppress: bool) -> BaseException:
        try:
            try:
                raise OSError("disk")
            except OSError:
                if suppress:
                    raise ValueError("bad") from None
                raise ValueError("bad")  # noqa: B904
        except ValueError as error:
            return error

    context = encode(fail(suppress=False)).cause
    assert context is not None
    assert context.message == "disk"
    assert encode(fail(suppress=True)).cause is None


def test_the_first_exception_of_a_group_is_its_cause() -> None:
    cause = encode(ExceptionGroup("both", [ValueError("one"), OSError("two")])).cause

    assert cause is not None
    assert cause.message == "one"


def test_the_stack_names_the_line_and_survives_further_hops() -> None:
    exc = raised(ValueError("bad"))
    stack = encode(exc).stack
    assert "in raised" in stack
    assert "raise exc from cause" in stack

    first = raised(cross(exc))  # raised again elsewhere, as an activity's failure is in a workflow
    assert encode(first).stack == stack
    assert encode(raised(ApplicationError("outer"), first)).cause == encode(exc)


def test_of_a_stack_the_engines_own_frames_are_left_out() -> None:
    """The user's code stands between two of the engine's; a stack of the engine's alone is kept."""
    engine: dict[str, Any] = {"theirs": lambda: engine["refuse"]()}
    source = "def enter():\n    theirs()\ndef refuse():\n    raise ValueError('no')\n"
    exec(compile(source, workflow.__file__, "exec"), engine)
    with pytest.raises(ValueError, match="no") as error:
        engine["enter"]()
    assert [line.split(" in ")[1] for line in encode(error.value).stack.splitlines() if " in " in line] == [
        "test_of_a_stack_the_engines_own_frames_are_left_out",
        "<lambda>",
    ]
    assert "^" not in encode(error.value).stack
    error.value.__traceback__ = error.value.__traceback__.tb_next  # type: ignore[union-attr]
    engine["theirs"] = engine["refuse"]
    with pytest.raises(ValueError, match="no") as own:
        engine["enter"]()
    own.value.__traceback__ = own.value.__traceback__.tb_next  # type: ignore[union-attr]
    assert "in enter" in encode(own.value).stack


def ping(depth: int) -> None:
    pong(depth - 1)


def pong(depth: int) -> None:
    if depth <= 0:
        raise ValueError("deep")
    ping(depth - 1)


def test_of_a_deep_stack_the_innermost_frames_are_kept() -> None:
    with pytest.raises(ValueError, match="deep") as error:
        ping(300)

    stack = encode(error.value).stack

    assert stack.startswith("... (shortened)")
    assert stack.rstrip().endswith('raise ValueError("deep")')
    assert stack.count("in ping") > 5


def test_a_failure_without_a_cause_shows_the_context_it_is_raised_in() -> None:
    try:
        try:
            raise OSError("disk")
        except OSError:
            raise cross(ValueError("bad"))  # noqa: B904
    except ApplicationError as error:
        cause = encode(error).cause

    assert cause is not None
    assert cause.message == "disk"


def test_a_failure_that_came_from_elsewhere_may_get_a_new_cause() -> None:
    first = cross(ValueError("bad"))

    cause = encode(raised(first, OSError("disk"))).cause

    assert cause is not None
    assert cause.type == "OSError"


def test_a_delay_is_seconds_or_a_timedelta() -> None:
    error = ApplicationError("busy", next_retry_delay=timedelta(milliseconds=1_500))

    assert error.next_retry_delay == 1.5
    assert encode(error).next_retry_delay_ms == 1_500


NO_DELAYS: list[Any] = [float("nan"), float("inf"), -1.0, 1e300, 10**400, "5", True, timedelta(days=-1)]


@pytest.mark.parametrize("delay", NO_DELAYS)
def test_a_delay_that_is_none_is_refused(delay: Any) -> None:
    with pytest.raises(UsageError, match="next_retry_delay is"):
        ApplicationError("x", next_retry_delay=delay)


@pytest.mark.parametrize("delay", NO_DELAYS)
def test_a_delay_that_a_subclass_made_up_is_left_to_the_policy(delay: Any) -> None:
    class Odd(ApplicationError):
        def __init__(self) -> None:
            self.next_retry_delay = delay

    assert encode(Odd()).next_retry_delay_ms is None


def test_a_failure_with_a_delay_beyond_the_limit_is_read_all_the_same() -> None:
    failure = Failure(kind=FailureKind.APPLICATION, message="x", next_retry_delay_ms=-5)

    back = from_failure(failure, DEFAULT)

    assert isinstance(back, ApplicationError)
    assert back.next_retry_delay == -0.005


def test_an_activity_s_failure_that_code_made_up_is_told_as_far_as_it_can_be() -> None:
    fields: dict[str, Any] = {"activity_type": 5, "activity_id": "x", "attempt": -1, "retry_state": []}

    failure = encode(ActivityFailure("no", **fields))

    assert (failure.activity_type, failure.activity_id, failure.attempt) == ("5", 0, 0)
    assert failure.retry_state is None


def test_a_detail_that_cannot_be_encoded_does_not_lose_the_failure() -> None:
    back = cross(ApplicationError("m", 1, object(), "last"))

    assert back.message == "m"
    assert back.details[0] == 1
    assert "object" in back.details[1]
    assert back.details[2] == "last"


def test_a_detail_that_cannot_be_decoded_does_not_lose_the_failure_and_is_passed_on() -> None:
    secret = Payload(data=b"?", encoding="binary/encrypted")
    failure = Failure(kind=FailureKind.APPLICATION, message="m", type="T", details=(secret,))

    back = from_failure(failure, DEFAULT)

    assert isinstance(back, ApplicationError)
    assert "binary/encrypted" in back.details[0]
    assert encode(back).details == (secret,)


def test_details_that_are_too_large_are_replaced_by_a_note() -> None:
    back = cross(ApplicationError("m", b"x" * MAX_DETAILS_BYTES))

    assert back.message == "m"
    assert f"of {MAX_DETAILS_BYTES} for all details" in back.details[0]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


def test_an_exception_without_words_is_told_of() -> None:
    assert "str() of Unspeakable raised ZeroDivisionError" in encode(Unspeakable()).message


def test_lone_surrogates_are_spelled_out() -> None:
    assert cross(ValueError("\ud800!")).message == "\\ud800!"


def test_words_that_are_no_words_of_ours_are_left_out() -> None:
    assert encode(TimeoutFailure("m", timeout_type="someday")).timeout_type is None
    assert encode(TimeoutFailure("m", timeout_type="run")).timeout_type is TimeoutType.RUN
    lost = ActivityFailure("m", activity_type="t", activity_id=1, attempt=1, retry_state="")
    assert encode(lost).retry_state is None
    assert RetryState.TIMEOUT in RetryState


def test_a_cycle_of_causes_ends() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one

    failure = encode(one)

    assert failure.cause is not None
    assert failure.cause.cause is None


def test_of_a_long_chain_the_first_and_the_root_are_kept() -> None:
    exc: BaseException = OSError("root")
    for number in range(900):
        exc = raised(ValueError(f"v{number}"), exc)

    messages = []
    link: Failure | None = encode(exc)
    while link is not None:
        messages.append(link.message)
        link = link.cause

    assert messages == [f"v{899 - number}" for number in range(MAX_CAUSES - 1)] + ["root"]


def recurse(depth: int, message: str) -> None:
    if not depth:
        raise ApplicationError(message, "d" * MAX_DETAILS_BYTES, type="t" * 10_000)
    try:
        recurse(depth - 1, message)
    except ApplicationError as error:
        raise ApplicationError(message, *["x" * 1_000] * 15, type="ü" * 10_000) from error


@pytest.mark.parametrize("letter", ["m", "ü", "\ud800", "\n", '"'])
def test_a_failure_has_a_largest_size(letter: str) -> None:
    with pytest.raises(ApplicationError) as error:
        recurse(60, letter * 100_000)

    failure = encode(error.value)

    size = len(avro.encode(Reply(client_id="", request_id="", failure=failure)))
    assert size <= MAX_FAILURE_BYTES
    assert len(failure.message.encode()) <= MAX_MESSAGE_BYTES
    assert failure.message.endswith("... (shortened)")
    assert len(failure.stack.encode()) <= MAX_STACK_BYTES


def test_a_failure_from_a_careless_writer_is_bounded_when_it_is_passed_on() -> None:
    huge = Failure(kind=FailureKind.APPLICATION, message="m" * 100_000, stack="s" * 100_000, type="T")
    for _ in range(60):
        huge = msgspec.structs.replace(huge, cause=huge)

    passed_on = encode(from_failure(huge, DEFAULT))

    assert len(avro.encode(Reply(client_id="", request_id="", failure=passed_on))) <= MAX_FAILURE_BYTES
