"""Densities on nodes: the logarithm is linear between them, so a cell's mass and its inverse are elementary.

What densities.py draws and evaluates by tables, with the derivatives written out: those of the formulas, taken by JAX,
cost 5 to 14 times as much. Loops go over nodes and cells; tables of all nodes at once are only made for draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array


def cell_masses(f: Array, rise: Array) -> Array:
    """∫₀¹ f₀ e^{rise·s} ds = (f₁ − f₀)/rise of the cells between nodes, by its series where the rise is small."""
    f0, f1 = f[:-1], f[1:]
    small = jnp.abs(rise) < 0.3
    series = jnp.sqrt(f0 * f1 + jnp.finfo(f0.dtype).tiny) * (1 + rise**2 / 24 * (1 + rise**2 / 80))
    return jnp.where(small, series, (f1 - f0) / jnp.where(small, 1.0, rise))


def upper_share(f0: Array, f1: Array, rise: Array) -> Array:
    """∫₀¹ s f₀ e^{rise·s} ds: the derivative of a cell's mass in the logarithm of f₁; the rest belongs to f₀."""
    small = jnp.abs(rise) < 0.3
    slope = jnp.where(small, 1.0, rise)
    series = f0 * (1 / 2 + rise * (1 / 3 + rise * (1 / 8 + rise * (1 / 30 + rise / 144))))
    return jnp.where(small, series, (f1 * (slope - 1) + f0) / slope**2)


@jax.custom_jvp
def log_total(g: Array) -> Array:
    """ln of the sum of all cells' masses (T, b), in steps, of a table with logarithms g (M, T, b).

    Its derivative is written out: that of the formulas costs several times as much, and memory.
    """
    peak = jnp.max(g, axis=0)
    return peak + jnp.log(jnp.sum(cell_masses(jnp.exp(g - peak), g[1:] - g[:-1]), axis=0))


@log_total.defjvp
def _log_total_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (g,), (change,) = primals, tangents
    peak = jnp.max(g, axis=0)
    f, rise = jnp.exp(g - peak), g[1:] - g[:-1]
    masses, upper = cell_masses(f, rise), upper_share(f[:-1], f[1:], rise)
    total, nothing = jnp.sum(masses, axis=0), jnp.zeros_like(peak)[None]
    weights = (jnp.concatenate([masses - upper, nothing]) + jnp.concatenate([nothing, upper])) / total
    return peak + jnp.log(total), jnp.sum(weights * change, axis=0)


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def line_log_prob(eta: Array, x: Array, low: Array, step: Array, nodes: int) -> Array:
    """ln q (T, b) of values x (T, b) by the table of `Line` on the given window, which does not count as varying."""
    return _line_log_prob_and_slopes(eta, x, low, step, nodes)[0]


@line_log_prob.defjvp
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

    peak, total, sums = moments(eta, node, nodes)
    # beyond the first and the last node ln q goes on as a line; its rate counts as varying where it is not the least
    first, end, turn0, turn1 = node(0), node(last), rise(0), -rise(last - 1)
    rate0, rate1 = (jnp.maximum(dot(eta, turn), least) for turn in (turn0, turn1))
    turn0, turn1 = (jnp.where(dot(eta, turn) > least, turn, 0.0) for turn in (turn0, turn1))
    left, right = jnp.exp(dot(eta, first) - peak) / rate0, jnp.exp(dot(eta, end) - peak) / rate1
    total = total + left + right
    sums = sums + left * (first - turn0 / rate0) + right * (end - turn1 / rate1)
    t = (x - low) / step
    k = jnp.clip(jnp.floor(t), 0, last - 1)
    below, above = jnp.minimum(t, 0), jnp.maximum(t - last, 0)
    start, change, share = node(k), rise(k), jnp.clip(t, 0, last) - k
    slope = dot(eta, change)
    log_q = dot(eta, start) + slope * share + rate0 * below - rate1 * above - peak - jnp.log(total * step)
    by_eta = start + change * share + turn0 * below - turn1 * above - sums / total
    by_x = jnp.where(t < 0, rate0, jnp.where(t > last, -rate1, slope)) / step
    return log_q, jnp.moveaxis(by_eta, 0, 1), by_x


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def circle_log_prob(eta: Array, angle: Array, nodes: int) -> Array:
    """The same of angles (T, b), by the table of `Circle`."""
    return _circle_log_prob_and_slopes(eta, angle, nodes)[0]


