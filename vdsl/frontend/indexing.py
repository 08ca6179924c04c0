"""Index expressions, `s[i]`, `U[x + mu, nu]`, `S[i, 0]`, `J[i, j]` -> reads of fields and data, and components."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from vdsl.errors import Span
from vdsl.frontend import ast
from vdsl.frontend.findings import count, declared, several
from vdsl.frontend.joints import can_join
from vdsl.frontend.values import BROKEN, Axis, Broken, LinkPlace, Plaquette, Quantity, Site, Value, bounds, is_index
from vdsl.ir.expr import Const, DataRead, Expr, Item, Items, Place, Read
from vdsl.ir.kinds import COMPLEX, INT, REAL, Kind, Matrix, Scalar, Vector, kind_of_support
from vdsl.ir.program import Data, Field

if TYPE_CHECKING:
    from vdsl.frontend.expressions import Elaborator


Element = tuple[Place, int | str | None, tuple[ast.Expr, ...]]  # a site or link, and the subscripts that follow
_PLURALS = {"component": "components", "entry": "entries"}


def index(e: Elaborator, node: ast.Index) -> Value:
    """The value of `value[index, …]`."""
    if isinstance(node.value, ast.Name) and node.value.id not in e.locals and node.value.id in e.world.scope.values:
        found = e.world.value(node.value.id)
        if isinstance(found, Field):
            return e.allowed("field", found.name, node.value) or read_field(e, found, node)
        if isinstance(found, Data):
            return e.allowed("data", found.name, node.value) or read_data(e, found, node, node.index)
    value = e.value(node.value)
    if isinstance(value, Broken):
        return BROKEN
    if not isinstance(value, Quantity) or not isinstance(value.kind, Vector | Matrix):
        return e.error("bad-index", f"this is {value}, which has no components", node.value.span, "cannot be indexed")
    return component(e, value, node.index, node.span)


def component(e: Elaborator, value: Quantity, nodes: tuple[ast.Expr, ...], span: Span) -> Value:
    """A component of a vector or a matrix."""
    lengths: tuple[int, ...]
    match value.kind:
        case Vector(n, level):
            lengths, kind = (n,), Scalar(level)
        case Matrix(n):
            lengths, kind = (n, n), COMPLEX
        case _:
            return e.error("bad-index", f"this is {value}, which has no components", span, "too many subscripts")
    if len(nodes) != len(lengths):
        return e.error(
            "bad-index", f"a {value.kind} takes {count(len(lengths), 'subscript')}, and there are {len(nodes)}", span
        )
    subscripts = [_subscript(e, n, length, "component") for n, length in zip(nodes, lengths, strict=True)]
    if any(s is None for s in subscripts):
        return BROKEN
    picked = tuple(s for s in subscripts if s is not None)
    match value.expr:
        case Read(component=()) as read:
            return Quantity(kind, replace(read, component=picked))
        case Items(items) if isinstance(picked[0], Const):
            return Quantity(kind, items[int(picked[0].value.real)])
    return Quantity(kind, Item(value.expr, picked))


def read_field(e: Elaborator, field: Field, node: ast.Index) -> Value:
    """A field's value at a site or on a link, or a component of it."""
    place_and_axis = _element(e, field.name, field.on, node.index, node.span)
    if place_and_axis is None:
        return BROKEN
    place, axis, rest = place_and_axis
    kind = kind_of_support(field.support)
    value = Quantity(kind, Read(field.name, place, axis))
    if not rest:
        return value
    if isinstance(kind, Scalar):
        declaration = e.world.scope.values[field.name].name
        return e.error(
            "bad-index",
            f"`{field.name}` has one number per {field.on[:-1]}: {count(len(rest), 'subscript')} too many",
            rest[0].span,
            related=[declared(field.name, declaration.span)],
        )
    return component(e, value, rest, node.span)


