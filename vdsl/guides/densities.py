"""Densities of one unit as exponential families: natural parameters η (T, F, b) into samples, ln q and ln Z.

| family    | unit            | ln density, up to a constant              | base measure      |
|-----------|-----------------|-------------------------------------------|-------------------|
| Gaussian  | real            | η₁x + η₂x², η₂ < 0                        | dx                |
| Line      | real            | Σ_p η_p x^p, the last power even, η_P < 0 | dx                |
| Ray       | length (rays.py)| Σ_p η_p r^p, η_P < 0, r ≥ 0               | r dr              |
| Circle    | angle           | Σ_p a_p cos pθ + b_p sin pθ               | dθ                |
| Sphere    | vector in Rⁿ    | h·S + c (ĥ·S)²                            | surface area      |
| Flip      | spin            | ηs                                        | counting          |
| States    | state           | η_s                                       | counting          |

What is sampled is exactly what `log_prob` reports. Where there is no closed form that is a *table*: the logarithm of
the density is interpolated linearly between nodes (piecewise.py), so that cells are exponentials with elementary masses
and inverses, and goes on as an exponential beyond the last nodes. It differs from the family's own density by a factor
1 + O(h²/8σ²) at most, h the step and σ the width; that is for importance weights to see, nothing is lost. `ln_z` is the
family's own, closed or by the trapezoidal rule, whose error is exponentially small in σ/h.

Every family is differentiable in η, samples included.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.piecewise import (
    cell_masses,
    circle_log_prob,
    dot,
    drawn_cell,
    inverse,
    line_log_prob,
    log_total,
    waves,
)

DEPTH = 16.0  # tables reach to where the density has fallen by e^−16 from its peak
COARSE = 16


class Family(eqx.Module):
    """The protocol. Values are (T, size, b), densities (T, b)."""

    @abstractmethod
    def ln_z(self, eta: Array) -> Array:
        """ln ∫ e^{η·features}."""

    @abstractmethod
    def sample(self, key: Array, eta: Array) -> Array:
        """One value each."""

    @abstractmethod
    def log_prob(self, eta: Array, values: Array) -> Array:
        """ln q of values."""


class Gaussian(Family):
    """ln q = η₁x + η₂x² − ln Z."""

    def ln_z(self, eta: Array) -> Array:
        return -(eta[:, 0] ** 2) / (4 * eta[:, 1]) + 0.5 * jnp.log(-jnp.pi / eta[:, 1])

    def sample(self, key: Array, eta: Array) -> Array:
        noise = jax.random.normal(key, eta[:, 0].shape, eta.dtype)
        return ((noise * jnp.sqrt(-0.5 / eta[:, 1])) - eta[:, 0] / (2 * eta[:, 1]))[:, None]

    def log_prob(self, eta: Array, values: Array) -> Array:
        x = values[:, 0] + eta[:, 0] / (2 * eta[:, 1])
        return eta[:, 1] * x**2 - 0.5 * jnp.log(-jnp.pi / eta[:, 1])


class Table(NamedTuple):
    """Nodes low + k·step, k = 0 … M − 1, with f = e^{g − peak} (M, T, b) there.

    masses (M + 1, T, b), in steps: the left tail, M − 1 cells, the right tail. rates: by how much g falls a step beyond
    the first and the last node.
    """

    low: Array
    step: Array
    peak: Array
    masses: Array
    total: Array
    rates: tuple[Array, Array]


class Line(Family):
    """A polynomial of even degree P = F; two wells and more are welcome."""

    nodes: int = eqx.field(static=True)

    def ln_z(self, eta: Array) -> Array:
        low, step = self._window(eta)
        g = polynomial(eta, nodes_of(low, step, self.nodes))
        return jax.nn.logsumexp(g, axis=0) + jnp.log(step)

    def sample(self, key: Array, eta: Array) -> Array:
        table = self._table(eta)
        cell, rest = drawn_cell(key, table.masses)
        k = jnp.clip(cell - 1, 0, self.nodes - 2)
        g0, g1 = (polynomial(eta, table.low + (k + j) * table.step) for j in (0, 1))
        inside = k + inverse(g0 - table.peak, g1 - g0, rest)
        f_low, f_high = jnp.exp(g0 - table.peak), jnp.exp(g1 - table.peak)
        tiny = jnp.finfo(eta.dtype).tiny
        left = jnp.log(jnp.maximum(rest * table.rates[0] / jnp.maximum(f_low, tiny), tiny)) / table.rates[0]
        right = -jnp.log(jnp.maximum(1 - rest * table.rates[1] / jnp.maximum(f_high, tiny), 1e-7)) / table.rates[1]
        t = jnp.where(cell == 0, left, jnp.where(cell == self.nodes, self.nodes - 1 + right, inside))
        return (table.low + t * table.step)[:, None]

    def log_prob(self, eta: Array, values: Array) -> Array:
        low, step = self._window(eta)
        return line_log_prob(eta, values[:, 0], low, step, self.nodes)

    def _table(self, eta: Array) -> Table:
        low, step = self._window(eta)
        g = polynomial(eta, nodes_of(low, step, self.nodes))
        peak = jax.lax.stop_gradient(jnp.max(g, axis=0))
        f, rise = jnp.exp(g - peak), g[1:] - g[:-1]
        least = 1.0 / self.nodes
        rates = jnp.maximum(rise[0], least), jnp.maximum(-rise[-1], least)
        masses = jnp.concatenate([(f[0] / rates[0])[None], cell_masses(f, rise), (f[-1] / rates[1])[None]])
        return Table(low, step, peak, masses, jnp.sum(masses, axis=0), rates)

    def _window(self, eta: Array) -> tuple[Array, Array]:
        """First node and step: where the density is within e^−16 of its peak, found in two coarse scans."""
        eta = jax.lax.stop_gradient(eta)
        radius = radius_of(eta)
        low, high = -radius, radius
        for _ in range(2):
            step = (high - low) / (COARSE - 1)
            x = nodes_of(low, step, COARSE)
            g = polynomial(eta, x)
            inside = g > jnp.max(g, axis=0) - DEPTH
            low = jnp.maximum(jnp.min(jnp.where(inside, x, jnp.inf), axis=0) - step, low)
            high = jnp.minimum(jnp.max(jnp.where(inside, x, -jnp.inf), axis=0) + step, high)
        return low, (high - low) / (self.nodes - 1)


class Circle(Family):
    """Fourier modes, on M nodes around the whole circle: for densities no narrower than about three steps of 2π/M."""

    nodes: int = eqx.field(static=True)

    def ln_z(self, eta: Array) -> Array:
        return jax.nn.logsumexp(self._at_nodes(eta)[1:], axis=0) + math.log(2 * math.pi / self.nodes)

    def sample(self, key: Array, eta: Array) -> Array:
        g = self._at_nodes(eta)
        peak = jnp.max(g, axis=0)
        masses = cell_masses(jnp.exp(g - peak), g[1:] - g[:-1])
        cell, rest = drawn_cell(key, masses)
        g0, g1 = (self._between(eta, cell + j) for j in (0, 1))
        turn = (cell + inverse(g0 - peak, g1 - g0, rest)) * (2 * math.pi / self.nodes)
        return _wrapped(turn)[:, None]

    def log_prob(self, eta: Array, values: Array) -> Array:
        return circle_log_prob(eta, values[:, 0], self.nodes)

    def _at_nodes(self, eta: Array) -> Array:
        """(M + 1, T, b): once around, the first node again at the end."""
        angles = np.arange(self.nodes + 1) % self.nodes * (2 * np.pi / self.nodes)
        return dot(eta, waves(jnp.asarray(angles, eta.dtype)[:, None, None], eta.shape[1]))

    def _between(self, eta: Array, k: Array) -> Array:
        return dot(eta, waves(k * (2 * math.pi / self.nodes), eta.shape[1]))


class Sphere(Family):
    """Axisymmetric about h on S^{n−1}, n ≥ 2: η = (h₁ … h_n, c). The table is in t = ĥ·S for n = 3, where e^{κt} is one
    of its exponentials exactly, and in the polar angle otherwise."""

    n: int = eqx.field(static=True)
    nodes: int = eqx.field(static=True)

    def ln_z(self, eta: Array) -> Array:
        t, jacobian, width = self._grid(eta.dtype)
        kappa, _ = self._axis(eta)
        g = kappa * t + eta[:, self.n] * t**2 + jacobian
        if self.n == 3:
            return log_total(g) + math.log(width) + self._area()
        edge = jnp.ones(self.nodes).at[jnp.array([0, -1])].set(0.5 if self.n == 2 else 0.0)
        return jax.nn.logsumexp(g, axis=0, b=edge[:, None, None]) + math.log(width) + self._area()

    def sample(self, key: Array, eta: Array) -> Array:
        key_t, key_turn = jax.random.split(key)
        t_nodes, jacobian, _ = self._grid(eta.dtype)
        kappa, axis = self._axis(eta)
        g = kappa * t_nodes + eta[:, self.n] * t_nodes**2 + jacobian
        peak = jnp.max(g, axis=0)
        masses = cell_masses(jnp.exp(g - peak), g[1:] - g[:-1])
        cell, rest = drawn_cell(key_t, masses)
        g0, g1 = (jnp.take_along_axis(g, (cell + j)[None].astype(int), axis=0)[0] for j in (0, 1))
        place = cell + inverse(g0 - peak, g1 - g0, rest)
        t = self._of_place(place)
        across = jax.random.normal(key_turn, axis.shape, eta.dtype)
        across = across - axis * jnp.sum(across * axis, axis=1, keepdims=True)
        across = across / jnp.maximum(jnp.sqrt(jnp.sum(across**2, axis=1, keepdims=True)), 1e-12)
        s = t[:, None] * axis + jnp.sqrt(jnp.maximum(1 - t**2, 1e-14))[:, None] * across
        return s / jnp.sqrt(jnp.sum(s**2, axis=1, keepdims=True))

    def log_prob(self, eta: Array, values: Array) -> Array:
        t_nodes, jacobian, width = self._grid(eta.dtype)
        kappa, axis = self._axis(eta)
        g = kappa * t_nodes + eta[:, self.n] * t_nodes**2 + jacobian
        log_z = log_total(g) + math.log(width)
        t = jnp.clip(jnp.sum(values * axis, axis=1), -1, 1)
        if self.n == 3:
            place, volume = (t + 1) / width, jnp.zeros_like(t)
        else:
            inner = jnp.clip(t, -1 + 1e-7, 1 - 1e-7)
            place, volume = jnp.arccos(inner) / width, (self.n - 2) * 0.5 * jnp.log1p(-(inner**2))
        k = jnp.clip(jnp.floor(jax.lax.stop_gradient(place)), 0, self.nodes - 2).astype(int)
        g0, g1 = (jnp.take_along_axis(g, (k + j)[None], axis=0)[0] for j in (0, 1))
        return g0 + (g1 - g0) * (place - k) - log_z - volume - self._area()

    def _axis(self, eta: Array) -> tuple[Array, Array]:
        h = eta[:, : self.n]
        size = jnp.sum(h**2, axis=1)
        kappa = jnp.sqrt(jnp.maximum(size, 1e-20))
        pole = jnp.zeros((1, self.n, 1), eta.dtype).at[0, 0].set(1)
        return jnp.where(size > 1e-20, kappa, 0.0), jnp.where((size > 1e-20)[:, None], h / kappa[:, None], pole)

    def _grid(self, dtype: np.dtype) -> tuple[Array, Array, float]:
        """t and ln of the measure at the nodes, (M, 1, 1), and the step."""
        if self.n == 3:
            t, jacobian, width = np.linspace(-1, 1, self.nodes), np.zeros(self.nodes), 2 / (self.nodes - 1)
        else:
            width = np.pi / (self.nodes - 1)
            polar = np.linspace(0, np.pi, self.nodes)
            # A fifth of a step inside the poles: the first cell then has about the right mass.
            sine = np.sin(np.clip(polar, 0.2 * width, np.pi - 0.2 * width))
            t, jacobian = np.cos(polar), (self.n - 2) * np.log(sine)
        return jnp.asarray(t, dtype)[:, None, None], jnp.asarray(jacobian, dtype)[:, None, None], float(width)

    def _of_place(self, place: Array) -> Array:
        if self.n == 3:
            return jnp.clip(place * (2 / (self.nodes - 1)) - 1, -1, 1)
        return jnp.cos(place * (math.pi / (self.nodes - 1)))

    def _area(self) -> float:
        """ln of the area of S^{n−2}: of what lies at one polar angle."""
        return math.log(2) + (self.n - 1) / 2 * math.log(math.pi) - math.lgamma((self.n - 1) / 2)


class Flip(Family):
    """s = ±1 with odds e^{2η}."""

    def ln_z(self, eta: Array) -> Array:
        return jnp.logaddexp(eta[:, 0], -eta[:, 0])

    def sample(self, key: Array, eta: Array) -> Array:
        up = jax.random.bernoulli(key, jax.nn.sigmoid(2 * eta))
        return jnp.where(up, 1.0, -1.0).astype(eta.dtype)

    def log_prob(self, eta: Array, values: Array) -> Array:
        return jax.nn.log_sigmoid(2 * eta * values)[:, 0]


class States(Family):
    """A state index, kept as a real number."""

    def ln_z(self, eta: Array) -> Array:
        return jax.nn.logsumexp(eta, axis=1)

    def sample(self, key: Array, eta: Array) -> Array:
        return jax.random.categorical(key, eta, axis=1)[:, None].astype(eta.dtype)

    def log_prob(self, eta: Array, values: Array) -> Array:
        log_p = jax.nn.log_softmax(eta, axis=1)
        return jnp.take_along_axis(log_p, values.astype(int), axis=1)[:, 0]


def nodes_of(low: Array, step: Array, count: int) -> Array:
    return low + step * jnp.arange(count, dtype=low.dtype)[:, None, None]


def polynomial(eta: Array, x: Array) -> Array:
    """Σ_p η_p x^p, by Horner's rule; x (…, T, b)."""
    total = jnp.zeros_like(x)
    for p in range(eta.shape[1] - 1, -1, -1):
        total = (total + eta[:, p]) * x
    return total


