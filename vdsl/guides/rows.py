"""Rows: tables of energies picked by the states of letters that are already known.

A factor that joins a new letter to known ones contributes, once the known ones are fixed, one number for each state of
the new letter: a row of its table. `Rows` gathers those rows for many targets at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers, reals


class Rows(eqx.Module):
    """For targets of any shape (…): row number = base + Σ_m stride_m · state of letter position_m, summed over slots.

    base (…, C); position, stride (…, C, M); table (R, Q). Unused slots point at row 0, which is zero.
    """

    base: Array
    position: Array
    stride: Array
    table: Array

    def __call__(self, known: Array) -> Array:
        """Energies (…, B, Q) for known letters (S, B)."""
        row = self.base[..., None] + jnp.sum(self.stride[..., None] * known[self.position], axis=-2)
        return jnp.sum(self.table[row], axis=-3)

    def at(self, index: Array) -> Rows:
        """The rows of some targets: indexes the leading axis."""
        return Rows(self.base[index], self.position[index], self.stride[index], self.table)


def build_rows(
    shape: tuple[int, ...], entries: Sequence[tuple[tuple[int, ...], np.ndarray, np.ndarray]], width: int
) -> Rows:
    """From (target index, known positions, table with the known letters' axes first and the row last).

    A table has shape (q_1, …, q_M, width); entries with M = 0 are plain rows. Equal tables are stored once.
    """
    most = max((len(e[1]) for e in entries), default=0)
    filled = np.zeros(shape, int)
    for target, _, _ in entries:
        filled[target] += 1
    slots = max(1, int(filled.max(initial=0)))
    base = np.zeros((*shape, slots), np.int32)
    position = np.zeros((*shape, slots, max(most, 1)), np.int32)
    stride = np.zeros_like(position)
    pieces, seen, height = [np.zeros((1, width))], {}, 1
    filled[:] = 0
    for target, known, table in entries:
        flat = np.ascontiguousarray(table.reshape(-1, width))
        key = flat.tobytes()
        if key not in seen:
            seen[key] = height
            pieces.append(flat)
            height += len(flat)
        c = filled[target]
        filled[target] += 1
        base[(*target, c)] = seen[key]
        for m, where in enumerate(known):
            position[(*target, c, m)] = where
            stride[(*target, c, m)] = int(np.prod(table.shape[m + 1 : -1]))
    return Rows(integers(base), integers(position), integers(stride), reals(np.concatenate(pieces)))
