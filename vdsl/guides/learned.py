"""What is learned by the autoregressive guide: the kept units of one species, what they see and their parameters.

Natural parameters are what is known of a unit's field, what a start says of what is still unknown, and what a small
network adds (sequential.py has the formula, conditionals.py the networks). Units of one species are stacked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides import mesh
from vdsl.guides.arrays import integers, reals
from vdsl.guides.cavity import Start, pair_couplings
from vdsl.guides.conditionals import Components, Conditional, Inputs, Pointing, Turning, Waves
from vdsl.guides.decimation import family_of, feature_sizes, strength
from vdsl.guides.densities import Family
from vdsl.guides.frames import Phase
from vdsl.guides.guide import Params
from vdsl.guides.monomials import Feeling, Monomials, Species, build_feeling
from vdsl.guides.parity import mirrored
from vdsl.ir.pinning import Pins

_STEP_COST = 2.0  # of a step of sampling beside its units, in units
_TOUCHING = 1e-9  # of units that share products: closer than any that share none and have no weight
_NEAR = 32  # parent features that networks see; the linear part sees all of them
FLOOR = 1e-3  # of the coefficient of the highest power, in units of the unit's own length


class Learned(eqx.Module):
    """The kept units of one species, T of them. shift (T, F): the start's part of η; unit (T, F): of learned η.

    variables (T, size) and rows (T, F): where raw values and features live; levels (steps, W) padded with T.
    floor (T,): what keeps the coefficient of the highest power of reals negative. free (T,): 0 for anchors of frames.
    networks: which network each unit has (T,) and the first unit of each (N,), where units share them; None: its own.
    """

    feeling: Feeling
    family: Family
    net: Conditional
    inputs: Inputs
    shift: Array
    unit: Array
    floor: Array
    variables: Array
    rows: Array
    levels: Array
    free: Array
    networks: tuple[Array, Array] | None
    species: Species = eqx.field(static=True)

    def init(self, key: Array) -> Params:
        """Fresh parameters, stacked over networks."""
        if self.networks is None:
            return self.net.init(key, self.inputs)
        return self.net.init(key, self.inputs.at(self.networks[1]))

    def of_units(self, params: Params, index: Array | None = None) -> Params:
        """The parameters of all units, or of some: (T, …)."""
        if self.networks is not None:
            index = self.networks[0] if index is None else self.networks[0][index]
        return params if index is None else jax.tree.map(lambda p: p[index], params)

    def eta(self, params: Params, features: Array, beta: Array) -> Array:
        """Natural parameters (T, F, b)."""
        known = -beta * self.feeling(features)
        known = jnp.pad(known, ((0, 0), (0, self.shift.shape[1] - known.shape[1]), (0, 0))) + self.shift[..., None]
        learned = self.net.learned(params, self.inputs, features, known)
        if self.species.kind not in ("real", "radius"):
            return known + learned
        top = jnp.minimum(known[:, -1], self.floor[:, None]) * jnp.exp(2 * jnp.tanh(learned[:, -1] / 2))
        return jnp.concatenate([known[:, :-1] + learned[:, :-1] * self.unit[:, :-1, None], top[:, None]], axis=1)

    def at(self, index: Array) -> Learned:
        """Some of the units."""
        where = lambda s: (s.feeling, s.inputs, s.shift, s.unit, s.floor)  # noqa: E731
        parts = self.feeling.at(index), self.inputs.at(index), self.shift[index], self.unit[index], self.floor[index]
        return eqx.tree_at(where, self, parts)


@dataclass(frozen=True)
class Structure:
    """What `choose_sequential` found: the decimated units, the kept ones in order, their parents and levels."""

    rest: np.ndarray
    order: np.ndarray
    parents: tuple[np.ndarray, ...]
    level: np.ndarray
    hidden: int
    phases: tuple[Phase, ...] = ()
    anchors: tuple[np.ndarray, ...] = ()
    pins: Pins | None = None
    polar: tuple[str, ...] = ()
    waves: Mapping[int, tuple[mesh.Place, ...]] | None = None


def build_learned(
    monomials: Monomials,
    structure: Structure,
    start: Start,
    fields: Mapping[int, mesh.Field],
    beta: float,
    rank: np.ndarray,
    positions: np.ndarray,
    steps: np.ndarray,
    changes: bool,
    odd: frozenset[int],
) -> Learned:
    """The units at these positions of the order, all of one species; `changes`: whether the flip changes its sign."""
    units = structure.order[positions]
    s = monomials.species_of(int(units[0]))
    feeling = build_feeling(monomials, units, rank)
    family = family_of(s, max(strength(feeling, beta, feature_sizes(monomials, start.length)), 1.0))
    parents = [structure.order[structure.parents[p]] for p in positions]
    inputs = _inputs(monomials, s, units, parents, start, pair_couplings(monomials, beta), feeling, odd)
    size = s.features + 1 if s.kind == "unit" else s.features
    shift, unit, floor = np.zeros((len(units), size)), np.ones((len(units), size)), np.zeros(len(units))
    if s.kind == "real":
        shift[:, 0] = start.linear[units]
        shift[:, 1] = -0.5 * start.precision[units]
    if s.kind in ("real", "radius"):
        unit = start.length[units][:, None] ** -np.arange(1.0, size + 1)
        floor = -FLOOR * unit[:, -1]
    if structure.waves is not None and s.kind in ("angle", "radius"):
        inputs = replace(inputs, waves=_build_waves(monomials, units, structure.waves, fields, unit))
    near = min(inputs.scalars.shape[1], _NEAR)
    used = np.asarray(inputs.scalars) < monomials.n_rows
    changing, staying = (bool((used & (np.asarray(inputs.odd) == o))[:, :near].any()) for o in (1, 0))
    net: Conditional
    match s.kind:
        case "angle":
            net = Turning(structure.hidden, _NEAR // 2, mirrored(monomials))
        case "unit":
            net = Pointing(structure.hidden)
        case "real":
            parity = tuple(changes and f % 2 == 0 for f in range(size))
            net = Components(structure.hidden, parity, 1, near, changing, staying)
        case "spin":
            net = Components(structure.hidden, (changes,), 1, near, changing, staying)
        case _:
            net = Components(structure.hidden, (False,) * size, size, near, changing, staying)
    return Learned(
        feeling=feeling,
        family=family,
        net=net,
        inputs=inputs,
        shift=reals(shift),
        unit=reals(unit),
        floor=reals(floor),
        variables=integers(monomials.variables_of(units)),
        rows=integers(monomials.rows_of(units)),
        levels=integers(steps),
        free=reals(~np.isin(units, np.concatenate([*structure.anchors, np.zeros(0, int)]))),
        networks=None,
        species=s,
    )


def steps_of(level: np.ndarray, groups: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each group of positions: (steps, W), numbers within the group, padded with its size.

    Units of a level may be drawn in several steps: levels are wide at the end and one unit wide at the beginning, and
    padding costs as much as units do. The widest step is the one for which all steps together cost least.
    """
    depth = int(level.max(initial=-1)) + 1
    counts = np.array([np.bincount(level[g], minlength=depth) for g in groups])

    def cost(width: int) -> float:
        per_level = -(-counts // width)
        wide = np.minimum(counts.max(1), width).sum()
        return float(per_level.max(0).sum() * (wide + _STEP_COST))

    width = min(range(1, int(counts.max()) + 1), key=cost)
    steps = (-(-counts // width)).max(0)
    out = []
    for g, count in zip(groups, counts, strict=True):
        rows = np.full((int(steps.sum()), min(width, int(count.max()))), len(g))
        for d in range(depth):
            members = np.flatnonzero(level[g] == d)
            for k, part in enumerate(np.array_split(members, steps[d]) if len(members) else ()):
                rows[steps[:d].sum() + k, : len(part)] = part
        out.append(rows)
    return out


def _inputs(
    monomials: Monomials,
    s: Species,
    units: np.ndarray,
    parents: list[np.ndarray],
    start: Start,
    direct: np.ndarray,
    feeling: Feeling,
    odd: frozenset[int],
) -> Inputs:
    """Parents of the same directional kind as vectors, all others as scalars; those of the largest weights first."""
    n = s.seen
    directional = s.kind in ("angle", "unit")
    scalars, scales, signs, weights, vectors, pulls = [], [], [], [], [], []
    numbers = {t.start: k for k, t in enumerate(monomials.species)}
    mirror = mirrored(monomials)
    closeness = np.abs(start.weights)
    closeness[tuple(monomials.edges().T)] += _TOUCHING
    closeness = np.maximum(closeness, closeness.T)
    for unit, above in zip(units, parents, strict=True):
        rows, scale, sign, weight = [], [], [], []
        vector, pull = [], []
        nearest = above[np.argsort(-closeness[unit, above], kind="stable")]
        for v in nearest.tolist():
            t = monomials.species_of(v)
            seen = monomials.rows_of(np.array([v]), seen=True)[0]
            gap = start.weights[unit, v] - direct[unit, v]
            if directional and t.kind == s.kind and t.seen == n:
                vector.append(seen)
                pull.append(gap)
                continue
            rows += seen.tolist()
            scale += [start.length[v] if t.kind in ("real", "radius") else 1.0] * len(seen)
            if t.kind == "angle":
                sign += [0.0, float(mirror)]
            else:
                sign += [float(numbers[t.start] in odd)] * len(seen)
            weight += [gap * start.length[v] if len(seen) == 1 and s.kind in ("real", "spin") else 0.0] * len(seen)
        scalars.append(rows)
        scales.append(scale)
        signs.append(sign)
        weights.append(weight)
        vectors.append(np.array(vector, int).reshape(-1, n).T)
        pulls.append(pull)
    own = start.length[units][:, None] if s.kind == "real" else 1.0
    zero = monomials.n_rows + 1
    most = max(v.shape[1] for v in vectors)
    stacked = np.full((len(units), n, most), zero)
    for k, v in enumerate(vectors):
        stacked[k, :, : v.shape[1]] = v
    awake = np.array([len(p) > 0 for p in parents]) | (np.abs(np.asarray(feeling.fixed)).sum(1) > 0)
    return Inputs(
        scalars=integers(_rectangle(scalars, zero)),
        scale=reals(_rectangle(scales, 1.0)),
        odd=reals(_rectangle(signs, 0.0)),
        scalar_weights=reals(_rectangle(weights, 0.0) * own),
        vectors=integers(stacked),
        vector_weights=reals(_rectangle(pulls, 0.0)),
        awake=reals(awake),
    )


def _build_waves(
    monomials: Monomials,
    units: np.ndarray,
    waves: Mapping[int, tuple[mesh.Place, ...]],
    fields: Mapping[int, mesh.Field],
    unit: np.ndarray,
) -> Waves:
    """The waves that act on units of one species as arrays; factors of 1 and waves of weight 0 fill them up.

    unit (T, F): of what is learned.
    """
    factors = [[_factors(monomials, m) for m, _ in waves[u]] for u in units.tolist()]
    s = monomials.species_of(int(units[0]))
    most = (
        max([len(f) for own in factors for f, _ in own] + [1]),
        max([len(f) for own in factors for _, f in own] + [0]),
    )
    shape = len(units), max(map(len, factors))
    rows, signs = np.full((*shape, most[0]), monomials.n_rows), np.ones((*shape, most[0]))
    sizes = np.full((*shape, most[1]), monomials.n_rows)
    weights = np.zeros((shape[0], 2 if s.kind == "angle" else s.features, shape[1]))
    for k, u in enumerate(units.tolist()):
        strengths = {w.place: w.strength for w in fields[u]}
        for c, place in enumerate(waves[u]):
            strength = strengths.get(place, 0j)
            if s.kind == "angle":
                weights[k, :, c] = strength.real, strength.imag
            else:
                weights[k, place[1] - 1, c] = strength.real / unit[k, place[1] - 1]
            turns, powers = factors[k][c]
            for a, (row, sign) in enumerate(turns):
                rows[k, c, a], signs[k, c, a] = row, sign
            sizes[k, c, : len(powers)] = powers
    return Waves(integers(rows), reals(signs), integers(sizes), reals(weights))


def _factors(monomials: Monomials, m: mesh.Combination) -> tuple[list[tuple[int, float]], list[int]]:
    """The rows of a wave's cosines with the signs of its harmonics, and those of its powers of lengths."""
    turns, powers = [], []
    for v, p in m:
        s = monomials.species_of(v)
        row = int(monomials.rows_of(np.array([v]))[0, 0])
        if s.kind == "angle":
            turns += [(row, float(np.sign(p)))] * abs(p)
        else:
            powers += [row + s.features - 1] * (p // s.features)
            powers += [row + p % s.features - 1] if p % s.features else []
    return turns, powers


def _rectangle(rows: list[list], fill: float) -> np.ndarray:
    out = np.full((len(rows), max(map(len, rows))), fill)
    for k, row in enumerate(rows):
        out[k, : len(row)] = row
    return out
