"""A model into ln Z by annealing: populations of particles carried from a known density to the model's.

    π_t ∝ e^{−U_t},   U_t = t βE + (1 − t) U_0,   e^{−U_0} normalised;   V = βE − U_0
    ln Ẑ = Σ_levels ln mean e^{−(t' − t)V},        resampled where weights have become uneven, then moved by HMC

E[Ẑ] = Z for every population as long as levels, step sizes and places of resampling are fixed beforehand (Jarzynski
1997, Phys. Rev. Lett. 78, 2690; Neal 2001, Stat. Comput. 11, 125; Del Moral, Doucet & Jasra 2006, J. R. Stat. Soc. B
68, 411). A pilot population fixes them: each level as far as the conditional effective sample size stays above 0.9
(Zhou, Johansen & Aston 2016, J. Comput. Graph. Stat. 25, 701). U_0: normal densities for real numbers, of the widths a
short run finds; uniform for everything compact or discrete.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.errors import Diagnostic
from vdsl.estimate import hmc
from vdsl.estimate.global_moves import global_moves
from vdsl.estimate.hmc import Tuning, advance, burn, check_finite, fresh_adaptation, precision, trajectory
from vdsl.estimate.partners import partner_sweep
from vdsl.estimate.phase_space import Position, Target, decode, make_target, moving
from vdsl.estimate.stats import Estimate, ess, jackknife, log_mean_exp, replicates
from vdsl.estimate.thermo import evaluate_samples
from vdsl.ir import interpret
from vdsl.ir.symmetry import Symmetry
from vdsl.lowering.kernels import working_dtype
from vdsl.model import Model

CONDITIONAL_ESS = 0.9
RESAMPLE_BELOW = 0.5
MOST_LEVELS = 400
_AT_ONCE = 4096  # particles that one call of the compiled program moves
_QUICK = 0.8  # the conditional ESS where only starts for chains are wanted
_SCOUTS, _THIN = 64, 4  # the short run that finds widths


@dataclass(frozen=True)
class Level:
    """One step of a schedule: the weight t of the model after it, whether to resample, and how to move."""

    weight: float
    resample: bool
    tuning: Tuning


@dataclass(frozen=True)
class Populations:
    """x {field: (populations, particles, …)} as stored, equally weighted within a population; energies the same shape.

    log_z: (populations,), each unbiased for Z after exponentiation; ln_z: of all; levels; acceptance of trajectories.
    """

    x: dict[str, np.ndarray]
    energies: np.ndarray
    observables: dict[str, np.ndarray]
    log_z: np.ndarray
    ln_z: Estimate
    levels: int
    acceptance: float
    steps: float
    discrete: float
    warnings: tuple[Diagnostic, ...] = ()


def sample_smc(
    model: Model,
    theta: Mapping[str, float],
    key: Array,
    populations: int = 32,
    particles: int = 512,
    moves: int = 4,
    on_stage: Callable[[str], None] = lambda _: None,
) -> Populations:
    """Independent populations at a schedule that a pilot fixes; `moves` trajectories after every level.

    Raises VfeError `non-finite`; warning `annealing-too-fast` where populations disagree.
    """
    temperature = float(interpret.temperature(model.program, dict(theta)))
    scout_key, pilot_key, run_key = jax.random.split(key, 3)
    together = max(1, min(populations, _AT_ONCE // particles))
    with precision(model, theta, temperature, scout_key, _SCOUTS):
        on_stage("finding widths")
        target = find_reference(make_target(model, theta, temperature), global_moves(model.program, theta), scout_key)
        on_stage("choosing temperatures")
        levels, _ = plan_levels(target, pilot_key, 1, together * particles, moves)
        on_stage(f"annealing through {len(levels)} levels")
        found: list[Annealed] = []
        while sum(len(f.log_z) for f in found) < populations:
            k = jax.random.fold_in(run_key, len(found))
            found.append(anneal(target, levels, k, together, particles, moves))
        stored = [{f: np.asarray(v) for f, v in decode(target.spaces, f.x).items()} for f in found]
    x = {f: np.concatenate([s[f] for s in stored])[: populations * particles] for f in stored[0]}
    log_z = np.concatenate([f.log_z for f in found])[:populations]
    energy, observables = evaluate_samples(model, x, theta)
    shape = (populations, particles)
    rates = np.mean([f.rates for f in found], axis=0)
    return Populations(
        {f: v.reshape(*shape, *v.shape[1:]) for f, v in x.items()},
        energy.reshape(shape),
        {name: np.asarray(v).reshape(shape) for name, v in observables.items()},
        log_z,
        ln_z_of(log_z),
        len(levels),
        float(rates[0]),
        float(rates[1]),
        float(rates[2]),
        _warnings(log_z),
    )


def ln_z_of(log_z: np.ndarray) -> Estimate:
    """ln of the mean of independent unbiased Ẑ, (populations,); the jackknife leaves out one at a time."""
    r = replicates(np.zeros((len(log_z), 1)), log_z, blocks=len(log_z))
    return jackknife(lambda _, log_mean: log_mean, r, "smc")


@dataclass(frozen=True)
class Annealed:
    """Populations at t = 1: positions (populations·particles, …), ln Ẑ of each, and mean rates."""

    x: Position
    log_z: np.ndarray
    rates: tuple[float, float, float]


def anneal(target: Target, levels: list[Level], key: Array, populations: int, particles: int, moves: int) -> Annealed:
    """Populations through fixed levels."""
    state, move_key = _start(target, key, populations, particles)
    rates = []
    for number, level in enumerate(levels):
        index = state.reweight(level.weight, level.resample)
        k = jax.random.fold_in(move_key, number)
        x, v, _, rate = _move(target, level.tuning, k, state.x, index, _number(level.weight), jnp.asarray(False), moves)
        state.x, state.v = x, _finite(v)
        rates.append([float(r) for r in rate])
    a, b, c = np.mean(rates, axis=0)
    return Annealed(state.x, state.log_z, (float(a), float(b), float(c)))


def plan_levels(
    target: Target, key: Array, populations: int, particles: int, moves: int, least: float = CONDITIONAL_ESS
) -> tuple[list[Level], Annealed]:
    """Levels from t = 0 to 1 as far apart as the conditional ESS allows, and the populations that found them.

    These are consistent, not unbiased: their own weights have chosen the levels.
    """
    state, move_key = _start(target, key, populations, particles)
    mass = {s.field: _unit_mass(target, s.field) for s in moving(target.spaces)}
    tuning, everyone = Tuning(_number(0.3), _number(1.0), mass), jnp.arange(populations * particles)
    for number in range(4):  # the step size of the reference itself
        k = jax.random.fold_in(move_key, MOST_LEVELS + number)
        state.x, v, tuning, _ = _move(target, tuning, k, state.x, everyone, _number(0.0), jnp.asarray(True), moves)
        state.v = _finite(v)
    levels: list[Level] = []
    rates = []
    while state.weight < 1:
        at = state.weight
        t = max(_next_weight(state.v, at, state.log_w.ravel(), least), min(1.0, at + 1 / MOST_LEVELS))
        uneven = ess((state.log_w - (t - at) * state.v.reshape(state.log_w.shape)).ravel()) < RESAMPLE_BELOW
        flag = t == 1 or uneven
        index = state.reweight(t, flag)
        k = jax.random.fold_in(move_key, len(levels))
        state.x, v, tuning, rate = _move(target, tuning, k, state.x, index, _number(t), jnp.asarray(True), moves)
        state.v = _finite(v)
        rates.append([float(r) for r in rate])
        levels.append(Level(t, flag, tuning))
    a, b, c = np.mean(rates, axis=0)
    return levels, Annealed(state.x, state.log_z, (float(a), float(b), float(c)))


class _State:
    """Populations on their way: positions, V (n,), weights within each population, ln Ẑ so far, and where they are."""

    def __init__(self, x: Position, v: np.ndarray, shape: tuple[int, int], rng: np.random.Generator):
        self.x, self.v, self.rng = x, v, rng
        self.log_w, self.log_z, self.weight = np.zeros(shape), np.zeros(shape[0]), 0.0

    def reweight(self, weight: float, resampled: bool) -> Array:
        """Carries the weights to another level, and says which particle goes on in the place of each, (n,)."""
        populations, particles = self.log_w.shape
        self.log_w = self.log_w - (weight - self.weight) * self.v.reshape(self.log_w.shape)
        self.weight = weight
        index = np.tile(np.arange(particles), (populations, 1))
        if resampled:
            self.log_z = self.log_z + np.array([log_mean_exp(w) for w in self.log_w])
            index = np.stack([resample(w, self.rng) for w in self.log_w])
            self.log_w = np.zeros_like(self.log_w)
        return jnp.asarray((index + particles * np.arange(populations)[:, None]).ravel())


def _start(target: Target, key: Array, populations: int, particles: int) -> tuple[_State, Array]:
    draw_key, move_key = jax.random.split(key)
    x = target.draw_reference(draw_key, populations * particles)
    v = _finite(_excess_energy(target, x))
    return _State(x, v, (populations, particles), _generator(draw_key)), move_key


def _generator(key: Array) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key), np.uint32))


def find_reference(
    target: Target, moves: tuple[Symmetry, ...], key: Array, scouts: int = _SCOUTS, thin: int = _THIN
) -> Target:
    """The target with normal densities for flat fields as wide as a short run of chains is.

    Means and variances of single elements are pulled towards the field's with the weight of 100 samples.
    """
    flat = [s for s in target.spaces if s.kind == "flat"]
    if not flat:
        return target
    start_key, burn_key, run_key = jax.random.split(key, 3)
    x = target.draw_reference(start_key, scouts)
    x, tuning = burn(target, moves, burn_key, x, hmc.ROWS, thin, 2)
    check_finite(target, x)
    state, weights = (x, tuning, fresh_adaptation(tuning)), jnp.ones((hmc.ROWS, thin), working_dtype())
    positions: list[Position] = []
    for part in range(4):
        state, _ = advance(
            target, moves, jax.random.fold_in(run_key, part), state, weights, jnp.asarray(False), hmc.MOST_STEPS
        )
        positions.append(state[0])
    centre, width = {}, {}
    for s in flat:
        values = np.concatenate([np.asarray(p[s.field], np.float64) for p in positions])
        share = len(values) / (len(values) + 100)
        mean = share * values.mean(0) + (1 - share) * values.mean((0, 1))
        variance = share * values.var(0) + (1 - share) * values.var((0, 1))
        centre[s.field], width[s.field] = (jnp.asarray(a, working_dtype()) for a in (mean, np.sqrt(variance)))
    return eqx.tree_at(lambda t: (t.centre, t.width), target, (centre, width))


@dataclass(frozen=True)
class Starts:
    """Where chains start after annealing, with all that `run_chains` needs; ln_z: what annealing found."""

    target: Target
    moves: tuple[Symmetry, ...]
    x: Position
    tuning: Tuning
    ln_z: Estimate
    precision: Callable[[], AbstractContextManager[Any]]


def anneal_starts(
    model: Model,
    theta: Mapping[str, float],
    temperature: float,
    key: Array,
    populations: int,
    particles: int,
    chains: int,
    moves: int,
) -> Starts:
    """Starts of chains, chains/populations after each other from one annealed population.

    Which populations these are is drawn as their Ẑ weigh, or less so where few would be left.
    """
    scout_key, anneal_key, pick_key = jax.random.split(key, 3)
    scouts = min(_SCOUTS, chains)
    context = partial(precision, model, theta, temperature, scout_key, scouts)
    symmetries = global_moves(model.program, theta)
    with context():
        start = make_target(model, theta, temperature)
        target = find_reference(start, symmetries, scout_key, scouts, moves)
        levels, found = plan_levels(target, anneal_key, populations, particles, moves, _QUICK)
        rng, each = _generator(pick_key), chains // populations
        chosen = resample(_flattened(found.log_z), rng)
        index = [p * particles + rng.choice(particles, each, replace=each > particles) for p in chosen]
        x = {f: v[jnp.asarray(np.concatenate(index))] for f, v in found.x.items()}
    return Starts(target, symmetries, x, levels[-1].tuning, ln_z_of(found.log_z), context)


def resample(log_w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices (n,) in proportion to e^{log_w} by systematic resampling: each n·w times, rounded up or down."""
    w = np.exp(log_w - log_w.max())
    edges = np.cumsum(w) / w.sum()
    n = len(w)
    return np.minimum(np.searchsorted(edges, (np.arange(n) + rng.random()) / n), n - 1)


