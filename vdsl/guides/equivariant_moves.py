"""Moves of links along frozen staples: bijections with exact inverses and exact log-determinants (Haar to Haar).

A link U with staples S_i has the plaquettes P_i = U S_i. Under a gauge transformation U → g U h†, S_i → h S_i g†, so
that whatever is made of U and the S_i by products, and of numbers that do not change, follows along.

- `Summed`: U flows for unit time along the gradient of Σ_i c_i Re tr P_i /N, and Im with d_i, in closed form. On S¹ and
  on S³ it is the gradient of a linear function, a conformal map: dx/dt = v − (v·x)x with v = Σ c_i S_i†. On U(1) the
  same for cos kP, one k after the other: Möbius maps of e^{ikθ} (trivializing flows: Lüscher 2010, arXiv:0907.5491).
- `Loopwise`: one plaquette after another, P_i → f(P_i), U → f(P_i) P_i† U. f moves the eigenvalues' angles and keeps
  the eigenvectors (spectral flow: Boyda et al. 2021, arXiv:2008.05456). With m any monotone map of the circle,

      φ_k → m(φ_k) − s,   s = mean_k (m(φ_k) − φ_k),   |∂φ'/∂φ| = Π_k m'(φ_k) · mean_k 1/m'(φ_k),

  keeps Σφ_k = 0 and commutes with permutations; to be inverted, one equation Σ_k m⁻¹(φ'_k + s) = 0 is solved, whose
  left side increases in s. Haar adds Π_{j<k} sin²((φ'_j − φ'_k)/2) / sin²((φ_j − φ_k)/2). m is a Möbius map with
  velocity −c sin φ + d cos φ, then a circular spline.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from vdsl.guides.arrays import stored
from vdsl.guides.bijectors import Kind, inverse_spline, spline, wrap
from vdsl.guides.equivariant_spectrum import eigen
from vdsl.guides.integrate import rotor_flow
from vdsl.guides.links_algebra import LinkGroup, Matrices, Phases, Quaternions

_TINY = 1e-24


class Move(eqx.Module):
    """The protocol. Numbers for each staple and link come as even (E, S, A, b) and odd (O, S, A, b) arrays.

    Odd ones change sign when every link is replaced by its complex conjugate. All zero: the identity.
    """

    group: LinkGroup = eqx.field(static=True)

    @property
    @abstractmethod
    def even(self) -> int:
        """E."""

    @property
    @abstractmethod
    def odd(self) -> int:
        """O."""

    @abstractmethod
    def __call__(self, u: Array, staples: Array, even: Array, odd: Array, back: bool) -> tuple[Array, Array]:
        """u (*g, A, b), staples (*g, S, A, b) -> the moved links, and ln|det| (A, b) of the way taken."""


class Summed(Move):
    """For U(1) and SU(2). harmonics: k = 1 … of U(1); 1 for SU(2)."""

    harmonics: int = eqx.field(static=True)

    @property
    def even(self) -> int:
        return self.harmonics

    @property
    def odd(self) -> int:
        return 0 if self.group.real else self.harmonics

    def __call__(self, u: Array, staples: Array, even: Array, odd: Array, back: bool) -> tuple[Array, Array]:
        if isinstance(self.group, Quaternions):
            v = (even[0] * self.group.adjoint(staples)).sum(1)
            return conformal_flow(u, -v if back else v)
        log_det = jnp.zeros_like(u)
        for k in reversed(range(self.harmonics)) if back else range(self.harmonics):
            sine, cosine = jnp.sin((k + 1) * staples), jnp.cos((k + 1) * staples)
            a = (-even[k] * cosine - odd[k] * sine).sum(0)
            b = (-even[k] * sine + odd[k] * cosine).sum(0)
            start = (k + 1) * u
            moved, slope = rotor_flow(start, -a, -b) if back else rotor_flow(start, a, b)
            u, log_det = u + (moved - start) / (k + 1), log_det + slope
        return u, log_det


class Loopwise(Move):
    """For every group. bins: of the spline after the Möbius map, 0 for none."""

    bins: int = eqx.field(static=True)

    @property
    def even(self) -> int:
        if self.bins == 0:
            return 1
        return 1 + (3 * self.bins + 1 if self.group.real else 3 * self.bins)

    @property
    def odd(self) -> int:
        return 0 if self.group.real else 1

    def __call__(self, u: Array, staples: Array, even: Array, odd: Array, back: bool) -> tuple[Array, Array]:
        def one(carry: tuple[Array, Array], entry: tuple[Array, ...]) -> tuple[tuple[Array, Array], None]:
            (link, log_det), (staple, plain, turning) = carry, entry
            moved, slope = self._one(link, staple, plain, turning, back)
            return (moved, log_det + slope), None

        over = (jnp.moveaxis(staples, self.group.rank, 0), jnp.moveaxis(even, 1, 0), jnp.moveaxis(odd, 1, 0))
        start = (u, jnp.zeros(u.shape[self.group.rank :], even.dtype))
        return jax.lax.scan(one, start, over, reverse=back)[0]

    def _one(self, u: Array, staple: Array, even: Array, odd: Array, back: bool) -> tuple[Array, Array]:
        group, loop = self.group, self.group.multiply(u, staple)
        turn = odd[0] if self.odd else jnp.zeros_like(even[0])
        raw = jnp.moveaxis(even[1:], 0, -1)
        match group:
            case Phases():
                moved, slope = circle_map(loop, even[0], turn, raw, self.bins, False, back)
                return u + moved - loop, slope
            case Quaternions():
                across = jnp.sqrt((loop[1:] ** 2).sum(0) + _TINY)
                angle = jnp.arctan2(across, loop[0])
                moved, slope = circle_map(angle, even[0], turn, raw, self.bins, True, back)
                by = moved - angle
                rotation = jnp.concatenate([jnp.cos(by)[None], jnp.sin(by) * loop[1:] / across])
                return group.multiply(rotation, u), slope + 2 * (_log_sine(moved) - _log_sine(angle))
            case Matrices():
                angles, vectors = eigen(loop)
                by, slope = spectral_map(angles, even[0], turn, raw, self.bins, back)
                turned = (vectors * jax.lax.complex(jnp.cos(by), jnp.sin(by))[None]).astype(u.dtype)
                return group.multiply(group.multiply(turned, group.adjoint(vectors)), u), slope
        raise TypeError(f"no spectral flow on {group}")


def conformal_flow(x: Array, v: Array) -> tuple[Array, Array]:
    """The flow of dx/dt = v − (v·x)x on the sphere S^m for unit time; ln of its Jacobian. x, v (m + 1, …). Inverse: −v.

    With ψ the angle between x and v and r = |v|: tan(ψ'/2) = e^{−r} tan(ψ/2), lengths shrink by cosh r + cos ψ sinh r.
    """
    r = jnp.sqrt((v * v).sum(0) + _TINY)
    along = (v * x).sum(0)
    sine, versine = jnp.sinh(r) / r, 2 * (jnp.sinh(0.5 * r) / r) ** 2
    shrink = jnp.cosh(r) + sine * along
    moved = (x + v * (versine * along + sine)) / shrink
    return moved / jnp.sqrt((moved**2).sum(0)), (1 - len(x)) * jnp.log(shrink)


def circle_map(
    angle: Array, pull: Array, turn: Array, raw: Array, bins: int, mirrored: bool, back: bool
) -> tuple[Array, Array]:
    """m(φ), or m⁻¹(φ), and ln of its derivative: near φ, that is, not wrapped. mirrored: odd, on [0, π]."""

    def bend(at: Array) -> tuple[Array, Array]:
        if not bins:
            return at, jnp.zeros_like(at)
        inside = wrap(at)
        kind: Kind = "odd circle" if mirrored else "circle"
        moved, slope = (inverse_spline if back else spline)(kind, stored(inside), raw, bins)
        return stored(at + moved - inside), slope

    def flow(at: Array) -> tuple[Array, Array]:
        return rotor_flow(at, pull, -turn) if back else rotor_flow(at, -pull, turn)

    first, last = (bend, flow) if back else (flow, bend)
    moved, slope = first(angle)
    moved, more = last(moved)
    return moved, slope + more


def spectral_map(angles: Array, pull: Array, turn: Array, raw: Array, bins: int, back: bool) -> tuple[Array, Array]:
    """By how much the N angles (N, …) of an SU(N) element move, and ln of the Jacobian with respect to Haar."""
    n = len(angles)

    def each(at: Array) -> tuple[Array, Array]:
        moved, slope = circle_map(at, pull, turn, raw, bins, False, back)
        return moved - at, slope

    if back:
        shift = _common_shift(each, angles)
        by, slope = each(angles + shift)  # of m⁻¹
        by = by + shift
        by = by - by.mean(0)
        inverse = slope  # ln (m⁻¹)'
        log_det = inverse.sum(0) - jnp.log(jnp.exp(inverse).mean(0))
    else:
        by, slope = each(angles)
        by = by - by.mean(0)
        log_det = slope.sum(0) + jnp.log(jnp.exp(-slope).mean(0))
    for j in range(n):
        for k in range(j):
            before, change = 0.5 * (angles[j] - angles[k]), 0.5 * (by[j] - by[k])
            log_det = log_det + 2 * (_log_sine(before + change) - _log_sine(before))
    return by, log_det


def _common_shift(each: Any, angles: Array) -> Array:
    """s with Σ_k (m⁻¹(φ'_k + s) − φ'_k) = 0 by bisection; then one step of Newton's, which carries the derivatives."""
    frozen = jax.lax.stop_gradient

    def excess(s: Array) -> Array:
        return s + each(angles + s)[0].mean(0)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        above = frozen(excess(middle)) > 0
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    wide = jnp.full_like(angles[0], jnp.pi)
    low, high = jax.lax.fori_loop(0, 26, halve, (-wide, wide))
    s = frozen(0.5 * (low + high))
    slope = frozen(jnp.exp(each(angles + s)[1]).mean(0))
    return s - excess(s) / slope


def _log_sine(angle: Array) -> Array:
    """ln |sin|, its derivative bounded where the sine vanishes."""
    return 0.5 * jnp.log(jnp.sin(angle) ** 2 + _TINY)
