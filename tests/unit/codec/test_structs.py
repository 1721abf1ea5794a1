"""Evolution: what becomes of records that were written under another version's schema."""

import copy
import json
from io import BytesIO
from typing import Any

import msgspec
import pytest
from fastavro import parse_schema, schemaless_reader, schemaless_writer

from orchestrator.codec import avro
from orchestrator.codec.avro import AvroCodec, DecodeError
from orchestrator.codec.schema import TOPICS, derive
from orchestrator.protocol.commands import StartWorkflow
from orchestrator.protocol.events import ActivityScheduled, TimerFired, TimerStarted, UnknownEvent
from orchestrator.protocol.records import Activation, Marks, Turn
from orchestrator.protocol.tasks import Reply
from orchestrator.protocol.values import (
    CancellationType,
    Failure,
    FailureKind,
    RetryPolicy,
    RetryState,
    TimeoutType,
)

TURN = Turn(
    epoch=1,
    seq=1,
    marks=Marks(),
    sent_through=0,
    time_ms=1,
    workflow_id="w",
    run_id="r",
    turn=1,
    first_event_id=5,
    activation=Activation.DONE,
    events=(TimerStarted(timer_id=1, fire_time_ms=9), TimerFired(timer_id=1)),
)


def record_named(schema: Any, name: str) -> Any:
    """The record of that name within a schema."""
    pending = [schema]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending.extend(part)
        elif isinstance(part, dict):
            if part.get("name") == name and part.get("type") == "record":
                return part
            pending.extend(part.values())
    raise AssertionError(name)


def field_of(record: Any, name: str) -> Any:
    return next(field for field in record["fields"] if field["name"] == name)


def schema_of(topic: str) -> Any:
    return copy.deepcopy(derive(topic, TOPICS[topic]))


def dictionary(record: Any) -> Any:
    """A record of ours as fastavro reads it, and would write it."""
    encoded = avro.encode(record)
    number = int.from_bytes(encoded[1:5], "big")
    schema = next(json.loads(text) for known, text in avro.DEFAULT.schemas().values() if known == number)
    parsed = parse_schema({"type": "record", "name": "Of", "fields": [{"name": "it", "type": schema}]})
    found: Any = schemaless_reader(BytesIO(encoded[5:]), parsed, None, return_record_name=True)
    return found["it"]


def read(schema: Any, written: Any) -> Any:
    """What this version reads of what another one, with ``schema``, has written."""
    codec = AvroCodec()
    number = codec.register(json.dumps(schema))
    out = BytesIO()
    schemaless_writer(out, parse_schema(schema), written)
    return codec.decode(b"\x00" + number.to_bytes(4, "big") + out.getvalue())


def test_an_older_reader_skips_fields_and_event_kinds_and_keeps_the_numbering() -> None:
    schema = schema_of("history")
    record_named(schema, "TimerFired")["fields"].insert(0, {"name": "late_ms", "type": "long"})
    record_named(schema, "Turn")["fields"].insert(3, {"name": "region", "type": ["null", "string"]})
    events = field_of(record_named(schema, "Turn"), "events")["type"]["items"]
    events.insert(0, {"type": "record", "name": "TimerMoved", "fields": [{"name": "by_ms", "type": "long"}]})
    name, fields = dictionary(TURN)
    fields["region"] = "eu"
    fields["events"][1][1]["late_ms"] = 30
    moved = ("orchestrator.history.TimerMoved", {"by_ms": 5})
    fields["events"] = (fields["events"][0], moved, fields["events"][1])

    turn = read(schema, (name, fields))

    assert turn.events == (TURN.events[0], UnknownEvent(kind="TimerMoved"), TURN.events[1])
    assert turn.first_event_id == 5
    assert turn.run_id == "r"


def test_an_event_whose_layout_is_new_only_deep_inside_is_read() -> None:
    schema = schema_of("history")
    record_named(schema, "RetryPolicy")["fields"].append({"name": "jitter", "type": "double"})
    turn = msgspec.structs.replace(
        TURN, events=(ActivityScheduled(activity_id=1, activity_type="a", task_queue="q"),)
    )
    name, fields = dictionary(turn)
    fields["events"][0][1]["retry_policy"]["jitter"] = 0.1

    assert read(schema, (name, fields)).events[0].retry_policy == RetryPolicy()


def test_fields_that_the_writer_did_not_have_take_their_defaults() -> None:
    schema = schema_of("history")
    turn = record_named(schema, "Turn")
    turn["fields"] = [field for field in turn["fields"] if field["name"] not in ("headers", "parts")]

    assert read(schema, dictionary(TURN)) == TURN


def test_a_required_field_that_the_writer_did_not_have_makes_its_schema_unusable() -> None:
    schema = schema_of("history")
    turn = record_named(schema, "Turn")
    turn["fields"] = [field for field in turn["fields"] if field["name"] != "run_id"]

    with pytest.raises(DecodeError, match=r"history\.Turn lacks the field run_id"):
        AvroCodec().register(json.dumps(schema))


