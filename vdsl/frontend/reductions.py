"""Reductions: binders put names in scope, and `sum`, `prod`, `mean`, `max`, `min` run over their elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vdsl.frontend import ast
from vdsl.frontend.arithmetic import reduction_kind
from vdsl.frontend.sets import SetTable
from vdsl.frontend.values import BROKEN, Axis, Broken, LinkPlace, Plaquette, Quantity, Site, Value
from vdsl.ir.expr import Binder, Const, IndexVar, Place, Reduce, SetOf
from vdsl.ir.kinds import BOOL, INT

if TYPE_CHECKING:
    from vdsl.frontend.expressions import Elaborator

LARGEST_REDUCTION = 10**10


def reduction(e: Elaborator, node: ast.Reduction) -> Value:
    sets = e.world.sets()
    if sets is None:
        return BROKEN
    before = e.locals
    binders: list[Binder] = []
    elements = 1
    try:
        for binder in node.binders:
            names, more = _bind(e, binder, sets)
            if more is None:
                return BROKEN
            for b in more:
                elements *= sets.count(b.over)
            binders += more
            e.locals = e.locals | names
        where = None if node.where is None else e.quantity(node.where)
        body = e.quantity(node.body)
    finally:
        e.locals = before
    if isinstance(where, Quantity) and where.kind != BOOL:
        where = e.error(
            "kind-mismatch",
            f"`where` needs a truth value, and this is {where}",
            node.where.span if node.where else node.span,
            hints=["compare it: `x != 0`"],
        )
    if isinstance(body, Broken) or isinstance(where, Broken):
        return BROKEN
    if elements > LARGEST_REDUCTION:
        return e.error(
            "too-large",
            f"this `{node.op.id}` runs over {elements:.3g} elements",
            node.span,
            notes=[f"at most {LARGEST_REDUCTION:.0e}"],
            exit_code=4,
        )
    if elements == 0 and node.op.id in ("mean", "max", "min"):
        return e.error("empty-set", f"`{node.op.id}` over an empty set has no value", node.span)
    kind = reduction_kind(node.op.id, body.kind)
    if kind is None:
        hints = ["count with `if … then 1 else 0`"] if body.kind == BOOL else []
        return e.error("kind-mismatch", f"`{node.op.id}` does not reduce {body}", node.body.span, hints=hints)
    condition = None if where is None or where.expr == Const(True) else where.expr
    return Quantity(kind, Reduce(node.op.id, tuple(binders), body.expr, condition))


def _bind(e: Elaborator, binder: ast.BinderExpr, sets: SetTable) -> tuple[dict[str, Value], list[Binder] | None]:
    over = e.set_of(binder.over)
    names = [n.id for n in binder.names]
    if over is None:
        return {}, None
    expected = {
        "sites": (1,),
        "axes": (1,),
        "range": (1,),
        "links": (1, 2),
        "planes": (2,),
        "plaquettes": (1, 3),
        "bonds": (2,),
        "pairs": (2,),
    }[over.kind]
    if len(names) not in expected:
        example = {"links": "l", "plaquettes": "p", "planes": "<mu, nu>", "bonds": "<i, j>", "pairs": "<i, j>"}
        e.error(
            "bad-binder",
            f"an element of this set needs {' or '.join(map(str, expected))} "
            f"variable{'s' if expected != (1,) else ''}, and there {'is' if len(names) == 1 else 'are'} "
            f"{len(names)}",
            binder.span,
            hints=[f"write `{example.get(over.kind, 'i')} in …`"],
        )
        return {}, None
    lattice = sets.lattice
    closed = "open" not in lattice.boundary
    site, a, b = e.fresh("x"), e.fresh("mu"), e.fresh("nu")
    e.ranges[site] = (0, max(0, lattice.n_sites - 1))
    e.ranges[a] = e.ranges[b] = (0, max(0, lattice.n_axes - 1))
    here = Site(Place(site))
    match over.kind:
        case "sites":
            return {names[0]: here}, [Binder((site,), over)]
        case "axes":
            return {names[0]: Axis(a)}, [Binder((a,), over)]
        case "planes":
            return {names[0]: Axis(a), names[1]: Axis(b)}, [Binder((a, b), over)]
        case "links":
            split = [Binder((site,), SetOf("sites")), Binder((a,), SetOf("axes"))]
            bound: dict[str, Value] = (
                {names[0]: LinkPlace(Place(site), a)} if len(names) == 1 else {names[0]: here, names[1]: Axis(a)}
            )
            return bound, split if closed else [Binder((site, a), over)]
        case "plaquettes":
            split = [Binder((site,), SetOf("sites")), Binder((a, b), SetOf("planes"))]
            if len(names) == 1:
                bound = {names[0]: Plaquette(Place(site), a, b)}
            else:
                bound = dict(zip(names, (here, Axis(a), Axis(b)), strict=True))
            return bound, split if closed else [Binder((site, a, b), over)]
        case "range":
            start, stop, step = over.bounds
            k = e.fresh("k")
            steps = len(range(start, stop, step))
            last = start + step * max(0, steps - 1)
            e.ranges[k] = (min(start, last), max(start, last))
            return {names[0]: Quantity(INT, IndexVar(k))}, [Binder((k,), over)]
    i, j = e.fresh("i"), e.fresh("j")
    e.ranges[i] = e.ranges[j] = e.ranges[site]
    bond_set = over.name if over.kind == "bonds" else "pairs"
    return {names[0]: Site(Place(i), bond_set), names[1]: Site(Place(j), bond_set)}, [Binder((i, j), over)]
