"""Ready-made observables of link fields: `wilson_loop(U, R, T)` … -> ordinary expressions of the program.

    wilson_loop(U, R, T)          Re tr W/N of rectangles of R × T links, the mean over positions, planes and both
                                  orientations in each; `wilson_loop(U, R, T, mu, nu)`: R along μ and T along ν only
    polyakov_loop(U, mu)          tr ∏_t U_μ(x + tμ)/N around a periodic axis, the mean over x: a complex number
    topological_charge(U)         Σ_p arg P/2π of angles or U(1) in two dimensions

An angle stands for e^{iθ} here, with N = 1.
"""

from __future__ import annotations

from math import pi
from typing import TYPE_CHECKING

from vdsl.frontend import ast, fold, indexing
from vdsl.frontend.findings import declared
from vdsl.frontend.places import add_amounts
from vdsl.frontend.values import BROKEN, Broken, Quantity, Value, move
from vdsl.ir.expr import Binary, Binder, Call, Const, Expr, Place, Read, Reduce, SetOf
from vdsl.ir.kinds import COMPLEX, INT, REAL
from vdsl.ir.lattice import OPEN, PERIODIC, Lattice
from vdsl.ir.program import Field
from vdsl.ir.support import Angle, Group, describe

if TYPE_CHECKING:
    from vdsl.frontend.expressions import Elaborator

LONGEST = 100  # links of a loop: more would be nested too deeply
_TAKES = {
    "wilson_loop": ((3, 5), "a field and two lengths, and two axes if need be"),
    "polyakov_loop": ((2,), "a field and an axis"),
    "topological_charge": ((1,), "a field"),
}
Step = tuple[int | str, bool]  # along an axis, forwards or backwards


def gauge_observable(e: Elaborator, node: ast.CallExpr) -> Value:
    """The value of a call of one of these functions."""
    name = node.function.id
    counts, takes = _TAKES[name]
    if len(node.arguments) not in counts:
        n = len(node.arguments)
        given = "there is 1 argument" if n == 1 else f"there are {n} arguments"
        return e.error("wrong-arguments", f"`{name}` takes {takes}, and {given}", node.span)
    field, sets = link_field(e, node.arguments[0], name), e.world.sets()
    if field is None or sets is None:
        return BROKEN
    if not isinstance(field.support, Angle | Group):
        return e.error(
            "kind-mismatch",
            f"`{name}` needs group elements or angles, and `{field.name}` is a field of `{describe(field.support)}`",
            node.arguments[0].span,
            related=[declared(field.name, e.world.scope.values[field.name].name.span)],
        )
    match name:
        case "wilson_loop":
            return _wilson_loop(e, field, node, sets.lattice)
        case "polyakov_loop":
            return _polyakov_loop(e, field, node, sets.lattice)
    return _topological_charge(e, field, node, sets.lattice)


def link_field(e: Elaborator, node: ast.Expr, function: str) -> Field | None:
    """The field on links that an argument names; None where it names none (reported)."""
    if isinstance(node, ast.Name) and node.id not in e.locals and node.id in e.world.scope.values:
        found = e.world.value(node.id)
        if isinstance(found, Field):
            if e.allowed("field", found.name, node) is not None:
                return None
            if found.on == "links":
                return found
            declaration = e.world.scope.values[node.id].name
            e.error(
                "kind-mismatch",
                f"`{function}` needs a field on links, and `{node.id}` lives on sites",
                node.span,
                related=[declared(node.id, declaration.span)],
            )
            return None
        if isinstance(found, Broken):
            return None
    e.error("kind-mismatch", f"`{function}` needs the name of a field here", node.span, "not a field")
    return None


# The three of them


def _wilson_loop(e: Elaborator, field: Field, node: ast.CallExpr, lattice: Lattice) -> Value:
    r, t = (_length(e, n) for n in node.arguments[1:3])
    if r is None or t is None:
        return BROKEN
    if 2 * (r + t) > LONGEST:
        message = f"a loop of {r} x {t} has {2 * (r + t)} links"
        return e.error("too-large", message, node.span, notes=[f"at most {LONGEST}"], exit_code=4)
    if len(node.arguments) == 5:
        axes = [indexing.axis_of(e, n) for n in node.arguments[3:]]
        mu, nu = axes
        if mu is None or nu is None:
            return BROKEN
        if mu == nu:
            return e.error("wrong-arguments", "a loop needs two different axes", node.arguments[4].span)
        known = [(mu, nu)] if isinstance(mu, int) and isinstance(nu, int) else []
        if not all(_fits(lattice, *plane, r, t) for plane in known):
            return _no_room(e, node, r, t)
        return Quantity(REAL, _mean(e, field, _rectangle(mu, nu, r, t), ()))
    if not lattice.planes:
        return e.error("bad-set", "`wilson_loop` needs a lattice with planes", node.span, notes=["two axes or more"])
    if not any(_fits(lattice, *plane, a, b) for plane in lattice.planes for a, b in ((r, t), (t, r))):
        return _no_room(e, node, r, t)
    ways = ((r, t),) if r == t else ((r, t), (t, r))
    means = []
    for a, b in ways:
        if any(_fits(lattice, *plane, a, b) for plane in lattice.planes):
            axes_of = (e.fresh("mu"), e.fresh("nu"))
            planes = Binder(axes_of, SetOf("planes"))
            means.append(_mean(e, field, _rectangle(*axes_of, a, b), (planes,)))
    return Quantity(REAL, means[0] if len(means) == 1 else Binary("/", Binary("+", *means), Const(2)))


