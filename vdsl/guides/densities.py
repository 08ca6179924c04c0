"""Densities of one unit as exponential families: natural parameters η (T, F, b) into samples, ln q and ln Z.

| family    | unit            | ln density, up to a constant              | base measure      |
|-----------|-----------------|-------------------------------------------|-------------------|
| Gaussian  | real            | η₁x + η₂x², η₂ < 0                        | dx                |
| Line      | real            | Σ_p η_p x^p, the last power even, η_P < 0 | dx                |
| Circle    | angle           | Σ_p a_p cos pθ + b_p sin pθ               | dθ                |
| Sphere    | vector in Rⁿ    | h·S + c (ĥ·S)²                            | surface area      |
| Flip      | spin            | ηs                                        | counting          |
| States    | state           | η_s                                       | counting          |

What is sampled is exactly what `log_prob` reports. Where there is no closed form that is a *table*: the logarithm of
the density is interpolated linearly between nodes, so that cells are exponentials with elementary masses and inverses,
and goes on as an exponential beyond the last nodes. It differs from the family's own density by a factor
1 + O(h²/8σ²) at most, h the step and σ the width; that is for importance weights to see, nothing is lost. `ln_z` is the
family's own, closed or by the trapezoidal rule, whose error is exponentially small in σ/h.

Every family is differentiable in η, samples included.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

_DEPTH = 16.0  # tables reach to where the density has fallen by e^−16 from its peak
_COARSE = 16


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
        g = _polynomial(eta, _nodes(low, step, self.nodes))
        return jax.nn.logsumexp(g, axis=0) + jnp.log(step)

    def sample(self, key: Array, eta: Array) -> Array:
        table = self._table(eta)
        cell, rest = _drawn_cell(key, table.masses)
        k = jnp.clip(cell - 1, 0, self.nodes - 2)
        g0, g1 = (_polynomial(eta, table.low + (k + j) * table.step) for j in (0, 1))
        inside = k + _inverse(g0 - table.peak, g1 - g0, rest)
        f_low, f_high = jnp.exp(g0 - table.peak), jnp.exp(g1 - table.peak)
        tiny = jnp.finfo(eta.dtype).tiny
        left = jnp.log(jnp.maximum(rest * table.rates[0] / jnp.maximum(f_low, tiny), tiny)) / table.rates[0]
        right = -jnp.log(jnp.maximum(1 - rest * table.rates[1] / jnp.maximum(f_high, tiny), 1e-7)) / table.rates[1]
        t = jnp.where(cell == 0, left, jnp.where(cell == self.nodes, self.nodes - 1 + right, inside))
        return (table.low + t * table.step)[:, None]

    def log_prob(self, eta: Array, values: Array) -> Array:
        low, step = self._window(eta)
        return _line_log_prob(eta, values[:, 0], low, step, self.nodes)

    def _table(self, eta: Array) -> Table:
        low, step = self._window(eta)
        g = _polynomial(eta, _nodes(low, step, self.nodes))
        peak = jax.lax.stop_gradient(jnp.max(g, axis=0))
        f, rise = jnp.exp(g - peak), g[1:] - g[:-1]
        least = 1.0 / self.nodes
        rates = jnp.maximum(rise[0], least), jnp.maximum(-rise[-1], least)
        masses = jnp.concatenate([(f[0] / rates[0])[None], _cell_masses(f, rise), (f[-1] / rates[1])[None]])
        return Table(low, step, peak, masses, jnp.sum(masses, axis=0), rates)

    def _window(self, eta: Array) -> tuple[Array, Array]:
        """First node and step: where the density is within e^−16 of its peak, found in two coarse scans."""
        eta = jax.lax.stop_gradient(eta)
        radius = _radius(eta)
        low, high = -radius, radius
        for _ in range(2):
            step = (high - low) / (_COARSE - 1)
            x = _nodes(low, step, _COARSE)
            g = _polynomial(eta, x)
            inside = g > jnp.max(g, axis=0) - _DEPTH
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
        masses = _cell_masses(jnp.exp(g - peak), g[1:] - g[:-1])
        cell, rest = _drawn_cell(key, masses)
        g0, g1 = (self._between(eta, cell + j) for j in (0, 1))
        turn = (cell + _inverse(g0 - peak, g1 - g0, rest)) * (2 * math.pi / self.nodes)
        return _wrapped(turn)[:, None]

    def log_prob(self, eta: Array, values: Array) -> Array:
        return _circle_log_prob(eta, values[:, 0], self.nodes)

    def _at_nodes(self, eta: Array) -> Array:
        """(M + 1, T, b): once around, the first node again at the end."""
        angles = np.arange(self.nodes + 1) % self.nodes * (2 * np.pi / self.nodes)
        return _dot(eta, _waves(jnp.asarray(angles, eta.dtype)[:, None, None], eta.shape[1]))

    def _between(self, eta: Array, k: Array) -> Array:
        return _dot(eta, _waves(k * (2 * math.pi / self.nodes), eta.shape[1]))


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
            return _log_total(g) + math.log(width) + self._area()
        edge = jnp.ones(self.nodes).at[jnp.array([0, -1])].set(0.5 if self.n == 2 else 0.0)
        return jax.nn.logsumexp(g, axis=0, b=edge[:, None, None]) + math.log(width) + self._area()

    def sample(self, key: Array, eta: Array) -> Array:
        key_t, key_turn = jax.random.split(key)
        t_nodes, jacobian, _ = self._grid(eta.dtype)
        kappa, axis = self._axis(eta)
        g = kappa * t_nodes + eta[:, self.n] * t_nodes**2 + jacobian
        peak = jnp.max(g, axis=0)
        masses = _cell_masses(jnp.exp(g - peak), g[1:] - g[:-1])
        cell, rest = _drawn_cell(key_t, masses)
        g0, g1 = (jnp.take_along_axis(g, (cell + j)[None].astype(int), axis=0)[0] for j in (0, 1))
        place = cell + _inverse(g0 - peak, g1 - g0, rest)
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
        log_total = _log_total(g) + math.log(width)
        t = jnp.clip(jnp.sum(values * axis, axis=1), -1, 1)
        if self.n == 3:
            place, volume = (t + 1) / width, jnp.zeros_like(t)
        else:
            inner = jnp.clip(t, -1 + 1e-7, 1 - 1e-7)
            place, volume = jnp.arccos(inner) / width, (self.n - 2) * 0.5 * jnp.log1p(-(inner**2))
        k = jnp.clip(jnp.floor(jax.lax.stop_gradient(place)), 0, self.nodes - 2).astype(int)
        g0, g1 = (jnp.take_along_axis(g, (k + j)[None], axis=0)[0] for j in (0, 1))
        return g0 + (g1 - g0) * (place - k) - log_total - volume - self._area()

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


# --- tables ----------------------------------------------------------------------------------------------------------


def _nodes(low: Array, step: Array, count: int) -> Array:
    return low + step * jnp.arange(count, dtype=low.dtype)[:, None, None]


def _polynomial(eta: Array, x: Array) -> Array:
    """Σ_p η_p x^p, by Horner's rule; x (…, T, b)."""
    total = jnp.zeros_like(x)
    for p in range(eta.shape[1] - 1, -1, -1):
        total = (total + eta[:, p]) * x
    return total


