"""Mesh: what angles feel of angles that are integrated out, as cosines of integer combinations of angles.

    −βE = Re Σ_m J_m e^{i m·θ},     m integer vectors, J complex

Where θ_u stands in some of the waves with m_u = ±1, its integral is ln I₀(R), R = |Σ_j J_j e^{i m_j·θ}| without the
factors of θ_u. R² is Σ|J_j|² and twice the cosines of all differences, so to first order every pair of waves leaves

    J_j J_l* A(R)/R e^{i (m_j − m_l)·θ},     A = I₁/I₀,

at a typical R, R² between Σ|J|² and |ΣJ|² (`ALIGNED`): star into mesh (for stiff angles J_j J_l/Σ J, as for resistors;
for weak ones J_j J_l/2, as at strong coupling). In lattice gauge theory plaquettes become larger loops. Units are
eliminated in the reverse of the sampling order; what then acts on a unit is a start for its conditional. Fresh guides
of higgs.vfe had Var ln w = 20.7 with the pairs of cavity.py and 2.0 with these, of u1_improved.vfe 16.7 and 1.7. Waves
with |m_u| > 1 are left out.

Strengths may be products of lengths of complex matter, J ∏ r_v^p. R is taken at typical ones (lengths.py), the products
stay, and |J_j|² A/2R ∏ r_v^{2p} is left as well: what averaging over phases says about lengths. A length that is
eliminated leaves its typical powers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.special import i0e, i1e

from vdsl.guides.lengths import ALIGNED, typical_lengths, unit_of_variable
from vdsl.ir.expansion import Expansion

_MOST = 16  # waves that act on a unit
_WIDEST = 24  # waves of a star, the largest
_LEAST = 1e-2  # of |J|

Combination = tuple[tuple[int, int], ...]  # (unit, harmonic or power), units increasing; the first harmonic is positive


@dataclass(frozen=True)
class Wave:
    """Re strength e^{i m·θ} ∏ r^p of other units, times e^{iθ} of the unit it acts on, or r^power of that."""

    others: Combination
    strength: complex
    power: int = 1

    @property
    def place(self) -> Place:
        """All but the strength."""
        return self.others, self.power


Place = tuple[Combination, int]
Field = list[Wave]  # on a unit, by those drawn before it, the largest first


def serves(expansion: Expansion) -> bool:
    """Whether angles meet in threes or more, lengths counted: pairs of angles alone have a better start (cavity.py)."""
    meetings = [expansion.kinds()[g.scopes] for g in expansion.groups if g.scopes.shape[1] > 2]
    return any((np.isin(k, ("angle", "radius")).all(1) & (k == "angle").any(1)).any() for k in meetings)


def mesh_start(expansion: Expansion, beta: float, order: np.ndarray, rest: np.ndarray) -> dict[int, Field]:
    """What acts on every unit besides the energy's own waves, `rest` and all units after it in `order` eliminated."""
    mesh = _Mesh(expansion, beta)
    out: dict[int, Field] = {}
    for u in [*rest.tolist(), *order[::-1].tolist()]:
        out[u] = mesh.eliminate_length(u) if mesh.is_length[u] else mesh.eliminate_angle(u)
    return out


def main_waves(fields: dict[int, Field]) -> dict[int, tuple[Place, ...]]:
    """The largest waves of every unit: what a choice settles, so that guides of other couplings have the same shape."""
    return {u: tuple(w.place for w in field[:_MOST]) for u, field in fields.items()}


