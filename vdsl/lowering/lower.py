"""Program -> JAX: every expression becomes a function of a `State` (a configuration and its parameters).

`Lowering(program)` walks each expression once. What depends on sites, axes, data and sizes only is folded with NumPy
into constants and index arrays; what is left is a closure that calls `kernels` on arrays. `strategy.choose` says how
each reduction runs. Nothing here keeps state between calls but the static tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from functools import reduce as fold
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vdsl.errors import Diagnostic, InternalError, VfeError
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
    Unary,
)
from vdsl.ir.lattice import OPEN
from vdsl.ir.program import Field, Program
from vdsl.ir.support import Angle, Clock, Complex, Group, Occupation, Potts, Spin, event_shape
from vdsl.lowering import kernels
from vdsl.lowering.frames import (
    MAX_ROWS,
    MAX_SCANNED,
    Frame,
    bond_rows,
    boundary_sign,
    constant,
    grid_frames,
    integers,
    product_frame,
    set_frame,
    too_large,
)
from vdsl.lowering.kernels import Value
from vdsl.lowering.strategy import (
    FINITE,
    MAX_LANES,
    bilinear,
    choose,
    conjuncts,
    direct_reads,
    free_variables,
    over_cells,
    subscript_variables,
)

MAX_FACTORS = 4096  # length of an ordered product of matrices
MAX_COMPONENTS = 4096  # length of a vector
_CHUNK = 2**22  # elements that a filter is tried on at once
Array = Any


@dataclass
class State:
    """One evaluation: a configuration in working types, the parameters, and what has been computed from them so far."""

    x: Mapping[str, Array]
    theta: Mapping[str, Array]
    known: dict[Any, Any] = field(default_factory=dict)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """make(), or what it returned the first time."""
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]


@dataclass(frozen=True)
class Static:
    """A value known when the program is lowered."""

    value: Value


Code = Static | Callable[[State], Value]


def run(code: Code, state: State | None) -> Value:
    """The value of lowered code; static code needs no state, and with one becomes constants of the working types."""
    if isinstance(code, Static):
        return code.value if state is None else kernels.map_value(kernels.working_constant, code.value)
    if state is None:
        raise InternalError("a value that depends on the configuration or on parameters is needed statically")
    return code(state)


def lift(f: Callable[..., Value], *codes: Code) -> Code:
    """f of the values of codes; folded at once when they are all static."""
    if all(isinstance(c, Static) for c in codes):
        with np.errstate(all="ignore"):
            return Static(f(*(c.value for c in codes)))  # type: ignore[union-attr]
    parts = [_runner(c) for c in codes]
    match parts:  # one Python frame a level, so that deep expressions stay within the stack
        case [a]:
            return lambda state: f(a(state))
        case [a, b]:
            return lambda state: f(a(state), b(state))
    return lambda state: f(*[part(state) for part in parts])


def _runner(code: Code) -> Callable[[State], Value]:
    return partial(run, code) if isinstance(code, Static) else code


def prepare(program: Program, x: Mapping[str, Array]) -> dict[str, Array]:
    """A configuration in the types that kernels expect: colours stay small integers."""
    out = {}
    for f in program.fields:
        value = jnp.asarray(x[f.name])
        match f.support:
            case Spin():
                value = value.astype(kernels.working_dtype())
            case Potts() | Clock() | Occupation():
                value = value if jnp.issubdtype(value.dtype, jnp.integer) else value.astype(jnp.int32)
            case Complex() | Group():
                value = value.astype(kernels.complex_dtype())
            case _:
                value = value.astype(kernels.working_dtype())
        out[f.name] = value
    return out


class Lowering:
    """The compiled expressions of a program; each is lowered when it is first asked for."""

    def __init__(self, program: Program):
        self.program = program
        self.lattice = program.lattice
        self.fields = {f.name: f for f in program.fields}
        self.data = {d.name: d for d in program.data}
        self.named = {d.name: d.value for d in program.definitions} | {o.name: o.value for o in program.observables}
        self._lowered: dict[int, tuple[Expr, Code]] = {}  # by identity: hashing a long expression is recursive

    def __call__(self, expr: Expr, state: State) -> Value:
        """The value of a closed expression; 0 when it reads past an open boundary outside every reduction."""
        if id(expr) not in self._lowered:
            self._lowered[id(expr)] = (expr, self.top(expr))
        return run(self._lowered[id(expr)][1], state)

    def top(self, expr: Expr) -> Code:
        """A closed expression."""
        frame = Frame()
        present = self.present(frame, expr)
        return self.lower(expr, frame) if present is None or bool(present) else Static(0.0)

    def lower(self, node: Expr, frame: Frame) -> Code:
        """An expression under the variables of a frame."""
        match node:
            case Const(value):
                return Static(value)
            case Param(name):
                return lambda state: state.theta[name]
            case Ref(name):
                return lambda state: state.once(name, lambda: self(self.named[name], state))
            case IndexVar(name):
                return Static(_plain(frame.numbers[name].values))
            case Read():
                return self.read(node, frame)
            case DataRead():
                return self.read_data(node, frame)
            case Unary(op, operand):
                return lift(lambda a: kernels.unary(op, a), self.lower(operand, frame))
            case Binary():
                return self._chain(node, frame)
            case Select(condition, yes, no):
                chosen = self.lower(condition, frame)
                if isinstance(chosen, Static) and np.ndim(chosen.value) == 0:
                    return self.lower(yes if chosen.value else no, frame)
                return lift(kernels.select, chosen, self.lower(yes, frame), self.lower(no, frame))
            case Call("tr", (Binary("*") as product,)):
                factors = [self.lower(e, frame) for e in _factors(product)]
                return lift(lambda *values: kernels.trace_of_product(list(values)), *factors)
            case Call(function, arguments):
                return lift(
                    lambda *values: kernels.call(function, list(values)), *(self.lower(a, frame) for a in arguments)
                )
            case Items(items):
                return lift(lambda *values: values, *(self.lower(item, frame) for item in items))
            case Item(value, index):
                subscripts = [int(self.static(i, frame)) for i in index]
                return lift(lambda v: fold(lambda part, k: part[k], subscripts, v), self.lower(value, frame))
            case Reduce():
                return self.reduce(node, frame)
            case Expect():
                raise InternalError("`expect` outside `derived`")
        raise InternalError(f"no meaning for {node!r}")

    def _chain(self, node: Binary, frame: Frame) -> Code:
        """a + b + c + …: down the left operands without recursion, then up."""
        links = []
        first: Expr = node
        while isinstance(first, Binary):
            links.append((first.op, first.right))
            first = first.left
        code = self.lower(first, frame)
        steps: list[tuple[str, Callable[[State], Value]]] = []
        for op, right in reversed(links):
            operand = self.lower(right, frame)
            if isinstance(code, Static) and isinstance(operand, Static):
                code = lift(lambda a, b, op=op: kernels.binary(op, a, b), code, operand)
            else:
                steps.append((op, _runner(operand)))
                code = _runner(code)
        if not steps:
            return code
        start = _runner(code)

        def value(state: State) -> Value:
            return fold(lambda a, step: kernels.binary(step[0], a, step[1](state)), steps, start(state))

        return value

    def static(self, expr: Expr, frame: Frame) -> np.ndarray:
        """The value of an expression of constants, sites and axes."""
        code = self.lower(expr, frame)
        if not isinstance(code, Static):
            raise InternalError(f"{expr!r} is not static")
        return np.asarray(code.value)

    # Places

    def displacement(self, place: Place, frame: Frame) -> list[np.ndarray]:
        """How far a place lies from its base, per axis; arrays where it varies over the frame."""
        moved = [np.zeros((), int) for _ in range(self._lattice.n_axes)]
        for axis, amount in place.steps:
            number = np.asarray(axis) if isinstance(axis, int) else frame.numbers[axis].values
            steps = self.static(amount, frame)
            for a in range(len(moved)):
                if number.ndim or number == a:
                    moved[a] = moved[a] + np.where(number == a, steps, 0)
        return moved

    def site(self, place: Place, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(site, exists, sign) of a place, as arrays over the frame."""
        if place.base is not None:
            base, sign = frame.numbers[place.base].values, np.ones((), np.int8)
            if place.base in frame.signs:
                sign = frame.signs[place.base].values
        elif place.number is not None:
            base, sign = self.static(place.number, frame), np.ones((), np.int8)
        else:
            raise InternalError("a place without a base or a number")
        if not place.steps:
            return base, np.ones((), bool), sign
        base, *moved = np.broadcast_arrays(base, *self.displacement(place, frame))
        site, exists, crossed = self._lattice.move(base, tuple(moved))
        return site, exists, sign * crossed

    def axis(self, axis: int | str | None, frame: Frame) -> np.ndarray:
        """The number of an axis, or of an axis variable."""
        if axis is None:
            raise InternalError("a link without an axis")
        return frame.numbers[axis].values if isinstance(axis, str) else np.asarray(axis)

    def present(self, frame: Frame, *exprs: Expr | None) -> np.ndarray | None:
        """Which elements of a frame read nothing past an open boundary; None for all of them."""
        if self.lattice is None or OPEN not in self.lattice.boundary:
            return None
        present = np.ones((), bool)
        for node in direct_reads(*exprs):
            for place in (node.place,) if isinstance(node, Read) else node.places:
                if place.steps or node.axis is not None:
                    site, exists, _ = self.site(place, frame)
                    present = present & exists
                    if node.axis is not None:
                        present = present & (self.lattice.link_number[site, self.axis(node.axis, frame)] >= 0)
        return None if present.all() else present

    @property
    def _lattice(self) -> Any:
        if self.lattice is None:
            raise InternalError("a program without a lattice has no sites")
        return self.lattice

    # Reads

    def read(self, node: Read, frame: Frame) -> Code:
        """A field's value: a rolled or sliced array on a grid, else gathered by a static index array."""
        target = self.fields[node.field]
        if math.prod(event_shape(target.support)) > MAX_COMPONENTS:
            raise too_large(f"a value of `{target.name}`", math.prod(event_shape(target.support)), MAX_COMPONENTS)
        if frame.cells is not None and node.place.base in frame.cells.sites:
            value = self._grid_read(node, target, frame)
        else:
            value = self._row_read(node, target, frame)
        subscripts = [int(self.static(c, frame)) for c in node.component]
        return (lambda state: fold(lambda part, k: part[k], subscripts, value(state))) if subscripts else value

    def _grid_read(self, node: Read, target: Field, frame: Frame) -> Callable[[State], Value]:
        lattice, cells = self._lattice, frame.cells
        assert cells is not None
        assert node.place.base is not None
        basis, start = cells.sites[node.place.base]
        displacement = tuple(int(s + d) for s, d in zip(start, self.displacement(node.place, frame), strict=True))
        axis = None if node.axis is None else int(self.axis(node.axis, frame))
        extra = [(lattice.n_basis, basis)] if lattice.n_basis > 1 else []
        extra += [(lattice.n_axes, axis)] if axis is not None else []
        shape = (*lattice.shape, *(n for n, _ in extra))
        pick = (slice(None),) * lattice.n_axes + tuple(k for _, k in extra)
        ragged = axis is not None and OPEN in lattice.boundary
        shifts, window = [], []
        for d, l, n, boundary in zip(displacement, cells.lower, cells.shape, lattice.boundary, strict=True):
            shifts.append(0 if boundary == OPEN else -d)
            window.append(slice(l + d, l + d + n) if boundary == OPEN else slice(None))
        turned = [(a, s) for a, s in enumerate(shifts) if s % lattice.shape[a]]
        sign = boundary_sign(lattice, cells, displacement)
        key = (target.name, basis, axis, displacement, cells.lower, cells.shape)

        def on_lattice(x: Array) -> Array:
            if ragged:  # links that do not exist read as link 0; no window reaches them
                x = x[np.maximum(lattice.link_number.reshape(-1), 0)]
            return x.reshape(shape + x.shape[1:])[pick]

        def value(state: State) -> Value:
            def make() -> Value:
                whole = state.once((target.name, basis, axis), lambda: on_lattice(state.x[target.name]))
                moved = jnp.roll(whole, [s for _, s in turned], [a for a, _ in turned]) if turned else whole
                return _field_value(target, moved[tuple(window)], len(lattice.shape), sign)

            return state.once(key, make)

        return value

    def _row_read(self, node: Read, target: Field, frame: Frame) -> Callable[[State], Value]:
        site, exists, sign = self.site(node.place, frame)
        if node.axis is None:
            index = np.where(exists, site, 0)
        else:
            axis = self.axis(node.axis, frame)
            index = np.maximum(np.where(exists, self._lattice.link_number[site, axis], 0), 0)
        n = self.program.elements(target)
        in_order = index.size == n and np.array_equal(index.reshape(-1), np.arange(n))
        negative = sign if (sign < 0).any() else None
        index = index.astype(np.int32)

        def value(state: State) -> Value:
            x = state.x[target.name]
            if in_order:
                found = x.reshape(index.shape + x.shape[1:])
            else:
                found = x.at[index].get(mode="promise_in_bounds")
            return _field_value(target, found, index.ndim, negative)

        return value

    def read_data(self, node: DataRead, frame: Frame) -> Code:
        """Data laid out over the frame as a constant; gathered at run time only by subscripts that are dynamic."""
        table = self.data[node.data].values.values
        rows = self._data_rows(node, frame)
        index = [self.lower(i, frame) for i in node.index]

        def look_up(*subscripts: Any) -> Value:
            static = kernels.is_static(tuple(subscripts))
            if static and any((np.asarray(s) < 0).any() for s in (*rows, *subscripts)):
                raise InternalError(f"a negative subscript of {node.data}")
            source = table if static else jnp.asarray(table)
            found = source[(*rows, *subscripts)]
            left = table.ndim - len(rows) - len(subscripts)
            return _split(found, left) if left else _plain(found)

        return lift(look_up, *index)

    def _data_rows(self, node: DataRead, frame: Frame) -> tuple[np.ndarray, ...]:
        match node.key:
            case "index":
                return ()
            case "site":
                return (self.site(node.places[0], frame)[0],)
            case "link":
                site = self.site(node.places[0], frame)[0]
                return (np.maximum(self._lattice.link_number[site, self.axis(node.axis, frame)], 0),)
            case "bond":
                a, b = node.places
                name = self.data[node.data].on or ""
                if a.base is not None and b.base is not None and not a.steps and not b.steps:
                    for ends in ((a.base, b.base), (b.base, a.base)):
                        if ends in frame.bonds and frame.bonds[ends][0] == name:
                            return (frame.bonds[ends][1].values,)
                (i, i_exists, _), (j, j_exists, _) = self.site(a, frame), self.site(b, frame)
                delta = None
                if a.base is not None and a.base == b.base and not self._lattice.is_graph:
                    first, second = self.displacement(a, frame), self.displacement(b, frame)
                    delta = [y - x for x, y in zip(first, second, strict=True)]
                row = bond_rows(self._lattice, name, i, j, delta)
                if (row[np.broadcast_to(i_exists & j_exists, row.shape)] < 0).any():
                    raise VfeError(Diagnostic("no-bond", f"`{node.data}` is read where no bond of `{name}` is"))
                return (np.maximum(row, 0),)
        raise InternalError(f"no data key {node.key}")

    # Reductions

    def reduce(self, node: Reduce, frame: Frame) -> Code:
        """A reduction: its parts, evaluated one by one, then combined."""
        if not (free_variables(node) & frame.wide):
            frame = frame.narrow
        strategy = choose(node, self.program, frame.wide, frame.cells is not None)
        match strategy.kind:
            case "matmul":
                return self._matmul(node, frame)
            case "roll" | "slice":
                parts = self._grid_parts(node, frame)
            case "elementwise" if over_cells(node, self.program):
                parts = self._grid_parts(node, frame)
            case "unroll":
                parts = self._unrolled_parts(node, frame)
            case _:
                parts = self._row_parts(node, frame)
        codes = [c for p in parts for c in (*p.factors, p.mask) if c is not None]
        if all(isinstance(c, Static) for c in codes):
            return Static(_combine(node.op, parts, None))
        return lambda state: _combine(node.op, parts, state)

    def _grid_parts(self, node: Reduce, frame: Frame) -> list[_Part]:
        """One part for each bond class, basis site, axis, plane and element of a finite set."""
        (wide,) = (b for b in node.binders if b.over.kind not in FINITE)
        finite = tuple(b for b in node.binders if b.over.kind in FINITE)
        parts = []
        for values in integers(self.lattice, finite):

            def reach(lane: Frame) -> list[tuple[int, ...]]:
                return self._reach(node, lane)

            for lane in grid_frames(self._lattice, wide, frame.with_integers(values), reach):
                parts += self._part(node, lane, (), lane.shape)
        return parts

    def _reach(self, node: Reduce, lane: Frame) -> list[tuple[int, ...]]:
        """The displacements from the cell of everything that the body reads, the far ends of links included."""
        cells, found = lane.cells, []
        assert cells is not None
        for read in direct_reads(node.body, node.where):
            for place in (read.place,) if isinstance(read, Read) else read.places:
                if place.base is None or place.base not in cells.sites:
                    continue
                start = cells.sites[place.base][1]
                there = tuple(int(s + d) for s, d in zip(start, self.displacement(place, lane), strict=True))
                found.append(there)
                if read.axis is not None:
                    step = self._lattice.axis_step(int(self.axis(read.axis, lane)))
                    found.append(tuple(t + s for t, s in zip(there, step, strict=True)))
        return found

    def _unrolled_parts(self, node: Reduce, frame: Frame) -> list[_Part]:
        """One part for each element of finite sets; each has the shape of the frame."""
        parts = []
        for values in integers(self.lattice, node.binders):
            lane = frame.with_integers(values)
            present = self.present(lane, node.body, node.where) if lane.cells is None else None
            if present is None or bool(present.all()):
                parts += self._part(node, lane, frame.shape, ())
        return parts

    def _row_parts(self, node: Reduce, frame: Frame) -> list[_Part]:
        """New array axes for the binders; or, when elements are missing, rows of a table with segments.

        Variables that pick components of vectors have to be constants, so their sets are written out.
        """
        picks = subscript_variables(node)
        written = tuple(b for b in node.binders if b.over.kind in FINITE and picks & set(b.variables))
        kept = tuple(b for b in node.binders if b not in written)
        parts = []
        for count, values in enumerate(integers(self.lattice, written)):
            if count >= MAX_LANES:
                raise too_large("a reduction over components", count + 1, MAX_LANES)
            parts += self._rows(replace(node, binders=kept), frame.with_integers(values))
        return parts

    def _rows(self, node: Reduce, frame: Frame) -> list[_Part]:
        whole = product_frame(self.lattice, node.binders, frame)
        size = math.prod(whole.shape)
        static = [c for c in conjuncts(node.where) if not self._is_dynamic(c, frame, node)]
        if not static and size <= MAX_ROWS:
            present = self.present(whole, node.body, node.where)
            if present is None or present.all():
                return self._part(node, whole, frame.shape, whole.shape[len(frame.shape) :])
        rows = self._kept_rows(node, static, whole)
        if len(rows) > MAX_ROWS:
            raise too_large("a reduction", len(rows), MAX_ROWS)
        inner = math.prod(whole.shape[len(frame.shape) :])
        segments = rows // max(inner, 1)
        left = tuple(c for c in conjuncts(node.where) if c not in static)
        where = fold(lambda a, b: Binary("and", a, b), left) if left else None
        return self._part(replace(node, where=where), _unravelled(whole, rows), frame.shape, None, segments)

    def _kept_rows(self, node: Reduce, conditions: list[Expr], whole: Frame) -> np.ndarray:
        """The elements, numbered over the flattened frame, that static filters and open boundaries leave."""
        size = math.prod(whole.shape)
        if size > MAX_SCANNED:
            raise too_large("a reduction", size, MAX_SCANNED)
        kept = []
        for start in range(0, size, _CHUNK):
            rows = np.arange(start, min(start + _CHUNK, size))
            chunk = _unravelled(whole, rows)
            for condition in conditions:
                if len(rows):
                    keep = np.broadcast_to(self.static(condition, chunk), rows.shape)
                    rows = rows[keep]
                    chunk = _unravelled(whole, rows)
            present = self.present(chunk, node.body, node.where) if len(rows) else None
            kept.append(rows if present is None else rows[np.broadcast_to(present, rows.shape)])
        return np.concatenate(kept) if kept else np.zeros(0, int)

    def _is_dynamic(self, condition: Expr, frame: Frame, node: Reduce) -> bool:
        """Whether a filter can only be decided at run time."""
        probe = product_frame(self.lattice, node.binders, frame)
        one = _unravelled(probe, np.zeros(min(1, math.prod(probe.shape)), int))
        return not isinstance(self.lower(condition, one), Static)

    def _part(
        self,
        node: Reduce,
        frame: Frame,
        outer: tuple[int, ...],
        inner: tuple[int, ...] | None,
        segments: np.ndarray | None = None,
    ) -> list[_Part]:
        mask: Code | None = None
        for condition in conjuncts(node.where):
            code = self.lower(condition, frame)
            if isinstance(code, Static) and np.ndim(code.value) == 0:
                if not code.value:
                    return []
                continue
            mask = code if mask is None else lift(lambda a, b: kernels.binary("and", a, b), mask, code)
        factors = tuple(self.lower(e, frame) for e in _factors(node.body))
        return [_Part(factors, mask, outer, inner, segments)]

    def _matmul(self, node: Reduce, frame: Frame) -> Code:
        """Σ_(i,j) c·M(i,j)·f(i)·g(j) = c·fᵀMg with a dense constant M."""
        form = bilinear(node, self.program)
        if form is None:
            raise InternalError("not a bilinear form")
        n = self._lattice.n_sites
        pairs = set_frame(self.lattice, node.binders[0])
        pairs = replace(pairs, numbers=frame.numbers | pairs.numbers)
        weights = fold(lambda a, b: a * b, [self.static(f, pairs) for f in form.static], np.ones(()))
        matrix = np.zeros((n, n))
        ends = (pairs.numbers[form.i].values, pairs.numbers[form.j].values)
        np.add.at(matrix, ends, np.broadcast_to(weights, pairs.shape))
        sites = frame.with_axes(1)
        every_site = Frame((n,), {v: constant(np.arange(n)) for v in (form.i, form.j)} | sites.numbers)
        left, right = ([self.lower(f, every_site) for f in factors] for factors in (form.left, form.right))
        scalars = [self.lower(f, frame) for f in form.scalars]

        def value(state: State) -> Value:
            f, g = (
                fold(kernels.multiply, [kernels.real_number(run(c, state)) for c in codes]) for codes in (left, right)
            )
            weight = fold(kernels.multiply, [run(c, state) for c in scalars], 1)
            total = jnp.sum(f * (jnp.asarray(matrix, g.dtype) @ g))
            return kernels.multiply(weight, total)

        return value


