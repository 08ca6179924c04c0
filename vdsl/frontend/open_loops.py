"""Products of links under a trace: do they lead back to where they start?

U[x, mu] leads from x to x + mu and its adjoint back. A product whose factors do not join, or whose end is not its
start, turns under gauge transformations: its average vanishes, and an interaction made of it has no gauge symmetry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from vdsl.errors import Span
from vdsl.frontend.findings import Findings
from vdsl.ir.expr import Binary, Const, Expr, Place, Read, Unary
from vdsl.ir.lattice import PERIODIC, Lattice
from vdsl.ir.program import Claim

Point = tuple[str | None, dict[int | str, int]]


@dataclass(frozen=True)
class OpenLoop:
    """A trace whose product does not close: the fields in it, where, what is wrong, and in what it stands."""

    fields: tuple[str, ...]
    span: Span
    why: str
    in_interaction: bool


def open_loop(product: Expr, lattice: Lattice) -> str | None:
    """What keeps a product of links from being a closed loop; None where it is one, or where that is not certain."""
    factors = _factors(product, False)
    if factors is None:
        return None
    ends = [_ends(read, backwards, lattice) for read, backwards in factors]
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):
        return None
    for k, (one, two) in enumerate(pairwise(known)):
        if not _same(one[1], two[0], lattice):
            return f"factor {k + 1} ends at {_shown(one[1])}, and factor {k + 2} starts at {_shown(two[0])}"
    if not _same(known[-1][1], known[0][0], lattice):
        return f"it starts at {_shown(known[0][0])} and ends at {_shown(known[-1][1])}"
    return None


def report(loops: Sequence[OpenLoop], claims: Sequence[Claim], links: Sequence[str], findings: Findings) -> None:
    """An error where the gauge symmetry is claimed, a warning elsewhere."""
    claimed = {f for c in claims if c.kind == "gauge" for f in (c.fields or links)}
    for loop in loops:
        told = findings.error if loop.in_interaction and claimed & set(loop.fields) else findings.warning
        told(
            "open-loop",
            "this product of links is not a closed loop",
            loop.span,
            "changes under gauge transformations",
            notes=[loop.why, "`U[x, mu]` leads from x to x + mu, and its adjoint back"],
            hints=["a plaquette is `loop(U, p)`, or U[x, mu] * U[x + mu, nu] * U[x + nu, mu]' * U[x, nu]'"],
        )


def reads_of(product: Expr) -> tuple[str, ...]:
    """The fields of a product of links; () for anything else."""
    return tuple(dict.fromkeys(read.field for read, _ in _factors(product, False) or []))


def _factors(node: Expr, adjoint: bool) -> list[tuple[Read, bool]] | None:
    """(link, whether adjoint) from left to right; None for what is no product of links."""
    match node:
        case Read(axis=axis, component=()) if axis is not None:
            return [(node, adjoint)]
        case Unary("'", operand):
            return _factors(operand, not adjoint)
        case Binary("*", left, right):
            first, second = (right, left) if adjoint else (left, right)
            one, two = _factors(first, adjoint), _factors(second, adjoint)
            return None if one is None or two is None else one + two
    return None


def _ends(read: Read, backwards: bool, lattice: Lattice) -> tuple[Point, Point] | None:
    place, axis = read.place, read.axis
    if not isinstance(place, Place) or place.base is None or axis is None:
        return None
    steps: dict[int | str, int] = {}
    for a, amount in place.steps:
        if not isinstance(amount, Const) or not isinstance(amount.value, int):
            return None
        steps[a] = amount.value
    far = steps | {axis: steps.get(axis, 0) + 1}
    ends = ((place.base, steps), (place.base, far))
    return (ends[1], ends[0]) if backwards else ends


def _same(a: Point, b: Point, lattice: Lattice) -> bool:
    """Whether two places are one: up to turns around periodic axes. Axes that are variables may be any."""
    if a[0] != b[0]:
        return False
    for axis in {*a[1], *b[1]}:
        difference = a[1].get(axis, 0) - b[1].get(axis, 0)
        axes = [axis] if isinstance(axis, int) else range(lattice.n_axes)
        turns = any(lattice.boundary[a] == PERIODIC and difference % lattice.shape[a] == 0 for a in axes)
        if difference and not turns:
            return False
    return True


def _shown(point: Point) -> str:
    base, steps = point
    words = [str(base).split(".")[0]]
    for axis, n in steps.items():
        if n:
            name = axis.split(".")[0] if isinstance(axis, str) else f"axis {axis}"
            words.append(f"{'+' if n > 0 else '-'} {name if abs(n) == 1 else f'{abs(n)} {name}'}")
    return " ".join(words)
