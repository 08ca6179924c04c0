"""Program -> JAX: every expression becomes a function of a `State` (a configuration and its parameters).

`Lowering(program)` walks each expression once. What depends on sites, axes, data and sizes only is folded with NumPy
into constants and index arrays; what is left is a closure that calls `kernels` on arrays. `strategy.choose` says how
each reduction runs. Nothing here keeps state between calls but the static tables.
What code is lies in `codes`; reductions are taken apart in `parts` and put together in `combine`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import reduce as fold
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
from vdsl.lowering import kernels, parts
from vdsl.lowering.codes import Code, State, Static, lift, plain, run, runner
from vdsl.lowering.combine import combine
from vdsl.lowering.frames import (
    Frame,
    bond_rows,
    boundary_sign,
    too_large,
)
from vdsl.lowering.kernels import Value
from vdsl.lowering.parts import left_factors
from vdsl.lowering.strategy import (
    choose,
    direct_reads,
    free_variables,
)

MAX_COMPONENTS = 4096  # length of a vector
Array = Any


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
                return Static(plain(frame.numbers[name].values))
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
                factors = [self.lower(e, frame) for e in left_factors(product)]
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
                steps.append((op, runner(operand)))
                code = runner(code)
        if not steps:
            return code
        start = runner(code)

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
        moved = [np.zeros((), int) for _ in range(self.known_lattice.n_axes)]
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
        site, exists, crossed = self.known_lattice.move(base, tuple(moved))
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
    def known_lattice(self) -> Any:
        """The lattice, where there has to be one."""
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
        lattice, cells = self.known_lattice, frame.cells
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
            index = np.maximum(np.where(exists, self.known_lattice.link_number[site, axis], 0), 0)
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
            return _split(found, left) if left else plain(found)

        return lift(look_up, *index)

    def _data_rows(self, node: DataRead, frame: Frame) -> tuple[np.ndarray, ...]:
        match node.key:
            case "index":
                return ()
            case "site":
                return (self.site(node.places[0], frame)[0],)
            case "link":
                site = self.site(node.places[0], frame)[0]
                return (np.maximum(self.known_lattice.link_number[site, self.axis(node.axis, frame)], 0),)
            case "bond":
                a, b = node.places
                name = self.data[node.data].on or ""
                if a.base is not None and b.base is not None and not a.steps and not b.steps:
                    for ends in ((a.base, b.base), (b.base, a.base)):
                        if ends in frame.bonds and frame.bonds[ends][0] == name:
                            return (frame.bonds[ends][1].values,)
                (i, i_exists, _), (j, j_exists, _) = self.site(a, frame), self.site(b, frame)
                delta = None
                if a.base is not None and a.base == b.base and not self.known_lattice.is_graph:
                    first, second = self.displacement(a, frame), self.displacement(b, frame)
                    delta = [y - x for x, y in zip(first, second, strict=True)]
                row = bond_rows(self.known_lattice, name, i, j, delta)
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
        if strategy.kind == "matmul":
            return parts.matmul(self, node, frame)
        found = parts.parts(self, node, frame, strategy.kind)
        codes = [c for p in found for c in (*p.factors, p.mask) if c is not None]
        if all(isinstance(c, Static) for c in codes):
            return Static(combine(node.op, found, None))
        return lambda state: combine(node.op, found, state)


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


__all__ = ["Lowering", "State", "prepare"]
