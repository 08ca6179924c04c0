"""Densities of lengths against their formula on a fine grid: values, samples, derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdsl.guides.rays import Ray

pytestmark = pytest.mark.usefixtures("quick_compilations")

SAMPLES = 4000
RAY = Ray(64)
ETAS = {
    "Gaussian": [0.0, -0.5],
    "exponential": [-3.0, -0.01],
    "ring": [0.3, 2.0, 0.1, -0.7],
    "narrow ring": [0.0, 200.0, 0.0, -100.0],
    "two humps": [-9.0, 12.0, 0.0, -1.5],
    "far out": [30.0, -20.0, 0.0, -0.5],
    "no quadratic part": [0.0, 0.0, 0.0, -1e-3],
}


def exact(eta: list[float]) -> tuple[np.ndarray, np.ndarray, float]:
    """r, the density with respect to r dr on a fine grid, and ln Z."""
    r = np.linspace(0, 30, 400_001)
    g = r[:, None] ** np.arange(1, len(eta) + 1) @ np.array(eta)
    total = np.trapezoid(r * np.exp(g - g.max()), r)
    return r, np.exp(g - g.max()) / total, float(np.log(total) + g.max())


def column(eta: list[float], b: int = 1) -> jax.Array:
    return jnp.broadcast_to(jnp.array(eta)[None, :, None], (1, len(eta), b))


@pytest.mark.parametrize("name", ETAS)
def test_density_and_ln_z(name: str) -> None:
    r, p, ln_z = exact(ETAS[name])
    at = r[1:][r[1:] * p[1:] > 1e-3 * (r * p).max()][::50]
    eta = column(ETAS[name], len(at))
    own = np.asarray(RAY.log_prob(eta, jnp.array(at)[None, None])[0], float)
    np.testing.assert_allclose(own, np.log(np.interp(at, r, p)), atol=0.08)
    assert float(RAY.ln_z(column(ETAS[name]))[0, 0]) == pytest.approx(ln_z, abs=2e-3)


@pytest.mark.parametrize("name", ETAS)
def test_it_is_normalised(name: str) -> None:
    """To rounding, and not only to the accuracy of the table; what lies beyond its ends included."""
    r = np.concatenate([np.linspace(1e-6, 20, 200_001), np.geomspace(20.001, 2000, 20_001)])
    q = np.exp(np.asarray(RAY.log_prob(column(ETAS[name], len(r)), jnp.array(r)[None, None])[0], float))
    assert np.trapezoid(r * q, r) == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("name", ETAS)
def test_samples_are_as_they_say(name: str) -> None:
    """Kolmogorov's distance, exceeded once in a thousand times."""
    r, p, _ = exact(ETAS[name])
    draws = np.sort(np.asarray(RAY.sample(jax.random.key(1), column(ETAS[name], SAMPLES))[0, 0], float))
    assert draws[0] > 0
    cumulative = np.concatenate([[0], np.cumsum((r * p)[1:] * np.diff(r))])
    distance = np.abs(np.interp(draws, r, cumulative) - (np.arange(SAMPLES) + 0.5) / SAMPLES).max()
    assert distance < 1.95 / SAMPLES**0.5


@pytest.mark.parametrize("name", ["ring", "two humps"])
def test_derivatives(name: str) -> None:
    """Of ln q by η: powers less their averages; of ln Z: the averages."""
    r, p, _ = exact(ETAS[name])
    averages = [np.trapezoid(r ** (k + 1) * p, r) for k in range(1, 5)]
    at, eta = jnp.full((1, 1, 1), 1.1), column(ETAS[name])
    slope = np.asarray(jax.grad(lambda e: RAY.log_prob(e, at)[0, 0])(eta))[0, :, 0]
    np.testing.assert_allclose(slope, 1.1 ** np.arange(1, 5) - averages, atol=0.02)
    np.testing.assert_allclose(np.asarray(jax.grad(lambda e: RAY.ln_z(e)[0, 0])(eta))[0, :, 0], averages, rtol=5e-3)
