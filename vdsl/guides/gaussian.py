"""Gaussian: the guide that is exact where the energy is quadratic, the best Gaussian elsewhere, and where flows start.

    q = N(μ, A⁻¹),   A = β⟨∂∂E⟩_q,   ⟨∂E⟩_q = 0

For a quadratic energy this is the Boltzmann distribution. For a polynomial one it is the Gaussian of lowest variational
F, found by self-consistency when the guide is built (`hartree`). What is not polynomial is left to training. Stored per
momentum where translations of a periodic lattice leave the energy alone (`spectral`), as a block-tridiagonal factor in
an order of small bandwidth elsewhere (`banded`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jax import Array

from vdsl.guides.arrays import reals
from vdsl.guides.banded import Band, BandedGeometry, band_of, build_banded
from vdsl.guides.chart import Chart
from vdsl.guides.flow import Base, Bijection, Flow
from vdsl.guides.guide import GuideChoice, Params, Recipe
from vdsl.guides.hartree import Geometry, Optimum, best_gaussian, is_quadratic
from vdsl.guides.problem import Problem, cannot_serve
from vdsl.guides.spectral import SpectralGeometry, build_spectral, fully_periodic, sublattice
from vdsl.ir.graph import Adjacency, adjacency

_MOST_NUMBERS = 2**26  # of one triangular factor: 256 MiB in float32


@dataclass(frozen=True)
class GaussianStructure:
    """`band`: the order and width of a banded factor, or None for one matrix per momentum."""

    band: Band | None


class Identity(Bijection):
    """x = z: a base density by itself."""

    def init(self, key: Array) -> Params:
        return {}

    def forward(self, params: Params, z: Array) -> tuple[Array, Array]:
        return z, 0.0 * z[:, 0]

    def inverse(self, params: Params, x: Array) -> tuple[Array, Array]:
        return x, 0.0 * x[:, 0]


def choose_gaussian(problem: Problem) -> GuideChoice:
    """The guide and its form. Raises VfeError `guide-cannot-serve` for fields that have no Gaussian."""
    chart = check_real(problem, "gaussian")
    structure = structure_of(problem)
    quadratic = is_quadratic(problem.expansion)
    if quadratic:
        reason = (
            "the energy is quadratic: the Boltzmann distribution is a Gaussian, sampled exactly, nothing is trained"
        )
    elif not problem.expansion.opaque:
        reason = "a baseline: the Gaussian of lowest variational free energy, by self-consistency"
    else:
        names = ", ".join(f"`{name}`" for name, _ in problem.expansion.opaque)
        reason = f"a baseline: the best Gaussian; {names} is no polynomial, so that it has to be trained"
    description: dict[str, object] = {"coordinates": chart.size}
    if structure.band is None:
        description |= {"form": "one matrix per momentum", "momenta": int(np.prod(chart.cells))}
    else:
        description |= {"form": "block-tridiagonal factor", "bandwidth": structure.band.width}
    return GuideChoice("gaussian", reason, description, structure)


def build_gaussian(choice: GuideChoice, problem: Problem) -> Flow:
    """The guide at θ. Raises VfeError `unbounded-energy` where a quadratic energy has no lowest point."""
    chart = check_real(problem, "gaussian")
    optimum = solve(problem, choice.structure)
    base = base_of(problem, choice.structure, optimum, np.ones(chart.size), trained=not optimum.stationary)
    return Flow(
        reals(1 / problem.temperature), problem.flat_energy(), reals(np.ones(chart.size)), base, Identity(), None,
        chart, Recipe("reparameterised", learning_rate=1e-2, batch=256), 32 * chart.size,
    )  # fmt: skip


def gaussian_base(problem: Problem, kept: np.ndarray, trained: bool = True) -> Base:
    """The best Gaussian's marginal on the kept coordinates (D,), as the start of a flow."""
    structure = structure_of(problem)
    return base_of(problem, structure, solve(problem, structure), kept, trained)


def structure_of(problem: Problem) -> GaussianStructure:
    """How precision matrices of the model are stored. Raises VfeError `guide-cannot-serve` if they are too large."""
    chart = check_real(problem, "gaussian")
    if fully_periodic(chart) and translation_invariant(problem):
        return GaussianStructure(None)
    band = band_of(_adjacency(problem))
    if 2 * band.blocks * band.width**2 > _MOST_NUMBERS:
        why = f"{chart.size:,} coordinates of bandwidth {band.width:,} need a factor that is too large"
        raise cannot_serve("gaussian", why, "take a smaller lattice")
    return GaussianStructure(band)


