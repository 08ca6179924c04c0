"""Regions: coupling layers of U(1) links on a two-dimensional torus whose active loops go from large to small.

The torus is cut in two, each part in two, and so on down to plaquettes. For every cut one link on the common wall
moves: it shifts the flux F of one part against that of the other, whose sum Φ stands still. Given all other loops F is
uniform at first, and the action of weight e^{b cos P} on plaquettes wants, for parts of m and n plaquettes,

    p(F | Φ) ∝ G_m(F) G_n(Φ − F),    G_m(F) = Σ_k (I_k(b)/I_0(b))^m e^{ikF}    (the heat kernel of m plaquettes).

The layer is F → F' with the uniform distribution function of F as that of p: linear between the nodes of a grid, hence
with an exact inverse and an exact log-determinant. Nothing is trained. For any other action it is a start for layers
that are; all fluxes of one level move together (active loops: Kanwar et al. 2020, arXiv:2003.06413).
"""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.special import ive

from vdsl.guides.arrays import integers, reals
from vdsl.guides.links import plaquette_links
from vdsl.ir.lattice import PERIODIC, Lattice

_NODES = 192
_FLOOR = 1e-6  # of the largest value of a kernel: what single precision leaves of its Fourier series
_MOST_PLAQUETTES = 1024


@dataclass(frozen=True)
class Cut:
    """Plaquettes of the two parts; the link that moves, and the sign with which it enters the first part's flux."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    link: int
    sign: int


class Level(eqx.Module):
    """n cuts. link, sign (n,); first, whole (n, V): 1 for plaquettes inside; kernels (n, K): ρ_k^m of both parts."""

    link: Array
    sign: Array
    first: Array
    whole: Array
    kernel: Array  # (nodes + 1, n): G_m on the grid
    other: Array  # (n, K): Fourier coefficients of G_n


class Regions(eqx.Module):
    """x (links, b) -> the moved links and ln|det| (b,), level by level. plaquettes (4, V): link numbers."""

    plaquettes: Array
    levels: tuple[Level, ...]

    def forward(self, x: Array) -> tuple[Array, Array]:
        """Uniform links to links of weight Π e^{b cos P}."""
        log_det = jnp.zeros_like(x[0])
        for level in self.levels:
            x, slope = self._moved(level, x, back=False)
            log_det = log_det + slope
        return x, log_det

    def inverse(self, x: Array) -> tuple[Array, Array]:
        """Back, and ln|det| of the way back."""
        log_det = jnp.zeros_like(x[0])
        for level in reversed(self.levels):
            x, slope = self._moved(level, x, back=True)
            log_det = log_det + slope
        return x, log_det

    def _moved(self, level: Level, x: Array, back: bool) -> tuple[Array, Array]:
        a, b, c, d = (x[k] for k in self.plaquettes)
        angles = a + b - c - d
        flux, log_slope = _transported(level, wrap(level.first @ angles), level.whole @ angles, back)
        return x.at[level.link].add(level.sign[:, None] * flux, unique_indices=True), log_slope.sum(0)


def regions(lattice: Lattice, weight: float) -> Regions | None:
    """The layers for plaquettes of weight e^{b cos P}, b = `weight`; None where there are none."""
    if lattice.n_axes != 2 or set(lattice.boundary) != {PERIODIC} or lattice.n_plaquettes > _MOST_PLAQUETTES:
        return None
    k = np.arange(64)
    ratio = np.sign(weight) ** k * ive(k, abs(weight)) / ive(0, abs(weight))
    grid = np.linspace(-np.pi, np.pi, _NODES + 1)
    levels = []
    for cuts in _cuts(lattice):
        inside = np.zeros((2, len(cuts), lattice.n_plaquettes))
        for row, cut in enumerate(cuts):
            inside[0, row, list(cut.first)] = inside[1, row, list(cut.second)] = 1
        series = [_series(ratio, part.sum(1)) for part in inside]
        kernel = np.maximum(np.cos(np.outer(grid, k)) @ series[0].T, _FLOOR * series[0].sum(1))
        levels.append(
            Level(
                integers([cut.link for cut in cuts]),
                reals([cut.sign for cut in cuts]),
                reals(inside[0]),
                reals(inside.sum(0)),
                reals(kernel),
                reals(series[1]),
            )
        )
    return Regions(integers(plaquette_links(lattice)), tuple(levels))


def wrap(x: Array) -> Array:
    """Angles into [−π, π)."""
    return x - 2 * jnp.pi * jax.lax.stop_gradient(jnp.floor((x + jnp.pi) / (2 * jnp.pi)))


def _transported(level: Level, flux: Array, total: Array, back: bool) -> tuple[Array, Array]:
    """By how much the first part's flux (n, b) moves, and ln of the derivative; total (n, b)."""
    step = 2 * jnp.pi / _NODES
    k = jnp.arange(level.other.shape[1])
    grid = jnp.linspace(-jnp.pi, jnp.pi, _NODES + 1)
    phase = k[:, None, None] * total
    waves = level.other.T[:, :, None] * jnp.stack([jnp.cos(phase), jnp.sin(phase)])  # (2, K, n, b)
    turns = jnp.stack([jnp.cos(grid[:, None] * k), jnp.sin(grid[:, None] * k)])  # (2, nodes + 1, K)
    other = jnp.einsum("cgk,cknb->gnb", turns, waves)  # Σ ρ_k cos k(Φ − F)
    w = level.kernel[..., None] * jnp.maximum(other, _FLOOR * level.other.sum(1)[:, None])
    running = jnp.concatenate([jnp.zeros_like(w[:1]), jnp.cumsum(0.5 * (w[1:] + w[:-1]), axis=0)])
    mass = running[-1]
    at = lambda values, cell: jnp.take_along_axis(values, cell[None], 0)[0]  # noqa: E731
    if back:
        place = (flux + jnp.pi) / step
        cell = jnp.clip(jnp.floor(jax.lax.stop_gradient(place)), 0, _NODES - 1).astype(int)
        s, low, high = place - cell, at(w, cell), at(w, cell + 1)
        moved = (at(running, cell) + low * s + 0.5 * (high - low) * s * s) / mass * (2 * jnp.pi) - jnp.pi
    else:
        target = (flux + jnp.pi) / (2 * jnp.pi) * mass
        cell = jnp.clip((jax.lax.stop_gradient(running <= target)).sum(0) - 1, 0, _NODES - 1)
        rest, low, high = target - at(running, cell), at(w, cell), at(w, cell + 1)
        s = 2 * rest / (low + jnp.sqrt(jnp.maximum(low**2 + 2 * (high - low) * rest, 0.0)))
        moved = (cell + s) * step - jnp.pi
    log_density = jnp.log((low + (high - low) * s) / mass * (_NODES / (2 * jnp.pi) * (2 * jnp.pi)))
    return moved - flux, log_density if back else -log_density