def _radius(eta: Array) -> Array:
    """|x| ≤ R wherever the density is within e^−16 of its peak (at least of its value at 0).

    Σ_p η_p x^p ≥ −16 with η_P < 0 implies |η_P| R^P ≤ 16 + Σ_{p<P} |η_p| R^p over the terms that can be positive, so
    some term is at least a P-th of the left: R is the largest of (P|η_p|/|η_P|)^{1/(P−p)}. With a negative square and
    only x besides, the quadratic bound holds as well, and is the smaller one for weak quartic terms.
    """
    degree = eta.shape[1]
    top = -eta[:, degree - 1]
    bounds = [(degree * _DEPTH / top) ** (1 / degree)]
    for p in range(1, degree):
        pull = jnp.abs(eta[:, p - 1]) if p % 2 else jnp.maximum(eta[:, p - 1], 0)
        bounds.append((degree * pull / top) ** (1 / (degree - p)))
    radius = jnp.max(jnp.stack(bounds), axis=0)
    others = [jnp.abs(eta[:, p - 1]) if p % 2 else jnp.maximum(eta[:, p - 1], 0) for p in range(3, degree)]
    plain = sum(others) == 0 if others else jnp.ones_like(radius, bool)
    curvature = jnp.maximum(-eta[:, 1], 1e-30)
    quadratic = jnp.maximum(jnp.sqrt(2 * _DEPTH / curvature), 2 * jnp.abs(eta[:, 0]) / curvature)
    return jnp.where(plain & (eta[:, 1] < 0), jnp.minimum(radius, quadratic), radius)


