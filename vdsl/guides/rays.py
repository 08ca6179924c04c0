"""Rays: densities of the length of a vector in the plane, ln p(r) = Σ_p η_p r^p + const with respect to r dr, r ≥ 0.

The measure is ½ dρ with ρ = r², and in ρ the density has no zero at the origin. So a table of its logarithm at nodes
r_k = low + k·step is interpolated linearly *in ρ* (piecewise.py): cells are exponentials of ρ, as wide as r_{k+1}² −
r_k². Beyond the last node the density goes on as an exponential of ρ, below the first as one that ends at ρ = 0.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from vdsl.guides.densities import COARSE, DEPTH, Family, nodes_of, polynomial, radius_of
from vdsl.guides.piecewise import cell_masses, drawn_cell, inverse, log_total

_LN_2 = math.log(2)  # of dρ = 2 r dr


class Table(NamedTuple):
    """Nodes r and logarithms g (M, T, b) there, widths (M − 1, T, b) of cells in ρ, rates of fall beyond both ends."""

    r: Array
    g: Array
    width: Array
    below: Array
    above: Array

    @property
    def ends(self) -> tuple[Array, Array]:
        """ln of the masses below the first node and beyond the last, in ρ."""
        first = self.g[0] + jnp.log(
            -jnp.expm1(-self.below * self.r[0] ** 2) / self.below + jnp.finfo(self.g.dtype).tiny
        )
        return first, self.g[-1] - jnp.log(self.above)

    @property
    def log_total(self) -> Array:
        """ln of all mass, in ρ."""
        first, last = self.ends
        return jnp.logaddexp(jnp.logaddexp(first, log_total(self.g, self.width)), last)


class Ray(Family):
    """A polynomial of even degree P = F on r ≥ 0, with respect to r dr."""

    nodes: int = eqx.field(static=True)

    def ln_z(self, eta: Array) -> Array:
        # by the trapezoidal rule; the integrand r e^g begins at 0 with slope 1, which Euler and Maclaurin correct for
        r, step = self._nodes(eta)
        g = polynomial(eta, r)
        weight = r.at[0].add(jnp.where(r[0] > 0, 0.0, step / 12))
        return jax.nn.logsumexp(g, axis=0, b=weight) + jnp.log(step)

    def sample(self, key: Array, eta: Array) -> Array:
        table = self._table(eta)
        rise, peak = table.g[1:] - table.g[:-1], jnp.max(table.g, axis=0)
        first, last = (jnp.exp(end - peak)[None] for end in table.ends)
        masses = jnp.concatenate([first, table.width * cell_masses(jnp.exp(table.g - peak), rise), last])
        cell, rest = drawn_cell(key, masses)
        k = jnp.clip(cell - 1, 0, self.nodes - 2)[None].astype(int)
        r, g, width, slope = (
            jnp.take_along_axis(a, k, axis=0)[0] for a in (table.r, table.g - peak, table.width, rise)
        )
        inside = r**2 + width * inverse(g, slope, rest / width)
        tiny = jnp.finfo(eta.dtype).tiny
        low, start = table.r[0] ** 2, jnp.exp(table.g[0] - peak)
        left = low + jnp.log(jnp.exp(-table.below * low) + rest * table.below / jnp.maximum(start, tiny)) / table.below
        share = jnp.minimum(rest / jnp.maximum(last[0], tiny), 1 - 1e-7)
        right = table.r[-1] ** 2 - jnp.log1p(-share) / table.above
        square = jnp.where(cell == 0, left, jnp.where(cell == self.nodes, right, inside))
        return jnp.sqrt(jnp.maximum(square, tiny))[:, None]

    def log_prob(self, eta: Array, values: Array) -> Array:
        table, r = self._table(eta), values[:, 0]
        step = table.r[1] - table.r[0]
        k = jnp.clip(jnp.floor((r - table.r[0]) / step), 0, self.nodes - 2)
        start = table.r[0] + k * step
        g0, g1 = polynomial(eta, start), polynomial(eta, start + step)
        # of the cell's own ends, so that the place is within [0, 1] to rounding
        share = jnp.clip((r - start) * (r + start) / (step * (2 * start + step)), 0.0, 1.0)
        under = jnp.minimum((r - table.r[0]) * (r + table.r[0]), 0.0)
        over = jnp.maximum((r - table.r[-1]) * (r + table.r[-1]), 0.0)
        return g0 + (g1 - g0) * share + table.below * under - table.above * over - table.log_total + _LN_2

    def _table(self, eta: Array) -> Table:
        r, step = self._nodes(eta)
        g = polynomial(eta, r)
        width = step * (2 * r[:-1] + step)
        least = 1.0 / (self.nodes * width[jnp.array([0, -1])])
        below = jnp.maximum((g[1] - g[0]) / width[0], least[0])
        return Table(r, g, width, below, jnp.maximum((g[-2] - g[-1]) / width[-1], least[1]))

    def _nodes(self, eta: Array) -> tuple[Array, Array]:
        """Nodes (M, T, b), and their distance: where r e^g is within e^−16 of its peak, found in two coarse scans."""
        eta = jax.lax.stop_gradient(eta)
        low, high = jnp.zeros_like(eta[:, 0]), 1.2 * radius_of(eta)  # the measure moves weight out a little
        for _ in range(2):
            step = (high - low) / (COARSE - 1)
            r = nodes_of(low, step, COARSE)
            g = polynomial(eta, r) + jnp.log(r + 0.1 * step)
            inside = g > jnp.max(g, axis=0) - DEPTH
            low = jnp.maximum(jnp.min(jnp.where(inside, r, jnp.inf), axis=0) - step, low)
            high = jnp.minimum(jnp.max(jnp.where(inside, r, -jnp.inf), axis=0) + step, high)
        step = (high - low) / (self.nodes - 1)
        return nodes_of(low, step, self.nodes), step
