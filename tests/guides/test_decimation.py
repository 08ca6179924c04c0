"""Decimation against brute-force quadrature: ∫ dx_rest e^{−βE} of the compiled energy, and exact conditionals."""

from __future__ import annotations

import itertools
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vdsl
from vdsl.guides.decimation import ChartRemainder, build_decimated, decimate, independent_units
from vdsl.guides.monomials import monomials_of
from vdsl.guides.problem import Problem
from vdsl.ir import interpret

pytestmark = pytest.mark.usefixtures("quick_compilation")

PHI4 = """lattice chain(4, boundary = open)
field phi : real
interaction kinetic = sum(<i, j> in nn: (phi[i] - phi[j])^2)
interaction potential = sum(x in sites: -4.0 * phi[x]^2 + 3.0 * phi[x]^4 + 0.3 * phi[x]^3 - 0.2 * phi[x])
temperature 1.3"""
MODELS = {
    "phi4": PHI4,
    "gaussian": """lattice chain(4)
field u : real
interaction e = sum(<i, j> in nn: (u[i] - u[j] - 0.2)^2) + sum(x in sites: 0.5 * u[x]^2)
temperature 0.7""",
    "angles": """lattice chain(4)
field a : angle
interaction e = -sum(<i, j> in nn: cos(a[i] - a[j] + 0.3)) - 0.4 * sum(x in sites: cos(2 * a[x]) + sin(a[x]))
temperature 0.6""",
    "products": """lattice chain(3, boundary = open)
field z : complex
interaction e = sum(<i, j> in nn: re((z[i] - z[j]) * conj(z[i] - z[j])))
interaction v = sum(i in sites: (re(z[i] * conj(z[i])) - 1)^2)
temperature 0.9""",
}
GRIDS = {"phi4": (-4, 4), "gaussian": (-9, 9), "products": (-4, 4)}


def problem_of(text: str) -> Problem:
    model = vdsl.loads(text)
    return Problem(model.program, interpret.resolve_parameters(model.program), model)


@cache
def case(name: str) -> tuple[Problem, np.ndarray, ChartRemainder]:
    problem = problem_of(MODELS[name])
    return problem, *decimate(problem)


reduced_energy = eqx.filter_jit(lambda remainder, x, beta: remainder.reduced_energy(x, beta))
log_prob = eqx.filter_jit(lambda remainder, x, beta: remainder.log_prob(x, beta))


@pytest.mark.parametrize("name", MODELS)
def test_reduced_energy_is_the_integral_over_the_rest(name: str):
    """u(kept) = −ln ∫ dx_rest e^{−βE}, one decimated coordinate at a time: they are independent."""
    problem, kept, remainder = case(name)
    rest = np.flatnonzero(~kept)
    assert len(rest) >= 2
    beta = 1 / problem.temperature
    x = np.random.default_rng(0).normal(size=(3, len(kept))) * kept
    found = np.asarray(reduced_energy(remainder, jnp.asarray(x, jnp.float32), jnp.asarray(beta)), float)
    if name in GRIDS:
        grid = np.linspace(*GRIDS[name], 801)
    else:
        grid = np.linspace(-np.pi, np.pi, 401)[:-1]
    energy = eqx.filter_jit(problem.flat_energy())

    def reduced(points: np.ndarray) -> np.ndarray:
        return beta * np.asarray(energy(jnp.asarray(points, jnp.float32)), float)

    for row, u in zip(x, found, strict=True):
        base = reduced(row[None])[0]
        expected = base
        for k in rest:  # E is a sum over the decimated coordinates: each factor by itself, relative to 0
            points = np.repeat(row[None], len(grid), 0)
            points[:, k] = grid
            expected -= np.log(np.exp(base - reduced(points)).sum() * (grid[1] - grid[0]))
        assert u == pytest.approx(expected, abs=3e-5 * (1 + abs(expected)))


