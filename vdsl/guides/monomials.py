"""Monomials: an expansion as arrays, from the values of all variables to what each unit feels and to the energy.

A *unit* is what is drawn at once: a real number, an angle, a unit vector, a spin or a state. Its *features* are real
numbers in which the energy is linear as far as that unit is concerned:

| kind   | features of one unit                                       |
|--------|------------------------------------------------------------|
| real   | x, x², …, x^P                                              |
| radius | r, r², …, r^P                                              |
| angle  | cos θ, sin θ, cos 2θ, sin 2θ, …                            |
| unit   | its components                                             |
| spin   | s                                                          |
| states | 1 if the state is p else 0, for every p                    |

so that e^{−βE}, as a function of one unit with its others fixed, is exp(Σ_f η_f · feature_f): an exponential family
whose natural parameters η are sums of products of other units' features. Features of all units are the rows of one
array (R, b); complex exponentials of angles are multiplied out into cosines and sines.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers, reals
from vdsl.ir.expansion import Block, Expansion

_HARMONICS = 2  # of angles: guides learn at least so many


@dataclass(frozen=True)
class Species:
    """The units of one block. Units are numbered `start` …, their feature rows are `row` + unit·features + feature."""

    block: Block
    start: int
    units: int
    features: int
    row: int

    @property
    def kind(self) -> str:
        """As in `vdsl.ir.expansion`."""
        return self.block.kind

    @property
    def size(self) -> int:
        """Variables of a unit."""
        return self.block.components if self.kind == "unit" else 1

    @property
    def seen(self) -> int:
        """How many of its features show other units all there is: x, (cos θ, sin θ), S, s, every state."""
        return {"real": 1, "radius": 1, "angle": 2, "unit": self.block.components, "spin": 1}.get(
            self.kind, self.block.states
        )

    def encode(self, values: Array) -> Array:
        """Features (…, F, b) of values (…, size, b)."""
        match self.kind:
            case "real" | "radius":
                return jnp.concatenate([values**p for p in range(1, self.features + 1)], axis=-2)
            case "angle":
                turns = [p * values for p in range(1, self.features // 2 + 1)]
                return jnp.concatenate([g(a) for a in turns for g in (jnp.cos, jnp.sin)], axis=-2)
            case "states":
                return (values == jnp.arange(self.block.states, dtype=values.dtype)[:, None]).astype(values.dtype)
        return values


@dataclass(frozen=True)
class Monomials:
    """An expansion in features: energy = constant + Σ coefficients · ∏ features[rows], grouped by how many rows.

    products: (rows (m, k), coefficients (m,)) with rows increasing; energies, not divided by T.
    """

    species: tuple[Species, ...]
    products: tuple[tuple[np.ndarray, np.ndarray], ...]
    constant: float

    @property
    def n_units(self) -> int:
        """All units."""
        return sum(s.units for s in self.species)

    @property
    def n_rows(self) -> int:
        """Rows of the features; row n_rows holds ones and row n_rows + 1 zeros."""
        return sum(s.units * s.features for s in self.species)

    @property
    def n_variables(self) -> int:
        """Rows of the raw values."""
        return sum(s.units * s.size for s in self.species)

    def unit_of_row(self) -> np.ndarray:
        """(R,)."""
        return np.concatenate([s.start + np.repeat(np.arange(s.units), s.features) for s in self.species])

    def rows_of(self, units: np.ndarray, seen: bool = False) -> np.ndarray:
        """Feature rows (m, F) of units of one species, or only of what others see of them."""
        s = self.species_of(int(units[0]))
        return s.row + (units[:, None] - s.start) * s.features + np.arange(s.seen if seen else s.features)

    def variables_of(self, units: np.ndarray) -> np.ndarray:
        """Rows (m, size) of the raw values of units of one species."""
        s = self.species_of(int(units[0]))
        return s.block.first + (units[:, None] - s.start) * s.size + np.arange(s.size)

    def species_of(self, unit: int) -> Species:
        """Whose unit it is."""
        return next(s for s in self.species if s.start <= unit < s.start + s.units)

    def edges(self) -> np.ndarray:
        """Pairs (m, 2) of units that share a product, i < j, each once."""
        unit = self.unit_of_row()
        found = [np.zeros((0, 2), int)]
        for rows, _ in self.products:
            found += [np.sort(unit[rows[:, pair]], 1) for pair in itertools.combinations(range(rows.shape[1]), 2)]
        pairs = np.concatenate(found)
        return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)

    def linear_units(self) -> np.ndarray:
        """(n_units,) whether the energy is linear in each unit's features: two components of one vector are not."""
        unit = self.unit_of_row()
        linear = np.ones(self.n_units, bool)
        for rows, _ in self.products:
            owners = np.sort(unit[rows], 1)
            linear[owners[:, 1:][owners[:, 1:] == owners[:, :-1]]] = False
        return linear


