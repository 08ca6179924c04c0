"""The slow interpreter: Program, parameters and a configuration to numbers, one element and one scalar at a time.

Written from the semantics in `vdsl.ir.expr` and nothing else, so that it can stand as the oracle of every lowering.
`theta` is the dict of dynamic parameters that `resolve_parameters` returns; `x` holds one array per field.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping
from graphlib import TopologicalSorter

import numpy as np

from vdsl.errors import Diagnostic, InternalError, VfeError
from vdsl.ir.configurations import random_configuration
from vdsl.ir.expr import (
    Binary,
    Call,
    Const,
    DataRead,
    Expect,
    Expr,
    IndexVar,
    Item,
    Items,
    Param,
    Place,
    Read,
    Reduce,
    Ref,
    Select,
    SetOf,
    Unary,
    children,
    walk,
)
from vdsl.ir.lattice import Lattice
from vdsl.ir.program import Parameter, Program
from vdsl.ir.support import Angle, Clock, Occupation, Potts, Real, Spin, Support
from vdsl.ir.values import BINARY, FUNCTIONS, Value, apply_unary, multiply, wrap

__all__ = [
    "energy",
    "energy_terms",
    "evaluate",
    "evaluate_derived",
    "observables",
    "random_configuration",
    "resolve_parameters",
    "temperature",
    "visits",
]

Configuration = Mapping[str, np.ndarray]
Theta = Mapping[str, float]


def evaluate(program: Program, expr: Expr, theta: Theta, x: Configuration | None = None) -> Value:
    """The value of an expression without free variables; `x` may be None if it reads no field."""
    with np.errstate(all="ignore"):
        return _Evaluation(program, theta, x).top(expr)


def energy_terms(program: Program, x: Configuration, theta: Theta) -> dict[str, float]:
    """The energy of each interaction, in the program's order."""
    with np.errstate(all="ignore"):
        evaluation = _Evaluation(program, theta, x)
        return {term.name: float(evaluation.top(term.value)) for term in program.terms}


def energy(program: Program, x: Configuration, theta: Theta) -> float:
    """H(x): the sum of the interactions, not divided by T."""
    return sum(energy_terms(program, x, theta).values())


def observables(program: Program, x: Configuration, theta: Theta) -> dict[str, Value]:
    """Every observable of one configuration, in the program's order."""
    with np.errstate(all="ignore"):
        evaluation = _Evaluation(program, theta, x)
        return {o.name: evaluation.top(o.value) for o in program.observables}


def visits(program: Program) -> int:
    """How many nodes the interpreter visits for one energy; it does some 2·10⁵ a second."""

    def of(node: Expr | Place) -> int:
        below = 1 + sum(of(child) for child in children(node))
        if isinstance(node, Reduce):
            for binder in node.binders:
                below *= _size(program.lattice, binder.over)
        return below

    return sum(of(term.value) for term in program.terms)


def temperature(program: Program, theta: Theta) -> float:
    """T. Raises `bad-temperature` unless it is positive and finite."""
    value = float(evaluate(program, program.temperature, theta))
    if not 0 < value < np.inf:
        raise VfeError(
            Diagnostic(
                "bad-temperature",
                f"the temperature is {value:g}",
                notes=("expected a positive, finite number",),
                hints=("give it a range, e.g. `param T = 1.0 in (0, inf)`, to hear of it earlier",),
            ),
            exit_code=3,
        )
    return value


def evaluate_derived(program: Program, expr: Expr, averages: Callable[[Expr], Value], theta: Theta) -> Value:
    """A `derived` expression, with `averages(value)` standing for the thermal average of each `Expect(value)`."""
    with np.errstate(all="ignore"):
        return _Evaluation(program, theta, None, averages).top(expr)


def resolve_parameters(program: Program, overrides: Mapping[str, object] | None = None) -> dict[str, float]:
    """θ: every dynamic parameter, from `overrides` or else from its default, which may use other parameters.

    Raises `unknown-parameter`, `missing-parameter` and `out-of-range`, all of them together, with exit code 2.
    """
    overrides = dict(overrides or {})
    problems = [_unknown(program, name) for name in overrides if name not in {p.name for p in program.parameters}]
    given: dict[str, float] = {}
    for p in program.parameters:
        if p.name in overrides:
            try:
                given[p.name] = float(overrides[p.name])  # type: ignore[arg-type]
            except (TypeError, ValueError):
                shown = repr(overrides[p.name])
                problems.append(Diagnostic("bad-override", f"`{p.name}` was given {shown}, which is not a number"))
        elif p.default is None:
            hint = f"give it one: `--set {p.name}=…`"
            problems.append(Diagnostic("missing-parameter", f"`{p.name}` has no value", hints=(hint,)))
    problems += [d for p in program.parameters if p.name in given for d in _range_problems(p, given[p.name])]
    if problems:
        raise VfeError(problems, exit_code=2)

    by_name = {p.name: p for p in program.parameters}
    needs = {p.name: () if p.name in given else _mentioned(program, p.default) for p in program.parameters}
    theta: dict[str, float] = {}
    for name in TopologicalSorter(needs).static_order():
        default = by_name[name].default
        theta[name] = given[name] if name in given or default is None else float(evaluate(program, default, theta))
    problems = [d for p in program.parameters for d in _range_problems(p, theta[p.name])]
    if problems:
        raise VfeError(problems, exit_code=2)
    return {p.name: theta[p.name] for p in program.parameters}


