"""Tables: an expression over many elements at once -> its value in every state of the few variables that it reads.

An *element* is one assignment of binder variables. Everything static about elements (sites, data, presence) is an array
with one row per element; the fields enter as axes. With K variables in scope every value has shape (elements, q_1, …,
q_K) or broadcasts to it, so one NumPy expression evaluates all the elements that share a shape of scope.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from vdsl.errors import InternalError
from vdsl.ir.expr import (
    Binary,
    Binder,
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
    Unary,
    children,
)
from vdsl.ir.lattice import Lattice
from vdsl.ir.program import Program
from vdsl.ir.support import Clock, cardinality, is_discrete, stored_states

MAX_ELEMENTS = 8_000_000
MAX_READS = 64
SMALL_TABLE = 2**10
MAX_TABLE = 2**16
MAX_NODE_TABLE = 2**24
MAX_ENTRIES = 2**25


class NotLocal(Exception):
    """An expression is not a sum of tables of small scope. Never leaves the compiler."""


@dataclass(frozen=True)
class Elements:
    """`count` assignments of binder variables.

    values: the integer of each variable (site number, axis, range value), shape (count,). signs: −1 where a site was
    reached across an odd number of antiperiodic boundaries. bonds: for the two variables of a bond, its set and number.
    """

    count: int
    values: dict[str, np.ndarray] = field(default_factory=dict)
    signs: dict[str, np.ndarray] = field(default_factory=dict)
    bonds: dict[tuple[str, str], tuple[str, np.ndarray]] = field(default_factory=dict)

    def take(self, rows: np.ndarray) -> Elements:
        """The elements with these row numbers (or where a mask is true)."""
        count = int(rows.sum()) if rows.dtype == bool else len(rows)
        return Elements(
            count,
            {k: v[rows] for k, v in self.values.items()},
            {k: v[rows] for k, v in self.signs.items()},
            {k: (name, v[rows]) for k, (name, v) in self.bonds.items()},
        )

    def joined(self, other: Elements) -> Elements:
        """The same rows with the variables of both."""
        return replace(
            self, values=self.values | other.values, signs=self.signs | other.signs, bonds=self.bonds | other.bonds
        )


NodeValues = tuple[Any, Any]  # of a field's states and of what stands for them across an antiperiodic boundary


class Context:
    """A program at fixed parameters: resolves places, reads and data. Holds nothing that depends on a configuration.

    nodes: values that stand for the continuous fields, as if they had finitely many states: an array (q,), or for a
    vector a tuple of such arrays.
    small_table, max_table: a body of up to so many states is tabulated as it stands; or at all. max_entries: of all
    tables together.
    """

    def __init__(self, program: Program, theta: dict[str, float], nodes: Mapping[str, NodeValues] | None = None):
        self.program = program
        self.theta = theta
        discrete = [f for f in program.fields if is_discrete(f.support)]
        self.cardinality = {f.name: cardinality(f.support) for f in discrete}
        self.small_table, self.max_table, self.max_entries = SMALL_TABLE, MAX_TABLE, MAX_ENTRIES
        self.first: dict[str, int] = {}
        start = 0
        for f in program.fields:
            self.first[f.name] = start
            start += program.elements(f)
        self.states: dict[str, NodeValues] = {f.name: _state_values(f.support) for f in discrete}
        for name, values in (nodes or {}).items():
            first = values[0][0] if isinstance(values[0], tuple) else values[0]
            self.states[name], self.cardinality[name] = values, len(first)
            self.small_table = max(self.small_table, len(first) ** 2)
            self.max_table, self.max_entries = MAX_NODE_TABLE, 8 * MAX_ENTRIES
        self.data = {d.name: d for d in program.data}
        self._definitions = {d.name: d.value for d in program.definitions}
        self._observables = {o.name: o.value for o in program.observables}
        self._values: dict[str, object] = {}
        self._reads: dict[int, tuple[Expr | Place, bool]] = {}
        self._tabular: dict[int, tuple[Expr | Place, bool]] = {}
        self._bond_rows: dict[str, dict[tuple[int, int, tuple[int, ...]], int]] = {}
        self._fresh = itertools.count()

    def value_of(self, name: str) -> object:
        """The value of a definition: a number, or a tuple of numbers."""
        if name not in self._values:
            value = evaluate(self, self._definitions[name], Elements(1))
            self._values[name] = (
                tuple(v.item() for v in value) if isinstance(value, tuple) else np.asarray(value).item()
            )
        return self._values[name]

    def reads(self, node: Expr | Place) -> bool:
        """Whether a node depends on the fields."""
        known = self._reads.get(id(node))
        if known is None:  # the node itself is kept too, so that its id stays its own
            found = isinstance(node, Read) or any(self.reads(c) for c in children(node))
            self._reads[id(node)] = known = (node, found)
        return known[1]

    def tabular(self, node: Expr | Place) -> bool:
        """Whether a node depends on no fields but those with a finite set of states."""
        known = self._tabular.get(id(node))
        if known is None:
            found = not isinstance(node, Read) or node.field in self.states
            self._tabular[id(node)] = known = (node, found and all(self.tabular(c) for c in children(node)))
        return known[1]

    def inline(self, node: Expr) -> Expr:
        """The expression with references to observables written out, their binder variables renamed apart."""
        return _inlined(self, node)

    def renamed(self, node: Expr) -> Expr:
        """A copy whose own binder variables have fresh names."""
        return _renamed(node, f"~{next(self._fresh)}", frozenset())

    def place(self, place: Place, elements: Elements) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(site, exists, sign) of a place in every element."""
        if place.base is not None:
            site = elements.values[place.base]
            sign = elements.signs.get(place.base, np.ones(elements.count, np.int8))
        else:
            site = _static_int(self, place.number or Const(0), elements)
            sign = np.ones(elements.count, np.int8)
        if not place.steps:
            return site, np.ones(elements.count, bool), sign
        site, exists, crossed = self._lattice.move(site, tuple(self._moves(place, elements)))
        return site, exists, (sign * crossed).astype(np.int8)

    @property
    def _lattice(self) -> Lattice:
        if self.program.lattice is None:
            raise InternalError("a program without a lattice has no sites")
        return self.program.lattice

    def _moves(self, place: Place, elements: Elements) -> np.ndarray:
        """How far a place lies from its base, in cells, shape (axes, count)."""
        move = np.zeros((self._lattice.n_axes, elements.count), int)
        for axis, amount in place.steps:
            axes = elements.values[axis] if isinstance(axis, str) else np.full(elements.count, axis)
            np.add.at(move, (axes, np.arange(elements.count)), _static_int(self, amount, elements))
        return move

    def variable(self, read: Read, elements: Elements) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(variable number, exists, sign) of a read in every element."""
        site, exists, sign = self.place(read.place, elements)
        if read.axis is None:
            return self.first[read.field] + site, exists, sign
        link = self._links(site, read.axis, elements)
        return self.first[read.field] + np.maximum(link, 0), exists & (link >= 0), sign

    def data_exists(self, read: DataRead, elements: Elements) -> np.ndarray:
        """Whether the sites, or the link, that a data read names exist."""
        exists = np.ones(elements.count, bool)
        for place in read.places:
            site, here, _ = self.place(place, elements)
            exists &= here if read.axis is None else here & (self._links(site, read.axis, elements) >= 0)
        return exists

    def data_rows(self, read: DataRead, elements: Elements) -> np.ndarray:
        """The row of a data read on sites, links or bonds. Raises NotLocal where no bond joins the places."""
        site = self.place(read.places[0], elements)[0]
        if read.key == "site":
            return site
        if read.key == "link":
            return np.maximum(self._links(site, read.axis, elements), 0)
        on, (a, b) = self.data[read.data].on or "", read.places
        own = elements.bonds.get((a.base or "", b.base or ""), elements.bonds.get((b.base or "", a.base or "")))
        if own is not None and own[0] == on and not a.steps and not b.steps:
            return own[1]
        exists, other = self.data_exists(read, elements), self.place(b, elements)[0]
        same_base = a.base is not None and a.base == b.base
        move = (self._moves(b, elements) - self._moves(a, elements)).T.tolist() if same_base else [()] * elements.count
        rows = self._bond_numbers(on)
        ends = zip(site.tolist(), other.tolist(), move, strict=True)
        number = np.array([rows.get((i, j, tuple(m)), rows.get((i, j, ()), -1)) for i, j, m in ends], int)
        if (exists & (number < 0)).any():
            raise NotLocal
        return np.maximum(number, 0)

    def _links(self, site: np.ndarray, axis: int | str | None, elements: Elements) -> np.ndarray:
        axes = elements.values[axis] if isinstance(axis, str) else axis
        return self._lattice.link_number[site, axes]

    def _bond_numbers(self, name: str) -> dict[tuple[int, int, tuple[int, ...]], int]:
        """Bond numbers by (from, to, displacement), and by (from, to, ()) for the first bond that joins two sites."""
        if name not in self._bond_rows:
            lattice, bonds = self._lattice, self._lattice.bonds(name)
            steps = [()] if lattice.is_graph else [c.displacement for c in lattice.bond_classes(name)]
            rows: dict[tuple[int, int, tuple[int, ...]], int] = {}
            columns = (bonds.i.tolist(), bonds.j.tolist(), bonds.cls.tolist())
            for number, (i, j, c) in enumerate(zip(*columns, strict=True)):
                rows.setdefault((i, j, steps[c]), number)
                rows.setdefault((i, j, ()), number)
                rows.setdefault((j, i, ()), number)
            for number, (i, j, c) in enumerate(zip(*columns, strict=True)):  # a bond read against its direction
                rows.setdefault((j, i, tuple(-d for d in steps[c])), number)
            self._bond_rows[name] = rows
        return self._bond_rows[name]


# --- elements --------------------------------------------------------------------------------------------------------


def expand(context: Context, elements: Elements, reduce: Reduce) -> tuple[Elements, np.ndarray, np.ndarray]:
    """All elements of a reduction under each outer element: (inner elements, present, outer row of each).

    Absent elements (past an open boundary, or filtered out by a static `where`) stay, marked. Raises NotLocal beyond
    MAX_ELEMENTS, or where `where` depends on the fields.
    """
    inner = _own_elements(context, reduce)
    _check_size(elements.count * inner.count)
    outer = np.repeat(np.arange(elements.count), inner.count)
    every = elements.take(outer).joined(inner.take(np.tile(np.arange(inner.count), elements.count)))
    present = presence(context, bodies(reduce), every)
    if reduce.where is not None:
        if context.reads(reduce.where):
            raise NotLocal
        held = evaluate(context, reduce.where, every.take(present))
        present[present] = np.broadcast_to(np.asarray(held, bool), (int(present.sum()),))
    return every, present, outer


def presence(context: Context, nodes: tuple[Expr, ...], every: Elements) -> np.ndarray:
    """Which elements have all the places that are read directly in some expressions, not inside a nested reduction."""
    present = np.ones(every.count, bool)
    for node in _direct(nodes):
        if isinstance(node, Read):
            present &= context.variable(node, every)[1]
        elif isinstance(node, DataRead) and node.places:
            present &= context.data_exists(node, every)
    return present


def bodies(reduce: Reduce) -> tuple[Expr, ...]:
    return (reduce.body,) if reduce.where is None else (reduce.body, reduce.where)


def _own_elements(context: Context, reduce: Reduce) -> Elements:
    """The elements of a reduction alone, first binder slowest."""
    inner = Elements(1)
    for binder in reduce.binders:
        new = _binder_elements(context, binder)
        _check_size(inner.count * new.count)
        rows, columns = np.divmod(np.arange(inner.count * new.count), max(new.count, 1))
        inner = inner.take(rows).joined(new.take(columns))
    return inner


def _check_size(count: int) -> None:
    if count > MAX_ELEMENTS:
        raise NotLocal


def _direct(nodes: tuple[Expr, ...]) -> Iterator[Expr | Place]:
    """The nodes read directly in a body: not those inside a nested reduction."""
    stack: list[Expr | Place] = [*nodes]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, Reduce):
            stack.extend(children(node))


def _binder_elements(context: Context, binder: Binder) -> Elements:
    lattice, over = context.program.lattice, binder.over
    if over.kind == "range":
        values = np.arange(*over.bounds)
        return Elements(len(values), {binder.variables[0]: values})
    if lattice is None:
        raise InternalError(f"no {over.kind} without a lattice")
    match over.kind:
        case "sites":
            columns: tuple[np.ndarray, ...] = (np.arange(lattice.n_sites),)
        case "links":
            columns = lattice.links
        case "axes":
            columns = (np.arange(lattice.n_axes),)
        case "planes":
            planes = np.array(lattice.planes, int).reshape(-1, 2)
            columns = (planes[:, 0], planes[:, 1])
        case "plaquettes":
            columns = lattice.plaquettes
        case "pairs":
            _check_size(lattice.n_sites * (lattice.n_sites - 1) // 2)
            columns = np.triu_indices(lattice.n_sites, 1)
        case "bonds":
            bonds = lattice.bonds(over.name)
            i, j = binder.variables
            number = np.arange(len(bonds))
            return Elements(len(bonds), {i: bonds.i, j: bonds.j}, {j: bonds.sign}, {(i, j): (over.name, number)})
        case _:
            raise NotLocal
    return Elements(len(columns[0]), dict(zip(binder.variables, columns, strict=True)))


# --- evaluation ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scope:
    """Where the value of each read comes from: (node id, rows of the unrolled binders) -> array (elements, …, q, …)."""

    rank: int
    values: dict[tuple, Any]  # vectors: a tuple of arrays


def evaluate(context: Context, node: Expr, elements: Elements, scope: Scope | None = None, path: tuple = ()) -> object:
    """The value of an expression in every element (and state): an array that broadcasts to (count, q_1, …), or a tuple
    of such arrays for a vector. `path`: the rows of the unrolled reductions around it."""
    with np.errstate(all="ignore"):  # branches not taken may divide by zero; what is used is checked by the caller
        return _evaluate(context, node, elements, scope or Scope(0, {}), path)


class FoundRead(NamedTuple):
    """A read in every element: its key in a `Scope`, variable numbers, signs, and where its binders stand there."""

    key: tuple
    read: Read
    variable: np.ndarray
    sign: np.ndarray
    elements: Elements


def collect_reads(context: Context, node: Expr, elements: Elements) -> list[FoundRead]:
    """Every read below a node, nested reductions unrolled.

    Raises NotLocal beyond MAX_READS.
    """
    found: dict[tuple, FoundRead] = {}

    def visit(n: Expr | Place, here: Elements, path: tuple) -> None:
        if not context.reads(n):
            return
        if isinstance(n, Read):
            variable, _, sign = context.variable(n, here)
            found[(id(n), path)] = FoundRead((id(n), path), n, variable, sign, here)
            if len(found) > MAX_READS:
                raise NotLocal
        elif isinstance(n, Reduce):
            for row, inner in unrolled(context, n, here):
                for body in bodies(n):
                    visit(body, inner, (*path, row))
        else:
            for child in children(n):
                visit(child, here, path)

    visit(node, elements, ())
    return list(found.values())


def over_states(context: Context, found: FoundRead, rows: np.ndarray, shape: tuple[int, ...]) -> Any:
    """The value of a read in some elements and every state, `shape` being (q at its own axis, 1 at the others)."""
    sign = np.broadcast_to(found.sign, (found.elements.count,))[rows]
    plain, crossed = context.states[found.read.field]

    def by_state(plain: np.ndarray, crossed: np.ndarray) -> np.ndarray:
        values = plain[None] if (sign == 1).all() else np.where(sign[:, None] == 1, plain, crossed)
        return values.reshape(len(values), *shape)

    if not isinstance(plain, tuple):
        return by_state(plain, crossed)
    vector = tuple(by_state(p, c) for p, c in zip(plain, crossed, strict=True))
    return chosen(context, found, vector, rows) if found.read.component else vector


def chosen(
    context: Context, found: FoundRead, vector: tuple[np.ndarray, ...], rows: np.ndarray | None = None
) -> np.ndarray:
    """The component of a vector that a read names, which may differ from element to element (the first axis)."""
    if len(found.read.component) != 1:
        raise NotLocal
    index = np.asarray(evaluate(context, found.read.component[0], found.elements)).astype(int).reshape(-1)
    if len(index) == 1 or (index == index[0]).all():
        return vector[int(index[0])]
    index = index if rows is None else index[rows]
    return np.choose(index.reshape(-1, *(1,) * (vector[0].ndim - 1)) % len(vector), vector)


def unrolled(context: Context, reduce: Reduce, elements: Elements) -> Iterator[tuple[int, Elements]]:
    """(number, elements) of every element of a nested reduction, each under all the outer ones at once."""
    inner = _own_elements(context, reduce)
    if inner.count > 4 * MAX_READS:
        raise NotLocal
    for row in range(inner.count):
        yield row, elements.joined(inner.take(np.full(elements.count, row)))


def _evaluate(context: Context, node: Expr, elements: Elements, scope: Scope, path: tuple) -> object:
    def value(n: Expr) -> object:
        return _evaluate(context, n, elements, scope, path)

    def static(column: np.ndarray) -> np.ndarray:
        return column.reshape((-1, *(1,) * scope.rank))

    match node:
        case Const(v):
            return np.asarray(v)
        case Param(name):
            return np.asarray(float(context.theta[name]))
        case Ref(name):
            known = context.value_of(name)
            return tuple(np.asarray(v) for v in known) if isinstance(known, tuple) else np.asarray(known)
        case IndexVar(name):
            return static(elements.values[name])
        case Read():
            return scope.values[(id(node), path)]
        case DataRead():
            subscripts = tuple(np.asarray(value(i)) for i in node.index)
            array = context.data[node.data].values.values
            rows = (static(context.data_rows(node, elements)),) if node.places else ()
            picked = array[rows + subscripts]
            match array.ndim - len(rows + subscripts):
                case 0:
                    return picked
                case 1:
                    return tuple(np.moveaxis(picked, -1, 0))
            raise NotLocal
        case Unary(op, operand):
            return each(UNARY[op], value(operand))
        case Binary(op, left, right):
            return each(BINARY[op], value(left), value(right))
        case Select(condition, yes, no):
            return each(np.where, value(condition), value(yes), value(no))
        case Call(function, arguments):
            if function not in FUNCTIONS:
                raise NotLocal
            return FUNCTIONS[function](*(value(a) for a in arguments))
        case Items(items):
            return tuple(value(i) for i in items)
        case Item(vector, index):
            components = value(vector)
            if not isinstance(components, tuple) or len(index) != 1:
                raise NotLocal
            chosen = np.asarray(value(index[0]))
            return each(lambda i, *c: np.choose(i, c), chosen, *components)
        case Reduce():
            return _reduce(context, node, elements, scope, path)
        case Expect():
            raise NotLocal
    raise NotLocal


def _reduce(context: Context, node: Reduce, elements: Elements, scope: Scope, path: tuple) -> np.ndarray:
    combine, identity = COMBINE[node.op]
    if not context.reads(node):
        every, present, _ = expand(context, elements, node)
        kept = every.take(present)
        body = _scalar(_evaluate(context, node.body, kept, Scope(0, {}), ()))
        rows = np.full(every.count, identity, np.result_type(body, identity))
        rows[present] = np.broadcast_to(body, (kept.count,))
        rows = rows.reshape(elements.count, every.count // max(elements.count, 1))
        total = combine.reduce(rows, axis=1, initial=identity)
        if rows.dtype.kind in "iu" and node.op != "max" and node.op != "min":
            total = _unless_overflown(total, combine.reduce(rows.astype(float), axis=1, initial=identity))
        if node.op == "mean":
            total = total / present.reshape(elements.count, -1).sum(1)
        return total.reshape((-1, *(1,) * scope.rank))
    total, number = np.asarray(identity), np.asarray(0.0)
    for row, inner in unrolled(context, node, elements):
        present = presence(context, bodies(node), inner).reshape((-1, *(1,) * scope.rank))
        if node.where is not None:
            held = _scalar(_evaluate(context, node.where, inner, scope, (*path, row)))
            present = present & np.asarray(held, bool)
        body = _scalar(_evaluate(context, node.body, inner, scope, (*path, row)))
        total = combine(total, np.where(present, body, identity))
        number = number + present
    return total / number if node.op == "mean" else total


def _scalar(value: object) -> np.ndarray:
    if isinstance(value, tuple):
        raise NotLocal
    return np.asarray(value)


def _static_int(context: Context, node: Expr, elements: Elements) -> np.ndarray:
    if context.reads(node):
        raise NotLocal
    return np.broadcast_to(np.asarray(evaluate(context, node, elements)), (elements.count,)).astype(int)


def each(function: Callable, *arguments: object) -> object:
    """A function of numbers, applied to every component where an argument is a vector."""
    lengths = {len(a) for a in arguments if isinstance(a, tuple)}
    if not lengths:
        return function(*arguments)
    if len(lengths) > 1:
        raise NotLocal
    (n,) = lengths
    columns = [a if isinstance(a, tuple) else (a,) * n for a in arguments]
    return tuple(function(*row) for row in zip(*columns, strict=True))


def _unless_overflown(whole: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Integers where they fit, as Python's do; else what they are as real numbers."""
    return whole if (np.abs(real) < 2.0**62).all() else real


