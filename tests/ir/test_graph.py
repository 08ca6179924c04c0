"""Elimination orders: permutations, parents against a dense fill, widths that are known."""

from __future__ import annotations

import time

import numpy as np
import pytest

from vdsl.ir.graph import (
    Adjacency,
    adjacency,
    best_order,
    eliminate_symbolically,
    minimum_degree,
    minimum_fill,
    nested_dissection,
)
from vdsl.ir.lattice import Lattice, complete_graph, named_lattice

ORDERS = {"degree": minimum_degree, "fill": minimum_fill, "dissection": nested_dissection}


def of_lattice(lattice: Lattice) -> Adjacency:
    bonds = lattice.bonds("nn")
    rows = np.stack([bonds.i, bonds.j], 1)
    return adjacency(lattice.n_sites, [rows[rows[:, 0] != rows[:, 1]]])


def cells(lattice: Lattice) -> np.ndarray:
    every = np.stack(np.unravel_index(np.arange(lattice.n_cells), lattice.shape), 1)
    return np.repeat(every, lattice.n_basis, axis=0)


def torus(*shape: int, kind: str = "square", boundary: str = "periodic") -> Lattice:
    return named_lattice(kind, shape, (boundary,) * len(shape))


def random_graph(n: int, p: float, seed: int) -> Adjacency:
    i, j = np.triu_indices(n, 1)
    keep = np.random.default_rng(seed).random(len(i)) < p
    return adjacency(n, [np.stack([i[keep], j[keep]], 1)])


def fill_by_definition(adjacent: Adjacency, order: np.ndarray) -> list[set[int]]:
    """What each variable is joined to when it goes, by adding every fill edge to a dense matrix."""
    n = len(adjacent)
    joined = np.zeros((n, n), bool)
    for v, around in enumerate(adjacent):
        joined[v, list(around)] = True
    parents: list[set[int]] = [set() for _ in range(n)]
    alive = np.ones(n, bool)
    for v in order:
        alive[v] = False
        around = np.flatnonzero(joined[v] & alive)
        parents[v] = set(around.tolist())
        joined[np.ix_(around, around)] = True
    return parents


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("seed", range(5))
def test_parents_are_the_fill(name: str, seed: int):
    adjacent = random_graph(30, 0.12, seed)
    order = ORDERS[name](adjacent)
    assert sorted(order.tolist()) == list(range(30))
    symbolic = eliminate_symbolically(adjacent, order, np.full(30, 2))
    expected = fill_by_definition(adjacent, order)
    assert [set(p.tolist()) for p in symbolic.parents] == expected
    assert symbolic.width == max(map(len, expected))
    assert symbolic.log2_tables.tolist() == [1.0 + len(p) for p in expected]


def test_minimum_fill_is_greedy_by_definition():
    adjacent = random_graph(25, 0.2, 3)
    order = minimum_fill(adjacent)
    joined = [set(s) for s in adjacent]
    alive = set(range(25))
    for v in order.tolist():

        def fill(u: int) -> int:
            return sum(b not in joined[a] for a in joined[u] for b in joined[u] if a < b)

        assert fill(v) == min(fill(u) for u in alive)
        for u in joined[v]:
            joined[u] |= joined[v]
            joined[u] -= {u, v}
        alive.discard(v)


def test_parents_stand_in_sampling_order():
    lattice = torus(5, 5)
    symbolic = best_order(of_lattice(lattice), np.full(25, 2), cells(lattice))
    position = np.argsort(symbolic.order)
    for v, above in enumerate(symbolic.parents):
        assert (np.diff(position[above]) < 0).all()
        assert (position[above] > position[v]).all()


@pytest.mark.parametrize(
    ("lattice", "width"),
    [
        (torus(40, kind="chain", boundary="open"), 1),
        (torus(40, kind="chain"), 2),
        (complete_graph(9), 8),
        (torus(4, 4, boundary="open"), 4),
        (torus(10, 3, boundary="open"), 3),
    ],
)
def test_known_treewidths(lattice: Lattice, width: int):
    coordinates = None if lattice.is_graph else cells(lattice)
    assert best_order(of_lattice(lattice), np.full(lattice.n_sites, 2), coordinates).width == width


@pytest.mark.parametrize("shape", [(12, 3), (8, 8), (3, 3, 3)])
def test_the_best_order_is_no_dearer_than_a_sweep(shape: tuple[int, ...]):
    lattice = torus(*shape, kind="hypercubic")
    adjacent, states = of_lattice(lattice), np.full(lattice.n_sites, 3)
    sweep = eliminate_symbolically(adjacent, np.arange(lattice.n_sites), states)
    assert best_order(adjacent, states, cells(lattice)).log2_total <= sweep.log2_total


def test_trees_have_width_one_under_any_greedy_order():
    edges = np.array([[k, (k - 1) // 2] for k in range(1, 200)])
    adjacent = adjacency(200, [edges])
    for order in (minimum_degree, minimum_fill):
        assert eliminate_symbolically(adjacent, order(adjacent), np.full(200, 2)).width == 1


def test_costs_count_states():
    symbolic = eliminate_symbolically([{1}, {0, 2}, {1}], [0, 1, 2], np.array([2, 3, 5]))
    np.testing.assert_allclose(2**symbolic.log2_tables, [6, 15, 5])
    assert 2**symbolic.log2_total == pytest.approx(26)
    assert 2**symbolic.log2_largest == pytest.approx(15)
    assert symbolic.levels().tolist() == [2, 1, 0]


def test_disconnected_graphs():
    adjacent = adjacency(7, [np.array([[0, 1], [2, 3], [3, 4]])])
    for make in ORDERS.values():
        symbolic = eliminate_symbolically(adjacent, make(adjacent), np.full(7, 2))
        assert symbolic.width == 1


def test_thousands_of_variables_take_seconds():
    lattice = torus(48, 48)
    start = time.process_time()
    symbolic = best_order(of_lattice(lattice), np.full(lattice.n_sites, 2), cells(lattice))
    assert time.process_time() - start < 5
    assert symbolic.width <= 2 * 48
