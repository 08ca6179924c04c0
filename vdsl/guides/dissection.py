"""Dissection: which variables a guide must learn, and which it can sum out exactly.

A set of variables, the *skeleton*, is chosen so that the rest falls apart into *blocks* that a sweep can sum exactly:
within a block, ordered along the sweep, no variable interacts with one more than `width` places back, so that a table
over the last `width` variables is all a transfer matrix needs to remember. This is a w-cutset (Bidyuk & Dechter 2007,
"Cutset sampling for Bayesian networks", JAIR 28). The skeleton is then ordered by the elimination of the graph that the
blocks leave behind: the variables that one is still joined to when it is eliminated are exactly the ones its
conditional can depend on, and variables of the same depth are conditionally independent.

Pure NumPy; nothing here knows about energies, only who interacts with whom.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vdsl.ir.graph import Adjacency, Symbolic, adjacency, eliminate_symbolically, minimum_degree, nested_dissection


@dataclass(frozen=True)
class Interactions:
    """Who interacts with whom: `n` variables, `edges` (m, 2) with i < j, each once; `coordinates` (n, d) or None.

    `coordinates` are integer cell coordinates on a lattice, used only to propose straight cuts.
    """

    n: int
    edges: np.ndarray
    coordinates: np.ndarray | None = None


@dataclass(frozen=True)
class Dissection:
    """The result: skeleton variables in sampling order with their parents, and blocks in sweep order.

    parents[k] lists the skeleton *positions* (all < k) that the k-th skeleton variable's conditional may depend on.
    level[k] is its depth: variables of equal level are independent given all lower levels.
    """

    skeleton: np.ndarray
    parents: tuple[np.ndarray, ...]
    level: np.ndarray
    blocks: tuple[np.ndarray, ...]
    width: int

    @property
    def depth(self) -> int:
        """How many parallel sampling steps the skeleton takes."""
        return int(self.level.max()) + 1 if len(self.level) else 0


def dissect(graph: Interactions, max_width: int) -> Dissection:
    """The smallest skeleton found that leaves blocks of sweep width at most `max_width`."""
    skeleton, blocks = _choose_cut(graph, max_width)
    width = max((_bandwidth(graph, b) for b in blocks), default=0)
    ordered, parents, level = order_skeleton(graph, skeleton, blocks)
    return Dissection(ordered, parents, level, tuple(blocks), width)


# --- the cut ---------------------------------------------------------------------------------------------------------


def _choose_cut(graph: Interactions, max_width: int) -> tuple[np.ndarray, list[np.ndarray]]:
    whole = _blocks_without(graph, np.zeros(graph.n, bool), max_width)
    if whole is not None:
        return np.zeros(0, int), whole
    straight = None if graph.coordinates is None else _straight_cuts(graph, graph.coordinates, max_width)
    greedy = _greedy_cut(graph, max_width)
    return straight if straight and len(straight[0]) <= len(greedy[0]) else greedy


def _straight_cuts(graph: Interactions, x: np.ndarray, max_width: int) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """Evenly spaced layers along each axis; the design with the fewest cut variables whose blocks are narrow enough."""
    lengths = x.max(0) + 1
    designs = []
    for counts in itertools.product(*[range(min(length, 40) // 2 + 1) for length in lengths]):
        if any(counts):
            cut = _layers(x, lengths, counts)
            designs.append((int(cut.sum()), counts, cut))
    designs.sort(key=lambda d: d[:2])
    for size, _, cut in designs:
        if size > 0.8 * graph.n:
            return None
        blocks = _blocks_without(graph, cut, max_width)
        if blocks is not None:
            return np.flatnonzero(cut), blocks
    return None


def _layers(x: np.ndarray, lengths: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    cut = np.zeros(len(x), bool)
    for axis, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        positions = np.round(np.arange(count) * length / max(count, 1)).astype(int)
        cut |= np.isin(x[:, axis], positions)
    return cut


def _blocks_without(graph: Interactions, cut: np.ndarray, max_width: int) -> list[np.ndarray] | None:
    """The components of the graph without the cut, each in sweep order; None if one is too wide."""
    kept = np.flatnonzero(~cut)
    if len(kept) == 0:
        return []
    inside = graph.edges[~cut[graph.edges].any(1)]
    label = _components(graph.n, inside)
    blocks = []
    order = np.argsort(label[kept], kind="stable")
    groups = np.split(kept[order], np.flatnonzero(np.diff(label[kept][order])) + 1)
    edge_label = label[inside[:, 0]] if len(inside) else np.zeros(0, int)
    edge_order = np.argsort(edge_label, kind="stable")
    sorted_edges, sorted_label = inside[edge_order], edge_label[edge_order]
    for members in groups:
        low, high = np.searchsorted(sorted_label, [label[members[0]], label[members[0]] + 1])
        swept = _sweep_order(graph, members, sorted_edges[low:high], max_width)
        if swept is None:
            return None
        blocks.append(swept)
    return blocks


def _sweep_order(graph: Interactions, members: np.ndarray, edges: np.ndarray, max_width: int) -> np.ndarray | None:
    """An order of a block in which no edge spans more than max_width places; None if none of the tries does."""
    if len(members) == 1:
        return members
    local = np.searchsorted(members, edges)
    best, best_width = None, max_width + 1
    for order in _sweeps(graph, members, local):
        rank = np.empty(len(members), int)
        rank[order] = np.arange(len(members))
        width = int(np.abs(rank[local[:, 0]] - rank[local[:, 1]]).max()) if len(local) else 0
        if width < best_width:
            best, best_width = members[order], width
    return best


def _sweeps(graph: Interactions, members: np.ndarray, local: np.ndarray) -> Iterator[np.ndarray]:
    if graph.coordinates is not None:
        x = graph.coordinates[members]
        # Unwrap each axis at its largest gap, so that a block that crosses the seam of a torus stays in one piece.
        y = np.stack([_unwrap(x[:, a], int(graph.coordinates[:, a].max()) + 1) for a in range(x.shape[1])], 1)
        spans = y.max(0)
        first = np.argsort(-spans, kind="stable")
        for axes in itertools.permutations(first) if len(first) <= 3 else [tuple(first)]:
            yield np.lexsort([y[:, a] for a in reversed(axes)])
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import reverse_cuthill_mckee

    n = len(members)
    both = np.concatenate([local, local[:, ::-1]])
    matrix = csr_array((np.ones(len(both), np.int8), (both[:, 0], both[:, 1])), shape=(n, n))
    yield np.asarray(reverse_cuthill_mckee(matrix, symmetric_mode=True))


def _unwrap(x: np.ndarray, length: int) -> np.ndarray:
    present = np.unique(x)
    gaps = np.diff(np.append(present, present[0] + length))
    # Of equal gaps the last, at the seam: a block that spans an open axis must not be cut in its middle.
    start = present[(len(gaps) - int(np.argmax(gaps[::-1]))) % len(present)]
    return (x - start) % length


def _bandwidth(graph: Interactions, block: np.ndarray) -> int:
    rank = np.full(graph.n, -1)
    rank[block] = np.arange(len(block))
    inside = rank[graph.edges]
    inside = inside[(inside >= 0).all(1)]
    return int(np.abs(inside[:, 0] - inside[:, 1]).max()) if len(inside) else 0


def _greedy_cut(graph: Interactions, max_width: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """For graphs without geometry: cut small breadth-first levels, or the busiest vertices where there are none."""
    cut = np.zeros(graph.n, bool)
    blocks: list[np.ndarray] = []
    stack = [np.arange(graph.n)]
    neighbours = adjacency(graph.n, [graph.edges])
    while stack:
        members = stack.pop()
        outside = np.ones(graph.n, bool)
        outside[members] = False
        found = _blocks_without(graph, outside, max_width)
        if found is not None:
            blocks += found
            continue
        inside = graph.edges[~outside[graph.edges].any(1)]
        label = _components(graph.n, inside)
        parts = [members[label[members] == k] for k in np.unique(label[members])]
        if len(parts) > 1:
            stack += parts
            continue
        removed = _separator(neighbours, members)
        cut[removed] = True
        rest = np.setdiff1d(members, removed)
        if len(rest):
            stack.append(rest)
    return np.flatnonzero(cut), blocks


def _separator(neighbours: Adjacency, members: np.ndarray) -> np.ndarray:
    inside = set(members.tolist())
    levels = _levels(neighbours, inside, int(members[0]))
    levels = _levels(neighbours, inside, levels[-1][0])
    sizes = np.array([len(level) for level in levels])
    below = np.cumsum(sizes)
    middle = [
        k for k in range(len(levels)) if 0.25 * len(members) <= below[k] and below[k] - sizes[k] <= 0.75 * len(members)
    ]
    best = min(middle, key=lambda k: sizes[k])
    if sizes[best] <= 0.15 * len(members):
        return np.array(sorted(levels[best]))
    degree = {v: sum(1 for u in neighbours[v] if u in inside) for v in inside}
    busiest = sorted(inside, key=lambda v: (-degree[v], v))
    # Dense graphs lose their busiest vertices a few at a time: one by one would cost a full pass for each.
    return np.array(busiest[: max(1, len(members) // 40)])


def _levels(neighbours: Adjacency, inside: set[int], start: int) -> list[list[int]]:
    seen, level, levels = {start}, [start], []
    while level:
        levels.append(level)
        following = []
        for v in level:
            for u in sorted(neighbours[v]):
                if u in inside and u not in seen:
                    seen.add(u)
                    following.append(u)
        level = following
    return levels


# --- the order of the skeleton ---------------------------------------------------------------------------------------


def order_skeleton(
    graph: Interactions, skeleton: np.ndarray, blocks: Sequence[np.ndarray], first: Sequence[int] = ()
) -> tuple[np.ndarray, tuple[np.ndarray, ...], np.ndarray]:
    """Sampling order, parents (as positions in that order) and levels of the skeleton; `first`: to be drawn first.

    Summing a block out joins all the skeleton variables around it; the skeleton's own are then eliminated in what
    remains, and sampling runs backwards.
    """
    n = len(skeleton)
    if n == 0:
        return skeleton, (), np.zeros(0, int)
    position = np.full(graph.n, -1)
    position[skeleton] = np.arange(n)
    owner = np.full(graph.n, -1)
    for k, block in enumerate(blocks):
        owner[block] = k
    neighbours: Adjacency = [set() for _ in range(n)]
    touching: list[set[int]] = [set() for _ in blocks]
    for i, j in graph.edges.tolist():
        a, b = position[i], position[j]
        if a >= 0 and b >= 0:
            neighbours[a].add(int(b))
            neighbours[b].add(int(a))
        elif a >= 0:
            touching[owner[j]].add(int(a))
        elif b >= 0:
            touching[owner[i]].add(int(b))
    for around in touching:
        for a in around:
            neighbours[a] |= around - {a}
    found = _cheapest(neighbours)
    if len(first):
        last = position[np.asarray(first, int)][::-1]
        reordered = np.concatenate([found.order[~np.isin(found.order, last)], last])
        found = eliminate_symbolically(neighbours, reordered, np.full(n, 2), np.inf)
    order = found.order[::-1]
    place = np.empty(n, int)
    place[order] = np.arange(n)
    parents = tuple(np.sort(place[found.parents[v]]) for v in order)
    return skeleton[order], parents, found.levels()[order]


def _cheapest(neighbours: Adjacency) -> Symbolic:
    """The elimination of least depth among those that are within a tenth of the fewest parents."""
    two = np.full(len(neighbours), 2)
    tried = [
        eliminate_symbolically(neighbours, order(neighbours), two, np.inf)
        for order in (minimum_degree, nested_dissection)
    ]
    totals = [sum(map(len, t.parents)) for t in tried]
    return min(
        (t for t, total in zip(tried, totals, strict=True) if total <= 1.1 * min(totals)),
        key=lambda t: int(t.levels().max()),
    )


# --- small graph tools -----------------------------------------------------------------------------------------------


def _components(n: int, edges: np.ndarray) -> np.ndarray:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    matrix = csr_array((np.ones(len(edges), np.int8), (edges[:, 0], edges[:, 1])), shape=(n, n))
    return np.asarray(connected_components(matrix, directed=False)[1])
