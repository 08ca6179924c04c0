"""Profiles: the energy of a model as a function of one real component, for quadrature nodes where it matters."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.exact.nodes import Density
from vdsl.ir import interpret
from vdsl.ir.expansion import Block, Expansion, MonomialGroup
from vdsl.ir.program import Program

_FALL = 40.0  # e^{−40}: where a density is cut off


class Profile:
    """The energy as a function of one real component, the other variables at 0 or averaged, per element."""

    def __init__(self, program: Program, theta: dict[str, float], expansion: Expansion, t: float):
        self.program, self.theta, self.expansion, self.t = program, theta, expansion, t
        sizes = [b.elements * b.components for b in expansion.blocks]
        self.block_of = np.repeat(np.arange(len(sizes)), sizes)

    def density(self, block: Block, c: int, blend: float) -> Density:
        """e^{−((1 − blend) V₁ + blend V_u)/T}; equispaced nodes where part of the energy is no polynomial."""
        single, uniform = self.single(block, c), self.uniform(block, c)
        if self.expansion.opaque:
            ends = [
                _level(lambda x: _at(single, x) + self._opaque(block, c, x, 1), _FALL * self.t),
                _level(lambda x: _at(uniform, x) + self._opaque(block, c, x, block.elements), _FALL * self.t),
            ]
            if ends[0] is None:
                raise _unbounded(block.field)
            found = [e for e in ends if e is not None]
            return Density(min(e[0] for e in found), max(e[1] for e in found))
        size = max(len(single), len(uniform))
        if _level(lambda x: _at(uniform, x), 2 * _FALL * self.t) is None:
            uniform, blend = np.zeros(1), min(blend, 0.9)
        mixed = np.zeros(size)
        mixed[: len(single)] += (1 - blend) * single / self.t
        mixed[: len(uniform)] += blend * uniform / self.t
        ends = [_level(lambda x: _at(mixed, x), 2 * _FALL)]
        if ends[0] is None:
            raise _unbounded(block.field)
        return Density(*ends[0], tuple(mixed.tolist()))

    def matched(self, block: Block, c: int, spread: float) -> Density:
        """The blend for which ⟨x²⟩ is what it should be, as nearly as blends go."""
        if self.expansion.opaque:
            return self.density(block, c, 0.5)
        blends = np.linspace(0, 0.95, 20)
        densities = [self.density(block, c, float(s)) for s in blends]
        return min(densities, key=lambda d: abs(math.log(_second_moment(d) / spread)))

    def single(self, block: Block, c: int) -> np.ndarray:
        """V₁, averaged over the elements, as coefficients of powers."""
        total = np.zeros(1)
        for g in self.expansion.groups:
            for slot, power in enumerate(g.exponents):
                rows, weight = self._others(g, [slot], block, c)
                if weight:
                    total = _with(total, power, weight * float(g.coefficients[rows].real.sum()) / block.elements)
        return total

    def uniform(self, block: Block, c: int) -> np.ndarray:
        """V_u: the energy per element when all have the same value."""
        total = np.zeros(1)
        for g in self.expansion.groups:
            mine = [s for s in range(len(g.exponents)) if self._in(g, s, block, c).any()]
            rows, weight = self._others(g, mine, block, c)
            if mine and weight:
                power = sum(g.exponents[s] for s in mine)
                total = _with(total, power, weight * float(g.coefficients[rows].real.sum()) / block.elements)
        return total

    def _in(self, g: MonomialGroup, slot: int, block: Block, c: int) -> np.ndarray:
        offset = g.scopes[:, slot] - block.first
        inside = (offset >= 0) & (offset < block.elements * block.components)
        return inside & (offset % block.components == c)

    def _others(self, g: MonomialGroup, mine: list[int], block: Block, c: int) -> tuple[np.ndarray, float]:
        """(rows whose slots `mine` are this component, the average of the other generators)."""
        rows = np.all([self._in(g, s, block, c) for s in mine] or [np.zeros(len(g.scopes), bool)], axis=0)
        weight = 1.0 if rows.any() else 0.0
        for slot, p in enumerate(g.exponents):
            if slot in mine or not weight:
                continue
            other = self.expansion.blocks[self.block_of[g.scopes[rows][0, slot]]]
            match other.kind:
                case "states":
                    weight /= other.states
                case "unit" if p % 2 == 0:
                    weight /= other.components ** (p / 2)
                case _:
                    weight = 0.0
        return rows, weight

    def _opaque(self, block: Block, c: int, x: np.ndarray, elements: int) -> np.ndarray:
        return np.array([self._interpreted(block, c, float(v), elements) for v in x]) / elements

    def _interpreted(self, block: Block, c: int, value: float, elements: int) -> float:
        rng = np.random.default_rng(0)
        x = interpret.random_configuration(self.program, rng)
        for b in self.expansion.blocks:
            if b.kind == "real":
                x[b.field] = np.zeros_like(x[b.field])
        flat = np.zeros((block.elements, block.components))
        flat[:elements, c] = value
        stored = flat[:, 0] + 1j * flat[:, 1] if np.iscomplexobj(x[block.field]) else flat
        x[block.field] = stored.reshape(x[block.field].shape)
        return sum(float(interpret.evaluate(self.program, e, self.theta, x)) for _, e in self.expansion.opaque)


def _with(total: np.ndarray, power: int, coefficient: float) -> np.ndarray:
    out = np.zeros(max(len(total), power + 1))
    out[: len(total)] = total
    out[power] += coefficient
    return out


def _at(potential: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.polynomial.polynomial.polyval(x, potential)


def _second_moment(density: Density) -> float:
    x = np.linspace(density.lower, density.upper, 2001)
    v = _at(np.array(density.potential), x)
    p = np.exp(-(v - v.min()))
    return float(p @ x**2 / p.sum())


def _level(energy: Callable[[np.ndarray], np.ndarray], height: float) -> tuple[float, float] | None:
    """The interval outside of which an energy is more than `height` above its least value; None if there is none."""
    x = np.r_[-np.exp2(np.arange(40, -41, -1) / 4), 0.0, np.exp2(np.arange(-40, 41) / 4)]
    for _ in range(3):
        with np.errstate(all="ignore"):
            e = energy(x)
        e = np.where(np.isnan(e), np.inf, e)
        low = np.flatnonzero(e <= e.min() + height)
        if low[0] == 0 or low[-1] == len(x) - 1:
            return None
        a, b = float(x[low[0] - 1]), float(x[low[-1] + 1])
        margin = 0.02 * (b - a)
        x = np.linspace(a - margin, b + margin, 101)
    return a, b


def _unbounded(name: str) -> VfeError:
    return VfeError(
        Diagnostic(
            "not-normalisable",
            f"the energy of a single value of `{name}` does not grow in both directions, so a quadrature has no end",
            hints=("a positive power of it would bound it",),
        ),
        exit_code=3,
    )
