"""Expansion: the energy of a model with continuous fields as a sum of products of functions of one variable each.

    E(x) = constant + Re Σ_groups Σ_rows coefficients[row] · ∏_k g(x[scopes[row, k]]; exponents[k])  +  opaque terms

A *variable* is one real number, angle or state: fields in program order, element by element, the components of a
value fastest (variable = first + element · components + component). What a generator g is depends on the variable's
kind:

| kind     | fields                                            | g(x; p)                         |
|----------|---------------------------------------------------|---------------------------------|
| "real"   | real, real[n]; complex as (re, im)                | x^p, p ≥ 1                      |
| "unit"   | a component of sphere(n)                          | x^p, p ≥ 1                      |
| "angle"  | angle; U(1) as its argument                       | e^{ipx}, p ≠ 0, either sign     |
| "spin"   | spin                                              | x = ±1, p = 1                   |
| "states" | potts(q), clock(q), occupation: the state index   | 1 if x == p else 0              |

So everything that one variable feels, its others fixed, is an exponential family in its own generators; guides add what
they learn to exactly those natural parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vdsl.ir.expr import Expr


@dataclass(frozen=True)
class Block:
    """The variables of one field: first … first + elements·components − 1. `states`: how many, for discrete ones."""

    field: str
    kind: str  # "real" | "unit" | "angle" | "spin" | "states"
    first: int
    elements: int
    components: int = 1
    states: int = 0


@dataclass(frozen=True)
class MonomialGroup:
    """Monomials of one term that share their exponents, slot by slot, and the kinds of their variables.

    exponents (k,); scopes (m, k) variable numbers, strictly increasing within a row; coefficients (m,), float64, or
    complex128 where an angle takes part (each monomial once: its complex conjugate is the real part's business).
    Energies, not divided by T.
    """

    term: str
    exponents: tuple[int, ...]
    scopes: np.ndarray
    coefficients: np.ndarray


@dataclass(frozen=True)
class QuadraticForm:
    """E(x) = ½ xᵀAx − bᵀx + c, all variables "real". A is symmetric, as (row, column, value) with both triangles."""

    n: int
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray
    linear: np.ndarray
    constant: float


@dataclass(frozen=True)
class Expansion:
    """See the module. coordinates: integer cell coordinates of every variable (n, axes), or None on a graph.

    opaque: (term name, expression) of what is not a sum of products of few variables.
    """

    blocks: tuple[Block, ...]
    groups: tuple[MonomialGroup, ...]
    constant: float
    opaque: tuple[tuple[str, Expr], ...] = ()
    coordinates: np.ndarray | None = None

    @property
    def n(self) -> int:
        """The number of variables."""
        return sum(b.elements * b.components for b in self.blocks)
