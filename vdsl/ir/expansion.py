"""Expansion: the energy of a model with continuous fields as a sum of products of functions of one variable each.

    E(x) = constant + Re Σ_groups Σ_rows coefficients[row] · ∏_k g(x[scopes[row, k]]; exponents[k])  +  opaque terms

A *variable* is one real number, angle or state: fields in program order, element by element, the components of a
value fastest (variable = first + element · components + component). What a generator g is depends on the variable's
kind:

| kind     | fields                                            | g(x; p)                         |
|----------|---------------------------------------------------|---------------------------------|
| "real"   | real, real[n]; complex as (re, im)                | x^p, p ≥ 1                      |
| "radius" | complex as (length, phase), see polar.py          | x^p, p ≥ 1, x ≥ 0               |
| "unit"   | a component of sphere(n)                          | x^p, p ≥ 1                      |
| "angle"  | angle; U(1) as its argument                       | e^{ipx}, p ≠ 0, either sign     |
| "spin"   | spin                                              | x = ±1, p = 1                   |
| "states" | potts(q), clock(q), occupation: the state index   | 1 if x == p else 0              |

So everything that one variable feels, its others fixed, is an exponential family in its own generators; guides add what
they learn to exactly those natural parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vdsl.ir.expr import Expr
from vdsl.ir.program import Program
from vdsl.ir.support import Complex, Group, event_shape


@dataclass(frozen=True)
class Block:
    """The variables of one field: first … first + elements·components − 1. `states`: how many, for discrete ones."""

    field: str
    kind: str  # "real" | "radius" | "unit" | "angle" | "spin" | "states"
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

    def kinds(self) -> np.ndarray:
        """The kind of every variable, shape (n,), as strings."""
        return np.repeat([b.kind for b in self.blocks], [b.elements * b.components for b in self.blocks])

    def evaluate(self, x: np.ndarray) -> np.ndarray:
        """E of variables as `variables_of` gives them, shape (…, n) -> (…); opaque terms left out."""
        kinds = self.kinds()
        total = np.full(x.shape[:-1], self.constant)
        for g in self.groups:
            product = g.coefficients * np.ones((*x.shape[:-1], 1))
            for k, p in enumerate(g.exponents):
                column = g.scopes[:, k]
                product = product * _generator(kinds[column[0]], x[..., column], p)
            total = total + product.sum(-1).real
        return total


def _generator(kind: str, x: np.ndarray, p: int) -> np.ndarray:
    match kind:
        case "angle":
            return np.exp(1j * p * x)
        case "states":
            return (x == p).astype(float)
    return x**p


def variables_of(program: Program, configuration: Mapping[str, np.ndarray]) -> np.ndarray:
    """The variables, shape (…, n), of stored configurations {field: (…, elements, *event)}.

    A spin is ±1, another discrete value its state index, a complex number (re, im), an element of U(1) its argument,
    a matrix the (re, im) of its entries.
    """
    columns = []
    for f in program.fields:
        stored = np.asarray(configuration[f.name])
        leading = stored.shape[: stored.ndim - len(event_shape(f.support)) - 1]
        match f.support:
            case Group("U1"):
                stored = np.angle(stored)
            case Complex() | Group():
                stored = np.stack([stored.real, stored.imag], -1)
        columns.append(stored.reshape(*leading, -1).astype(float))
    return np.concatenate(columns, axis=-1)


def quadratic_form(expansion: Expansion) -> QuadraticForm | None:
    """The energy as a quadratic form, or None unless all variables are real, of degree ≤ 2, and nothing is opaque."""
    if expansion.opaque or any(b.kind != "real" for b in expansion.blocks):
        return None
    linear = np.zeros(expansion.n)
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for g in expansion.groups:
        match g.exponents:
            case (1,):
                np.subtract.at(linear, g.scopes[:, 0], g.coefficients)
            case (2,):
                entries.append((g.scopes[:, 0], g.scopes[:, 0], 2 * g.coefficients))
            case (1, 1):
                i, j = g.scopes.T
                entries += [(i, j, g.coefficients), (j, i, g.coefficients)]
            case _:
                return None
    rows, columns, values = (np.concatenate(parts) for parts in zip(*entries, strict=True)) if entries else _EMPTY
    order = np.lexsort((columns, rows))
    rows, columns, values = rows[order], columns[order], values[order]
    starts = np.flatnonzero(np.r_[True, (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])][: len(rows)])
    summed = np.add.reduceat(values, starts) if len(rows) else values
    return QuadraticForm(expansion.n, rows[starts], columns[starts], summed, linear, expansion.constant)


_EMPTY = (np.zeros(0, int), np.zeros(0, int), np.zeros(0))


def elements_of(expansion: Expansion) -> np.ndarray:
    """The element that each variable is a component of, shape (n,); elements are numbered field by field."""
    out, first = [], 0
    for b in expansion.blocks:
        out.append(first + np.repeat(np.arange(b.elements), b.components))
        first += b.elements
    return np.concatenate(out or [np.zeros(0, int)])


def interacting_elements(expansion: Expansion) -> tuple[np.ndarray, np.ndarray]:
    """(pairs of elements that share a monomial (m, 2), i < j, each once; the element of every variable (n,)).

    What is opaque joins nothing here: ask for `expansion.opaque` first.
    """
    element = elements_of(expansion)
    pairs = [np.zeros((0, 2), int)]
    for g in expansion.groups:
        scope = element[g.scopes]
        for a in range(scope.shape[1]):
            for b in range(a + 1, scope.shape[1]):
                pairs.append(np.sort(scope[:, [a, b]], axis=1))
    every = np.concatenate(pairs)
    return np.unique(every[every[:, 0] != every[:, 1]], axis=0), element
