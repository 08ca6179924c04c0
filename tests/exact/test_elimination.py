"""Elimination against enumeration, and the published numbers for frustrated and disordered models."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vdsl.errors import VfeError
from vdsl.exact.batch import every_configuration
from vdsl.exact.cost import elimination_cost
from vdsl.exact.elimination import conditional_tables, draw, log_partition, log_probability, moments, plan
from vdsl.ir.factors import FactorGraph, FactorGroup, LocalSum
from vdsl.ir.lattice import Lattice, complete_graph, named_lattice

SPINS = np.array([-1.0, 1.0])


def pairs(n: int, q: int, i: np.ndarray, j: np.ndarray, tables: np.ndarray) -> FactorGraph:
    """A model of pair energies alone."""
    rows = np.stack([np.minimum(i, j), np.maximum(i, j)], 1)
    return FactorGraph(np.full(n, q), (("s", 0, n),), (FactorGroup("pair", rows, tables),), 0.0)


def spin_glass(lattice: Lattice, couplings: np.ndarray | float) -> FactorGraph:
    bonds = lattice.bonds("nn")
    j = np.broadcast_to(couplings, (len(bonds),))
    return pairs(lattice.n_sites, 2, bonds.i, bonds.j, -np.multiply.outer(j, np.outer(SPINS, SPINS)))


def lattice(kind: str, *shape: int, boundary: str = "periodic") -> Lattice:
    return named_lattice(kind, shape, (boundary,) * len(shape))


def sherrington_kirkpatrick() -> FactorGraph:
    j = np.triu(np.random.default_rng(0).standard_normal((20, 20)) / np.sqrt(20), 1)
    return spin_glass(complete_graph(20), j[np.triu_indices(20, 1)])


def edwards_anderson() -> FactorGraph:
    j = np.random.RandomState(1).uniform(0, 2, (10, 10, 2)) - 1
    site = np.arange(100).reshape(10, 10)
    i = np.concatenate([site[:-1].ravel(), site[:, :-1].ravel()])
    k = np.concatenate([site[1:].ravel(), site[:, 1:].ravel()])
    couplings = np.concatenate([j[:-1, :, 0].ravel(), j[:, :-1, 1].ravel()])
    return pairs(100, 2, i, k, -np.multiply.outer(couplings, np.outer(SPINS, SPINS)))


def mixed(seed: int) -> FactorGraph:
    """Random factors of one to three of eight variables with two to four states, a constant, and a forbidden state."""
    rng = np.random.default_rng(seed)
    q = rng.integers(2, 5, 8)
    groups = []
    for k in (1, 2, 2, 3, 3):
        scope = np.sort(rng.choice(8, k, replace=False))
        groups.append(FactorGroup("t", scope[None], rng.normal(size=(1, *q[scope]))))
    groups[1].tables[0].flat[0] = np.inf
    return FactorGraph(q, (("s", 0, 8),), tuple(groups), 0.75)


def enumerate_all(graph: FactorGraph) -> np.ndarray:
    return np.concatenate(list(every_configuration(graph)))


@pytest.mark.parametrize("seed", range(6))
def test_everything_agrees_with_enumeration(seed: int):
    graph, t = mixed(seed), 0.8
    states = enumerate_all(graph)
    energy = graph.energy(states)
    log_weights = -energy / t
    ln_z = float(np.logaddexp.reduce(log_weights))
    p = np.exp(log_weights - ln_z)
    rng = np.random.default_rng(seed + 100)
    observable = LocalSum(
        0.3,
        tuple(
            FactorGroup("", np.array([[a, b]]), rng.normal(size=(1, graph.cardinalities[a], graph.cardinalities[b])))
            for a, b in ((0, 1), (2, 7), (3, 4))
        ),
    )
    finite = np.where(np.isfinite(energy), energy, 0.0)
    columns = [finite, observable.evaluate(states)]
    found = moments(graph, t, [LocalSum(graph.constant, graph.groups), observable], [(0, 0), (0, 1), (1, 1)])
    assert found.ln_z == pytest.approx(ln_z, abs=1e-12)
    assert found.means == pytest.approx([p @ c for c in columns], abs=1e-12)
    for (a, b), value in found.covariances.items():
        assert value == pytest.approx(p @ (columns[a] * columns[b]) - (p @ columns[a]) * (p @ columns[b]), abs=1e-11)
    tables = conditional_tables(graph, t)
    np.testing.assert_allclose(np.exp(log_probability(tables, states)), p, atol=1e-14)
    for v, table in enumerate(tables.log_tables):
        assert table.shape == (*graph.cardinalities[tables.parents[v]], graph.cardinalities[v])
        np.testing.assert_allclose(np.exp(table).sum(-1), 1.0, rtol=1e-13)


def test_any_order_gives_the_same():
    graph = mixed(1)
    rng = np.random.default_rng(0)
    for _ in range(5):
        assert log_partition(graph, 1.3, rng.permutation(8)) == pytest.approx(log_partition(graph, 1.3), abs=1e-12)


def test_samples_follow_the_distribution():
    graph, t, n = mixed(2), 0.8, 40_000
    states = enumerate_all(graph)
    log_p = -graph.energy(states) / t
    p = np.exp(log_p - np.logaddexp.reduce(log_p))
    drawn = draw(conditional_tables(graph, t), n, np.random.default_rng(3))
    counts = np.bincount(np.ravel_multi_index(drawn.T, graph.cardinalities), minlength=len(p))
    assert counts[p == 0].sum() == 0
    likely = p * n > 10
    chi2 = float(((counts - n * p)[likely] ** 2 / (n * p)[likely]).sum())
    assert abs(chi2 - likely.sum()) < 5 * math.sqrt(2 * likely.sum())


def test_unreachable_rows_are_uniform():
    tables = np.array([[[np.inf, np.inf], [0.0, 1.0]]])
    graph = FactorGraph(np.array([2, 2]), (("s", 0, 2),), (FactorGroup("t", np.array([[0, 1]]), tables),), 0.0)
    found = conditional_tables(graph, 1.0, np.array([1, 0]))
    np.testing.assert_allclose(np.exp(found.log_tables[1][0]), [0.5, 0.5])
    assert found.log_tables[0][0] == -np.inf
    assert found.ln_z == pytest.approx(math.log(1 + math.exp(-1)))


@pytest.mark.parametrize(("beta", "per_site"), [(0.5, 0.75822334), (1, 0.94075453), (2, 1.49628574), (5, 3.45268323)])
def test_sherrington_kirkpatrick(beta: float, per_site: float):
    assert log_partition(sherrington_kirkpatrick(), 1 / beta) / 20 == pytest.approx(per_site, abs=6e-9)


@pytest.mark.parametrize(("beta", "per_site"), [(1, 1.00245673), (2, 1.66341145), (5, 3.95807603)])
def test_edwards_anderson(beta: float, per_site: float):
    assert log_partition(edwards_anderson(), 1 / beta) / 100 == pytest.approx(per_site, abs=6e-9)


@pytest.mark.parametrize(
    ("graph", "n", "ground"), [(sherrington_kirkpatrick(), 20, -0.67305069), (edwards_anderson(), 100, -0.78650402)]
)
def test_ground_states_at_low_temperature(graph: FactorGraph, n: int, ground: float):
    found = moments(graph, 1e-3, [LocalSum(graph.constant, graph.groups)], [(0, 0)])
    assert found.means[0] / n == pytest.approx(ground, abs=6e-9)


@pytest.mark.parametrize(("length", "degeneracy"), [(4, 42), (6, 263640)])
def test_triangular_antiferromagnet_degeneracy(length: int, degeneracy: int):
    graph = spin_glass(lattice("triangular", length, length), -1.0)
    t = 0.02
    ln_z = log_partition(graph, t)
    assert math.exp(ln_z - length**2 / t) == pytest.approx(degeneracy, rel=1e-9)


def test_triangular_antiferromagnet_free_energy():
    graph = spin_glass(lattice("triangular", 4, 4), -1.0)
    assert -log_partition(graph, 1.0) / 16 == pytest.approx(-1.2896640454, abs=6e-11)


@pytest.mark.parametrize(("length", "ln_z"), [(3, 19.688939731847), (4, 34.172608137824), (6, 75.571951800165)])
def test_potts_torus(length: int, ln_z: float):
    bonds = lattice("square", length, length).bonds("nn")
    graph = pairs(length**2, 3, bonds.i, bonds.j, np.broadcast_to(-np.eye(3), (len(bonds), 3, 3)))
    assert log_partition(graph, 1 / math.log(1 + math.sqrt(3))) == pytest.approx(ln_z, abs=2e-12 * ln_z)


def test_rings():
    n, k, h = 7, 0.9, 0.4
    bonds = lattice("chain", n).bonds("nn")
    ising = spin_glass(lattice("chain", n), k)
    field = FactorGroup("h", np.arange(n)[:, None], np.broadcast_to(-h * SPINS, (n, 2)))
    in_field = FactorGraph(ising.cardinalities, ising.fields, (*ising.groups, field), 0.0)
    root = math.sqrt(math.exp(2 * k) * math.sinh(h) ** 2 + math.exp(-2 * k))
    both = [math.exp(k) * math.cosh(h) + sign * root for sign in (1, -1)]
    assert log_partition(in_field, 1.0) == pytest.approx(math.log(sum(x**n for x in both)), abs=1e-13)
    for q in (2, 3, 5):
        potts = pairs(n, q, bonds.i, bonds.j, np.broadcast_to(-k * np.eye(q), (n, q, q)))
        expected = (math.exp(k) + q - 1) ** n + (q - 1) * (math.exp(k) - 1) ** n
        assert log_partition(potts, 1.0) == pytest.approx(math.log(expected), abs=1e-13)
        angle = 2 * np.pi * np.arange(q) / q
        clock = pairs(n, q, bonds.i, bonds.j, np.broadcast_to(-k * np.cos(angle[:, None] - angle), (n, q, q)))
        eigenvalues = [float((np.exp(k * np.cos(angle)) * np.cos(m * angle)).sum()) for m in range(q)]
        assert log_partition(clock, 1.0) == pytest.approx(math.log(sum(x**n for x in eigenvalues)), abs=1e-13)


def test_long_chains_and_free_variables():
    n = 3000
    graph = spin_glass(lattice("chain", n, boundary="open"), 0.6)
    assert log_partition(graph, 1.0) == pytest.approx(math.log(2) + (n - 1) * math.log(2 * math.cosh(0.6)), rel=1e-13)
    free = FactorGraph(np.array([2, 3, 5]), (("s", 0, 3),), (), 1.5)
    assert log_partition(free, 2.0) == pytest.approx(math.log(30) - 0.75, abs=1e-14)


def test_costs_are_refused_before_anything_is_allocated():
    graph = spin_glass(lattice("cubic", 6, 6, 6), 1.0)
    found = elimination_cost(graph, plan(graph))
    assert not found.feasible
    with pytest.raises(VfeError, match="of memory and") as caught:
        log_partition(graph, 1.0)
    assert caught.value.exit_code == 4
    assert caught.value.diagnostics[0].code == "too-expensive"


def test_named_cases_fit_into_memory():
    bonds = lattice("square", 6, 6).bonds("nn")
    potts = pairs(36, 3, bonds.i, bonds.j, np.broadcast_to(-np.eye(3), (len(bonds), 3, 3)))
    for graph in (sherrington_kirkpatrick(), edwards_anderson(), potts):
        found = elimination_cost(graph, plan(graph), sources=4)
        assert found.bytes < 2**30
        assert found.seconds_estimate < 5


def test_energies_that_are_no_numbers():
    for bad in (np.nan, -np.inf):
        group = FactorGroup("t", np.array([[0]]), np.array([[0.0, bad]]))
        with pytest.raises(VfeError) as caught:
            log_partition(FactorGraph(np.array([2]), (("s", 0, 1),), (group,), 0.0), 1.0)
        assert caught.value.exit_code == 3
