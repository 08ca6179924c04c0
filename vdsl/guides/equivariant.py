"""Equivariant: flows of link fields that commute with gauge transformations, in any dimension, for any action.

    U = f(V),  V from the Haar measure on every link,   ln q(U) = −ln|det ∂f/∂V|,    f(V^g) = f(V)^g

q is gauge invariant because the Haar measure is, and f equivariant: nothing is fixed, and nothing of the gauge orbit is
learned. f is a sequence of sweeps; in a sweep every link moves once, those of one turn (`links`) together, along their
own staples, which stand still meanwhile (`equivariant_moves`), by numbers that a net makes of frozen loops around
(`equivariant_net`). Every turn is a bijection with an exact inverse and an exact log-determinant. Two guides:

- `gauge_continuous`: the velocity is the gradient of a potential of loops (Lüscher 2010, arXiv:0907.5491; Bacchio,
  Kessel, Schaefer & Vaitl 2023, arXiv:2212.08469), integrated by splitting into turns. It starts near the leading order
  of the trivializing map: each link moves by c = β/(4 dim G) along the gradient of Re tr P. Above two dimensions the
  second order matters as much, and is there as well on U(1) and SU(2) (`equivariant_spheres`).
- `gauge_coupling`: one loop of a link after another is transformed by a spline of its eigenvalues' angles (Kanwar et
  al. 2020, arXiv:2003.06413; Boyda et al. 2021, arXiv:2008.05456). On a two-dimensional torus U(1) fluxes of large
  loops are moved first (`equivariant_regions`), and the layers that learn correct what is left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import reals, stored
from vdsl.guides.equivariant_moves import Loopwise, Move, Summed
from vdsl.guides.equivariant_net import LoopNet
from vdsl.guides.equivariant_regions import Regions, regions
from vdsl.guides.equivariant_spheres import Spherical
from vdsl.guides.guide import Configuration, Guide, GuideChoice, Params, Recipe
from vdsl.guides.links import Turns, places, plaquette_links, turns
from vdsl.guides.links_algebra import LinkGroup, Matrices, Phases, Phasors, Quaternions, entries
from vdsl.guides.problem import Problem, cannot_serve
from vdsl.guides.rearrange import Table, tables
from vdsl.ir import interpret
from vdsl.ir.actions import Symmetry, act, random_element
from vdsl.ir.configurations import random_configuration
from vdsl.ir.lattice import ANTIPERIODIC, Lattice
from vdsl.ir.program import Field
from vdsl.ir.support import Angle, Group
from vdsl.lowering.kernels import working_dtype
from vdsl.model import Model

# U(1) 4×4, β = 2: at 1e-2 plain gradients unlearn what the flow starts with; 190 steps of 64 at 5e-3 reach ESS .40 with
# path gradients and .24 without, at 1.8 times the cost a step. Path gradients alone also save a compilation.
_RECIPE = Recipe("reparameterised", learning_rate=2e-3, batch=128, clip=1.0, path_from=0.0)
# In more dimensions the start is worth keeping: SU(2) 4⁴, β = 1, has ESS .04 to .10 untrained, .0007 after ten steps at
# 2e-3.
_RATE_ABOVE_2D = 1e-4
_SWEEPS, _HIDDEN, _REACH = 4, 8, 2
# A link of four dimensions has 6 plaquettes, and 15 pairs of them. U(1) 4⁴, β = .3, untrained: Var ln w is .37 with two
# sweeps and .31 with four (.68 with one).
_SWEEPS_ABOVE_2D, _HIDDEN_ABOVE_2D, _REACH_ABOVE_2D = 2, 4, 0
_HARMONICS, _BINS = 2, 6
_MOST_LINKS = 2**15
_RECOMPUTE_ABOVE, _BATCH_OF_MANY = 512, 32  # links: what is shared by so many has a gradient of little noise
_CONFIGURATIONS = 6  # that the action is looked at with


@dataclass(frozen=True)
class Structure:
    """What `build` needs again. pull: the action's weight of Re tr P /N on a plaquette, −β for Wilson's action.

    regions: whether loops are moved from large to small first (U(1) on a two-dimensional torus).
    """

    field: str
    sweeps: int
    hidden: int
    reach: int
    pull: float
    harmonics: int = 0
    bins: int = 0
    regions: bool = False


class Turn(eqx.Module):
    """The tables of `links.Turns` on the device; exists as numbers. replaced: of the links and those moved, the new."""

    active: Table
    replaced: Table
    staples: Table
    exists: Array
    near: Table
    side: Table
    side_exists: Array
    bend: Table


class Sweeps(eqx.Module):
    """x (*g, links, b) -> the moved links and ln|det| (b,). Weights: leaves (sweeps, turns, …).

    mirrored: every other sweep takes its turns in reverse order, so that the links of a plaquette share the way alike.
    """

    turn: Turn  # stacked (T, …)
    net: LoopNet
    move: Move
    regions: Regions | None
    sweeps: int = eqx.field(static=True)
    recompute: bool = eqx.field(static=True)
    mirrored: bool = eqx.field(static=True)

    def init(self, key: Array) -> Params:
        if self.sweeps == 0:
            return {}
        keys = jax.random.split(key, (self.sweeps, self.turn.exists.shape[0]))
        return jax.jit(jax.vmap(jax.vmap(self.net.init)))(keys)

    def forward(self, params: Params, x: Array) -> tuple[Array, Array]:
        """From the base to the model."""
        return self._run(params, x, back=False)

    def inverse(self, params: Params, x: Array) -> tuple[Array, Array]:
        """Back, and ln|det| of the way back."""
        return self._run(params, x, back=True)

    def take(self, w: Params, turn: Turn, x: Array, back: bool) -> tuple[Array, Array]:
        """One turn."""
        group = self.move.group
        parts = self._parts(x, turn.staples)
        staples = self._closed(*parts)
        even, odd = map(stored, self.net(w, staples, turn.exists, turn.near))
        along: Any = stored(staples)
        if isinstance(self.move, Spherical):
            there = turn.exists[..., None]
            along = stored(staples * there), stored(self._bent(x, turn, parts) * there)
        moved, log_det = self.move(turn.active.take(x), along, even, odd, back)
        return turn.replaced.take(jnp.concatenate([x, moved], group.rank)), (
            log_det * (turn.exists.max(0))[:, None]
        ).sum(0)

    def _parts(self, x: Array, table: Table) -> tuple[Array, Array, Array]:
        """F, M and L, each (*g, S, A, b), of the staples F M† L by a table (3, S, A)."""
        first, middle, last = entries(table.take(x), self.move.group.rank)
        return self._turned(first, above=False), middle, self._turned(last, above=True)

    def _turned(self, x: Array, above: bool) -> Array:
        """(*g, S, A, b), the adjoint of the staples on one side."""
        group = self.move.group
        up, down = jnp.split(x, 2, group.rank)
        return jnp.concatenate([group.adjoint(up), down] if above else [up, group.adjoint(down)], group.rank)

    def _closed(self, first: Array, middle: Array, last: Array) -> Array:
        group = self.move.group
        return stored(group.multiply(group.multiply(first, group.adjoint(middle)), last))

    def _bent(self, x: Array, turn: Turn, parts: tuple[Array, Array, Array]) -> Array:
        """(*g, S, A, b): staples with their first or their last link replaced by its staples in planes without μ."""
        group, (first, middle, last) = self.move.group, parts
        if turn.side_exists.shape[0] == 0:
            return jnp.zeros_like(first)
        # A staple of a link U_ν closes F M† L U_ν: in place of U_ν stands its adjoint.
        side = group.adjoint((self._closed(*self._parts(x, turn.side)) * turn.side_exists[..., None]).sum(group.rank))
        one, two = entries(turn.bend.take(side), group.rank)
        one, two = self._turned(one, above=False), self._turned(two, above=True)
        middle = group.adjoint(middle)
        return group.multiply(group.multiply(one, middle), last) + group.multiply(group.multiply(first, middle), two)

    def _run(self, params: Params, x: Array, back: bool) -> tuple[Array, Array]:
        def one_turn(carry: tuple[Array, Array], entry: tuple[Params, Turn]) -> tuple[tuple[Array, Array], None]:
            moved, log_det = self.take(*entry, carry[0], back)
            return (moved, carry[1] + log_det), None

        body = jax.checkpoint(one_turn) if self.recompute else one_turn

        def one_sweep(carry: tuple[Array, Array], entry: tuple[Params, Array]) -> tuple[tuple[Array, Array], None]:
            turns = (entry[0], self.turn)
            if self.mirrored:
                turns = jax.tree.map(lambda a: jnp.where(entry[1], a[::-1], a), turns)
            moved, log_det = jax.lax.scan(body, carry, turns, reverse=back)[0]
            return (self.move.group.tidy(moved), log_det), None

        log_det = jnp.zeros(x.shape[-1], working_dtype())
        if self.regions is not None and not back:
            x, log_det = self.regions.forward(x)
        if self.sweeps:
            odd = jnp.arange(self.sweeps) % 2 == 1
            (x, log_det), _ = jax.lax.scan(one_sweep, (x, log_det), (params, odd), reverse=back)
        if self.regions is not None and back:
            x, last = self.regions.inverse(x)
            log_det = log_det + last
        return x, log_det


class LinkFlow(Guide):
    """The guide. A latent z is the links (*g, links, b). log_volume: ln of the base measure of all links together."""

    beta: Array
    theta: dict[str, Array]
    flow: Sweeps
    log_volume: Array
    model: Model = eqx.field(static=True)
    field: str = eqx.field(static=True)
    links: int = eqx.field(static=True)
    hints: Recipe = eqx.field(static=True)

    def trainable(self) -> bool:
        return self.flow.sweeps > 0

    @property
    def group(self) -> LinkGroup:
        return self.flow.move.group

    def recipe(self) -> Recipe:
        return self.hints

    def bytes_per_sample(self) -> int:
        return 512 * self.links * max(1, self.group.dimension)

    def init(self, key: Array) -> Params:
        return self.flow.init(key)

    def draw_latent(self, params: Params, key: Array, n: int, scale: Array) -> tuple[Array, Array]:
        x, log_det = self.flow.forward(params, self.group.haar(key, self.links, n))
        return x, -self.log_volume - log_det

    def sample_latent(self, params: Params, key: Array, n: int, scale: Array) -> Array:
        return self.draw_latent(params, key, n, scale)[0]

    def latent_log_prob(self, params: Params, z: Any, scale: Array) -> Array:
        return -self.log_volume + self.flow.inverse(params, z)[1]

    def latent_energy(self, z: Any, scale: Array) -> Array:
        stored = self.group.decode(z)
        return scale * self.beta * jax.vmap(lambda u: self.model.energy({self.field: u}, self.theta))(stored)

    def sample_and_log_prob(self, params: Params, key: Array, n: int) -> tuple[Configuration, Array]:
        x, log_q = self.draw_latent(params, key, n, jnp.ones(()))
        return {self.field: self.group.decode(x)}, log_q

    def log_prob(self, params: Params, x: Configuration) -> Array:
        return self.latent_log_prob(params, self.group.encode(jnp.asarray(x[self.field])), jnp.ones(()))


def choose_gauge_continuous(problem: Problem) -> GuideChoice:
    """Moves along summed staples; SU(3): along one after another. Raises VfeError `guide-cannot-serve`."""
    reason = "links flow along the gradient of a potential of Wilson loops, one sublattice at a time: each step exact"
    return _choose("gauge_continuous", problem, reason, harmonics=_HARMONICS)


def choose_gauge_coupling(problem: Problem) -> GuideChoice:
    """Splines of class angles. Raises VfeError `guide-cannot-serve`."""
    reason = "one plaquette of a link after another is transformed by a function of its eigenvalues and of frozen loops"
    return _choose("gauge_coupling", problem, reason, bins=_BINS)


def build_gauge_flow(choice: GuideChoice, problem: Problem) -> LinkFlow:
    """The flow at θ."""
    structure, program = choice.structure, problem.program
    if not isinstance(structure, Structure) or program.lattice is None:
        raise cannot_serve(choice.name, "it was chosen for another model", "leave the choice to vdsl")
    lattice, field = program.lattice, program.field(structure.field)
    move = _move_of(_group_of(field), structure, lattice)
    group = move.group
    # Leading order in β, and less where β is large: measured on U(1) at β = 2, where 3/4 of it was the best start.
    pull = -structure.pull / (4 * group.dimension)
    start = np.zeros(move.even)
    first = regions(lattice, -structure.pull) if structure.regions else None
    start[0] = 0.0 if first is not None else pull / (1 + abs(pull)) / max(structure.sweeps, 1)
    if isinstance(move, Spherical):
        start = np.array(move.start(-structure.pull)) / max(structure.sweeps, 1)
    table = turns(lattice, structure.reach)
    net = LoopNet(
        group, move.even, move.odd, table.near.shape[1], structure.hidden, lattice.n_axes > 2, reals(start)
    )  # fmt: skip
    turn = _tables(table, lattice.n_links)
    volume = lattice.n_links * np.log(2 * np.pi) if isinstance(field.support, Angle) else 0.0
    return LinkFlow(
        reals(1 / problem.temperature),
        {name: reals(value) for name, value in problem.theta.items()},
        Sweeps(
            turn, net, move, first, structure.sweeps, lattice.n_links > _RECOMPUTE_ABOVE, isinstance(move, Spherical)
        ),
        reals(volume),
        problem.model,
        structure.field,
        lattice.n_links,
        _recipe(lattice),
    )


# --- private ----------------------------------------------------------------------------------------------------------


def _recipe(lattice: Lattice) -> Recipe:
    rate = _RECIPE.learning_rate if lattice.n_axes == 2 else _RATE_ABOVE_2D
    batch = _BATCH_OF_MANY if lattice.n_links > _RECOMPUTE_ABOVE else _RECIPE.batch
    return replace(_RECIPE, learning_rate=rate, batch=batch)


def _choose(name: str, problem: Problem, reason: str, harmonics: int = 0, bins: int = 0) -> GuideChoice:
    lattice, field = _checked(name, problem)
    group = _group_of(field)
    flat = lattice.n_axes == 2
    usual, hidden, reach = (_SWEEPS, _HIDDEN, _REACH) if flat else (_SWEEPS_ABOVE_2D, _HIDDEN_ABOVE_2D, _REACH_ABOVE_2D)
    pull, whole = _plaquette_weight(name, problem, lattice, field)
    large = bool(bins) and group.n == 1 and regions(lattice, -pull) is not None
    sweeps = 0 if large and whole else usual
    structure = Structure(field.name, sweeps, hidden, reach, pull, harmonics, bins, large)
    structure = replace(structure, **problem.options(name))
    table = turns(lattice, structure.reach)
    move = _move_of(group, structure, lattice)
    waves = isinstance(move, Summed) and group.n == 1
    if "harmonics" in problem.options(name) and not waves:
        raise cannot_serve(name, "`harmonics` are for U(1) and angles in two dimensions", "leave `harmonics` out")
    description = {
        "links": lattice.n_links,
        "sweeps": structure.sweeps,
        "turns in a sweep": table.active.shape[0],
        "links in a turn": int((table.active < lattice.n_links).sum(1).max()),
        "moves along": "one staple after another" if isinstance(move, Loopwise) else "all staples together",
        "large loops first": "exactly as the action wants them"
        if structure.regions and whole
        else "yes"
        if structure.regions
        else "no",
        "reach": structure.reach,
        "loops seen by a staple": len(places(structure.reach)),
        "hidden units": structure.hidden,
        **({"bins": structure.bins} if structure.bins else {}),
        **({"harmonics": structure.harmonics} if waves else {}),
        "symmetry built in": "gauge, translation by even numbers of sites",
    }
    return GuideChoice(name, reason, description, structure)


def _tables(table: Turns, links: int) -> Turn:
    count, size = table.active.shape
    replaced = np.tile(np.arange(links + size), (count, 1))
    for row, active in zip(replaced, table.active, strict=True):
        real = active < links
        row[active[real]] = links + np.flatnonzero(real)
    return Turn(
        tables(table.active, links),
        tables(replaced[:, :links], links + size),
        tables(table.staples, links),
        reals(table.exists),
        tables(table.near, size * table.exists.shape[1] + 1),
        tables(table.side, links),
        reals(table.side_exists),
        tables(table.bend, table.side.shape[-1]),
    )


def _move_of(group: LinkGroup, structure: Structure, lattice: Lattice) -> Move:
    if structure.harmonics and not isinstance(group, Matrices) and lattice.n_axes > 2:
        return Spherical(Phasors(group.stored_angle) if isinstance(group, Phases) else group)
    if structure.harmonics and not isinstance(group, Matrices):
        return Summed(group, structure.harmonics if group.n == 1 else 1)
    return Loopwise(group, structure.bins)


def _group_of(field: Field) -> LinkGroup:
    match field.support:
        case Angle():
            return Phases(True)
        case Group("U1"):
            return Phases(False)
        case Group("SU2"):
            return Quaternions()
    return Matrices()


def _checked(name: str, problem: Problem) -> tuple[Lattice, Field]:
    """The lattice and the one link field, or why the guide cannot serve."""
    program, hint = problem.program, "leave the choice to vdsl"
    lattice, fields = program.lattice, program.fields
    links = [f for f in fields if f.on == "links" and isinstance(f.support, Angle | Group)]
    if not links:
        raise cannot_serve(name, "it is for angles or group elements on links, and there are none", hint)
    if len(fields) > 1:
        others = ", ".join(f"`{f.name}`" for f in fields if f is not links[0])
        raise cannot_serve(name, f"it moves one link field, and {others} would have to move along with it", hint)
    if lattice is None or lattice.is_graph or lattice.n_axes < 2 or lattice.n_basis > 1:
        raise cannot_serve(name, "it needs plaquettes: a square, cubic or hypercubic lattice", hint)
    if ANTIPERIODIC in lattice.boundary:
        raise cannot_serve(name, "links change sign across an antiperiodic boundary", "use periodic or open boundaries")
    if 1 in lattice.shape:
        raise cannot_serve(name, "on an axis of one site a plaquette holds the same link twice", hint)
    if lattice.n_links > _MOST_LINKS:
        raise cannot_serve(name, f"{lattice.n_links:,} links; it is for at most {_MOST_LINKS:,}", hint)
    return lattice, links[0]


def _plaquette_weight(name: str, problem: Problem, lattice: Lattice, field: Field) -> tuple[float, bool]:
    """The coefficient of Σ_P Re tr P /N in βE, and whether that is all of βE: the best fit if it is not.

    On a few configurations from the Haar measure, on which gauge invariance is checked as well.
    """
    program, theta = problem.program, problem.theta
    rng = np.random.default_rng(0)
    symmetry = Symmetry("gauge", (field.name,), "", weights=(1,))
    energies, loops = [], []
    for _ in range(_CONFIGURATIONS if lattice.n_links <= _RECOMPUTE_ABOVE else _CONFIGURATIONS // 2):
        x = random_configuration(program, rng)
        energies.append(interpret.energy(program, x, theta))
        loops.append(_plaquettes(lattice, x[field.name]))
    turned = interpret.energy(program, act(symmetry, random_element(symmetry, program, rng), x, program), theta)
    if not abs(turned - energies[-1]) <= 1e-6 * (1 + abs(energies[-1])):
        change = f"from {energies[-1]:.6g} to {turned:.6g}"
        why = f"the energy changes under a gauge transformation of `{field.name}`: {change}"
        raise cannot_serve(name, why, "leave the choice to vdsl")
    e, w = np.array(energies) - np.mean(energies), np.array(loops) - np.mean(loops)
    weight = float(e @ w / (w @ w))
    whole = np.abs(e - weight * w).max() <= 1e-9 * (1 + np.abs(e).max())
    return weight / problem.temperature, bool(whole)


def _plaquettes(lattice: Lattice, u: np.ndarray) -> float:
    """Σ_P Re tr P /N of stored links."""
    a, b, c, d = (u[index] for index in plaquette_links(lattice))
    if not np.iscomplexobj(u):
        return float(np.cos(a + b - c - d).sum())
    if u.ndim == 1:
        return float((a * b * c.conj() * d.conj()).real.sum())
    loop = a @ b @ c.conj().swapaxes(1, 2) @ d.conj().swapaxes(1, 2)
    return float(np.trace(loop, axis1=1, axis2=2).real.sum()) / u.shape[-1]
