"""The rules: decide and evolve, without I/O, clock or chance."""
