"""Continuous flow: a base density carried along a velocity that has the symmetries of the lattice.

    dx/dt = v(x, t),  t from 0 to 1,   ln q(x(1)) = ln base(x(0)) − ∫ ∇·v dt

with the velocities of `vectorfield` (after Gerdes, de Haan, Rainone, Bondesan & Cheng 2022, arXiv:2207.00283). They
solve the equation by a Runge-Kutta method, which leaves an error in ln q: training can find and exploit it, and F_q
falls below F. Here it is solved by `splitting` into flows known in closed form: one colour of sites at a time, the
others frozen. The map is then a bijection with an exact inverse and an exact Jacobian at any step length, ln q is the
density of what is sampled, and F_q a true bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers, reals
from vdsl.guides.decimation import decimate
from vdsl.guides.flow import Base, Bijection, Flow, Remainder
from vdsl.guides.gaussian import base_of, solve, structure_of
from vdsl.guides.guide import GuideChoice, Params, Recipe
from vdsl.guides.pairs import PairClasses, embedding, pair_classes
from vdsl.guides.problem import Problem, cannot_serve
from vdsl.guides.splitting import Splitting, splitting
from vdsl.guides.vectorfield import PAIR_KERNELS, AngleField, RealField

_MOST_VARIABLES = 4096
_MOST_WEIGHTS = 2**24
_STEPS, _WIDTH = 3, 4
_STEPS_ANGLES, _HARMONICS = 4, 2
_RECOMPUTE_ABOVE = 1024
# A step moves every weight of a kernel by about the rate, and a variable by the sum over all others: the rate falls
# with their number. φ⁴, L = 32 (512 variables) from a start at ESS .06: .10 after 120 steps at .001, lost at .01.
_RATE, _FULL_RATE = 1e-2, 64


@dataclass(frozen=True)
class Structure:
    """What `build` needs again. angles: the variables are angles; symmetric: odd under x → −x, or free to rotate."""

    angles: bool
    symmetric: bool
    steps: int
    width: int
    pairs: PairClasses


class Carried(Bijection):
    """The splitting on (b, D): kept variables, `places` (n,), about `centre` (n,) in units of `unit`; others stay 0."""

    splitting: Splitting
    places: Array
    centre: Array
    unit: Array

    def init(self, key: Array) -> Params:
        return self.splitting.init(key)

    def forward(self, params: Params, z: Array) -> tuple[Array, Array]:
        return self._through(self.splitting.forward, params, z)

    def inverse(self, params: Params, x: Array) -> tuple[Array, Array]:
        return self._through(self.splitting.inverse, params, x)

    def _through(self, run: Callable[..., Any], params: Params, x: Array) -> tuple[Array, Array]:
        centre = self.centre[:, None]
        moved, log_det = run(params, (x.T[self.places] - centre) / self.unit)
        whole = jnp.zeros_like(x.T).at[self.places].set(centre + moved * self.unit, unique_indices=True)
        return whole.T, log_det


class UniformAngles(Base):
    """Independent uniform angles in (−π, π], nothing to train. kept (D,)."""

    kept: Array

    def init(self, key: Array) -> Params:
        return {}

    def sample(self, params: Params, key: Array, n: int) -> Array:
        return self.kept * jax.random.uniform(key, (n, *self.kept.shape), minval=-jnp.pi, maxval=jnp.pi)

    def log_prob(self, params: Params, z: Array) -> Array:
        return jnp.full(z.shape[0], -jnp.log(2 * jnp.pi), z.dtype) * self.kept.sum()


def choose_continuous(problem: Problem) -> GuideChoice:
    """The flow, its symmetries and sizes. Raises VfeError `guide-cannot-serve`."""
    chart = problem.chart
    if chart is None:
        raise cannot_serve(
            "continuous", "not all of its fields are real, complex or angles", "leave the choice to vdsl"
        )
    angles = bool(chart.periodic().all())
    if chart.periodic().any() and not angles:
        raise cannot_serve("continuous", "angles and real fields do not mix in it", "leave the choice to vdsl")
    kept, remainder = _kept(problem)
    n = int(kept.sum())
    if n > _MOST_VARIABLES:
        why = f"{n:,} variables; kernels over the whole lattice are for at most {_MOST_VARIABLES:,}"
        raise cannot_serve("continuous", why, "use `multiscale`")
    pairs = pair_classes(problem, kept)
    options = problem.options("continuous")
    steps = options.get("steps", _STEPS_ANGLES if angles else _STEPS)
    width = options.get("width", _HARMONICS if angles else _WIDTH)
    if len(np.unique(pairs.pair)) * steps * width > _MOST_WEIGHTS:
        why = f"it has no translations to share weights by, and {n:,} variables have {n * n:,} pairs"
        raise cannot_serve("continuous", why, "leave the choice to vdsl")
    symmetric = _free_rotation(problem) if angles else _is_odd(problem)
    structure = Structure(angles, symmetric, steps, width, pairs)
    left = "" if remainder is None else f", the other {chart.size - n} are summed and sampled exactly"
    reason = (
        f"a velocity carries a {'uniform' if angles else 'Gaussian'} density to the model's: {n} of {chart.size} "
        f"variables{left}; integrated by splitting, so that ln q is the density of the samples at any step length"
    )
    inside = [
        name for name, has in (("rotation" if angles else "sign flip", symmetric), (pairs.group, pairs.keys)) if has
    ]
    description = {
        "variables": n,
        "steps": steps,
        "width": width,
        "partitions": len(pairs.partitions),
        "pair classes": int(pairs.pair.max()) + 1,
        "symmetry built in": ", ".join(inside) or "none",
    }
    return GuideChoice("continuous", reason, description, structure)


def build_continuous(choice: GuideChoice, problem: Problem) -> Flow:
    """The flow at θ."""
    structure = choice.structure
    chart = problem.chart
    if chart is None:
        raise cannot_serve(
            "continuous", "not all of its fields are real, complex or angles", "leave the choice to vdsl"
        )
    kept, remainder = _kept(problem)
    places, pairs = np.flatnonzero(kept), structure.pairs
    base: Base
    if structure.angles:
        base, centre, unit = UniformAngles(reals(kept)), np.zeros(len(places)), 1.0
        field: RealField | AngleField = AngleField(structure.width, not structure.symmetric)
    else:
        gaussian = structure_of(problem)
        optimum = solve(problem, gaussian)
        base, centre = base_of(problem, gaussian, optimum, kept, True), optimum.mean[places]
        unit, field = _typical_spread(problem), RealField(structure.width, 1, structure.symmetric)
    recompute = len(places) > _RECOMPUTE_ABOVE
    inner = splitting(field, pairs.pair, pairs.site, pairs.partitions, structure.steps, structure.steps, recompute)
    carried = Carried(inner, integers(places), reals(centre), reals(unit))
    bytes_each = 64 * structure.width * chart.size
    rate = _RATE * min(1.0, _FULL_RATE / len(places))
    recipe = Recipe("reparameterised", learning_rate=rate, batch=256, path_from=0.5)
    return Flow(
        reals(1 / problem.temperature), problem.flat_energy(), reals(kept), base, carried, remainder, chart,
        recipe, bytes_each,
    )  # fmt: skip


def transfer(params: Params, fresh: Params, from_choice: GuideChoice, to_choice: GuideChoice) -> Params:
    """The flow's parameters of a small periodic lattice as a start on a larger one: same kernels, 0 beyond them.

    A weight belongs to a displacement; those that the small lattice does not have start at 0, those of half a side are
    shared among the images that the small lattice cannot tell apart. The base stays the fresh one of the large lattice.
    From L = 8 to 16 (φ⁴, λ = 5.113) that starts at ESS .27, a fresh flow at .001.
    Raises ValueError for different structures.
    """
    old, new = from_choice.structure, to_choice.structure
    if replace(old, pairs=new.pairs) != new or not old.pairs.keys or not new.pairs.keys:
        raise ValueError("the two flows differ in more than the size of a periodic lattice")
    matrix = reals(embedding(old.pairs, new.pairs))
    flow = dict(params["flow"])
    flow["kernels"] = {
        name: value @ matrix if value.shape[-1] == matrix.shape[0] and name in PAIR_KERNELS else value
        for name, value in flow["kernels"].items()
    }
    return {**fresh, "flow": flow}


# --- private ----------------------------------------------------------------------------------------------------------


def _typical_spread(problem: Problem) -> float:
    """The typical width of one variable: that of the best Gaussian of independent, equal variables; else 1."""
    e = problem.expansion
    powers: dict[int, float] = {}
    for g in e.groups:
        if all(p % 2 == 0 for p in g.exponents):
            total = sum(g.exponents)
            moments = np.prod([np.prod(np.arange(p - 1, 0, -2)) for p in g.exponents])
            powers[total] = powers.get(total, 0.0) + float(np.sum(g.coefficients.real)) * float(moments)
    s = np.geomspace(1e-4, 1e4, 1601)
    beta = 1 / problem.temperature
    free = sum(beta * c * s**p for p, c in powers.items()) - e.n * np.log(s)
    best = int(np.argmin(free))
    return float(s[best]) if 0 < best < len(s) - 1 else 1.0


def _kept(problem: Problem) -> tuple[np.ndarray, Remainder | None]:
    """Where the flow lives (D,), and what is summed exactly: nothing if that would be everything."""
    found = decimate(problem)
    if problem.chart is None or found is None or not found[0].any():
        return np.ones(problem.chart.size if problem.chart else 0), None
    return found


def _is_odd(problem: Problem) -> bool:
    """Whether the sign of all variables may change at once: whether flips that are symmetries combine to that."""
    names = [p.field for p in problem.chart.pieces] if problem.chart else []
    rows: list[int] = []  # reduced over GF(2): no two share their highest bit
    for s in problem.symmetries:
        odd = [w % 2 == 1 for w in s.weights] or [True] * len(s.fields)
        if s.kind == "z2" or (s.kind == "shift" and s.order % 2 == 0):
            row = sum(1 << names.index(f) for f, turns in zip(s.fields, odd, strict=True) if turns)
            for other in rows:
                row = min(row, row ^ other)
            if row:
                rows = sorted([*rows, row], reverse=True)
    everything = (1 << len(names)) - 1
    for row in rows:
        everything = min(everything, everything ^ row)
    return everything == 0


def _free_rotation(problem: Problem) -> bool:
    """Whether one angle may be added to all angles."""
    names = {p.field for p in problem.chart.pieces} if problem.chart else set()
    return any(
        s.kind == "shift" and s.order == 0 and set(s.fields) == names and set(s.weights) == {1}
        for s in problem.symmetries
    )
