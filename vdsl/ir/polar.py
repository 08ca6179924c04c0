"""Polar: complex fields by length and phase, ψ = r e^{iα}, in an expansion.

    re^a im^b = r^{a+b} cos^a α sin^b α = r^{a+b} Σ_m c_m e^{imα},    d²ψ = r dr dα

A charged field is simplest so: a gauge transformation shifts its phases, which can be pinned like other angles
(pinning.py), and leaves its lengths alone. The block of a field becomes two, lengths ("radius") before phases.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import numpy as np

from vdsl.ir.expansion import Block, Expansion, MonomialGroup

_ROUNDING = 1e-12  # of the largest coefficient of a term: what is left where harmonics cancel

_Slots = tuple[tuple[int, int], ...]  # (variable, exponent), variables increasing


def polar_expansion(expansion: Expansion, fields: Collection[str]) -> Expansion:
    """The same energy with these complex fields by lengths and phases; the number of variables is the same."""
    if not fields:
        return expansion
    planes = _planes(expansion, fields)
    found: dict[str, dict[_Slots, complex]] = {}
    kept: list[MonomialGroup] = []
    for g in expansion.groups:
        turned = (planes.length[g.scopes] >= 0).any(1)
        if not turned.all():
            kept.append(replace(g, scopes=g.scopes[~turned], coefficients=g.coefficients[~turned]))
        terms = found.setdefault(g.term, {})
        for scope, c in zip(g.scopes[turned].tolist(), g.coefficients[turned].tolist(), strict=True):
            for slots, coefficient in planes.multiplied(list(zip(scope, g.exponents, strict=True)), complex(c)):
                terms[slots] = terms.get(slots, 0j) + coefficient
    blocks = tuple(half for b in expansion.blocks for half in (_halves(b) if b.field in fields else (b,)))
    kinds = Expansion(blocks, (), 0.0).kinds()
    groups = [g for term, terms in found.items() for g in _groups(term, terms, kinds)]
    coordinates = None if expansion.coordinates is None else expansion.coordinates[planes.element]
    return Expansion(blocks, (*kept, *groups), expansion.constant, expansion.opaque, coordinates)


@dataclass(frozen=True)
class _Planes:
    """Of variables as they were: the number of the length and of the phase that a part belongs to, −1 for none;
    imaginary: which part it was. Of variables as they are: whether an angle; element: a former variable of the same.
    """

    length: np.ndarray
    phase: np.ndarray
    imaginary: np.ndarray
    angle: np.ndarray
    element: np.ndarray

    def multiplied(self, factors: list[tuple[int, int]], c: complex) -> Iterator[tuple[_Slots, complex]]:
        """Re c ∏ g(x; p) as monomials of lengths and phases."""
        powers: dict[int, int] = {}
        parts: dict[int, list[int]] = {}  # of a phase: the powers of the real and of the imaginary part
        for v, p in factors:
            if self.length[v] < 0:
                powers[v] = p
                continue
            r = int(self.length[v])
            powers[r] = powers.get(r, 0) + p
            parts.setdefault(int(self.phase[v]), [0, 0])[int(self.imaginary[v])] += p
        series = [harmonics(*ab) for ab in parts.values()]
        for choice in itertools.product(*(s.items() for s in series)):
            slots = powers | {phase: m for phase, (m, _) in zip(parts, choice, strict=True) if m}
            yield self._oriented(slots, c * math.prod(factor for _, factor in choice))

    def _oriented(self, slots: dict[int, int], c: complex) -> tuple[_Slots, complex]:
        """Re c e^{im·θ} with the first harmonic positive."""
        first = next((p for v, p in sorted(slots.items()) if self.angle[v]), 1)
        if first < 0:
            slots, c = {v: -p if self.angle[v] else p for v, p in slots.items()}, c.conjugate()
        return tuple(sorted(slots.items())), c


def harmonics(a: int, b: int) -> dict[int, complex]:
    """c_m of cos^a α sin^b α = Σ_m c_m e^{imα}."""
    out: dict[int, complex] = {}
    for j, k in itertools.product(range(a + 1), range(b + 1)):
        m = a + b - 2 * (j + k)
        out[m] = out.get(m, 0) + math.comb(a, j) * math.comb(b, k) * (-1) ** k / (2**a * (2j) ** b)
    return out


def _planes(expansion: Expansion, fields: Collection[str]) -> _Planes:
    n = expansion.n
    length, phase, imaginary = np.full(n, -1), np.full(n, -1), np.zeros(n, bool)
    angle, element = expansion.kinds() == "angle", np.arange(n)
    for b in expansion.blocks:
        if b.field in fields:
            own, each = b.first + np.arange(2 * b.elements), np.repeat(np.arange(b.elements), 2)
            length[own], phase[own] = b.first + each, b.first + b.elements + each
            imaginary[own] = own % 2 != b.first % 2
            angle[own[b.elements :]] = True
            element[own] = b.first + 2 * np.tile(np.arange(b.elements), 2)
    return _Planes(length, phase, imaginary, angle, element)


def _halves(b: Block) -> tuple[Block, Block]:
    """Lengths and phases of a complex block."""
    lengths = replace(b, kind="radius", components=1)
    return lengths, replace(lengths, kind="angle", first=b.first + b.elements)


def _groups(term: str, terms: dict[_Slots, complex], kinds: np.ndarray) -> Iterator[MonomialGroup]:
    """Monomials sorted by their exponents and by the kinds of their variables."""
    least = _ROUNDING * max((abs(c) for c in terms.values()), default=0.0)
    alike: dict[tuple[tuple[int, str], ...], list[tuple[list[int], complex]]] = {}
    for slots, c in terms.items():
        if abs(c) > least:
            alike.setdefault(tuple((p, kinds[v]) for v, p in slots), []).append(([v for v, _ in slots], c))
    for shape, rows in alike.items():
        coefficients = np.array([c for _, c in rows])
        scopes = np.array([scope for scope, _ in rows])
        waves = any(kind == "angle" for _, kind in shape)
        yield MonomialGroup(term, tuple(p for p, _ in shape), scopes, coefficients if waves else coefficients.real)
