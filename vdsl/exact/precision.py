"""Precision matrices: a quadratic form -> ln det A, A⁻¹b, entries of A⁻¹, and normal samples of covariance A⁻¹.

Three ways of taking A apart: by Fourier transform where it is the same in every cell of a periodic lattice; by sparse
LU, A = LDLᵀ in the order of least fill, where it is large; by dense Cholesky otherwise.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.linalg

from vdsl.ir.expansion import QuadraticForm

MAX_DENSE, MAX_INVERTED = 2048, 6000
_SINGULAR = 1e-13  # a pivot or an eigenvalue this small beside the largest is zero to rounding, n times over


class NotPositive(Exception):
    """A is not positive definite: the eigenvalue (or pivot), and the mode it belongs to in words."""

    def __init__(self, eigenvalue: float, mode: str, variable: int):
        super().__init__(eigenvalue, mode)
        self.eigenvalue, self.mode, self.variable = eigenvalue, mode, variable


class Precision(ABC):
    """A positive definite matrix A, taken apart."""

    log_det: float
    method: str

    @abstractmethod
    def solve(self, b: np.ndarray) -> np.ndarray:
        """A⁻¹b for b (n,) or (n, m)."""

    @abstractmethod
    def inverse(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """(A⁻¹)_ij, elementwise for arrays of the same shape."""

    @abstractmethod
    def trace(self, m: QuadraticForm, n: QuadraticForm) -> float | None:
        """tr(M A⁻¹ N A⁻¹) where that is cheaper than entry by entry, else None."""

    @abstractmethod
    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Normal samples of mean 0 and covariance A⁻¹, shape (count, n)."""


@dataclass(frozen=True)
class Cells:
    """How variables lie on a periodic lattice: variable = place[cell, channel], cells in row-major order of `shape`."""

    shape: tuple[int, ...]
    place: np.ndarray


def take_apart(form: QuadraticForm, cells: Cells | None) -> Precision:
    """The best way for this form. Raises NotPositive."""
    blocks = None if cells is None else _circulant(form, cells)
    if cells is not None and blocks is not None:
        return Spectral(form.n, cells, blocks)
    return Dense(form) if form.n <= MAX_DENSE or len(form.rows) > form.n * form.n / 16 else Sparse(form)


def is_circulant(form: QuadraticForm, cells: Cells | None) -> bool:
    """Whether A is the same in every cell."""
    return cells is not None and _circulant(form, cells) is not None