def _cell_masses(f: Array, rise: Array) -> Array:
    """∫₀¹ f₀ e^{rise·s} ds = (f₁ − f₀)/rise of the cells between nodes, by its series where the rise is small."""
    f0, f1 = f[:-1], f[1:]
    small = jnp.abs(rise) < 0.3
    series = jnp.sqrt(f0 * f1 + jnp.finfo(f0.dtype).tiny) * (1 + rise**2 / 24 * (1 + rise**2 / 80))
    return jnp.where(small, series, (f1 - f0) / jnp.where(small, 1.0, rise))


def _upper_share(f0: Array, f1: Array, rise: Array) -> Array:
    """∫₀¹ s f₀ e^{rise·s} ds: the derivative of a cell's mass in the logarithm of f₁; the rest belongs to f₀."""
    small = jnp.abs(rise) < 0.3
    slope = jnp.where(small, 1.0, rise)
    series = f0 * (1 / 2 + rise * (1 / 3 + rise * (1 / 8 + rise * (1 / 30 + rise / 144))))
    return jnp.where(small, series, (f1 * (slope - 1) + f0) / slope**2)


@jax.custom_jvp
def _log_total(g: Array) -> Array:
    """ln of the sum of all cells' masses (T, b), in steps, of a table with logarithms g (M, T, b).

    Its derivative is written out: that of the formulas costs several times as much, and memory.
    """
    peak = jnp.max(g, axis=0)
    return peak + jnp.log(jnp.sum(_cell_masses(jnp.exp(g - peak), g[1:] - g[:-1]), axis=0))


@_log_total.defjvp
def _log_total_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (g,), (change,) = primals, tangents
    peak = jnp.max(g, axis=0)
    f, rise = jnp.exp(g - peak), g[1:] - g[:-1]
    masses, upper = _cell_masses(f, rise), _upper_share(f[:-1], f[1:], rise)
    total, nothing = jnp.sum(masses, axis=0), jnp.zeros_like(peak)[None]
    weights = (jnp.concatenate([masses - upper, nothing]) + jnp.concatenate([nothing, upper])) / total
    return peak + jnp.log(total), jnp.sum(weights * change, axis=0)


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def _line_log_prob(eta: Array, x: Array, low: Array, step: Array, nodes: int) -> Array:
    """ln q (T, b) of values x (T, b) by the table of `Line` on the given window, which does not count as varying."""
    return _line_log_prob_and_slopes(eta, x, low, step, nodes)[0]


