"""Spheres: moves of U(1) and SU(2) links, which are points of S¹ and S³, along sums of frozen paths.

A link x of S^m, m = dim G, goes along the gradients of a linear and of a quadratic function, in closed form both:

    v·x          v = Σ_i (c_i S_i† + k_i B_i†)     a conformal map (`conformal_flow`)
    ½ κ (R·x)²   R = Σ_i S_i†                      x' = Ax/|Ax|, A = 1 + (e^{κR²} − 1) R̂R̂ᵀ, |∂x'/∂x| = det A/|Ax|^{m+1}

S_i: the staples; B_i: the sum of the paths that a staple becomes where one of its sides is bent out of its plane
(`links`). On U(1) d_i Im P_i is added to the first. These are the terms of a trivializing map up to the second order
in β (Lüscher 2010, arXiv:0907.5491), but for those that move 1×2 loops of one plane: of those links always two move.

**How far.** Of the weight e^{β Re tr P /N} of each plaquette let e^{r Re tr P /N} be left, r from β to 0 while links
move. Moving by c lowers r by mc and leaves, to second order, for every pair of plaquettes at the link

    (1/m) Δ(r_i r_j) (s_i·s_j − (s_i·x)(s_j·x)),   s_i = S_i†,   (s_i·x)(s_j·x) = s_i·s_j/(m+1) + harmonic of degree 2,

and half of that for i = j. If the four links of a plaquette share the way alike then Δ(r_i r_j) adds up to β²/4 for
each, however many steps there are. The harmonics of all pairs are undone by −(m+1)κ = β²/8m. The loops s_i·s_j are
left with weight β²/4(m+1); at a right angle four of their six links move them at a time when the others stand still,
each undoing m k. In all

    c = β/4m,   κ = −β²/8m(m+1),   k = β²/16m(m+1),

divided by the number of sweeps. Higher orders ask for less of the last two: a fit of common factors to U(1) on 4⁴ at
β = 0.5 and SU(2) at β = 1 gives 1 − 0.50 β² and 1 − 0.15 β², and c as it is; they start divided by 1 + β²/2m.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from vdsl.guides.equivariant_moves import Move, conformal_flow
from vdsl.guides.links_algebra import entries

_TINY = 1e-24


class Spherical(Move):
    """Even numbers: c, κ (its mean over staples) and k; odd, on U(1): d."""

    @property
    def even(self) -> int:
        return 3

    @property
    def odd(self) -> int:
        return 0 if self.group.real else 1

    def start(self, beta: float) -> list[float]:
        """c, κ and k of the whole way. beta: the weight of Re tr P /N."""
        m = self.group.dimension
        second = beta**2 / (1 + beta**2 / (2 * m)) / (16 * m * (m + 1))
        return [beta / (4 * m), -2 * second, second]

    def __call__(self, u: Array, staples: Any, even: Array, odd: Array, back: bool) -> tuple[Array, Array]:
        """staples: two arrays (*g, S, A, b), the plain ones, and those bent; 0 where there are none."""
        plain, bent = staples
        c, kappa, k = entries(even)
        v = self.group.adjoint((c * plain + k * bent).sum(1))
        if self.odd:
            turning = (odd[0] * plain).sum(1)
            v = v + turning[::-1]  # i times the adjoint
        r, kappa = self.group.adjoint(plain.sum(1)), kappa.mean(0)
        if back:
            u, first = stretch(u, r, -kappa)
            u, last = conformal_flow(u, -v)
        else:
            u, first = conformal_flow(u, v)
            u, last = stretch(u, r, kappa)
        return u, first + last


def stretch(x: Array, r: Array, kappa: Array) -> tuple[Array, Array]:
    """The flow of dx/dt = κ (r·x)(r − (r·x)x) on a sphere for unit time; ln of its Jacobian. The inverse: −κ."""
    size = (r * r).sum(0) + _TINY
    along = (r * x).sum(0)
    moved = x + r * (along * jnp.expm1(kappa * size) / size)
    square = (moved * moved).sum(0)
    return moved / jnp.sqrt(square), kappa * size - 0.5 * len(x) * jnp.log(square)
