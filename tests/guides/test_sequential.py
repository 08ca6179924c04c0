"""The autoregressive guide of continuous and mixed fields: absolute ln Z, exact cases, symmetry, order, diagnostics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ive

import vdsl
from guides.small_models import random_params
from vdsl.errors import VfeError
from vdsl.guides.problem import Problem
from vdsl.guides.sequential import Sequential, build_sequential, choose_sequential
from vdsl.ir import interpret

SAMPLES = 3000
BATCH = 64
XY = "field a : angle\ninteraction e = -sum(<i, j> in nn: cos(a[i] - a[j]))\n"
HEISENBERG = "field S : sphere(3)\ninteraction e = -sum(<i, j> in nn: dot(S[i], S[j]))\n"
PHI4 = """lattice hypercubic(4, 4)
field phi : real
interaction kinetic = sum(x in sites, mu in axes: phi[x] * (2 * phi[x] - phi[x + mu] - phi[x - mu]))
interaction potential = sum(x in sites: -4 * phi[x]^2 + 8 * phi[x]^4)
temperature 1"""
MODELS = {
    "free": """lattice square(3, 3)
data h on sites ~ normal(0, 1) seed 1
field u : real
interaction e = sum(<i, j> in nn: (u[i] - u[j])^2) + sum(i in sites: 0.3 * u[i]^2 - h[i] * u[i])
temperature 0.8""",
    "phi4": PHI4,
    "ring": "lattice chain(8)\n" + XY + "temperature 0.7",
    "heisenberg": "lattice chain(12, boundary = open)\n" + HEISENBERG + "temperature 0.6",
    "elastic": """lattice chain(4)
field s : spin
field u : real
interaction e = sum(<i, j> in nn: (u[i] - u[j])^2 - s[i] * s[j] * (1 + 0.4 * (u[i] - u[j])))
interaction pin = sum(i in sites: 0.5 * u[i]^2)
temperature 1.2""",
    "everything": """lattice chain(2, boundary = open)
field p : potts(3)
field u : real
field S : sphere(3)
field U : U(1)
interaction one = -sum(<i, j> in nn: re(U[i] * conj(U[j])) * (1 + 0.3 * u[i]) + 0.5 * dot(S[i], S[j]))
interaction two = sum(i in sites: u[i]^2 + 0.2 * u[i]^4 - delta(p[i], 1) * u[i] - 0.3 * S[i, 2] * re(U[i]))
interaction three = -0.5 * sum(<i, j> in nn: delta(p[i], p[j]))
temperature 1.1""",
}


def _angles_on_a_ring(n: int, k: float) -> float:
    """ln Σ_m (2πI_m(K))^N."""
    return float(np.log(np.sum((ive(np.arange(-40, 41), k) * np.exp(k) * 2 * np.pi) ** n)))


# model: (ln Z, the least ESS before any training)
EXACT = {
    "phi4": (2.40513896, 0.97),  # transfer matrix
    "ring": (_angles_on_a_ring(8, 1 / 0.7), 0.7),
    "heisenberg": (12 * np.log(4 * np.pi) + 11 * np.log(np.sinh(1 / 0.6) * 0.6), 0.999),
}


def problem_of(text: str) -> Problem:
    model = vdsl.loads(text)
    return Problem(model.program, interpret.resolve_parameters(model.program), model)


@dataclass(frozen=True)
class Case:
    """A guide, and one compiled function for all that is asked of it."""

    problem: Problem
    guide: Sequential
    run: Callable[..., tuple]

    def ln_w(self, x: dict, log_q: np.ndarray) -> np.ndarray:
        """−βE − ln q, in float64."""
        energy = np.asarray(self.problem.model.energies(x), float)
        return -energy / self.problem.temperature - np.asarray(log_q, float)


@cache
def case(name: str) -> Case:
    problem = problem_of(MODELS[name])
    guide = build_sequential(choose_sequential(problem), problem)

    def run(guide: Sequential, params: Any, key: jax.Array, y: dict) -> tuple:
        """Samples with ln q; ln q of y; latents' ln q and u with the whole ln q of configurations that have them."""
        one = jnp.ones(())
        x, log_q = guide.sample_and_log_prob(params, key, SAMPLES)
        z = guide.reduced(y) * guide.kept
        return x, log_q, guide.log_prob(params, y), guide.latent_log_prob(params, z, one), guide.latent_energy(z, one)

    start = fresh(guide)
    y = problem.model.random_configuration(jax.random.key(0), n=BATCH)
    dynamic, static = eqx.partition(guide, eqx.is_array)
    jitted = jax.jit(lambda g, params, key, y: run(eqx.combine(g, static), params, key, y))
    options = {"xla_backend_optimization_level": 0}  # compiling is nearly all the time these tests take
    ready = jitted.lower(dynamic, start, jax.random.key(0), y).compile(compiler_options=options)
    return Case(problem, guide, lambda params, key, y: ready(dynamic, params, key, y))


def fresh(guide: Sequential) -> Any:
    return guide.init(jax.random.key(0))


def ln_z_of(log_w: np.ndarray) -> tuple[float, float, float]:
    """ln Z, its error, ESS."""
    w = np.exp(log_w - log_w.max())
    ess = w.sum() ** 2 / (w**2).sum() / len(w)
    return log_w.max() + np.log(w.mean()), float(np.sqrt((1 / ess - 1) / len(w))), float(ess)


