"""Arithmetic of places: sites moved by axes, by multiples of them, and by whole cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vdsl.errors import Span
from vdsl.frontend import ast, fold
from vdsl.frontend.values import BROKEN, Axis, Broken, Displacement, Quantity, Site, Value, add_steps, is_index, move
from vdsl.ir.expr import Const, Expr, Items, Place
from vdsl.ir.kinds import INT, Vector

if TYPE_CHECKING:
    from vdsl.frontend.expressions import Elaborator


def combine_places(e: Elaborator, op: str, a: Value, b: Value, node: ast.Infix) -> Value:
    match op, a, b:
        case "*", Quantity(kind, amount), Axis() | Displacement():
            return scale(amount, b) if kind == INT and is_index(amount) else _bad_place(e, op, a, b, node)
        case "*", Axis() | Displacement(), Quantity():
            return combine_places(e, op, b, a, node)
        case "+", Axis() | Displacement() | Quantity(), Site():
            return combine_places(e, op, b, a, node)
    first = None if isinstance(a, Site) else displacement(e, a, node.left.span)
    second = None if isinstance(b, Site) else displacement(e, b, node.right.span)
    if op == "*" or (first is None and not isinstance(a, Site)) or second is None:
        return _bad_place(e, op, a, b, node)
    steps = second.steps if op == "+" else scale(Const(-1), second).steps
    if isinstance(a, Site):
        return Site(move(a.place, steps, add_amounts))
    return Displacement(add_steps(first.steps, steps, add_amounts)) if first else BROKEN


def _bad_place(e: Elaborator, op: str, a: Value, b: Value, node: ast.Infix) -> Broken:
    hints: list[str] = []
    notes = ["a site moves by an axis (`x + mu`), a multiple of one (`x - 2*mu`), or whole cells (`i + (1, -1)`)"]
    if (isinstance(a, Quantity) and isinstance(a.kind, Vector)) or (
        isinstance(b, Quantity) and isinstance(b.kind, Vector)
    ):
        sets = e.world.sets()
        axes = sets.lattice.n_axes if sets else 0
        notes = [f"the lattice has {axes} axes, so a displacement is {axes} integers known when compiling"]
    elif isinstance(a, Site) and isinstance(b, Site):
        hints = ["to compare two sites, write `i == j`"] if op == "-" else []
    verb = {"+": "plus", "-": "minus", "*": "times"}[op]
    return e.error("kind-mismatch", f"{a} {verb} {b} is not a place", node.span, notes=notes, hints=hints)


def displacement(e: Elaborator, value: Value, span: Span) -> Displacement | None:
    """A displacement out of an axis, a displacement, a tuple of integers, or (in one dimension) an integer."""
    sets = e.world.sets()
    n_axes = sets.lattice.n_axes if sets else 0
    match value:
        case Displacement():
            return value
        case Axis(axis):
            return Displacement(((axis, Const(1)),))
        case Quantity(Vector(n), Items(items)) if n == n_axes and all(is_index(x) for x in items):
            return Displacement(move(Place(None), tuple(enumerate(items)), add_amounts).steps)
        case Quantity(kind, amount) if kind == INT and n_axes == 1 and is_index(amount):
            return Displacement(move(Place(None), ((0, amount),), add_amounts).steps)
    return None


def scale(amount: Expr, value: Axis | Displacement) -> Displacement:
    steps = value.steps if isinstance(value, Displacement) else ((value.axis, Const(1)),)
    scaled = tuple((axis, fold.binary("*", amount, n) if n != Const(1) else amount) for axis, n in steps)
    return Displacement(move(Place(None), scaled, add_amounts).steps)


def moved(place: Place, by: Displacement) -> Place:
    """A place moved by a displacement."""
    return move(place, by.steps, add_amounts)


def add_amounts(a: Expr, b: Expr) -> Expr:
    """The sum of two amounts of steps."""
    if b == Const(0):
        return a
    return b if a == Const(0) else fold.binary("+", a, b)
