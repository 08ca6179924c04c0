"""Integrate: flows of one variable in closed form, the others frozen, with their exact log-derivatives.

A continuous flow dx/dt = v(x, t) is integrated by splitting: in turn, the variables of one colour move while all others
stand still. The velocity of one variable alone is made of parts whose flow is known in closed form,

    dx/dt = s x + c                     the affine flow,
    dx/dt = (a sin νx + b cos νx)/ν     the rotor flow: a Möbius map of the circle e^{iνx},

so that every step of the integrator is a bijection whose inverse and Jacobian are exact, however long the step is. What
step length changes is which map is learned, never whether ln q is its density.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

_TINY = 1e-24  # keeps the square root differentiable at amplitude 0


def affine_flow(x: Array, log_scale: Array, shift: Array) -> tuple[Array, Array]:
    """e^s (x + c) and ln of its derivative: half of nothing is approximated, shift first and then scale."""
    return jnp.exp(log_scale) * (x + shift), log_scale


def affine_flow_inverse(y: Array, log_scale: Array, shift: Array) -> tuple[Array, Array]:
    """The inverse and ln of its derivative."""
    return jnp.exp(-log_scale) * y - shift, -log_scale


def rotor_flow(u: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """The flow of du/dt = v(u) = a sin u + b cos u for unit time, and ln of its derivative. The inverse: −a, −b.

    On z = e^{iu} it is the Möbius map z → (z − w)/(1 − w̄z), w̄ = g (a + ib), g = tanh(r/2)/r, r = √(a² + b²); hence

        u' = u + 2 arctan(g v / (1 − g v')),    du'/du = 1 / (cosh²(r/2) [(1 − g v')² + (g v)²]),  v' = dv/du,

    which has no singular point: |g v'| < 1, and no phase or modulus of (a, b) is taken alone.
    """
    radius = jnp.sqrt(a * a + b * b + _TINY)
    gain = jnp.tanh(0.5 * radius) / radius
    sine, cosine = jnp.sin(u), jnp.cos(u)
    across, along = gain * (a * sine + b * cosine), 1.0 - gain * (a * cosine - b * sine)
    moved = u + 2.0 * jnp.arctan2(across, along)
    # ln cosh²(r/2) = r + 2 ln(1 + e^{−r}) − 2 ln 2, without overflow
    log_slope = -(radius + 2.0 * jnp.log1p(jnp.exp(-radius)) - 2.0 * jnp.log(2.0)) - jnp.log(along**2 + across**2)
    return moved, log_slope