@cache
def sampled(name: str, size: float) -> tuple[dict, np.ndarray, np.ndarray]:
    """Samples at fresh parameters plus noise of that size, with ln q as sampled and ln w."""
    c = case(name)
    params = random_params(c.guide, size=size) if size else fresh(c.guide)
    y = c.problem.model.random_configuration(jax.random.key(0), n=BATCH)
    x, log_q, *_ = c.run(params, jax.random.key(int(100 * size)), y)
    return {f: np.asarray(v) for f, v in x.items()}, np.asarray(log_q), c.ln_w(x, log_q)


# --- before training ---


@pytest.mark.parametrize("name", EXACT)
def test_absolute_ln_z_and_the_start(name: str):
    """The start is good, and its importance weights give the exact ln Z."""
    expected, least = EXACT[name]
    ln_z, error, ess = ln_z_of(sampled(name, 0.0)[2])
    assert ess > least
    assert abs(ln_z - expected) < 4.5 * error + 3e-4


def test_a_quadratic_energy_is_exact():
    """With a source, at every sample: ln Z = (N/2) ln 2π − ½ ln det A + ½ bA⁻¹b for βE = ½xAx − bx."""
    model, n = case("free").problem.model, 9
    points = np.concatenate([np.zeros((1, n)), np.eye(n), -np.eye(n)])
    points = np.concatenate([points, [a + b for a in np.eye(n) for b in np.eye(n)]])
    e = np.asarray(model.energies({"u": points}), float) / 0.8
    plus, minus, both = e[1 : n + 1], e[n + 1 : 2 * n + 1], e[2 * n + 1 :].reshape(n, n)
    a, b = both - plus[:, None] - plus[None], (minus - plus) / 2
    expected = n / 2 * np.log(2 * np.pi) - np.linalg.slogdet(a)[1] / 2 + b @ np.linalg.solve(a, b) / 2
    np.testing.assert_allclose(sampled("free", 0.0)[2], expected, atol=5e-4)


# --- laws, at random parameters ---


@pytest.mark.parametrize("name", MODELS)
def test_any_parameters_give_the_same_ln_z(name: str):
    """E_q[e^{−βE}/q] = Z whatever q: two guides of one model agree, so both are normalised and sample themselves."""
    (first, error, ess), (second, other, less) = (ln_z_of(sampled(name, size)[2]) for size in (0.0, 0.05))
    assert min(ess, less) > 0.05
    assert abs(first - second) < 4.5 * np.hypot(error, other) + 3e-4


@pytest.mark.parametrize("name", MODELS)
def test_samples_and_latents_agree(name: str):
    """Samples come with their ln q; and ln q(x) + βE(x) = ln q(z) + u(z) up to the interpolation of tables."""
    c = case(name)
    x, log_q, _ = sampled(name, 0.05)
    y = {f: v[:BATCH] for f, v in x.items()}
    own = c.problem.model.random_configuration(jax.random.key(0), n=BATCH)
    assert {f: (v.shape, v.dtype) for f, v in y.items()} == {f: (v.shape, v.dtype) for f, v in own.items()}
    params = random_params(c.guide, size=0.05)
    _, _, again, latent_log_q, u = c.run(params, jax.random.key(0), y)
    np.testing.assert_allclose(again, log_q[:BATCH], atol=2e-3)
    whole = -c.ln_w(y, again)
    np.testing.assert_allclose(whole, np.asarray(latent_log_q) + np.asarray(u), atol=0.06)
    assert np.mean(whole - np.asarray(latent_log_q) - np.asarray(u)) == pytest.approx(0, abs=0.015)


ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0].astype(np.float32)
MOVES = {
    "phi4": lambda x: {"phi": -x["phi"]},
    "elastic": lambda x: {"s": -x["s"], "u": x["u"]},
    "ring": lambda x: {"a": (x["a"] + 1.0 + np.pi) % (2 * np.pi) - np.pi},
    "heisenberg": lambda x: {"S": x["S"] @ ROTATION},
}


@pytest.mark.parametrize("name", MOVES)
def test_symmetry(name: str):
    """A joint change of sign, a common turn of all angles or of all vectors leave ln q alone."""
    c = case(name)
    params = random_params(c.guide, size=0.3)
    y = c.problem.model.random_configuration(jax.random.key(1), n=BATCH)
    y = {f: np.asarray(v) for f, v in y.items()}
    found = [np.asarray(c.run(params, jax.random.key(0), at)[2]) for at in (y, MOVES[name](y))]
    assert np.ptp(found[0]) > 1
    # Tables of angles have nodes at fixed angles: their interpolation turns with nothing.
    np.testing.assert_allclose(found[1], found[0], atol=0.05 if name == "ring" else 5e-3, rtol=1e-4)


def test_both_wells_are_populated():
    x = sampled("phi4", 0.0)[0]["phi"]
    assert float((x.mean(1) > 0).mean()) == pytest.approx(0.5, abs=5 * 0.5 / SAMPLES**0.5)


def test_order_depends_on_what_elimination_leaves():
    """On a ring one site of two is decimated and the others see two parents at most."""
    problem = problem_of(f"lattice chain(10)\n{XY}temperature 1")
    structure = choose_sequential(problem).structure
    assert len(structure.rest) == 5
    assert max(len(p) for p in structure.parents) == 2
    assert (np.diff(structure.level[np.argsort(structure.level)]) >= 0).all()


def test_what_is_no_sum_of_products_is_refused():
    text = "lattice chain(4)\nfield u : real\ninteraction e = sum(i in sites: u[i]^2) + abs(sum(i in sites: u[i]))\n"
    with pytest.raises(VfeError) as caught:
        choose_sequential(problem_of(text + "temperature 1"))
    assert caught.value.diagnostics[0].code == "guide-cannot-serve"
