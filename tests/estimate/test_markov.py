"""Markov chains of small models against enumeration: the distribution of the energy, and marginals."""

import jax
import numpy as np
import pytest
from small_graphs import SPINS, boltzmann, enumerate_states, graph, sk, square_bonds, union

from vdsl.compile import loads
from vdsl.errors import InternalError
from vdsl.estimate.cluster import find_clusters
from vdsl.estimate.markov import (
    choose_method,
    configuration,
    graph_energy,
    opaque_energy,
    sample_markov,
    sweep_work,
    temperature_ladder,
)
from vdsl.estimate.stats import correlated_mean
from vdsl.ir.factors import factorise

BONDS = square_bonds(3)
RING = np.array([[k, k + 1] for k in range(5)] + [[0, 5]])
FERRO = -np.outer(SPINS, SPINS)
TRIANGULAR = np.unique(
    np.sort(
        [
            [3 * x + y, 3 * ((x + dx) % 3) + (y + dy) % 3]
            for x in range(3)
            for y in range(3)
            for dx, dy in ((1, 0), (0, 1), (1, -1))
        ],
        axis=1,
    ),
    axis=0,
)
ANGLES = 2 * np.pi * np.arange(5) / 5
THREE = -np.einsum("a,b,c->abc", SPINS, SPINS, SPINS)
RANDOM = np.random.default_rng(11)
MODELS = {
    "ising": (graph([2] * 9, (BONDS, FERRO)), 2.3, ("local", "cluster", "tempering")),
    "ising in a field": (
        graph([2] * 9, (BONDS, FERRO), (np.arange(9)[:, None], -0.3 * SPINS), constant=1.5),
        2.0,
        ("local", "cluster", "tempering"),
    ),
    "ising in a random field": (
        graph([2] * 6, (RING, FERRO), (np.arange(6)[:, None], RANDOM.standard_normal((6, 1)) * SPINS)),
        1.0,
        ("local", "cluster"),
    ),
    "potts": (graph([3] * 6, (RING, -np.eye(3))), 0.7, ("local", "cluster", "tempering")),
    "clock": (graph([5] * 5, (RING[:4], -np.cos(ANGLES[:, None] - ANGLES))), 0.6, ("local", "tempering")),
    "lattice gas": (
        graph([2] * 9, (BONDS, [[0, 0], [0, -1.0]]), (np.arange(9)[:, None], [0, 1.7])),
        0.6,
        ("local", "cluster", "tempering"),
    ),
    "hard squares": (
        graph([2] * 6, (RING, [[0, 0], [0, np.inf]]), (np.arange(6)[:, None], [0, -0.5])), 1.0, ("local",)
    ),
    "triangular antiferromagnet": (graph([2] * 9, (TRIANGULAR, -FERRO)), 0.8, ("local", "cluster", "tempering")),
    "spin glass": (sk(8, 0), 0.4, ("local", "cluster", "tempering")),
    "three spins": (
        graph([2] * 6, ([[0, 1, 2], [1, 2, 3], [2, 4, 5]], THREE), (RING, FERRO / 2)),
        1.1,
        ("local", "tempering"),
    ),
    "two kinds of field": (
        graph(
            [2, 3, 2, 3],
            ([[0, 1], [2, 3]], RANDOM.standard_normal((2, 2, 3))),
            ([[0, 2]], FERRO),
            ([[1, 3]], RANDOM.standard_normal((1, 3, 3))),
        ),
        0.8,
        ("local", "tempering"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("method", ["local", "cluster", "tempering"])
def test_energies_and_marginals_agree_with_enumeration(method):
    """All models side by side in one graph, which compiles once; each is compared on its own variables."""
    names = [name for name, (_, _, methods) in MODELS.items() if method in methods]
    together, places = union([MODELS[name][:2] for name in names])
    chains = 24 if method == "tempering" else 64  # times the rungs of the ladder
    result = sample_markov(together, 1.0, jax.random.key(1), chains, 800, thin=2, method=method, burn_in=100)
    assert result.states.shape == (chains, 400, together.n)
    np.testing.assert_allclose(result.energies, graph_energy(together, result.states), rtol=1e-12)
    assert result.r_hat < 1.05
    assert 0 < result.acceptance < 1
    for name, place in zip(names, places, strict=True):
        compare(name, *MODELS[name][:2], result.states[..., place])


def compare(name, g, temperature, sampled):
    states = enumerate_states(g)
    energies, p = graph_energy(g, states), boltzmann(graph_energy(g, states), temperature)
    measured = graph_energy(g, sampled)
    levels, level = np.unique(np.round(energies, 9), return_inverse=True)
    mass = np.bincount(level, p)
    common = [k for k in np.argsort(-mass)[:6] if mass[k] > 1e-3]
    columns = {f"P(E={levels[k]})": (np.isclose(measured, levels[k]), mass[k]) for k in common}
    columns["E"] = (measured, p @ np.where(p > 0, energies, 0))
    for v in range(g.n):
        columns[f"P(x{v}=1)"] = (sampled[..., v] == 1, p @ (states[:, v] == 1))
    columns["P(x0=x1)"] = (sampled[..., 0] == sampled[..., 1], p @ (states[:, 0] == states[:, 1]))
    for what, (values, exact) in columns.items():
        e = correlated_mean(values)
        assert abs(e.value - exact) < 4 * e.error + 1e-12, (name, what, e, exact)


def test_opaque_terms_are_sampled_with_their_full_energy():
    """H = −(Σs)²/N + a ring, the first as an opaque function."""
    ring = graph([2] * 6, (RING, FERRO), opaque=[("global", None)])
    opaque = lambda s: -((2.0 * s - 1).sum() ** 2) / 6  # noqa: E731
    result = sample_markov(ring, 1.5, jax.random.key(2), chains=64, sweeps=600, opaque=opaque)
    assert result.method == "tempering"
    states = enumerate_states(ring)
    energies = graph_energy(ring, states) - (2 * states - 1).sum(1) ** 2 / 6
    e = correlated_mean(result.energies)
    assert abs(e.value - boltzmann(energies, 1.5) @ energies) < 4 * e.error
    with pytest.raises(InternalError):
        sample_markov(ring, 1.5, jax.random.key(2))


def test_opaque_terms_of_a_model_are_evaluated_by_the_model():
    """A ring with −|Σs|, which is no sum of small factors; spins, and colours with a stored number of their own."""
    model = loads(
        "lattice chain(16)\nfield s : spin\nfield c : potts(3)\ninteraction ring = -sum(<i, j> in nn: s[i] * s[j])\n"
        "interaction all = -abs(sum(i in sites: s[i] * (c[i] - 1)))\ntemperature 4\n"
    )
    g = factorise(model.program, {})
    assert [name for name, _ in g.opaque] == ["all"]
    result = sample_markov(
        g, 4.0, jax.random.key(9), chains=8, sweeps=8, method="local", opaque=opaque_energy(g, model, {})
    )
    x = configuration(g, model.program, result.states.reshape(-1, g.n))
    np.testing.assert_allclose(np.asarray(model.energies(x)), result.energies.ravel(), rtol=1e-5)
    np.testing.assert_array_equal(np.unique(np.asarray(x["s"])), [-1, 1])


def test_the_work_of_a_sweep_counts_tables_rungs_and_opaque_terms():
    assert sweep_work(MODELS["ising"][0], 2.3) == 4 * 18 * 2 * 2  # clusters: 18 bonds, 2 ends, 2 states
    rungs = len(temperature_ladder(sk(8, 0), 0.4))
    assert sweep_work(sk(8, 0), 0.4) == rungs * 28 * 2 * 2
    assert sweep_work(graph([2] * 4, opaque=[("global", None)]), 1.0) == 4 * 8


def test_auto_takes_clusters_only_without_frustration():
    assert not find_clusters(MODELS["ising"][0]).frustrated
    assert not find_clusters(MODELS["ising in a field"][0]).frustrated
    assert find_clusters(MODELS["triangular antiferromagnet"][0]).frustrated
    assert find_clusters(MODELS["ising in a random field"][0]).frustrated
    assert find_clusters(MODELS["clock"][0]) is None
    assert find_clusters(MODELS["three spins"][0]) is None
    signs = np.where(np.random.default_rng(3).random(9) < 0.5, -1, 1)
    gauge = signs[BONDS].prod(1)[:, None, None] * FERRO
    assert not find_clusters(graph([2] * 9, (BONDS, gauge))).frustrated  # a Mattis model is a ferromagnet
    assert choose_method(MODELS["ising"][0], 2.0) == "cluster"
    assert choose_method(sk(8, 0), 0.3) == "tempering"
    assert choose_method(sk(8, 0), 30.0) == "local"


def test_the_ladder_starts_at_the_temperature_and_ends_where_it_is_hot():
    ladder = temperature_ladder(sk(20, 0), 0.2)
    assert ladder[0] == pytest.approx(0.2)
    assert 1 < ladder[-1] < 4
    assert (np.diff(ladder) > 0).all()
    assert 4 <= len(ladder) <= 16


def test_tempering_exchanges_and_mixes_where_local_updates_stick():
    """The 20-spin glass at β = 5: both valleys of every chain, and exact mean energy."""
    g = sk(20, 0)
    result = sample_markov(g, 0.2, jax.random.key(4), chains=16, sweeps=1500)
    assert result.method == "tempering"
    assert result.exchange > 0.2
    half = (result.states[..., 0] == 1).mean(1)
    assert ((half > 0.2) & (half < 0.8)).all()


def test_clusters_beat_critical_slowing_down():
    g = graph([2] * 256, (square_bonds(16), FERRO))
    result = sample_markov(g, 2.269185314213022, jax.random.key(5), chains=16, sweeps=400)
    m2 = ((2.0 * result.states - 1).mean(-1)) ** 2
    e = correlated_mean(m2)
    assert abs(e.value - 0.5454172044) < 4 * e.error  # exact, square torus L=16 at T_c
    assert e.error < 0.01


def test_the_key_is_the_only_source_of_randomness_and_chains_start_from_different_states():
    free = graph([3] * 50, (np.array([[0, 1]]), np.zeros((3, 3))))
    run = lambda seed: sample_markov(free, 1.0, jax.random.key(seed), 8, 4, burn_in=0, method="local").states  # noqa: E731
    first = run(6)
    np.testing.assert_array_equal(first, run(6))
    assert len(np.unique(first[:, 0], axis=0)) == 8
    assert first.dtype == np.int16
