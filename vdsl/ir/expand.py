"""Expand: a program into its `Expansion`."""

from __future__ import annotations

from collections.abc import Mapping

from vdsl.ir.expansion import Expansion
from vdsl.ir.program import Program


def expand_energy(program: Program, theta: Mapping[str, float]) -> Expansion:
    """The energy at parameters θ as a sum of products of one-variable functions; what is none is left opaque."""
    raise NotImplementedError
