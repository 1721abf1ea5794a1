"""Records as bytes: Avro behind the Confluent prefix (a zero byte and the schema's id, 4 bytes, big endian).

Whoever reads needs the schema that the *writer* had, and finds it by the id. Known are the schemas of
this version, those that :meth:`AvroCodec.register` was told of (a newer version leaves its own in
``meta``), and ids that a schema registry assigned (:meth:`AvroCodec.use_ids`). No registry is asked.

Bytes are taken for hostile: whatever they are, the worst they can do is a :class:`DecodeError`, and that
soon. fastavro stops where the bytes end, whatever a length or a count says; what that does not hold
(recursion, arrays of items that take no bytes) is not in our schemas and is refused in those of others.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from functools import cached_property
from io import BytesIO
from typing import Any, Final, NamedTuple

from fastavro import parse_schema, schemaless_reader
from msgspec import inspect

from orchestrator.codec import json_commands
from orchestrator.codec.readers import Read, ReaderCompiler
from orchestrator.codec.safety import refuse_bombs
from orchestrator.codec.schema import (
    NAMESPACE,
    TOPICS,
    Json,
    derive,
    namespace_of,
    schema_id,
    structs_of,
)
from orchestrator.codec.structs import Convert, DecoderCompiler, Mismatch
from orchestrator.codec.writers import Write, WriterCompiler
from orchestrator.protocol.commands import Command

MAX_RECORD_BYTES: Final = 1024 * 1024
"""As Kafka's default for ``message.max.bytes``. A decoded record takes up to 130 times its bytes."""

_MAX_SHOWN_CHARS = 300
"""How much of a library's reason an error message shows."""

_PREFIX: Final = struct.Struct(">bi")
_MAGIC: Final = b"\x00"
_FIELD: Final = "record"


class DecodeError(ValueError):
    """Bytes are no record that this version can read. The message says why; nothing else is raised."""


class EncodeError(ValueError):
    """A record cannot be written: a number beyond 64 bits, text that is no UTF-8, a placeholder's kind."""


class _Writer(NamedTuple):
    """How the records of one topic are written."""

    prefix: bytes
    write: Write


class _Reader(NamedTuple):
    """How the records of one writer's schema are read."""

    topic: str
    schema: Json
    from_avro: Convert


