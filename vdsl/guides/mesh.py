"""Mesh: what angles feel of angles that are integrated out, as cosines of integer combinations of angles.

    −βE = Re Σ_m J_m e^{i m·θ},     m integer vectors, J complex

Where θ_u stands in some of the waves with m_u = ±1, its integral is ln I₀(R), R = |Σ_j J_j e^{i m_j·θ}| without the
factors of θ_u. R² is Σ|J_j|² and twice the cosines of all differences, so to first order every pair of waves leaves

    J_j J_l* A(R)/R e^{i (m_j − m_l)·θ},     A = I₁/I₀,

at a typical R: star into mesh (for stiff angles J_j J_l/Σ J, as for resistors; for weak ones J_j J_l/2, as at strong
coupling). In lattice gauge theory plaquettes become larger loops. Units are eliminated in the reverse of the sampling
order; what then acts on a unit is a start for its conditional. Fresh guides of higgs.vfe had Var ln w = 20.7 with the
pairs of cavity.py and 2.0 with these, of u1_improved.vfe 16.7 and 1.7. Waves with |m_u| > 1 are left out.
"""

from __future__ import annotations

import numpy as np
from scipy.special import i0e, i1e

from vdsl.ir.expansion import Expansion

_MOST = 16  # waves that act on a unit
_WIDEST = 24  # waves of a star, the largest
_LEAST = 1e-2  # of |J|
_ALIGNED = 0.6  # R² between Σ|J|² (0) and |ΣJ|² (1); R = Σ|J|: Var ln w = 3.5 on higgs.vfe, 5.9 on u1_improved.vfe

Combination = tuple[tuple[int, int], ...]  # (unit, harmonic), units increasing; the first harmonic is positive
Field = list[tuple[Combination, complex]]  # on a unit, by those drawn before it: Σ strength e^{i m·θ}


def serves(expansion: Expansion) -> bool:
    """Whether three or more angles meet, and nothing else: pairs alone have a better start (cavity.py)."""
    kinds = expansion.kinds()
    return any(g.scopes.shape[1] > 2 and (kinds[g.scopes] == "angle").all(1).any() for g in expansion.groups)


def mesh_start(expansion: Expansion, beta: float, order: np.ndarray, rest: np.ndarray) -> dict[int, Field]:
    """What acts on every unit besides the energy's own waves, `rest` and all units after it in `order` eliminated."""
    given = _waves(expansion, beta)
    left: dict[Combination, complex] = {}
    touching: dict[int, set[Combination]] = {u: set() for u in range(expansion.n)}
    for m in given:
        for u, _ in m:
            touching[u].add(m)
    out: dict[int, Field] = {}
    for u in [*rest.tolist(), *order[::-1].tolist()]:
        star, out[u] = [], []
        for m in sorted(touching[u]):
            fresh = left.pop(m, 0j)
            star += _towards(u, m, given.pop(m, 0j) + fresh)
            out[u] += _towards(u, m, fresh)
            for v, _ in m:
                touching[v].discard(m)
        for m, j in _mesh(_largest(star, _WIDEST)):
            left[m] = left.get(m, 0j) + j
            for v, _ in m:
                touching[v].add(m)
    return out


def main_waves(fields: dict[int, Field]) -> dict[int, tuple[Combination, ...]]:
    """The largest waves of every unit: what a choice settles, so that guides of other couplings have the same shape."""
    return {u: tuple(m for m, _ in _largest(field, _MOST)) for u, field in fields.items()}


def _waves(expansion: Expansion, beta: float) -> dict[Combination, complex]:
    """Of the products of angles alone."""
    out: dict[Combination, complex] = {}
    unit = _unit_of_variable(expansion)
    for g in expansion.groups:
        alone = (expansion.kinds()[g.scopes] == "angle").all(1)
        for scope, c in zip(unit[g.scopes[alone]].tolist(), g.coefficients[alone].tolist(), strict=True):
            m, j = _oriented(dict(zip(scope, g.exponents, strict=True)), -beta * complex(c))
            out[m] = out.get(m, 0j) + j
    return out


def _unit_of_variable(expansion: Expansion) -> np.ndarray:
    """As monomials.py numbers units: a unit vector is one."""
    whole = expansion.kinds() == "unit"
    first = np.concatenate([np.arange(b.elements * b.components) % b.components == 0 for b in expansion.blocks])
    return np.cumsum(~whole | first) - 1


def _oriented(harmonics: dict[int, int], j: complex) -> tuple[Combination, complex]:
    """Re J e^{i m·θ} with the first harmonic positive."""
    m = tuple(sorted((u, p) for u, p in harmonics.items() if p))
    return (m, j) if not m or m[0][1] > 0 else (tuple((u, -p) for u, p in m), j.conjugate())


def _towards(u: int, m: Combination, j: complex) -> Field:
    """Re J e^{i m·θ} as the field that it is on θ_u, if it has its first harmonic and is not too small."""
    own = dict(m)[u]
    if abs(own) != 1 or abs(j) < _LEAST:
        return []
    return [(tuple((v, -own * p) for v, p in m if v != u), j.conjugate() if own == 1 else j)]


def _largest(field: Field, most: int) -> Field:
    return sorted(field, key=lambda wave: -abs(wave[1]))[:most]


def _mesh(star: Field) -> list[tuple[Combination, complex]]:
    """What the integral over a unit leaves of the field on it."""
    if len(star) < 2:
        return []
    j = np.array([strength for _, strength in star])
    r = float(np.sqrt((1 - _ALIGNED) * (np.abs(j) ** 2).sum() + _ALIGNED * np.abs(j.sum()) ** 2))
    ratio = float(i1e(r) / i0e(r)) / r
    found = []
    for k, (one, a) in enumerate(star):
        for other, b in star[:k]:
            difference = dict(one)
            for v, p in other:
                difference[v] = difference.get(v, 0) - p
            m, strength = _oriented(difference, a * b.conjugate() * ratio)
            if m and abs(strength) >= _LEAST:
                found.append((m, strength))
    return found
