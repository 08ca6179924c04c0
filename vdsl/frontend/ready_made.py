"""Ready-made observables: `susceptibility(phi)`, `helicity(theta)` … -> ordinary expressions of the program.

With v the order parameter of a field (vdsl.ir.order), N the number of sites, m = (1/N) Σ_x v(x) and ⟨·⟩ the thermal
average, all per site and in the field's own units:

    magnetisation(f)          |m|
    correlation(f, r)         the mean over sites x of v(x) · v(x + r)
    structure_factor(f, n)    N |m(k)|², m(k) = (1/N) Σ_x v(x) e^{ik·x}, k_μ = 2π n_μ / L_μ
    susceptibility(f)         (N/T) (⟨m·m⟩ − ⟨m⟩·⟨m⟩)
    susceptibility_abs(f)     (N/T) (⟨m·m⟩ − ⟨|m|⟩²)
    binder(f)                 1 − ⟨|m|⁴⟩ / (3 ⟨|m|²⟩²)
    correlation_length(f)     h / (2 sin(π/L)) · √(max(0, G(0)/G(k) − 1)), k = 2π/L along an axis, h between its planes
    helicity(f)               (1/N) (⟨∂²H/∂a²⟩ − (⟨(∂H/∂a)²⟩ − ⟨∂H/∂a⟩²)/T), a the twist a cell along an axis

The first three are functions of one configuration; the others are functions of averages and stand in `derived`.
"""

from __future__ import annotations

from math import pi, sin
from typing import TYPE_CHECKING

from vdsl.frontend import ast, places
from vdsl.frontend.findings import declared
from vdsl.frontend.values import BROKEN, Axis, Broken, Quantity, Value
from vdsl.ir import order, trial, twist
from vdsl.ir.expr import Binary, Binder, Call, Const, Expect, Expr, Place, Reduce, SetOf
from vdsl.ir.kinds import INT, REAL
from vdsl.ir.lattice import PERIODIC, Lattice
from vdsl.ir.program import Field
from vdsl.ir.support import describe

if TYPE_CHECKING:
    from vdsl.frontend.expressions import Elaborator

OF_CONFIGURATIONS = ("magnetisation", "correlation", "structure_factor")
OF_AVERAGES = ("susceptibility", "susceptibility_abs", "binder", "correlation_length", "helicity")
_SHAPES = {
    "correlation": "a field and a distance",
    "structure_factor": "a field and a wave vector",
    "correlation_length": "a field, and an axis if need be",
    "helicity": "a field, and an axis if need be",
}
_ARGUMENTS = {"correlation": (2, 2), "structure_factor": (2, 2), "correlation_length": (1, 2), "helicity": (1, 2)}


def ready_made(e: Elaborator, node: ast.CallExpr) -> Value:
    """The value of a call of one of these functions."""
    name = node.function.id
    least, most = _ARGUMENTS.get(name, (1, 1))
    if not least <= len(node.arguments) <= most:
        return e.error(
            "wrong-arguments",
            f"`{name}` takes {_SHAPES.get(name, 'a field')}, and there "
            f"{'is 1 argument' if len(node.arguments) == 1 else f'are {len(node.arguments)} arguments'}",
            node.span,
        )
    if name in OF_AVERAGES and not e.role.expect:
        return e.error(
            "wrong-place",
            f"`{name}` is a function of averages, which {e.role.name} cannot use",
            node.span,
            hints=[f"write `derived NAME = {name}(…)`, without `expect`"],
        )
    field = _field(e, node.arguments[0], name)
    sets = e.world.sets()
    if field is None or sets is None:
        return BROKEN
    match name:
        case "correlation":
            return _correlation(e, field, node)
        case "structure_factor":
            return _structure_factor(e, field, node, sets.lattice)
        case "magnetisation":
            return Quantity(REAL, _modulus(order.magnetisation(field, e.fresh("x"))))
        case "helicity":
            return _helicity(e, field, node, sets.lattice)
    m = order.magnetisation(field, e.fresh("x"))
    squared = Expect(order.square(m))
    match name:
        case "binder":
            fourth = Expect(Binary("^", order.square(m), Const(2)))
            ratio = Binary("/", fourth, Binary("*", Const(3), Binary("^", squared, Const(2))))
            return Quantity(REAL, Binary("-", Const(1), ratio))
        case "correlation_length":
            return _correlation_length(e, field, node, sets.lattice)
    mean = Binary("^", Expect(_modulus(m)), Const(2)) if name == "susceptibility_abs" else _squared_mean(m)
    temperature = e.world.temperature()
    if not isinstance(temperature, Quantity):
        return BROKEN
    per_site = Binary("/", Const(sets.lattice.n_sites), temperature.expr)
    return Quantity(REAL, Binary("*", per_site, Binary("-", squared, mean)))


# Functions of one configuration


