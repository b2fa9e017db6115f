"""The two doors: callbacks in, answers out."""
