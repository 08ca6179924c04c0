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

from dataclasses import dataclass

import numpy as np

from vdsl.guides.arrays import integers, reals
from vdsl.guides.cavity import uniform_cavity
from vdsl.guides.conditionals import Components, Inputs
from vdsl.guides.decimation import build_decimated, family_of, independent_units, strength
from vdsl.guides.gaussian import check_real, structure_of
from vdsl.guides.guide import GuideChoice, Params, Recipe
from vdsl.guides.latents import codec_of
from vdsl.guides.learned import FLOOR, Learned, steps_of
from vdsl.guides.levels import Refinement, thin, window
from vdsl.guides.monomials import Monomials, build_feeling, monomials_of
from vdsl.guides.pairs import grid_coordinates
from vdsl.guides.parity import flip
from vdsl.guides.problem import Problem, cannot_serve
from vdsl.guides.sequential import Sequential

_TOP = 16  # sites of the coarsest level, at most, if sides are even often enough
_MOST_TOP = 64
_HIDDEN = 32
_WINDOW, _REACH = 24, 6.0  # sites; in units of the distance of nearest sites
_BY_PARENT = ("skip", "odd", "even")  # weights with a column for each parent
# L = 16, 430 steps, stages before: ESS .915 at .004, .936 at .008, .927 at .016
_RECIPE = Recipe("score", learning_rate=8e-3, batch=256)


@dataclass(frozen=True, eq=False)
class Layer:
    """Sites that share a network (T,), drawn at once; parents (T, P): sites, or their number where there is none.

    key: what the network belongs to, (distance of nearest sites, colour), and the displacements of the parents (P);
    () and () at the top.
    """

    sites: np.ndarray
    parents: np.ndarray
    key: tuple[float, ...] = ()
    moves: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Structure:
    """What `build` needs again."""

    rest: np.ndarray
    layers: tuple[Layer, ...]
    hidden: int
    odd: bool


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
    layers = _top(top, chart.size)
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
        "networks": len(layers),
        "window": max(len(layer.moves) for layer in layers),
        "hidden units": hidden,
        "symmetry built in": "sign flip" if odd else "none",
        "weights shared by": "translations, within a layer",
    }
    return GuideChoice("multiscale", reason, description, Structure(rest, tuple(layers), hidden, odd))


def build_multiscale(choice: GuideChoice, problem: Problem) -> Sequential:
    """The guide at θ."""
    structure: Structure = choice.structure
    monomials, beta = monomials_of(problem.expansion), 1 / problem.temperature
    learned = _learned(problem, monomials, structure, beta)
    kept = np.ones((monomials.n_units, 1))
    kept[structure.rest] = 0
    return Sequential(
        beta=reals(beta),
        learned=(learned,),
        decimated=build_decimated(monomials, structure.rest, beta),
        kept=reals(kept),
        frames=(),
        local=None,
        radii=(),
        codec=codec_of(problem.program, problem.expansion.blocks),
        hints=_RECIPE,
        bytes_each=4096 + 8 * (learned.rows.size + learned.inputs.scalars.size) + 400 * monomials.n_units,
    )


def transfer(params: Params, fresh: Params, from_choice: GuideChoice, to_choice: GuideChoice) -> Params:
    """Networks of a small periodic lattice as a start on a larger one: layer by layer, parent by parent.

    Layers correspond by the distance of their sites, the finest to the finest, parents by their displacement; what only
    the larger lattice has starts afresh. Raises ValueError for different structures.
    """
    old, new = from_choice.structure, to_choice.structure
    if (old.odd, old.hidden) != (new.odd, new.hidden):
        raise ValueError("the two guides differ in more than the size of a periodic lattice")
    (own,), (out,) = params, fresh
    known = {layer.key: k for k, layer in enumerate(old.layers) if layer.key}
    for number, layer in enumerate(new.layers):
        if layer.key in known:
            source = known[layer.key]
            place = {move: k for k, move in enumerate(old.layers[source].moves)}
            pairs = np.array([(k, place[move]) for k, move in enumerate(layer.moves) if move in place], int)
            for name, value in out.items():
                if name in _BY_PARENT:
                    columns = value[number].at[..., pairs[:, 0]].set(own[name][source][..., pairs[:, 1]])
                    out = {**out, name: value.at[number].set(columns)}
                else:
                    out = {**out, name: value.at[number].set(own[name][source])}
    return [out]


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
    cell: np.ndarray

    @property
    def variance(self) -> float:
        return float(self.covariance.flat[0])

    def regression(self, site: int, window: np.ndarray) -> tuple[np.ndarray, float]:
        """Weights of the best prediction of a site from a window (P,), and the precision of what is left."""
        sides, at = np.array(self.covariance.shape), self.cell[window]
        between = self.covariance[tuple(np.moveaxis((at[:, None] - at[None]) % sides, -1, 0))]
        towards = self.covariance[tuple(((at - self.cell[site]) % sides).T)]
        pull = np.linalg.solve(between, towards)
        return pull, float(1 / (self.variance - pull @ towards))


