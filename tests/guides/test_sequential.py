"""The autoregressive guide of continuous and mixed fields: absolute ln Z, exact cases, symmetry, order, diagnostics."""

from __future__ import annotations

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
from vdsl.ir.configurations import random_configuration

SAMPLES = 4000
XY = "field a : angle\ninteraction e = -sum(<i, j> in nn: cos(a[i] - a[j]))\n"
HEISENBERG = "field S : sphere(3)\ninteraction e = -sum(<i, j> in nn: dot(S[i], S[j]))\n"
WELLS = "field phi : real\ninteraction k = sum(<i, j> in nn: (phi[i] - phi[j])^2)\n"
WELLS += "interaction v = sum(i in sites: -4 * phi[i]^2 + 2 * phi[i]^4)\n"
ELASTIC = """field s : spin
field u : real
interaction e = sum(<i, j> in nn: (u[i] - u[j])^2 - s[i] * s[j] * (1 + 0.4 * (u[i] - u[j])))
interaction pin = sum(i in sites: 0.5 * u[i]^2)
"""
MODELS = {
    "xy": "lattice square(3, 3)\n" + XY + "temperature 1.5",
    "wells": "lattice square(2, 4, boundary = open)\n" + WELLS + "temperature 1.5",
    "elastic": "lattice chain(6)\n" + ELASTIC + "temperature 1.2",
    "complex": """lattice square(2, 3, boundary = open)
field z : complex
interaction k = sum(<i, j> in nn: re((z[i] - z[j]) * conj(z[i] - z[j])))
interaction v = sum(i in sites: (re(z[i] * conj(z[i])) - 1)^2)
temperature 1""",
    "heisenberg": "lattice square(3, 2, boundary = open)\n" + HEISENBERG + "temperature 0.8",
    "everything": """lattice chain(4)
field a : angle
field p : potts(3)
field u : real
field S : sphere(3)
field U : U(1)
interaction one = -sum(<i, j> in nn: cos(a[i] - a[j]) * (1 + 0.3 * u[i]) + 0.5 * dot(S[i], S[j]))
interaction two = sum(i in sites: u[i]^2 + 0.2 * u[i]^4 - delta(p[i], 1) * u[i] - 0.3 * S[i, 2] * cos(a[i]))
interaction three = -0.5 * sum(<i, j> in nn: delta(p[i], p[j]) + re(U[i] * conj(U[j])))
temperature 1.1""",
}


def problem_of(text: str) -> Problem:
    model = vdsl.loads(text)
    return Problem(model.program, interpret.resolve_parameters(model.program), model)


@cache
def built(name: str) -> tuple[Problem, Sequential]:
    problem = problem_of(MODELS[name])
    return problem, build_sequential(choose_sequential(problem), problem.program, problem.theta)


def drawn(problem: Problem, guide: Sequential, params: Any, n: int = SAMPLES, seed: int = 0) -> tuple[dict, np.ndarray]:
    """Samples and ln w = −βE − ln q, in float64."""
    x, log_q = eqx.filter_jit(Sequential.sample_and_log_prob)(guide, params, jax.random.key(seed), n)
    energy = np.asarray(problem.model.energies(x), float)
    return x, -energy / problem.temperature - np.asarray(log_q, float)


def ln_z_of(log_w: np.ndarray) -> tuple[float, float, float]:
    """ln Z, its error, ESS."""
    w = np.exp(log_w - log_w.max())
    ess = w.sum() ** 2 / (w**2).sum() / len(w)
    return log_w.max() + np.log(w.mean()), float(np.sqrt((1 / ess - 1) / len(w))), float(ess)


def fresh(guide: Sequential) -> Any:
    return guide.init(jax.random.key(0))


# --- exact cases, without training ---


