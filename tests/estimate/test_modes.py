"""The mode check on a 20-spin glass at β = 5, and its rate of false alarms."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_graphs import boltzmann, enumerate_states, graph_ring, sk

from vdsl.estimate import modes
from vdsl.estimate.importance import Draw, log_weights
from vdsl.estimate.markov import sample_markov
from vdsl.estimate.modes import check_modes, compare_with_chain, forward_ess, ln_z_bridge, ln_z_forward
from vdsl.estimate.stats import ess
from vdsl.ir.expr import Const
from vdsl.ir.lattice import complete_graph
from vdsl.ir.program import Field, Program, Term
from vdsl.ir.support import Spin
from vdsl.model import Model

T = 0.2
LN_Z = 20 * 3.45268323  # exact, reference value


@cache
def glass():
    """All 2^20 energies of the instance, and the graph; state k has its spins in the bits of k, first one highest."""
    g = sk(20, 0)
    spins = 2.0 * ((np.arange(2**20)[:, None] >> np.arange(19, -1, -1)) & 1) - 1
    J = np.zeros((20, 20))
    J[tuple(g.groups[0].scopes.T)] = -g.groups[0].tables[:, 1, 1]
    return g, -((spins @ J) * spins).sum(1)


def number(states):
    return np.asarray(states, int) @ (1 << np.arange(19, -1, -1))


def run_check(q, seed, n=4000):
    g, energies = glass()
    rows = np.searchsorted(np.cumsum(q), np.random.default_rng(seed).random(n) * q.sum(), side="right")
    with np.errstate(divide="ignore"):
        log_q = np.log(q)
    program = Program("sk", complete_graph(20), (Field("s", Spin()),), (Term("sk", Const(0.0)),), Const(T))
    draw = Draw({}, log_q[rows], energies[rows], T)
    on_chain = lambda x: jnp.asarray(log_q[number(np.asarray(x["s"]) > 0)])  # noqa: E731
    return draw, check_modes(draw, g, Model(program), on_chain, jax.random.key(seed))


@pytest.mark.parametrize("leak", [0.0, 1e-12])
def test_a_guide_in_one_valley_is_found_out(leak):
    _, energies = glass()
    p = boltzmann(energies, T)
    q = np.where(np.arange(2**20) >> 19, p, 0)
    q = (1 - leak) * q / q.sum() + leak / 2**20
    draw, check = run_check(q, 0)
    assert ess(log_weights(draw)) > 0.999
    assert check.reverse_ess > 0.999
    assert check.forward_ess < 1e-4
    assert check.method == "tempering"
    assert check.ln_z.value == pytest.approx(LN_Z - np.log(2), abs=1e-5)
    for e in (check.ln_z_forward, check.ln_z_bridge):
        assert abs(e.value - LN_Z) < 4 * e.error
        assert e.error < 0.1
    (warning,) = check.warnings
    assert (warning.code, warning.severity) == ("modes-missing", "warning")
    assert "forward ESS" in warning.notes[0]
    assert "ln Z" in warning.notes[1]


def test_the_exact_guide_is_not_accused():
    _, energies = glass()
    _, check = run_check(boltzmann(energies, T), 1)
    assert check.warnings == ()
    assert check.forward_ess == pytest.approx(1)
    for e in (check.ln_z_forward, check.ln_z_bridge):
        assert e.value == pytest.approx(LN_Z, abs=1e-5)


RING, RING_T = graph_ring(8), 1.5


@pytest.mark.parametrize(("beta", "allowed"), [(1.0, 0), (0.8, 1), (0.5, 2)])
def test_false_alarms_are_rare(beta, allowed):
    """Guides p^beta, normalised, over 100 seeds: none for the perfect one, two in a hundred at most for poor ones."""
    states = enumerate_states(RING)
    energies = RING.energy(states)
    p, q = boltzmann(energies, RING_T), boltzmann(energies, RING_T / beta)
    alarms = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rows, chain = rng.choice(len(q), 2000, p=q), rng.choice(len(q), (64, 32), p=p)
        draw = Draw({}, np.log(q[rows]), energies[rows], RING_T)
        alarms += compare_with_chain(draw, energies[chain], np.log(q[chain])).warnings
    assert len(alarms) <= allowed, alarms[:3]


def test_estimators_agree_with_enumeration_and_errors_are_honest():
    states = enumerate_states(RING)
    energies = RING.energy(states)
    log_z = float(np.log(np.exp(-energies / RING_T).sum()))
    p, q = boltzmann(energies, RING_T), boltzmann(energies, 2 * RING_T)
    log_w = -energies / RING_T - np.log(q)
    pulls = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        on_q, on_p = log_w[rng.choice(len(q), 1500, p=q)], log_w[rng.choice(len(q), (40, 25), p=p)]
        estimates = ln_z_forward(on_p), ln_z_bridge(on_q, on_p)
        pulls.append([(e.value - log_z) / e.error for e in estimates])
        assert estimates[1].error < estimates[0].error
        assert forward_ess(on_p) == pytest.approx(1 / (p**2 / q).sum(), rel=0.2)
    np.testing.assert_allclose(np.std(pulls, axis=0), 1, atol=0.2)
    assert (np.abs(np.mean(pulls, axis=0)) < 4 / np.sqrt(150)).all()


def test_a_chain_that_saw_too_little_is_named_as_such():
    """The guide is right and the chain was stuck at low energies: not the guide's modes that are missing."""
    states = enumerate_states(RING)
    energies = RING.energy(states)
    p = boltzmann(energies, RING_T)
    rng = np.random.default_rng(0)
    rows, chain = rng.choice(len(p), 2000, p=p), rng.choice(len(p), (64, 32), p=boltzmann(energies, 1.0))
    check = compare_with_chain(Draw({}, np.log(p[rows]), energies[rows], RING_T), energies[chain], np.log(p[chain]))
    assert [w.code for w in check.warnings] == ["chain-disagrees"]
    assert "mean energies" in check.warnings[0].message


def test_the_check_of_a_large_model_is_cut_to_size(monkeypatch):
    _, energies = glass()
    monkeypatch.setattr(modes, "MOST_WORK", 1e6)
    asked = {}

    def spy(graph, temperature, key, chains, sweeps, thin, **rest):
        asked.update(chains=chains, sweeps=sweeps, thin=thin)
        return sample_markov(graph, temperature, key, chains, sweeps, thin, **rest)

    monkeypatch.setattr(modes, "sample_markov", spy)
    run_check(boltzmann(energies, T), 2, n=500)
    assert asked == {"chains": modes.LEAST_CHAINS, "sweeps": 64, "thin": 1}
