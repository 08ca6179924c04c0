"""Pinning: which angles of a U(1) gauge theory a gauge transformation can set to 0, and the energy with them at 0.

A gauge transformation α(x) moves angles along edges of a graph, v → v + c (α(start) − α(end)): a link runs from its
site to the next (c = 1), and angles of matter of charge c from their site to a vertex of their own, the *vacuum*,
where α = 0; so do the phases of complex matter, which is described by lengths and phases for that (polar.py). The
edges of c = ±1 in a spanning forest can all be set to 0, by exactly one α that is 0 at the root of every tree. So any
configuration is one with these *pinned* angles at 0 and an α, with unit Jacobian: along the trees the change of
variables is triangular. Without charged angles and phases the trees are maximal trees of links.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vdsl.ir.actions import Symmetry, act, random_element
from vdsl.ir.configurations import random_configuration
from vdsl.ir.expansion import Block, Expansion, MonomialGroup, variables_of
from vdsl.ir.gauge import gauge_group_of, link_ends
from vdsl.ir.lattice import ANTIPERIODIC, Lattice
from vdsl.ir.polar import polar_expansion
from vdsl.ir.program import Program

_TOLERANCE = 1e-9  # of an energy that a transformation leaves alone, relative to its coefficients


@dataclass(frozen=True)
class Edges:
    """Angles that move: variables (m,), v → v + charge (α[start] − α[end]); the first are pinned rather than others."""

    variables: np.ndarray
    start: np.ndarray
    end: np.ndarray
    charge: np.ndarray


@dataclass(frozen=True)
class Pins:
    """The variables that are pinned, the fields that hold some, and how gauge transformations move all variables.

    polar: charged complex fields; variables are those of their `polar_expansion`. α has one entry for every site and
    the vacuum, for one gauge group after another. The α that pins is Σ_d signs[:, d]·x[paths[:, d]], 0 at roots; free:
    not a root.
    """

    symmetries: tuple[Symmetry, ...]
    polar: tuple[str, ...]
    pinned: np.ndarray
    held: tuple[str, ...]
    edges: Edges
    paths: np.ndarray
    signs: np.ndarray
    free: np.ndarray

    @property
    def fields(self) -> tuple[str, ...]:
        """What gauge transformations move."""
        return tuple(f for s in self.symmetries for f in s.fields)


def pins_of(program: Program, symmetries: Iterable[Symmetry], expansion: Expansion) -> Pins | None:
    """The pins of all U(1) gauge symmetries that the expansion has; None where there is none, or nothing else."""
    lattice, chosen = program.lattice, _abelian(program, symmetries, expansion)
    if lattice is None or not chosen:
        return None
    charged = {f for s in chosen for f in s.fields}
    polar = tuple(b.field for b in expansion.blocks if b.field in charged and b.kind == "real")
    expansion, links = polar_expansion(expansion, polar), {f.name for f in program.fields if f.on == "links"}
    angles = {b.field: b for b in expansion.blocks if b.kind == "angle"}
    size = lattice.n_sites + 1
    parts = []
    for k, s in enumerate(chosen):
        for field, charge in sorted(zip(s.fields, s.weights, strict=True), key=lambda f: f[0] not in links):
            parts.append(_edges(lattice, angles[field], field in links, charge, k * size))
    edges = Edges(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    pinned, paths, signs, free = _forest(edges, [k * size + size - 1 for k in range(len(chosen))], size * len(chosen))
    if len(pinned) in (0, expansion.n):
        return None
    owners = np.searchsorted([b.first for b in expansion.blocks], pinned, side="right") - 1
    held = tuple(expansion.blocks[k].field for k in np.unique(owners))
    return Pins(chosen, polar, pinned, held, edges, paths, signs, free)


def pinned_expansion(expansion: Expansion, pinned: np.ndarray) -> Expansion:
    """The energy of the other variables with the pinned angles at 0, where e^{ipθ} is 1; variables numbered anew."""
    kept = np.ones(expansion.n, bool)
    kept[pinned] = False
    number = np.cumsum(kept) - 1
    constant, groups = expansion.constant, []
    kinds = expansion.kinds()
    for g in expansion.groups:
        stays = kept[g.scopes]
        for pattern in np.unique(stays, axis=0):
            rows = (stays == pattern).all(1)
            scopes, c = number[g.scopes[rows][:, pattern]], g.coefficients[rows]
            if not pattern.any():
                constant += float(c.sum().real)
                continue
            if not (kinds[g.scopes[rows][:, pattern]] == "angle").any():
                c = c.real
            exponents = tuple(p for p, stay in zip(g.exponents, pattern.tolist(), strict=True) if stay)
            groups.append(MonomialGroup(g.term, exponents, scopes, c))
    blocks = []
    for b in expansion.blocks:
        own = kept[b.first : b.first + b.elements * b.components]
        if own.any():
            first = int(number[b.first + int(np.argmax(own))])
            blocks.append(replace(b, first=first, elements=int(own.sum()) // b.components))
    coordinates = None if expansion.coordinates is None else expansion.coordinates[kept]
    return Expansion(tuple(blocks), tuple(groups), constant, expansion.opaque, coordinates)


def _abelian(program: Program, symmetries: Iterable[Symmetry], expansion: Expansion) -> tuple[Symmetry, ...]:
    """Gauge symmetries of angles and U(1), no two of which move the same field. An antiperiodic boundary reflects α."""
    found: list[Symmetry] = []
    for s in symmetries:
        if s.kind != "gauge" or program.lattice is None or ANTIPERIODIC in program.lattice.boundary:
            continue
        links = [f for f in s.fields if program.field(f).on == "links"]
        taken = {f for other in found for f in other.fields}
        abelian = all(gauge_group_of(program.field(f)) == "U1" for f in links)
        if abelian and not taken & set(s.fields) and _holds(s, program, expansion):
            found.append(s)
    return tuple(found)


def _holds(symmetry: Symmetry, program: Program, expansion: Expansion) -> bool:
    """Whether random transformations leave the energy of random configurations alone, on the lattice itself."""
    rng = np.random.default_rng(0)
    scale = abs(expansion.constant) + sum(float(np.abs(g.coefficients).sum()) for g in expansion.groups)
    for _ in range(2):
        x = random_configuration(program, rng)
        y = act(symmetry, random_element(symmetry, program, rng), x, program)
        before, after = (float(expansion.evaluate(variables_of(program, c))) for c in (x, y))
        if not abs(before - after) <= _TOLERANCE * max(scale, abs(before)):
            return False
    return True


def _edges(lattice: Lattice, block: Block, on_links: bool, charge: int, first: int) -> tuple[np.ndarray, ...]:
    """The columns of `Edges` for one field, vertices from `first` on: links of the last axis first, in axial gauge."""
    order = np.arange(block.elements)
    if on_links:
        order = np.argsort(-lattice.links[1], kind="stable")
        start, end = link_ends(lattice)
    else:
        start, end = order, np.full(block.elements, lattice.n_sites)
    return block.first + order, first + start[order], first + end[order], np.full(block.elements, charge)


def _forest(edges: Edges, vacua: Sequence[int], size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(variables of a spanning forest, paths (size, D) from the roots, signs (size, D), not a root (size,))."""
    root = np.arange(size)

    def leader(v: int) -> int:
        while root[v] != v:
            root[v] = root[root[v]]
            v = root[v]
        return int(v)

    around: list[list[tuple[int, int, int]]] = [[] for _ in range(size)]
    pinned = []
    for variable, a, b, c in zip(*(column.tolist() for column in vars(edges).values()), strict=True):
        if abs(c) != 1 or leader(a) == leader(b):
            continue
        root[leader(a)] = leader(b)
        pinned.append(variable)
        around[a].append((b, variable, c))  # α(end) = α(start) + c v
        around[b].append((a, variable, -c))
    path: dict[int, list[tuple[int, int]]] = {}
    free = np.ones(size, bool)
    for v in [*vacua, *range(size)]:
        if v in path:
            continue
        path[v], free[v], queue = [], False, [v]
        for here in queue:
            for there, variable, sign in around[here]:
                if there not in path:
                    path[there] = [*path[here], (variable, sign)]
                    queue.append(there)
    table = np.zeros((size, max(map(len, path.values())), 2), int)
    for v, steps in path.items():
        table[v, : len(steps)] = np.array(steps, int).reshape(-1, 2)
    return np.array(sorted(pinned), int), table[..., 0], table[..., 1], free