@dataclass(frozen=True)
class _Part:
    """Values to be reduced: shape outer + inner, over the inner axes; or rows, into `segments` of the outer shape."""

    factors: tuple[Code, ...]  # the values are their product
    mask: Code | None
    outer: tuple[int, ...]
    inner: tuple[int, ...] | None
    segments: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.outer + self.inner if self.inner is not None else (len(self.segments),)  # type: ignore[arg-type]


_JOIN = {"sum": "+", "mean": "+", "prod": "*"}


def _combine(op: str, parts: list[_Part], state: State | None) -> Value:
    """The reduction of all parts: values of one shape meet element by element, so that each shape is reduced once."""
    if not parts:
        return {"sum": 0.0, "mean": np.nan, "prod": 1.0, "max": -np.inf, "min": np.inf}[op]
    products: dict[Any, list[list[Value]]] = {}
    order: dict[Any, _Part] = {}
    for p in parts:
        factors = [run(c, state) for c in p.factors]
        if p.mask is not None:
            mask, value = run(p.mask, state), _product(factors)
            factors = [kernels.map_value(partial(_masked, op, mask), value)]
        key = (p.outer, p.inner, id(p.segments) if p.segments is not None else None)
        products.setdefault(key, []).append(factors)
        order[key] = p
    total = fold(lambda a, b: _join(op, a, b), [_reduced(op, order[k], _met(op, v)) for k, v in products.items()])
    if op == "mean":
        return kernels.binary("/", total, fold(lambda a, b: a + b, [_count(p, state) for p in parts]))
    return total