@pytest.mark.parametrize("name", MODELS)
def test_conditionals_are_normalised_and_boltzmann(name: str):
    """ln q(rest | kept) + βE − u = 0 up to the interpolation of tables, and E_q of its exponential is 1."""
    problem, kept, remainder = case(name)
    beta = jnp.asarray(1 / problem.temperature)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, len(kept))) * kept, jnp.float32)
    many = jnp.repeat(x, 4000, 0)
    drawn, log_q = eqx.filter_jit(ChartRemainder.sample)(remainder, jax.random.key(0), many, beta)
    np.testing.assert_array_equal(drawn[:, kept], many[:, kept])
    assert np.ptp(np.asarray(drawn)[:, ~kept], axis=0).min() > 0.5
    np.testing.assert_allclose(log_prob(remainder, drawn, beta), log_q, atol=2e-4)
    log_w = reduced_energy(remainder, many, beta) - beta * problem.flat_energy()(drawn) - log_q
    assert np.abs(log_w).max() < 0.08
    assert np.exp(log_w).mean() == pytest.approx(1, abs=float(5 * np.exp(log_w).std() / 4000**0.5 + 1e-5))


def test_gradient_of_the_reduced_energy():
    """∂u/∂kept is the conditional mean of β ∂E/∂kept: by finite differences."""
    problem, kept, remainder = case("phi4")
    beta = jnp.asarray(1 / problem.temperature)
    x = jnp.asarray(np.random.default_rng(2).normal(size=(1, len(kept))) * kept, jnp.float32)
    gradient = jax.grad(lambda y: reduced_energy(remainder, y, beta)[0])(x)[0]
    for k in np.flatnonzero(kept):
        step = 1e-2
        up, down = (reduced_energy(remainder, x.at[0, k].add(s), beta)[0] for s in (step, -step))
        assert gradient[k] == pytest.approx(float((up - down) / (2 * step)), abs=5e-3)


def test_mixed_models_and_spheres():
    """Spins, states, vectors and reals at once: the sum over the rest by enumeration and quadrature."""
    text = """lattice chain(3, boundary = open)
field s : spin
field p : potts(3)
interaction e = -sum(<i, j> in nn: s[i] * s[j] * delta(p[i], p[j])) + 0.3 * sum(i in sites: s[i] * p[i])
temperature 0.8"""
    problem = problem_of(text)
    monomials = monomials_of(problem.expansion)
    units = independent_units(monomials)
    decimated = build_decimated(monomials, units, 1 / problem.temperature)
    beta = jnp.asarray(1 / problem.temperature)
    states = [[-1, 1]] * 3 + [[0, 1, 2]] * 3
    every = np.array(list(itertools.product(*states)), float)
    x = {"s": every[:, :3].astype(np.int8), "p": every[:, 3:].astype(np.int8)}
    weight = np.exp(-np.asarray(problem.model.energies(x), float) / problem.temperature)
    kept = np.ones(6, bool)
    kept[units] = False
    for sample in every[::97]:
        same = (every[:, kept] == sample[kept]).all(1)
        u = reduced_energy(decimated, jnp.asarray(sample * kept, jnp.float32)[:, None], beta)[0]
        assert float(u) == pytest.approx(-np.log(weight[same].sum()), abs=1e-5)
        log_q = log_prob(decimated, jnp.asarray(sample, jnp.float32)[:, None], beta)[0]
        own = np.log(weight[(every == sample).all(1)][0] / weight[same].sum())
        assert float(log_q) == pytest.approx(own, abs=1e-5)


def test_what_couples_everything_is_not_decimated():
    text = "lattice chain(4)\nfield u : real\ninteraction e = sum(i in sites: u[i]^2) + abs(sum(i in sites: u[i]))\n"
    assert decimate(problem_of(text + "temperature 1")) is None


def test_checkerboard():
    text = "lattice square(4, 4)\nfield a : angle\ninteraction e = -sum(<i, j> in nn: cos(a[i] - a[j]))\ntemperature 1"
    kept, _ = decimate(problem_of(text))
    assert kept.sum() == 8
