"""The coordinator's state on disk: a fold of history."""