def monomials_of(expansion: Expansion) -> Monomials:
    """The expansion in real features. Powers of a unit vector's component above 1 become products with itself."""
    species = _species(expansion)
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    block_of = np.concatenate([np.full(b.elements * b.components, k) for k, b in enumerate(expansion.blocks)])
    for group in expansion.groups:
        kinds = block_of[group.scopes]
        for signature in np.unique(kinds, axis=0):
            chosen = (kinds == signature).all(1)
            parts = [species[k] for k in signature]
            for rows, c in _multiplied(parts, group.exponents, group.scopes[chosen], group.coefficients[chosen]):
                found.setdefault(rows.shape[1], []).append((np.sort(rows, axis=1), c))
    merged = [_merged(np.concatenate([r for r, _ in p]), np.concatenate([c for _, c in p])) for p in found.values()]
    return Monomials(species, tuple(merged), expansion.constant)


def _species(expansion: Expansion) -> tuple[Species, ...]:
    highest = [1] * len(expansion.blocks)
    first = np.array([b.first for b in expansion.blocks])
    for group in expansion.groups:
        for slot, p in enumerate(group.exponents):
            for k in np.unique(np.searchsorted(first, group.scopes[:, slot], side="right") - 1):
                highest[k] = max(highest[k], abs(p))
    out, start, row = [], 0, 0
    for b, most in zip(expansion.blocks, highest, strict=True):
        match b.kind:
            case "real" | "radius":
                units, features = b.elements * b.components, most + most % 2
            case "angle":
                units, features = b.elements * b.components, 2 * max(most, _HARMONICS)
            case "unit":
                units, features = b.elements, b.components
            case "spin":
                units, features = b.elements * b.components, 1
            case _:
                units, features = b.elements * b.components, b.states
        out.append(Species(b, start, units, features, row))
        start, row = start + units, row + units * features
    return tuple(out)