@pytest.mark.parametrize(
    ("record", "field", "kind"),
    [
        ("Turn", "epoch", "string"),
        ("Turn", "run_id", ["null", "string"]),
        ("ActivityScheduled", "retry_policy", "long"),
        ("Turn", "causes", {"type": "map", "values": "string"}),
        ("Turn", "headers", {"type": "array", "items": "string"}),
        ("Turn", "events", "string"),
        ("Turn", "activation", "long"),
        ("ActivityScheduled", "heartbeat_ms", ["null", "long", "string"]),
        ("WorkflowFailed", "failure", "string"),
    ],
)
def test_a_writers_type_that_ours_cannot_hold_makes_its_schema_unusable(
    record: str, field: str, kind: Any
) -> None:
    schema = schema_of("history")
    changed = field_of(record_named(schema, record), field)
    changed["type"] = kind
    changed.pop("default", None)

    with pytest.raises(DecodeError, match="the writer's"):
        AvroCodec().register(json.dumps(schema))


def test_a_writer_that_knew_no_null_is_read() -> None:
    schema = schema_of("history")
    scheduled = record_named(schema, "ActivityScheduled")
    field_of(scheduled, "heartbeat_ms")["type"] = "int"
    event = ActivityScheduled(activity_id=1, activity_type="a", task_queue="q", heartbeat_ms=7)
    turn = msgspec.structs.replace(TURN, events=(event,))
    field_of(scheduled, "heartbeat_ms").pop("default")

    assert read(schema, dictionary(turn)).events == (event,)


def test_an_unknown_kind_of_record_is_an_error_that_names_it() -> None:
    schema = schema_of("commands")
    schema.append({
        "type": "record", "name": "PauseWorkflow", "namespace": "orchestrator.commands",
        "fields": [{"name": "workflow_id", "type": "string"}],
    })  # fmt: skip
    pause = ("orchestrator.commands.PauseWorkflow", {"workflow_id": "w"})
    start = StartWorkflow(workflow_id="w", workflow_type="t")

    with pytest.raises(DecodeError, match="kind PauseWorkflow is unknown here; known are StartWorkflow"):
        read(schema, pause)
    assert read(schema, dictionary(start)) == start


def test_a_topic_that_got_a_second_kind_of_record_is_read() -> None:
    schema = [schema_of("replies"), {"type": "record", "name": "Ack", "namespace": "orchestrator.replies",
                                     "fields": [{"name": "x", "type": "long"}]}]  # fmt: skip
    reply = Reply(client_id="c", request_id="r")

    assert read(schema, ("orchestrator.replies.Reply", dictionary(reply))) == reply
    with pytest.raises(DecodeError, match="kind Ack"):
        read(schema, ("orchestrator.replies.Ack", {"x": 1}))


# --- unknown words ---


def test_an_unknown_optional_word_is_none() -> None:
    failure = Failure(
        kind=FailureKind.TIMEOUT,
        message="m",
        timeout_type=TimeoutType.RUN,
        cause=Failure(kind=FailureKind.ACTIVITY, message="c", retry_state=RetryState.TIMEOUT),
    )
    fields = dictionary(Reply(client_id="c", request_id="r", failure=failure))
    fields["failure"][1]["timeout_type"] = "lunch-break"
    fields["failure"][1]["cause"][0]["retry_state"] = "bored"

    back = read(schema_of("replies"), fields).failure

    assert back.timeout_type is None
    assert back.cause.retry_state is None
    assert back.message == "m"


def test_an_unknown_word_of_an_event_is_the_default() -> None:
    event = ActivityScheduled(
        activity_id=1, activity_type="a", task_queue="q", cancellation_type=CancellationType.ABANDON
    )
    turn = msgspec.structs.replace(TURN, events=(event,))
    name, fields = dictionary(turn)
    fields["events"][0][1]["cancellation_type"] = "ask-nicely"

    assert (
        read(schema_of("history"), (name, fields)).events[0].cancellation_type is CancellationType.TRY_CANCEL
    )


def test_an_unknown_word_that_must_be_understood_is_an_error_that_names_it() -> None:
    name, fields = dictionary(TURN)
    fields["activation"] = "perhaps"
    with pytest.raises(DecodeError, match="word 'perhaps' is no Activation; known are none, deferred, done"):
        read(schema_of("history"), (name, fields))


def test_an_unknown_word_of_a_command_is_an_error_though_there_is_a_default() -> None:
    name, fields = dictionary(StartWorkflow(workflow_id="w", workflow_type="t"))
    fields["id_reuse_policy"] = "terminate-if-running"
    with pytest.raises(DecodeError, match="word 'terminate-if-running' is no IdReusePolicy"):
        read(schema_of("commands"), (name, fields))