@_line_log_prob.defjvp
def _line_log_prob_jvp(nodes: int, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    eta, x, low, step = primals
    log_q, by_eta, by_x = _line_log_prob_and_slopes(eta, x, low, step, nodes)
    return log_q, jnp.sum(by_eta * tangents[0], axis=1) + by_x * tangents[1]


def _line_log_prob_and_slopes(eta: Array, x: Array, low: Array, step: Array, nodes: int) -> tuple[Array, Array, Array]:
    """ln q (T, b), its derivatives by η (T, F, b) and by x.

    ∂ ln q/∂η_p = x^p, interpolated between nodes, − ⟨x^p⟩ in the same sense.
    """
    last, least = nodes - 1, 1.0 / nodes

    def node(k: Array | int) -> Array:
        at = low + k * step
        return jnp.stack([at**p for p in range(1, eta.shape[1] + 1)])

    def rise(k: Array | int) -> Array:
        """x^p of node k + 1 less that of node k, p = 1 …, without the cancellation."""
        at = low + k * step
        change = [step]
        for p in range(1, eta.shape[1]):
            change.append((at + step) * change[-1] + step * at**p)
        return jnp.stack(change)

    peak, total, sums = _moments(eta, node, nodes)
    # beyond the first and the last node ln q goes on as a line; its rate counts as varying where it is not the least
    first, end, turn0, turn1 = node(0), node(last), rise(0), -rise(last - 1)
    rate0, rate1 = (jnp.maximum(_dot(eta, turn), least) for turn in (turn0, turn1))
    turn0, turn1 = (jnp.where(_dot(eta, turn) > least, turn, 0.0) for turn in (turn0, turn1))
    left, right = jnp.exp(_dot(eta, first) - peak) / rate0, jnp.exp(_dot(eta, end) - peak) / rate1
    total = total + left + right
    sums = sums + left * (first - turn0 / rate0) + right * (end - turn1 / rate1)
    t = (x - low) / step
    k = jnp.clip(jnp.floor(t), 0, last - 1)
    below, above = jnp.minimum(t, 0), jnp.maximum(t - last, 0)
    start, change, share = node(k), rise(k), jnp.clip(t, 0, last) - k
    slope = _dot(eta, change)
    log_q = _dot(eta, start) + slope * share + rate0 * below - rate1 * above - peak - jnp.log(total * step)
    by_eta = start + change * share + turn0 * below - turn1 * above - sums / total
    by_x = jnp.where(t < 0, rate0, jnp.where(t > last, -rate1, slope)) / step
    return log_q, jnp.moveaxis(by_eta, 0, 1), by_x


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _circle_log_prob(eta: Array, angle: Array, nodes: int) -> Array:
    """The same of angles (T, b), by the table of `Circle`."""
    return _circle_log_prob_and_slopes(eta, angle, nodes)[0]


@_circle_log_prob.defjvp
def _circle_log_prob_jvp(nodes: int, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    eta, angle = primals
    log_q, by_eta, by_angle = _circle_log_prob_and_slopes(eta, angle, nodes)
    return log_q, jnp.sum(by_eta * tangents[0], axis=1) + by_angle * tangents[1]


def _circle_log_prob_and_slopes(eta: Array, angle: Array, nodes: int) -> tuple[Array, Array, Array]:
    step = 2 * math.pi / nodes

    def node(k: Array | int) -> Array:
        return _waves(jnp.atleast_2d(k * jnp.asarray(step, eta.dtype)), eta.shape[1])

    peak, total, sums = _moments(eta, node, nodes + 1)
    t = jnp.mod(angle, 2 * math.pi) / step
    k = jnp.clip(jnp.floor(t), 0, nodes - 1)
    start, end = node(k), node(k + 1)
    slope = _dot(eta, end - start)
    log_q = _dot(eta, start) + slope * (t - k) - peak - jnp.log(total * step)
    by_eta = start + (end - start) * (t - k) - sums / total
    return log_q, jnp.moveaxis(by_eta, 0, 1), slope / step


_Running = tuple[Array, Array, Array, Array]


def _moments(eta: Array, node: Callable[[Array | int], Array], nodes: int) -> tuple[Array, Array, Array]:
    """The peak of g = η·features on the nodes, Σ of the cells' masses (T, b) in units of its exponential and of steps,
    and its derivatives by η (F, T, b) at a fixed peak. A loop over nodes, whose features `node` says, (F, …)."""

    def higher(k: Array, peak: Array) -> Array:
        return jnp.maximum(peak, _dot(eta, node(k)))

    def cell(carry: _Running, k: Array) -> tuple[_Running, None]:
        before, g0, total, sums = carry
        after = node(k)
        g1 = _dot(eta, after)
        f = jnp.exp(jnp.stack([g0, g1]) - peak)
        mass, upper = _cell_masses(f, (g1 - g0)[None])[0], _upper_share(f[0], f[1], g1 - g0)
        return (after, g1, total + mass, sums + (mass - upper) * before + upper * after), None

    first = node(0)
    start = _dot(eta, first)
    peak = jax.lax.fori_loop(1, nodes, higher, start)
    none = jnp.zeros_like(start)
    carry = (first, start, none, jnp.zeros((eta.shape[1], *none.shape), none.dtype))
    return peak, *jax.lax.scan(cell, carry, jnp.arange(1, nodes, dtype=eta.dtype))[0][2:]


def _dot(eta: Array, features: Array) -> Array:
    """Σ_f η_f features_f of (T, F, b) and (F, …)."""
    total = eta[:, 0] * features[0]
    for f in range(1, eta.shape[1]):
        total = total + eta[:, f] * features[f]
    return total


def _waves(angle: Array, count: int) -> Array:
    """cos θ, sin θ, cos 2θ, … (count, …)."""
    return jnp.stack([wave(p * angle) for p in range(1, count // 2 + 1) for wave in (jnp.cos, jnp.sin)])


def _drawn_cell(key: Array, masses: Array) -> tuple[Array, Array]:
    """A cell of masses (K, T, b), drawn as they weigh, and how much of its mass lies before the point drawn.

    Uniform numbers have a step; they are taken at its middle, or 0 would be drawn once in 2²³ times and lie infinitely
    far out in a tail. The total is added up as the running sum is, or rounding would reach the last cell too often. As
    a loop over cells, which a CPU does fifty times faster than a running sum along the first axis.
    """

    def pass_by(carry: tuple[Array, Array, Array], mass: Array) -> tuple[tuple[Array, Array, Array], None]:
        running, before, cell = carry
        running = running + mass
        below = running <= target
        return (running, jnp.where(below, running, before), cell + below), None

    middle = 0.5 * jnp.finfo(masses.dtype).eps
    total = jax.lax.scan(lambda sum_, mass: (sum_ + mass, None), jnp.zeros_like(masses[0]), masses)[0]
    target = (jax.random.uniform(key, total.shape, total.dtype) + middle) * total
    zero = jnp.zeros_like(total)
    _, before, cell = jax.lax.scan(pass_by, (zero, zero, zero), masses)[0]
    return jnp.minimum(cell, masses.shape[0] - 1), jnp.maximum(target - before, 0.0)


def _inverse(log_f0: Array, rise: Array, mass: Array) -> Array:
    """s in [0, 1] with ∫₀^s f₀ e^{rise·s'} ds' = mass."""
    share = mass * jnp.exp(-jnp.maximum(log_f0, -80.0))
    small = jnp.abs(rise) < 1e-3
    slope = jnp.where(small, 1.0, rise)
    far = jnp.log1p(jnp.maximum(slope * share, -1 + 1e-7)) / slope
    return jnp.clip(jnp.where(small, share * (1 - 0.5 * rise * share), far), 0.0, 1.0)


def _wrapped(angle: Array) -> Array:
    return angle - 2 * math.pi * jnp.ceil((angle - math.pi) / (2 * math.pi))