def translation_invariant(problem: Problem) -> bool:
    """Whether every term has all translations of the grid: plain from the terms, or from the numbers."""
    chart = problem.chart
    if chart is None or not fully_periodic(chart):
        return False
    axes = {a for s in problem.symmetries if s.kind == "translation" for a in s.axes}
    if all(n == 1 or a in axes for a, n in enumerate(chart.cells)):
        return True
    if not is_quadratic(problem.expansion):
        return False
    pairs = [g for g in problem.expansion.groups if sum(g.exponents) == 2]
    rows = np.concatenate([np.zeros(0, int), *(g.scopes[:, 0] for g in pairs)])
    columns = np.concatenate([np.zeros(0, int), *(g.scopes[:, -1] for g in pairs)])
    values = np.concatenate([np.zeros(0), *(np.real(g.coefficients) for g in pairs)])
    return SpectralGeometry(chart).invariant(
        np.concatenate([rows, columns]), np.concatenate([columns, rows]), np.concatenate([values, values])
    )


def solve(problem: Problem, structure: GaussianStructure) -> Optimum:
    """The best Gaussian at the problem's temperature."""
    return best_gaussian(problem.expansion, 1 / problem.temperature, _geometry(problem, structure))


def base_of(problem: Problem, structure: GaussianStructure, optimum: Optimum, kept: np.ndarray, trained: bool) -> Base:
    """The marginal of a Gaussian on the kept coordinates; the others do not couple to each other."""
    chart = check_real(problem, "gaussian")
    free = trained * _unpinned(problem) * kept
    if structure.band is None and sublattice(chart, kept) is not None:
        return build_spectral(chart, optimum.precision, optimum.mean, kept, trained, free)
    if structure.band is not None and kept.all():
        return build_banded(structure.band, optimum.precision, optimum.mean, chart.size, trained, free)
    geometry = _geometry(problem, structure)
    rows, columns, values = eliminate(geometry.entries(optimum.precision), kept)
    place = np.cumsum(kept > 0) - 1
    own = [set() for _ in range(int(kept.sum()))]  # type: Adjacency
    for i, j in zip(place[rows].tolist(), place[columns].tolist(), strict=True):
        if i != j:
            own[i].add(j)
    band = band_of(own)
    precision = BandedGeometry(band).assemble(place[rows], place[columns], values)
    among = Band(tuple(np.flatnonzero(kept)[list(band.order)].tolist()), band.width)
    return build_banded(among, precision, optimum.mean, chart.size, trained, free)


def scale_of(problem: Problem, structure: GaussianStructure, optimum: Optimum) -> np.ndarray:
    """The standard deviation of every coordinate, (D,)."""
    every = np.arange(problem.expansion.n)
    return np.sqrt(_geometry(problem, structure).covariance(optimum.precision)(every, every))


def eliminate(
    entries: tuple[np.ndarray, np.ndarray, np.ndarray], kept: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A_kk − A_kd A_dd⁻¹ A_dk as (rows, columns, values), for A_dd diagonal: the precision of the marginal."""
    rows, columns, values = entries
    stays = (kept[rows] > 0) & (kept[columns] > 0)
    own = np.zeros(len(kept))
    diagonal = rows == columns
    own[rows[diagonal]] = values[diagonal]
    cross = (kept[rows] == 0) & (kept[columns] > 0)
    order = np.argsort(rows[cross], kind="stable")
    dropped, other, coupling = rows[cross][order], columns[cross][order], values[cross][order]
    parts = [(rows[stays], columns[stays], values[stays])]
    for chunk in np.split(np.arange(len(dropped)), np.flatnonzero(np.diff(dropped)) + 1):
        if len(chunk):
            around, a = other[chunk], coupling[chunk]
            outer = -np.outer(a, a) / own[dropped[chunk[0]]]
            parts.append((np.repeat(around, len(a)), np.tile(around, len(a)), outer.reshape(-1)))
    return tuple(np.concatenate(p) for p in zip(*parts, strict=True))  # type: ignore[return-value]


def check_real(problem: Problem, name: str) -> Chart:
    """The chart, if all fields are real, real[n] or complex. Raises VfeError `guide-cannot-serve`."""
    chart = problem.chart
    if chart is None or any(p.kind not in ("real", "complex") for p in chart.pieces):
        why = "not all of its fields are real or complex"
        raise cannot_serve(name, why, "leave the choice to vdsl")
    return chart


def _geometry(problem: Problem, structure: GaussianStructure) -> Geometry:
    if structure.band is None:
        return SpectralGeometry(check_real(problem, "gaussian"))
    return BandedGeometry(structure.band)


def _adjacency(problem: Problem) -> Adjacency:
    return adjacency(problem.expansion.n, [g.scopes for g in problem.expansion.groups])


def _unpinned(problem: Problem) -> np.ndarray:
    """Which coordinates may have a mean: not those that a symmetry maps onto their negatives. (D,)"""
    chart = check_real(problem, "gaussian")
    even = set()
    for s in problem.symmetries:
        if s.kind in ("z2", "rotation") or (s.kind == "shift" and s.order % 2 == 0):
            even |= set(s.fields)
    return np.concatenate([np.full(p.elements * p.components, float(p.field not in even)) for p in chart.pieces])
