"""Halved: the same interactions on half the side, where the guide of a large lattice can begin to learn."""

from __future__ import annotations

from dataclasses import replace

from vdsl.ir.lattice import PERIODIC
from vdsl.ir.program import Program

SHORTEST = 8  # cells along the side of a lattice worth training on


def halved(program: Program) -> Program | None:
    """The model on half as many cells along every axis, without observables; None where there is no such model.

    There is one if all axes are periodic and stay even and long enough, and no data belong to single sites. What was
    folded into numbers stays as it was (a coupling given as J/N keeps the value it had at N): what is learned on the
    half is a beginning and never a result.
    """
    lattice = program.lattice
    if lattice is None or lattice.is_graph or any(b != PERIODIC for b in lattice.boundary):
        return None
    if program.data or any(f.on != "sites" for f in program.fields):
        return None
    if any(side % 2 or side // 2 < SHORTEST for side in lattice.shape):
        return None
    half = replace(lattice, shape=tuple(side // 2 for side in lattice.shape))
    return replace(program, lattice=half, observables=(), derived=(), claims=(), scans=(), train=None)
