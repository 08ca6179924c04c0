"""Bijectors: monotone maps of one variable, applied entry for entry, with ln of their derivative and their inverse.

A rational-quadratic spline (Gregory & Delbourgo 1982; Durkan et al. 2019, arXiv:1906.04032, eq. 4–8) through knots
(x_k, y_k) with slopes d_k is, with ξ = (x − x_k)/w, w, h the bin's width and height and s = h/w,

    y = y_k + h (s ξ² + d_k ξ(1 − ξ)) / (s + (d_{k+1} + d_k − 2s) ξ(1 − ξ)).

Four kinds, by where it lives and what it commutes with; all are the identity where the raw parameters are 0:

| kind         | on        | ends                                                        | raw parameters, K bins |
|--------------|-----------|-------------------------------------------------------------|------------------------|
| "line"       | [−B, B]   | slope 1, the identity beyond                                | 3K − 1                 |
| "odd line"   | [0, B]    | mirrored at 0, slope there free; slope 1 at B, the identity beyond | 3K              |
| "circle"     | [−π, π]   | slopes at ±π equal; ±π stays                                | 3K                     |
| "odd circle" | [0, π]    | mirrored at 0, which stays, and at π                        | 3K + 1                 |

Positions are clipped into the spline's interval *before* it is evaluated and the identity is chosen outside, so that
neither branch of the choice has an infinite derivative.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Kind = Literal["line", "odd line", "circle", "odd circle"]
BOUND = 4.0  # of splines on the line, in units of the typical spread
_LEAST_BIN = 1e-3  # of the interval
_LEAST_SLOPE = 1e-3


def spline_parameters(kind: Kind, bins: int) -> int:
    """How many raw parameters a spline has."""
    return {"line": 3 * bins - 1, "odd line": 3 * bins, "circle": 3 * bins, "odd circle": 3 * bins + 1}[kind]


def spline(kind: Kind, x: Array, raw: Array, bins: int) -> tuple[Array, Array]:
    """y and ln dy/dx; x (...), raw (..., parameters). Angles in [−π, π]."""
    inside, t, sign = _fold(kind, x)
    xs, ys, slopes = _knots(kind, raw, bins)
    (x0, x1), (y0, y1), (d0, d1) = _bin(t, xs, xs, ys, slopes)
    xi = jnp.clip((t - x0) / (x1 - x0), 0.0, 1.0)
    s = (y1 - y0) / (x1 - x0)
    both = xi * (1 - xi)
    below = s + (d1 + d0 - 2 * s) * both  # ≥ min(s, (d0 + d1)/2) > 0: it is linear in ξ(1 − ξ) ∈ [0, ¼]
    y = y0 + (y1 - y0) * (s * xi**2 + d0 * both) / below
    log_slope = 2 * jnp.log(s) + jnp.log(d1 * xi**2 + 2 * s * both + d0 * (1 - xi) ** 2) - 2 * jnp.log(below)
    return jnp.where(inside, sign * y, x), jnp.where(inside, log_slope, 0.0)


def inverse_spline(kind: Kind, y: Array, raw: Array, bins: int) -> tuple[Array, Array]:
    """x with spline(x) = y, and ln dx/dy. The root of a ξ² + b ξ + c that no cancellation spoils (eq. 6–8)."""
    inside, t, sign = _fold(kind, y)
    xs, ys, slopes = _knots(kind, raw, bins)
    (x0, x1), (y0, y1), (d0, d1) = _bin(t, ys, xs, ys, slopes)
    s, rise = (y1 - y0) / (x1 - x0), t - y0
    excess = d1 + d0 - 2 * s
    a = (y1 - y0) * (s - d0) + rise * excess
    b = (y1 - y0) * d0 - rise * excess
    c = -s * rise
    xi = jnp.clip(2 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0.0))), 0.0, 1.0)
    both = xi * (1 - xi)
    below = s + excess * both
    log_slope = 2 * jnp.log(s) + jnp.log(d1 * xi**2 + 2 * s * both + d0 * (1 - xi) ** 2) - 2 * jnp.log(below)
    x = x0 + xi * (x1 - x0)
    return jnp.where(inside, sign * x, y), jnp.where(inside, -log_slope, 0.0)


def sinh_arcsinh(x: Array, log_tail: Array) -> tuple[Array, Array]:
    """y = sinh(δ arcsinh x), δ = exp(log_tail), and ln dy/dx: odd; δ < 1 makes tails lighter (Jones & Pewsey 2009)."""
    u = jnp.arcsinh(x)
    v = jnp.exp(log_tail) * u
    return jnp.sinh(v), log_tail + _log_cosh(v) - _log_cosh(u)


def wrap(x: Array) -> Array:
    """An angle brought into [−π, π]; its derivative is 1."""
    return x - 2 * jnp.pi * jax.lax.stop_gradient(jnp.round(x / (2 * jnp.pi)))


def _log_cosh(x: Array) -> Array:
    return jnp.abs(x) + jnp.log1p(jnp.exp(-2 * jnp.abs(x))) - np.log(2)


def _fold(kind: Kind, x: Array) -> tuple[Array, Array, Array]:
    """Whether x is inside, its place in [0, 1] of the spline's interval (clipped), and what undoes the folding."""
    match kind:
        case "line":
            inside = jnp.abs(x) < BOUND
            return inside, jnp.where(inside, x, 0.0), jnp.ones_like(x)
        case "odd line":
            inside = jnp.abs(x) < BOUND
            return inside, jnp.where(inside, jnp.abs(x), 0.5 * BOUND), jnp.where(x < 0, -1.0, 1.0)
        case "circle":
            return jnp.ones(x.shape, bool), jnp.clip(x, -jnp.pi, jnp.pi), jnp.ones_like(x)
        case "odd circle":
            return jnp.ones(x.shape, bool), jnp.clip(jnp.abs(x), 0.0, jnp.pi), jnp.where(x < 0, -1.0, 1.0)


