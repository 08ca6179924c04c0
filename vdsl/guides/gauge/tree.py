"""Tree: the guide of two-dimensional lattice gauge theories whose energy is a sum over single plaquettes.

    q(U) = q(A) q(B | A) ∏_k q(P_k | what is left of the constraint) · Haar(gauge)

The links of a maximal tree are pure gauge: they are Haar, and leave plaquettes, one after another, and the holonomies
A and B of the two cycles of the torus (`cells`). The plaquettes know what their product must become, ABA†B†, and how
likely the plaquettes that are still to come can make it so, which characters say exactly (Migdal 1975, JETP 42, 413).
Nothing is trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import reals
from vdsl.guides.gauge.algebra import Algebra, Turns, algebra_of
from vdsl.guides.gauge.cells import Cells, Fluxes
from vdsl.guides.gauge.circle import Circle, build_circle
from vdsl.guides.gauge.colours import build_colours
from vdsl.guides.gauge.spins import build_spins
from vdsl.guides.guide import Configuration, Guide, GuideChoice, Params, Recipe
from vdsl.guides.problem import Problem, cannot_serve
from vdsl.ir.gauge import ClassFunction, gauge_group_of, single_plaquette
from vdsl.ir.support import Angle, describe
from vdsl.model import Model


class Plaquettes(Protocol):
    """Holonomies and plaquettes of one group: densities with respect to the Haar measure."""

    def sample(self, key: Array, n: int) -> tuple[Array, Array, Array, Array]:
        """a, b (n, *event), plaquettes (n, p, *event), ln q (n,)."""

    def log_prob(self, a: Array, b: Array, plaquettes: Array) -> Array:
        """ln q (n,)."""


class Abelian(eqx.Module):
    """U(1): holonomies are uniform, and ABA†B† = 1."""

    circle: Circle
    periodic: tuple[bool, bool] = eqx.field(static=True)

    def sample(self, key: Array, n: int) -> tuple[Array, Array, Array, Array]:
        keys = jax.random.split(key, 3)
        a, b = (
            Turns(0, False).uniform(k, (n,)) if periodic else jnp.zeros(n, jnp.int32)
            for k, periodic in zip(keys[1:], self.periodic, strict=True)
        )
        plaquettes, log_q = self.circle.sample(keys[0], jnp.zeros(n, jnp.int32))
        return a, b, plaquettes, log_q

    def log_prob(self, a: Array, b: Array, plaquettes: Array) -> Array:
        return self.circle.log_prob(plaquettes, jnp.zeros(len(a), jnp.int32))


@dataclass(frozen=True)
class TreeStructure:
    """What `build` needs again: the group, the cells, and the energy of a plaquette where `choose` found it."""

    group: str
    cells: Cells


class TreeGauge(Guide):
    """See the module. log_measure: ln of what the stored measure is in units of the Haar measure, over all links."""

    beta: Array
    theta: dict[str, Array]
    plaquettes: Plaquettes
    algebra: Algebra
    model: Model = eqx.field(static=True)
    cells: Cells = eqx.field(static=True)
    field: str = eqx.field(static=True)
    log_measure: float = eqx.field(static=True)

    def trainable(self) -> bool:
        return False

    def recipe(self) -> Recipe:
        return Recipe("reparameterised")

    def init(self, key: Array) -> Params:
        return {}

    def draw_latent(self, params: Params, key: Array, n: int, scale: Array) -> tuple[Configuration, Array]:
        return self.sample_and_log_prob(params, key, n)

    def sample_latent(self, params: Params, key: Array, n: int, scale: Array) -> Configuration:
        return self.sample_and_log_prob(params, key, n)[0]

    def latent_log_prob(self, params: Params, z: Configuration, scale: Array) -> Array:
        return self.log_prob(params, z)

    def latent_energy(self, z: Configuration, scale: Array) -> Array:
        return scale * self.beta * jax.vmap(lambda x: self.model.energy(x, self.theta))(z)

    def sample_and_log_prob(self, params: Params, key: Array, n: int) -> tuple[Configuration, Array]:
        key_plaquettes, key_gauge = jax.random.split(key)
        a, b, plaquettes, log_q = self.plaquettes.sample(key_plaquettes, n)
        l1, l2 = self.cells.shape
        others = self.algebra.uniform(key_gauge, (n, l1 * l2 - 1))
        gauge = jnp.concatenate([self.algebra.identity((n, 1)), others], 1).reshape(n, l1, l2, *others.shape[2:])
        links = self.cells.links(self.algebra, Fluxes(plaquettes, a, b, gauge))
        return {self.field: self.algebra.stored(links)}, log_q - self.log_measure

    def log_prob(self, params: Params, x: Configuration) -> Array:
        found = self.cells.fluxes(self.algebra, self.algebra.read(jnp.asarray(x[self.field])))
        return self.plaquettes.log_prob(found.a, found.b, found.plaquettes) - self.log_measure

    def bytes_per_sample(self) -> int:
        numbers = {0: 1, 1: 4, 2: 18}[self.algebra.rank]
        return 4096 + 48 * numbers * self.cells.n_links


def choose_tree(problem: Problem) -> GuideChoice:
    """The guide, if the model is a gauge theory that it samples. Raises VfeError `guide-cannot-serve`."""
    found = plaquette_energy(problem)
    lattice = problem.program.lattice
    if isinstance(found, str) or lattice is None:
        raise cannot_serve("tree", str(found), "leave the choice to vdsl")
    cells = Cells(
        (lattice.shape[0], lattice.shape[1]), (lattice.boundary[0] == "periodic", lattice.boundary[1] == "periodic")
    )
    name = describe(problem.program.fields[0].support)
    reason = (
        f"the energy is a sum over plaquettes of one function of the holonomy ({name}) in two dimensions: gauge "
        "freedom is removed exactly, and plaquettes are sampled one after another, each knowing the flux that is "
        "left: exact, nothing is trained"
    )
    holonomies = sum(cells.periodic)
    description = {"plaquettes": cells.n_plaquettes, "holonomies": holonomies, "gauge": math.prod(cells.shape) - 1}
    return GuideChoice("tree", reason, description, TreeStructure(found.group, cells))


def build_tree(choice: GuideChoice, problem: Problem) -> TreeGauge:
    """The guide at θ."""
    found = plaquette_energy(problem)
    if isinstance(found, str):
        raise cannot_serve("tree", found, "leave the choice to vdsl")
    structure, field = choice.structure, problem.program.fields[0]
    cells, beta = structure.cells, 1 / problem.temperature
    plaquettes = _plaquettes(found, beta, cells)
    angle = field.support == Angle()
    return TreeGauge(
        reals(beta),
        {k: reals(v) for k, v in problem.theta.items()},
        plaquettes,
        algebra_of(structure.group, not angle),
        problem.model,
        cells,
        field.name,
        cells.n_links * math.log(2 * math.pi) if angle else 0.0,
    )


def _plaquettes(f: ClassFunction, beta: float, cells: Cells) -> Plaquettes:
    if f.group == "U1":
        return Abelian(build_circle(f, beta, cells.n_plaquettes, cells.closed), cells.periodic)
    build = build_spins if f.group == "SU2" else build_colours
    return build(f, beta, cells.n_plaquettes, cells.periodic)


def plaquette_energy(problem: Problem) -> ClassFunction | str:
    """f of E = Σ_p f(P_p), or why the energy is not of that form; worked out once for a problem."""
    if "plaquette_energy" not in problem.__dict__:
        problem.__dict__["plaquette_energy"] = _plaquette_energy(problem)
    return problem.__dict__["plaquette_energy"]


def _plaquette_energy(problem: Problem) -> ClassFunction | str:
    if not any(gauge_group_of(f) for f in problem.program.fields):
        return "it has no field of group elements on links"

    def energies(x: dict[str, np.ndarray]) -> np.ndarray:
        with jax.enable_x64(True):
            return np.asarray(problem.model.energies(x, problem.theta), np.float64)

    return single_plaquette(problem.program, energies, np.random.default_rng(0))
