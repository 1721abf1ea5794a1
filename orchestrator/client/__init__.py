"""Publishes commands and waits for their answers."""
