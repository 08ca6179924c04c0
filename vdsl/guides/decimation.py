"""Decimation: units that do not interact with each other are summed and sampled exactly, given all the others.

The interaction graph's largest found independent set is taken out (one sublattice of a bipartite lattice). Given the
rest, each of its units is an exponential family of its own (densities.py) with the natural parameters −β ∂E/∂feature:

    u(kept) = βE_kept − Σ_i ln Z_i(kept),     q(rest | kept) = ∏_i q_i(x_i | kept)

which leaves half as much to learn and takes the noise of what is summed out of the training signal.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers
from vdsl.guides.densities import Circle, Family, Flip, Gaussian, Line, Sphere, States
from vdsl.guides.flow import Remainder
from vdsl.guides.monomials import (
    Feeling,
    Monomials,
    ProductSum,
    Species,
    build_energy,
    build_feeling,
    features_of,
    monomials_of,
)
from vdsl.guides.problem import Problem
from vdsl.guides.rays import Ray

_LINE_NODES = 48
_LONG = 2.0  # of a power of a length, beside its typical value


class Part(eqx.Module):
    """Decimated units of one species: what they feel, their density, and the rows (T, size) of their raw values."""

    feeling: Feeling
    family: Family
    variables: Array

    def eta(self, features: Array, beta: Array) -> Array:
        """Natural parameters; a sphere's have the coefficient of (ĥ·S)² besides, which is 0."""
        eta = -beta * self.feeling(features)
        return jnp.pad(eta, ((0, 0), (0, 1), (0, 0))) if isinstance(self.family, Sphere) else eta


class Decimated(eqx.Module):
    """Everything in terms of raw values (V, b) and their features; entries of decimated units are never read."""

    energy: ProductSum  # of the kept units among themselves
    parts: tuple[Part, ...]
    species: tuple[Species, ...] = eqx.field(static=True)

    def reduced_energy(self, values: Array, beta: Array) -> Array:
        """u(kept), shape (b,)."""
        features = features_of(self.species, values)
        u = beta * self.energy(features)
        for part in self.parts:
            u = u - jnp.sum(part.family.ln_z(part.eta(features, beta)), axis=0)
        return u

    def sample(self, key: Array, values: Array, beta: Array) -> tuple[Array, Array]:
        """The values with the decimated units drawn, and ln q of these."""
        features, log_q = features_of(self.species, values), jnp.zeros(values.shape[1], values.dtype)
        for part, part_key in zip(self.parts, jax.random.split(key, max(len(self.parts), 1)), strict=False):
            eta = part.eta(features, beta)
            drawn = part.family.sample(part_key, eta)
            log_q = log_q + jnp.sum(part.family.log_prob(eta, drawn), axis=0)
            values = values.at[part.variables].set(drawn)
        return values, log_q

    def log_prob(self, values: Array, beta: Array) -> Array:
        """ln q of the decimated units, given the others."""
        features, log_q = features_of(self.species, values), jnp.zeros(values.shape[1], values.dtype)
        for part in self.parts:
            log_q = log_q + jnp.sum(part.family.log_prob(part.eta(features, beta), values[part.variables]), axis=0)
        return log_q


class ChartRemainder(Remainder):
    """The same for flat coordinates (b, D) of a chart, which are the raw values."""

    decimated: Decimated

    def reduced_energy(self, x: Array, beta: Array) -> Array:
        return self.decimated.reduced_energy(x.T, beta)

    def sample(self, key: Array, x: Array, beta: Array) -> tuple[Array, Array]:
        values, log_q = self.decimated.sample(key, x.T, beta)
        return values.T, log_q

    def log_prob(self, x: Array, beta: Array) -> Array:
        return self.decimated.log_prob(x.T, beta)


def decimate(problem: Problem) -> tuple[np.ndarray, ChartRemainder] | None:
    """Which coordinates of the chart are kept, (D,) bool, and the exact rest; None where that leaves nothing exact.

    None for models without a chart, and where a term is no sum of products of functions of one variable.
    """
    if problem.chart is None or problem.expansion.opaque:
        return None
    monomials = monomials_of(problem.expansion)
    units = independent_units(monomials)
    if len(units) == 0:
        return None
    kept = np.ones(problem.chart.size, bool)
    for s, chosen in by_species(monomials, units):
        kept[s.block.first + (chosen - s.start)] = False
    return kept, ChartRemainder(build_decimated(monomials, units, 1 / problem.temperature))


def independent_units(monomials: Monomials) -> np.ndarray:
    """A large set of units, no two of which share a product, each with a normalisable exponential family."""
    able = monomials.linear_units() & _normalisable(monomials)
    neighbours: list[set[int]] = [set() for _ in range(monomials.n_units)]
    for i, j in monomials.edges().tolist():
        neighbours[i].add(j)
        neighbours[j].add(i)
    chosen = max((_greedy(neighbours, able), *_sides(neighbours, able)), key=len)
    return np.array(sorted(chosen), int)