def read_data(e: Elaborator, data: Data, node: ast.Expr, nodes: tuple[ast.Expr, ...]) -> Value:
    """A data value, by the element of its set or by plain integers."""
    shape = data.values.values.shape
    places: tuple[Place, ...] = ()
    axis: int | str | None = None
    key, rest = "index", nodes
    if data.on in ("sites", "links"):
        element = _element(e, data.name, data.on, nodes, node.span)
        if element is None:
            return BROKEN
        place, axis, rest = element
        places, key, shape = (place,), data.on[:-1], shape[1:]
    elif data.on is not None:
        if len(nodes) < 2:
            return _say_which(e, data, node)
        ends = [_site(e, n) for n in nodes[:2]]
        if ends[0] is None or ends[1] is None:
            return BROKEN
        if not _same_bonds(e, data, ends[0], ends[1], node) or not _joined(e, data, ends[0], ends[1], node):
            return BROKEN
        places, rest, key, shape = (ends[0].place, ends[1].place), nodes[2:], "bond", shape[1:]
    if len(rest) not in (len(shape), len(shape) - 1) or (not rest and len(shape) > 1):
        declaration = e.world.scope.values[data.name].name
        return e.error(
            "bad-index",
            f"`{data.name}` takes {count(len(shape), 'subscript')}"
            f"{'' if key == 'index' else f' after its {key}'}, and there are {len(rest)}",
            node.span,
            related=[declared(data.name, declaration.span)],
            notes=[f"its shape is ({several(map(str, shape))})"],
        )
    subscripts = [_subscript(e, n, length, "entry") for n, length in zip(rest, shape, strict=False)]
    if any(s is None for s in subscripts):
        return BROKEN
    scalar = {"i": INT, "u": INT, "c": COMPLEX}.get(data.values.values.dtype.kind, REAL)
    kind: Kind = scalar if len(rest) == len(shape) else Vector(shape[-1], scalar.level)
    return Quantity(kind, DataRead(data.name, key, places, axis, tuple(s for s in subscripts if s is not None)))


def link_of(e: Elaborator, nodes: tuple[ast.Expr, ...], span: Span) -> Element | None:
    """A link, written as one variable or as a site and an axis, and what follows it."""
    if not nodes:
        e.error("bad-index", "a link was expected here: a site and an axis", span)
        return None
    first = e.value(nodes[0])
    if isinstance(first, Broken):
        return None
    if isinstance(first, LinkPlace):
        return first.place, first.axis, nodes[1:]
    site = as_site(e, first, nodes[0])
    if site is None:
        return None
    if len(nodes) < 2:
        e.error("bad-index", "a link is a site and an axis, and the axis is missing", span, hints=["write `[x, mu]`"])
        return None
    axis = axis_of(e, nodes[1])
    return None if axis is None else (site.place, axis, nodes[2:])


def axis_of(e: Elaborator, node: ast.Expr) -> int | str | None:
    """An axis: a variable, or its number."""
    value = e.value(node)
    sets = e.world.sets()
    n = sets.lattice.n_axes if sets else 0
    match value:
        case Broken():
            return None
        case Axis(axis):
            return axis
        case Quantity(kind, Const(int(axis))) if kind == INT:
            if 0 <= axis < n:
                return axis
            e.error(
                "index-out-of-range", f"there is no axis {axis}", node.span, notes=[f"axes are numbered 0 to {n - 1}"]
            )
            return None
    hints = ["take the variable from `axes`: `mu in axes`"] if isinstance(value, Quantity) else []
    e.error("kind-mismatch", f"an axis was expected here, and this is {value}", node.span, "not an axis", hints=hints)
    return None


def as_site(e: Elaborator, value: Value, node: ast.Expr) -> Site | None:
    """A site, or the site of that number."""
    sets = e.world.sets()
    match value:
        case Broken():
            return None
        case Site():
            return value
        case Quantity(kind, expr) if kind == INT and is_index(expr):
            known = bounds(expr, e.ranges)
            n = sets.lattice.n_sites if sets else 0
            if known is not None and (known[0] < 0 or known[1] >= n):
                e.error(
                    "index-out-of-range",
                    f"there is no site {known[0] if known[0] < 0 else known[1]}",
                    node.span,
                    notes=[f"sites are numbered 0 to {n - 1}"],
                )
                return None
            return Site(Place(None, (), expr))
    hints = {
        Axis: ["a site and an axis make a site: `x + mu`"],
        Plaquette: ["the links of a plaquette: `circulation(theta, p)`, `loop(U, p)`"],
    }.get(type(value), [])
    e.error("kind-mismatch", f"a site was expected here, and this is {value}", node.span, "not a site", hints=hints)
    return None