def _series(ratio: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """1, 2ρ_1^m, 2ρ_2^m … for each area m."""
    return np.where(np.arange(len(ratio)) > 0, 2, 1) * ratio ** areas[:, None]


def _cuts(lattice: Lattice) -> list[list[Cut]]:
    """Halving the longer side, level by level, until nothing but plaquettes is left."""
    number = lattice.link_number.reshape(*lattice.shape, 2)
    cell = np.arange(lattice.n_cells).reshape(lattice.shape)
    parts, levels = [((0, lattice.shape[0]), (0, lattice.shape[1]))], []
    while parts:
        cuts, smaller = [], []
        for sides in parts:
            axis = 0 if sides[0][1] - sides[0][0] >= sides[1][1] - sides[1][0] else 1
            (low, high), other = sides[axis], sides[1 - axis]
            if high - low == 1:
                continue
            middle = (low + high) // 2
            two = [((low, middle), other), ((middle, high), other)]
            boxes = [part if axis == 0 else part[::-1] for part in two]
            # θ_1 at the wall enters the plaquette before it with +; θ_0 with −.
            corner = (middle, other[0]) if axis == 0 else (other[0], middle)
            inside = [tuple(cell[slice(*box[0]), slice(*box[1])].ravel().tolist()) for box in boxes]
            cuts.append(Cut(inside[0], inside[1], int(number[(*corner, 1 - axis)]), 1 if axis == 0 else -1))
            smaller += boxes
        if cuts:
            levels.append(cuts)
        parts = smaller
    return levels
