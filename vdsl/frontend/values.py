"""What an expression can stand for while it is being checked: a number of some kind, or a place on the lattice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from vdsl.ir.expr import Binary, Const, Expr, IndexVar, Place, Unary
from vdsl.ir.kinds import INT, Kind

Steps = tuple[tuple[int | str, Expr], ...]
Combine = Callable[[Expr, Expr], Expr]


@dataclass(frozen=True)
class Quantity:
    """A value that the energy can be made of."""

    kind: Kind
    expr: Expr

    def __str__(self) -> str:
        if self.kind == INT and isinstance(self.expr, Const) and isinstance(self.expr.value, float):
            return "a number beyond 2^63"  # where integers stop being exact
        return f"a{'n' if self.kind == INT else ''} {self.kind}"


@dataclass(frozen=True)
class Site:
    """A site. `bond_set` is the set whose bond it is an end of, if it is one, unmoved."""

    place: Place
    bond_set: str = field(default="", compare=False)

    def __str__(self) -> str:
        return "a site"


@dataclass(frozen=True)
class Axis:
    """An axis: a number, or the name of a variable."""

    axis: int | str

    def __str__(self) -> str:
        return "an axis"


@dataclass(frozen=True)
class Displacement:
    """Steps along axes, like `2*mu` or `mu + nu`."""

    steps: Steps

    def __str__(self) -> str:
        return "a displacement"


@dataclass(frozen=True)
class LinkPlace:
    """The link from a site along an axis."""

    place: Place
    axis: int | str

    def __str__(self) -> str:
        return "a link"


@dataclass(frozen=True)
class Plaquette:
    """The plaquette from a site in the plane of two axes."""

    place: Place
    mu: int | str
    nu: int | str

    def __str__(self) -> str:
        return "a plaquette"


@dataclass(frozen=True)
class Text:
    """A string."""

    value: str

    def __str__(self) -> str:
        return "a string"


@dataclass(frozen=True)
class Broken:
    """Something that has already been reported; whatever is made of it is broken in silence."""

    def __str__(self) -> str:
        return "something broken"


Value = Quantity | Site | Axis | Displacement | LinkPlace | Plaquette | Text | Broken
BROKEN = Broken()


def number(n: int) -> Quantity:
    """An integer constant."""
    return Quantity(INT, Const(n))


def is_index(expr: Expr) -> bool:
    """Whether an expression is a static integer: constants and integer variables of reductions only."""
    match expr:
        case Const(value):
            return isinstance(value, int) and not isinstance(value, bool)
        case IndexVar():
            return True
        case Unary("-", x):
            return is_index(x)
        case Binary("+" | "-" | "*" | "//" | "%", a, b):
            return is_index(a) and is_index(b)
    return False


def bounds(expr: Expr, ranges: dict[str, tuple[int, int]]) -> tuple[int, int] | None:
    """The smallest and largest value of a static integer, by interval arithmetic; None when unknown."""
    match expr:
        case Const(int(value)):
            return value, value
        case IndexVar(name):
            return ranges.get(name)
        case Unary("-", x):
            inner = bounds(x, ranges)
            return inner and (-inner[1], -inner[0])
        case Binary(op, a, b):
            left, right = bounds(a, ranges), bounds(b, ranges)
            if left is None or right is None:
                return None
            match op:
                case "+":
                    return left[0] + right[0], left[1] + right[1]
                case "-":
                    return left[0] - right[1], left[1] - right[0]
                case "*":
                    products = [x * y for x in left for y in right]
                    return min(products), max(products)
                case "%" if right[0] == right[1] > 0:
                    return left if left[0] >= 0 and left[1] < right[0] else (0, right[0] - 1)
    return None


def move(place: Place, steps: Steps, combine: Combine) -> Place:
    """A place moved by steps; `combine(a, b)` adds two amounts. Steps are kept canonical."""
    total: dict[int | str, Expr] = dict(place.steps)
    for axis, amount in steps:
        total[axis] = combine(total[axis], amount) if axis in total else amount
    return Place(place.base, _canonical(total), place.number)


def add_steps(a: Steps, b: Steps, combine: Combine) -> Steps:
    """The sum of two displacements."""
    return move(Place(None, a), b, combine).steps


def _canonical(steps: dict[int | str, Expr]) -> Steps:
    kept = [(axis, amount) for axis, amount in steps.items() if amount != Const(0)]
    return tuple(sorted(kept, key=lambda s: (isinstance(s[0], str), str(s[0]))))