class _Mesh:
    """The waves that are there while units are eliminated: those of the energy, and what is left of others."""

    def __init__(self, expansion: Expansion, beta: float) -> None:
        kinds, unit = expansion.kinds(), unit_of_variable(expansion)
        self.is_length = np.zeros(int(unit.max(initial=-1)) + 1, bool)
        self.is_length[unit[kinds == "radius"]] = True
        self.mean = cache(typical_lengths(expansion, beta).mean)
        self.given: dict[Combination, complex] = {}
        for g in expansion.groups:
            alone = np.isin(kinds[g.scopes], ("angle", "radius")).all(1)
            for scope, c in zip(unit[g.scopes[alone]].tolist(), g.coefficients[alone].tolist(), strict=True):
                m, j = self.oriented(dict(zip(scope, g.exponents, strict=True)), -beta * complex(c))
                self.given[m] = self.given.get(m, 0j) + j
        self.left: dict[Combination, complex] = {}
        self.touching: dict[int, set[Combination]] = {u: set() for u in range(len(self.is_length))}
        for m in self.given:
            for u, _ in m:
                self.touching[u].add(m)

    def eliminate_angle(self, u: int) -> Field:
        """What acts on an angle; its integral is left in its place."""
        star: Field = []
        out: Field = []
        for m, given, fresh in self._removed(u):
            star += self._towards(u, m, given + fresh)
            out += self._towards(u, m, fresh)
        for m, j in self._meshed(sorted(star, key=self.size, reverse=True)[:_WIDEST]):
            self._add(m, j)
        return self._sorted(out)

    def eliminate_length(self, u: int) -> Field:
        """What acts on a length; its typical powers are left in its place."""
        out: Field = []
        for m, given, fresh in self._removed(u):
            p, others = dict(m)[u], tuple(slot for slot in m if slot[0] != u)
            if fresh:
                # r^p by a power that hardly matters for large r: the highest belongs to the energy alone
                low = 2 - p % 2
                ratio = self.mean(u, p) / self.mean(u, low)
                out.append(Wave(others, fresh * ratio, low))
            if others:
                self._add(*self.oriented(dict(others), (given + fresh) * self.mean(u, p)))
        return self._sorted(self._summed(out))

    def size(self, wave: Wave) -> float:
        """|J| ∏ ⟨r^p⟩."""
        return abs(wave.strength) * self._typical(wave.others)

    def oriented(self, slots: dict[int, int], j: complex) -> tuple[Combination, complex]:
        """Re J e^{i m·θ} ∏ r^p with the first harmonic positive."""
        m = tuple(sorted((u, p) for u, p in slots.items() if p))
        first = next((p for u, p in m if not self.is_length[u]), 1)
        return (m, j) if first > 0 else (self._opposite(m), j.conjugate())

    def _opposite(self, m: Combination) -> Combination:
        return tuple((u, p if self.is_length[u] else -p) for u, p in m)

    def _typical(self, m: Combination) -> float:
        return float(np.prod([self.mean(u, p) for u, p in m if self.is_length[u]]))

    def _removed(self, u: int) -> list[tuple[Combination, complex, complex]]:
        """The waves that a unit stands in, taken out: (m, of the energy, of what others left)."""
        found = []
        for m in sorted(self.touching[u]):
            found.append((m, self.given.pop(m, 0j), self.left.pop(m, 0j)))
            for v, _ in m:
                self.touching[v].discard(m)
        return found

    def _add(self, m: Combination, j: complex) -> None:
        self.left[m] = self.left.get(m, 0j) + j
        for v, _ in m:
            self.touching[v].add(m)

    def _towards(self, u: int, m: Combination, j: complex) -> Field:
        """Re J e^{i m·θ} as the field that it is on θ_u, if it has its first harmonic and is not too small."""
        own = dict(m)[u]
        others = tuple(slot for slot in m if slot[0] != u)
        if abs(own) != 1 or abs(j) * self._typical(others) < _LEAST:
            return []
        return [Wave(self._opposite(others), j.conjugate()) if own == 1 else Wave(others, j)]

    def _sorted(self, field: Field) -> Field:
        return sorted(field, key=self.size, reverse=True)

    def _summed(self, field: Field) -> Field:
        total: dict[Place, complex] = {}
        for w in field:
            total[w.place] = total.get(w.place, 0j) + w.strength
        return [Wave(others, j, power) for (others, power), j in total.items()]

    def _meshed(self, star: Field) -> list[tuple[Combination, complex]]:
        """What the integral over an angle leaves of the field on it."""
        if not star:
            return []
        j = np.array([w.strength * self._typical(w.others) for w in star])
        r = float(np.sqrt((1 - ALIGNED) * (np.abs(j) ** 2).sum() + ALIGNED * np.abs(j.sum()) ** 2))
        if r == 0:
            return []
        ratio = float(i1e(r) / i0e(r)) / r
        found = []
        for k, one in enumerate(star):
            if any(self.is_length[v] for v, _ in one.others):
                doubled = {v: 2 * p for v, p in one.others if self.is_length[v]}
                found.append(self.oriented(doubled, complex(abs(one.strength) ** 2 * ratio / 2)))
            for other in star[:k]:
                total = dict(one.others)
                for v, p in other.others:
                    total[v] = total.get(v, 0) + (p if self.is_length[v] else -p)
                found.append(self.oriented(total, one.strength * other.strength.conjugate() * ratio))
        return [(m, j) for m, j in found if m and abs(j) * self._typical(m) >= _LEAST]