def _range_problems(p: Parameter, value: float) -> list[Diagnostic]:
    """Infinity needs a range that holds it; NaN lies in none."""
    if value in p.range if p.range is not None else np.isfinite(value):
        return []
    wanted = f"the range is {p.range}" if p.range is not None else "a parameter is finite unless its range holds `inf`"
    return [Diagnostic("out-of-range", f"`{p.name}` = {value:g} is out of range", notes=(wanted,))]


def _unknown(program: Program, name: str) -> Diagnostic:
    if name in {s.name for s in program.structure}:
        hint = f"`{name}` sizes the model: give it where the model is loaded, e.g. `vdsl.load(path, {name}=…)`"
        return Diagnostic("unknown-parameter", f"`{name}` is not a dynamic parameter", hints=(hint,))
    names = [p.name for p in program.parameters]
    close = difflib.get_close_matches(name, [*names, *(s.name for s in program.structure)], 1)
    return Diagnostic(
        "unknown-parameter",
        f"the model has no parameter `{name}`",
        notes=(f"parameters: {', '.join(names)}" if names else "the model has no real parameters",),
        hints=(f"did you mean `{close[0]}`?",) if close else (),
    )


def _mentioned(program: Program, expr: Expr | None) -> set[str]:
    """The parameters an expression uses, also through definitions."""
    definitions = {d.name: d.value for d in program.definitions}
    found: set[str] = set()
    waiting, seen = [expr] if expr is not None else [], set()
    while waiting:
        for node in walk(waiting.pop()):
            if isinstance(node, Param):
                found.add(node.name)
            elif isinstance(node, Ref) and node.name in definitions and node.name not in seen:
                seen.add(node.name)
                waiting.append(definitions[node.name])
    return found