def _met(op: str, products: list[list[Value]]) -> Value:
    """Products met element by element; in a sum, factors that all of them share are taken out once."""
    scalar = not any(isinstance(f, tuple) for factors in products for f in factors)
    if op not in ("sum", "mean") or len(products) == 1 or not scalar:
        return fold(lambda a, b: _join(op, a, b), [_product(factors) for factors in products])
    rest = [list(factors) for factors in products]
    shared = []
    for factor in products[0]:
        places = [next((k for k, f in enumerate(factors) if f is factor), None) for factors in rest]
        found = [k for k in places if k is not None]
        if not kernels.is_static(factor) and len(found) == len(rest):
            shared.append(factor)
            for factors, k in zip(rest, found, strict=True):
                del factors[k]
    total = fold(lambda a, b: _join(op, a, b), [_product(factors) for factors in rest])
    return _product([*shared, total])


def _product(factors: list[Value]) -> Value:
    return fold(lambda a, b: kernels.binary("*", a, b), factors) if factors else 1


def _join(op: str, a: Value, b: Value) -> Value:
    return kernels.binary(_JOIN[op], a, b) if op in _JOIN else kernels.call(op, [a, b])


def _masked(op: str, mask: Any, value: Any) -> Any:
    value = kernels.real_number(value)
    neutral = {"sum": 0, "mean": 0, "prod": 1, "max": -np.inf, "min": np.inf}[op]
    return jnp.where(mask, value, jnp.asarray(neutral, value.dtype))


