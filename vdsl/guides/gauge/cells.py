"""Cells: the links of a two-dimensional lattice as plaquettes, two holonomies and a gauge transformation, and back.

The tree is the row y = 0 and all columns, its links U(x, 0), x < L₁ − 1, and V(x, y), y < L₂ − 1. In the gauge where
they are 1, the plaquettes are the other variables: with W(x, y) = U(x, y) V(x + 1, y) U(x, y + 1)† V(x, y)†,

    U(x, y + 1)      = W(x, y)† U(x, y),        U(L₁ − 1, 0) = A
    V(x + 1, L₂ − 1) = C_x V(x, L₂ − 1),        V(0, L₂ − 1) = B,       C_x = W(x, 0) W(x, 1) … W(x, L₂ − 1)

so that the Haar measure of the links is that of the W, of A and B, and of one group element for every site but the
first. Where both boundaries are periodic the plaquettes are not independent: once around both,

    C_{L₁−1} … C₁ C₀ = A B A† B†,

which is their product in the order x descending, y ascending. An open boundary leaves out A or B, the last column or
row of plaquettes, and the constraint.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.gauge.algebra import Algebra


class Fluxes(NamedTuple):
    """plaquettes (b, p, *event) in the order of the constraint; a, b (b, *event): 1 where there is none;
    gauge (b, L₁, L₂, *event), 1 at the first site."""

    plaquettes: Array
    a: Array
    b: Array
    gauge: Array


@dataclass(frozen=True)
class Cells:
    """The lattice: (L₁, L₂) and which of the axes are periodic. Hashable."""

    shape: tuple[int, int]
    periodic: tuple[bool, bool]

    @property
    def closed(self) -> bool:
        """Whether the plaquettes are constrained."""
        return all(self.periodic)

    @property
    def n_plaquettes(self) -> int:
        return len(self._order)

    @property
    def n_links(self) -> int:
        return len(self._links)

    def links(self, algebra: Algebra, fluxes: Fluxes) -> Array:
        """Links (b, links, *event), numbered site by site, axis by axis."""
        (l1, l2), n = self.shape, len(fluxes.a)
        multiply, inverse = algebra.multiply, algebra.inverse
        event = fluxes.a.shape[1:]
        w = algebra.identity((n, l1 * l2)).at[:, self._order].set(fluxes.plaquettes).reshape(n, l1, l2, *event)
        columns = algebra.running(w, 2)
        row = jnp.concatenate([algebra.identity((n, l1 - 1)), fluxes.a[:, None]], 1)[:, :, None]
        above = multiply(inverse(columns[:, :, :-1]), row)
        horizontal = jnp.concatenate([row, above], 2)
        start = fluxes.b[:, None]
        along = algebra.running(columns[:, :-1, -1], 1, reverse=True)
        last = jnp.concatenate([start, multiply(along, start)], 1)[:, :, None]
        vertical = jnp.concatenate([algebra.identity((n, l1, l2 - 1)), last], 2)
        gauge = fluxes.gauge
        horizontal = multiply(multiply(gauge, horizontal), inverse(jnp.roll(gauge, -1, 1)))
        vertical = multiply(multiply(gauge, vertical), inverse(jnp.roll(gauge, -1, 2)))
        both = jnp.stack([horizontal, vertical], 3).reshape(n, 2 * l1 * l2, *event)
        return both if self.closed else both[:, self._links]

    def fluxes(self, algebra: Algebra, links: Array) -> Fluxes:
        """The inverse of `links`."""
        (l1, l2), n = self.shape, len(links)
        multiply, inverse = algebra.multiply, algebra.inverse
        event = links.shape[2:]
        if not self.closed:
            links = algebra.identity((n, 2 * l1 * l2)).at[:, self._links].set(links)
        both = links.reshape(n, l1, l2, 2, *event)
        horizontal, vertical = both[:, :, :, 0], both[:, :, :, 1]
        one = algebra.identity((n, 1))
        row = jnp.concatenate([one, inverse(algebra.running(horizontal[:, :-1, 0], 1))], 1)[:, :, None]
        up = inverse(algebra.running(vertical[:, :, :-1], 2))
        gauge = jnp.concatenate([row, multiply(up, row)], 2)
        horizontal = multiply(multiply(inverse(gauge), horizontal), jnp.roll(gauge, -1, 1))
        vertical = multiply(multiply(inverse(gauge), vertical), jnp.roll(gauge, -1, 2))
        w = multiply(
            multiply(horizontal, jnp.roll(vertical, -1, 1)),
            inverse(multiply(vertical, jnp.roll(horizontal, -1, 2))),
        )
        plaquettes = w.reshape(n, l1 * l2, *event)[:, self._order]
        a = horizontal[:, -1, 0] if self.periodic[0] else one[:, 0]
        b = vertical[:, 0, -1] if self.periodic[1] else one[:, 0]
        return Fluxes(plaquettes, a, b, gauge)

    @cached_property
    def _order(self) -> np.ndarray:
        """The plaquettes that exist, as cell numbers x·L₂ + y, in the order of the constraint."""
        (l1, l2), (around, up) = self.shape, self.periodic
        x = np.arange(l1 if around else l1 - 1)[::-1]
        y = np.arange(l2 if up else l2 - 1)
        return (x[:, None] * l2 + y).ravel()

    @cached_property
    def _links(self) -> np.ndarray:
        """The links that exist, as 2·(x·L₂ + y) + axis."""
        x, y, axis = np.unravel_index(np.arange(2 * self.shape[0] * self.shape[1]), (*self.shape, 2))
        beyond = [(x == self.shape[0] - 1) & (axis == 0), (y == self.shape[1] - 1) & (axis == 1)]
        return np.flatnonzero(~(beyond[0] & (not self.periodic[0]) | beyond[1] & (not self.periodic[1])))
