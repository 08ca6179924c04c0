"""Rays: densities of the length of a vector in the plane, ln p(r) = Σ_p η_p r^p + const with respect to r dr, r ≥ 0.

The measure is ½ dρ with ρ = r², and in ρ the density has no zero at the origin. So a table of its logarithm at nodes
r_k = low + k·step is interpolated linearly *in ρ* (piecewise.py): cells are exponentials of ρ, as wide as r_{k+1}² −
r_k². Beyond the last node the density goes on as an exponential of ρ, below the first as one that ends at ρ = 0.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from vdsl.guides.densities import COARSE, DEPTH, Family, nodes_of, polynomial, radius_of
from vdsl.guides.piecewise import cell_masses, dot, drawn_cell, inverse, moments

_LN_2 = math.log(2)  # of dρ = 2 r dr


class Tails(NamedTuple):
    """Beyond both ends: by how much the logarithm falls with ρ, and the masses in ρ, (T, b) each."""

    below: Array
    above: Array
    left: Array
    right: Array


class Ray(Family):
    """A polynomial of even degree P = F on r ≥ 0, with respect to r dr."""

    nodes: int = eqx.field(static=True)

    def ln_z(self, eta: Array) -> Array:
        # by the trapezoidal rule; the integrand r e^g begins at 0 with slope 1, which Euler and Maclaurin correct for
        low, step = self._window(eta)
        r = nodes_of(low, step, self.nodes)
        weight = r.at[0].add(jnp.where(low > 0, 0.0, step / 12))
        return jax.nn.logsumexp(polynomial(eta, r), axis=0, b=weight) + jnp.log(step)

    def sample(self, key: Array, eta: Array) -> Array:
        low, step = self._window(eta)
        r = nodes_of(low, step, self.nodes)
        g = polynomial(eta, r)
        g = g - jnp.max(g, axis=0)
        width, rise = step * (2 * r[:-1] + step), g[1:] - g[:-1]
        tails = _tails(jnp.exp(g[0]), jnp.exp(g[-1]), rise[0] / width[0], -rise[-1] / width[-1], low, step, self.nodes)
        masses = jnp.concatenate([tails.left[None], width * cell_masses(jnp.exp(g), rise), tails.right[None]])
        cell, rest = drawn_cell(key, masses)
        k = jnp.clip(cell - 1, 0, self.nodes - 2)
        start = low + k * step
        g0, g1 = (jnp.take_along_axis(g, (k + j)[None].astype(int), axis=0)[0] for j in (0, 1))
        wide = step * (2 * start + step)
        inside = start**2 + wide * inverse(g0, g1 - g0, rest / wide)
        tiny = jnp.finfo(eta.dtype).tiny
        first = jnp.exp(-tails.below * low**2) + rest * tails.below / jnp.maximum(jnp.exp(g[0]), tiny)
        left = low**2 + jnp.log(jnp.maximum(first, tiny)) / tails.below
        share = jnp.minimum(rest / jnp.maximum(tails.right, tiny), 1 - 1e-7)
        right = r[-1] ** 2 - jnp.log1p(-share) / tails.above
        square = jnp.where(cell == 0, left, jnp.where(cell == self.nodes, right, inside))
        return jnp.sqrt(jnp.maximum(square, tiny))[:, None]

    def log_prob(self, eta: Array, values: Array) -> Array:
        return ray_log_prob(eta, values[:, 0], *self._window(eta), self.nodes)

    def _window(self, eta: Array) -> tuple[Array, Array]:
        """First node and step: where r e^g is within e^−16 of its peak, found in two coarse scans."""
        eta = jax.lax.stop_gradient(eta)
        low, high = jnp.zeros_like(eta[:, 0]), 1.2 * radius_of(eta)  # the measure moves weight out a little
        for _ in range(2):
            step = (high - low) / (COARSE - 1)
            r = nodes_of(low, step, COARSE)
            g = polynomial(eta, r) + jnp.log(r + 0.1 * step)
            inside = g > jnp.max(g, axis=0) - DEPTH
            low = jnp.maximum(jnp.min(jnp.where(inside, r, jnp.inf), axis=0) - step, low)
            high = jnp.minimum(jnp.max(jnp.where(inside, r, -jnp.inf), axis=0) + step, high)
        return low, (high - low) / (self.nodes - 1)


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def ray_log_prob(eta: Array, r: Array, low: Array, step: Array, nodes: int) -> Array:
    """ln q (T, b) of lengths r (T, b) by the table of `Ray` on the given window, which does not count as varying."""
    return _log_prob_and_slopes(eta, r, low, step, nodes)[0]


@ray_log_prob.defjvp
def _ray_log_prob_jvp(nodes: int, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    eta, r, low, step = primals
    log_q, by_eta, by_r = _log_prob_and_slopes(eta, r, low, step, nodes)
    return log_q, jnp.sum(by_eta * tangents[0], axis=1) + by_r * tangents[1]


def _log_prob_and_slopes(eta: Array, r: Array, low: Array, step: Array, nodes: int) -> tuple[Array, Array, Array]:
    """ln q (T, b), its derivatives by η (T, F, b) and by r.

    ∂ ln q/∂η_p = r^p, interpolated between nodes, − ⟨r^p⟩ in the same sense. The rates of the tails, which hold some
    e^−16 of the mass, do not count as varying.
    """
    last = nodes - 1

    def node(k: Array | int) -> Array:
        at = low + k * step
        return jnp.stack([at**p for p in range(1, eta.shape[1] + 1)])

    def width(k: Array | int) -> Array:
        return step * (2 * (low + k * step) + step)

    peak, total, sums = moments(eta, node, nodes, width)
    first, end, high = node(0), node(last), low + last * step
    rises = dot(eta, node(1) - first) / width(0), dot(eta, node(last - 1) - end) / width(last - 1)
    at_ends = jnp.exp(dot(eta, first) - peak), jnp.exp(dot(eta, end) - peak)
    tails = _tails(*at_ends, *rises, low, step, nodes)
    total, sums = total + tails.left + tails.right, sums + tails.left * first + tails.right * end
    k = jnp.clip(jnp.floor((r - low) / step), 0, last - 1)
    start = low + k * step
    share = jnp.clip((r - start) * (r + start) / width(k), 0.0, 1.0)
    under, over = jnp.minimum((r - low) * (r + low), 0.0), jnp.maximum((r - high) * (r + high), 0.0)
    features, change = node(k), node(k + 1) - node(k)
    slope = dot(eta, change)
    beyond = tails.below * under - tails.above * over
    log_q = dot(eta, features) + slope * share + beyond - peak - jnp.log(total) + _LN_2
    by_eta = features + change * share - sums / total
    by_square = jnp.where(under < 0, tails.below, jnp.where(over > 0, -tails.above, slope / width(k)))
    return log_q, jnp.moveaxis(by_eta, 0, 1), 2 * r * by_square


def _tails(first: Array, last: Array, rise: Array, fall: Array, low: Array, step: Array, nodes: int) -> Tails:
    """From the densities at the end nodes, and by how much logarithms change with ρ in the cells beside them."""
    high = low + (nodes - 1) * step
    below = jnp.maximum(rise, 1 / (nodes * step * (2 * low + step)))
    above = jnp.maximum(fall, 1 / (nodes * step * (2 * high - step)))
    below, above = jax.lax.stop_gradient((below, above))
    return Tails(below, above, -first * jnp.expm1(-below * low**2) / below, last / above)