def test_free_field():
    """A quadratic energy with a source: exact from the start, absolute ln Z by the determinant."""
    text = """lattice square(4, 4)
data h on sites ~ normal(0, 1) seed 1
field u : real
interaction e = sum(<i, j> in nn: (u[i] - u[j])^2) + sum(i in sites: 0.3 * u[i]^2 - h[i] * u[i])
temperature 0.8"""
    problem = problem_of(text)
    guide = build_sequential(choose_sequential(problem), problem.program, problem.theta)
    _, log_w = drawn(problem, guide, fresh(guide), 500)
    n = 16
    a, b = np.zeros((n, n)), np.zeros(n)
    for k in range(n):
        unit = np.eye(n)[k : k + 1]
        b[k] = (problem.model.energies({"u": -unit})[0] - problem.model.energies({"u": unit})[0]) / 2 / 0.8
        for j in range(k + 1):
            both = unit + np.eye(n)[j : j + 1]
            four = [float(problem.model.energies({"u": v})[0]) for v in (both, unit, both - unit)]
            a[k, j] = a[j, k] = (four[0] - four[1] - four[2]) / 0.8
    expected = n / 2 * np.log(2 * np.pi) - np.linalg.slogdet(a)[1] / 2 + b @ np.linalg.solve(a, b) / 2
    np.testing.assert_allclose(log_w, expected, atol=5e-4)


@pytest.mark.parametrize("kind", ["heisenberg", "xy"])
def test_open_chains_of_vectors_are_exact(kind: str):
    k = 1 / 0.6
    body, per_site, per_bond = {
        "heisenberg": (HEISENBERG, np.log(4 * np.pi), np.log(np.sinh(k) / k)),
        "xy": (XY, np.log(2 * np.pi), np.log(ive(0, k)) + k),
    }[kind]
    problem = problem_of(f"lattice chain(12, boundary = open)\n{body}temperature 0.6")
    guide = build_sequential(choose_sequential(problem), problem.program, problem.theta)
    _, log_w = drawn(problem, guide, fresh(guide), 1000)
    ln_z, _, ess = ln_z_of(log_w)
    assert ess > 0.999
    assert ln_z == pytest.approx(12 * per_site + 11 * per_bond, abs=2e-3)


def test_ring_of_angles():
    """ln Z = ln Σ_m (2πI_m(K))^N; decimated, the rest starts close to it."""
    problem = problem_of(f"lattice chain(8)\n{XY}temperature 0.7")
    guide = build_sequential(choose_sequential(problem), problem.program, problem.theta)
    _, log_w = drawn(problem, guide, fresh(guide))
    ln_z, error, ess = ln_z_of(log_w)
    k = 1 / 0.7
    expected = np.log(np.sum((ive(np.arange(-40, 41), k) * np.exp(k) * 2 * np.pi) ** 8))
    assert ess > 0.7
    assert abs(ln_z - expected) < 4.5 * error


def test_xy_three_by_three():
    problem = problem_of(f"lattice square(3, 3)\n{XY}temperature 1")
    guide = build_sequential(choose_sequential(problem), problem.program, problem.theta)
    _, log_w = drawn(problem, guide, fresh(guide))
    ln_z, error, ess = ln_z_of(log_w)
    assert ess > 0.9
    assert abs(ln_z - (6.5655204101 + 9 * np.log(2 * np.pi))) < 4.5 * error


@pytest.mark.parametrize(("lam", "expected"), [(8.0, 2.40513896), (6.975, 3.21832892)])
def test_phi4_four_by_four(lam: float, expected: float):
    """Without training: the published transfer-matrix values."""
    text = f"""lattice hypercubic(4, 4)
field phi : real
interaction kinetic = sum(x in sites, mu in axes: phi[x] * (2 * phi[x] - phi[x + mu] - phi[x - mu]))
interaction potential = sum(x in sites: -4 * phi[x]^2 + {lam} * phi[x]^4)
temperature 1"""
    problem = problem_of(text)
    guide = build_sequential(choose_sequential(problem), problem.program, problem.theta)
    _, log_w = drawn(problem, guide, fresh(guide))
    ln_z, error, ess = ln_z_of(log_w)
    assert ess > 0.97
    assert abs(ln_z - expected) < 4.5 * error


