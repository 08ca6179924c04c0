"""Factors: the model's energy as a gather over letters, on the device."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.alphabet import Alphabet


class FactorEnergy(eqx.Module):
    """E(letters) = Σ_factors table[states]; groups of (scope (m, k), base (m,), stride (k,), flat table)."""

    groups: tuple[tuple[Array, Array, Array, Array], ...]
    constant: Array

    def __call__(self, letters: Array) -> Array:
        """Energies (b,) of letters (n, b), not divided by T."""
        total = jnp.broadcast_to(self.constant, letters.shape[1:])
        for scope, base, stride, table in self.groups:
            row = base[:, None] + jnp.sum(stride[:, None] * letters[scope], axis=1)
            total = total + jnp.sum(table[row], axis=0)
        return total


def build_factor_energy(alphabet: Alphabet, constant: float, place: np.ndarray | None = None) -> FactorEnergy:
    """All factors, or (with `place`, −1 for none) those whose letters all have a place, as a function of letters by place."""
    groups = []
    for f in alphabet.factors:
        k = f.scopes.shape[1]
        scopes = f.scopes if place is None else place[f.scopes]
        rows = np.flatnonzero((scopes >= 0).all(1))
        if len(rows) == 0:
            continue
        flat = f.tables[rows].reshape(len(rows), -1)
        unique, which = np.unique(flat, axis=0, return_inverse=True)
        groups.append(
            (
                jnp.asarray(scopes[rows], jnp.int32),
                jnp.asarray(which.reshape(-1) * flat.shape[1], jnp.int32),
                jnp.asarray(alphabet.q ** np.arange(k - 1, -1, -1), jnp.int32),
                jnp.asarray(unique.reshape(-1), float),
            )
        )
    return FactorEnergy(tuple(groups), jnp.asarray(constant, float))
