"""Lengths: how long complex matter typically is, by a mean field, before anything is learned.

Given the lengths of the others, a length r feels its own potential, and the phases that it meets are averaged over:

    p_u(r) ∝ r e^{−βV_u(r)} I₀(R_u(r)),   R_u² = (1 − a) Σ_j J_j² + a (Σ_j J_j)²,   J_j = β |c_j| r^p ∏_others ⟨r_v^q⟩,

a between 0, phases that are anywhere, and 1, phases that agree. Where no phase is left it is e^{−βc r^p ∏ ⟨r_v^q⟩}.
Iterated until the moments stay; meetings with other kinds are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import i0e

from vdsl.ir.expansion import Expansion, MonomialGroup

_NODES = 201
ALIGNED = 0.6  # a; R = Σ|J|, that is 1: Var ln w = 3.5 on higgs.vfe and 5.9 on u1_improved.vfe, not 2.0 and 1.7
_ROUNDS = 40
_REACH = 30.0  # tables reach to where a length's own potential has risen by so many T, …
_EDGE = 1e-6  # … or farther, until what lies in their last tenth is less than this


@dataclass(frozen=True)
class Lengths:
    """r (N, M) and weights (N, M), which sum to 1, of the units that are lengths; other rows are 1 everywhere."""

    r: np.ndarray
    weights: np.ndarray

    def mean(self, unit: int, p: int) -> float:
        """⟨r^p⟩; 1 for units that are no lengths."""
        return float(self.weights[unit] @ self.r[unit] ** p)

    def sizes(self) -> np.ndarray:
        """√⟨r²⟩ of all units (N,)."""
        return np.sqrt((self.weights * self.r**2).sum(1))


def typical_lengths(expansion: Expansion, beta: float) -> Lengths:
    """Of an expansion's units, numbered as monomials.py does."""
    found = _of_variables(expansion, beta)
    first = np.unique(unit_of_variable(expansion), return_index=True)[1]
    return Lengths(found.r[first], found.weights[first])


def unit_of_variable(expansion: Expansion) -> np.ndarray:
    """As monomials.py numbers units: a unit vector is one."""
    whole = expansion.kinds() == "unit"
    first = np.concatenate([np.arange(b.elements * b.components) % b.components == 0 for b in expansion.blocks])
    return np.cumsum(~whole | first) - 1


def _of_variables(expansion: Expansion, beta: float) -> Lengths:
    kinds = expansion.kinds()
    mine = kinds == "radius"
    r, weights = np.ones((expansion.n, _NODES)), np.full((expansion.n, _NODES), 1 / _NODES)
    if not mine.any():
        return Lengths(r, weights)
    groups = [
        g for g in expansion.groups if np.isin(kinds[g.scopes], ("radius", "angle")).all() and mine[g.scopes].any()
    ]
    own = [g for g in groups if g.scopes.shape[1] == 1]
    meetings = [g for g in groups if g.scopes.shape[1] > 1]
    reach = _first_reach(expansion.n, own, beta)
    while True:
        r[mine] = np.linspace(0, 1, _NODES) * reach[mine, None]
        weights = _mean_field(r, mine, own, meetings, kinds, beta)
        wide = mine & (weights[:, -_NODES // 10 :].sum(1) > _EDGE)
        if not wide.any() or reach.max() > 1e3:
            return Lengths(r, weights)
        reach = np.where(wide, 1.5 * reach, reach)


def _first_reach(n: int, own: list[MonomialGroup], beta: float) -> np.ndarray:
    reach = np.ones(n)
    for g in own:
        rising = g.coefficients > 0
        u = g.scopes[rising, 0]
        np.maximum.at(reach, u, (_REACH / (beta * g.coefficients[rising])) ** (1 / g.exponents[0]))
    return reach


def _mean_field(
    r: np.ndarray,
    mine: np.ndarray,
    own: list[MonomialGroup],
    meetings: list[MonomialGroup],
    kinds: np.ndarray,
    beta: float,
) -> np.ndarray:
    """Weights (N, M) on the nodes r."""
    alone = np.log(np.maximum(r, 1e-9))
    for g in own:
        np.add.at(alone, g.scopes[:, 0], -beta * g.coefficients[:, None] * r[g.scopes[:, 0]] ** g.exponents[0])
    weights = _normalised(alone, mine)
    for _ in range(_ROUNDS):
        field, squares, sums = alone.copy(), np.zeros_like(r), np.zeros_like(r)
        for g in meetings:
            sized = [k for k in range(g.scopes.shape[1]) if kinds[g.scopes[0, k]] == "radius"]
            moments = {k: (weights * r ** g.exponents[k]).sum(1)[g.scopes[:, k]] for k in sized}
            for k in sized:
                u, others = g.scopes[:, k], [moments[j] for j in sized if j != k]
                pull = -beta * g.coefficients * (np.prod(others, axis=0) if others else 1.0)
                j = pull[:, None] * r[u] ** g.exponents[k]
                if len(sized) == g.scopes.shape[1]:
                    np.add.at(field, u, j.real)
                else:
                    np.add.at(squares, u, np.abs(j) ** 2)
                    np.add.at(sums, u, np.abs(j))
        size = np.sqrt((1 - ALIGNED) * squares + ALIGNED * sums**2)
        field = field + size + np.log(i0e(size))
        found = _normalised(field, mine)
        close = np.abs(found - weights).max() < 1e-6
        weights = 0.5 * (weights + found)
        if close:
            break
    return weights


def _normalised(field: np.ndarray, mine: np.ndarray) -> np.ndarray:
    w = np.exp(field - field.max(1, keepdims=True))
    w /= w.sum(1, keepdims=True)
    return np.where(mine[:, None], w, 1 / w.shape[1])
