"""Reduction -> how it is computed on arrays: a pure choice with a reason, which `vdsl explain` prints.

| kind        | the elements of the reduction are                                                                  |
|-------------|----------------------------------------------------------------------------------------------------|
| elementwise | the stored values of a field as they stand                                                         |
| roll        | cells of a periodic lattice; a displaced value is the whole array rolled                           |
| slice       | the cells from which no place leaves an open axis; a displaced value is a shifted slice            |
| matmul      | pairs of sites with a body f(i)·M(i, j)·g(j): fᵀMg                                                 |
| gather      | rows of a static table of site numbers, signs and data                                             |
| broadcast   | new array axes next to those of the reduction around it                                            |
| segment     | rows of a static table, summed into the elements of the reduction around it                        |
| unroll      | written out one by one: few, and known when the model is built                                     |
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from vdsl.ir.expr import (
    Binary,
    DataRead,
    Expr,
    IndexVar,
    Item,
    Param,
    Place,
    Read,
    Reduce,
    Ref,
    SetOf,
    children,
    walk,
)
from vdsl.ir.lattice import OPEN, Lattice
from vdsl.ir.program import Program
from vdsl.ir.support import Group

MAX_LANES = 4096  # copies of a body that may be written out
MAX_UNROLLED_REDUCTIONS = 16  # outer loops around whole-lattice reductions that may be written out
FINITE = ("axes", "planes", "range")
GRID = ("sites", "bonds", "links", "plaquettes")


@dataclass(frozen=True)
class Strategy:
    """How one reduction is computed, and why."""

    kind: str
    reason: str


@dataclass(frozen=True)
class Decision:
    """The strategy of one reduction of a program: `where` is e.g. "interaction exchange", `reduction` its head."""

    where: str
    reduction: str
    strategy: Strategy


def decisions(program: Program) -> tuple[Decision, ...]:
    """The strategy of every reduction of a program, in order, outer ones first."""
    roots = [
        *((f"let {d.name}", d.value) for d in program.definitions),
        *((f"interaction {t.name}", t.value) for t in program.terms),
        ("temperature", program.temperature),
        *((f"observable {o.name}", o.value) for o in program.observables),
    ]
    return tuple(d for where, expr in roots for d in _decide(expr, program, where, frozenset(), False))


def choose(reduce: Reduce, program: Program, outer: frozenset[str] = frozenset(), on_grid: bool = False) -> Strategy:
    """The strategy of one reduction; `outer`: the variables around it that run along array axes (`on_grid`: cells)."""
    kinds = [b.over.kind for b in reduce.binders]
    if outer & free_variables(reduce):
        if on_grid:
            return Strategy("unroll", "a few terms for each cell")
        if reduce.where is not None and not _reads_fields(reduce.where):
            return Strategy("segment", "which elements count depends on the element outside")
        if _may_leave(reduce, program):
            return Strategy("segment", "places may lie past an open boundary")
        return Strategy("broadcast", "the same elements for each element outside")
    if all(kind in FINITE for kind in kinds):
        heavy = any(isinstance(n, Reduce) and not _is_plain(n, program) for n in walk(reduce.body))
        if heavy and lanes(reduce, program.lattice) <= MAX_UNROLLED_REDUCTIONS:
            return Strategy("unroll", "a few reductions over the lattice")
        return Strategy("gather", "a few numbers") if not heavy else Strategy("gather", "many reductions at once")
    if _is_plain(reduce, program):
        return Strategy("elementwise", "values are combined in the order they are stored in")
    if bilinear(reduce, program) is not None:
        return Strategy("matmul", "all pairs of sites, bilinear in functions of one site")
    obstacle = grid_obstacle(reduce, program)
    if obstacle is not None:
        return Strategy("gather", obstacle)
    if program.lattice is not None and OPEN in program.lattice.boundary:
        return Strategy("slice", "constant displacements, open boundary")
    return Strategy("roll", "constant displacements on a periodic lattice")


def grid_obstacle(reduce: Reduce, program: Program) -> str | None:
    """Why a reduction cannot run over the cells of the lattice with constant displacements; None if it can."""
    lattice = program.lattice
    if lattice is None or lattice.is_graph:
        return "a graph has no displacements"
    wide = [b for b in reduce.binders if b.over.kind not in FINITE]
    if len(wide) != 1 or wide[0].over.kind not in GRID:
        return "several sites vary independently"
    if lanes(reduce, lattice) > MAX_LANES:
        return "too many terms to write out"
    if reduce.op == "prod" and any(isinstance(f.support, Group) for f in program.fields):
        return "the order of matrix factors matters"
    sites = site_variables(reduce)
    for condition in conjuncts(reduce.where):
        if free_variables(condition) & sites and not _reads_fields(condition):
            return "a filter on sites"
    is_open = OPEN in lattice.boundary
    for node in (n for e in (reduce.body, *conjuncts(reduce.where)) for n in walk(e)):
        match node:
            case Place(number=number) if number is not None and free_variables(number) & sites:
                return "sites by number"
            case Place(steps=steps) if any(free_variables(amount) & sites for _, amount in steps):
                return "displacements that vary from site to site"
            case Reduce() if free_variables(node) & bound_variables(reduce):
                if any(b.over.kind not in FINITE for b in node.binders):
                    return "a reduction over sites inside"
                if is_open and any(isinstance(n, Place) for n in walk(node)):
                    return "an inner reduction that meets an open boundary"
                if any(free_variables(c) & sites or _reads_fields(c) for c in conjuncts(node.where)):
                    return "an inner reduction with a filter on sites"
                if lanes(reduce, lattice) * lanes(node, lattice) > MAX_LANES:
                    return "too many terms to write out"
    return None


def over_cells(reduce: Reduce, program: Program) -> bool:
    """Whether an elementwise reduction reads the array over cells that rolls start from, so that both share it."""
    lattice = program.lattice
    if lattice is None or lattice.is_graph or lattice.n_basis > 1 or len(reduce.binders) > 1:
        return False
    return reduce.binders[0].over.kind == "sites" and not any(isinstance(n, Reduce) for n in _dependent(reduce))


@dataclass(frozen=True)
class Bilinear:
    """A sum over pairs (i, j) of Π scalars · Π static factors · Π factors of i · Π factors of j."""

    i: str
    j: str
    scalars: tuple[Expr, ...]
    static: tuple[Expr, ...]
    left: tuple[Expr, ...]
    right: tuple[Expr, ...]


def bilinear(reduce: Reduce, program: Program) -> Bilinear | None:
    """A sum over the bonds of a dense graph (at least a quarter of all pairs) as a bilinear form, if it is one."""
    lattice = program.lattice
    if lattice is None or reduce.op != "sum" or reduce.where is not None or len(reduce.binders) != 1:
        return None
    binder = reduce.binders[0]
    if binder.over.kind not in ("bonds", "pairs") or not (lattice.is_graph or binder.over.kind == "pairs"):
        return None
    n = lattice.n_sites
    if n > 8192 or set_size(binder.over, lattice) * 8 < n * n or n < 2:
        return None
    i, j = binder.variables
    parts: dict[str, list[Expr]] = {"scalars": [], "static": [], "left": [], "right": []}
    for factor in _factors(reduce.body):
        used = free_variables(factor) & {i, j}
        if any(isinstance(node, Reduce) for node in walk(factor)):
            return None
        if not used:
            parts["scalars"].append(factor)
        elif not _reads_fields(factor):
            parts["static"].append(factor)
        elif len(used) == 1 and _plain_places(factor, used):
            parts["left" if i in used else "right"].append(factor)
        else:
            return None
    if not (parts["left"] and parts["right"]):
        return None
    return Bilinear(i, j, *(tuple(parts[k]) for k in ("scalars", "static", "left", "right")))


def lanes(reduce: Reduce, lattice: Lattice | None) -> int:
    """How many copies of the body are written out on a grid: bond classes, basis sites, axes, planes, ranges."""
    return math.prod(_lanes(b.over, lattice) for b in reduce.binders)


def set_size(over: SetOf, lattice: Lattice | None) -> int:
    """The number of elements of a set; for lattices, before any bond is left out at an open boundary."""
    if over.kind == "range":
        return len(range(*over.bounds))
    if lattice is None:
        return 0
    match over.kind:
        case "sites":
            return lattice.n_sites
        case "axes":
            return lattice.n_axes
        case "planes":
            return len(lattice.planes)
        case "links":
            return lattice.n_sites * lattice.n_axes
        case "plaquettes":
            return lattice.n_sites * len(lattice.planes)
        case "pairs":
            return lattice.n_sites * (lattice.n_sites - 1) // 2
    if lattice.edges is not None:
        return len(lattice.edges)
    return lattice.n_cells * len(lattice.bond_classes(over.name))


def bound_variables(reduce: Reduce) -> frozenset[str]:
    """The variables of a reduction's binders."""
    return frozenset(v for b in reduce.binders for v in b.variables)


