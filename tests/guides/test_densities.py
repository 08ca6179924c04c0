"""Families of one unit against independent quadrature in float64: normalisation, ln Z, samples, gradients."""

from __future__ import annotations

import math
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import i0e, logsumexp

from vdsl.guides.densities import Circle, Family, Flip, Gaussian, Line, Sphere, States

pytestmark = pytest.mark.usefixtures("quick_compilation")

SAMPLES = 10_000
LINE = np.linspace(-9, 9, 18_001)
TURN = np.linspace(-np.pi, np.pi, 4001)[:-1]


@cache
def cases() -> dict[str, tuple[Family, np.ndarray, np.ndarray, np.ndarray]]:
    """family, η (1, F, b), grid, features on the grid (g, F)."""
    rng = np.random.default_rng(0)
    gaussian = np.stack([rng.normal(size=8) * 3, -np.exp(0.5 * rng.normal(size=8))])[None]
    quartic = np.stack(
        [rng.normal(size=8) * 3, rng.normal(size=8) * 2, rng.normal(size=8), -np.exp(rng.normal(size=8))]
    )
    quartic[:, 0] = [0, 20, 0, -8]  # two wells of equal weight
    quartic[:, 1] = [0.5, 20, 0, -4]  # two narrow ones, one of which hardly counts
    quartic[:, 2] = [3, -2, 0, -1e-5]  # a Gaussian but for its last term
    waves = rng.normal(size=(4, 8)) * np.array([2, 2, 0.6, 0.6])[:, None]
    waves[:, 0] = 0
    waves[:, 1] = [0, 0, 2, 0]  # two peaks
    return {
        "gaussian": (Gaussian(), gaussian, LINE, _powers(2)),
        "line": (Line(48), quartic[None], LINE, _powers(4)),
        "circle": (Circle(64), waves[None], TURN, _waves()),
    }


def _powers(most: int) -> np.ndarray:
    return np.stack([LINE**p for p in range(1, most + 1)], 1)


def _waves() -> np.ndarray:
    return np.stack([np.cos(TURN), np.sin(TURN), np.cos(2 * TURN), np.sin(2 * TURN)], 1)


def exact(name: str) -> tuple[np.ndarray, np.ndarray]:
    """ln p on the grid (g, b) and ln Z (b,)."""
    _, eta, grid, features = cases()[name]
    g = features @ eta[0]
    ln_z = logsumexp(g, axis=0) + np.log(grid[1] - grid[0])
    return g - ln_z, ln_z


@eqx.filter_jit
def log_probs(family: Family, eta: jax.Array, x: jax.Array) -> jax.Array:
    """ln q of each of many points at the same η."""
    return jax.vmap(lambda v: family.log_prob(eta, v[None]))(x)


ln_z_of = eqx.filter_jit(lambda family, eta: family.ln_z(eta))
drawn = eqx.filter_jit(lambda family, key, eta: family.sample(key, eta))


@cache
def on_grid(name: str) -> np.ndarray:
    """ln q on the grid, (g, b)."""
    family, eta, grid, _ = cases()[name]
    points = jnp.broadcast_to(jnp.asarray(grid, jnp.float32)[:, None, None], (len(grid), 1, eta.shape[2]))
    return np.asarray(log_probs(family, jnp.asarray(eta, jnp.float32), points), float)[:, 0]


@pytest.mark.parametrize("name", ["gaussian", "line", "circle"])
def test_normalised_and_close_to_the_family(name: str):
    log_p, ln_z = exact(name)
    log_q = on_grid(name)
    family, eta, grid, _ = cases()[name]
    step = grid[1] - grid[0]
    np.testing.assert_allclose(np.exp(log_q).sum(0) * step, 1, atol=2e-5)
    np.testing.assert_allclose(ln_z_of(family, jnp.asarray(eta, jnp.float32))[0], ln_z, atol=2e-5, rtol=1e-6)
    divergence = (np.exp(2 * log_p - log_q)).sum(0) * step - 1  # E_q[w²] − 1: what the table costs
    assert (divergence < (1e-5 if name == "gaussian" else 3e-3)).all()


