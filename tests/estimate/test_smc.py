"""Annealed populations: absolute ln Z against exact values, and honest errors."""

from functools import cache

import jax
import numpy as np
import pytest
from scipy.special import iv
from test_hmc import MIXED, mixed_exact

import vdsl
from vdsl.estimate.chain_averages import population_averages
from vdsl.estimate.global_moves import global_moves
from vdsl.estimate.phase_space import make_target
from vdsl.estimate.smc import anneal, find_reference, ln_z_of, plan_levels, resample, sample_smc

PHI4 = """
lattice hypercubic(4, 4)
field phi : real
param lam = 8.0
param m2 = -4.0
interaction kinetic = sum(x in sites, mu in axes: phi[x] * (2 * phi[x] - phi[x + mu] - phi[x - mu]))
interaction potential = sum(x in sites: m2 * phi[x]^2 + lam * phi[x]^4)
temperature 1
"""
GAUGE = """
lattice hypercubic(3, 2)
field U : SU(2) on links
interaction wilson = -sum(x in sites, <mu, nu> in planes:
    re(tr(U[x, mu] * U[x + mu, nu] * U[x + nu, mu]' * U[x, nu]')))
temperature 1
"""
CASES = {
    "phi4": (PHI4, 2.40513896),
    "gauge": (GAUGE, np.log((iv(np.arange(1, 40), 2.0) ** 6).sum())),  # Σ_n (2 I_n(β)/β)^plaquettes, β = 2
    "mixed": (MIXED, mixed_exact()[0]),
}


@pytest.fixture
def quick_compiles(name):
    """Half of compiling goes into speed that one short run does not need; φ⁴ runs often."""
    jax.config.update("jax_disable_most_optimizations", name != "phi4")
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@cache
def model_of(name):
    return vdsl.loads(CASES[name][0])


@pytest.mark.parametrize("name", CASES)
def test_absolute_ln_z(name, quick_compiles):
    model, exact = model_of(name), CASES[name][1]
    found = sample_smc(
        model, {p.name: float(p.default.value) for p in model.program.parameters}, jax.random.key(0), 16, 32
    )
    assert abs(found.ln_z.value - exact) < 4 * found.ln_z.error
    assert found.ln_z.error < 0.2
    assert found.warnings == ()
    if name == "mixed":
        averages, totals = population_averages(found, model, {}, 1.0)
        assert abs(averages.energy.value - mixed_exact()[1]) < 4 * averages.energy.error
        assert totals["free_energy"].value == pytest.approx(-found.ln_z.value)
        assert totals["entropy"].value == pytest.approx(averages.energy.value + found.ln_z.value)


def test_z_is_unbiased_and_errors_are_honest():
    """Sixteen runs at schedules of their own: the mean of Ẑ/Z is 1, and pulls of ln Z spread by one."""
    model, exact = model_of("phi4"), CASES["phi4"][1]
    theta = {"lam": 8.0, "m2": -4.0}
    ratios, pulls = [], []
    for seed in range(16):
        keys = jax.random.split(jax.random.key(seed), 3)
        target = find_reference(make_target(model, theta, 1.0), global_moves(model.program, theta), keys[0])
        levels, _ = plan_levels(target, keys[1], 1, 512, 4)
        log_z = anneal(target, levels, keys[2], 16, 32, 4).log_z
        ratios.append(np.exp(log_z - exact).mean())
        found = ln_z_of(log_z)
        pulls.append((found.value - exact) / found.error)
    assert abs(np.mean(ratios) - 1) < 4 * np.std(ratios) / np.sqrt(16)
    assert 0.5 < np.std(pulls) < 1.7
    assert abs(np.mean(pulls)) < 1


def test_systematic_resampling():
    """Each particle is taken n·w times, rounded up or down, and n·w times on average."""
    log_w = np.log(np.array([0.5, 0.2, 0.2, 0.06, 0.04])) + 700
    rng = np.random.default_rng(0)
    counts = np.stack([np.bincount(resample(log_w, rng), minlength=5) for _ in range(4000)])
    expected = 5 * np.array([0.5, 0.2, 0.2, 0.06, 0.04])
    assert (np.abs(counts - expected) < 1).all()
    np.testing.assert_allclose(counts.mean(0), expected, atol=0.04)
