"""Hartree: the best Gaussian for a polynomial energy, found on the host by self-consistency, nothing sampled.

A Gaussian q = N(μ, A⁻¹) has the variational free energy

    F/T = β⟨E⟩_q + ½ ln det A − (D/2) ln 2πe,

stationary where A = β⟨∂∂E⟩_q and ⟨∂E⟩_q = 0. Averages of monomials follow from Wick's theorem, so both conditions are
closed equations in μ and the entries of A⁻¹ that some term reads. They are iterated as natural gradient steps,

    A ← (1 − η) A + η β⟨∂∂E⟩,   μ ← μ − η A⁻¹ β⟨∂E⟩,

with η halved until F falls. A quadratic energy takes one step and the answer is exact. How matrices are stored is the
business of a *geometry*: one per momentum where the energy is translation invariant, block tridiagonal elsewhere.
(Khan & Rue 2023, J. Mach. Learn. Res. 24(281), for the form of the step.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any, Protocol

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.ir.expansion import Expansion, MonomialGroup

_MOST_STEPS = 500
_TOLERANCE = 1e-11  # of F, relative


class Geometry(Protocol):
    """How precision matrices of one model are stored; `Stored` is whatever `assemble` returns."""

    def assemble(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> Any:
        """The symmetric matrix of the given entries (both triangles, duplicates added)."""

    def entries(self, matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The entries that are not 0, as (rows, columns, values)."""

    def lowest(self, matrix: Any) -> float:
        """A lower bound of its eigenvalues."""

    def add_diagonal(self, matrix: Any, value: float) -> Any:
        """matrix + value·1."""

    def mix(self, a: Any, b: Any, weight: float) -> Any:
        """(1 − weight) a + weight b."""

    def log_det(self, matrix: Any) -> float:
        """ln det; raises numpy.linalg.LinAlgError if it is not positive definite."""

    def covariance(self, matrix: Any) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """Entries of the inverse: a function (i, j) -> values, for pairs that some term reads."""

    def solve(self, matrix: Any, right: np.ndarray) -> np.ndarray:
        """matrix⁻¹ right, (D,)."""


@dataclass(frozen=True)
class Optimum:
    """The Gaussian found: its mean (D,), its precision as the geometry stores it, and F/T.

    stationary: whether F stopped falling, all of the energy being polynomial; then nothing is left to train.
    """

    mean: np.ndarray
    precision: Any
    reduced_free_energy: float
    stationary: bool


def is_quadratic(expansion: Expansion) -> bool:
    """Whether E is a polynomial of degree at most two in real variables."""
    return (
        not expansion.opaque
        and all(b.kind == "real" for b in expansion.blocks)
        and all(sum(g.exponents) <= 2 for g in expansion.groups)
    )


def best_gaussian(expansion: Expansion, beta: float, geometry: Geometry) -> Optimum:
    """The self-consistent Gaussian, from mean zero (where it stays, if the energy is even).

    Raises VfeError `unbounded-energy` if the energy is quadratic and its matrix is not positive definite.
    """
    terms = _Terms(expansion, beta)
    quadratic = is_quadratic(expansion)
    mean = np.zeros(expansion.n)
    precision = geometry.assemble(*terms.hessian(mean, lambda i, j: np.zeros(len(i))))
    if quadratic:
        try:
            log_det = geometry.log_det(precision)
        except np.linalg.LinAlgError:
            raise _unbounded() from None
        mean = geometry.solve(precision, -terms.gradient(mean, lambda i, j: np.zeros(len(i))))
        energy = terms.energy(mean, geometry.covariance(precision))
        return Optimum(mean, precision, energy + _entropy(log_det, expansion.n), True)
    low = geometry.lowest(precision)
    typical = float(np.mean([abs(terms.scale), abs(low)])) or 1.0
    if low <= 0.1 * typical:  # wide enough to feel what bounds the energy, narrow enough to be a Gaussian at all
        precision = geometry.add_diagonal(precision, 0.1 * typical - low)
    return _iterate(terms, geometry, mean, precision, expansion)


def _iterate(terms: _Terms, geometry: Geometry, mean: np.ndarray, precision: Any, expansion: Expansion) -> Optimum:
    def free_energy(mean: np.ndarray, precision: Any) -> tuple[float, Any]:
        log_det = geometry.log_det(precision)
        covariance = geometry.covariance(precision)
        return terms.energy(mean, covariance) + _entropy(log_det, expansion.n), covariance

    current, covariance = free_energy(mean, precision)
    for _ in range(_MOST_STEPS):
        hessian = geometry.assemble(*terms.hessian(mean, covariance))
        step = geometry.solve(precision, terms.gradient(mean, covariance))
        weight, found = 0.5, None
        while weight > 1e-6 and found is None:
            trial = mean - weight * step, geometry.mix(precision, hessian, weight)
            try:
                value, trial_covariance = free_energy(*trial)
            except np.linalg.LinAlgError:
                value = np.inf
            if value <= current + 1e-12 * max(1.0, abs(current)):
                found = trial
            else:
                weight /= 2
        if found is None:
            break
        fell = current - value
        (mean, precision), current, covariance = found, value, trial_covariance
        if fell < _TOLERANCE * max(1.0, abs(current)):
            return Optimum(mean, precision, current, not expansion.opaque)
    return Optimum(mean, precision, current, False)