def _next_weight(v: np.ndarray, t: float, log_w: np.ndarray, least: float) -> float:
    """The largest t' ≤ 1 whose step keeps (ΣWw)²/(ΣWw²) above `least`, W the normalised weights so far."""
    share = np.exp(log_w - log_w.max())
    share = share / share.sum()

    def conditional(step: float) -> float:
        w = np.exp(-step * (v - v.min()))
        return float((share * w).sum() ** 2 / (share * w**2).sum())

    low, high = 0.0, 1 - t
    if conditional(high) > least:
        return 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if conditional(middle) > least else (low, middle)
    return t + low


def _flattened(log_z: np.ndarray) -> np.ndarray:
    """Weights of populations to the power ≤ 1 that leaves half of them effective: none is the parent of all chains."""
    low, high = 0.0, 1.0
    if ess(log_z) >= 0.5:
        return log_z
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if ess(middle * log_z) > 0.5 else (low, middle)
    return low * log_z


@eqx.filter_jit
def _move(
    target: Target, tuning: Tuning, key: Array, x: Position, index: Array, weight: Array, adapting: Array, moves: int
) -> tuple[Position, Array, Tuning, tuple[Array, Array, Array]]:
    """x[index] after `moves` updates at one weight, V there, the tuning (changed if adapting), and mean rates."""
    x = jax.tree.map(lambda a: a[index], x)

    def one(state: tuple[Position, Tuning], key: Array) -> tuple[tuple[Position, Tuning], Any]:
        x, tuning = state
        partner_key, path_key = jax.random.split(key)
        x, changed = partner_sweep(target, partner_key, x, weight)
        path, steps = trajectory(target, tuning, path_key, x, weight, hmc.MOST_STEPS)
        new = _retune(tuning, path)
        tuning = jax.tree.map(lambda a, b: jnp.where(adapting, a, b), new, tuning)
        return (path.x, tuning), (path.acceptance, steps.astype(path.acceptance.dtype), changed)

    (x, tuning), rates = jax.lax.scan(one, (x, tuning), jax.random.split(key, moves))
    return x, target.energy(x) - target.reference(x), tuning, jax.tree.map(jnp.mean, rates)