def _power(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    x, y = np.asarray(x), np.asarray(y)
    if x.dtype.kind in "iub" and y.dtype.kind in "iub" and np.all(y >= 0):
        return _unless_overflown(np.power(x.astype(np.int64), y), np.power(x.astype(float), y))
    if y.dtype.kind in "iu" and np.all(y == 2):
        return x * x
    return np.power(x.astype(np.result_type(x, float)), y)


def _dot(a: object, b: object) -> np.ndarray:
    if not (isinstance(a, tuple) and isinstance(b, tuple)):
        raise NotLocal
    return sum((x * y for x, y in zip(a, b, strict=True)), start=np.asarray(0.0))


def _norm(a: object) -> np.ndarray:
    if not isinstance(a, tuple):
        raise NotLocal
    return np.sqrt(sum((np.abs(x) ** 2 for x in a), start=np.asarray(0.0)))


def _cross(a: object, b: object) -> object:
    if not (isinstance(a, tuple) and isinstance(b, tuple)):
        raise NotLocal
    return tuple(a[(k + 1) % 3] * b[(k + 2) % 3] - a[(k + 2) % 3] * b[(k + 1) % 3] for k in range(3))


def _integral(function: Callable) -> Callable:
    def rounded(x: object) -> np.ndarray:
        whole = np.asarray(function(np.asarray(x, float)))
        return whole.astype(np.int64) if np.isfinite(whole).all() else whole

    return rounded


def _elementwise(function: Callable) -> Callable:
    return lambda *arguments: each(function, *arguments)


FUNCTIONS: dict[str, Callable] = {
    **{
        name: _elementwise(getattr(np, name))
for name in (
            "sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt",
            "abs", "sign", "conj",
        )
    },
    "asin": _elementwise(np.arcsin),
    "acos": _elementwise(np.arccos),
    "atan": _elementwise(np.arctan),
    "atan2": _elementwise(np.arctan2),
    "asinh": _elementwise(np.arcsinh),
    "acosh": _elementwise(np.arccosh),
    "atanh": _elementwise(np.arctanh),
    "floor": _integral(np.floor),
    "ceil": _integral(np.ceil),
    "round": _integral(np.round),
    "erf": np.vectorize(math.erf, otypes=[float]),
    "lgamma": np.vectorize(lambda x: math.lgamma(x) if x > 0 or x != math.floor(x) else math.inf, otypes=[float]),
    "logcosh": lambda x: np.abs(x) + np.log1p(np.exp(-2.0 * np.abs(x))) - math.log(2),
    "min": lambda *xs: np.minimum.reduce(np.broadcast_arrays(*xs)),
    "max": lambda *xs: np.maximum.reduce(np.broadcast_arrays(*xs)),
    "re": _elementwise(np.real),
    "im": _elementwise(np.imag),
    "arg": _elementwise(np.angle),
    "delta": lambda x, y: np.equal(x, y).astype(int),
    "wrap": lambda x: math.pi - np.mod(math.pi - np.asarray(x), 2 * math.pi),
    "dot": _dot,
    "norm": _norm,
    "cross": _cross,
}  # fmt: skip
UNARY: dict[str, Callable] = {
    "-": lambda x: -np.asarray(x, float if np.asarray(x).dtype == bool else None),
    "not": np.logical_not,
    "'": np.conj,
}
BINARY: dict[str, Callable] = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.true_divide, "//": np.floor_divide, "%": np.mod,
    "^": _power, "==": np.equal, "!=": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater,
    ">=": np.greater_equal, "and": np.logical_and, "or": np.logical_or,
}  # fmt: skip
COMBINE: dict[str, tuple[np.ufunc, float]] = {
    "sum": (np.add, 0),
    "mean": (np.add, 0),
    "prod": (np.multiply, 1),
    "max": (np.maximum, -math.inf),
    "min": (np.minimum, math.inf),
}