def _entropy(log_det: float, n: int) -> float:
    """−S of a Gaussian."""
    return 0.5 * log_det - 0.5 * n * (1 + np.log(2 * np.pi))


def _unbounded() -> VfeError:
    message = "the energy is quadratic and not bounded below: its matrix is not positive definite, so Z does not exist"
    hint = "add a mass term, fix a value, or open a boundary"
    return VfeError(Diagnostic("unbounded-energy", message, hints=(hint,)))


class _Terms:
    """Averages of βE and its derivatives under Gaussians."""

    def __init__(self, expansion: Expansion, beta: float):
        self.n, self.beta, self.constant = expansion.n, beta, expansion.constant
        self.groups = [g for g in expansion.groups if np.any(g.coefficients)]

    @cached_property
    def scale(self) -> float:
        """A curvature that the energy has: of the mean diagonal at unit variance."""
        rows, columns, values = self.hessian(np.zeros(self.n), lambda i, j: (i == j).astype(float))
        return float(np.mean(np.bincount(rows, np.where(rows == columns, values, 0.0), self.n)))

    def energy(self, mean: np.ndarray, covariance: Any) -> float:
        """β⟨E⟩."""
        total = self.constant
        for g in self.groups:
            total += float(np.dot(np.real(g.coefficients), _Wick(g, mean, covariance)(g.exponents)))
        return self.beta * total

    def gradient(self, mean: np.ndarray, covariance: Any) -> np.ndarray:
        """β⟨∂E⟩, (D,)."""
        out = np.zeros(self.n)
        for g in self.groups:
            wick, coefficient = _Wick(g, mean, covariance), np.real(g.coefficients)
            for a, p in enumerate(g.exponents):
                out += np.bincount(g.scopes[:, a], coefficient * p * wick(_lower(g.exponents, a)), self.n)
        return self.beta * out

    def hessian(self, mean: np.ndarray, covariance: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """β⟨∂∂E⟩ as (rows, columns, values), both triangles."""
        rows, columns, values = [np.zeros(0, int)], [np.zeros(0, int)], [np.zeros(0)]
        for g in self.groups:
            wick, coefficient = _Wick(g, mean, covariance), np.real(g.coefficients)
            for a, b in combinations_with_replacement(range(len(g.exponents)), 2):
                factor = g.exponents[a] * _lower(g.exponents, a)[b]
                if factor == 0:
                    continue
                value = coefficient * factor * wick(_lower(_lower(g.exponents, a), b))
                pairs = [(a, b)] if a == b else [(a, b), (b, a)]
                for i, j in pairs:
                    rows.append(g.scopes[:, i])
                    columns.append(g.scopes[:, j])
                    values.append(value)
        return np.concatenate(rows), np.concatenate(columns), self.beta * np.concatenate(values)


def _lower(exponents: tuple[int, ...], slot: int) -> tuple[int, ...]:
    return tuple(p - (k == slot) for k, p in enumerate(exponents))


class _Wick:
    """⟨∏ x_k^{p_k}⟩ of the rows of a group: ⟨x_a f⟩ = μ_a ⟨f⟩ + Σ_b Σ_ab ⟨∂_b f⟩."""

    def __init__(self, group: MonomialGroup, mean: np.ndarray, covariance: Any):
        self._scopes, self._mean, self._covariance = group.scopes, mean[group.scopes], covariance
        self._pairs: dict[tuple[int, int], np.ndarray] = {}
        self._known: dict[tuple[int, ...], np.ndarray] = {}

    def __call__(self, exponents: tuple[int, ...]) -> np.ndarray:
        """(m,) averages of the monomial with these exponents."""
        if not any(exponents):
            return np.ones(len(self._scopes))
        if exponents not in self._known:
            a = next(k for k, p in enumerate(exponents) if p)
            rest = _lower(exponents, a)
            total = self._mean[:, a] * self(rest)
            for b, p in enumerate(rest):
                if p:
                    total = total + p * self._pair(a, b) * self(_lower(rest, b))
            self._known[exponents] = total
        return self._known[exponents]

    def _pair(self, a: int, b: int) -> np.ndarray:
        if (a, b) not in self._pairs:
            self._pairs[a, b] = self._covariance(self._scopes[:, a], self._scopes[:, b])
        return self._pairs[a, b]