def _knots(kind: Kind, raw: Array, bins: int) -> tuple[Array, Array, Array]:
    """(..., K + 1) positions, values and slopes."""
    low, high = {
        "line": (-BOUND, BOUND),
        "odd line": (0.0, BOUND),
        "circle": (-np.pi, np.pi),
        "odd circle": (0.0, np.pi),
    }[kind]
    xs = _steps(raw[..., :bins], low, high)
    ys = _steps(raw[..., bins : 2 * bins], low, high)
    slope = _LEAST_SLOPE + (1 - _LEAST_SLOPE) * jax.nn.softplus(raw[..., 2 * bins :] + np.log(np.e - 1))
    one = jnp.ones((*raw.shape[:-1], 1), raw.dtype)
    match kind:
        case "line":
            slope = jnp.concatenate([one, slope, one], -1)
        case "odd line":
            slope = jnp.concatenate([slope, one], -1)
        case "circle":
            slope = jnp.concatenate([slope, slope[..., :1]], -1)
    return xs, ys, slope


def _steps(raw: Array, low: float, high: float) -> Array:
    """Increasing positions from low to high, exactly; equally spaced for raw = 0."""
    bins = raw.shape[-1]
    width = _LEAST_BIN + (1 - bins * _LEAST_BIN) * jax.nn.softmax(raw, axis=-1)
    inner = low + (high - low) * jnp.cumsum(width, axis=-1)[..., :-1]
    end = jnp.ones((*raw.shape[:-1], 1), raw.dtype)
    return jnp.concatenate([low * end, inner, high * end], -1)


def _bin(t: Array, by: Array, *knots: Array) -> list[tuple[Array, Array]]:
    """Of each array of knots, the two at the ends of the bin that t is in (by its position among `by`)."""
    above = t[..., None] >= by[..., 1:-1]
    one = jnp.ones((*above.shape[:-1], 1), bool)
    hot = jnp.concatenate([one, above], -1) & ~jnp.concatenate([above, ~one], -1)
    return [
        (jnp.sum(jnp.where(hot, k[..., :-1], 0.0), -1), jnp.sum(jnp.where(hot, k[..., 1:], 0.0), -1)) for k in knots
    ]