def _reduced(op: str, part: _Part, value: Value) -> Value:
    """Over the inner axes or the segments; a product of matrices in the order of the elements."""
    if op == "prod" and kernels.is_matrix(value):
        return _matrix_product(part, value)
    return kernels.map_value(lambda v: _reduced_scalar(op, part, v), value)


def _reduced_scalar(op: str, part: _Part, value: Any) -> Any:
    static = kernels.is_static(value)
    value = np.asarray(value) if static else kernels.real_number(value)
    if part.segments is None:
        if not part.inner:
            return value
        axes = tuple(range(len(part.outer), len(part.shape)))
        name = {"mean": "sum"}.get(op, op)
        shaped = (np if static else jnp).broadcast_to(value, part.shape)
        if not shaped.size and op in ("max", "min"):
            return np.full(part.outer, -np.inf if op == "max" else np.inf)
        result = getattr(np if static else jnp, name)(shaped, axis=axes)
        return _plain(result) if static else result
    n = math.prod(part.outer)
    if not part.outer:  # one segment: a plain reduction of the rows
        return _reduced_scalar(op, _Part((), None, (), part.shape), value)
    reducer = {"sum": jax.ops.segment_sum, "mean": jax.ops.segment_sum, "prod": jax.ops.segment_prod,
               "max": jax.ops.segment_max, "min": jax.ops.segment_min}[op]  # fmt: skip
    rows = jnp.broadcast_to(kernels.real_number(value), part.shape)
    return reducer(rows, part.segments, n, indices_are_sorted=True).reshape(part.outer)