def _polyakov_loop(e: Elaborator, field: Field, node: ast.CallExpr, lattice: Lattice) -> Value:
    axis = indexing.axis_of(e, node.arguments[1])
    if axis is None:
        return BROKEN
    if isinstance(axis, str):
        return e.error(
            "kind-mismatch",
            "`polyakov_loop` needs the number of an axis here",
            node.arguments[1].span,
            notes=["its length must be known when compiling"],
        )
    if lattice.boundary[axis] != PERIODIC:
        return e.error(
            "bad-boundary",
            f"`polyakov_loop` needs a periodic axis, and axis {axis} is {lattice.boundary[axis]}",
            node.span,
            notes=["a loop closes around periodic axes only"],
        )
    length = lattice.shape[axis]
    if length > LONGEST:
        message = f"a loop around axis {axis} has {length} links"
        return e.error("too-large", message, node.span, notes=[f"at most {LONGEST}"], exit_code=4)
    # The trace does not depend on where along the axis the loop starts: all sites serve for the transverse ones.
    x = e.fresh("x")
    links = _links(field, Place(x), [(axis, True)] * length)
    sites = Binder((x,), SetOf("sites"))
    if isinstance(field.support, Angle):
        parts = tuple(Reduce("mean", (sites,), Call(f, (_flux(links),))) for f in ("cos", "sin"))
        return Quantity(COMPLEX, Binary("+", parts[0], Binary("*", Const(1j), parts[1])))
    return Quantity(COMPLEX, Reduce("mean", (sites,), _trace(field, links)))


def _topological_charge(e: Elaborator, field: Field, node: ast.CallExpr, lattice: Lattice) -> Value:
    if lattice.n_axes != 2 or field.support not in (Angle(), Group("U1")):
        what = f"a field of `{describe(field.support)}` in {lattice.n_axes} dimensions"
        return e.error(
            "kind-mismatch",
            f"`topological_charge` is Σ arg P / 2π of angles or U(1) in two dimensions, and this is {what}",
            node.span,
            related=[declared(field.name, e.world.scope.values[field.name].name.span)],
        )
    x = e.fresh("x")
    links = _links(field, Place(x), _rectangle(0, 1, 1, 1))
    if isinstance(field.support, Angle):
        flux: Expr = Call("wrap", (_flux(links),))
    else:
        flux = Call("arg", (_product(links),))
    total = Reduce("sum", (Binder((x,), SetOf("sites")),), flux)
    return Quantity(REAL, Binary("/", total, Const(2 * pi)))


# Paths


Link = tuple[str, Place, int | str, bool]


def _rectangle(mu: int | str, nu: int | str, r: int, t: int) -> list[Step]:
    return [(mu, True)] * r + [(nu, True)] * t + [(mu, False)] * r + [(nu, False)] * t


def _links(field: Field, start: Place, path: list[Step]) -> list[Link]:
    """The links of a path from a site, in the order they are gone along."""
    at = start
    out: list[Link] = []
    for axis, forwards in path:
        there = move(at, ((axis, Const(1 if forwards else -1)),), add_amounts)
        out.append((field.name, at if forwards else there, axis, forwards))
        at = there
    return out


def _mean(e: Elaborator, field: Field, path: list[Step], planes: tuple[Binder, ...]) -> Expr:
    """The mean over sites (and planes) of Re tr/N along a closed path."""
    x = e.fresh("x")
    links = _links(field, Place(x), path)
    angles = isinstance(field.support, Angle)
    body: Expr = Call("cos", (_flux(links),)) if angles else Call("re", (_trace(field, links),))
    return Reduce("mean", (Binder((x,), SetOf("sites")), *planes), body)


def _flux(links: list[Link]) -> Expr:
    """The sum of angles, in halves, so that long ones are not deep."""
    if len(links) > 1:
        half = len(links) // 2
        return fold.binary("+", _flux(links[:half]), _flux(links[half:]))
    ((field, place, axis, forwards),) = links
    read = Read(field, place, axis)
    return read if forwards else fold.unary("-", read)


def _product(links: list[Link]) -> Expr:
    """The ordered product, in halves."""
    if len(links) > 1:
        half = len(links) // 2
        return fold.binary("*", _product(links[:half]), _product(links[half:]))
    ((field, place, axis, forwards),) = links
    read = Read(field, place, axis)
    return read if forwards else fold.unary("'", read)


def _trace(field: Field, links: list[Link]) -> Expr:
    n = {"U1": 1, "SU2": 2, "SU3": 3}[field.support.name] if isinstance(field.support, Group) else 1
    product = _product(links)
    return product if n == 1 else Binary("/", Call("tr", (product,)), Const(n))


# Arguments


def _length(e: Elaborator, node: ast.Expr) -> int | None:
    match e.value(node):
        case Broken():
            return None
        case Quantity(kind, Const(int(n))) if kind == INT and n >= 1:
            return n
        case found:
            e.error(
                "kind-mismatch",
                f"the length of a side was expected here, and this is {found}",
                node.span,
                notes=["a side is an integer known when compiling, 1 or more, in links"],
            )
    return None


def _fits(lattice: Lattice, mu: int, nu: int, r: int, t: int) -> bool:
    """Whether a loop lies on the lattice: inside open axes, and not longer than periodic ones."""
    sides = ((mu, r), (nu, t))
    return all(n <= lattice.shape[a] - (lattice.boundary[a] == OPEN) for a, n in sides)


def _no_room(e: Elaborator, node: ast.CallExpr, r: int, t: int) -> Broken:
    return e.error("empty-set", f"the lattice has no room for a loop of {r} x {t}", node.span)
