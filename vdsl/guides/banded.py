"""Banded: Gaussians of any interaction graph, as a chain of blocks that each depend on the next one only.

In an order of small bandwidth w (reverse Cuthill–McKee 1969) a precision matrix is block tridiagonal with blocks of w
coordinates, and stays so in its Cholesky factor. Eliminating the blocks from the first to the last,

    x_i = μ_i + G_i ξ_i − M_i (x_{i+1} − μ_{i+1}),   M_i = P_i⁻¹ A_{i,i+1},   G_i G_iᵀ = P_i⁻¹,
    P_i = A_ii − A_{i,i−1} P_{i−1}⁻¹ A_{i−1,i},

which is drawn from the last to the first: n w numbers, no fill outside the band. Few coordinates are one block, and
this is then an ordinary dense factor. Training deforms G_i → G_i T_i (T upper triangular) and M_i → M_i + δ_i.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers, reals
from vdsl.guides.flow import Base
from vdsl.guides.guide import Params
from vdsl.ir.graph import Adjacency

_ONE_BLOCK = 384  # coordinates: a factor this small is one matrix product


@dataclass(frozen=True)
class Band:
    """An order of the coordinates and the width of blocks: position p of `order` is in block p // width."""

    order: tuple[int, ...]
    width: int

    @property
    def blocks(self) -> int:
        """How many blocks there are; the last one may be filled up with independent unit Gaussians."""
        return -(-len(self.order) // self.width)


def band_of(adjacent: Adjacency) -> Band:
    """A band of an interaction graph."""
    n = len(adjacent)
    if n <= _ONE_BLOCK:
        return Band(tuple(range(n)), max(n, 1))
    order = cuthill_mckee(adjacent)
    place = np.empty(n, int)
    place[order] = np.arange(n)
    reach = max((abs(int(place[v] - place[u])) for v in range(n) for u in adjacent[v]), default=1)
    return Band(tuple(order.tolist()), max(reach, min(n, 16)))


def cuthill_mckee(adjacent: Adjacency) -> np.ndarray:
    """Breadth-first from a far end of each component, of few neighbours first; reversed."""
    order: list[int] = []
    seen = np.zeros(len(adjacent), bool)
    for start in range(len(adjacent)):
        if not seen[start]:
            component = _levels(adjacent, _far_end(adjacent, start))
            seen[component] = True
            order += component
    return np.array(order[::-1], int)


def _levels(adjacent: Adjacency, start: int) -> list[int]:
    found, queue, out = {start}, deque([start]), []
    while queue:
        v = queue.popleft()
        out.append(v)
        for u in sorted(adjacent[v] - found, key=lambda u: (len(adjacent[u]), u)):
            found.add(u)
            queue.append(u)
    return out


def _far_end(adjacent: Adjacency, start: int) -> int:
    for _ in range(3):
        start = _levels(adjacent, start)[-1]
    return start


Blocks = tuple[np.ndarray, np.ndarray]  # diagonal (blocks, w, w) and upper off-diagonal (blocks − 1, w, w) ones


@dataclass(frozen=True)
class BandedGeometry:
    """Block-tridiagonal matrices; filled-up coordinates have 1 on the diagonal. See `hartree.Geometry`."""

    band: Band

    @cached_property
    def _place(self) -> np.ndarray:
        place = np.empty(len(self.band.order), int)
        place[list(self.band.order)] = np.arange(len(self.band.order))
        return place

    def assemble(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> Blocks:
        w, blocks = self.band.width, self.band.blocks
        diagonal, upper = np.zeros((blocks, w, w)), np.zeros((max(blocks - 1, 0), w, w))
        (bi, i), (bj, j) = np.divmod(self._place[rows], w), np.divmod(self._place[columns], w)
        same, next_one = bi == bj, bj == bi + 1
        np.add.at(diagonal, (bi[same], i[same], j[same]), values[same])
        np.add.at(upper, (bi[next_one], i[next_one], j[next_one]), values[next_one])
        filled = np.arange(len(self.band.order) - (blocks - 1) * w, w)
        diagonal[-1, filled, filled] = 1.0
        return diagonal, upper

    def lowest(self, matrix: Blocks) -> float:
        """By Gershgorin's discs, which any number of coordinates affords."""
        diagonal, upper = matrix
        own = np.einsum("bii->bi", diagonal)
        radius = np.abs(diagonal).sum(-1) - np.abs(own)
        radius[:-1] += np.abs(upper).sum(-1)
        radius[1:] += np.abs(upper).sum(-2)
        return float((own - radius).reshape(-1)[: len(self.band.order)].min())

    def add_diagonal(self, matrix: Blocks, value: float) -> Blocks:
        diagonal, upper = matrix
        shift = np.where(np.arange(self.band.blocks * self.band.width) < len(self.band.order), value, 0.0)
        return diagonal + shift.reshape(-1, self.band.width)[..., None] * np.eye(self.band.width), upper

    def mix(self, a: Blocks, b: Blocks, weight: float) -> Blocks:
        return (1 - weight) * a[0] + weight * b[0], (1 - weight) * a[1] + weight * b[1]

    def factor(self, matrix: Blocks) -> tuple[np.ndarray, np.ndarray]:
        """L_i, the Cholesky factors of P_i, and M_i. Raises LinAlgError if the matrix is not positive definite."""
        diagonal, upper = matrix
        lower, regression = np.empty_like(diagonal), np.empty_like(upper)
        schur = diagonal[0]
        for b in range(self.band.blocks):
            lower[b] = np.linalg.cholesky(schur)
            pivots = np.diagonal(lower[b])
            if pivots.min() <= 1e-7 * np.sqrt(np.abs(np.diagonal(diagonal[b])).max()):
                raise np.linalg.LinAlgError("not positive definite")
            if b + 1 < self.band.blocks:
                half = np.linalg.solve(lower[b], upper[b])
                regression[b] = np.linalg.solve(lower[b].T, half)
                schur = diagonal[b + 1] - half.T @ half
        return lower, regression

    def log_det(self, matrix: Blocks) -> float:
        lower, _ = self.factor(matrix)
        return 2 * float(np.log(np.einsum("bii->bi", lower)).sum())

    def covariance(self, matrix: Blocks) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """Σ_ii = P_i⁻¹ + M_i Σ_{i+1,i+1} M_iᵀ and Σ_{i,i+1} = −M_i Σ_{i+1,i+1}: the entries within the band."""
        lower, regression = self.factor(matrix)
        own, upper = np.empty_like(lower), np.empty_like(regression)
        for b in range(self.band.blocks - 1, -1, -1):
            half = np.linalg.inv(lower[b])
            own[b] = half.T @ half
            if b + 1 < self.band.blocks:
                upper[b] = -regression[b] @ own[b + 1]
                own[b] -= upper[b] @ regression[b].T
        w = self.band.width

        def entries(i: np.ndarray, j: np.ndarray) -> np.ndarray:
            first, second = np.minimum(self._place[i], self._place[j]), np.maximum(self._place[i], self._place[j])
            (b1, r), (b2, c) = np.divmod(first, w), np.divmod(second, w)
            inside = own[b1, r, c]
            return inside if not len(upper) else np.where(b1 == b2, inside, upper[np.minimum(b1, len(upper) - 1), r, c])

        return entries

    def entries(self, matrix: Blocks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        diagonal, upper = matrix
        n, w, order = len(self.band.order), self.band.width, np.array(self.band.order)
        b, i, j = np.nonzero(diagonal)
        real = b * w + np.maximum(i, j) < n
        b, i, j = b[real], i[real], j[real]
        c, k, m = np.nonzero(upper)
        first, second = order[c * w + k], order[(c + 1) * w + m]
        rows = np.concatenate([order[b * w + i], first, second])
        columns = np.concatenate([order[b * w + j], second, first])
        return rows, columns, np.concatenate([diagonal[b, i, j], upper[c, k, m], upper[c, k, m]])

    def solve(self, matrix: Blocks, right: np.ndarray) -> np.ndarray:
        lower, regression = self.factor(matrix)
        w, blocks = self.band.width, self.band.blocks
        padded = np.zeros(blocks * w)
        padded[: len(right)] = right[list(self.band.order)]
        y = padded.reshape(blocks, w)
        for b in range(blocks - 1):
            y[b + 1] -= regression[b].T @ y[b]
        out = np.empty_like(y)
        for b in range(blocks - 1, -1, -1):
            out[b] = np.linalg.solve(lower[b].T, np.linalg.solve(lower[b], y[b]))
            if b + 1 < blocks:
                out[b] -= regression[b] @ out[b + 1]
        result = np.empty(len(right))
        result[list(self.band.order)] = out.reshape(-1)[: len(right)]
        return result


class BandedBase(Base):
    """See the module. root G, whiten G⁻¹ (blocks, w, w); regression M (blocks, w, w), the last one 0.

    order (n,): which coordinates the positions are, of all D; positions past n are filled up and are not coordinates.
    mean, free (n,): in that order.
    """

    root: Array
    whiten: Array
    regression: Array
    log_det: Array
    order: Array
    mean: Array
    free: Array
    size: int = eqx.field(static=True)
    trained: bool = eqx.field(static=True)
    free_mean: bool = eqx.field(static=True)

    def init(self, key: Array) -> Params:
        blocks, w = self.root.shape[:2]
        params: dict[str, Array] = {}
        if self.trained:
            params = {"log_scale": jnp.zeros((blocks, w)), "mixing": jnp.zeros((blocks, w, w))}
            if blocks > 1:
                params["regression"] = jnp.zeros((blocks, w, w))
        if self.free_mean:
            params["mean"] = jnp.zeros(self.order.shape)
        return params

    def sample(self, params: Params, key: Array, n: int) -> Array:
        blocks, w = self.root.shape[:2]
        noise = jax.random.normal(key, (n, self.order.shape[0]))
        noise = jnp.pad(noise, ((0, 0), (0, blocks * w - noise.shape[1]))).reshape(n, blocks, w)
        if self.trained:
            noise = jnp.einsum("bij,nbj->nbi", self._triangle(params), noise)
        noise = jnp.einsum("bij,nbj->nbi", self.root, noise)
        if blocks > 1:

            def draw(following: Array, block: tuple[Array, Array]) -> tuple[Array, Array]:
                own, regression = block
                x = own - following @ regression.T
                return x, x

            steps = (jnp.moveaxis(noise, 1, 0), self._regression(params))
            _, x = jax.lax.scan(draw, jnp.zeros((n, w), noise.dtype), steps, reverse=True)
            noise = jnp.moveaxis(x, 0, 1)
        centred = noise.reshape(n, blocks * w)[:, : self.order.shape[0]]
        return jnp.zeros((n, self.size), noise.dtype).at[:, self.order].set(centred + self._mean(params))

    def log_prob(self, params: Params, z: Array) -> Array:
        blocks, w = self.root.shape[:2]
        n, kept = len(z), self.order.shape[0]
        x = z[:, self.order] - self._mean(params)
        x = jnp.pad(x, ((0, 0), (0, blocks * w - kept))).reshape(n, blocks, w)
        following = jnp.pad(x[:, 1:], ((0, 0), (0, 1), (0, 0)))
        noise = x + jnp.einsum("bij,nbj->nbi", self._regression(params), following) if blocks > 1 else x
        noise = jnp.einsum("bij,nbj->nbi", self.whiten, noise)
        log_det = self.log_det
        if self.trained:
            noise = jax.vmap(lambda t, y: jax.scipy.linalg.solve_triangular(t, y.T).T, (0, 1), 1)(
                self._triangle(params), noise
            )
            log_det = log_det + jnp.sum(params["log_scale"].reshape(-1)[:kept])
        return -0.5 * jnp.sum(noise**2, axis=(1, 2)) - log_det - 0.5 * kept * jnp.log(2 * jnp.pi)

    def _triangle(self, params: Params) -> Array:
        real = (jnp.arange(params["log_scale"].size) < self.order.shape[0]).reshape(params["log_scale"].shape)
        scale = jnp.where(real, jnp.exp(params["log_scale"]), 1.0)
        off = jnp.triu(params["mixing"], 1) * (real[:, :, None] & real[:, None, :])
        return off + scale[..., None] * jnp.eye(scale.shape[1])

    def _regression(self, params: Params) -> Array:
        if "regression" not in params:
            return self.regression
        last = jnp.arange(self.regression.shape[0]) == self.regression.shape[0] - 1
        return self.regression + jnp.where(last[:, None, None], 0.0, params["regression"])

    def _mean(self, params: Params) -> Array:
        return self.mean + self.free * params["mean"] if self.free_mean else self.mean


def build_banded(
    band: Band, precision: Blocks, mean: np.ndarray, size: int, trained: bool, free: np.ndarray
) -> BandedBase:
    """N(mean, precision⁻¹) of the coordinates in the band's order, among `size`; mean, free (size,)."""
    lower, regression = BandedGeometry(band).factor(precision)
    root = np.stack([np.linalg.inv(one).T for one in lower])
    regression = np.concatenate([regression, np.zeros((1, band.width, band.width))])
    log_det = -np.log(np.einsum("bii->bi", lower)).sum()
    order = np.array(band.order)
    return BandedBase(
        reals(root), reals(np.swapaxes(lower, 1, 2)), reals(regression), reals(log_det), integers(order),
        reals(mean[order]), reals(free[order]), size, trained, bool(free.any()),
    )  # fmt: skip
