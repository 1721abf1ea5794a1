"""The words of the engine: ids, values, commands, events, actions, records and tasks.

Frozen data without behaviour and without I/O. Every other layer speaks in these types.
"""