def _stand_in(problem: Problem, monomials: Monomials, beta: float) -> _StandIn:
    """The Gaussian of `cavity`: the model's pair couplings, and on every site what its potential asks for.

    φ⁴ untrained, against the best Gaussian: Var ln w .06 and .32 at L = 8, .77 and 2.8 at 16, 8.4 and 19 at 32.
    """
    chart = check_real(problem, "multiscale")
    s, cell = monomials.species[0], grid_coordinates(chart)[1]
    site = np.zeros(s.features)
    for rows, c in monomials.products:
        if rows.shape[1] == 1:
            own = rows[:, 0] < s.features
            np.add.at(site, rows[own, 0], -beta * c[own])
    row = np.zeros(chart.cells)
    np.add.at(row, tuple(((cell - cell[0]) % np.array(chart.cells)).T), _direct(monomials, 0, np.arange(s.units), beta))
    spectrum = np.fft.fftn(row).real
    precision, _ = uniform_cavity(spectrum, site)
    mean = float(site[0] / (precision - spectrum.flat[0]))
    covariance = np.fft.ifftn(1 / (precision - spectrum)).real
    return _StandIn(mean, covariance, precision, precision * mean - float(site[0]), cell)


def _top(sites: np.ndarray, missing: int) -> list[Layer]:
    """One after another, each given all before it."""
    return [Layer(sites[k : k + 1], np.append(sites[:k], missing)[None]) for k in range(len(sites))]


def _layers(cell: np.ndarray, sides: tuple[int, ...], r: Refinement, most: int) -> list[Layer]:
    """One for each colour of a refinement's new sites."""
    found = []
    for c in range(int(r.colour.max()) + 1):
        mine, known = r.new[r.colour == c], np.concatenate([r.coarse, r.new[r.colour < c]])
        near = window(cell, sides, mine, known, _REACH * r.spacing, most)
        moves = tuple(tuple(int(m) for m in move) for move in near.moves)
        found.append(Layer(mine, np.append(known, len(cell))[near.places], (r.spacing, c), moves))
    return found


def _learned(problem: Problem, monomials: Monomials, structure: Structure, beta: float) -> Learned:
    """All layers, their sites one after another."""
    s, layers, size = monomials.species[0], structure.layers, monomials.species[0].features
    stand_in = _stand_in(problem, monomials, beta)
    sites = np.concatenate([layer.sites for layer in layers])
    networks = np.repeat(np.arange(len(layers)), [len(layer.sites) for layer in layers])
    rank = np.full(monomials.n_units, len(layers))
    rank[sites] = networks
    feeling = build_feeling(monomials, sites, rank)
    width = max(layer.parents.shape[1] for layer in layers)
    parents = np.full((len(sites), width), monomials.n_units)
    weights, shift = np.zeros((len(layers), width)), np.zeros((len(layers), size))
    for k, layer in enumerate(layers):
        parents[networks == k, : layer.parents.shape[1]] = layer.parents
        there = layer.parents[0][layer.parents[0] < monomials.n_units]
        pull, precision = stand_in.regression(layer.sites[0], there)
        direct = _direct(monomials, layer.sites[0], there, beta)
        weights[k, : len(there)] = precision * pull - direct
        shift[k, 0] = precision * stand_in.mean * (1 - pull.sum()) - stand_in.curvature * stand_in.mean + stand_in.slope
        shift[k, 1] = (stand_in.curvature - precision) / 2
    length = np.sqrt(stand_in.variance)
    unit = np.tile(length ** -np.arange(1.0, size + 1), (len(sites), 1))
    inputs = Inputs(
        scalars=integers(np.where(parents < monomials.n_units, s.row + parents * size, monomials.n_rows + 1)),
        scale=reals(np.full(parents.shape, length)),
        odd=reals(np.full(parents.shape, float(structure.odd))),
        scalar_weights=reals(weights[networks] * length**2),
        vectors=integers(np.zeros((len(sites), 1, 0))),
        vector_weights=reals(np.zeros((len(sites), 0))),
        awake=reals(np.ones(len(sites))),
    )
    parity = tuple(structure.odd and f % 2 == 0 for f in range(size))
    return Learned(
        feeling=feeling,
        family=family_of(s, max(strength(feeling, beta), 1.0)),
        net=Components(structure.hidden, parity, 1, width, structure.odd, not structure.odd),
        inputs=inputs,
        shift=reals(shift[networks]),
        unit=reals(unit),
        floor=reals(-FLOOR * unit[:, -1]),
        variables=integers(monomials.variables_of(sites)),
        rows=integers(monomials.rows_of(sites)),
        levels=integers(steps_of(networks, [np.arange(len(sites))])[0]),
        free=reals(np.ones(len(sites))),
        networks=(integers(networks), integers(np.unique(networks, return_index=True)[1])),
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
