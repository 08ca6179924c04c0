"""Multiscale: coarse sites first, then level by level those between them, each given all coarser ones nearby.

    q(x) = q(x_top) ∏_levels q(x_new | x_coarse)

A Gaussian z, the model's best one, is the start. On the coarsest level a flow over all its sites deforms it
(`splitting`). At every finer level the new sites first follow their coarse neighbours by the Gaussian's own regression,

    y_new = z_new + R (x_coarse − z_coarse),

a triangular map of slope 1, and then move along a velocity that depends on what is near: coarse sites and new ones of
other colours. Windows have the same number of sites at every level, weights are shared by displacement, levels halve,
so that a sample costs O(volume) beside the Fourier transform of the Gaussian. At fresh parameters the map is the
identity. The finest level of all, where the model allows it, is the exact conditional of a decimated sublattice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers, reals
from vdsl.guides.continuous import is_odd, typical_spread
from vdsl.guides.decimation import decimate
from vdsl.guides.flow import Bijection, Flow
from vdsl.guides.gaussian import base_of, solve, structure_of
from vdsl.guides.guide import GuideChoice, Params, Recipe
from vdsl.guides.levels import Refinement, regression, thin, window
from vdsl.guides.pairs import Element, PairClasses, closure, embedding, grid_coordinates, pair_classes, point_group
from vdsl.guides.problem import Problem, cannot_serve
from vdsl.guides.splitting import Splitting, Turn, assemble, splitting
from vdsl.guides.vectorfield import PAIR_KERNELS, Near, RealField

_TOP = 32  # sites of the coarsest level, at most, if sides are even often enough
_STEPS = 2  # at every level
_WIDTH = 4
_REACH, _WINDOW = 2.3, 24  # in units of the distance of nearest sites; sites
_REGRESSORS = 36
_RECIPE = Recipe("reparameterised", learning_rate=1e-2, batch=256, path_from=0.5)


@dataclass(frozen=True)
class Structure:
    """What `build` needs again."""

    odd: bool
    top: np.ndarray
    refinements: tuple[Refinement, ...]
    group: tuple[Element, ...]
    steps: int
    width: int
    pairs: PairClasses  # of the coarsest sites
    keys: tuple[tuple[tuple[int, ...], ...], ...]  # of each level's kernels, in their order: see `_turns`


class Level(eqx.Module):
    """One refinement: rows of coarse and new sites, the regression of new on coarse ones, and the flow of the new.

    near (new, m) into the coarse sites, `weights` (new, m).
    """

    coarse: Array
    new: Array
    near: Array
    weights: Array
    flow: Splitting


class Multiscale(Bijection):
    """See the module. top: rows of the coarsest sites; `unit`: the typical width of a variable."""

    top: Array
    top_flow: Splitting
    levels: tuple[Level, ...]
    unit: Array

    def init(self, key: Array) -> Params:
        return {"top": self.top_flow.init(key), "levels": [level.flow.init(key) for level in self.levels]}

    def forward(self, params: Params, z: Array) -> tuple[Array, Array]:
        start = z.T / self.unit
        moved, log_det = self.top_flow.forward(params["top"], start[self.top])
        x = start.at[self.top].set(moved, unique_indices=True)
        for level, own in zip(self.levels, params["levels"], strict=True):
            y = start[level.new] + self._follow(level, x, start)
            block, change = level.flow.forward(own, jnp.concatenate([x[level.coarse], y]))
            x = x.at[level.new].set(block[level.coarse.shape[0] :], unique_indices=True)
            log_det = log_det + change
        return x.T * self.unit, log_det

    def inverse(self, params: Params, x: Array) -> tuple[Array, Array]:
        end = x.T / self.unit
        moved, log_det = self.top_flow.inverse(params["top"], end[self.top])
        z = end.at[self.top].set(moved, unique_indices=True)
        for level, own in zip(self.levels, params["levels"], strict=True):
            block, change = level.flow.inverse(own, jnp.concatenate([end[level.coarse], end[level.new]]))
            back = block[level.coarse.shape[0] :] - self._follow(level, end, z)
            z = z.at[level.new].set(back, unique_indices=True)
            log_det = log_det + change
        return z.T * self.unit, log_det

    def _follow(self, level: Level, x: Array, z: Array) -> Array:
        change = x[level.coarse] - z[level.coarse]
        near = change.at[level.near].get(mode="fill", fill_value=0.0)
        return jnp.einsum("im,imb->ib", level.weights, near)


def choose_multiscale(problem: Problem) -> GuideChoice:
    """The levels. Raises VfeError `guide-cannot-serve` if the model is no real field on a periodic grid."""
    chart = problem.chart
    if chart is None or chart.channels != 1 or chart.periodic().any():
        raise cannot_serve(
            "multiscale", "it is for one real field on a lattice of one site per cell", "use `continuous`"
        )
    if structure_of(problem).band is not None:
        raise cannot_serve("multiscale", "it needs a periodic lattice and translations", "use `continuous`")
    found = decimate(problem)
    kept = np.ones(chart.size) if found is None else found[0]
    cell = grid_coordinates(chart)[1]
    options = problem.options("multiscale")
    top, refinements = thin(cell, chart.cells, np.flatnonzero(kept), options.get("coarsest", _TOP))
    if not refinements:
        raise cannot_serve("multiscale", "its sides are odd, or too short, and cannot be halved", "use `continuous`")
    group = tuple(closure(point_group(problem.expansion, chart), len(chart.cells)))
    steps, width = options.get("steps", _STEPS), options.get("width", _WIDTH)
    mask = np.zeros(chart.size)
    mask[top] = 1.0
    pairs = pair_classes(problem, mask)
    keys = tuple(_turns(cell, chart.cells, r, group)[1] for r in refinements)
    structure = Structure(is_odd(problem), top, tuple(refinements), group, steps, width, pairs, keys)
    sizes = [len(top), *(len(r.new) for r in refinements)]
    left = chart.size - int(kept.sum())
    reason = (
        f"coarse sites first, then {len(refinements)} refinements, each given the coarser sites nearby"
        + (f"; the last {left} sites are summed and sampled exactly" if left else "")
        + ": the cost of a sample grows like the volume"
    )
    description = {
        "variables": int(kept.sum()),
        "sites by level": sizes,
        "steps": steps,
        "width": width,
        "symmetry built in": "sign flip" if structure.odd else "none",
        "weights shared by": f"translations and a point group of {len(group)}, within a level",
    }
    return GuideChoice("multiscale", reason, description, structure)


def build_multiscale(choice: GuideChoice, problem: Problem) -> Flow:
    """The guide at θ."""
    structure = choice.structure
    chart = problem.chart
    if chart is None:
        raise cannot_serve("multiscale", "not all of its fields are real", "leave the choice to vdsl")
    kept, remainder = decimate(problem) or (np.ones(chart.size), None)
    gaussian = structure_of(problem)
    optimum = solve(problem, gaussian)
    base = base_of(problem, gaussian, optimum, kept, True)
    kernel = np.fft.ifftn(1 / optimum.precision[..., 0, 0].real).real
    field = RealField(structure.width, 1, structure.odd)
    pairs = structure.pairs
    top = splitting(field, pairs.pair, pairs.site, pairs.partitions, structure.steps, structure.steps, False)
    recompute = chart.size > 256
    levels = tuple(_level(problem, r, kernel, field, structure, recompute) for r in structure.refinements)
    rows = np.sort(structure.top)
    bijection = Multiscale(integers(rows), top, levels, reals(typical_spread(problem)))
    return Flow(
        reals(1 / problem.temperature), problem.flat_energy(), reals(kept), base, bijection, remainder, chart,
        _RECIPE, 64 * structure.width * chart.size,
    )  # fmt: skip


def transfer(params: Params, from_choice: GuideChoice, to_choice: GuideChoice) -> Params:
    """The flow's parameters of a small periodic lattice as a start on a larger one, refinement by refinement.

    Refinements correspond by the distance of their sites, the finest to the finest; those that only the larger lattice
    has start at rest, as does its coarsest level unless its sites are as far apart as those of the small one. Within a
    level a weight belongs to a displacement, and one that the other does not have is left out or 0. The base has to be
    found anew. Raises ValueError for different structures.
    """
    old, new = from_choice.structure, to_choice.structure
    alike = (old.odd, old.group, old.steps, old.width) == (new.odd, new.group, new.steps, new.width)
    if not alike or not old.pairs.keys or not new.pairs.keys:
        raise ValueError("the two flows differ in more than the size of a periodic lattice")
    known = {
        r.spacing: (own, keys) for r, own, keys in zip(old.refinements, params["flow"]["levels"], old.keys, strict=True)
    }
    example = params["flow"]["levels"][0]
    levels = []
    for r, keys in zip(new.refinements, new.keys, strict=True):
        own, had = known.get(r.spacing, (_at_rest(example), old.keys[0]))
        matrix = reals([[float(a == b) for b in keys] for a in had])
        levels.append(_carried(own, matrix))
    same = old.refinements[0].spacing == new.refinements[0].spacing
    top = params["flow"]["top"] if same else _at_rest(params["flow"]["top"])
    return {"flow": {"top": _carried(top, reals(embedding(old.pairs, new.pairs))), "levels": levels}}


# --- private ----------------------------------------------------------------------------------------------------------


def _level(
    problem: Problem, r: Refinement, kernel: np.ndarray, field: RealField, structure: Structure, recompute: bool
) -> Level:
    chart: Any = problem.chart
    sides, cell = chart.cells, grid_coordinates(chart)[1]

    def covariance(move: np.ndarray) -> np.ndarray:
        return kernel[tuple(np.moveaxis(move % np.array(sides), -1, 0))]

    near = window(cell, sides, r.new, r.coarse, 6 * r.spacing, _REGRESSORS)
    weights = regression(near, covariance)
    turns, keys = _turns(cell, sides, r, structure.group)
    flow = assemble(field, turns, 1, (len(keys), 1), structure.steps, structure.steps, recompute)
    return Level(integers(r.coarse), integers(r.new), integers(near.places), reals(weights), flow)


def _turns(
    cell: np.ndarray, sides: tuple[int, ...], r: Refinement, group: tuple[Element, ...]
) -> tuple[list[Turn], tuple[tuple[int, ...], ...]]:
    """One turn for each colour of new sites; and what the kernels belong to, (from a coarse site, displacement…)."""
    sites, coarse = np.concatenate([r.coarse, r.new]), len(r.coarse)
    turns, numbers = [], {}  # type: tuple[list[Turn], dict[tuple[int, ...], int]]
    for c in range(int(r.colour.max()) + 1):
        mine = coarse + np.flatnonzero(r.colour == c)
        rest = np.setdiff1d(np.arange(len(sites)), mine)
        around = window(cell, sides, sites[mine], sites[rest], _REACH * r.spacing, _WINDOW)
        index = []
        for column, move in zip(around.places.T, around.moves, strict=True):
            first = int(column[column < len(rest)][0])
            key = (int(rest[first] < coarse), *_representative(move, group))
            index.append(numbers.setdefault(key, len(numbers)))
        order = np.concatenate([mine, rest])
        pairing = Near(integers(around.places), integers(index))
        turns.append(Turn(integers(order), integers(np.argsort(order)), pairing, integers(np.zeros(len(mine)))))
    return turns, tuple(numbers)


def _carried(own: Params, matrix: Array) -> Params:
    """A flow's parameters with its pair kernels taken to other classes."""
    kernels = {k: v @ matrix if k in PAIR_KERNELS else v for k, v in own["kernels"].items()}
    return {**own, "kernels": kernels}


def _at_rest(own: Params) -> Params:
    """The same without a velocity."""
    return {**own, "kernels": {k: jnp.zeros_like(v) for k, v in own["kernels"].items()}}


def _representative(move: np.ndarray, group: tuple[Element, ...]) -> tuple[int, ...]:
    """The largest image of a displacement under the point group: one for each orbit."""
    return max(tuple(int(move[a]) * s for a, s in zip(axes, signs, strict=True)) for axes, signs in group)