# --- laws, at random parameters ---


@pytest.mark.parametrize("name", MODELS)
def test_samples_come_with_their_log_prob(name: str):
    problem, guide = built(name)
    params = random_params(guide, size=0.1)
    x, log_q = eqx.filter_jit(Sequential.sample_and_log_prob)(guide, params, jax.random.key(0), 64)
    again = eqx.filter_jit(Sequential.log_prob)(guide, params, x)
    np.testing.assert_allclose(again, log_q, atol=2e-3)
    own = problem.model.random_configuration(jax.random.key(0), n=64)
    assert {f: (v.shape, v.dtype) for f, v in x.items()} == {f: (v.shape, v.dtype) for f, v in own.items()}


@pytest.mark.parametrize("name", MODELS)
def test_any_parameters_give_the_same_ln_z(name: str):
    """E_q[e^{−βE}/q] = Z whatever q: two guides of one model agree, so both are normalised and sample themselves."""
    problem, guide = built(name)
    found = [
        ln_z_of(drawn(problem, guide, params, 4 * SAMPLES, seed)[1])
        for seed, params in enumerate((fresh(guide), random_params(guide, size=0.05)))
    ]
    (first, error, ess), (second, other, less) = found
    assert min(ess, less) > 0.02
    assert abs(first - second) < 4.5 * np.hypot(error, other)


@pytest.mark.parametrize("name", MODELS)
def test_latents_and_the_rest_make_the_whole(name: str):
    """ln q(x) + βE(x) = ln q(z) + u(z): what training minimises is F_q of the joint, up to interpolation of tables."""
    problem, guide = built(name)
    params = random_params(guide, size=0.1)

    @eqx.filter_jit
    def run(guide: Sequential, params: Any, key: jax.Array) -> tuple:
        z = guide.sample_latent(params, key, 64, jnp.ones(()))
        x, _ = guide.decimated.sample(key, z, guide.beta)
        parts = guide.latent_log_prob(params, z, jnp.ones(())), guide.latent_energy(z, jnp.ones(()))
        x = guide.codec.decode(x)
        return x, guide.log_prob(params, x), *parts

    x, log_q, of_latents, u = run(guide, params, jax.random.key(1))
    whole = np.asarray(log_q) + np.asarray(problem.model.energies(x)) / problem.temperature
    np.testing.assert_allclose(whole, np.asarray(of_latents) + np.asarray(u), atol=0.06)
    assert np.mean(whole - of_latents - u) == pytest.approx(0, abs=0.01)


def test_symmetry():
    """A joint change of sign, a common turn of all angles and of all vectors leave ln q alone, exactly."""
    for name, moved in (
        ("wells", lambda x: {"phi": -x["phi"]}),
        ("elastic", None),
        ("xy", lambda x: {"a": x["a"] + 1.0}),
        ("heisenberg", lambda x: {"S": x["S"] @ np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]}),
    ):
        problem, guide = built(name)
        params = random_params(guide, size=0.2)
        x = {f: np.asarray(v) for f, v in random_configuration(problem.program, np.random.default_rng(1)).items()}
        x = {f: np.stack([v, np.roll(v, 1, 0)]) for f, v in x.items()}
        if moved is None:  # s → −s is a symmetry of this one, and u stays
            moved = lambda x: {"s": -x["s"], "u": x["u"]}  # noqa: E731
        run = eqx.filter_jit(Sequential.log_prob)
        log_q = run(guide, params, x)
        tolerance = 0.02 if name == "xy" else 2e-3  # the tables of angles have fixed nodes
        np.testing.assert_allclose(run(guide, params, moved(x)), log_q, atol=tolerance)


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
