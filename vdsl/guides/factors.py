"""Factors: the model's energy as a gather over letters, on the device."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.alphabet import Alphabet, Codec
from vdsl.guides.arrays import integers, reals
from vdsl.model import Model


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


class ModelEnergy(eqx.Module):
    """E(letters) through the compiled model: for terms that are not sums of small factors."""

    theta: dict[str, Array]
    model: Model = eqx.field(static=True)
    codec: Codec = eqx.field(static=True)

    def __call__(self, letters: Array) -> Array:
        """Energies (b,) of letters (n, b), not divided by T."""
        return jax.vmap(lambda x: self.model.energy(x, self.theta))(self.codec.decode(letters))


Energy = FactorEnergy | ModelEnergy


def build_factor_energy(alphabet: Alphabet, constant: float, place: np.ndarray | None = None) -> FactorEnergy:
    """All factors of letters; with `place` (n,), −1 for none, those whose letters all have a place, by place."""
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
                integers(scopes[rows]),
                integers(which.reshape(-1) * flat.shape[1]),
                integers(alphabet.q ** np.arange(k - 1, -1, -1)),
                reals(unique.reshape(-1)),
            )
        )
    return FactorEnergy(tuple(groups), reals(constant))


def typical_field(alphabet: Alphabet, temperature: float) -> float:
    """The mean over letters of the largest finite change of βE that one letter can make; 1 if no factor says."""
    total = np.zeros(alphabet.n)
    for f in alphabet.factors:
        flat = f.tables.reshape(len(f.tables), -1)
        finite = np.where(
            np.isfinite(flat), flat, np.nanmin(np.where(np.isfinite(flat), flat, np.nan), 1, keepdims=True)
        )
        spread = np.ptp(finite, axis=1)
        np.add.at(total, f.scopes, spread[:, None])
    return float(total.mean() / temperature) or 1.0
