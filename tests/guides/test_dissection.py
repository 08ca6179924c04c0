"""Dissections: blocks that are really separate and narrow, and parents that are really all a conditional depends on."""

from __future__ import annotations

import numpy as np
import pytest

from guides.small_models import OPAQUE, SOURCES, named
from vdsl.guides.autoregressive import interactions, sweep_width
from vdsl.guides.dissection import Dissection, Interactions, dissect
from vdsl.ir.lattice import named_lattice

FACTORISED = [name for name in SOURCES if name not in OPAQUE]


def lattice(kind: str, *shape: int, boundary: str = "periodic") -> Interactions:
    found = named_lattice(kind, shape, (boundary,) * len(shape))
    bonds = found.bonds("nn")
    edges = np.unique(np.sort(np.stack([bonds.i, bonds.j], 1), axis=1), axis=0)
    x = np.stack(np.unravel_index(np.arange(found.n_sites) // found.n_basis, found.shape), 1)
    return Interactions(found.n_sites, edges, x)


def random_graph(n: int, bonds: int, seed: int) -> Interactions:
    pairs = np.stack(np.triu_indices(n, 1), 1)
    return Interactions(n, pairs[np.sort(np.random.default_rng(seed).choice(len(pairs), bonds, replace=False))])


GRAPHS = {
    "square 16": lattice("square", 16, 16),
    "square 7x12 open": lattice("square", 7, 12, boundary="open"),
    "triangular": lattice("triangular", 10, 10),
    "kagome": lattice("kagome", 6, 6),
    "cubic": lattice("cubic", 5, 5, 5),
    "chain": lattice("chain", 50),
    "sparse": random_graph(120, 180, 0),
    "dense": random_graph(30, 300, 1),
    "complete": random_graph(12, 66, 2),
    "no bonds": random_graph(9, 0, 3),
}


def check_invariants(graph: Interactions, d: Dissection, width: int) -> None:
    # Everything is in the skeleton or in one block, once.
    assert sorted(np.concatenate([d.skeleton, *d.blocks]).tolist()) == list(range(graph.n))
    owner, rank = np.full(graph.n, -1), np.zeros(graph.n, int)
    for k, block in enumerate(d.blocks):
        owner[block], rank[block] = k, np.arange(len(block))
    i, j = graph.edges.T
    inside = (owner[i] >= 0) & (owner[j] >= 0)
    assert (owner[i] == owner[j])[inside].all()
    spans = np.abs(rank[i] - rank[j])[inside]
    assert spans.max(initial=0) == d.width <= width
    # Parents come earlier; skeleton neighbours are among them; levels are a schedule.
    place = np.full(graph.n, -1)
    place[d.skeleton] = np.arange(len(d.skeleton))
    for k, above in enumerate(d.parents):
        assert (above < k).all()
        assert d.level[k] == (d.level[above].max() + 1 if len(above) else 0)
    for a, b in np.sort(place[graph.edges], axis=1):
        assert a < 0 or a in d.parents[b]
    assert d.depth == len(np.unique(d.level))


@pytest.mark.parametrize("width", [1, 2, 3, 6])
@pytest.mark.parametrize("name", GRAPHS)
def test_blocks_and_parents(name: str, width: int):
    check_invariants(GRAPHS[name], dissect(GRAPHS[name], width), width)


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("name", FACTORISED)
def test_blocks_and_parents_of_models(name: str, width: int):
    check_invariants(interactions(named(name).alphabet), named(name).dissected(width), width)


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("name", FACTORISED)
def test_nothing_but_the_parents_matters(name: str, width: int):
    """p(z_k | z_0 … z_{k−1}) of the Boltzmann distribution itself, by enumeration, is p(z_k | parents)."""
    small = named(name)
    d = small.dissected(width)
    letters = np.asarray(small.alphabet.codec.encode(small.configurations)).T
    z = letters[:, d.skeleton]
    p = np.exp(-small.reduced - small.ln_z)
    for k, above in enumerate(d.parents):
        given_all = _conditional(z[:, : k + 1], p)
        given_parents = _conditional(z[:, [*above, k]], p)
        np.testing.assert_allclose(given_all, given_parents, rtol=1e-9)


def _conditional(columns: np.ndarray, p: np.ndarray) -> np.ndarray:
    """For every configuration, the probability of its last column's value given its other columns'."""

    def marginal(c: np.ndarray) -> np.ndarray:
        code = c @ (32 ** np.arange(c.shape[1])) if c.shape[1] else np.zeros(len(c), int)
        which = np.unique(code, return_inverse=True)[1]
        return np.bincount(which, p)[which]

    return marginal(columns) / marginal(columns[:, :-1])


def test_what_is_narrow_needs_no_skeleton():
    assert len(dissect(lattice("chain", 50, boundary="open"), 1).skeleton) == 0
    assert len(dissect(lattice("chain", 50), 2).skeleton) == 0
    assert len(dissect(lattice("square", 4, 40, boundary="open"), 4).skeleton) == 0
    assert len(dissect(lattice("square", 40, 4, boundary="open"), 4).skeleton) == 0


def test_the_skeleton_of_a_square_torus():
    """16 × 16, blocks seven wide: two lines one way and two the other leave rectangles of 7 × 7."""
    d = dissect(GRAPHS["square 16"], 7)
    assert d.width <= 7
    assert len(d.skeleton) <= 60
    assert len(d.blocks) >= 2


@pytest.mark.parametrize("q", [2, 3, 4, 16])
def test_sweeps_stay_affordable(q: int):
    for n in (16, 256, 4096):
        width = sweep_width(q, n)
        assert width >= 1
        assert q**width <= 4096
        assert width == 1 or q**width <= 128 or n * q ** (width + 1) <= 2**18