def _correlation(e: Elaborator, field: Field, node: ast.CallExpr) -> Value:
    at = node.arguments[1]
    value = e.value(at)
    sets = e.world.sets()
    if isinstance(value, Broken) or sets is None or _graph(e, sets.lattice, node):
        return BROKEN
    here = Place(e.fresh("x"))
    binders = [Binder((str(here.base),), SetOf("sites"))]
    match value:
        case Quantity(kind, Const(int(r))) if kind == INT and sets.lattice.n_axes > 1:
            axis = e.fresh("mu")
            binders.append(Binder((axis,), SetOf("axes")))
            there = places.moved(here, places.scale(Const(r), Axis(axis)))
        case _:
            step = places.displacement(e, value, at.span)
            if step is None or any(not isinstance(a, int) or not isinstance(n, Const) for a, n in step.steps):
                axes = sets.lattice.n_axes
                return e.error(
                    "kind-mismatch",
                    f"`correlation` needs a distance, and this is {value}",
                    at.span,
                    notes=[
                        f"a distance is {'an integer' if axes == 1 else f'{axes} integers'} known when compiling, in "
                        f"cells{'' if axes == 1 else ', or one integer for the mean over the axes'}"
                    ],
                )
            there = places.moved(here, step)
    if sets.reach(there.steps) == 0:
        return e.error("empty-set", "no two sites are that far apart", at.span, notes=["the boundary is open"])
    return Quantity(REAL, Reduce("mean", tuple(binders), order.product(field, here, there)))


def _structure_factor(e: Elaborator, field: Field, node: ast.CallExpr, lattice: Lattice) -> Value:
    at = node.arguments[1]
    value = e.value(at)
    if isinstance(value, Broken) or _graph(e, lattice, node):
        return BROKEN
    step = places.displacement(e, value, at.span)
    if step is None or any(not isinstance(a, int) or not isinstance(n, Const) for a, n in step.steps):
        return e.error(
            "kind-mismatch",
            f"`structure_factor` needs a wave vector, and this is {value}",
            at.span,
            notes=[
                f"a wave vector is {lattice.n_axes} integers n known when compiling: k = 2 pi n / L along each axis"
            ],
        )
    given = {a: int(n.value.real) for a, n in step.steps if isinstance(a, int) and isinstance(n, Const)}
    for axis in given:
        if lattice.boundary[axis] != PERIODIC:
            return _not_periodic(e, axis, lattice, node, "a wave vector")
    numbers = tuple(given.get(a, 0) for a in range(lattice.n_axes))
    wave = order.wave(field, lattice, numbers, e.fresh("x"))
    return Quantity(REAL, Binary("*", Const(lattice.n_sites), wave))


# Functions of averages


def _correlation_length(e: Elaborator, field: Field, node: ast.CallExpr, lattice: Lattice) -> Value:
    axes = _axes(e, node, lattice, "a correlation length")
    if axes is None:
        return BROKEN
    sizes = {(lattice.shape[a], round(order.plane_spacing(lattice, a), 9)) for a in axes}
    if len(sizes) > 1:
        return e.error(
            "wrong-arguments",
            "the periodic axes of this lattice differ in length: along which one?",
            node.span,
            hints=[f"give the axis: `correlation_length({field.name}, {axes[0]})`"],
        )
    length, spacing = sizes.pop()
    if length < 2:
        return e.error("wrong-arguments", "an axis of length 1 has no smallest wave vector", node.span)
    m = order.magnetisation(field, e.fresh("x"))
    zero = Binary("-", Expect(order.square(m)), _squared_mean(m))
    waves = tuple(
        order.wave(field, lattice, tuple(int(a == axis) for a in range(lattice.n_axes)), e.fresh("x")) for axis in axes
    )
    smallest = Expect(_average(waves))
    excess = Call("max", (Binary("-", Binary("/", zero, smallest), Const(1.0)), Const(0.0)))
    scale = Const(spacing / (2 * sin(pi / length)))
    return Quantity(REAL, Binary("*", scale, Call("sqrt", (excess,))))