class _Evaluation:
    """One evaluation: the numbers that are fixed during it, and the variables bound at the moment.

    `number` maps a binder's variable to its site, axis or integer; `sign` is −1 for the far end of a bond that crosses
    antiperiodic boundaries an odd number of times; `bond` maps the two ends of a bound bond to its set and number.
    """

    def __init__(
        self,
        program: Program,
        theta: Theta,
        x: Configuration | None,
        averages: Callable[[Expr], Value] | None = None,
    ):
        self.program, self.theta, self.x, self.averages = program, theta, x, averages
        self.fields = {f.name: f for f in program.fields}
        self.data = {d.name: d for d in program.data}
        self.named: dict[str, Expr] = {d.name: d.value for d in program.definitions}
        self.named |= {o.name: o.value for o in (*program.observables, *program.derived)}
        self.known: dict[str, Value] = {}
        self.number: dict[str, int] = {}
        self.sign: dict[str, int] = {}
        self.bond: dict[tuple[str, str], tuple[str, int]] = {}
        self.direct: dict[int, list[Read | DataRead]] = {}
        self.elements: dict[SetOf, list[tuple[int, ...]]] = {}

    @property
    def lattice(self) -> Lattice:
        if self.program.lattice is None:
            raise InternalError("a program without a lattice has no sites")
        return self.program.lattice

    def top(self, expr: Expr) -> Value:
        """The value of a closed expression; 0 when it reads past an open boundary outside every reduction."""
        return self(expr) if self.all_present(expr) else 0.0

    def __call__(self, node: Expr) -> Value:
        match node:
            case Const(value):
                return value
            case Param(name):
                return float(self.theta[name])
            case Ref(name):
                if name not in self.known:
                    fresh = _Evaluation(self.program, self.theta, self.x, self.averages)
                    fresh.known = self.known  # but variables of its own
                    self.known[name] = fresh.top(self.named[name])
                return self.known[name]
            case IndexVar(name):
                return self.number[name]
            case Read():
                return self.read(node)
            case DataRead():
                return self.read_data(node)
            case Unary(op, operand):
                return apply_unary(op, self(operand))
            case Binary("and", left, right):
                return bool(self(left)) and bool(self(right))
            case Binary("or", left, right):
                return bool(self(left)) or bool(self(right))
            case Binary(op, left, right):
                return BINARY[op](self(left), self(right))
            case Select(condition, yes, no):
                return self(yes) if self(condition) else self(no)
            case Call(function, arguments):
                return FUNCTIONS[function](*(self(a) for a in arguments))
            case Items(items):
                return np.array([self(item) for item in items])
            case Item(value, index):
                return self(value)[tuple(int(self(i)) for i in index)]
            case Reduce():
                return self.reduce(node)
            case Expect(value):
                if self.averages is None:
                    raise InternalError("`expect` outside `derived`")
                return self.averages(value)
        raise InternalError(f"no meaning for {node!r}")

    # Places

    def displacement(self, place: Place) -> tuple[int, ...]:
        """How far a place lies from its base, in cells per axis."""
        moved = [0] * self.lattice.n_axes
        for axis, amount in place.steps:
            moved[self.axis(axis)] += int(self(amount))
        return tuple(moved)

    def axis(self, axis: int | str | None) -> int:
        if axis is None:
            raise InternalError("a link without an axis")
        return self.number[axis] if isinstance(axis, str) else axis

    def site(self, place: Place) -> tuple[int, bool, int]:
        """(site, exists, sign) of a place."""
        if place.base is not None:
            base, sign = self.number[place.base], self.sign.get(place.base, 1)
        elif place.number is not None:
            base, sign = int(self(place.number)), 1
        else:
            raise InternalError("a place without a base or a number")
        if not place.steps:
            return base, True, sign
        site, exists, crossed = self.lattice.move(np.array(base), self.displacement(place))
        return int(site), bool(exists), sign * int(crossed)

    def present(self, node: Read | DataRead) -> bool:
        """Whether the sites, or the link, that a node reads exist."""
        places = (node.place,) if isinstance(node, Read) else node.places
        for place in places:
            site, exists, _ = self.site(place)
            if not exists or (node.axis is not None and self.lattice.link_number[site, self.axis(node.axis)] < 0):
                return False
        return True

    def all_present(self, *exprs: Expr | None) -> bool:
        """Whether everything read directly in the expressions (not inside a nested reduction) exists."""
        return all(self.present(node) for expr in exprs if expr is not None for node in self.direct_reads(expr))

    def direct_reads(self, expr: Expr) -> list[Read | DataRead]:
        if id(expr) not in self.direct:
            found: list[Read | DataRead] = []
            stack: list[Expr | Place] = [expr]
            while stack:
                node = stack.pop()
                if isinstance(node, Read | DataRead):
                    found.append(node)
                if not isinstance(node, Reduce):
                    stack.extend(children(node))
            self.direct[id(expr)] = found
        return self.direct[id(expr)]

    # Reads

    def read(self, node: Read) -> Value:
        if self.x is None:
            raise InternalError(f"{node.field} read without a configuration")
        site, exists, sign = self.site(node.place)
        if not exists:
            raise InternalError(f"{node} lies past an open boundary")
        field = self.fields[node.field]
        element = site if node.axis is None else int(self.lattice.link_number[site, self.axis(node.axis)])
        value = _value(field.support, self.x[node.field][element], sign)
        return value[tuple(int(self(c)) for c in node.component)] if node.component else value

    def read_data(self, node: DataRead) -> Value:
        data = self.data[node.data]
        index = tuple(int(self(i)) for i in node.index)
        match node.key:
            case "index":
                row: tuple[int, ...] = ()
            case "site":
                row = (self.site(node.places[0])[0],)
            case "link":
                site = self.site(node.places[0])[0]
                row = (int(self.lattice.link_number[site, self.axis(node.axis)]),)
            case "bond":
                row = (self.bond_number(data.on or "", *node.places),)
            case _:
                raise InternalError(f"no data key {node.key}")
        if any(k < 0 for k in row + index):
            raise InternalError(f"a negative subscript of {node.data}: {row + index}")
        value = data.values.values[row + index]
        return value.item() if np.ndim(value) == 0 else value

    def bond_number(self, name: str, a: Place, b: Place) -> int:
        """The number of the bond of a set that joins two places.

        The bond that is bound, if a and b are its ends; else the bond whose displacement leads from a to b or back,
        if both are reached from one site; else the first one that joins the two sites.
        """
        if a.base is not None and b.base is not None and not a.steps and not b.steps:
            for ends in ((a.base, b.base), (b.base, a.base)):
                if ends in self.bond and self.bond[ends][0] == name:
                    return self.bond[ends][1]
        bonds = self.lattice.bonds(name)
        i, j = self.site(a)[0], self.site(b)[0]
        joins = ((bonds.i == i) & (bonds.j == j)) | ((bonds.i == j) & (bonds.j == i))
        if a.base is not None and a.base == b.base and not self.lattice.is_graph:
            delta = np.subtract(self.displacement(b), self.displacement(a))
            classes = self.lattice.bond_classes(name)
            steps = np.array([c.displacement for c in classes])[bonds.cls]
            there = (bonds.i == i) & (bonds.j == j) & (steps == delta).all(1)
            back = (bonds.i == j) & (bonds.j == i) & (steps == -delta).all(1)
            if (there | back).any():
                joins = there if there.any() else back
        found = np.flatnonzero(joins)
        if not len(found):
            raise VfeError(Diagnostic("no-bond", f"no bond of `{name}` joins the sites {i} and {j}"))
        return int(found[0])

    # Reductions

    def set_elements(self, over: SetOf) -> list[tuple[int, ...]]:
        """The elements of a set: the values of its variables; for bonds also the sign and the number of the bond."""
        if over not in self.elements:
            self.elements[over] = list(_set_elements(self.program.lattice, over))
        return self.elements[over]

    def reduce(self, node: Reduce) -> Value:
        values = []
        for combination in itertools.product(*(self.set_elements(b.over) for b in node.binders)):
            for binder, element in zip(node.binders, combination, strict=True):
                self.number |= zip(binder.variables, element, strict=False)
                if binder.over.kind == "bonds":
                    i, j = binder.variables
                    self.sign[j] = element[2]
                    self.bond[i, j] = (binder.over.name, element[3])
            if self.all_present(node.body, node.where) and (node.where is None or self(node.where)):
                values.append(self(node.body))
        return _fold(node.op, values)


