"""Benchmarks of the engine. ``python -m bench`` prints a table; nothing here is a test."""
