"""Steps: one number drawn from a density that is tabulated at nodes, and interpolated between them.

Linear: for densities that vanish somewhere. Logarithmic: for positive ones, whose tails are then right as well. The
density of what is drawn is the interpolated one, exactly: a coarse table costs weight, never bias. Positions are in
cells: cell + place, place in [0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.lowering.kernels import working_dtype


def uniforms(key: Array, *shapes: tuple[int, ...]) -> list[Array]:
    """Independent uniform numbers of these shapes, in one call: compiling a generator takes longer than running it."""
    return _cut(lambda n: jax.random.uniform(key, (n,), working_dtype()), shapes)


def normals(key: Array, *shapes: tuple[int, ...]) -> list[Array]:
    """The same, standard normal."""
    return _cut(lambda n: jax.random.normal(key, (n,), working_dtype()), shapes)


def _cut(draw: Callable[[int], Array], shapes: tuple[tuple[int, ...], ...]) -> list[Array]:
    sizes = [math.prod(shape) for shape in shapes]
    parts = jnp.split(draw(sum(sizes)), np.cumsum(sizes)[:-1].tolist())
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def pick(masses: Array, u: Array) -> tuple[Array, Array]:
    """(cell (b,), total (b,)): each cell with probability masses / total; masses (b, K), u uniform in [0, 1)."""
    running = running_sum(masses)
    total = running[:, -1]
    cell = jnp.sum(running <= (u * total)[:, None], axis=1)
    return jnp.minimum(cell, masses.shape[1] - 1), total


def running_sum(masses: Array) -> Array:
    """Cumulative sums of (b, K), K a multiple of 16, by blocks: several times quicker than `cumsum` on CPUs."""
    blocks = masses.reshape(len(masses), -1, 16)
    inner = blocks @ jnp.triu(jnp.ones((16, 16), masses.dtype))
    sums = inner[..., -1]
    before = sums @ jnp.triu(jnp.ones((sums.shape[1],) * 2, masses.dtype), 1)
    return (inner + before[..., None]).reshape(masses.shape)


def at(values: Array, cell: Array) -> Array:
    """values[b, cell[b]]."""
    return jnp.take_along_axis(values, cell[:, None], 1)[:, 0]


def inside_linear(u: Array, low: Array, high: Array) -> Array:
    """s with ∫₀^s (f₀ + (f₁ − f₀)s') ds' = u (f₀ + f₁)/2."""
    root = jnp.sqrt(low**2 + u * (high**2 - low**2))
    return jnp.minimum(u * (low + high) / jnp.maximum(low + root, jnp.finfo(low.dtype).tiny), 1.0)


def inside_log(u: Array, rise: Array) -> Array:
    """s with ∫₀^s e^{rise·s'} ds' = u ∫₀¹ e^{rise·s'} ds'."""
    small = jnp.abs(rise) < 1e-3
    slope = jnp.where(small, 1.0, rise)
    return jnp.where(small, u * (1 - 0.5 * rise * (1 - u)), jnp.log1p(u * jnp.expm1(slope)) / slope)


def log_masses(low: Array, high: Array) -> Array:
    """∫₀¹ e^{g} over cells in which g goes linearly from low to high: (e^{g₁} − e^{g₀})/(g₁ − g₀)."""
    rise = high - low
    small = jnp.abs(rise) < 0.3
    series = jnp.exp(low + 0.5 * rise) * (1 + rise**2 / 24 * (1 + rise**2 / 80))  # what cancels in the quotient
    return jnp.where(small, series, (jnp.exp(high) - jnp.exp(low)) / jnp.where(small, 1.0, rise))


def alias_cell(u: Array, v: Array, accept: Array, alias: Array) -> Array:
    """A cell by Walker's method from two uniform numbers; accept and alias (K,)."""
    column = jnp.minimum((u * len(accept)).astype(jnp.int32), len(accept) - 1)
    return jnp.where(v < accept[column], column, alias[column])


def walker(masses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(accept, alias): column k, drawn uniformly, is kept with probability accept[k] and else replaced by alias[k].

    Walker 1977, ACM Trans. Math. Softw. 3, 253: a discrete distribution in one look-up.
    """
    share = masses * (len(masses) / masses.sum())
    accept, alias = np.ones(len(masses)), np.arange(len(masses))
    small, large = np.flatnonzero(share < 1).tolist(), np.flatnonzero(share >= 1).tolist()
    while small and large:
        poor, rich = small.pop(), large[-1]
        accept[poor], alias[poor] = share[poor], rich
        share[rich] -= 1 - share[poor]
        if share[rich] < 1:
            small.append(large.pop())
    return accept, alias