def site_variables(reduce: Reduce) -> frozenset[str]:
    """The variables of a reduction that stand for sites."""
    ends = {"sites": 1, "links": 1, "plaquettes": 1, "bonds": 2, "pairs": 2}
    return frozenset(v for b in reduce.binders for v in b.variables[: ends.get(b.over.kind, 0)])


def free_variables(node: Expr | Place) -> frozenset[str]:
    """The binder variables that a node uses and does not bind."""
    used: set[str] = set()
    bound: set[str] = set()
    for n in walk(node):
        match n:
            case IndexVar(name):
                used.add(name)
            case Place(base, steps):
                used.update([base] if base is not None else [], (a for a, _ in steps if isinstance(a, str)))
            case Read(axis=str(axis)) | DataRead(axis=str(axis)):
                used.add(axis)
            case Reduce():
                bound |= bound_variables(n)
    return frozenset(used - bound)


def conjuncts(where: Expr | None) -> tuple[Expr, ...]:
    """The conditions that a filter joins by `and`."""
    match where:
        case None:
            return ()
        case Binary("and", left, right):
            return conjuncts(left) + conjuncts(right)
    return (where,)


def direct_reads(*exprs: Expr | None) -> list[Read | DataRead]:
    """The reads not inside a nested reduction: those that decide whether an element is absent."""
    found: list[Read | DataRead] = []
    stack: list[Expr | Place] = [e for e in exprs if e is not None]
    while stack:
        node = stack.pop()
        if isinstance(node, Read | DataRead):
            found.append(node)
        if not isinstance(node, Reduce):
            stack.extend(children(node))
    return found


