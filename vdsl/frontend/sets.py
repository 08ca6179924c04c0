"""Sets of a lattice: the names and calls after `in`, and how many elements each has, counted without building any."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from vdsl.frontend import ast
from vdsl.frontend.findings import several
from vdsl.frontend.values import Broken, Quantity, Steps
from vdsl.ir.expr import Const, SetOf
from vdsl.ir.kinds import INT
from vdsl.ir.lattice import OPEN, BondClass, Lattice

if TYPE_CHECKING:
    from vdsl.frontend.expressions import Elaborator

LARGEST_RANGE = 10**7
FARTHEST_SHELL = 12


class SetTable:
    """The sets of one lattice. `used_bonds` remembers the bond sets that the model runs over."""

    def __init__(self, lattice: Lattice):
        self.lattice = lattice
        self.used_bonds: dict[str, ast.Expr] = {}
        self._pairs_joined: dict[str, np.ndarray] = {}

    def resolve(self, e: Elaborator, node: ast.Expr) -> SetOf | None:
        """The set that an expression names; None when it is not one (reported)."""
        match node:
            case ast.Name(id=name) if name in ("sites", "links", "axes", "planes", "plaquettes"):
                if name in ("planes", "plaquettes") and self.lattice.n_axes < 2:
                    e.error(
                        "unknown-set",
                        f"no set called `{name}` here",
                        node.span,
                        "not a set",
                        notes=[f"the lattice `{self.lattice.kind}` has one axis, and so no {name}"],
                    )
                    return None
                return SetOf(name)
            case ast.Name(id=name):
                return self._bonds(e, name, node)
            case ast.CallExpr(function=function, arguments=arguments):
                match function.id:
                    case "range":
                        return self._range(e, node)
                    case "shell":
                        k = _integer(e, arguments[0]) if len(arguments) == 1 else None
                        if len(arguments) != 1:
                            e.error(
                                "wrong-arguments",
                                f"`shell` takes 1 argument, and there are {len(arguments)}",
                                node.span,
                            )
                        if k is None:
                            return None
                        if not 1 <= k <= FARTHEST_SHELL:
                            e.error(
                                "out-of-range",
                                f"there is no shell {k}",
                                arguments[0].span,
                                notes=[f"shells are counted from 1 (nearest neighbours) to {FARTHEST_SHELL}"],
                            )
                            return None
                        return self._bonds(e, f"shell({k})", node)
                    case "pairs":
                        return self._pairs(e, node)
        return None

    def count(self, over: SetOf) -> int:
        """How many elements a set has: a product per class of links, bonds or plaquettes, never a list."""
        lattice = self.lattice
        match over.kind:
            case "sites":
                return lattice.n_sites
            case "axes":
                return lattice.n_axes
            case "planes":
                return len(lattice.planes)
            case "range":
                return len(range(*over.bounds))
            case "pairs":
                return lattice.n_sites * (lattice.n_sites - 1) // 2
            case "links":
                return sum(self._starts(lattice.axis_step(a)) for a in range(lattice.n_axes)) * lattice.n_basis
            case "plaquettes":
                steps = (tuple(int(a in plane) for a in range(lattice.n_axes)) for plane in lattice.planes)
                return sum(self._starts(step) for step in steps) * lattice.n_basis
        if lattice.edges is not None:
            return len(lattice.edges)
        return sum(self._starts(c.displacement) for c in lattice.bond_classes(over.name))

    def reach(self, steps: Steps) -> int:
        """How many sites a displacement leaves for another existing site, along the best axis if one is variable."""
        moved = [[0] * self.lattice.n_axes for _ in range(self.lattice.n_axes)]
        for axis, amount in steps:
            n = int(amount.value.real) if isinstance(amount, Const) else 0
            for a, displacement in enumerate(moved):
                displacement[a if isinstance(axis, str) else axis] += n
        return max(self._starts(tuple(d)) for d in moved) * self.lattice.n_basis

    def contains(self, outer: str, inner: str) -> bool:
        """Whether every bond of one set is a bond of another, in either direction."""
        if self.lattice.is_graph or inner == "pairs" or outer not in ("nnn", *self.lattice.bond_set_names()):
            return outer == inner or self.lattice.is_graph
        known = {_unoriented(c) for c in self.lattice.bond_classes(outer)}
        return all(_unoriented(c) in known for c in self.lattice.bond_classes(inner))

    def joined(self, name: str, i: int, j: int) -> bool:
        """Whether a bond of a set joins two sites."""
        n = self.lattice.n_sites
        if name not in self._pairs_joined:
            bonds = self.lattice.bonds(name)
            self._pairs_joined[name] = np.unique(np.minimum(bonds.i, bonds.j) * n + np.maximum(bonds.i, bonds.j))
        known, pair = self._pairs_joined[name], min(i, j) * n + max(i, j)
        at = int(np.searchsorted(known, pair))
        return at < len(known) and int(known[at]) == pair

    def _starts(self, displacement: tuple[int, ...]) -> int:
        """The number of cells that a displacement leaves for another existing cell."""
        lengths = zip(self.lattice.shape, self.lattice.boundary, displacement, strict=True)
        return prod(max(0, n - abs(d)) if boundary == OPEN else n for n, boundary, d in lengths)

    def _bonds(self, e: Elaborator, name: str, node: ast.Expr) -> SetOf | None:
        if self.lattice.is_graph:
            return SetOf("bonds", name)
        try:
            self.lattice.bond_classes(name)
        except ValueError as found:
            e.error("too-large", str(found), node.span, exit_code=4)
            return None
        except KeyError:
            e.error(
                "unknown-set",
                f"no set called `{name}` here",
                node.span,
                "not a set of bonds",
                notes=[f"the lattice `{self.lattice.kind}` has bonds: {several(self.lattice.bond_set_names())}"],
            )
            return None
        self.used_bonds.setdefault(name, node)
        return SetOf("bonds", name)

    def _pairs(self, e: Elaborator, node: ast.CallExpr) -> SetOf | None:
        match node.arguments:
            case (ast.Name(id="sites"),) if not node.keywords:
                return SetOf("pairs")
        e.error(
            "not-supported-yet" if node.keywords else "bad-set",
            "only `pairs(sites)` is supported",
            node.span,
            notes=["it holds every pair of sites once"],
        )
        return None

    def _range(self, e: Elaborator, node: ast.CallExpr) -> SetOf | None:
        n = len(node.arguments)
        if not 1 <= n <= 3 or node.keywords:
            e.error(
                "wrong-arguments",
                f"`range` takes 1 to 3 arguments, and there are {n}",
                node.span,
                notes=["`range(n)`, `range(start, stop)` or `range(start, stop, step)`; the stop is not included"],
            )
            return None
        numbers = [_integer(e, a) for a in node.arguments]
        if any(x is None for x in numbers):
            return None
        known = [x for x in numbers if x is not None]
        start, stop, step = (0, known[0], 1) if n == 1 else (*known, 1)[:3]
        if step == 0:
            e.error("out-of-range", "the step of a `range` cannot be 0", node.arguments[2].span)
            return None
        if len(range(start, stop, step)) > LARGEST_RANGE:
            e.error(
                "too-large",
                "this `range` is too long",
                node.span,
                notes=[f"at most {LARGEST_RANGE} integers"],
                exit_code=4,
            )
            return None
        return SetOf("range", "", (start, stop, step))


def _integer(e: Elaborator, node: ast.Expr) -> int | None:
    """An integer known when compiling."""
    value = e.quantity(node)
    match value:
        case Broken():
            return None
        case Quantity(kind, Const(int(n))) if kind == INT:
            return n
    if isinstance(value, Quantity) and value.kind == INT:
        e.error("not-static", "this integer is not known when the model is compiled", node.span)
    else:
        e.error(
            "not-an-integer",
            f"an integer was expected here, and this is {value}",
            node.span,
            "not an integer",
            hints=["`//` divides integers"],
        )
    return None


def _unoriented(c: BondClass) -> BondClass:
    back = BondClass(c.target, c.source, tuple(-d for d in c.displacement))
    return min(c, back, key=lambda b: (b.source, b.target, b.displacement))
