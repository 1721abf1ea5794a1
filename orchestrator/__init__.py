"""Durable execution for Python on Kafka."""
