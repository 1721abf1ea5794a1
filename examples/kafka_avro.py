"""Records as they stand on the topics, for kafka_worker.py and kafka_history.py; see docs/wire.md."""

import io
import json
import struct
from pathlib import Path

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
NAMES = {"return_record_name": True, "return_record_name_override": True}


class Avro:
    """The records of a topic: a zero byte, the id of the schema in 4 bytes, and Avro."""

    def __init__(self, topic):
        self.topic, schema = topic, json.loads((SCHEMAS / f"{topic}.avsc").read_text())
        self.id = int(fingerprint(to_parsing_canonical_form(schema), "SHA-256")[:8], 16) & 0x7FFFFFFF
        self.schemas = {self.id: fastavro.parse_schema(schema)}  # others stand on `meta`

    def encode(self, kind, fields):
        out = io.BytesIO()
        out.write(struct.pack(">xI", self.id))
        record = (f"orchestrator.{self.topic}.{kind}", fields)
        fastavro.schemaless_writer(out, self.schemas[self.id], record)
        return out.getvalue()

    def decode(self, value):
        """A record as (kind, fields); (None, None) if its schema is not known."""
        (number,) = struct.unpack_from(">xI", value)
        if number not in self.schemas:
            return None, None
        name, fields = fastavro.schemaless_reader(io.BytesIO(value[5:]), self.schemas[number], **NAMES)
        return name.rpartition(".")[2], fields
