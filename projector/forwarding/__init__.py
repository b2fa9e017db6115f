"""Forwarding: a feed delivered to an HTTP endpoint, in order for each group, at least once."""