def _helicity(e: Elaborator, field: Field, node: ast.CallExpr, lattice: Lattice) -> Value:
    """The mean over axes of (1/N)(⟨H''⟩ − (⟨H'²⟩ − ⟨H'⟩²)/T)."""
    if not twist.can_turn(field):
        return e.error(
            "kind-mismatch",
            f"`helicity` turns a field continuously, and `{field.name}` is a field of `{describe(field.support)}`",
            node.arguments[0].span,
            notes=["fields that turn: angle, complex, U(1), sphere(n), real[n] (in the plane of components 0 and 1)"],
        )
    axes = _axes(e, node, lattice, "a twist")
    temperature = e.world.temperature()
    if axes is None or not isinstance(temperature, Quantity):
        return BROKEN
    model = twist.Model(lattice, e.world.declared, e.world.bond_span)
    firsts, seconds = [], []
    for axis in axes:
        first, second = [], []
        for name, statement in e.world.scope.interactions.items():
            energy = e.world.energy_of(name)
            if not isinstance(energy, Quantity):
                return BROKEN
            try:
                slope = twist.derivative(energy.expr, field, axis, model)
                curvature = twist.derivative(slope, field, axis, model)
            except trial.TooInvolved as found:
                return e.error(
                    "not-a-twist",
                    f"`{field.name}` cannot be twisted in the interaction `{name}`: {found}",
                    node.span,
                    related=[declared(name, statement.name.span)],
                    notes=["every element of a sum must stay the same when all values that it reads turn together"],
                )
            first.append(slope)
            second.append(curvature)
        firsts.append(order.total(tuple(first)))
        seconds.append(order.total(tuple(second)))
    squares = Expect(_average(tuple(Binary("^", f, Const(2)) for f in firsts)))
    means = _average(tuple(Binary("^", Expect(f), Const(2)) for f in firsts))
    response = Binary("/", Binary("-", squares, means), temperature.expr)
    stiffness = Binary("-", Expect(_average(tuple(seconds))), response)
    return Quantity(REAL, Binary("/", stiffness, Const(lattice.n_sites)))


# Parts


def _average(values: tuple[Expr, ...]) -> Expr:
    return values[0] if len(values) == 1 else Binary("/", order.total(values), Const(len(values)))


def _modulus(m: tuple[Expr, ...]) -> Expr:
    return Call("abs", m) if len(m) == 1 else Call("sqrt", (order.square(m),))


def _squared_mean(m: tuple[Expr, ...]) -> Expr:
    """⟨m⟩ · ⟨m⟩."""
    return order.total(tuple(Binary("^", Expect(x), Const(2)) for x in m))


def _field(e: Elaborator, node: ast.Expr, function: str) -> Field | None:
    found = None
    if isinstance(node, ast.Name) and node.id not in e.locals and node.id in e.world.scope.values:
        found = e.world.value(node.id)
    if isinstance(found, Broken):
        return None
    if not isinstance(found, Field):
        e.error("kind-mismatch", f"`{function}` needs the name of a field here", node.span, "not a field")
        return None
    if not e.role.expect and e.allowed("field", found.name, node) is not None:
        return None
    if function in OF_CONFIGURATIONS and e.role.expect:
        e.error(
            "wrong-place",
            f"`{function}({found.name})` fluctuates: a derived quantity may only use its averages",
            node.span,
            hints=["put `expect(…)` around it"],
        )
        return None
    related = [declared(found.name, e.world.scope.values[found.name].name.span)]
    n = order.n_components(found)
    if found.on != "sites":
        e.error(
            "kind-mismatch",
            f"`{function}` needs a field on sites, and `{found.name}` lives on links",
            node.span,
            related=related,
        )
    elif n == 0:
        e.error(
            "kind-mismatch",
            f"`{function}` needs an order parameter, and a field of `{describe(found.support)}` has none by itself",
            node.span,
            related=related,
            hints=["write the observable out: `mean(i in sites: …)`"],
        )
    elif n > order.LARGEST_ORDER:
        message = f"the order parameter of `{found.name}` has {n} components"
        e.error("too-large", message, node.span, notes=[f"at most {order.LARGEST_ORDER}"], exit_code=4)
    else:
        return found
    return None


def _axes(e: Elaborator, node: ast.CallExpr, lattice: Lattice, what: str) -> list[int] | None:
    """The axis that is asked for, or every periodic one; None where that is none (reported)."""
    if _graph(e, lattice, node):
        return None
    if len(node.arguments) == 2:
        at = node.arguments[1]
        value = e.value(at)
        match value:
            case Broken():
                return None
            case Quantity(kind, Const(int(axis))) if kind == INT and 0 <= axis < lattice.n_axes:
                if lattice.boundary[axis] == PERIODIC:
                    return [axis]
                _not_periodic(e, axis, lattice, node, what)
                return None
        e.error(
            "kind-mismatch",
            f"the number of an axis was expected here, and this is {value}",
            at.span,
            notes=[f"axes are numbered 0 to {lattice.n_axes - 1}"],
        )
        return None
    periodic = [a for a in range(lattice.n_axes) if lattice.boundary[a] == PERIODIC]
    if not periodic:
        _not_periodic(e, 0, lattice, node, what)
        return None
    return periodic


def _not_periodic(e: Elaborator, axis: int, lattice: Lattice, node: ast.CallExpr, what: str) -> Broken:
    return e.error(
        "bad-boundary",
        f"`{node.function.id}` needs a periodic axis, and axis {axis} is {lattice.boundary[axis]}",
        node.span,
        notes=[f"{what} is defined along periodic axes only"],
    )


def _graph(e: Elaborator, lattice: Lattice, node: ast.CallExpr) -> bool:
    if lattice.is_graph:
        e.error(
            "bad-set",
            f"`{node.function.id}` needs a lattice with axes, and this is a graph",
            node.span,
            notes=["a graph has no distances and no wave vectors"],
        )
    return lattice.is_graph