def build_decimated(monomials: Monomials, units: np.ndarray, beta: float, sizes: np.ndarray | None = None) -> Decimated:
    """The exact rest: `units` given all others. sizes: see `strength`."""
    inside = np.ones(monomials.n_units, bool)
    inside[units] = False
    rank = (~inside).astype(int)
    parts = []
    for s, chosen in by_species(monomials, units):
        feeling = build_feeling(monomials, chosen, rank)
        family = family_of(s, strength(feeling, beta, sizes))
        parts.append(Part(feeling, family, integers(monomials.variables_of(chosen))))
    return Decimated(build_energy(monomials, inside), tuple(parts), monomials.species)


def by_species(monomials: Monomials, units: np.ndarray) -> list[tuple[Species, np.ndarray]]:
    """The units, sorted into species."""
    found = []
    for s in monomials.species:
        chosen = units[(units >= s.start) & (units < s.start + s.units)]
        if len(chosen):
            found.append((s, chosen))
    return found


def family_of(s: Species, strength: float) -> Family:
    """The density of a species; `strength`: the largest field (in units of T) that its tables must resolve."""
    match s.kind:
        case "real":
            return Gaussian() if s.features == 2 else Line(_LINE_NODES)
        case "radius":
            return Ray(_LINE_NODES)
        case "angle":
            wanted = 20 * np.sqrt(max(strength, 1e-9))  # three to a width of κ^−½, at least
            return Circle(int(2 ** np.clip(np.ceil(np.log2(wanted)), 5, 9)))  # a sweep in T compiles a few times only
        case "unit":
            return Sphere(s.block.components, 48)
        case "spin":
            return Flip()
        case _:
            return States()


def strength(feeling: Feeling, beta: float, sizes: np.ndarray | None = None) -> float:
    """The largest β Σ|coefficients| p² over the units: a bound on how strongly an angle can be held.

    sizes (R + 2,): of features that may be larger than 1.
    """
    fixed = np.abs(np.asarray(feeling.fixed, float))
    orders = np.arange(fixed.shape[1]) // 2 + 1
    total = fixed @ orders**2
    if feeling.active:
        weights = (np.array(feeling.active) // 2 + 1) ** 2
        each = np.abs(np.asarray(feeling.coefficients, float))
        if sizes is not None:
            each = each * sizes[np.asarray(feeling.rows)].prod(3)
        total = total + each.sum(2) @ weights / 2  # a cosine and a sine each
    return float(beta * total.max(initial=0.0))


def feature_sizes(monomials: Monomials, length: np.ndarray) -> np.ndarray:
    """(R + 2,) how large features may well be: 1, or powers of lengths that are typically `length` (n_units,)."""
    sizes = np.ones(monomials.n_rows + 2)
    for s in monomials.species:
        if s.kind == "radius":
            rows = s.row + np.arange(s.units * s.features)
            powers = length[s.start : s.start + s.units, None] ** np.arange(1, s.features + 1)
            sizes[rows] = _LONG * powers.reshape(-1)
    return sizes


def _normalisable(monomials: Monomials) -> np.ndarray:
    """(n_units,) whether the highest power of a real unit has a positive coefficient of its own and no other."""
    able = np.ones(monomials.n_units, bool)
    for s in monomials.species:
        if s.kind not in ("real", "radius"):
            continue
        top = s.row + np.arange(s.units) * s.features + s.features - 1
        own = np.zeros(s.units)
        clean = np.ones(s.units, bool)
        for rows, c in monomials.products:
            for slot in range(rows.shape[1]):
                hit = np.isin(rows[:, slot], top)
                unit = (rows[hit, slot] - s.row) // s.features
                if rows.shape[1] == 1:
                    own[unit] += c[hit]
                else:
                    clean[unit[c[hit] < 0]] = False
        able[s.start : s.start + s.units] = clean & (own > 0)
    return able


def _greedy(neighbours: Sequence[set[int]], able: np.ndarray) -> set[int]:
    """Units of few neighbours first."""
    chosen: set[int] = set()
    taken: set[int] = set()
    for v in sorted(np.flatnonzero(able).tolist(), key=lambda v: (len(neighbours[v]), v)):
        if v not in taken:
            chosen.add(v)
            taken |= neighbours[v]
    return chosen


def _sides(neighbours: Sequence[set[int]], able: np.ndarray) -> list[set[int]]:
    """The larger colour class of every component, if the graph is bipartite."""
    colour = np.full(len(neighbours), -1)
    chosen: set[int] = set()
    for start in range(len(neighbours)):
        if colour[start] >= 0:
            continue
        colour[start], stack = 0, [start]
        sides: tuple[set[int], set[int]] = {start}, set()
        while stack:
            v = stack.pop()
            for u in neighbours[v]:
                if colour[u] < 0:
                    colour[u] = 1 - colour[v]
                    sides[colour[u]].add(u)
                    stack.append(u)
                elif colour[u] == colour[v]:
                    return []
        chosen |= max(({v for v in side if able[v]} for side in sides), key=len)
    return [chosen]