def subscript_variables(reduce: Reduce) -> frozenset[str]:
    """Variables used to pick a component of a value, which have to be constants on arrays."""
    found: frozenset[str] = frozenset()
    for node in walk(reduce):
        match node:
            case Read(component=subscripts) | Item(index=subscripts):
                found = found.union(*(free_variables(s) for s in subscripts))
    return found


def head(reduce: Reduce) -> str:
    """A reduction as the language spells it, without its body."""
    binders = ", ".join(f"{_names(b.variables)} in {_set_name(b.over)}" for b in reduce.binders)
    return f"{reduce.op}({binders}{' where …' if reduce.where is not None else ''})"


def _decide(expr: Expr, program: Program, where: str, outer: frozenset[str], on_grid: bool) -> Iterator[Decision]:
    for node in _outermost(expr):
        hoisted = not (free_variables(node) & outer)
        around, grid = (frozenset(), False) if hoisted else (outer, on_grid)
        strategy = choose(node, program, around, grid)
        yield Decision(where, head(node), strategy)
        inside = around if strategy.kind == "unroll" else around | bound_variables(node)
        for part in (node.body, *conjuncts(node.where)):
            yield from _decide(part, program, where, inside, grid or strategy.kind in ("roll", "slice"))


def _outermost(expr: Expr) -> Iterator[Reduce]:
    stack: list[Expr | Place] = [expr]
    while stack:
        node = stack.pop()
        if isinstance(node, Reduce):
            yield node
        else:
            stack.extend(reversed(list(children(node))))


def _lanes(over: SetOf, lattice: Lattice | None) -> int:
    if over.kind in FINITE or lattice is None:
        return set_size(over, lattice)
    match over.kind:
        case "sites":
            return lattice.n_basis
        case "links":
            return lattice.n_basis * lattice.n_axes
        case "plaquettes":
            return lattice.n_basis * len(lattice.planes)
        case "bonds" if not lattice.is_graph:
            return len(lattice.bond_classes(over.name))
    return set_size(over, lattice)


def _is_plain(reduce: Reduce, program: Program) -> bool:
    """Whether every read is of the very element that the one site or link binder runs over, in storage order."""
    wide = [b for b in reduce.binders if b.over.kind not in FINITE]
    if not wide:
        return not any(isinstance(n, Reduce | Read) for n in walk(reduce.body))
    if len(wide) != 1 or wide[0].over.kind not in ("sites", "links") or reduce.where is not None:
        return False
    site, axis = (*wide[0].variables, None)[:2]
    for node in _dependent(reduce):
        match node:
            case Read(_, place, read_axis) if place != Place(site) or read_axis != axis:
                return False
            case DataRead(places=places) if any(place != Place(site) for place in places):
                return False
            case Reduce() if any(b.over.kind not in FINITE for b in node.binders):
                return False
    return True


def _dependent(reduce: Reduce) -> Iterator[Expr | Place]:
    """The nodes of a body, without the reductions inside that do not depend on its variables."""
    bound = bound_variables(reduce)
    stack: list[Expr | Place] = [reduce.body]
    while stack:
        node = stack.pop()
        if not isinstance(node, Reduce) or free_variables(node) & bound:
            yield node
            stack.extend(children(node))


def _may_leave(reduce: Reduce, program: Program) -> bool:
    lattice = program.lattice
    if lattice is None or OPEN not in lattice.boundary:
        return False
    reads = direct_reads(reduce.body, reduce.where)
    places = [p for r in reads for p in ((r.place,) if isinstance(r, Read) else r.places)]
    return any(p.steps for p in places) or any(r.axis is not None for r in reads)


def _factors(expr: Expr) -> Iterator[Expr]:
    match expr:
        case Binary("*", left, right):
            yield from _factors(left)
            yield from _factors(right)
        case _:
            yield expr


def _reads_fields(expr: Expr) -> bool:
    return any(isinstance(node, Read | Param | Ref) for node in walk(expr))


def _plain_places(expr: Expr, variables: frozenset[str]) -> bool:
    return all(not p.steps and p.base in variables for p in walk(expr) if isinstance(p, Place))


def _names(variables: tuple[str, ...]) -> str:
    return variables[0] if len(variables) == 1 else f"<{', '.join(variables)}>"


def _set_name(over: SetOf) -> str:
    match over.kind:
        case "bonds":
            return over.name
        case "range":
            start, stop, step = over.bounds
            return f"range({stop})" if (start, step) == (0, 1) else f"range({start}, {stop}, {step})"
    return over.kind
