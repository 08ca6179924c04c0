"""Frames: what the variables of the reductions around an expression stand for, as static arrays of site numbers.

A frame has a shape: the array axes that values in it have, or broadcast to. Each variable has its integers (site
number, axis, range value), broadcastable to the shape. On a grid frame a site variable is also a basis site and a
displacement, so that reading it needs no index array. Everything here is NumPy and happens once, when a program is
lowered; columns that a grid never needs are never computed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.ir.expr import Binder
from vdsl.ir.lattice import ANTIPERIODIC, OPEN, Lattice
from vdsl.lowering.strategy import FINITE, set_size

MAX_ROWS = 2**25  # elements of one static table
MAX_SCANNED = 2**29  # elements looked at to find those that a filter keeps


class Column:
    """An integer array computed when it is first asked for."""

    def __init__(self, make: Callable[[], np.ndarray]):
        self._make = make

    @cached_property
    def values(self) -> np.ndarray:
        return np.asarray(self._make())


def constant(values: object) -> Column:
    """A column that is known already."""
    array = np.asarray(values)
    return Column(lambda: array)


@dataclass(frozen=True)
class Cells:
    """Cells lower <= x < lower + shape of a lattice, and where the site variables lie relative to the cell."""

    lower: tuple[int, ...]
    shape: tuple[int, ...]
    sites: dict[str, tuple[int, tuple[int, ...]]]  # variable -> (basis site, displacement)


@dataclass(frozen=True)
class Frame:
    """The variables around an expression.

    numbers: the integers of each variable. signs: −1 where the far end of a bond was reached across antiperiodic
    boundaries an odd number of times. bonds: for the two ends of a bond, its set and its number. cells: on a grid.
    """

    shape: tuple[int, ...] = ()
    numbers: dict[str, Column] = field(default_factory=dict)
    signs: dict[str, Column] = field(default_factory=dict)
    bonds: dict[tuple[str, str], tuple[str, Column]] = field(default_factory=dict)
    cells: Cells | None = None

    @property
    def wide(self) -> frozenset[str]:
        """The variables that run along array axes."""
        if not self.shape:
            return frozenset()
        placed = self.cells.sites if self.cells is not None else {}
        return frozenset(v for v, c in self.numbers.items() if v in placed or c.values.ndim)

    @property
    def narrow(self) -> Frame:
        """The frame without its array axes: only the variables that are single integers."""
        wide = self.wide
        return Frame((), {v: c for v, c in self.numbers.items() if v not in wide})

    def with_integers(self, values: dict[str, int]) -> Frame:
        """The frame with further variables that are single integers."""
        return replace(self, numbers=self.numbers | {v: constant(n) for v, n in values.items()})

    def mapped(self, shape: tuple[int, ...], f: Callable[[np.ndarray], np.ndarray]) -> Frame:
        """The frame with f applied to every column that is an array."""

        def move(c: Column) -> Column:
            return Column(lambda: f(c.values) if c.values.ndim else c.values)

        return Frame(
            shape,
            {v: move(c) for v, c in self.numbers.items()},
            {v: move(c) for v, c in self.signs.items()},
            {ends: (name, move(c)) for ends, (name, c) in self.bonds.items()},
        )

    def with_axes(self, n: int) -> Frame:
        """The frame with n further array axes of length 1."""
        return self.mapped(self.shape + (1,) * n, lambda a: a.reshape(a.shape + (1,) * n))


def _with_trailing_axes(n: int, a: np.ndarray) -> np.ndarray:
    return a.reshape(a.shape + (1,) * n)


def integers(lattice: Lattice | None, binders: tuple[Binder, ...]) -> Iterator[dict[str, int]]:
    """The elements of finite sets, one dict of integers each, first binder slowest."""
    for combination in itertools.product(*(_finite(b, lattice) for b in binders)):
        yield {v: n for part in combination for v, n in part.items()}


def product_frame(lattice: Lattice | None, binders: tuple[Binder, ...], outer: Frame) -> Frame:
    """`outer` with one new array axis for each binder. Raises `too-large`."""
    sizes = [set_size(b.over, lattice) for b in binders]
    frame = outer.with_axes(len(binders))
    rows = math.prod(outer.shape) * math.prod(sizes)
    if max([*sizes, 0]) > MAX_ROWS or rows > MAX_SCANNED:
        raise too_large("a reduction", rows, MAX_SCANNED)
    shape: list[int] = []
    for k, binder in enumerate(binders):
        part = set_frame(lattice, binder)
        after = len(binders) - k - 1
        part = part.mapped(part.shape, partial(_with_trailing_axes, after))
        frame = Frame((), frame.numbers | part.numbers, frame.signs | part.signs, frame.bonds | part.bonds)
        shape += part.shape
    return replace(frame, shape=(*outer.shape, *shape))


def set_frame(lattice: Lattice | None, binder: Binder) -> Frame:
    """The elements of one set in order, as columns of a one-dimensional frame."""
    variables, over = binder.variables, binder.over
    if over.kind in FINITE:
        table = list(_finite(binder, lattice))
        return Frame((len(table),), {v: constant(np.array([t[v] for t in table], dtype=int)) for v in variables})
    known = _need(lattice)
    columns: tuple[np.ndarray, ...]
    match over.kind:
        case "sites":
            n = known.n_sites
            return Frame((n,), {variables[0]: Column(lambda: np.arange(n))})
        case "links":
            columns = known.links
        case "plaquettes":
            columns = known.plaquettes
        case "pairs":
            columns = np.triu_indices(known.n_sites, 1)
        case _:
            bonds = known.bonds(over.name)
            i, j = variables
            numbers = {i: constant(bonds.i), j: constant(bonds.j)}
            row = constant(np.arange(len(bonds)))
            return Frame((len(bonds),), numbers, {j: constant(bonds.sign)}, {(i, j): (over.name, row)})
    return Frame((len(columns[0]),), dict(zip(variables, map(constant, columns), strict=True)))


def grid_frames(
    lattice: Lattice, binder: Binder, outer: Frame, reach: Callable[[Frame], list[tuple[int, ...]]]
) -> Iterator[Frame]:
    """One frame over the cells for each bond class, basis site, axis or plane of a site, bond, link or plaquette set.

    `reach(frame)` lists the displacements from the cell that have to exist; along open axes they narrow the window.
    """
    zero = (0,) * lattice.n_axes
    for sites, numbers, needed in _lanes(lattice, binder, zero):
        whole = Cells(zero, lattice.shape, sites)
        frame = replace(outer.with_integers(numbers), shape=lattice.shape, cells=whole)
        far = [*needed, *reach(frame)]
        lower, upper = [], []
        for a, (length, boundary) in enumerate(zip(lattice.shape, lattice.boundary, strict=True)):
            steps = [0, *(d[a] for d in far)] if boundary == OPEN else [0]
            lower.append(-min(steps))
            upper.append(length - max(steps))
        size = tuple(u - l for l, u in zip(lower, upper, strict=True))
        if min(size) > 0:
            yield _with_columns(lattice, replace(frame, shape=size, cells=Cells(tuple(lower), size, sites)), binder)


def window_cells(lattice: Lattice, cells: Cells) -> np.ndarray:
    """The numbers of the cells of a window, in its shape."""
    ranges = [np.arange(l, l + n) for l, n in zip(cells.lower, cells.shape, strict=True)]
    return np.ravel_multi_index(np.meshgrid(*ranges, indexing="ij"), lattice.shape)


def boundary_sign(lattice: Lattice, cells: Cells, displacement: tuple[int, ...]) -> np.ndarray | None:
    """±1 for each cell of a window: the sign picked up by going that far; None where it is +1 throughout."""
    sign: np.ndarray | None = None
    for a, (length, boundary) in enumerate(zip(lattice.shape, lattice.boundary, strict=True)):
        if boundary != ANTIPERIODIC or displacement[a] == 0:
            continue
        wraps = (np.arange(cells.lower[a], cells.lower[a] + cells.shape[a]) + displacement[a]) // length
        one = (
            np.where(wraps % 2 != 0, -1, 1)
            .astype(np.int8)
            .reshape([-1 if b == a else 1 for b in range(lattice.n_axes)])
        )
        sign = one if sign is None else sign * one
    return None if sign is None or (sign > 0).all() else sign


def bond_rows(lattice: Lattice, name: str, i: np.ndarray, j: np.ndarray, delta: list[np.ndarray] | None) -> np.ndarray:
    """The number of the bond of a set that joins sites i and j, in either direction; −1 where there is none.

    Where several do, the one whose displacement leads from i to j (or back), if `delta` is given; else the first.
    """
    first, (start, stop, step) = _bond_table(lattice, name)
    i, j = np.broadcast_arrays(i, j)
    n = lattice.n_sites
    row = _look_up(first, np.minimum(i, j) * n + np.maximum(i, j))
    if delta is None or lattice.is_graph or not lattice.multiplicities(name):
        return row
    rows = np.array(row)
    moves = np.stack(np.broadcast_arrays(*delta, i)[:-1], -1)
    for at in np.ndindex(rows.shape):
        there = (start == i[at]) & (stop == j[at]) & (step == moves[at]).all(1)
        back = (start == j[at]) & (stop == i[at]) & (step == -moves[at]).all(1)
        found = np.flatnonzero(there) if there.any() else np.flatnonzero(back)
        if len(found):
            rows[at] = found[0]
    return rows


def too_large(what: str, size: int, limit: int) -> VfeError:
    """The refusal of a table or an expression beyond the limits, before anything is allocated."""
    return VfeError(
        Diagnostic(
            "too-large",
            f"{what} has {size:,} elements",
            notes=(f"at most {limit:,} are compiled",),
            hints=("a filter that is an equality of displacements, or a smaller lattice, brings it down",),
        ),
        exit_code=4,
    )


def _need(lattice: Lattice | None) -> Lattice:
    if lattice is None:
        raise VfeError(Diagnostic("no-lattice", "a reduction over sites needs a lattice"))
    return lattice


def _finite(binder: Binder, lattice: Lattice | None) -> Iterator[dict[str, int]]:
    over = binder.over
    if over.kind == "range":
        numbers = range(*over.bounds)
        if len(numbers) > MAX_ROWS:
            raise too_large("a range", len(numbers), MAX_ROWS)
        return ({binder.variables[0]: n} for n in numbers)
    if over.kind == "axes":
        return ({binder.variables[0]: n} for n in range(_need(lattice).n_axes))
    return (dict(zip(binder.variables, plane, strict=True)) for plane in _need(lattice).planes)


def _lanes(
    lattice: Lattice, binder: Binder, zero: tuple[int, ...]
) -> Iterator[tuple[dict[str, tuple[int, tuple[int, ...]]], dict[str, int], list[tuple[int, ...]]]]:
    """(site variables, integer variables, displacements that must exist) of each lane."""
    variables, over = binder.variables, binder.over
    if over.kind == "bonds":
        for bond in lattice.bond_classes(over.name):
            ends = {variables[0]: (bond.source, zero), variables[1]: (bond.target, bond.displacement)}
            yield ends, {}, [bond.displacement]
        return
    for b in range(lattice.n_basis):
        site = {variables[0]: (b, zero)}
        match over.kind:
            case "sites":
                yield site, {}, []
            case "links":
                for a in range(lattice.n_axes):
                    yield site, {variables[1]: a}, [lattice.axis_step(a)]
            case "plaquettes":
                for mu, nu in lattice.planes:
                    step = tuple(int(a in (mu, nu)) for a in range(lattice.n_axes))
                    yield site, {variables[1]: mu, variables[2]: nu}, [step]


def _with_columns(lattice: Lattice, frame: Frame, binder: Binder) -> Frame:
    """The lazily computed site numbers, signs and bond numbers of a grid frame."""
    cells = frame.cells
    assert cells is not None
    numbers, signs = dict(frame.numbers), dict(frame.signs)
    for v, (basis, displacement) in cells.sites.items():

        def number(basis: int = basis, displacement: tuple[int, ...] = displacement) -> np.ndarray:
            return lattice.move_cell(window_cells(lattice, cells), displacement)[0] * lattice.n_basis + basis

        def sign(displacement: tuple[int, ...] = displacement) -> np.ndarray:
            found = boundary_sign(lattice, cells, displacement)
            return np.ones((), np.int8) if found is None else found

        numbers[v], signs[v] = Column(number), Column(sign)
    bonds = dict(frame.bonds)
    if binder.over.kind == "bonds":
        i, j = binder.variables
        bond = (cells.sites[i][0], cells.sites[j][0], cells.sites[j][1])
        bonds[i, j] = (binder.over.name, Column(lambda: _class_rows(lattice, binder.over.name, bond, cells)))
    return replace(frame, numbers=numbers, signs=signs, bonds=bonds)


def _class_rows(lattice: Lattice, name: str, bond: tuple, cells: Cells) -> np.ndarray:
    """The numbers of the bonds of one class that start in the cells of a window."""
    classes = [(c.source, c.target, c.displacement) for c in lattice.bond_classes(name)]
    bonds = lattice.bonds(name)
    mine = np.flatnonzero(bonds.cls == classes.index(bond))
    row = np.full(lattice.n_cells, -1)
    row[bonds.cell[mine]] = mine
    return row[window_cells(lattice, cells)]


@lru_cache(maxsize=32)
def _bond_table(lattice: Lattice, name: str) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, ...]]:
    bonds = lattice.bonds(name)
    keys, first = np.unique(
        np.minimum(bonds.i, bonds.j) * lattice.n_sites + np.maximum(bonds.i, bonds.j), return_index=True
    )
    if lattice.is_graph:
        return (keys, first), (bonds.i, bonds.j, np.zeros((len(bonds), 0), int))
    steps = np.array([c.displacement for c in lattice.bond_classes(name)])[bonds.cls]
    return (keys, first), (bonds.i, bonds.j, steps)


def _look_up(table: tuple[np.ndarray, np.ndarray], wanted: np.ndarray) -> np.ndarray:
    keys, rows = table
    if not len(keys):
        return np.full(wanted.shape, -1)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, rows[at], -1)
