"""Replay: build a fresh read model from position 0 beside the live one, compare the two, swap."""
