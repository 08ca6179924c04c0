"""The interaction graph: who interacts with whom, orders of elimination, and what an elimination would cost.

Eliminating a variable joins all its remaining neighbours, its *parents*: given them it is independent of all that is
eliminated later, which is what makes them the dependency set of its conditional (as in sparse Cholesky factorisation;
Lauritzen & Spiegelhalter 1988; George 1973 for nested dissection).
"""

from __future__ import annotations

import functools
import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vdsl.ir.factors import FactorGraph

Adjacency = list[set[int]]
GIVE_UP = 150.0
HOPELESS = 45.0  # log2 of table entries that no better order brings within reach


@dataclass(frozen=True)
class Symbolic:
    """An elimination without numbers.

    order: variables, first eliminated first. parents[v]: what v is joined to when it goes, those eliminated last
    first (the order of sampling). log2_tables[v]: log2 of the entries of the table over parents and v. complete: False
    if it was given up because a table passed 2^GIVE_UP entries; what came later is missing.
    """

    order: np.ndarray
    parents: tuple[np.ndarray, ...]
    log2_tables: np.ndarray
    complete: bool = True

    @property
    def width(self) -> int:
        """The largest number of parents: the width of this order, at least the treewidth."""
        return max((len(p) for p in self.parents), default=0)

    @property
    def log2_largest(self) -> float:
        """log2 of the entries of the largest table."""
        return float(self.log2_tables.max(initial=0.0))

    @property
    def log2_total(self) -> float:
        """log2 of the entries of all tables together."""
        if not len(self.log2_tables):
            return 0.0
        top = self.log2_tables.max()
        return float(top + np.log2(np.exp2(self.log2_tables - top).sum()))

    def levels(self) -> np.ndarray:
        """The depth of each variable when sampling backwards: equal levels are independent given all lower ones."""
        level = np.zeros(len(self.order), int)
        for v in self.order[::-1]:
            level[v] = 1 + max((level[u] for u in self.parents[v]), default=-1)
        return level


def adjacency(n: int, scopes: Sequence[np.ndarray]) -> Adjacency:
    """Neighbours of every variable: any two in one scope; `scopes` are arrays of shape (m, k)."""
    neighbours: Adjacency = [set() for _ in range(n)]
    for rows in scopes:
        for a, b in itertools.combinations(range(rows.shape[1]), 2):
            for u, v in zip(rows[:, a].tolist(), rows[:, b].tolist(), strict=True):
                neighbours[u].add(v)
                neighbours[v].add(u)
    return neighbours


def neighbours(graph: FactorGraph) -> Adjacency:
    """Neighbours of every variable of a factor graph."""
    return adjacency(graph.n, [g.scopes for g in graph.groups])


def eliminate_symbolically(
    adjacent: Adjacency, order: Sequence[int] | np.ndarray, cardinalities: np.ndarray, give_up: float = GIVE_UP
) -> Symbolic:
    """The parents of every variable under an order, along the elimination tree: time and memory of the fill alone.

    Stops at the first table of more than `give_up` log2 entries, and says that it is not complete.
    """
    order = np.asarray(order, int)
    position = np.empty(len(order), int)
    position[order] = np.arange(len(order))
    place = position.tolist()
    log2 = np.log2(np.asarray(cardinalities, float))
    waiting: list[list[set[int]]] = [[] for _ in order]  # scopes of messages, at the variable that takes them up
    parents: list[np.ndarray] = [np.zeros(0, int)] * len(order)
    sizes = np.zeros(len(order))
    for v in order.tolist():
        here = place[v]
        above = {u for u in adjacent[v] if place[u] > here}
        above.update(*waiting[v])
        above.discard(v)
        waiting[v] = []
        ordered = sorted(above, key=place.__getitem__, reverse=True)
        parents[v] = np.array(ordered, int)
        sizes[v] = log2[v] + log2[parents[v]].sum()
        if sizes[v] > give_up:
            return Symbolic(order, tuple(parents), sizes, complete=False)
        if ordered:
            waiting[ordered[-1]].append(above)
    return Symbolic(order, tuple(parents), sizes)


def best_order(
    adjacent: Adjacency,
    cardinalities: np.ndarray,
    coordinates: np.ndarray | None = None,
    budget: float = 0.0,
) -> Symbolic:
    """The cheapest elimination among several orders; stops at the first whose log2 of total entries is within `budget`.

    Tried: sweeps along the lattice's axes, minimum degree, nested dissection by coordinates and by breadth-first
    levels, and minimum fill where that is affordable.
    """
    best: Symbolic | None = None
    for make in _orders(adjacent, coordinates):
        hopeless = best is not None and best.log2_total > HOPELESS
        if hopeless and (make.func is minimum_fill or (len(adjacent) > 5000 and make.func is nested_dissection)):
            continue  # slow on wide graphs, and it would not save one
        found = eliminate_symbolically(adjacent, make(), cardinalities)
        if best is None or found.log2_total < best.log2_total:
            best = found
        if best.log2_total <= budget:
            break
    assert best is not None
    return best


def _orders(adjacent: Adjacency, coordinates: np.ndarray | None) -> Iterator[functools.partial[np.ndarray]]:
    n = len(adjacent)
    yield functools.partial(minimum_degree, adjacent)
    if coordinates is not None and n:
        for axes in itertools.islice(itertools.permutations(range(coordinates.shape[1])), 6):
            yield functools.partial(_sweep, coordinates, axes)
        yield functools.partial(nested_dissection, adjacent, coordinates)
    yield functools.partial(nested_dissection, adjacent)
    if sum(map(len, adjacent)) * (max(map(len, adjacent), default=0) + 1) <= 20_000:
        yield functools.partial(minimum_fill, adjacent)


