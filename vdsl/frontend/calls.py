"""Calls: built-in functions, the forms that are special to physics, and functions of the user, written out in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vdsl.frontend import ast, fold, gauge_observables, indexing
from vdsl.frontend.findings import count, declared
from vdsl.frontend.ready_made import ready_made
from vdsl.frontend.scope import LOOPS, READY_MADE
from vdsl.frontend.values import BROKEN, Axis, Broken, Plaquette, Quantity, Site, Value, move, number
from vdsl.ir.expr import Const, Expect, Expr, Read
from vdsl.ir.functions import FUNCTIONS, Function
from vdsl.ir.kinds import BOOL, COMPLEX, INT, REAL, Kind, Scalar, Vector, is_number, kind_of_support

if TYPE_CHECKING:
    from vdsl.frontend.expressions import Elaborator


def call(e: Elaborator, node: ast.CallExpr) -> Value:
    """The value of `f(…)`."""
    name = node.function.id
    if node.keywords:
        return e.error("wrong-arguments", f"`{name}` takes no argument by name", node.keywords[0].span)
    if name in e.world.scope.functions:
        return _user_function(e, e.world.scope.functions[name], node)
    match name:
        case "expect":
            return _expect(e, node)
        case "size":
            if not _has(e, node, 1, 1):
                return BROKEN
            over, sets = e.set_of(node.arguments[0]), e.world.sets()
            return BROKEN if over is None or sets is None else number(sets.count(over))
        case "circulation" | "loop":
            return _around(e, node)
        case "dist":
            return _distance(e, node)
    if name in LOOPS:
        return gauge_observables.gauge_observable(e, node)
    if name in READY_MADE:
        return ready_made(e, node)
    if name in FUNCTIONS:
        return _built_in(e, FUNCTIONS[name], node)
    return BROKEN


def _has(e: Elaborator, node: ast.CallExpr, least: int, most: int | None) -> bool:
    n = len(node.arguments)
    if n >= least and (most is None or n <= most):
        return True
    expected = f"{least} or more" if most is None else str(least) if least == most else f"{least} to {most}"
    plural = "" if expected == "1" else "s"
    e.error(
        "wrong-arguments",
        f"`{node.function.id}` takes {expected} argument{plural}, and there {'is' if n == 1 else 'are'} {n}",
        node.span,
    )
    return False


def _user_function(e: Elaborator, function: ast.Fn, node: ast.CallExpr) -> Value:
    arguments = [e.value(a) for a in node.arguments]
    if len(arguments) != len(function.parameters):
        return e.error(
            "wrong-arguments",
            f"`{function.name.id}` takes {count(len(function.parameters), 'argument')}, and "
            f"there {'is' if len(arguments) == 1 else 'are'} {len(arguments)}",
            node.span,
            related=[declared(function.name.id, function.name.span)],
        )
    return e.inline(function, arguments, node.function.span)


def _built_in(e: Elaborator, function: Function, node: ast.CallExpr) -> Value:
    arguments = [e.quantity(a) for a in node.arguments]
    if not _has(e, node, function.least, function.most):
        return BROKEN
    given = [a for a in arguments if isinstance(a, Quantity)]
    if len(given) < len(arguments):
        return BROKEN
    kind = function.rule(tuple(a.kind for a in given))
    if kind is None:
        found = " and ".join(str(a) for a in given)
        shaped = any(not isinstance(a.kind, Scalar) for a in given)
        return e.error(
            "shape-mismatch" if shaped else "kind-mismatch",
            f"`{function.name}` needs {function.expects}, and this is {found}",
            node.span,
            hints=_advice(function.name, [a.kind for a in given]),
        )
    expressions = tuple(a.expr for a in given)
    if function.name in ("re", "conj") and given[0].kind in (INT, REAL):
        return Quantity(kind if function.name == "re" else given[0].kind, expressions[0])
    if function.name == "tr":
        e.note_open_loop(expressions[0], node.span)
    if function.name == "delta":
        e.warn_exact(expressions[0], expressions[1], node.span)
    folded = fold.call(function.name, expressions)
    if kind == REAL and isinstance(folded, Const) and isinstance(folded.value, int):
        folded = Const(float(folded.value))
    return Quantity(kind, folded)


def _advice(name: str, kinds: list[Kind]) -> list[str]:
    if BOOL in kinds:
        return ["turn a truth value into a number with `if … then 1 else 0`"]
    if len(kinds) == 1 and isinstance(kinds[0], Vector) and name == "abs":
        return ["the length of a vector is `norm(…)`"]
    if any(isinstance(k, Scalar) and not is_number(k) for k in kinds):
        return []
    return ["take `re(…)`, `im(…)` or `abs(…)` first"] if COMPLEX in kinds else []


def _expect(e: Elaborator, node: ast.CallExpr) -> Value:
    from vdsl.frontend.expressions import OBSERVABLE

    if not _has(e, node, 1, 1):
        return BROKEN
    if not e.role.expect:
        return e.error(
            "expect-outside",
            f"`expect` cannot stand in {e.role.name}",
            node.span,
            notes=["a thermal average is taken in `derived` statements only, and not inside another"],
            hints=["an observable is averaged by itself"],
        )
    value = e.as_quantity(e.with_role(OBSERVABLE, node.arguments[0]), node.arguments[0].span)
    if isinstance(value, Broken):
        return BROKEN
    if not is_number(value.kind):
        return e.error("kind-mismatch", f"`expect` averages numbers, and this is {value}", node.arguments[0].span)
    if value.kind == COMPLEX:
        return e.error(
            "not-a-real-number",
            "`expect` averages real numbers, and this is a complex number",
            node.arguments[0].span,
            hints=["average the parts: `expect(re(…))`, `expect(im(…))`"],
        )
    return Quantity(REAL, Expect(value.expr))


def _around(e: Elaborator, node: ast.CallExpr) -> Value:
    """The sum of a field's angles, or the product of its group elements, around a plaquette.

    circulation = theta[x, mu] + theta[x + mu, nu] - theta[x + nu, mu] - theta[x, nu],
    loop = U[x, mu] U[x + mu, nu] U[x + nu, mu]' U[x, nu]': in the order in which one would write them out.
    """
    name = node.function.id
    if len(node.arguments) not in (2, 4):
        return e.error(
            "wrong-arguments",
            f"`{name}` takes a field and a plaquette, or a field, a site and two axes",
            node.span,
            hints=[f"write `{name}(theta, p)` under `p in plaquettes`"],
        )
    field = gauge_observables.link_field(e, node.arguments[0], name)
    where = _plaquette(e, node.arguments[1:])
    if field is None or where is None:
        return BROKEN
    kind = kind_of_support(field.support)
    if (name == "circulation" and kind != REAL) or (
        name == "loop" and not (isinstance(kind, Scalar) is False or kind != REAL)
    ):
        other = "loop" if name == "circulation" else "circulation"
        return e.error(
            "kind-mismatch",
            f"`{name}` {'adds real angles' if name == 'circulation' else 'multiplies group elements'}"
            f", and `{field.name}` is {Quantity(kind, Const(0))}",
            node.arguments[0].span,
            hints=[f"use `{other}({field.name}, …)`"],
        )
    x, mu, nu = where.place, where.mu, where.nu
    along_mu = move(x, ((mu, Const(1)),), lambda a, b: fold.binary("+", a, b))
    along_nu = move(x, ((nu, Const(1)),), lambda a, b: fold.binary("+", a, b))
    links = [Read(field.name, *link) for link in ((x, mu), (along_mu, nu), (along_nu, mu), (x, nu))]
    total: Expr = links[0]
    for k, link in enumerate(links[1:]):
        if name == "circulation":
            total = fold.binary("+" if k == 0 else "-", total, link)
        else:
            total = fold.binary("*", total, link if k == 0 else fold.unary("'", link))
    return Quantity(kind, total)


def _plaquette(e: Elaborator, nodes: tuple[ast.Expr, ...]) -> Plaquette | None:
    if len(nodes) == 1:
        value = e.value(nodes[0])
        if not isinstance(value, Plaquette | Broken):
            e.error(
                "kind-mismatch",
                f"a plaquette was expected here, and this is {value}",
                nodes[0].span,
                hints=["take it from `p in plaquettes`, or give a site and two axes"],
            )
        return value if isinstance(value, Plaquette) else None
    site = indexing.as_site(e, e.value(nodes[0]), nodes[0])
    mu, nu = indexing.axis_of(e, nodes[1]), indexing.axis_of(e, nodes[2])
    return None if site is None or mu is None or nu is None else Plaquette(site.place, mu, nu)


def _distance(e: Elaborator, node: ast.CallExpr) -> Value:
    if not _has(e, node, 2, 2):
        return BROKEN
    values = [e.value(a) for a in node.arguments]
    if any(isinstance(v, Broken) for v in values):
        return BROKEN
    match values:
        case [Quantity(Vector(n, _), x), Quantity(Vector(m, _), y)] if n == m:
            difference = fold.binary("-", x, y)
            return Quantity(REAL, fold.call("norm", (difference,)))
        case [Site() | Axis(), _] | [_, Site() | Axis()]:
            return e.error(
                "not-supported-yet",
                "`dist` between sites is not supported yet",
                node.span,
                notes=["`dist(a, b)` takes two vectors"],
            )
    return e.error(
        "shape-mismatch",
        f"`dist` needs two vectors of the same length, and this is {values[0]} and {values[1]}",
        node.span,
    )
