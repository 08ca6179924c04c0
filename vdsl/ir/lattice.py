"""Lattices: cells, sites, bonds, links and plaquettes as integer maps.

Sites are numbered row-major over cells (last axis fastest), then by place in the unit cell. A bond set is a list of
`BondClass`es: a bond of each class starts in every cell, and bonds are numbered cell by cell, class by class, the ones
that cross an open boundary left out. Links are numbered site by site, axis by axis, likewise.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from math import prod

import numpy as np

PERIODIC, OPEN, ANTIPERIODIC = "periodic", "open", "antiperiodic"


@dataclass(frozen=True)
class BondClass:
    """Bonds from basis site `source` of each cell to basis site `target` of the cell `displacement` away."""

    source: int
    target: int
    displacement: tuple[int, ...]


@dataclass(frozen=True)
class Bonds:
    """The bonds of one set, in order. `sign` is −1 where a bond crosses antiperiodic boundaries an odd number of times.

    `cls` and `cell` say which `BondClass` a bond belongs to and the cell it starts in (−1 for explicit edge lists).
    """

    i: np.ndarray
    j: np.ndarray
    sign: np.ndarray
    cls: np.ndarray
    cell: np.ndarray

    def __len__(self) -> int:
        return len(self.i)


@dataclass(frozen=True)
class Lattice:
    """A Bravais lattice with a basis, or (when `edges` is not None) a plain graph.

    shape: cells per axis, () for a graph. vectors: primitive vectors, one row per axis. basis: position of each basis
    site, Cartesian. bond_sets: named classes; for a graph the only set is `nn`, given by `edges`.
    """

    kind: str
    shape: tuple[int, ...]
    boundary: tuple[str, ...]
    vectors: tuple[tuple[float, ...], ...] = ()
    basis: tuple[tuple[float, ...], ...] = ((),)
    basis_names: tuple[str, ...] = ()
    bond_sets: tuple[tuple[str, tuple[BondClass, ...]], ...] = ()
    n_vertices: int = 0
    edges: tuple[tuple[int, int], ...] | None = field(default=None, repr=True)

    @property
    def is_graph(self) -> bool:
        """Whether this is a plain graph: no axes, no translations."""
        return self.edges is not None

    @property
    def n_axes(self) -> int:
        return len(self.shape)

    @property
    def n_basis(self) -> int:
        return len(self.basis)

    @property
    def n_cells(self) -> int:
        return prod(self.shape)

    @property
    def n_sites(self) -> int:
        return self.n_vertices if self.is_graph else self.n_cells * self.n_basis

    @property
    def n_links(self) -> int:
        return self.n_basis * sum(self._cells_reaching(self.axis_step(a)) for a in range(self.n_axes))

    @property
    def n_plaquettes(self) -> int:
        steps = [tuple(int(a in plane) for a in range(self.n_axes)) for plane in self.planes]
        return self.n_basis * sum(map(self._cells_reaching, steps))

    def n_bonds(self, name: str) -> int:
        """How many bonds a set has, counted without listing them. Raises KeyError."""
        if self.edges is not None:
            return len(self.edges)
        return sum(self._cells_reaching(c.displacement) for c in self.bond_classes(name))

    def _cells_reaching(self, displacement: tuple[int, ...]) -> int:
        """How many cells have one that far away: all of them, less a margin along open axes."""
        sides = zip(self.shape, displacement, self.boundary, strict=True)
        return prod(max(length - abs(d), 0) if boundary == OPEN else length for length, d, boundary in sides)

    @property
    def planes(self) -> tuple[tuple[int, int], ...]:
        """Pairs of axes mu < nu."""
        return tuple(itertools.combinations(range(self.n_axes), 2))

    def bond_set_names(self) -> tuple[str, ...]:
        """Names a model may use after `in` for bonds, besides `shell(k)`."""
        if self.is_graph:
            return ("nn",)
        names = tuple(name for name, _ in self.bond_sets)
        return names if "nnn" in names else (*names, "nnn")

    def bond_classes(self, name: str) -> tuple[BondClass, ...]:
        """The classes of a named set, or of `shell(k)`. Raises KeyError. Not for graphs."""
        named = dict(self.bond_sets)
        if name in named:
            return named[name]
        if name.startswith("shell(") and not self.is_graph:
            return shell_classes(self, int(name[6:-1]))
        if name == "nnn" and not self.is_graph:
            return shell_classes(self, 2)
        raise KeyError(name)

    def bonds(self, name: str) -> Bonds:
        """The bonds of a set, in order (cached)."""
        return _bonds(self, name)

    def move(self, site: np.ndarray, displacement: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Sites moved by whole cells: (site, exists, sign); sites that do not exist come back as 0."""
        cell, basis = np.divmod(np.asarray(site), self.n_basis)
        moved, exists, sign = self.move_cell(cell, displacement)
        return np.where(exists, moved * self.n_basis + basis, 0), exists, sign

    def move_cell(self, cell: np.ndarray, displacement: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Cells moved by a displacement: (cell, exists, sign)."""
        cell = np.asarray(cell)
        exists, sign = np.ones(cell.shape, bool), np.ones(cell.shape, np.int8)
        moved = []
        for x, d, length, boundary in zip(
            np.unravel_index(cell, self.shape), displacement, self.shape, self.boundary, strict=True
        ):
            wraps, y = np.divmod(x + d, length)
            moved.append(y)
            if boundary == OPEN:
                exists &= wraps == 0
            elif boundary == ANTIPERIODIC:
                sign = np.where(wraps % 2 != 0, -sign, sign)
        return np.where(exists, np.ravel_multi_index(moved, self.shape), 0), exists, sign.astype(np.int8)

    def axis_step(self, axis: int) -> tuple[int, ...]:
        """The displacement of one step along an axis."""
        return tuple(int(a == axis) for a in range(self.n_axes))

    @cached_property
    def links(self) -> tuple[np.ndarray, np.ndarray]:
        """(site, axis) of every link that exists, in order."""
        site = np.repeat(np.arange(self.n_sites), self.n_axes)
        axis = np.tile(np.arange(self.n_axes), self.n_sites)
        exists = np.zeros(site.shape, bool)
        for a in range(self.n_axes):
            on = axis == a
            exists[on] = self.move(site[on], self.axis_step(a))[1]
        return site[exists], axis[exists]

    @cached_property
    def link_number(self) -> np.ndarray:
        """The number of link (site, axis), shape (n_sites, n_axes); −1 where there is none."""
        number = np.full((self.n_sites, self.n_axes), -1)
        number[self.links] = np.arange(len(self.links[0]))
        return number

    @cached_property
    def plaquettes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(site, mu, nu) of every plaquette that exists: site by site, plane by plane."""
        rows = []
        sites = np.arange(self.n_sites)
        for p, (mu, nu) in enumerate(self.planes):
            step = tuple(int(a in (mu, nu)) for a in range(self.n_axes))
            kept = sites[self.move(sites, step)[1]]
            rows.append(np.stack([kept, np.full_like(kept, p)], 1))
        if not rows:
            return np.zeros(0, int), np.zeros(0, int), np.zeros(0, int)
        table = np.concatenate(rows)
        table = table[np.lexsort((table[:, 1], table[:, 0]))]
        planes = np.array(self.planes)
        return table[:, 0], planes[table[:, 1], 0], planes[table[:, 1], 1]

    def positions(self) -> np.ndarray:
        """Cartesian positions of the sites, shape (n_sites, D); zeros for a graph."""
        if self.is_graph:
            return np.zeros((self.n_sites, 1))
        cells = np.stack(np.unravel_index(np.arange(self.n_cells), self.shape), 1) @ np.array(self.vectors)
        return (cells[:, None, :] + np.array(self.basis)[None]).reshape(self.n_sites, -1)

    def multiplicities(self, name: str) -> dict[int, int]:
        """How many pairs of sites are joined by m bonds, for m > 1; key 0 counts bonds that join a site to itself."""
        bonds = self.bonds(name)
        low, high = np.minimum(bonds.i, bonds.j), np.maximum(bonds.i, bonds.j)
        loops = int((low == high).sum())
        _, counts = np.unique((low * self.n_sites + high)[low != high], return_counts=True)
        out = {int(m): int((counts == m).sum()) for m in np.unique(counts) if m > 1}
        return ({0: loops} if loops else {}) | out


def _hypercubic(d: int) -> dict:
    return {"vectors": tuple(tuple(float(a == b) for b in range(d)) for a in range(d)), "basis": ((0.0,) * d,)}


_ROOT3 = 3**0.5
# Primitive cells. The nearest-neighbour bonds of all of them are the first shell of `shell_classes`.
UNIT_CELLS: dict[str, dict] = {
    "chain": _hypercubic(1),
    "square": _hypercubic(2),
    "cubic": _hypercubic(3),
    "triangular": {"vectors": ((1.0, 0.0), (0.5, _ROOT3 / 2)), "basis": ((0.0, 0.0),)},
    "honeycomb": {
        "vectors": ((1.0, 0.0), (0.5, _ROOT3 / 2)),
        "basis": ((0.0, 0.0), (0.5, _ROOT3 / 6)),
        "basis_names": ("A", "B"),
    },
    "kagome": {
        "vectors": ((1.0, 0.0), (0.5, _ROOT3 / 2)),
        "basis": ((0.0, 0.0), (0.5, 0.0), (0.25, _ROOT3 / 4)),
        "basis_names": ("A", "B", "C"),
    },
    "bcc": {"vectors": ((-0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.5, 0.5, -0.5)), "basis": ((0.0, 0.0, 0.0),)},
    "fcc": {"vectors": ((0.0, 0.5, 0.5), (0.5, 0.0, 0.5), (0.5, 0.5, 0.0)), "basis": ((0.0, 0.0, 0.0),)},
}
DIMENSIONS = {"chain": 1, "square": 2, "triangular": 2, "honeycomb": 2, "kagome": 2, "cubic": 3, "bcc": 3, "fcc": 3}


def named_lattice(kind: str, shape: tuple[int, ...], boundary: tuple[str, ...]) -> Lattice:
    """One of the lattices the language knows by name; `hypercubic` takes its dimension from `shape`."""
    cell = _hypercubic(len(shape)) if kind == "hypercubic" else UNIT_CELLS[kind]
    bare = Lattice(kind, shape, boundary, **{"basis_names": ("A",), **cell})
    return Lattice(**{**bare.__dict__, "bond_sets": (("nn", shell_classes(bare, 1)),)})


def complete_graph(n: int) -> Lattice:
    """All pairs i < j of n sites, in row-major order."""
    return graph_lattice("complete", n, tuple(itertools.combinations(range(n), 2)))


def graph_lattice(kind: str, n: int, edges: tuple[tuple[int, int], ...]) -> Lattice:
    """A graph with n vertices and the given edges, in the given order and orientation."""
    return Lattice(kind, (), (), n_vertices=n, edges=edges)


_MOST_DISPLACEMENTS = 300_000  # looked at for one shell: about a second


@lru_cache(maxsize=64)
def shell_classes(lattice: Lattice, k: int) -> tuple[BondClass, ...]:
    """The k-th shell of the infinite lattice: all bonds of the k-th smallest distance, each once.

    Oriented from the lower basis site to the higher; within one basis site, along the displacement whose first
    nonzero entry is positive. Sorted by source, then displacement (first axis first), then target.
    Raises ValueError if basis sites lie at different shells' distances no larger than the search radius can certify.
    """
    scale = np.linalg.norm(lattice.vectors, axis=1).min()  # so that tolerances are relative
    vectors, basis = np.array(lattice.vectors) / scale, np.array(lattice.basis) / scale
    reach = 1
    while True:
        if (2 * reach + 1) ** lattice.n_axes * len(basis) ** 2 > _MOST_DISPLACEMENTS:
            raise ValueError(f"shell({k}) reaches too far on {lattice.kind}")
        span = itertools.product(range(-reach, reach + 1), repeat=lattice.n_axes)
        steps = np.array(list(span))
        rows, lengths = [], []
        for a, b in itertools.product(range(len(basis)), repeat=2):
            r = np.linalg.norm(steps @ vectors + basis[b] - basis[a], axis=1)
            for step, length in zip(steps, r, strict=True):
                if length > 1e-9:
                    rows.append((a, b, tuple(int(x) for x in step)))
                    lengths.append(length)
        distances = np.unique(np.round(lengths, 6))
        # Complete up to the distance that a step of reach + 1 cells cannot beat.
        heights = 1.0 / np.linalg.norm(np.linalg.pinv(vectors), axis=0)
        spread = max(np.linalg.norm(p - q) for p in basis for q in basis)
        certain = (reach + 1) * heights.min() - spread
        if len(distances) >= k and distances[k - 1] < certain - 1e-6:
            break
        reach += 1
    kept = set()
    for (a, b, step), length in zip(rows, lengths, strict=True):
        if abs(length - distances[k - 1]) < 1e-5:
            forward = a < b or (a == b and next(x for x in step if x) > 0)
            kept.add((a, b, step) if forward else (b, a, tuple(-x for x in step)))
    ordered = sorted(kept, key=lambda c: (c[0], tuple(-x for x in c[2]), c[1]))
    return tuple(BondClass(a, b, step) for a, b, step in ordered)


@lru_cache(maxsize=128)
def _bonds(lattice: Lattice, name: str) -> Bonds:
    if lattice.edges is not None:
        if name != "nn":
            raise KeyError(name)
        edges = np.array(lattice.edges, dtype=int).reshape(-1, 2)
        n = len(edges)
        return Bonds(edges[:, 0], edges[:, 1], np.ones(n, np.int8), np.full(n, -1), np.full(n, -1))
    classes = lattice.bond_classes(name)
    cells = np.arange(lattice.n_cells)
    columns = []
    for c, bond in enumerate(classes):
        cell, exists, sign = lattice.move_cell(cells, bond.displacement)
        i, j = cells * lattice.n_basis + bond.source, cell * lattice.n_basis + bond.target
        columns.append(np.stack([i, j, sign, np.full_like(i, c), cells], 1)[exists])
    table = np.concatenate(columns) if columns else np.zeros((0, 5), int)
    table = table[np.lexsort((table[:, 3], table[:, 4]))]
    return Bonds(table[:, 0], table[:, 1], table[:, 2].astype(np.int8), table[:, 3], table[:, 4])
