"""Bytes: payloads, failures and Avro records."""