def _sweep(coordinates: np.ndarray, axes: Sequence[int]) -> np.ndarray:
    return np.lexsort([coordinates[:, a] for a in reversed(axes)])


def minimum_degree(adjacent: Adjacency, most_work: int = 10_000_000) -> np.ndarray:
    """Repeatedly the variable with the fewest remaining neighbours; of equals, the one that was touched longest ago.

    After `most_work` set operations the rest follows in any order: such graphs are too wide for any use of it.
    """
    work = 0
    joined = [set(s) for s in adjacent]
    heap = [(len(s), 0, v) for v, s in enumerate(joined)]
    current = [(len(s), 0) for s in joined]
    heapq.heapify(heap)
    done = [False] * len(joined)
    order: list[int] = []
    while heap:
        degree, stamp, v = heapq.heappop(heap)
        if done[v] or current[v] != (degree, stamp):
            continue
        done[v] = True
        order.append(v)
        around = joined[v]
        work += len(around) ** 2
        if work > most_work:
            return np.array(order + [u for u, gone in enumerate(done) if not gone], int)
        for u in around:
            joined[u] |= around
            joined[u] -= {u, v}
            current[u] = (len(joined[u]), len(order))
            heapq.heappush(heap, (*current[u], u))
    return np.array(order, int)


def minimum_fill(adjacent: Adjacency) -> np.ndarray:
    """Repeatedly the variable whose elimination joins the fewest new pairs (of equals, of the fewest neighbours)."""
    joined = [set(s) for s in adjacent]

    def fill(v: int) -> tuple[int, int]:
        around = joined[v]
        return sum(len(around) - 1 - len(around & joined[u]) for u in around), len(around)

    current = [fill(v) for v in range(len(joined))]
    heap = [(*current[v], v) for v in range(len(joined))]
    heapq.heapify(heap)
    done = [False] * len(joined)
    order: list[int] = []
    while heap:
        a, b, v = heapq.heappop(heap)
        if done[v] or current[v] != (a, b):
            continue
        done[v] = True
        order.append(v)
        around = joined[v]
        for u in around:
            joined[u] |= around
            joined[u] -= {u, v}
        touched = set(around)
        if a:  # new pairs change the fill of whoever neighbours both ends
            touched.update(*(joined[u] for u in around))
        for u in touched:
            updated = fill(u)
            if updated != current[u]:
                current[u] = updated
                heapq.heappush(heap, (*updated, u))
    return np.array(order, int)


def nested_dissection(adjacent: Adjacency, coordinates: np.ndarray | None = None, leaf: int = 6) -> np.ndarray:
    """Separators last: halves are cut along an axis of the lattice, or between breadth-first levels.

    A cut in two halves by a coordinate severs a torus at its seam as well, so the separator (the vertices of one half
    that touch the other) needs no knowledge of boundaries.
    """
    order: list[int] = []
    stack: list[tuple[str, list[int]]] = [("part", list(range(len(adjacent))))]
    while stack:  # depth first; separators are emitted after both of their halves
        kind, members = stack.pop()
        if kind == "emit" or len(members) <= leaf:
            order += _inner_order(adjacent, members)
            continue
        a, b, separator = _best_cut(adjacent, members, coordinates)
        if not (a or b):
            order += _inner_order(adjacent, members)
            continue
        stack.append(("emit", separator))
        stack += [("part", part) for part in (a, b) if part]
    return np.array(order, int)


def _inner_order(adjacent: Adjacency, members: list[int]) -> list[int]:
    index = {v: k for k, v in enumerate(members)}
    inside = [{index[u] for u in adjacent[v] if u in index} for v in members]
    return [members[k] for k in minimum_degree(inside)]


def _best_cut(
    adjacent: Adjacency, members: list[int], coordinates: np.ndarray | None
) -> tuple[list[int], list[int], list[int]]:
    """(one half, the other half, separator): the smallest separator among a few cuts in two halves."""
    inside = set(members)
    rankings = []
    if coordinates is not None:
        local = coordinates[members]
        for axis in range(coordinates.shape[1]):
            if np.ptp(local[:, axis]):
                rankings.append(local[:, axis])
    if not rankings:
        level = _breadth_first(adjacent, inside, members[0])
        level = _breadth_first(adjacent, inside, max(level, key=lambda v: (level[v], v)))
        if len(level) < len(members):
            return list(level), [v for v in members if v not in level], []
        rankings.append(np.array([level[v] for v in members]))
    best: tuple[int, list[int], list[int], list[int]] | None = None
    for ranks in rankings:
        middle = np.median(ranks)
        for low in (ranks < middle, ranks <= middle):
            if not 0 < low.sum() < len(members):
                continue
            left = {v for v, yes in zip(members, low.tolist(), strict=True) if yes}
            for side in (left, inside - left):
                other = inside - side
                separator = [v for v in side if not adjacent[v].isdisjoint(other)]
                rest = [v for v in side if adjacent[v].isdisjoint(other)]
                weight = len(separator) + abs(len(rest) - len(other)) // 4
                if best is None or weight < best[0]:
                    best = (weight, sorted(rest), sorted(other), sorted(separator))
    if best is None or (not best[3] and not (best[1] and best[2])):
        return [], [], members
    return best[1:]


def _breadth_first(adjacent: Adjacency, inside: set[int], start: int) -> dict[int, int]:
    """The distance from `start` of everything that it reaches inside a set."""
    level, frontier = {start: 0}, [start]
    while frontier:
        following = []
        for v in frontier:
            for u in adjacent[v]:
                if u in inside and u not in level:
                    level[u] = level[v] + 1
                    following.append(u)
        frontier = following
    return level
