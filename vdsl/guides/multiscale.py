"""Multiscale: coarse sites first, then level by level those between them, each given all that is known nearby.

    q(x) = q(x_top) ∏_layers ∏_i q(x_i | window of i)

A periodic lattice is thinned again and again; the coarsest sites are drawn one after another, and every refinement adds
its new sites in two or more *layers* (colours), all sites of a layer at once. A conditional is that of `sequential`,

    ln q(x_i | window) = Σ_p (η_p^known + η_p^start + η_p^learned)(window) · x_i^p − ln Z,

with the model's own potential on the site, the regression of a Gaussian stand-in on the window, and a small network.
Sites of a layer are translations of each other: they have the same window and share one network. So there are few
numbers to learn, they mean the same on a lattice of any size, and the signal that teaches them is a sum over the
layer: its ratio to the score function's noise does not fall with the volume. Windows have the same number of sites at
every level, so that a sample costs O(volume). The finest layer of all, where the model allows it, is the exact
conditional of a decimated sublattice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers, reals
from vdsl.guides.conditionals import Components, Inputs
from vdsl.guides.decimation import Decimated, build_decimated, family_of, independent_units, strength
from vdsl.guides.gaussian import solve, structure_of
from vdsl.guides.guide import Configuration, Guide, GuideChoice, Params, Recipe
from vdsl.guides.latents import Codec, codec_of
from vdsl.guides.levels import Refinement, thin, window
from vdsl.guides.monomials import Monomials, build_feeling, features_of, monomials_of
from vdsl.guides.pairs import grid_coordinates
from vdsl.guides.parity import flip
from vdsl.guides.problem import Problem, cannot_serve
from vdsl.guides.sequential import Learned

_TOP = 16  # sites of the coarsest level, at most, if sides are even often enough
_MOST_TOP = 64
_HIDDEN = 32
_WINDOW, _REACH = 24, 6.0  # sites; in units of the distance of nearest sites
_FLOOR = 1e-3  # of the coefficient of the highest power, in units of the site's own length
_RECIPE = Recipe("score", learning_rate=4e-3, batch=256)


@dataclass(frozen=True, eq=False)
class Layer:
    """Sites drawn at once (T,), or in turn at the top; parents (T, P): sites, or their number where there is none.

    key: what the layer's network belongs to, (distance of nearest sites, displacements of the parents); () at the top.
    """

    sites: np.ndarray
    parents: np.ndarray
    key: tuple[Any, ...]


@dataclass(frozen=True)
class Structure:
    """What `build` needs again."""

    rest: np.ndarray
    layers: tuple[Layer, ...]
    hidden: int
    odd: bool


class Multiscale(Guide):
    """See the module. Latents are raw values (V, b), those of decimated sites 0. top: sites in turn, their own nets."""

    beta: Array
    top: Learned
    layers: tuple[Learned, ...]
    decimated: Decimated
    kept: Array  # (V, 1): 1 where values are latent
    codec: Codec = eqx.field(static=True)
    hints: Recipe = eqx.field(static=True)
    bytes_each: int = eqx.field(static=True)

    def recipe(self) -> Recipe:
        return self.hints

    def bytes_per_sample(self) -> int:
        return self.bytes_each

    def init(self, key: Array) -> Params:
        keys = jax.random.split(key, 1 + len(self.layers))
        layers = [part.net.init(k, part.inputs.at(integers([0]))) for part, k in zip(self.layers, keys[1:], strict=True)]
        return {"top": self.top.net.init(keys[0], self.top.inputs), "layers": layers}

    def draw_latent(self, params: Params, key: Array, n: int, scale: Array) -> tuple[Array, Array]:
        z = self.sample_latent(params, key, n, scale)
        return z, self.latent_log_prob(params, z, scale)

    def sample_latent(self, params: Params, key: Array, n: int, scale: Array) -> Array:
        beta = scale * self.beta
        values = jnp.zeros((self.kept.shape[0], n), self.kept.dtype)
        features = features_of(self.decimated.species, values)

        def in_turn(carry: tuple[Array, Array], inputs: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            number, k = inputs[0][None], inputs[1]
            eta = self.top.at(number).eta(jax.tree.map(lambda p: p[number], params["top"]), *carry[1:], beta)
            return _put(carry, self.top, number, self.top.family.sample(k, eta)), None

        keys = jax.random.split(key, 1 + len(self.layers))
        numbers = jnp.arange(self.top.variables.shape[0])
        state = jax.lax.scan(in_turn, (values, features), (numbers, jax.random.split(keys[0], len(numbers))))[0]
        for part, own, k in zip(self.layers, params["layers"], keys[1:], strict=True):
            drawn = part.family.sample(k, part.eta(own, state[1], beta))
            state = _put(state, part, slice(None), drawn)
        return state[0]

    def latent_log_prob(self, params: Params, z: Array, scale: Array) -> Array:
        beta = scale * self.beta
        features = features_of(self.decimated.species, z)
        parts = list(zip((self.top, *self.layers), (params["top"], *params["layers"]), strict=True))
        eta = jnp.concatenate([part.eta(own, features, beta) for part, own in parts])
        at = jnp.concatenate([part.variables for part, _ in parts])
        return self.top.family.log_prob(eta, z[at]).sum(0)  # of all at once: compiled once

    def latent_energy(self, z: Array, scale: Array) -> Array:
        return self.decimated.reduced_energy(z, scale * self.beta)

    def sample_and_log_prob(self, params: Params, key: Array, n: int) -> tuple[Configuration, Array]:
        key_z, key_rest = jax.random.split(key)
        z, log_q = self.draw_latent(params, key_z, n, jnp.ones(()))
        values, log_rest = self.decimated.sample(key_rest, z, self.beta)
        return self.codec.decode(values), log_q + log_rest

    def log_prob(self, params: Params, x: Configuration) -> Array:
        values = self.codec.encode(x)
        log_q = self.latent_log_prob(params, values * self.kept, jnp.ones(()))
        return log_q + self.decimated.log_prob(values, self.beta)


def _put(state: tuple[Array, Array], part: Learned, which: Any, drawn: Array) -> tuple[Array, Array]:
    """(values, features) with the sites of a layer drawn."""
    values, features = state
    encoded = part.species.encode(drawn)
    return values.at[part.variables[which]].set(drawn), features.at[part.rows[which]].set(encoded)


def choose_multiscale(problem: Problem) -> GuideChoice:
    """The levels. Raises VfeError `guide-cannot-serve` if the model is no real field on a periodic grid."""
    chart = problem.chart
    if chart is None or chart.channels != 1 or chart.periodic().any():
        raise cannot_serve(
            "multiscale", "it is for one real field on a lattice of one site per cell", "use `continuous`"
        )
    if problem.expansion.opaque:
        terms = ", ".join(f"`{name}`" for name, _ in problem.expansion.opaque)
        raise cannot_serve("multiscale", f"{terms} is no polynomial of the field", "use `continuous`")
    if structure_of(problem).band is not None:
        raise cannot_serve("multiscale", "it needs a periodic lattice and translations", "use `continuous`")
    monomials = monomials_of(problem.expansion)
    rest = independent_units(monomials)
    kept = np.setdiff1d(np.arange(chart.size), rest)
    cell = grid_coordinates(chart)[1]
    options = problem.options("multiscale")
    top, refinements = thin(cell, chart.cells, kept, options.get("coarsest", _TOP))
    if not refinements:
        rest, kept = rest[:0], np.arange(chart.size)
        top, refinements = thin(cell, chart.cells, kept, options.get("coarsest", _TOP))
    if not refinements or len(top) > _MOST_TOP:
        raise cannot_serve("multiscale", "its sides cannot be halved often enough", "use `autoregressive`")
    layers = [_top(top, chart.size)]
    for r in refinements:
        layers += _layers(cell, chart.cells, r, options.get("window", _WINDOW))
    hidden = options.get("hidden", _HIDDEN)
    odd = bool(flip(monomials))
    sizes = [len(top), *(len(r.new) for r in refinements)]
    reason = (
        f"coarse sites first, then {len(refinements)} refinements, each given what is known nearby, all sites of a "
        "layer by one network"
        + (f"; the last {len(rest)} sites are summed and sampled exactly" if len(rest) else "")
        + ": a sample costs a time proportional to the volume"
    )
    description = {
        "variables": len(kept),
        "sites by level": sizes,
        "layers": len(layers) - 1,
        "window": max(layer.parents.shape[1] for layer in layers[1:]),
        "hidden units": hidden,
        "symmetry built in": "sign flip" if odd else "none",
        "weights shared by": "translations, within a layer",
    }
    return GuideChoice("multiscale", reason, description, Structure(rest, tuple(layers), hidden, odd))


def build_multiscale(choice: GuideChoice, problem: Problem) -> Multiscale:
    """The guide at θ."""
    structure: Structure = choice.structure
    monomials, beta = monomials_of(problem.expansion), 1 / problem.temperature
    n = monomials.n_units
    rank = np.full(n, len(structure.layers))
    for number, layer in enumerate(structure.layers):
        rank[layer.sites] = number
    stand_in = _stand_in(problem, monomials, beta)
    top, *layers = (_learned(problem, monomials, structure, layer, rank, stand_in, beta) for layer in structure.layers)
    kept = np.ones((n, 1))
    kept[structure.rest] = 0
    width = sum(part.rows.size + part.inputs.scalars.size for part in (top, *layers))
    return Multiscale(
        beta=reals(beta),
        top=top,
        layers=tuple(layers),
        decimated=build_decimated(monomials, structure.rest, beta),
        kept=reals(kept),
        codec=codec_of(problem.program, monomials.species),
        hints=_RECIPE,
        bytes_each=4096 + 8 * width + 400 * n,
    )


def transfer(params: Params, fresh: Params, from_choice: GuideChoice, to_choice: GuideChoice) -> Params:
    """Networks of a small periodic lattice as a start on a larger one: layer by layer, parent by parent.

    Layers correspond by the distance of their sites, the finest to the finest, parents by their displacement; what only
    the larger lattice has starts afresh. Raises ValueError for different structures.
    """
    old, new = from_choice.structure, to_choice.structure
    if (old.odd, old.hidden) != (new.odd, new.hidden):
        raise ValueError("the two guides differ in more than the size of a periodic lattice")
    known = {layer.key[0]: (layer.key[1], own) for layer, own in zip(old.layers[1:], params["layers"], strict=True)}
    layers = []
    for layer, own in zip(new.layers[1:], fresh["layers"], strict=True):
        name, moves = layer.key
        layers.append(_carried(own, known[name][1], known[name][0], moves) if name in known else own)
    return {**fresh, "layers": layers}


# --- private ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _StandIn:
    """A Gaussian in the place of the model: mean, covariance by displacement (*cells), and what it has on a site.

    On a site it has e^{−a(x − μ)²/2 − g(x − μ)}, which stands for the model's own potential there.
    """

    mean: float
    covariance: np.ndarray
    curvature: float
    slope: float


def _stand_in(problem: Problem, monomials: Monomials, beta: float) -> _StandIn:
    optimum = solve(problem, structure_of(problem))
    covariance = np.fft.ifftn(1 / optimum.precision[..., 0, 0].real).real
    mean, variance = float(optimum.mean[0]), float(covariance.flat[0])
    powers = np.zeros(monomials.species[0].features + 1)  # of βV
    for rows, c in monomials.products:
        if rows.shape[1] == 1:
            first = rows[:, 0] < monomials.species[0].features
            np.add.at(powers, rows[first, 0] + 1, beta * c[first])
    x, w = np.polynomial.hermite_e.hermegauss(32)
    at, w = mean + np.sqrt(variance) * x, w / w.sum()
    potential = np.polynomial.Polynomial(powers)
    return _StandIn(mean, covariance, float(w @ potential.deriv(2)(at)), float(w @ potential.deriv(1)(at)))


def _top(sites: np.ndarray, missing: int) -> Layer:
    parents = np.full((len(sites), max(len(sites) - 1, 1)), missing)
    for k in range(len(sites)):
        parents[k, :k] = sites[:k]
    return Layer(sites, parents, ())


def _layers(cell: np.ndarray, sides: tuple[int, ...], r: Refinement, most: int) -> list[Layer]:
    found = []
    for c in range(int(r.colour.max()) + 1):
        mine, known = r.new[r.colour == c], np.concatenate([r.coarse, r.new[r.colour < c]])
        near = window(cell, sides, mine, known, _REACH * r.spacing, most)
        parents = np.append(known, len(cell))[near.places]
        moves = tuple(tuple(int(m) for m in move) for move in near.moves)
        found.append(Layer(mine, parents, ((r.spacing, c), moves)))
    return found


def _learned(
    problem: Problem,
    monomials: Monomials,
    structure: Structure,
    layer: Layer,
    rank: np.ndarray,
    stand_in: _StandIn,
    beta: float,
) -> Learned:
    """The sites of a layer; everything but their windows has a leading 1 where they share one network."""
    s, chart = monomials.species[0], problem.chart
    n, sides, cell = monomials.n_units, np.array(chart.cells), grid_coordinates(chart)[1]
    if not layer.key:
        rank = rank.copy()
        rank[layer.sites] = np.arange(len(layer.sites)) - len(layer.sites)
    feeling = build_feeling(monomials, layer.sites, rank)
    size = s.features
    each = range(1 if layer.key else len(layer.sites))
    weights, shift = np.zeros((len(each), layer.parents.shape[1])), np.zeros((len(each), size))
    length = float(np.sqrt(stand_in.covariance.flat[0]))
    for k in each:
        there = np.flatnonzero(layer.parents[k] < n)
        at = cell[layer.parents[k, there]]
        own = cell[layer.sites[k]]
        between = stand_in.covariance[tuple(np.moveaxis((at[:, None] - at[None]) % sides, -1, 0))]
        towards = stand_in.covariance[tuple(((at - own) % sides).T)]
        regression = np.linalg.solve(between, towards)
        precision = 1 / (stand_in.covariance.flat[0] - regression @ towards)
        weights[k, there] = precision * regression - _direct(monomials, layer.sites[k], layer.parents[k, there], beta)
        shift[k, 0] = (
            precision * stand_in.mean * (1 - regression.sum()) - stand_in.curvature * stand_in.mean + stand_in.slope
        )
        shift[k, 1] = (stand_in.curvature - precision) / 2
    rows = np.where(layer.parents < n, s.row + layer.parents * s.features, monomials.n_rows + 1)
    unit = length ** -np.arange(1.0, size + 1)
    many = np.ones((len(each), 1))
    inputs = Inputs(
        scalars=integers(rows),
        scale=reals(length * np.ones((len(each), rows.shape[1]))),
        odd=reals(float(structure.odd) * np.ones((len(each), rows.shape[1]))),
        scalar_weights=reals(weights * length * length),
        vectors=integers(np.full((len(rows), 1, 0), monomials.n_rows + 1)),
        vector_weights=reals(np.zeros((len(each), 0))),
        awake=reals(np.ones(len(each))),
    )
    parity = tuple(structure.odd and f % 2 == 0 for f in range(size))
    return Learned(
        feeling=feeling,
        family=family_of(s, max(strength(feeling, beta), 1.0)),
        net=Components(structure.hidden, parity, 1, rows.shape[1], structure.odd, not structure.odd),
        inputs=inputs,
        shift=reals(shift),
        unit=reals(many * unit),
        floor=reals(-_FLOOR * unit[-1] * many[:, 0]),
        variables=integers(layer.sites[:, None]),
        rows=integers(monomials.rows_of(layer.sites)),
        levels=integers(np.zeros((0, 1))),
        free=reals(np.ones(len(layer.sites))),
        species=s,
    )


def _direct(monomials: Monomials, site: int, parents: np.ndarray, beta: float) -> np.ndarray:
    """−β times the coefficients of x_site · x_parent: what is known of them already."""
    s = monomials.species[0]
    out = np.zeros(monomials.n_units)
    for rows, c in monomials.products:
        if rows.shape[1] == 2:
            plain = (rows - s.row) % s.features == 0
            unit = (rows - s.row) // s.features
            for a, b in ((0, 1), (1, 0)):
                chosen = plain.all(1) & (unit[:, a] == site)
                np.add.at(out, unit[chosen, b], -beta * c[chosen])
    return out[parents]


def _carried(fresh: Params, own: Params, had: Sequence[tuple[int, ...]], moves: Sequence[tuple[int, ...]]) -> Params:
    """A layer's network with the columns of its parents sorted anew."""
    place = {move: k for k, move in enumerate(had)}
    pairs = [(k, place[move]) for k, move in enumerate(moves) if move in place]
    to, source = integers([k for k, _ in pairs]), integers([k for _, k in pairs])
    out = dict(own)
    for name in ("skip", "odd", "even"):
        if name in own:
            out[name] = fresh[name].at[..., to].set(own[name][..., source])
    return out
