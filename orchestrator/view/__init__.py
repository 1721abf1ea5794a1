"""The read side: lists and histories from the store."""