def _state_values(support: object) -> tuple[np.ndarray, np.ndarray]:
    """The value of each state, and the value that stands for it across an antiperiodic boundary."""
    stored = stored_states(support).astype(int)  # type: ignore[arg-type]
    if isinstance(support, Clock):
        angles = 2 * math.pi * stored / support.q
        return angles, angles[-stored % support.q]
    return stored, -stored


# --- rewriting -------------------------------------------------------------------------------------------------------


def _rebuilt(node, change: Callable):  # type: ignore[no-untyped-def]
    """A node with `change` applied to every node or place directly below it, tuples included."""

    def rebuilt(value: object) -> object:
        if isinstance(value, tuple):
            return tuple(rebuilt(v) for v in value)
        return change(value) if isinstance(value, Expr | Place) else value

    return type(node)(**{name: rebuilt(getattr(node, name)) for name in node.__dataclass_fields__})


def _inlined(context: Context, node: Expr) -> Expr:
    if isinstance(node, Ref) and node.name in context._observables:
        return context.renamed(_inlined(context, context._observables[node.name]))
    return _rebuilt(node, lambda child: _inlined(context, child))


def _renamed(node, suffix: str, bound: frozenset[str]):  # type: ignore[no-untyped-def]
    def new(name):  # type: ignore[no-untyped-def]
        return name + suffix if isinstance(name, str) and name in bound else name

    if isinstance(node, Reduce):
        bound = bound | {v for b in node.binders for v in b.variables}
        binders = tuple(Binder(tuple(v + suffix for v in b.variables), b.over) for b in node.binders)
        where = _renamed(node.where, suffix, bound) if node.where is not None else None
        return Reduce(node.op, binders, _renamed(node.body, suffix, bound), where)
    out = _rebuilt(node, lambda child: _renamed(child, suffix, bound))
    match out:
        case IndexVar(name):
            return IndexVar(new(name))
        case Place():
            return replace(out, base=new(out.base), steps=tuple((new(a), n) for a, n in out.steps))
        case Read() | DataRead():
            return replace(out, axis=new(out.axis))
    return out
