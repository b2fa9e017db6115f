"""Replay: build a new read model from position 0 beside the live one, compare the two, swap them."""
