"""Parity: which fields of a model may change sign together, read off its monomials."""

from __future__ import annotations

import itertools

import numpy as np

from vdsl.guides.monomials import Monomials

_SIGNED = ("real", "spin", "unit")


def flip(monomials: Monomials) -> frozenset[int] | None:
    """The largest set of species (by number) whose joint change of sign leaves every product alone, if any."""
    signed = [k for k, s in enumerate(monomials.species) if s.kind in _SIGNED]
    owner = np.concatenate([np.full(s.units * s.features, k) for k, s in enumerate(monomials.species)])
    # Features 0, 2, … of a real number are its odd powers; those of a spin and of a vector change sign, all of them.
    odd_power = np.concatenate(
        [np.tile((np.arange(s.features) % 2 == 0) | (s.kind != "real"), s.units) for s in monomials.species]
    )
    for size in range(len(signed), 0, -1):
        for chosen in itertools.combinations(signed, size):
            odd = np.isin(owner, chosen) & odd_power
            if all((odd[rows].sum(1) % 2 == 0).all() for rows, _ in monomials.products):
                return frozenset(chosen)
    return None


def mirrored(monomials: Monomials) -> bool:
    """Whether all fields are angles or lengths, and all angles may change sign together: every product stays."""
    sine = np.concatenate(
        [np.tile((np.arange(s.features) % 2 == 1) & (s.kind == "angle"), s.units) for s in monomials.species]
    )
    angles = all(s.kind in ("angle", "radius") for s in monomials.species)
    return angles and all((sine[rows].sum(1) % 2 == 0).all() for rows, _ in monomials.products)
