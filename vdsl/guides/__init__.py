"""Guides: trial densities derived from a model, one family per file."""
