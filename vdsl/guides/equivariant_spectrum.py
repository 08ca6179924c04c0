"""Spectrum: angles of the eigenvalues, and eigenvectors, of SU(3) matrices with the batch last, differentiable.

Rotations of two basis vectors at a time make the Hermitian and the anti-Hermitian part diagonal together (Jacobi's
method for two commuting matrices: Cardoso & Souloumiac 1996, SIAM J. Matrix Anal. Appl. 17, 161). It stays accurate
where eigenvalues are close, which a formula for the roots of the characteristic polynomial does not.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

_SWEEPS = 5  # off-diagonal entries shrink quadratically; after 4 they are at rounding
_TINY = 1e-30


@jax.custom_jvp
def eigen(u: Array) -> tuple[Array, Array]:
    """φ (3, …) and V (3, 3, …) with u = V diag(e^{iφ}) V†; u (3, 3, …). Angles in (−π, π], in no order."""
    vectors = jnp.broadcast_to(jnp.eye(3, dtype=u.dtype).reshape(3, 3, *(1,) * (u.ndim - 2)), u.shape)

    def sweep(_: int, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        m, v = carry
        for p, q in ((0, 1), (0, 2), (1, 2)):
            m, v = _rotated(m, v, p, q)
        return m, v

    m, vectors = jax.lax.fori_loop(0, _SWEEPS, sweep, (u, vectors))
    diagonal = jnp.stack([m[k, k] for k in range(3)])
    return jnp.angle(diagonal), vectors


@eigen.defjvp
def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """With V†dP V = D: dφ_k = Im(D_kk λ_k*), dV = V K, K_jk = D_jk / (λ_k − λ_j) off the diagonal (first order)."""
    (u,), (du,) = primals, tangents
    angles, v = eigen(u)
    values = jax.lax.complex(jnp.cos(angles), jnp.sin(angles)).astype(u.dtype)
    inside = _product(_product(v.conj().swapaxes(0, 1), du), v)
    d_angles = jnp.stack([(inside[k, k] * values[k].conj()).imag for k in range(3)])
    gap = values[None] - values[:, None]
    size = gap.real**2 + gap.imag**2
    inverse = jnp.where(size > 1e-12, gap.conj() / jnp.maximum(size, _TINY), 0.0)
    return (angles, v), (d_angles, _product(v, inside * inverse))


def _rotated(m: Array, v: Array, p: int, q: int) -> tuple[Array, Array]:
    """m → R†mR, v → vR with the rotation of p and q that makes both parts of m most nearly diagonal there."""
    # One real vector for each part A: (a_pp − a_qq, 2 Re a_pq, 2 Im a_pq); the axis is the main one of the two.
    gap, plus, minus = m[p, p] - m[q, q], m[p, q] + m[q, p].conj(), m[p, q] - m[q, p].conj()
    hermitian = (gap.real, plus.real, plus.imag)
    other = (gap.imag, minus.imag, -minus.real)  # of (m − m†)/2i
    h = lambda a, b: a[0] * b[0] + a[1] * b[1] + a[2] * b[2]  # noqa: E731
    angle = 0.5 * jnp.arctan2(2 * h(hermitian, other), h(hermitian, hermitian) - h(other, other))
    c, s = jnp.cos(angle), jnp.sin(angle)
    x, y, z = (c * a + s * b for a, b in zip(hermitian, other, strict=True))
    length = jnp.sqrt(x * x + y * y + z * z)
    flat = length <= 1e-18
    scale = jnp.where(x < 0, -1.0, 1.0) / jnp.where(flat, 1.0, length)
    x, y, z = jnp.where(flat, 1.0, x * scale), jnp.where(flat, 0.0, y * scale), jnp.where(flat, 0.0, z * scale)
    cosine = jnp.sqrt(0.5 * (x + 1))
    sine = jax.lax.complex(y, -z) / (2 * cosine)
    m = _columns(m, p, q, cosine, sine)
    m = _columns(m.conj().swapaxes(0, 1), p, q, cosine, sine).conj().swapaxes(0, 1)
    return m, _columns(v, p, q, cosine, sine)


def _columns(m: Array, p: int, q: int, c: Array, s: Array) -> Array:
    """Columns p and q times ((c, −s*), (s, c))."""
    one, two = m[:, p] * c + m[:, q] * s, m[:, q] * c - m[:, p] * s.conj()
    return m.at[:, p].set(one).at[:, q].set(two)


def _product(x: Array, y: Array) -> Array:
    return sum(x[:, k, None] * y[None, k] for k in range(3))  # type: ignore[return-value]
