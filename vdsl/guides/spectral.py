"""Spectral: Gaussians that translations of a periodic lattice leave alone, one small matrix per momentum.

    x = μ + F⁻¹ S_k F ξ,   ξ ~ N(0, 1),   covariance per momentum Σ_k = S_k S_k†,   S_{−k} = conj(S_k),

F the Fourier transform over cells, S_k a matrix over the C numbers that a cell holds. S_k = S⁰_k T_k: S⁰ comes from the
model, T is lower triangular with a positive diagonal and is what training deforms; ±k share it, and so do momenta that
reflections and exchanges of axes map onto each other where S⁰ has that symmetry.

On a sublattice (cells that form a subgroup of the translations, or a coset of one) momenta that differ by the dual of
the subgroup are the same: the marginal of Σ is its average over them, and noise on the sublattice stays there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations, product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers, reals
from vdsl.guides.chart import Chart
from vdsl.guides.flow import Base
from vdsl.guides.guide import Params
from vdsl.ir.lattice import PERIODIC
from vdsl.lowering.kernels import complex_dtype


@dataclass(frozen=True)
class SpectralGeometry:
    """Translation-invariant matrices as (*cells, C, C), Hermitian, conjugate at −k. See `hartree.Geometry`."""

    chart: Chart

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """The channel (D,) and the cell (D, axes) of every coordinate."""
        place = np.argsort(np.array(self.chart.grid))
        channel, cell = np.divmod(place, int(np.prod(self.chart.cells)))
        return channel, np.stack(np.unravel_index(cell, self.chart.cells), 1)

    def _displacement(self, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, ...]:
        channel, cell = self._places
        moved = (cell[j] - cell[i]) % np.array(self.chart.cells)
        return channel[i], channel[j], *moved.T

    def invariant(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> bool:
        """Whether the entries are those of a translation-invariant matrix."""
        kernel, square = np.zeros((2, self.chart.channels, self.chart.channels, *self.chart.cells))
        pairs, inverse = np.unique(np.stack([rows, columns]), axis=1, return_inverse=True)
        total = np.bincount(inverse.reshape(-1), values, pairs.shape[1])
        where = self._displacement(*pairs)
        np.add.at(kernel, where, total)
        np.add.at(square, where, total**2)
        n = np.prod(self.chart.cells)
        largest = float(np.max(np.abs(total), initial=0.0))
        return bool(np.all(np.abs(square / n - (kernel / n) ** 2) <= 1e-14 * largest**2))

    def assemble(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> np.ndarray:
        kernel = np.zeros((self.chart.channels, self.chart.channels, *self.chart.cells))
        np.add.at(kernel, self._displacement(rows, columns), values / np.prod(self.chart.cells))
        return _channels_last(np.conj(np.fft.fftn(kernel, axes=self._axes)))

    def lowest(self, matrix: np.ndarray) -> float:
        return float(np.linalg.eigvalsh(matrix).min())

    def add_diagonal(self, matrix: np.ndarray, value: float) -> np.ndarray:
        return matrix + value * np.eye(self.chart.channels)

    def mix(self, a: np.ndarray, b: np.ndarray, weight: float) -> np.ndarray:
        return (1 - weight) * a + weight * b

    def log_det(self, matrix: np.ndarray) -> float:
        eigenvalues = np.linalg.eigvalsh(matrix)
        if eigenvalues.min() <= 1e-13 * eigenvalues.max():
            raise np.linalg.LinAlgError("not positive definite")
        return float(np.log(eigenvalues).sum())

    def covariance(self, matrix: np.ndarray) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        inverse = np.moveaxis(np.linalg.inv(matrix), (-2, -1), (0, 1))
        kernel = np.fft.ifftn(np.conj(inverse), axes=self._axes).real
        return lambda i, j: kernel[self._displacement(i, j)]

    def entries(self, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        kernel = np.fft.ifftn(np.conj(np.moveaxis(matrix, (-2, -1), (0, 1))), axes=self._axes).real
        kernel[np.abs(kernel) < 1e-12 * np.abs(kernel).max()] = 0.0
        a, b, *moved = np.nonzero(kernel)
        cells = np.stack(np.unravel_index(np.arange(np.prod(self.chart.cells)), self.chart.cells), 1)
        target = (cells[:, None] + np.stack(moved, 1)) % np.array(self.chart.cells)  # (cells, pairs, axes)
        end = np.ravel_multi_index(tuple(np.moveaxis(target, -1, 0)), self.chart.cells)
        grid = np.array(self.chart.grid).reshape(self.chart.channels, -1)
        rows = grid[a[None], np.arange(len(cells))[:, None]]
        values = np.broadcast_to(kernel[(a, b, *moved)], rows.shape)
        return rows.reshape(-1), grid[b[None], end].reshape(-1), values.reshape(-1)

    def solve(self, matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
        image = right[np.array(self.chart.grid)].reshape(self.chart.channels, *self.chart.cells)
        hat = np.moveaxis(np.fft.fftn(image, axes=tuple(range(1, image.ndim))), 0, -1)
        solved = np.moveaxis(np.linalg.solve(matrix, hat[..., None])[..., 0], -1, 0)
        out = np.fft.ifftn(solved, axes=tuple(range(1, image.ndim))).real
        return out.reshape(-1)[np.argsort(np.array(self.chart.grid))]

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(2, 2 + len(self.chart.cells)))


def _channels_last(kernel: np.ndarray) -> np.ndarray:
    return np.moveaxis(kernel, (0, 1), (-2, -1))


def fully_periodic(chart: Chart) -> bool:
    """Whether there is a grid and it is a torus."""
    return bool(chart.cells) and all(b == PERIODIC for b in chart.boundary)


class SpectralBase(Base):
    """See the module. root (*half, C, C); orbit (*half): which parameters a momentum has; sign: of imaginary parts.

    weight (orbits,): how many independent momenta an orbit stands for. mean, kept (D,). free (D,): 1 where a mean per
    channel is learned. trained: whether T is; free_mean: whether any mean is.
    """

    root: Array
    root_inverse: Array
    log_det: Array
    orbit: Array
    sign: Array
    weight: Array
    mean: Array
    kept: Array
    n_kept: Array
    free: Array
    chart: Chart = eqx.field(static=True)
    trained: bool = eqx.field(static=True)
    free_mean: bool = eqx.field(static=True)

    def init(self, key: Array) -> Params:
        c, orbits = self.chart.channels, self.weight.shape[0]
        params: dict[str, Array] = {}
        if self.trained:
            params["log_scale"] = jnp.zeros((orbits, c))
            if c > 1:
                params["mixing"] = jnp.zeros((2, orbits, c, c))
        if self.free_mean:
            params["mean"] = jnp.zeros(c)
        return params

    def sample(self, params: Params, key: Array, n: int) -> Array:
        noise = self.kept * jax.random.normal(key, (n, self.chart.size))
        root = self.root if not self.trained else self.root @ self._triangle(params)
        return self._mean(params) + self.kept * self._apply(root, noise)

    def log_prob(self, params: Params, z: Array) -> Array:
        whiten, log_det = self.root_inverse, self.log_det
        if self.trained:
            whiten = _inverse_triangle(self._triangle(params)) @ whiten
            log_det = log_det + jnp.sum(self.weight * jnp.sum(params["log_scale"], axis=-1))
        noise = self._apply(whiten, self.kept * (z - self._mean(params)))
        return -0.5 * jnp.sum((self.kept * noise) ** 2, axis=-1) - log_det - 0.5 * self.n_kept * jnp.log(2 * jnp.pi)

    def _mean(self, params: Params) -> Array:
        if not self.free_mean:
            return self.mean
        shift = jnp.repeat(params["mean"], int(np.prod(self.chart.cells)))
        return self.mean + self.free * shift[np.argsort(np.array(self.chart.grid))]

    def _triangle(self, params: Params) -> Array:
        """T_k, (*half, C, C)."""
        scale = jnp.exp(params["log_scale"])[self.orbit]
        if "mixing" not in params:
            return scale[..., None]
        real, imaginary = params["mixing"][:, self.orbit]
        off = jax.lax.complex(real, self.sign[..., None, None] * imaginary)
        return jnp.tril(off, -1) + scale[..., None] * jnp.eye(self.chart.channels)

    def _apply(self, matrix: Array, x: Array) -> Array:
        """The convolution with a matrix per momentum, (b, D) -> (b, D)."""
        axes = tuple(range(2, 2 + len(self.chart.cells)))
        hat = _forward(self.chart.to_grid(x), axes)
        mixed = matrix[..., 0, 0] * hat if self.chart.channels == 1 else jnp.einsum("...cd,bd...->bc...", matrix, hat)
        return self.chart.from_grid(_backward(mixed, axes, self.chart.cells))


def _forward(image: Array, axes: tuple[int, ...]) -> Array:
    """The real Fourier transform over `axes`; XLA transforms three axes at a time."""
    if len(axes) <= 3:
        return jnp.fft.rfftn(image, axes=axes)
    hat = jnp.fft.rfft(image, axis=axes[-1])
    for axis in axes[:-1]:
        hat = jnp.fft.fft(hat, axis=axis)
    return hat


def _backward(hat: Array, axes: tuple[int, ...], cells: tuple[int, ...]) -> Array:
    if len(axes) <= 3:
        return jnp.fft.irfftn(hat, s=cells, axes=axes)
    for axis in axes[:-1]:
        hat = jnp.fft.ifft(hat, axis=axis)
    return jnp.fft.irfft(hat, n=cells[-1], axis=axes[-1])


def _inverse_triangle(triangle: Array) -> Array:
    if triangle.shape[-1] == 1:
        return 1 / triangle
    identity = jnp.broadcast_to(jnp.eye(triangle.shape[-1], dtype=triangle.dtype), triangle.shape)
    return jax.scipy.linalg.solve_triangular(triangle, identity, lower=True)


# --- construction, on the host ----------------------------------------------------------------------------------------


def sublattice(chart: Chart, kept: np.ndarray) -> np.ndarray | None:
    """Which momenta are the same as 0 on the kept cells, (*cells) bool; None if they form no sublattice."""
    masks = kept[np.array(chart.grid)].reshape(chart.channels, *chart.cells) > 0
    if not (masks == masks[0]).all():
        return None
    size = np.abs(np.fft.fftn(masks[0].astype(float)))
    dual = size > masks[0].sum() - 1e-6
    return dual if np.all(dual | (size < 1e-6)) else None


def build_spectral(
    chart: Chart, precision: np.ndarray, mean: np.ndarray, kept: np.ndarray, trained: bool, free: np.ndarray
) -> SpectralBase:
    """The marginal of N(mean, precision⁻¹), precision (*cells, C, C), on kept coordinates that form a sublattice.

    free (D,): 1 where a uniform mean is learned.
    """
    dual = sublattice(chart, kept)
    if dual is None:
        raise ValueError("the kept coordinates form no sublattice")
    covariance = np.linalg.inv(precision)
    shifts = np.argwhere(dual)
    axes = tuple(range(len(chart.cells)))
    marginal = np.mean([np.roll(covariance, tuple(-s), axes) for s in shifts], axis=0)
    values, vectors = np.linalg.eigh(marginal)
    root = (vectors * np.sqrt(values)[..., None, :]) @ np.conj(np.swapaxes(vectors, -1, -2))
    inverse = (vectors / np.sqrt(values)[..., None, :]) @ np.conj(np.swapaxes(vectors, -1, -2))
    orbit, sign = _orbits(chart, marginal, shifts)
    half = (slice(None),) * (len(chart.cells) - 1) + (slice(0, chart.cells[-1] // 2 + 1),)
    weight = np.bincount(orbit.reshape(-1)) / len(shifts)
    log_det = 0.5 * np.log(values).sum() / len(shifts)
    return SpectralBase(
        _matrices(root[half]), _matrices(inverse[half]), reals(log_det), integers(orbit[half]), reals(sign[half]),
        reals(weight), reals(mean * kept), reals(kept), reals(kept.sum()),
        reals(free), chart, trained, bool(free.any()),
    )  # fmt: skip


def _matrices(values: np.ndarray) -> Array:
    """Onto the device; 1×1 Hermitian matrices are real numbers."""
    if values.shape[-1] == 1:
        return reals(values.real)
    return jax.device_put(values.astype(complex_dtype()))


def _orbits(chart: Chart, spectrum: np.ndarray, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which momenta share parameters, numbered from 0, (*cells); and the sign of imaginary parts: +1, −1, or 0."""
    shape = np.array(chart.cells)
    momenta = np.stack(np.unravel_index(np.arange(shape.prod()), chart.cells), 1)

    def number(k: np.ndarray) -> np.ndarray:
        return np.ravel_multi_index(tuple((k % shape).T), chart.cells)

    same = np.min([number(momenta + s) for s in shifts], axis=0)
    conjugate = same[number(-momenta)]
    if chart.channels == 1:
        flat = spectrum.reshape(-1).real
        group = _point_group(momenta, chart.cells, number)
        images = [m for m in group if np.allclose(flat[m], flat, rtol=1e-9) and (same[m[same]] == same[m]).all()]
        representative = np.min([np.minimum(same[m], conjugate[m]) for m in images], axis=0)
    else:
        representative = np.minimum(same, conjugate)
    sign = np.sign(conjugate - same).astype(float)
    orbit = np.unique(representative, return_inverse=True)[1]
    return orbit.reshape(chart.cells), sign.reshape(chart.cells)


def _point_group(
    momenta: np.ndarray, cells: tuple[int, ...], number: Callable[[np.ndarray], np.ndarray]
) -> Iterator[np.ndarray]:
    """Reflections and exchanges of axes of equal length, as permutations of momenta."""
    d = len(cells)
    for order in permutations(range(d)):
        if all(cells[a] == cells[b] for a, b in enumerate(order)):
            for signs in product((1, -1), repeat=d):
                yield number(momenta[:, order] * np.array(signs))