class Dense(Precision):
    """A = LLᵀ."""

    method = "dense Cholesky"

    def __init__(self, form: QuadraticForm):
        a = np.zeros((form.n, form.n))
        a[form.rows, form.columns] = form.values
        try:
            self.factor = scipy.linalg.cholesky(a, lower=True, check_finite=False)
        except np.linalg.LinAlgError:
            raise _worst(a) from None
        pivots = np.diagonal(self.factor)
        if (pivots**2).min(initial=math.inf) <= _SINGULAR * form.n * np.diagonal(a).max(initial=0.0):
            raise _worst(a)
        self.log_det = 2 * float(np.log(pivots).sum())

    def solve(self, b: np.ndarray) -> np.ndarray:
        return scipy.linalg.cho_solve((self.factor, True), b)

    @cached_property
    def covariance(self) -> np.ndarray:
        """A⁻¹."""
        return self.solve(np.eye(len(self.factor)))

    def inverse(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return self.covariance[i, j]

    def trace(self, m: QuadraticForm, n: QuadraticForm) -> float | None:
        return _trace(self.covariance, m, n)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        z = rng.standard_normal((len(self.factor), count))
        return scipy.linalg.solve_triangular(self.factor, z, trans=1, lower=True).T


class Sparse(Precision):
    """PAPᵀ = LDLᵀ, from SuperLU with pivots on the diagonal: then U = DLᵀ."""

    method = "sparse LDLᵀ"

    def __init__(self, form: QuadraticForm):
        a = scipy.sparse.csc_array((form.values, (form.rows, form.columns)), (form.n, form.n))
        options = {"SymmetricMode": True}
        try:
            self.lu = scipy.sparse.linalg.splu(a, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)
        except RuntimeError:  # a pivot is exactly zero
            raise NotPositive(0.0, "as a pivot of its elimination", 0) from None
        pivots = self.lu.U.diagonal()
        worst = int(np.argmin(pivots))
        symmetric = (self.lu.perm_r == self.lu.perm_c).all()
        if not symmetric or pivots[worst] <= _SINGULAR * form.n * a.diagonal().max():
            variable = int(np.argsort(self.lu.perm_c)[worst])
            raise NotPositive(float(pivots[worst]), "as a pivot of its elimination", variable)
        self.log_det = float(np.log(pivots).sum())
        self.pivots = pivots

    def solve(self, b: np.ndarray) -> np.ndarray:
        return self.lu.solve(b)

    @cached_property
    def covariance(self) -> np.ndarray:
        """A⁻¹, of at most MAX_INVERTED variables."""
        return self.solve(np.eye(len(self.pivots)))

    def inverse(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        wanted, place = np.unique(j, return_inverse=True)
        if len(wanted) > 64 and len(self.pivots) <= MAX_INVERTED:
            return self.covariance[i, j]
        out, place = np.empty(np.shape(j)), place.reshape(np.shape(j))
        for start in range(0, len(wanted), 256):
            some = wanted[start : start + 256]
            unit = np.zeros((len(self.pivots), len(some)))
            unit[some, np.arange(len(some))] = 1.0
            here = (place >= start) & (place < start + len(some))
            out[here] = self.solve(unit)[np.asarray(i)[here], place[here] - start]
        return out

    def trace(self, m: QuadraticForm, n: QuadraticForm) -> float | None:
        return _trace(self.covariance, m, n) if len(self.pivots) <= MAX_INVERTED else None

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        z = rng.standard_normal((len(self.pivots), count)) / np.sqrt(self.pivots)[:, None]
        upper = scipy.sparse.csr_array(self.lu.L.T)
        ordered = scipy.sparse.linalg.spsolve_triangular(upper, z, lower=False, unit_diagonal=True)
        return ordered[self.lu.perm_c].T


class Spectral(Precision):
    """A_{(x, a), (y, b)} = B_{y − x}[a, b]: independent blocks B̂(k) = Σ_d B_d e^{ikd}, one for each wave vector."""

    method = "Fourier transform"

    def __init__(self, n: int, cells: Cells, blocks: np.ndarray):
        self.cells, self.axes = cells, tuple(range(len(cells.shape)))
        channels = cells.place.shape[1]
        eigenvalues, self.vectors = np.linalg.eigh(self._hat(blocks))
        flat = int(np.argmin(eigenvalues))
        lowest = float(eigenvalues.reshape(-1)[flat])
        if lowest <= _SINGULAR * float(eigenvalues.max()):
            index = np.unravel_index(flat, eigenvalues.shape)
            wave = ", ".join(f"2π·{k}/{length}" for k, length in zip(index, cells.shape, strict=False))
            channel = int(np.argmax(np.abs(self.vectors[index[:-1]][:, index[-1]])))
            raise NotPositive(lowest, f"of wave vector ({wave})", int(cells.place[0, channel]))
        self.eigenvalues = eigenvalues
        self.log_det = float(np.log(eigenvalues).sum())
        self.variable_cell, self.variable_channel = np.empty(n, int), np.empty(n, int)
        self.variable_cell[cells.place] = np.arange(len(cells.place))[:, None]
        self.variable_channel[cells.place] = np.arange(channels)
        self._kernel: np.ndarray | None = None

    def _hat(self, blocks: np.ndarray) -> np.ndarray:
        shaped = blocks.reshape(*self.cells.shape, *blocks.shape[1:])
        return np.conj(np.fft.fftn(shaped, axes=self.axes))

    def trace(self, m: QuadraticForm, n: QuadraticForm) -> float | None:
        one, two = _circulant(m, self.cells), _circulant(n, self.cells)
        if one is None or two is None:
            return None
        inverse = self._power(-1.0)
        product = self._hat(one) @ inverse @ self._hat(two) @ inverse
        return float(np.trace(product, axis1=-2, axis2=-1).real.sum())

    def _power(self, exponent: float) -> np.ndarray:
        scaled = self.vectors * (self.eigenvalues**exponent)[..., None, :]
        return scaled @ np.conj(np.swapaxes(self.vectors, -1, -2))

    def _apply(self, matrix: np.ndarray, b: np.ndarray) -> np.ndarray:
        """A function of A, by its blocks, on b (n, m)."""
        images = b[self.cells.place].reshape(*self.cells.shape, self.cells.place.shape[1], -1)
        transformed = matrix @ np.fft.fftn(images, axes=self.axes)
        back = np.fft.ifftn(transformed, axes=self.axes).real
        out = np.empty(b.shape)
        out[self.cells.place] = back.reshape(*self.cells.place.shape, -1)
        return out

    def solve(self, b: np.ndarray) -> np.ndarray:
        return self._apply(self._power(-1.0), b.reshape(len(b), -1)).reshape(b.shape)

    def inverse(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        if self._kernel is None:
            blocks = np.fft.ifftn(self._power(-1.0), axes=self.axes).real
            self._kernel = blocks.reshape(-1, *blocks.shape[-2:])
        shape = self.cells.shape
        here = np.unravel_index(self.variable_cell[i], shape)
        there = np.unravel_index(self.variable_cell[j], shape)
        step = np.ravel_multi_index([(a - b) % length for a, b, length in zip(here, there, shape, strict=True)], shape)
        return self._kernel[step, self.variable_channel[i], self.variable_channel[j]]

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return self._apply(self._power(-0.5), rng.standard_normal((len(self.variable_cell), count))).T


def _circulant(form: QuadraticForm, cells: Cells) -> np.ndarray | None:
    """B_d, shape (cells, channels, channels), if A_{(x, a), (y, b)} = B_{y−x}[a, b] to rounding, else None."""
    count, channels = cells.place.shape
    if len(form.rows) % count:
        return None
    cell, channel = np.empty(form.n, int), np.empty(form.n, int)
    cell[cells.place] = np.arange(count)[:, None]
    channel[cells.place] = np.arange(channels)
    here = np.unravel_index(cell[form.rows], cells.shape)
    there = np.unravel_index(cell[form.columns], cells.shape)
    step = np.ravel_multi_index(
        [(b - a) % length for a, b, length in zip(here, there, cells.shape, strict=True)], cells.shape
    )
    key = (step * channels + channel[form.rows]) * channels + channel[form.columns]
    order = np.argsort(key, kind="stable")
    sorted_keys, values = key[order], form.values[order]
    starts = np.flatnonzero(np.r_[True, sorted_keys[1:] != sorted_keys[:-1]])
    if (np.diff(np.r_[starts, len(key)]) != count).any():
        return None
    rows = values.reshape(-1, count)
    mean = rows.mean(1)
    if (np.abs(rows - mean[:, None]) > 1e-13 * np.abs(form.values).max(initial=0.0)).any():
        return None
    blocks = np.zeros(count * channels * channels)
    blocks[sorted_keys[starts]] = mean
    return blocks.reshape(count, channels, channels)


def _trace(covariance: np.ndarray, m: QuadraticForm, n: QuadraticForm) -> float:
    one, two = (scipy.sparse.csr_array((q.values, (q.rows, q.columns)), (q.n, q.n)) @ covariance for q in (m, n))
    return float(np.einsum("ij,ji->", one, two))


def _worst(a: np.ndarray) -> NotPositive:
    """The lowest eigenvalue, and where its eigenvector is largest."""
    eigenvalues, vectors = scipy.linalg.eigh(a, subset_by_index=[0, 0])
    return NotPositive(float(eigenvalues[0]), "as the lowest", int(np.argmax(np.abs(vectors[:, 0]))))