def _retune(tuning: Tuning, path: hmc.Trajectory) -> Tuning:
    """Small steps towards the acceptance, length and masses that `hmc` aims at: levels follow each other closely."""
    tiny = jnp.finfo(path.jump.dtype).tiny
    pull = jnp.clip(path.growth / jnp.maximum(path.jump, tiny) - hmc.ELASTICITY, -1, 1)
    step = jnp.minimum(tuning.step * jnp.exp(path.acceptance - hmc.ACCEPTANCE), hmc.LONGEST_STEP)
    time = jnp.clip(tuning.time * jnp.exp(0.1 * pull), step, hmc.MOST_STEPS * step)
    mass = {}
    for f, squares in path.squares.items():
        floor = jnp.maximum(squares.mean() / 10, hmc.LEAST_MASS)
        mass[f] = jnp.exp(0.8 * jnp.log(tuning.mass[f]) + 0.2 * jnp.log(jnp.maximum(squares, floor)))
    return Tuning(step, time, mass)


@eqx.filter_jit
def _excess_energy(target: Target, x: Position) -> Array:
    return target.energy(x) - target.reference(x)


def _finite(v: Array) -> np.ndarray:
    """V in double precision; where the energy is +∞ a number so large that its weight is 0."""
    values = np.asarray(v, np.float64)
    if np.isnan(values).any() or np.isneginf(values).any():
        raise hmc.non_finite("the energy is infinite or undefined")
    return np.minimum(values, 1e30)


def _unit_mass(target: Target, field: str) -> Array:
    if field in target.width:
        return (target.width[field] ** -2).mean(1)
    elements = next(s.elements for s in target.spaces if s.field == field)
    return jnp.ones(elements, working_dtype())


def _number(value: float) -> Array:
    return jnp.asarray(value, working_dtype())


def _warnings(log_z: np.ndarray) -> tuple[Diagnostic, ...]:
    effective = ess(log_z) * len(log_z)
    if effective >= min(8.0, len(log_z) / 2):
        return ()
    return (
        Diagnostic(
            "annealing-too-fast",
            f"the {len(log_z)} populations are worth {effective:.1f}: their ln Z spread by {log_z.std(ddof=1):.2g}",
            notes=("ln Z is then low more often than its error bar says",),
            hints=("more `--samples` in fewer `--chains`, or a larger `--thin`: more moves at each level",),
            severity="warning",
        ),
    )
