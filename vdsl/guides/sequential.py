"""The autoregressive guide for continuous and mixed fields: sum what can be summed exactly, learn the rest in order.

The energy is a sum of products of one-variable functions (monomials.py), so what a unit feels given others is an
exponential family. A set of units that do not interact with each other is summed and sampled exactly (decimation.py).
The kept ones are sampled one after another; the k-th conditional is

    ln q(x_k | parents) = Σ_f (η_f^known + η_f^start + η_f^learned)(parents) · feature_f(x_k) − ln Z

with what is known from the products that only earlier units share, what a Gaussian stand-in of the model says of
everything still unknown (cavity.py; where angles, or angles and lengths, meet in threes or more, a mesh of their
cosines: mesh.py), and what a small network has learned (conditionals.py). The parents are those of the elimination of
the interaction graph; units of equal depth are drawn together. The density of a quadratic energy is exact before any
training, open chains and rings of others come close to it.

Global symmetries hold exactly: a joint change of sign (of reals and spins, and of all angles where there is nothing
else but lengths), rotations of angles and of unit vectors, and a phase of complex numbers, of vectors in the plane and
of angles beside other fields (frames.py: latents are in the frame then). So do gauge transformations of U(1): the
angles of a tree are pinned at 0, latents are what is left, and samples get a random transformation (local_phases.py).
Charged complex matter is described by lengths (rays.py) and phases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides import mesh
from vdsl.guides.arrays import integers, reals
from vdsl.guides.cavity import cavity_start, pair_couplings, serves
from vdsl.guides.decimation import (
    Decimated,
    build_decimated,
    by_species,
    feature_sizes,
    independent_units,
)
from vdsl.guides.dissection import Interactions, order_skeleton
from vdsl.guides.frames import (
    Frame,
    Phase,
    anchor_units,
    build_frame,
    phases_of,
    turning,
)
from vdsl.guides.guide import Configuration, Guide, GuideChoice, Params, Recipe
from vdsl.guides.latents import Codec, codec_of
from vdsl.guides.learned import Learned, Structure, build_learned, steps_of
from vdsl.guides.lengths import typical_lengths, unit_of_variable
from vdsl.guides.local_phases import LocalPhases, build_local_phases
from vdsl.guides.monomials import Monomials, features_of, monomials_of
from vdsl.guides.parity import flip, mirrored
from vdsl.guides.problem import Problem, cannot_serve
from vdsl.guides.rays import Ray
from vdsl.ir.expansion import Expansion
from vdsl.ir.pinning import Pins, pinned_expansion, pins_of
from vdsl.ir.polar import polar_expansion
from vdsl.ir.support import Complex

_RADIUS = Ray(128)
_SETTLED = 1.5  # ⟨r⁴⟩/⟨r²⟩²: 1 for a fixed length, 2 for a Gaussian


class Sequential(Guide):
    """See the module. Latents are raw values (V, b) of what is not pinned, those of decimated units 0."""

    beta: Array
    learned: tuple[Learned, ...]
    decimated: Decimated
    kept: Array  # (V, 1): 1 where values are latent
    frames: tuple[Frame, ...]
    local: LocalPhases | None
    radii: tuple[tuple[int, int] | None, ...] = eqx.field(static=True)  # whose η is a frame's radius: part and position
    codec: Codec = eqx.field(static=True)
    hints: Recipe = eqx.field(static=True)
    bytes_each: int = eqx.field(static=True)

    def recipe(self) -> Recipe:
        return self.hints

    def bytes_per_sample(self) -> int:
        return self.bytes_each

    def init(self, key: Array) -> Params:
        keys = jax.random.split(key, max(len(self.learned), 1))
        return [part.init(k) for part, k in zip(self.learned, keys, strict=False)]

    def trainable(self) -> bool:
        return bool(self.learned)

    def draw_latent(self, params: Params, key: Array, n: int, scale: Array) -> tuple[Array, Array]:
        z = self.sample_latent(params, key, n, scale)
        return z, self.latent_log_prob(params, z, scale)

    def sample_latent(self, params: Params, key: Array, n: int, scale: Array) -> Array:
        beta = scale * self.beta
        values = jnp.zeros((self.kept.shape[0], n), self.kept.dtype)
        for frame, place in zip(self.frames, self.radii, strict=True):
            if place is not None:
                key, own = jax.random.split(key)
                eta = jnp.repeat(self._radial(params, place, beta), n, axis=2)
                values = values.at[frame.anchor[0]].set(_RADIUS.sample(own, eta)[0, 0])
        features = features_of(self.decimated.species, values)
        if not self.learned:
            return values

        def step(carry: tuple[Array, Array], inputs: tuple) -> tuple[tuple[Array, Array], None]:
            values, features = carry
            levels, key = inputs
            for part, own, level, k in zip(
                self.learned, params, levels, jax.random.split(key, len(levels)), strict=True
            ):
                index = jnp.minimum(level, part.variables.shape[0] - 1)
                eta = part.at(index).eta(part.of_units(own, index), features, beta)
                drawn = part.family.sample(k, eta)
                if self.frames:
                    held = values[part.variables[index]]
                    drawn = jnp.where(part.free[index][:, None, None] > 0, drawn, held)
                values = values.at[_beyond(part.variables, level, index)].set(drawn, mode="drop")
                features = features.at[_beyond(part.rows, level, index)].set(part.species.encode(drawn), mode="drop")
            return (values, features), None

        levels = tuple(part.levels for part in self.learned)
        keys = jax.random.split(key, levels[0].shape[0])
        return jax.lax.scan(step, (values, features), (levels, keys))[0][0]

    def latent_log_prob(self, params: Params, z: Array, scale: Array) -> Array:
        beta = scale * self.beta
        features = features_of(self.decimated.species, z)
        log_measure = self.codec.log_haar + (self.local.log_measure if self.local is not None else 0.0)
        log_q = jnp.full(z.shape[1], log_measure, z.dtype)
        for part, own in zip(self.learned, params, strict=True):
            eta = part.eta(part.of_units(own), features, beta)
            each = part.family.log_prob(eta, z[part.variables])
            log_q = log_q + jnp.sum(part.free[:, None] * each if self.frames else each, axis=0)
        for frame, place in zip(self.frames, self.radii, strict=True):
            log_q = log_q - math.log(2 * math.pi)
            if place is not None:
                log_q = log_q + _RADIUS.log_prob(self._radial(params, place, beta), z[frame.anchor[:1]][None])[0]
        return log_q

    def _radial(self, params: Params, place: tuple[int, int], beta: Array) -> Array:
        """η (1, F, 1) of the radius: of a unit that has no parents and a partner of 0."""
        part, own = self.learned[place[0]], params[place[0]]
        index = integers([place[1]])
        features = features_of(self.decimated.species, jnp.zeros((self.kept.shape[0], 1), self.kept.dtype))
        return part.at(index).eta(part.of_units(own, index), features, beta)

    def latent_energy(self, z: Array, scale: Array) -> Array:
        return self.decimated.reduced_energy(z, scale * self.beta)

    def sample_and_log_prob(self, params: Params, key: Array, n: int) -> tuple[Configuration, Array]:
        key_z, key_rest = jax.random.split(key)
        one = jnp.ones(())
        z = self.sample_latent(params, key_z, n, one)
        log_q = self.latent_log_prob(params, z, one)
        values, log_rest = self.decimated.sample(key_rest, z, self.beta)
        for number, frame in enumerate(self.frames):
            alpha = jax.random.uniform(jax.random.fold_in(key, number), (n,), minval=-jnp.pi, maxval=jnp.pi)
            values = frame.turn(values, alpha)
        if self.local is not None:
            values = self.local.spread(jax.random.fold_in(key, len(self.frames)), values)
        return self.codec.decode(values), log_q + log_rest

    def log_prob(self, params: Params, x: Configuration) -> Array:
        values = self.reduced(x)
        log_q = self.latent_log_prob(params, values * self.kept, jnp.ones(()))
        return log_q + self.decimated.log_prob(values, self.beta)

    def reduced(self, x: Configuration) -> Array:
        """Raw values (V, b) of configurations in the gauge and the frames; latents are those of kept units."""
        values = self.codec.encode(x)
        if self.local is not None:
            values = self.local.fixed(values)
        for frame in self.frames:
            values = frame.turn(values, -frame.phase(values))
        return values


def _beyond(rows: Array, level: Array, index: Array) -> Array:
    """Rows of the units of a level; out of range, and so dropped, for padding."""
    return jnp.where((level < rows.shape[0])[:, None], rows[index], 2**30)


def choose_sequential(problem: Problem) -> GuideChoice:
    """The order, and what it looks like. Raises VfeError `guide-cannot-serve`, `bad-temperature`."""
    if problem.expansion.opaque:
        terms = ", ".join(f"`{name}`" for name, _ in problem.expansion.opaque)
        why = f"{terms} is no sum of products of functions of one variable"
        raise cannot_serve("autoregressive", why, "use a flow, which needs the energy only")
    for block in problem.expansion.blocks:
        if block.kind == "unit" and block.components == 1:
            raise cannot_serve("autoregressive", f"`{block.field}` is a unit vector in one dimension", "use `spin`")
    pins = pins_of(problem.program, problem.symmetries, problem.expansion)
    polar = () if pins is None else pins.polar
    left = _left(problem, pins, polar)
    monomials = monomials_of(left)
    if not serves(monomials):
        raise cannot_serve(
            "autoregressive", f"{monomials.n_units} units are too many to learn one by one", "use a flow"
        )
    settled = _settled(problem, polar)
    if settled:
        polar = (*polar, *settled)
        left = _left(problem, pins, polar)
        monomials = monomials_of(left)
    graph = Interactions(monomials.n_units, monomials.edges())
    # On a tree nothing is gained by decimation, and vectors drawn from the root on feel exactly their parent's field.
    rest = np.zeros(0, int) if _is_forest(graph) else independent_units(monomials)
    phases = phases_of(problem, monomials, () if pins is None else pins.held)
    kept = np.setdiff1d(np.arange(monomials.n_units), rest)
    order, parents, level = order_skeleton(graph, kept, [rest[k : k + 1] for k in range(len(rest))])
    anchors = tuple(anchor_units(p, monomials, _first(p, monomials, order)) for p in phases)
    if anchors:
        rest = np.setdiff1d(rest, np.concatenate(anchors))
        kept = np.setdiff1d(np.arange(monomials.n_units), rest)
        blocks = [rest[k : k + 1] for k in range(len(rest))]
        order, parents, level = order_skeleton(graph, kept, blocks, np.concatenate(anchors).tolist())
    hidden = problem.options("autoregressive").get("hidden", 24 if len(kept) <= 200 else 32)
    counts = [len(p) for p in parents]
    reason = (
        f"{len(rest)} of {monomials.n_units} variables are summed and sampled exactly given the others; the other "
        f"{len(kept)} are drawn one after another, each in the field of those it can depend on"
    )
    if pins is not None:
        reason = f"a gauge transformation sets {len(pins.pinned)} angles to 0; of what is left, {reason}"
    description: dict[str, Any] = {
        "variables": monomials.n_units,
        **({"gauge": len(pins.pinned)} if pins is not None else {}),
        "learned": len(kept),
        "depth": int(level.max(initial=-1)) + 1,
        "mean parents": float(np.mean(counts)) if counts else 0.0,
        "most parents": max(counts, default=0),
        "hidden units": hidden,
        "symmetry built in": _symmetry(problem, monomials, phases, pins),
    }
    meets = mesh.serves(left)
    waves = mesh.main_waves(mesh.mesh_start(left, 1 / problem.temperature, order, rest)) if meets else None
    structure = Structure(rest, order, parents, level, hidden, phases, anchors, pins, polar, waves)
    return GuideChoice("autoregressive", reason, description, structure)


def build_sequential(choice: GuideChoice, problem: Problem) -> Sequential:
    """The guide at parameter values θ. Raises VfeError `bad-temperature`, `guide-cannot-serve`."""
    structure: Structure = choice.structure
    left = _left(problem, structure.pins, structure.polar)
    monomials = monomials_of(left)
    beta = 1 / problem.temperature
    start = cavity_start(monomials, beta, structure.order, structure.rest)
    kind = np.concatenate([np.full(s.units, s.kind) for s in monomials.species])
    start = replace(start, length=np.where(kind == "radius", typical_lengths(left, beta).sizes(), start.length))
    sizes = feature_sizes(monomials, start.length)
    fields: dict[int, mesh.Field] = {}
    if structure.waves is not None:  # they hold the pairs of angles too
        fields = mesh.mesh_start(left, beta, structure.order, structure.rest)
        angle = kind == "angle"
        direct = np.where(angle[:, None] & angle, pair_couplings(monomials, beta), start.weights)
        start = replace(start, weights=direct)
    rank = np.full(monomials.n_units, len(structure.order))
    rank[structure.order] = np.arange(len(structure.order))
    odd = _flipped(monomials, structure.phases)
    owners = np.array([monomials.species.index(monomials.species_of(v)) for v in structure.order], int)
    numbers = np.unique(owners)
    groups = [np.flatnonzero(owners == number) for number in numbers]
    steps = steps_of(structure.level, groups)
    learned = [
        build_learned(monomials, structure, start, fields, beta, rank, positions, rows, number in odd, odd)
        for number, positions, rows in zip(numbers.tolist(), groups, steps, strict=True)
    ]
    kept = np.zeros((monomials.n_variables, 1))
    for _, units in by_species(monomials, np.sort(structure.order)):
        kept[monomials.variables_of(units).reshape(-1)] = 1
    radii = []
    for phase, anchor in zip(structure.phases, structure.anchors, strict=True):
        part = next(k for k, g in enumerate(groups) if anchor[0] in structure.order[g])
        position = int(np.flatnonzero(structure.order[groups[part]] == anchor[0])[0])
        radii.append((part, position) if phase.plane else None)
    width = sum(part.rows.size + part.inputs.scalars.size + part.inputs.vectors.size for part in learned)
    width += sum(part.inputs.waves.rows.size for part in learned if part.inputs.waves is not None)
    return Sequential(
        beta=reals(beta),
        learned=tuple(learned),
        decimated=build_decimated(monomials, structure.rest, beta, sizes),
        kept=reals(kept),
        frames=tuple(build_frame(p, monomials, a) for p, a in zip(structure.phases, structure.anchors, strict=True)),
        local=None if structure.pins is None else build_local_phases(structure.pins, problem.expansion.n),
        radii=tuple(radii),
        codec=codec_of(problem.program, polar_expansion(problem.expansion, structure.polar).blocks),
        hints=Recipe(learning_rate=_rate(len(structure.order))),
        bytes_each=4096 + 8 * width + 400 * monomials.n_units,
    )


def _settled(problem: Problem, charged: Sequence[str]) -> tuple[str, ...]:
    """The complex fields, besides charged ones, whose length is settled: they are described by lengths and phases too.

    complex_scalar.vfe, a minute: ESS .43 with lengths and phases, .04 without at r = −2 (⟨r⁴⟩/⟨r²⟩² = 1.35); .95 and
    .99 at r = 0 (1.7).
    """
    others = [f.name for f in problem.program.fields if f.support == Complex() and f.name not in charged]
    if not others:
        return ()
    whole = polar_expansion(problem.expansion, (*charged, *others))
    lengths, unit = typical_lengths(whole, 1 / problem.temperature), unit_of_variable(whole)
    found = []
    for b in whole.blocks:
        if b.kind == "radius" and b.field in others:
            mine = unit[b.first : b.first + b.elements].tolist()
            second, fourth = (np.array([lengths.mean(u, p) for u in mine]) for p in (2, 4))
            if (fourth < _SETTLED * second**2).mean() > 0.5:
                found.append(b.field)
    return tuple(found)


def _left(problem: Problem, pins: Pins | None, polar: Sequence[str]) -> Expansion:
    """What is left of the energy with the pinned angles at 0."""
    whole = polar_expansion(problem.expansion, polar)
    return whole if pins is None else pinned_expansion(whole, pins.pinned)


def _rate(learned: int) -> float:
    """The start is good, and a large rate spoils it at first: φ⁴ at L = 14 went from ESS .60 to .84 in 80 steps at
    .001, and back to .47 before it rose to .76 at .004; U(1) on 4⁴ (635 learned) from .14 to .04 in 80 steps at .001,
    and stayed at .14 at .0001."""
    return 0.004 if learned <= 64 else 0.002 if learned <= 256 else 0.001 if learned <= 512 else 0.0001


def _first(phase: Phase, monomials: Monomials, order: np.ndarray) -> int | None:
    """The unit of the anchor's field that is drawn first, if one is."""
    s = turning(monomials, phase.anchor)
    mine = order[(order >= s.start) & (order < s.start + s.units)]
    return int(mine[0]) if len(mine) else None


