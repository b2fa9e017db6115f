"""Reconciliation: compares the mirror with the vendor's REST API, and appends what the vendor says otherwise."""