def _site(e: Elaborator, node: ast.Expr) -> Site | None:
    return as_site(e, e.value(node), node)


def _element(e: Elaborator, name: str, on: str, nodes: tuple[ast.Expr, ...], span: Span) -> Element | None:
    if on == "links":
        if not nodes:
            e.error("bad-index", f"`{name}` has one value per link: say which", span, hints=[f"write `{name}[x, mu]`"])
            return None
        return link_of(e, nodes, span)
    if not nodes:
        e.error("bad-index", f"`{name}` has one value per site: say which", span, hints=[f"write `{name}[i]`"])
        return None
    site = _site(e, nodes[0])
    return None if site is None else (site.place, None, nodes[1:])


def _say_which(e: Elaborator, data: Data, node: ast.Expr) -> Broken:
    declaration = e.world.scope.values[data.name].name
    return e.error(
        "bad-index",
        f"`{data.name}` has one value per bond: say which",
        node.span,
        related=[declared(data.name, declaration.span)],
        hints=[f"write `{data.name}[i, j]`"],
    )


def _same_bonds(e: Elaborator, data: Data, a: Site, b: Site, node: ast.Expr) -> bool:
    """Whether the two ends of a binder's bond can be looked up among the bonds of the data."""
    sets = e.world.sets()
    ends = a.bond_set if a.bond_set == b.bond_set and a.place.base != b.place.base else ""
    if sets is None or not ends or ends == data.on or sets.contains(data.on or "", ends):
        return True
    declaration = e.world.scope.values[data.name].name
    e.error(
        "wrong-bonds",
        f"`{data.name}` is given on the bonds `{data.on}`, and these are the ends of a bond of `{ends}`",
        node.span,
        related=[declared(data.name, declaration.span)],
    )
    return False


def _joined(e: Elaborator, data: Data, a: Site, b: Site, node: ast.Expr) -> bool:
    """Whether some bond of the data can join the two places; where that is not known yet, it may."""
    sets = e.world.sets()
    if sets is None or data.on is None or can_join(sets, data.on, a.place, b.place):
        return True
    declaration = e.world.scope.values[data.name].name
    numbers = [f"{p.number.value}" for p in (a.place, b.place) if isinstance(p.number, Const) and not p.steps]
    e.error(
        "no-bond",
        f"no bond of `{data.on}` joins "
        + (f"the sites {' and '.join(numbers)}" if len(numbers) == 2 else "sites that are so far apart"),
        node.span,
        related=[declared(data.name, declaration.span)],
        notes=[f"`{data.name}` has one value per bond of `{data.on}`, for its two ends in either order"],
    )
    return False


def _subscript(e: Elaborator, node: ast.Expr, length: int, what: str) -> Expr | None:
    value = e.quantity(node)
    if isinstance(value, Broken):
        return None
    if value.kind != INT or not is_index(value.expr):
        e.error(
            "bad-index",
            f"a subscript must be an integer known when compiling, and this is {value}"
            + (" that is not" if value.kind == INT else ""),
            node.span,
        )
        return None
    known = bounds(value.expr, e.ranges)
    if known is not None and (known[0] < 0 or known[1] >= length):
        bad = known[0] if known[0] < 0 else known[1]
        e.error(
            "index-out-of-range",
            f"there is no {what} {bad}",
            node.span,
            f"runs to {bad}" if known[0] != known[1] else "",
            notes=[f"{_PLURALS[what]} are numbered 0 to {length - 1}"],
        )
        return None
    return value.expr
