"""Multiscale: coarse sites first, then level by level those between them, each given all that is known nearby.

    q(x) = q(x_top) ∏_layers ∏_i q(x_i | window of i)

A periodic lattice is thinned again and again; the coarsest sites are drawn one after another, and every refinement adds
its new sites in two or more *layers* (colours), all sites of a layer at once. A conditional is that of `sequential`,

    ln q(x_i | window) = Σ_f (η_f^known + η_f^start + η_f^learned)(window) · feature_f(x_i) − ln Z,

with the model's own potential on the site, the regression of a Gaussian stand-in on the window (stand_in.py), and a
small network. Reals, angles and unit vectors; for angles and vectors everything turns with the sites that are known, so
that global rotations hold exactly.
Sites of a layer are translations of each other: they have the same window and share one network. So there are few
numbers to learn, they mean the same on a lattice of any size, and the signal that teaches them is a sum over the
layer: its ratio to the score function's noise does not fall with the volume. Windows have the same number of sites at
every level, so that a sample costs O(volume). The finest layer of all, where the model allows it, is the exact
conditional of a decimated sublattice.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from vdsl.guides.arrays import integers, reals
from vdsl.guides.conditionals import Components, Conditional, Inputs, Pointing, Turning
from vdsl.guides.decimation import build_decimated, family_of, independent_units, strength
from vdsl.guides.guide import GuideChoice, Params, Recipe
from vdsl.guides.latents import codec_of
from vdsl.guides.learned import FLOOR, Learned, steps_of
from vdsl.guides.levels import Refinement, thin, window
from vdsl.guides.monomials import Monomials, build_feeling, monomials_of
from vdsl.guides.parity import flip, mirrored
from vdsl.guides.problem import Problem, cannot_serve
from vdsl.guides.sequential import Sequential
from vdsl.guides.stand_in import build_stand_in, direct_couplings
from vdsl.ir.lattice import PERIODIC
from vdsl.ir.support import Angle, Real, Sphere, Support, event_shape

_TOP = 16  # sites of the coarsest level, at most, if sides are even often enough
_MOST_TOP = 64
_HIDDEN = 32
_WINDOW, _REACH = 24, 6.0  # sites; in units of the distance of nearest sites
# φ⁴ 16×16, 430 steps, stages before: ESS .915 at .004, .936 at .008, .927 at .016
_REALS = Recipe("score", learning_rate=8e-3, steps=400, batch=256)
# XY 16×16, T = .9, 1,150 steps: ESS .81 at .002, .85 at .004
_OTHERS = Recipe("score", learning_rate=4e-3, steps=1200, batch=256)
_NETS: dict[str, type[Conditional]] = {"real": Components, "angle": Turning, "unit": Pointing}


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

    kind: str
    rest: np.ndarray
    layers: tuple[Layer, ...]
    hidden: int
    odd: bool

    @property
    def width(self) -> int:
        """Parents of the widest layer."""
        return max(layer.parents.shape[1] for layer in self.layers)


def choose_multiscale(problem: Problem) -> GuideChoice:
    """The levels. Raises VfeError `guide-cannot-serve` if the model is no such field on a periodic grid."""
    cell, sides = _grid(problem)
    if problem.expansion.opaque:
        terms = ", ".join(f"`{name}`" for name, _ in problem.expansion.opaque)
        raise cannot_serve("multiscale", f"{terms} is no sum of products of functions of one variable", "use a flow")
    monomials = monomials_of(problem.expansion)
    rest = independent_units(monomials)
    kept = np.setdiff1d(np.arange(len(cell)), rest)
    options = problem.options("multiscale")
    top, refinements = thin(cell, sides, kept, options.get("coarsest", _TOP))
    if not refinements:
        rest, kept = rest[:0], np.arange(len(cell))
        top, refinements = thin(cell, sides, kept, options.get("coarsest", _TOP))
    if not refinements or len(top) > _MOST_TOP:
        raise cannot_serve("multiscale", "its sides cannot be halved often enough", "use `autoregressive`")
    layers = _top(top, len(cell))
    for r in refinements:
        layers += _layers(cell, sides, r, options.get("window", _WINDOW))
    hidden = options.get("hidden", _HIDDEN)
    kind = monomials.species[0].kind
    odd = kind == "real" and bool(flip(monomials))
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
        "symmetry built in": _symmetry(problem, monomials, odd),
        "weights shared by": "translations, within a layer",
    }
    return GuideChoice("multiscale", reason, description, Structure(kind, rest, tuple(layers), hidden, odd))


def build_multiscale(choice: GuideChoice, problem: Problem) -> Sequential:
    """The guide at θ."""
    structure: Structure = choice.structure
    monomials, beta = monomials_of(problem.expansion), 1 / problem.temperature
    learned = _learned(problem, monomials, structure, beta)
    kept = np.ones((monomials.n_variables, 1))
    if len(structure.rest):
        kept[monomials.variables_of(structure.rest)] = 0
    seen = learned.rows.size + learned.inputs.scalars.size + learned.inputs.vectors.size
    return Sequential(
        beta=reals(beta),
        learned=(learned,),
        decimated=build_decimated(monomials, structure.rest, beta),
        kept=reals(kept),
        frames=(),
        local=None,
        radii=(),
        codec=codec_of(problem.program, problem.expansion.blocks),
        hints=_REALS if structure.kind == "real" else _OTHERS,
        bytes_each=4096 + 8 * seen + 400 * monomials.n_units,
    )


def transfer(params: Params, fresh: Params, from_choice: GuideChoice, to_choice: GuideChoice) -> Params:
    """Networks of a small periodic lattice as a start on a larger one: layer by layer, parent by parent.

    Layers correspond by the distance of their sites, the finest to the finest, parents by their displacement; what only
    the larger lattice has starts afresh. Raises ValueError for different structures.
    """
    old, new = from_choice.structure, to_choice.structure
    if (old.kind, old.odd, old.hidden) != (new.kind, new.odd, new.hidden):
        raise ValueError("the two guides differ in more than the size of a periodic lattice")
    (own,), (out,) = params, fresh
    known = {layer.key: k for k, layer in enumerate(old.layers) if layer.key}
    for number, layer in enumerate(new.layers):
        if layer.key not in known:
            continue
        source = known[layer.key]
        place = {move: k for k, move in enumerate(old.layers[source].moves)}
        pairs = np.array([(k, place[move]) for k, move in enumerate(layer.moves) if move in place], int).reshape(-1, 2)
        for name, value in out.items():
            axis, to, since = _places(name, old, new, own[name].shape[1:], value.shape[1:], pairs)
            moved = jnp.moveaxis(value[number], axis, 0).at[to].set(jnp.moveaxis(own[name][source], axis, 0)[since])
            out = {**out, name: value.at[number].set(jnp.moveaxis(moved, 0, axis))}
    return [out]


# --- private ----------------------------------------------------------------------------------------------------------


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
    s, layers = monomials.species[0], structure.layers
    stand_in = build_stand_in(monomials, *_grid(problem), beta)
    sites = np.concatenate([layer.sites for layer in layers])
    networks = np.repeat(np.arange(len(layers)), [len(layer.sites) for layer in layers])
    rank = np.full(monomials.n_units, len(layers))
    rank[sites] = networks
    feeling = build_feeling(monomials, sites, rank)
    width = structure.width
    size = s.features + 1 if s.kind == "unit" else s.features
    parents = np.full((len(sites), width), monomials.n_units)
    weights, shift = np.zeros((len(layers), width)), np.zeros((len(layers), size))
    for k, layer in enumerate(layers):
        parents[networks == k, : layer.parents.shape[1]] = layer.parents
        there = layer.parents[0][layer.parents[0] < monomials.n_units]
        pull, field, precision = stand_in.regression(layer.sites[0], there)
        weights[k, : len(there)] = field - direct_couplings(monomials, layer.sites[0], there, beta)
        if s.kind == "real":
            own = stand_in.curvature
            shift[k, 0] = precision * stand_in.mean * (1 - pull.sum()) - own * stand_in.mean + stand_in.slope
            shift[k, 1] = (own - precision) / 2
    length = np.sqrt(stand_in.variance) if s.kind == "real" else 1.0
    unit = np.tile(length ** -np.arange(1.0, size + 1), (len(sites), 1))
    rows = s.row + parents[:, None] * s.features + np.arange(s.seen)[:, None]  # (T, seen, P)
    rows = np.where(parents[:, None] < monomials.n_units, rows, monomials.n_rows + 1)
    none = np.zeros((len(sites), 0))
    scalar = s.kind == "real"
    parity = tuple(structure.odd and f % 2 == 0 for f in range(size))
    net: Conditional
    match s.kind:
        case "real":
            net = Components(structure.hidden, parity, 1, width, structure.odd, not structure.odd)
        case "angle":
            net = Turning(structure.hidden, width, mirrored(monomials))
        case _:
            net = Pointing(structure.hidden)
    inputs = Inputs(
        scalars=integers(rows[:, 0] if scalar else none),
        scale=reals(np.full(parents.shape, length) if scalar else none),
        odd=reals(np.full(parents.shape, float(structure.odd)) if scalar else none),
        scalar_weights=reals(weights[networks] * length**2 if scalar else none),
        vectors=integers(none[:, None] if scalar else rows),
        vector_weights=reals(none if scalar else weights[networks]),
        awake=reals((parents < monomials.n_units).any(1) | (np.abs(np.asarray(feeling.fixed)).sum(1) > 0)),
    )
    return Learned(
        feeling=feeling,
        family=family_of(s, max(strength(feeling, beta), 1.0)),
        net=net,
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


def _grid(problem: Problem) -> tuple[np.ndarray, tuple[int, ...]]:
    """The coordinates (N, axes) of all sites and the sides. Raises VfeError `guide-cannot-serve`."""
    program, lattice = problem.program, problem.program.lattice
    flows = "use `continuous`"
    if len(program.fields) != 1 or program.fields[0].on != "sites" or not _one_unit(program.fields[0].support):
        raise cannot_serve("multiscale", "it is for one field of reals, angles or unit vectors on sites", flows)
    if lattice is None or lattice.is_graph or lattice.n_basis != 1:
        raise cannot_serve("multiscale", "it needs a lattice of one site per cell", flows)
    along = {a for s in problem.symmetries if s.kind == "translation" for a in s.axes}
    if any(b != PERIODIC for b in lattice.boundary) or any(
        n > 1 and a not in along for a, n in enumerate(lattice.shape)
    ):
        raise cannot_serve("multiscale", "it needs a periodic lattice and translations", flows)
    return np.stack(np.unravel_index(np.arange(lattice.n_cells), lattice.shape), 1), lattice.shape


def _one_unit(support: Support) -> bool:
    """Whether an element of such a field is one real number, one angle or one unit vector."""
    if isinstance(support, Sphere):
        return support.n > 1
    return isinstance(support, Angle) or (isinstance(support, Real) and event_shape(support) == ())


def _symmetry(problem: Problem, monomials: Monomials, odd: bool) -> str:
    turns = [s for s in problem.symmetries if s.kind in ("shift", "rotation") and s.order == 0]
    said = ["global rotation"] if turns and monomials.species[0].kind != "real" else []
    return ", ".join(said + (["global sign"] if odd or mirrored(monomials) else [])) or "none"


def _places(
    name: str, old: Structure, new: Structure, before: tuple[int, ...], after: tuple[int, ...], pairs: np.ndarray
) -> tuple[int, np.ndarray, np.ndarray]:
    """The axis along which a layer's parameter counts parents, and where entries go to and come from along it.

    pairs (m, 2): which parent of the new layer is which of the old. Entries that belong to no parent keep their order.
    """
    here, there = (_NETS[new.kind].by_parent(s.width).get(name, (-1, ())) for s in (new, old))
    axis = here[0]
    ends = []
    for (_, starts), width, size, column in zip(
        (here, there), (new.width, old.width), (after[axis], before[axis]), (0, 1), strict=True
    ):
        counted = [start + np.arange(width) for start in starts]
        others = np.setdiff1d(np.arange(size), np.concatenate([*counted, np.zeros(0, int)]))
        ends.append(np.concatenate([others, *(start + pairs[:, column] for start in starts)]).astype(int))
    return axis, ends[0], ends[1]
