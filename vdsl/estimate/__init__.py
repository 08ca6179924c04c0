"""Estimates: every number with its error and its method, as pure functions of a `Draw`."""