def _count(part: _Part, state: State | None) -> Any:
    """How many elements of a part are present, for each element outside."""
    if part.mask is not None:
        mask = kernels.real_number(run(part.mask, state))
        return _reduced_scalar("sum", part, jnp.broadcast_to(mask, part.shape))
    if part.segments is None:
        return float(math.prod(part.inner or ()))
    counts = np.bincount(part.segments, minlength=math.prod(part.outer)).reshape(part.outer)
    return _plain(counts.astype(float))


def _matrix_product(part: _Part, value: Value) -> Value:
    if part.segments is None and not part.inner:
        return value
    if part.outer and part.segments is not None:
        raise VfeError(Diagnostic("too-large", "ordered products of matrices of varying length are not compiled"), 4)
    n = math.prod(part.shape[len(part.outer) :])
    if n > MAX_FACTORS:
        raise too_large("a product of matrices", n, MAX_FACTORS)
    flat = kernels.map_value(lambda v: jnp.broadcast_to(v, part.shape).reshape((*part.outer, n)), value)
    factors = [kernels.map_value(itemgetter((..., k)), flat) for k in range(n)]
    return fold(kernels.matrix_product, factors) if factors else kernels.identity_matrix(len(value))


def _field_value(target: Field, x: Array, frame_axes: int, sign: np.ndarray | None) -> Value:
    """Stored numbers, shape frame + event, as a value of the language."""
    value = _split(x, x.ndim - frame_axes)
    match target.support:
        case Clock(q):
            if sign is not None:
                value = jnp.mod(value.astype(np.int32) * sign, q)
            return value.astype(kernels.working_dtype()) * (2 * np.pi / q)
        case Potts() | Occupation():
            return value if sign is None else value.astype(np.int32) * sign
        case Angle():
            return value if sign is None else kernels.reversed_angle(value, sign)
    return value if sign is None else kernels.map_value(lambda v: v * sign, value)