@circle_log_prob.defjvp
def _circle_log_prob_jvp(nodes: int, primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    eta, angle = primals
    log_q, by_eta, by_angle = _circle_log_prob_and_slopes(eta, angle, nodes)
    return log_q, jnp.sum(by_eta * tangents[0], axis=1) + by_angle * tangents[1]


def _circle_log_prob_and_slopes(eta: Array, angle: Array, nodes: int) -> tuple[Array, Array, Array]:
    step = 2 * math.pi / nodes

    def node(k: Array | int) -> Array:
        return waves(jnp.atleast_2d(k * jnp.asarray(step, eta.dtype)), eta.shape[1])

    peak, total, sums = moments(eta, node, nodes + 1)
    t = jnp.mod(angle, 2 * math.pi) / step
    k = jnp.clip(jnp.floor(t), 0, nodes - 1)
    start, end = node(k), node(k + 1)
    slope = dot(eta, end - start)
    log_q = dot(eta, start) + slope * (t - k) - peak - jnp.log(total * step)
    by_eta = start + (end - start) * (t - k) - sums / total
    return log_q, jnp.moveaxis(by_eta, 0, 1), slope / step


_Running = tuple[Array, Array, Array, Array]


def moments(
    eta: Array, node: Callable[[Array | int], Array], nodes: int, width: Callable[[Array], Array] | None = None
) -> tuple[Array, Array, Array]:
    """The peak of g = η·features on the nodes, Σ of the cells' masses (T, b) in units of its exponential and of steps,
    and its derivatives by η (F, T, b) at a fixed peak. A loop over nodes, whose features `node` says, (F, …); `width`
    says how wide the cell after a node is, if not one step."""

    def higher(k: Array, peak: Array) -> Array:
        return jnp.maximum(peak, dot(eta, node(k)))

    def cell(carry: _Running, k: Array) -> tuple[_Running, None]:
        before, g0, total, sums = carry
        after = node(k)
        g1 = dot(eta, after)
        f = jnp.exp(jnp.stack([g0, g1]) - peak)
        mass, upper = cell_masses(f, (g1 - g0)[None])[0], upper_share(f[0], f[1], g1 - g0)
        if width is not None:
            mass, upper = mass * width(k - 1), upper * width(k - 1)
        return (after, g1, total + mass, sums + (mass - upper) * before + upper * after), None

    first = node(0)
    start = dot(eta, first)
    peak = jax.lax.fori_loop(1, nodes, higher, start)
    none = jnp.zeros_like(start)
    carry = (first, start, none, jnp.zeros((eta.shape[1], *none.shape), none.dtype))
    return peak, *jax.lax.scan(cell, carry, jnp.arange(1, nodes, dtype=eta.dtype))[0][2:]


def dot(eta: Array, features: Array) -> Array:
    """Σ_f η_f features_f of (T, F, b) and (F, …)."""
    total = eta[:, 0] * features[0]
    for f in range(1, eta.shape[1]):
        total = total + eta[:, f] * features[f]
    return total


def waves(angle: Array, count: int) -> Array:
    """cos θ, sin θ, cos 2θ, … (count, …)."""
    return jnp.stack([wave(p * angle) for p in range(1, count // 2 + 1) for wave in (jnp.cos, jnp.sin)])


def drawn_cell(key: Array, masses: Array) -> tuple[Array, Array]:
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


def inverse(log_f0: Array, rise: Array, mass: Array) -> Array:
    """s in [0, 1] with ∫₀^s f₀ e^{rise·s'} ds' = mass."""
    share = mass * jnp.exp(-jnp.maximum(log_f0, -80.0))
    small = jnp.abs(rise) < 1e-3
    slope = jnp.where(small, 1.0, rise)
    far = jnp.log1p(jnp.maximum(slope * share, -1 + 1e-7)) / slope
    return jnp.clip(jnp.where(small, share * (1 - 0.5 * rise * share), far), 0.0, 1.0)