def _flipped(monomials: Monomials, phases: Sequence[Phase]) -> frozenset[int]:
    """Species that change sign together; those of a frame do so by a turn of it, and are fixed within it."""
    turned = {f for p in phases for f in p.fields}
    odd = flip(monomials) or frozenset()
    return frozenset(k for k in odd if monomials.species[k].block.field not in turned)


def _symmetry(problem: Problem, monomials: Monomials, phases: Sequence[Phase], pins: Pins | None) -> str:
    """What holds exactly whatever has been learned: frames turn with the parents if nothing else sets a direction."""
    signs = [s.block.field for s in monomials.species if s.kind == "angle"] if mirrored(monomials) else []
    if pins is None and len(monomials.species) == 1 and monomials.species[0].kind in ("angle", "unit"):
        turns = [s for s in problem.symmetries if s.kind in ("shift", "rotation") and s.order == 0]
        said = ["global rotation"] if turns else []
        return ", ".join(said + (["global sign"] if signs else [])) or "none"
    said = [] if pins is None else [f"gauge transformations of {', '.join(pins.fields)}"]
    said += [f"global rotation of {', '.join(p.fields)}" for p in phases]
    odd = _flipped(monomials, phases)
    names = [s.block.field for k, s in enumerate(monomials.species) if k in odd] + signs
    return ", ".join(said + ([f"global sign of {', '.join(names)}"] if names else [])) or "none"


def _is_forest(graph: Interactions) -> bool:
    """Whether there is no cycle among the units."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    weights = np.ones(len(graph.edges), np.int8)
    matrix = csr_array((weights, (graph.edges[:, 0], graph.edges[:, 1])), shape=(graph.n, graph.n))
    return len(graph.edges) == graph.n - connected_components(matrix, directed=False)[0]