def _factors(product: Expr) -> list[Expr]:
    """The factors of a product written from the left, in order."""
    factors = []
    while isinstance(product, Binary) and product.op == "*":
        factors.append(product.right)
        product = product.left
    return [product, *reversed(factors)]


def _split(x: Array, n: int) -> Value:
    """An array as a value whose n last axes are the components.

    The components are brought to the front and split off there: the derivative of `split` is one concatenation, where
    that of nine subscripts is nine arrays of zeros.
    """
    if n == 0:
        return x
    leading, event = x.shape[: x.ndim - n], x.shape[x.ndim - n :]
    size = math.prod(event)
    if isinstance(x, np.ndarray):
        parts = iter(np.moveaxis(x.reshape(*leading, size), -1, 0))
    else:
        first = jnp.moveaxis(x.reshape(*leading, size), -1, 0)
        parts = iter([c.reshape(leading) for c in jax.lax.split(first, (1,) * size)])
    return _nested(parts, event)


def _nested(parts: Iterator[Any], shape: tuple[int, ...]) -> Value:
    return tuple(_nested(parts, shape[1:]) for _ in range(shape[0])) if shape else next(parts)


def _unravelled(whole: Frame, rows: np.ndarray) -> Frame:
    """The given elements of a frame, without spreading its columns over the whole of it."""
    shape = whole.shape
    at = np.unravel_index(rows, shape)

    def pick(a: np.ndarray) -> np.ndarray:
        pad = (1,) * (len(shape) - a.ndim) + a.shape
        return a.reshape(pad)[tuple(np.minimum(k, n - 1) for k, n in zip(at, pad, strict=True))]

    return whole.mapped(rows.shape, pick)


def _plain(x: Any) -> Any:
    """A NumPy value of no dimensions as a Python number, so that it takes the type of what it meets."""
    return x.item() if isinstance(x, np.ndarray | np.generic) and np.ndim(x) == 0 else x


__all__ = ["Lowering", "State", "prepare"]