@pytest.mark.parametrize("name", ["gaussian", "line", "circle"])
def test_samples_follow_the_density(name: str):
    """Kolmogorov-Smirnov distance of the samples to the distribution function of ln q."""
    family, eta, grid, _ = cases()[name]
    many = jnp.repeat(jnp.asarray(eta, jnp.float32), SAMPLES, axis=0)
    x = np.asarray(drawn(family, jax.random.key(1), many), float)[:, 0]
    running = np.cumsum(np.exp(on_grid(name)), axis=0) * (grid[1] - grid[0])
    for k in range(eta.shape[2]):
        u = np.sort(np.interp(x[:, k], grid, running[:, k]))
        distance = np.abs(u - (np.arange(SAMPLES) + 0.5) / SAMPLES).max()
        assert distance < 2.2 / SAMPLES**0.5 + 2e-3  # 2.2/√n: one in 10⁴


def test_both_wells_are_found():
    family, eta, _, _ = cases()["line"]
    x = drawn(family, jax.random.key(1), jnp.repeat(jnp.asarray(eta, jnp.float32), SAMPLES, 0))[..., 0]
    assert float((x > 0).mean()) == pytest.approx(0.5, abs=0.04)
    assert float(jnp.abs(x).min()) > 0.2


@pytest.mark.parametrize("u", [0.0, 1 - 2**-23])
@pytest.mark.parametrize("name", ["line", "circle"])
def test_draws_do_not_stray(name: str, u: float, monkeypatch: pytest.MonkeyPatch):
    """The smallest and the largest uniform number (once in 2²³) lie where the density is, not far out in a tail."""
    monkeypatch.setattr(jax.random, "uniform", lambda key, shape, dtype: jnp.full(shape, u, dtype))
    family, eta, _, _ = cases()[name]
    eta = jnp.asarray(eta, jnp.float32)
    x = family.sample(jax.random.key(0), eta)
    log_q = family.log_prob(eta, x)
    assert float((log_q - jnp.asarray(exact(name)[0].max(0), jnp.float32)).min()) > -20


def test_line_is_positive_everywhere():
    """The tails of a table never end: an importance weight is never infinite."""
    family, eta, _, _ = cases()["line"]
    far = jnp.full((1, 1, eta.shape[2]), 1e3)
    assert np.isfinite(family.log_prob(jnp.asarray(eta, jnp.float32), far)).all()


