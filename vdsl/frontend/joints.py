"""Whether a bond can join two places, as far as it is known before any site is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from vdsl.frontend.sets import SetTable
from vdsl.ir.expr import Const, Place
from vdsl.ir.lattice import OPEN, Lattice

Steps = tuple[int, ...]


def can_join(sets: SetTable, bonds: str, a: Place, b: Place) -> bool:
    """False when no bond of the set joins the places, whatever the variables in them stand for.

    Known are two numbered sites, and two places that are reached from one site by fixed steps; a step along an axis
    variable may go along any axis. Everything else may be joined.
    """
    i, j = _number(a), _number(b)
    if i is not None and j is not None:
        return sets.joined(bonds, i, j)
    lattice = sets.lattice
    if a.base is None or a.base != b.base or lattice.is_graph:
        return True
    classes = [c.displacement for c in lattice.bond_classes(bonds) if c.source == c.target]
    return any(_is_one_of(delta, classes, lattice) for delta in _differences(a, b, lattice.n_axes))


def _number(place: Place) -> int | None:
    match place:
        case Place(None, (), Const(int(n))):
            return n
    return None


def _differences(a: Place, b: Place, n_axes: int) -> Iterator[Steps | None]:
    """b − a for every choice of the axis variables; None where an amount is not a constant."""
    variables = sorted({axis for axis, _ in (*a.steps, *b.steps) if isinstance(axis, str)})
    for chosen in itertools.product(range(n_axes), repeat=len(variables)):
        axes = dict(zip(variables, chosen, strict=True))
        delta = [0] * n_axes
        for sign, place in ((1, b), (-1, a)):
            for axis, amount in place.steps:
                if not isinstance(amount, Const):
                    yield None
                    return
                delta[axes[axis] if isinstance(axis, str) else axis] += sign * int(amount.value.real)
        yield tuple(delta)


def _is_one_of(delta: Steps | None, classes: list[Steps], lattice: Lattice) -> bool:
    """Whether a displacement, or its reverse, is that of a bond, around the periods of the lattice."""
    if delta is None:
        return True
    periods = [0 if boundary == OPEN else n for n, boundary in zip(lattice.shape, lattice.boundary, strict=True)]

    def same(x: Steps, y: Steps) -> bool:
        return all(p == q if not n else (p - q) % n == 0 for p, q, n in zip(x, y, periods, strict=True))

    reverse = tuple(-d for d in delta)
    return any(same(delta, c) or same(reverse, c) for c in classes)
