"""Conditionals of one group element -> exact draws: von Mises on the circle, subgroups of SU(2) in SU(N).

Rejection makes a fixed number of tries and keeps the old value where all fail. Whether they fail does not depend on the
old value, so that the update still leaves the conditional alone: it is, now and then, no update at all.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
from jax import Array

TRIES = 12


def draw_von_mises(key: Array, a: Array, b: Array, old: Array) -> Array:
    """Angles with density ∝ e^{−a cos θ − b sin θ}.

    Best & Fisher 1979, Appl. Statist. 28, 152: with a wrapped Cauchy of any r > 1 as the envelope the ratio is
    c e^{1−c} for c = κ(r − f), which is at most 1; their r is the best.
    """
    kappa = jnp.maximum(jnp.hypot(a, b), 1e-4)
    tau = 1 + jnp.sqrt(1 + 4 * kappa**2)
    rho = (tau - jnp.sqrt(2 * tau)) / (2 * kappa)
    r = jnp.where(kappa < 0.03, 1 / kappa, (1 + rho**2) / (2 * rho))

    def attempt(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], None]:
        theta, done = carry
        u = jax.random.uniform(key, (3, *kappa.shape), kappa.dtype)
        z = jnp.cos(jnp.pi * u[0])
        f = (1 + r * z) / (r + z)
        c = kappa * (r - f)
        accepted = u[1] < c * jnp.exp(1 - c)
        angle = jnp.where(u[2] < 0.5, -1.0, 1.0) * jnp.arccos(jnp.clip(f, -1, 1))
        return (jnp.where(accepted & ~done, jnp.arctan2(-b, -a) + angle, theta), done | accepted), None

    start = (old, jnp.zeros(old.shape, bool))
    return jax.lax.scan(attempt, start, jax.random.split(key, TRIES))[0][0]


def draw_special_unitary(key: Array, u: Array, staple: Array, mask: Array) -> Array:
    """Matrices U (…, N, N) updated in every SU(2) subgroup for the density ∝ e^{Re tr(U A)}, where masked.

    A = `staple`, (…, N, N). For N = 2 that is the heat bath of Creutz 1980 (Phys. Rev. D 21, 2308), for N = 3 Cabibbo &
    Marinari's (1982, Phys. Lett. B 119, 387).
    """
    n = u.shape[-1]
    for number, (i, j) in enumerate(itertools.combinations(range(n), 2)):
        w = u @ staple
        # Re tr(a W) of a in SU(2) sees W's part k V, V in SU(2)
        alpha = (w[..., i, i] + w[..., j, j].conj()) / 2
        beta = (w[..., i, j] - w[..., j, i].conj()) / 2
        k = jnp.sqrt(jnp.abs(alpha) ** 2 + jnp.abs(beta) ** 2)
        x, accepted = _quaternion(jax.random.fold_in(key, number), 2 * k)
        safe = jnp.maximum(k, jnp.finfo(k.dtype).tiny)
        v = _matrix(jnp.where(k > 0, alpha / safe, 1.0), jnp.where(k > 0, beta / safe, 0.0))
        a = _matrix(x[0] + 1j * x[3], x[2] + 1j * x[1]) @ v.conj().swapaxes(-1, -2)
        rows = u[..., jnp.array([i, j]), :]
        rows = jnp.where((mask & accepted)[..., None, None], a @ rows, rows)
        u = u.at[..., jnp.array([i, j]), :].set(rows)
    return u


def _quaternion(key: Array, alpha: Array) -> tuple[tuple[Array, ...], Array]:
    """(x₀, x₁, x₂, x₃) of length 1 with density ∝ e^{α x₀} on the sphere, and whether one was found."""
    along, around = jax.random.split(key)
    x0, done = _cosine(along, alpha)
    azimuth, height = jax.random.uniform(around, (2, *alpha.shape), alpha.dtype)
    radius, z = jnp.sqrt(jnp.maximum(1 - x0**2, 0)), 2 * height - 1
    ring = radius * jnp.sqrt(1 - z**2)
    return (x0, ring * jnp.cos(2 * jnp.pi * azimuth), ring * jnp.sin(2 * jnp.pi * azimuth), radius * z), done


def _cosine(key: Array, alpha: Array) -> tuple[Array, Array]:
    """x in (−1, 1) with density ∝ √(1 − x²) e^{αx}, and whether one was found.

    Small α: x from e^{αx}, accepted with √(1 − x²) (Creutz). Large α: 1 − x from a Gamma(3/2) variable, accepted with
    √(1 − (1 − x)/2) (Kennedy & Pendleton 1985, Phys. Lett. B 156, 393).
    """
    small = jnp.maximum(alpha, 1e-4)

    def attempt(carry: tuple[Array, Array], key: Array) -> tuple[tuple[Array, Array], None]:
        x, done = carry
        u = 1 - jax.random.uniform(key, (4, *alpha.shape), alpha.dtype)  # in (0, 1]
        creutz = 1 + jnp.log1p(u[0] * jnp.expm1(-2 * small)) / small
        delta = -(jnp.log(u[0]) * jnp.cos(2 * jnp.pi * u[1]) ** 2 + jnp.log(u[2])) / small
        large = alpha > 2
        new = jnp.where(large, 1 - delta, creutz)
        bound = jnp.where(large, 1 - delta / 2, 1 - creutz**2)
        accepted = u[3] ** 2 <= bound
        return (jnp.where(accepted & ~done, new, x), done | accepted), None

    start = (jnp.zeros_like(alpha), jnp.zeros(alpha.shape, bool))
    return jax.lax.scan(attempt, start, jax.random.split(key, TRIES))[0]


def _matrix(alpha: Array, beta: Array) -> Array:
    """[[α, β], [−β*, α*]]."""
    top, bottom = jnp.stack([alpha, beta], -1), jnp.stack([-beta.conj(), alpha.conj()], -1)
    return jnp.stack([top, bottom], -2)