class AvroCodec:
    """Encodes and decodes the records of all topics. Schemas are derived when they are first needed."""

    def __init__(self) -> None:
        self._assigned: dict[str, int] = {}
        self._ids_of = ""
        self._writers: dict[type, _Writer] = {}

    def encode(self, record: Any) -> bytes:
        """A record of any topic as bytes.

        Raises:
            EncodeError: it is no record, or holds what Avro cannot say.
        """
        writer = self._writers.get(type(record)) or self._writer_of(type(record))
        pieces = [writer.prefix]
        try:
            writer.write(record, pieces)
            return b"".join(pieces)
        except Exception as error:
            raise EncodeError(f"a {type(record).__name__} cannot be written: {_reason(error)}") from error

    def decode(self, data: bytes, topic: str = "") -> Any:
        """The record that the bytes hold.

        Args:
            data: a record's value.
            topic: where it was found, without the namespace; a record of another topic is refused.

        Raises:
            DecodeError: the bytes are damaged, or of a schema or kind that is unknown here.
        """
        fast = self._fast_readers.get(data[:5])
        if fast is not None and len(data) <= MAX_RECORD_BYTES and topic in ("", fast[0]):
            try:
                record, end = fast[1](data, 5)
                if end == len(data):
                    return record
            except Exception:
                pass  # damaged or unusual: what follows says how
        reader = self._reader_of(data)
        if topic and reader.topic != topic:
            raise DecodeError(f"found a record of {reader.topic}, expected one of {topic}")
        stream = BytesIO(data)
        stream.seek(_PREFIX.size)
        try:
            found: Any = schemaless_reader(
                stream, reader.schema, None, return_record_name=True, return_record_name_override=True
            )
            record = reader.from_avro(found[_FIELD])
        except Exception as error:  # fastavro lets pass whatever the damage leads to
            raise DecodeError(f"the bytes are no record of {reader.topic}: {_reason(error)}") from error
        if stream.tell() != len(data):
            raise DecodeError(
                f"{len(data) - stream.tell()} bytes are left over after a record of {reader.topic}; "
                "its schema is not the one that its id says"
            )
        return record

    def decode_command(self, data: bytes) -> Command:
        """A command, in Avro or as a JSON object, see :mod:`orchestrator.codec.json_commands`.

        Raises:
            DecodeError: it is neither, or a command of a kind that is unknown here.
        """
        if data[:1] == _MAGIC:
            command: Command = self.decode(data, "commands")
            return command
        if not data.lstrip()[:1] == b"{":
            raise DecodeError(
                f"found {data[:8]!r}, expected a command in Avro (a zero byte, then its schema's id) or JSON"
            )
        _check_size(data)
        try:
            command = json_commands.decode(data)
            self.encode(command)  # what cannot be written is refused here, and not when its turn is written
        except Exception as error:
            raise DecodeError(f"the JSON is no command: {_reason(error)}") from error
        return command

    def schemas(self) -> dict[str, tuple[int, str]]:
        """For each topic the id and the schema (JSON) of what this codec writes."""
        return {
            topic: (self._id_of(topic), json.dumps(schema)) for topic, schema in self._own_schemas.items()
        }

    def own_ids(self) -> frozenset[int]:
        """The ids under which this codec writes."""
        return frozenset(map(self._id_of, self._own_schemas))

    def register(self, schema_json: str, registered_id: int | None = None) -> int:
        """Learn another version's schema of a topic, and return the id by which its records are known.

        Args:
            schema_json: the schema; its namespace says for which topic.
            registered_id: the id that its records carry; else its own is computed.

        Raises:
            DecodeError: it is no schema, or none whose records could be read safely.
        """
        try:
            schema = json.loads(schema_json)
            number = schema_id(schema) if registered_id is None else registered_id
            self._known_readers[number] = self._reader(schema)
        except Exception as error:
            raise DecodeError(f"the schema cannot be used: {_reason(error)}") from error
        return number

    def use_ids(self, ids: Mapping[str, int], log_id: str) -> None:
        """Write the ids that a schema registry assigned to our own schemas, and read them too.

        Args:
            ids: the registry's, by ours as text; those of other versions' schemas are passed over.
            log_id: whose ids these are. What it said first stays, for others may have read it by now.

        Raises:
            ValueError: another log has other ids, and this codec writes those.
        """
        if self._ids_of == log_id:
            return
        ours = {topic: ids[str(number)] for topic, number in self._computed_ids.items() if str(number) in ids}
        if self._ids_of and ours != self._assigned:
            raise ValueError("this process writes to a log with other ids of schemas already")
        self._ids_of, self._assigned = log_id, ours
        for topic, number in ours.items():
            self._known_readers[number] = self._reader(self._own_schemas[topic])
        self._writers.clear()
        self.__dict__.pop("_fast_readers", None)

    @cached_property
    def _own_schemas(self) -> dict[str, Json]:
        return {topic: derive(topic, record_type) for topic, record_type in TOPICS.items()}

    @cached_property
    def _infos(self) -> dict[str, inspect.Type]:
        return {topic: inspect.type_info(record_type) for topic, record_type in TOPICS.items()}

    @cached_property
    def _known_readers(self) -> dict[int, _Reader]:
        return {
            self._computed_ids[topic]: self._reader(schema) for topic, schema in self._own_schemas.items()
        }

    @cached_property
    def _fast_readers(self) -> dict[bytes, tuple[str, Read]]:
        """For the prefix of each of our own schemas: its topic, and how its records are read."""
        return {
            _PREFIX.pack(0, self._id_of(topic)): (topic, ReaderCompiler().root(info))
            for topic, info in self._infos.items()
        }

    def _id_of(self, topic: str) -> int:
        return self._assigned.get(topic) or self._computed_ids[topic]

    @cached_property
    def _computed_ids(self) -> dict[str, int]:
        return {topic: schema_id(schema) for topic, schema in self._own_schemas.items()}

    def _writer_of(self, cls: type) -> _Writer:
        for topic, info in self._infos.items():
            if cls in {struct.cls for struct in structs_of(info)}:
                prefix = _PREFIX.pack(0, self._id_of(topic))
                for record_cls, write in WriterCompiler().root(info).items():
                    self._writers[record_cls] = _Writer(prefix, write)
                return self._writers[cls]
        raise EncodeError(f"a {cls.__name__} is no record of any topic")

    def _reader(self, schema: Json) -> _Reader:
        refuse_bombs(schema)
        named: dict[str, Json] = {}
        parsed: Json = parse_schema(_envelope(schema), named)
        topic = self._topic_of(schema)
        from_avro = DecoderCompiler(named).root(self._infos[topic], parsed["fields"][0]["type"])
        return _Reader(topic, parsed, from_avro)

    def _topic_of(self, schema: Json) -> str:
        first = schema[0] if isinstance(schema, list) else schema
        topics = {namespace_of(topic): topic for topic in TOPICS}
        found = first.get("namespace") or first["name"].rpartition(".")[0]
        if found not in topics:
            raise DecodeError(f"the schema's namespace is {found!r}, expected one of {', '.join(topics)}")
        return topics[found]

    def _reader_of(self, data: bytes) -> _Reader:
        _check_size(data)
        if data[:1] != _MAGIC or len(data) < _PREFIX.size:
            raise DecodeError(f"found {data[:8]!r}, expected a zero byte and the id of a schema, 4 bytes")
        number = _PREFIX.unpack_from(data)[1]
        reader = self._known_readers.get(number)
        if reader is None:
            raise DecodeError(
                f"no schema with the id {number} is known here; a newer version may have written it"
            )
        return reader


def _envelope(schema: Json) -> Json:
    """A record with the topic's record as its only field: the same bytes, but fastavro keeps it parsed."""
    return {"type": "record", "name": f"{NAMESPACE}.Envelope", "fields": [{"name": _FIELD, "type": schema}]}


def _check_size(data: bytes) -> None:
    if len(data) > MAX_RECORD_BYTES:
        raise DecodeError(
            f"a record of {len(data)} bytes is too large, at most {MAX_RECORD_BYTES} are allowed"
        )


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "they end too early"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, Mismatch | EncodeError | DecodeError):
        return str(error)[:_MAX_SHOWN_CHARS]
    return f"{type(error).__name__}: {error}"[:_MAX_SHOWN_CHARS]


DEFAULT: Final = AvroCodec()
"""The codec of this process."""

encode = DEFAULT.encode
decode = DEFAULT.decode
decode_command = DEFAULT.decode_command
register = DEFAULT.register
own_ids = DEFAULT.own_ids
use_ids = DEFAULT.use_ids
