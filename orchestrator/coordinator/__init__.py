"""The write side: commands in, turns out."""
