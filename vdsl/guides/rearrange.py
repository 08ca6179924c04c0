"""Rearrange: rows taken from an array by a table of numbers, whose gradient takes rows as well and scatters nothing.

The transpose of y_i = x_{t(i)} adds up y over all i with t(i) = n. XLA scatters on a CPU row after row; where the table
is known beforehand, so is the list of the i of every n, and the sum is over a few gathers.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers


class Table(eqx.Module):
    """rows (…): numbers of rows of x, anything else reads a row that must not matter. users (K, n): who reads row n."""

    rows: Array
    users: Array

    def take(self, x: Array) -> Array:
        """x (…, n, b) -> (…, *rows.shape, b)."""
        axis = x.ndim - 2
        taken = _take(x, self.rows.ravel(), self.users)
        return taken.reshape(*x.shape[:axis], *self.rows.shape, x.shape[-1])


def tables(rows: np.ndarray, n: int) -> Table:
    """A stack of tables (T, …) for arrays of n rows. Numbers outside 0 … n − 1 read anything, and have no gradient."""
    flat = rows.reshape(len(rows), -1)
    users = np.full((len(rows), max(_most(row, n) for row in flat), n), flat.shape[1])
    for one, row in zip(users, flat, strict=True):
        real = np.flatnonzero((row >= 0) & (row < n))
        order = real[np.argsort(row[real], kind="stable")]
        who, first, count = np.unique(row[order], return_index=True, return_counts=True)
        one[np.arange(len(order)) - np.repeat(first, count), np.repeat(who, count)] = order
    return Table(integers(np.clip(rows, 0, n - 1)), integers(users))


def _most(row: np.ndarray, n: int) -> int:
    real = row[(row >= 0) & (row < n)]
    return int(np.bincount(real, minlength=1).max()) if real.size else 1


@jax.custom_vjp
def _take(x: Array, rows: Array, users: Array) -> Array:
    return jnp.take(x, rows, axis=x.ndim - 2, mode="clip")


def _forward(x: Array, rows: Array, users: Array) -> tuple[Array, Array]:
    return _take(x, rows, users), users


def _backward(users: Array, g: Array) -> tuple[Array, None, None]:
    # Not from g with a row of zeros below: XLA would make g anew, from all that it comes of, for that array.
    axis, used = g.ndim - 2, (users < g.shape[-2])[..., None].astype(g.dtype)
    rows = (jnp.take(g, one, axis=axis, mode="clip") * there for one, there in zip(users, used, strict=True))
    return sum(rows), None, None


_take.defvjp(_forward, _backward)
