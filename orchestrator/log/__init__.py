"""The log: ports and adapters."""