def _set_elements(lattice: Lattice | None, over: SetOf) -> Iterator[tuple[int, ...]]:
    if over.kind == "range":
        yield from ((k,) for k in range(*over.bounds))
        return
    if lattice is None:
        raise InternalError(f"no {over.kind} without a lattice")
    match over.kind:
        case "sites":
            yield from ((i,) for i in range(lattice.n_sites))
        case "axes":
            yield from ((a,) for a in range(lattice.n_axes))
        case "planes":
            yield from lattice.planes
        case "links":
            yield from zip(*(column.tolist() for column in lattice.links), strict=True)
        case "plaquettes":
            yield from zip(*(column.tolist() for column in lattice.plaquettes), strict=True)
        case "pairs":
            yield from itertools.combinations(range(lattice.n_sites), 2)
        case "bonds":
            b = lattice.bonds(over.name)
            yield from zip(b.i.tolist(), b.j.tolist(), b.sign.tolist(), range(len(b)), strict=True)
        case _:
            raise InternalError(f"no set of kind {over.kind}")


def _size(lattice: Lattice | None, over: SetOf) -> int:
    """The number of elements of a set."""
    if over.kind == "range" or lattice is None:
        return len(range(*over.bounds))
    match over.kind:
        case "sites":
            return lattice.n_sites
        case "pairs":
            return lattice.n_sites * (lattice.n_sites - 1) // 2
        case "bonds":
            return len(lattice.bonds(over.name))
        case "links":
            return lattice.n_links
        case "plaquettes":
            return lattice.n_plaquettes
    return lattice.n_axes if over.kind == "axes" else len(lattice.planes)


def _fold(op: str, values: list[Value]) -> Value:
    """A reduction of the values of the elements that are present, in order."""
    match op:
        case "sum":
            total: Value = 0
            for value in values:
                total = total + value
            return total
        case "prod":
            product: Value = 1
            for k, value in enumerate(values):
                product = multiply(product, value) if k else value
            return product
        case "mean":
            return _fold("sum", values) / np.float64(len(values))
        case "max":
            return max(values, default=-np.inf)
        case "min":
            return min(values, default=np.inf)
    raise InternalError(f"no reduction {op}")


def _value(support: Support, stored: np.ndarray, sign: int) -> Value:
    """What a stored value reads as in an expression; `sign` is −1 across an antiperiodic boundary."""
    match support:
        case Spin() | Real(None):
            return float(stored) * sign
        case Potts() | Occupation():
            return int(stored) * sign
        case Clock(q):
            return 2 * np.pi * (int(stored) * sign % q) / q
        case Angle():
            return float(stored) if sign > 0 else float(wrap(-float(stored)))
    return np.asarray(stored) * sign if np.ndim(stored) else complex(stored) * sign
