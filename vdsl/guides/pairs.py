"""Pairs: which pairs of variables are alike under the symmetries of a model, and which variables may move together.

A weight shared by all pairs of a class makes a pair interaction commute with translations and the point group. Where
the lattice has no translations every pair is its own class.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from vdsl.guides.chart import Chart
from vdsl.guides.problem import Problem
from vdsl.ir.expansion import Expansion
from vdsl.ir.lattice import PERIODIC

_MOST_UNSHARED = 128  # variables


@dataclass(frozen=True, eq=False)
class PairClasses:
    """Of the kept variables, in their order: pair (n, n) and site (n,) number classes; partitions (n,) number colours.

    keys: for each class what its pairs are, (channel, channel, displacement…), displacements in (−L/2, L/2]; () where
    pairs share nothing.
    """

    pair: np.ndarray
    site: np.ndarray
    partitions: tuple[np.ndarray, ...]
    keys: tuple[tuple[tuple[int, ...], ...], ...]
    cells: tuple[int, ...]
    group: str


def pair_classes(problem: Problem, kept: np.ndarray) -> PairClasses:
    """Classes for the variables where `kept` (D,) is 1; up to the point group if the expansion shows that it holds."""
    chart, places = problem.chart, np.flatnonzero(kept)
    if chart is None:
        raise ValueError("pair classes need a chart")
    if not _translates(problem):
        return _without_translations(problem, chart, places)
    channel, cell = grid_coordinates(chart)
    generators = point_group(problem.expansion, chart)
    pair, keys = _displacement_classes(
        chart.channels, chart.cells, channel[places], cell[places], closure(generators, len(chart.cells))
    )
    group = "translations" + (
        f" and a point group of {len(closure(generators, len(chart.cells)))}" if generators else ""
    )
    colour = _two_colours(_graph(problem.expansion, places))
    partitions = _stripes(channel[places], cell[places]) or (colour,)
    return PairClasses(pair, channel[places], partitions, keys, chart.cells, group)


def grid_coordinates(chart: Chart) -> tuple[np.ndarray, np.ndarray]:
    """Channel (D,) and cell (D, axes) of every variable."""
    cells = int(np.prod(chart.cells))
    channel, cell = np.empty(chart.size, int), np.empty((chart.size, len(chart.cells)), int)
    where = np.array(chart.grid)
    channel[where] = np.repeat(np.arange(chart.channels), cells)
    cell[where] = np.tile(np.stack(np.unravel_index(np.arange(cells), chart.cells), 1), (chart.channels, 1))
    return channel, cell


def embedding(old: PairClasses, new: PairClasses) -> np.ndarray:
    """Matrix (old classes, new classes) that carries weights to the same displacements of a larger lattice, else 0.

    A displacement of half a side on the small lattice stands for both ways round and is halved on each such axis.
    """
    where = {member: k for k, members in enumerate(new.keys) for member in members}
    matrix = np.zeros((len(old.keys), len(new.keys)))
    for k, members in enumerate(old.keys):
        for first, second, *steps in members:
            halves = [2 * abs(s) == side for s, side in zip(steps, old.cells, strict=True)]
            for image in itertools.product(*((s, -s) if half else (s,) for s, half in zip(steps, halves, strict=True))):
                if (first, second, *image) in where:
                    matrix[k, where[first, second, *image]] = 0.5 ** sum(halves)
    return matrix


Element = tuple[tuple[int, ...], tuple[int, ...]]  # axes permuted, signs


def point_group(expansion: Expansion, chart: Chart) -> tuple[Element, ...]:
    """Reflections of single axes and exchanges of neighbouring equal axes under which the expansion is unchanged.

    Acting on cells about cell 0, each channel to itself. Nothing is assumed of a model with opaque terms.
    """
    if expansion.opaque or not chart.cells:
        return ()
    channel, cell = grid_coordinates(chart)
    number = np.empty((chart.channels, *chart.cells), int)
    number[(channel, *cell.T)] = np.arange(chart.size)
    identity, before = tuple(range(len(chart.cells))), _canonical(expansion, np.arange(expansion.n))
    found = []
    for axes, signs in _candidates(chart):
        image = cell[:, axes] * np.array(signs) % np.array(chart.cells)
        moved = number[(channel, *image.T)]
        if (axes != identity or any(s < 0 for s in signs)) and _equal(before, _canonical(expansion, moved)):
            found.append((axes, signs))
    return tuple(found)


# --- private ----------------------------------------------------------------------------------------------------------


def _without_translations(problem: Problem, chart: Chart, places: np.ndarray) -> PairClasses:
    """Every pair its own class where that is affordable; on larger grids pairs share by displacement, sites do not."""
    n = len(places)
    colour, site = _two_colours(_graph(problem.expansion, places)), np.arange(n)
    if n <= _MOST_UNSHARED or not chart.cells:
        return PairClasses(np.arange(n * n).reshape(n, n), site, (colour,), (), (), "none")
    channel, cell = grid_coordinates(chart)
    identity: Element = (tuple(range(len(chart.cells))), (1,) * len(chart.cells))
    around = tuple(n if b == PERIODIC else 2 * n for n, b in zip(chart.cells, chart.boundary, strict=True))
    pair, _ = _displacement_classes(chart.channels, around, channel[places], cell[places], [identity])
    return PairClasses(pair, site, _stripes(channel[places], cell[places]) or (colour,), (), (), "none")


def _translates(problem: Problem) -> bool:
    chart = problem.chart
    if chart is None or not chart.cells or any(b != PERIODIC for b in chart.boundary):
        return False
    axes = {a for s in problem.symmetries if s.kind == "translation" for a in s.axes}
    return axes == set(range(len(chart.cells)))


def _candidates(chart: Chart) -> list[Element]:
    d = len(chart.cells)
    flips = [(tuple(range(d)), tuple(-1 if a == b else 1 for b in range(d))) for a in range(d)]
    swaps = []
    for a in range(d - 1):
        if chart.cells[a] == chart.cells[a + 1]:
            axes = list(range(d))
            axes[a], axes[a + 1] = a + 1, a
            swaps.append((tuple(axes), (1,) * d))
    # a lattice with skew axes (triangular) has inversion where it has no single reflection
    return [*flips, *swaps, (tuple(range(d)), (-1,) * d)]


def closure(generators: tuple[Element, ...], d: int) -> list[Element]:
    identity: Element = (tuple(range(d)), (1,) * d)
    group, frontier = {identity}, [identity]
    while frontier:
        axes, signs = frontier.pop()
        for more, turned in generators:
            new = tuple(axes[m] for m in more), tuple(signs[m] * t for m, t in zip(more, turned, strict=True))
            if new not in group:
                group.add(new)
                frontier.append(new)
    return sorted(group)


def _displacement_classes(
    channels: int, cells: tuple[int, ...], channel: np.ndarray, cell: np.ndarray, group: list[Element]
) -> tuple[np.ndarray, tuple[tuple[tuple[int, ...], ...], ...]]:
    """Pairs (target, source) by channels and displacement up to the group, and the members of each class."""
    sides = np.array(cells)
    codes = np.arange(int(np.prod(sides)))
    steps = np.stack(np.unravel_index(codes, cells), 1)
    images = []
    for axes, signs in group:
        image = steps[:, axes] * np.array(signs) % sides
        images.append(np.ravel_multi_index(tuple(image.T), cells))
    lowest = np.min(images, axis=0)
    moved = (cell[None] - cell[:, None]) % sides
    orbit = lowest[np.ravel_multi_index(tuple(np.moveaxis(moved, -1, 0)), cells)]
    code = (channel[:, None] * channels + channel[None]) * len(codes) + orbit
    values, pair = np.unique(code, return_inverse=True)
    signed = (steps + (sides - 1) // 2) % sides - (sides - 1) // 2  # into (−L/2, L/2]
    members = {int(v): tuple(map(tuple, signed[lowest == v].tolist())) for v in np.unique(lowest)}
    keys = []
    for value in values.tolist():
        both, place = divmod(value, len(codes))
        keys.append(tuple((*divmod(both, channels), *m) for m in members[place]))
    return pair.reshape(code.shape), tuple(keys)


def _canonical(expansion: Expansion, moved: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """All monomials with variable v renamed moved[v]: by order, sorted rows (variable, exponent, …) and values."""
    by_order: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for g in expansion.groups:
        scopes = moved[g.scopes]
        order = np.argsort(scopes, axis=1)
        exponents = np.array(g.exponents, int)[order]
        scopes, values = np.take_along_axis(scopes, order, 1), g.coefficients
        if np.iscomplexobj(values):  # a monomial and its conjugate have the same real part
            signs = np.where(exponents[:, 0] < 0, -1, 1)
            flips = signs < 0
            exponents, values = exponents * signs[:, None], np.where(flips, np.conj(values), values)
        rows = np.stack([scopes, exponents], -1).reshape(len(scopes), -1)
        by_order.setdefault(scopes.shape[1], []).append((rows, values))
    out = {}
    for k, parts in by_order.items():
        rows, place = np.unique(np.concatenate([r for r, _ in parts]), axis=0, return_inverse=True)
        total = np.zeros(len(rows), complex)
        np.add.at(total, place.reshape(-1), np.concatenate([v for _, v in parts]))
        out[k] = rows, total
    return out


def _equal(a: dict[int, tuple[np.ndarray, np.ndarray]], b: dict[int, tuple[np.ndarray, np.ndarray]]) -> bool:
    def same(x: tuple[np.ndarray, np.ndarray], y: tuple[np.ndarray, np.ndarray]) -> bool:
        return np.array_equal(x[0], y[0]) and bool(np.allclose(x[1], y[1], rtol=1e-9, atol=1e-12))

    return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)


def _stripes(channel: np.ndarray, cell: np.ndarray) -> tuple[np.ndarray, ...]:
    """Partitions in two halves by parities of sums of coordinates: checkerboard, then stripes along every axis.

    Where the sum of all coordinates has one parity, coordinates are those of that sublattice's own axes.
    """
    axes = cell.shape[1]
    odd = cell.sum(1) % 2
    if axes > 1 and np.all(odd == odd[0]):
        cell = cell - odd[0] * np.eye(axes, dtype=int)[0]
        cell = np.stack([cell[:, 0], *((cell[:, 0] + cell[:, a]) // 2 for a in range(1, axes))], 1)
        sums = [cell[:, 0], *(cell[:, a] for a in range(1, axes)), *(cell[:, 0] - cell[:, a] for a in range(1, axes))]
    else:
        sums = [cell.sum(1), *(cell[:, a] for a in range(axes))] if axes > 1 else [cell[:, 0], cell[:, 0] // 2]
    found = [(s + channel) % 2 for s in sums]
    return tuple(f for f in found if 0 < f.sum() < len(f))


def _graph(expansion: Expansion, places: np.ndarray) -> list[set[int]]:
    """Who interacts with whom among the kept, directly or through one that is not kept."""
    near: list[set[int]] = [set() for _ in range(expansion.n)]
    for g in expansion.groups:
        for a, b in itertools.permutations(range(g.scopes.shape[1]), 2):
            for i, j in g.scopes[:, [a, b]].tolist():
                near[i].add(j)
    position = {int(v): k for k, v in enumerate(places)}
    graph: list[set[int]] = []
    for v in places.tolist():
        reach = set(near[v]).union(*(near[w] for w in near[v] if w not in position))
        graph.append({position[w] for w in reach if w in position and w != v})
    return graph


def _two_colours(graph: list[set[int]]) -> np.ndarray:
    """Two colours, breadth first, each the one that fewer coloured neighbours have; proper where that is possible."""
    colour = np.full(len(graph), -1)
    for start in range(len(graph)):
        if colour[start] >= 0:
            continue
        queue = [start]
        while queue:
            v = queue.pop(0)
            if colour[v] >= 0:
                continue
            ones = sum(int(colour[w]) == 1 for w in graph[v])
            zeros = sum(int(colour[w]) == 0 for w in graph[v])
            colour[v] = int(zeros > ones) if zeros != ones else int(np.sum(colour == 1) < np.sum(colour == 0))
            queue += sorted(w for w in graph[v] if colour[w] < 0)
    if colour.max() == 0 and len(colour) > 1:
        colour[1::2] = 1
    return colour
