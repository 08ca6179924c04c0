"""Exact answers for discrete fields: variable elimination and closed forms."""
