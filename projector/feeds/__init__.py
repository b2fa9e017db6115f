"""The feeds: what changed in groups, and the events themselves, as messages in the order of positions."""