def _multiplied(
    parts: Sequence[Species], exponents: Sequence[int], scopes: np.ndarray, coefficients: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Products of features whose sum is Re Σ coefficients · ∏ g(x; p)."""
    choices: list[list[tuple[np.ndarray, complex]]] = []  # for each slot: (rows (m, r), factor)
    for slot, (s, p) in enumerate(zip(parts, exponents, strict=True)):
        variable = scopes[:, slot] - s.block.first
        match s.kind:
            case "angle":
                row = s.row + variable * s.features + 2 * (abs(p) - 1)
                choices.append([(row[:, None], 1.0), (row[:, None] + 1, 1j * np.sign(p))])
            case "unit":
                choices.append([(np.repeat((s.row + variable)[:, None], p, 1), 1.0)])
            case "states":
                choices.append([((s.row + variable * s.features + p)[:, None], 1.0)])
            case _:
                choices.append([((s.row + variable * s.features + p - 1)[:, None], 1.0)])
    out = []
    for combination in itertools.product(*choices):
        c = np.real(coefficients * np.prod([factor for _, factor in combination]))
        if np.any(c != 0):
            out.append((np.concatenate([rows for rows, _ in combination], 1)[c != 0], c[c != 0]))
    return out


def _merged(rows: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    unique, inverse = np.unique(rows, axis=0, return_inverse=True)
    return unique, np.bincount(inverse.reshape(-1), c, len(unique))


def features_of(species: Sequence[Species], values: Array) -> Array:
    """Features (R + 2, b) of raw values (V, b); the last two rows are ones and zeros."""
    batch, parts, first = values.shape[1], [], 0
    for s in species:
        count = s.units * s.size
        parts.append(s.encode(values[first : first + count].reshape(s.units, s.size, batch)).reshape(-1, batch))
        first += count
    ends = jnp.stack([jnp.ones(batch, values.dtype), jnp.zeros(batch, values.dtype)])
    return jnp.concatenate([*parts, ends])


class ProductSum(eqx.Module):
    """constant + Σ c ∏ features[rows]."""

    rows: tuple[Array, ...]
    coefficients: tuple[Array, ...]
    constant: Array

    def __call__(self, features: Array) -> Array:
        """(b,) of features (R + 2, b)."""
        total = jnp.full(features.shape[1], self.constant)
        for rows, c in zip(self.rows, self.coefficients, strict=True):
            product = features[rows[:, 0]]
            for k in range(1, rows.shape[1]):
                product = product * features[rows[:, k]]
            total = total + c @ product
        return total


class Feeling(eqx.Module):
    """What T units of one species feel: ∂E/∂feature, (T, F, b) = fixed + Σ_c coefficient_c ∏_m features[rows_cm].

    fixed (T, F); rows (T, A, C, M) and coefficients (T, A, C) for the `active` features only. Padding: coefficient 0.
    """

    fixed: Array
    rows: Array
    coefficients: Array
    active: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, features: Array) -> Array:
        """(T, F, b)."""
        out = jnp.broadcast_to(self.fixed[..., None], (*self.fixed.shape, features.shape[1]))
        if not self.active:
            return out
        product = features[self.rows[..., 0]]
        for m in range(1, self.rows.shape[-1]):
            product = product * features[self.rows[..., m]]
        return out.at[:, np.array(self.active)].add(jnp.sum(self.coefficients[..., None] * product, axis=2))

    def at(self, index: Array) -> Feeling:
        """Of some of the units."""
        return Feeling(self.fixed[index], self.rows[index], self.coefficients[index], self.active)


def build_energy(monomials: Monomials, inside: np.ndarray) -> ProductSum:
    """The energy of the products all of whose units are `inside` (n_units,) bool."""
    unit = monomials.unit_of_row()
    kept = [(rows, c, inside[unit[rows]].all(1)) for rows, c in monomials.products]
    chosen = [(rows[yes], c[yes]) for rows, c, yes in kept if yes.any()]
    return ProductSum(
        tuple(integers(rows) for rows, _ in chosen), tuple(reals(c) for _, c in chosen), reals(monomials.constant)
    )


def build_feeling(monomials: Monomials, units: np.ndarray, rank: np.ndarray) -> Feeling:
    """What units of one species feel of those of lower rank: every product whose highest rank is theirs, alone.

    Products in which a unit meets itself are left out. `rank` (n_units,).
    """
    s = monomials.species_of(int(units[0]))
    owner = monomials.unit_of_row()
    place = np.full(monomials.n_units, -1)
    place[units] = np.arange(len(units))
    fixed = np.zeros((len(units), s.features))
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # target·F + feature, others' rows, coefficients
    for rows, c in monomials.products:
        ranks = rank[owner[rows]]
        last = np.argmax(ranks, axis=1)
        alone = (ranks == ranks.max(1, keepdims=True)).sum(1) == 1
        each = np.arange(len(rows))
        target = place[owner[rows[each, last]]]
        chosen = alone & (target >= 0)
        slot = target[chosen] * s.features + (rows[each, last][chosen] - s.row) % s.features
        if rows.shape[1] == 1:
            np.add.at(fixed.reshape(-1), slot, c[chosen])
        elif chosen.any():
            others = rows[chosen][np.arange(rows.shape[1]) != last[chosen][:, None]]
            entries.append((slot, others.reshape(-1, rows.shape[1] - 1), c[chosen]))
    return _padded(fixed, entries, monomials.n_rows)


def _padded(fixed: np.ndarray, entries: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], ones: int) -> Feeling:
    targets, features = fixed.shape
    slots = np.concatenate([e[0] for e in entries]) if entries else np.zeros(0, int)
    active = np.unique(slots % features)
    most = max((e[1].shape[1] for e in entries), default=0)
    rank_of = np.searchsorted(active, slots % features)
    key = slots // features * len(active) + rank_of
    order = np.argsort(key, kind="stable")
    count = np.bincount(key, minlength=targets * len(active)) if len(active) else np.zeros(0, int)
    width = int(count.max(initial=0))
    rows = np.full((targets * len(active), width, most), ones)
    coefficients = np.zeros((targets * len(active), width))
    if len(active):
        others = np.concatenate(
            [np.pad(e[1], [(0, 0), (0, most - e[1].shape[1])], constant_values=ones) for e in entries]
        )
        where = np.arange(len(key)) - np.repeat(np.cumsum(count) - count, count)
        rows[key[order], where] = others[order]
        coefficients[key[order], where] = np.concatenate([e[2] for e in entries])[order]
    shape = (targets, len(active), width)
    return Feeling(
        reals(fixed),
        integers(rows.reshape(*shape, most)),
        reals(coefficients.reshape(shape)),
        tuple(int(a) for a in active),
    )