def test_von_mises():
    kappa = np.array([0.0, 0.5, 3.0, 9.0])
    eta = np.zeros((1, 4, 4))
    eta[0, 0], eta[0, 1] = kappa * np.cos(0.7), kappa * np.sin(0.7)
    found = Circle(64).ln_z(jnp.asarray(eta, jnp.float32))[0]
    np.testing.assert_allclose(found, np.log(2 * np.pi * i0e(kappa)) + kappa, atol=1e-5)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_spheres(n: int):
    """∫dS q = 1 and ln Z by quadrature over the polar angle; samples from where ln q says, with E[w] = 1."""
    rng = np.random.default_rng(n)
    eta = rng.normal(size=(1, n + 1, 5))
    eta[:, :n, 0] = 0
    eta[:, n, 4] = 0
    eta[:, :n, 4] *= 5
    family = Sphere(n, 48)
    kappa, c = np.linalg.norm(eta[0, :n], axis=0), eta[0, n]
    polar = (np.arange(40_000) + 0.5) * np.pi / 40_000
    area = 2 * math.pi ** ((n - 1) / 2) / math.gamma((n - 1) / 2)
    weight = (area * np.sin(polar) ** (n - 2) * np.pi / 40_000)[:, None]
    ln_z = np.log((weight * np.exp(kappa * np.cos(polar)[:, None] + c * np.cos(polar)[:, None] ** 2)).sum(0))
    found = np.asarray(ln_z_of(family, jnp.asarray(eta, jnp.float32)), float)[0]
    np.testing.assert_allclose(found, ln_z, atol=2e-3)
    assert found[4] == pytest.approx(ln_z[4], abs=2e-5)  # without the square: exact for n = 3
    axis = np.where(kappa > 0, eta[0, :n] / np.maximum(kappa, 1e-9), np.eye(n)[:, :1])
    across = np.linalg.svd(axis.T[:, None])[2][:, -1].T  # a unit vector orthogonal to each axis
    points = np.cos(polar[::20])[:, None, None] * axis + np.sin(polar[::20])[:, None, None] * across
    log_q = np.asarray(log_probs(family, jnp.asarray(eta, jnp.float32), jnp.asarray(points, jnp.float32)), float)[:, 0]
    np.testing.assert_allclose((20 * weight[::20] * np.exp(log_q)).sum(0), 1, atol=2e-3)
    many = jnp.repeat(jnp.asarray(eta, jnp.float32), SAMPLES, axis=0)
    s = drawn(family, jax.random.key(0), many)
    np.testing.assert_allclose(jnp.sum(s**2, axis=1), 1, atol=1e-5)
    again = np.asarray(eqx.filter_jit(lambda f, e, x: f.log_prob(e, x))(family, many, s), float)
    s = np.asarray(s, float)
    t = np.einsum("snb,nb->sb", s, axis)
    w = np.exp(np.einsum("snb,nb->sb", s, eta[0, :n]) + c * t**2 - again - ln_z)
    np.testing.assert_array_less(np.abs(w.mean(0) - 1), 5 * w.std(0) / SAMPLES**0.5 + 1e-4)
    assert w.var(0).max() < 2e-3
    one = s[:, :, 0].mean(0)  # η = 0: uniform
    assert np.abs(one).max() < 5 / (n * SAMPLES) ** 0.5


def test_spins_and_states():
    eta = np.random.default_rng(0).normal(size=(1, 3, 4))
    values = jnp.arange(3.0)[:, None, None] * jnp.ones((1, 1, 4))
    log_q = States().log_prob(jnp.repeat(jnp.asarray(eta), 3, 0), values)
    np.testing.assert_allclose(np.exp(log_q), np.exp(eta[0] - logsumexp(eta[0], axis=0)), rtol=1e-5)
    np.testing.assert_allclose(States().ln_z(jnp.asarray(eta))[0], logsumexp(eta[0], axis=0), rtol=1e-5)
    up = Flip().log_prob(jnp.asarray(eta[:, :1]), jnp.ones((1, 1, 4)))[0]
    np.testing.assert_allclose(np.exp(up), 1 / (1 + np.exp(-2 * eta[0, 0])), rtol=1e-5)
    drawn = Flip().sample(jax.random.key(0), jnp.repeat(jnp.asarray(eta[:, :1]), SAMPLES, 0))[:, 0]
    np.testing.assert_allclose(drawn.mean(0), np.tanh(eta[0, 0]), atol=5 / SAMPLES**0.5)
    states = States().sample(jax.random.key(0), jnp.repeat(jnp.asarray(eta), SAMPLES, 0))[:, 0]
    np.testing.assert_allclose((np.asarray(states) == 1).mean(0), np.exp(log_q[1]), atol=3 / SAMPLES**0.5)


@pytest.mark.parametrize("name", ["gaussian", "line", "circle"])
def test_gradient_of_the_log_prob(name: str):
    """∂ ln q/∂η = features − their mean, up to the interpolation: what the score function is made of."""
    family, eta, grid, features = cases()[name]
    log_p, _ = exact(name)
    mean = np.exp(log_p).T @ features * (grid[1] - grid[0])  # (b, F)
    at = len(grid) * 11 // 20
    point = jnp.full((1, 1, eta.shape[2]), grid[at], jnp.float32)
    run = eqx.filter_jit(lambda f, e: jax.grad(lambda y: jnp.sum(f.log_prob(y, point)))(e))
    found = np.asarray(run(family, jnp.asarray(eta, jnp.float32)), float)[0].T
    np.testing.assert_allclose(found, features[at] - mean, atol=0.03, rtol=0.02)