def radius_of(eta: Array) -> Array:
    """|x| ≤ R wherever the density is within e^−16 of its peak (at least of its value at 0).

    Σ_p η_p x^p ≥ −16 with η_P < 0 implies |η_P| R^P ≤ 16 + Σ_{p<P} |η_p| R^p over the terms that can be positive, so
    some term is at least a P-th of the left: R is the largest of (P|η_p|/|η_P|)^{1/(P−p)}. With a negative square and
    only x besides, the quadratic bound holds as well, and is the smaller one for weak quartic terms.
    """
    degree = eta.shape[1]
    top = -eta[:, degree - 1]
    bounds = [(degree * DEPTH / top) ** (1 / degree)]
    for p in range(1, degree):
        pull = jnp.abs(eta[:, p - 1]) if p % 2 else jnp.maximum(eta[:, p - 1], 0)
        bounds.append((degree * pull / top) ** (1 / (degree - p)))
    radius = jnp.max(jnp.stack(bounds), axis=0)
    others = [jnp.abs(eta[:, p - 1]) if p % 2 else jnp.maximum(eta[:, p - 1], 0) for p in range(3, degree)]
    plain = sum(others) == 0 if others else jnp.ones_like(radius, bool)
    curvature = jnp.maximum(-eta[:, 1], 1e-30)
    quadratic = jnp.maximum(jnp.sqrt(2 * DEPTH / curvature), 2 * jnp.abs(eta[:, 0]) / curvature)
    return jnp.where(plain & (eta[:, 1] < 0), jnp.minimum(radius, quadratic), radius)


def _wrapped(angle: Array) -> Array:
    return angle - 2 * math.pi * jnp.ceil((angle - math.pi) / (2 * math.pi))
