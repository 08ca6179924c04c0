"""A model with continuous fields into independent Markov chains: Hamiltonian Monte Carlo on the compiled energy.

Leapfrog on the manifold of each field (`phase_space`), sweeps of the discrete fields between trajectories, and the
model's own symmetries as global moves. All chains move at once with a common step and a common, jittered length:

    step size   dual averaging of the mean acceptance to 0.8 (Hoffman & Gelman 2014, JMLR 15, 1593)
    length      u·τ with u uniform in (0, 1). τ climbs to where d ln J / d ln τ = ½, J being the mean squared jump. One
                mode of frequency ω settles at τ = 3.9/ω, many between those of the slow and the fast
    mass        of each element, its mean squared gradient: the mean curvature, for flat and for compact fields alike
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.errors import Diagnostic, VfeError
from vdsl.estimate.global_moves import global_moves, move_globally
from vdsl.estimate.partners import partner_sweep
from vdsl.estimate.phase_space import (
    Position,
    Target,
    Velocity,
    decode,
    draw_velocity,
    drift,
    embedded,
    kick,
    kinetic,
    make_target,
    moving,
    spaces_of,
    tidy,
    with_gradient,
)
from vdsl.estimate.stats import autocorrelation_time, r_hat
from vdsl.estimate.thermo import evaluate_samples
from vdsl.ir import interpret
from vdsl.ir.symmetry import Symmetry
from vdsl.lowering.kernels import working_dtype
from vdsl.model import Model

ACCEPTANCE = 0.8
ELASTICITY = 0.5  # of the jump in τ where τ settles; 1 is the most jump for the work, and leaves slow modes behind
MOST_STEPS = 64  # leapfrog steps of one trajectory
ROWS = 8  # of kept samples that one call of the compiled program makes: the same everywhere, to be compiled once
_WINDOWS, _BURN_IN = 4, 240  # windows of burning in, each of which ends with new masses; trajectories in all, at least
_PRECISE = 3e-3  # rounding of βE above which trajectories are run in double precision
_LEAST_VIRIAL = -10.0
LEAST_MASS = 1e-6  # of an element that feels nothing
LONGEST_STEP = 3.0  # in units of the mean curvature; where nothing pulls, acceptance would let it grow for ever


class Tuning(eqx.Module):
    """What burning in chooses. step: of the leapfrog; time: τ; mass {field: (elements,)}."""

    step: Array
    time: Array
    mass: dict[str, Array]


class Adaptation(eqx.Module):
    """The running sums behind a `Tuning`: dual averaging, the elasticity of the jump, squared gradients."""

    centre: Array
    mean_error: Array
    mean_log_step: Array
    count: Array
    gain: Array
    jump: Array
    squares: dict[str, Array]


@dataclass(frozen=True)
class Trajectory:
    """One update of all chains: the new positions, acceptance (), squared jump () and its growth, gradient squares."""

    x: Position
    acceptance: Array
    jump: Array
    growth: Array
    squares: dict[str, Array]


@dataclass(frozen=True)
class FieldChains:
    """x {field: (chains, kept, elements, *event)} as stored; energies (chains, kept), float64, not divided by T.

    acceptance: of trajectories; discrete: fraction of single-state moves taken (None without discrete fields);
    steps: mean leapfrog steps of a trajectory; autocorrelation and r_hat: of the energy, in kept samples.
    """

    x: dict[str, np.ndarray]
    energies: np.ndarray
    observables: dict[str, np.ndarray]
    method: str
    acceptance: float
    steps: float
    step_size: float
    discrete: float | None
    autocorrelation: float
    r_hat: float


def sample_hmc(
    model: Model,
    theta: Mapping[str, float],
    key: Array,
    chains: int = 32,
    kept: int = 512,
    thin: int = 4,
    burn_in: int | None = None,
    on_stage: Callable[[str], None] = lambda _: None,
) -> FieldChains:
    """Chains from independent random starts, one sample kept after every `thin` trajectories.

    burn_in: trajectories thrown away, a quarter of the others if None, and 240 at least; in their first third the model
    is turned on slowly, so that hot starts find their way. Runs in double precision where single precision would round
    βE by more than 0.003. Raises VfeError `non-finite` if an energy is not finite or a field runs away.
    """
    temperature = float(interpret.temperature(model.program, dict(theta)))
    start_key, burn_key, run_key = jax.random.split(key, 3)
    with precision(model, theta, temperature, start_key, chains):
        target = make_target(model, theta, temperature)
        x = target.draw_reference(start_key, chains)
        rows = min(ROWS, kept)
        length = max(math.ceil((kept * thin // 4 if burn_in is None else burn_in) / _WINDOWS), _BURN_IN // _WINDOWS)
        moves = global_moves(model.program, theta)
        on_stage("burning in")
        x, tuning = burn(target, moves, burn_key, x, rows, thin, math.ceil(length / (rows * thin)))
        check_finite(target, x)
        on_stage("running Hamiltonian Monte Carlo")
        found, rates = run_chains(target, moves, run_key, x, tuning, kept, thin)
    return describe_chains(model, theta, found, rates | {"step_size": float(tuning.step)}, "hmc")


def burn(
    target: Target, moves: tuple[Symmetry, ...], key: Array, x: Position, rows: int, thin: int, calls: int = 1
) -> tuple[Position, Tuning]:
    """Positions and tuning after `_WINDOWS` windows of calls·rows·thin trajectories; the model is all on after a third.

    rows: of one call of the compiled program, which a run with the same number of rows shares.
    """
    tuning = Tuning(_number(0.1), _number(1.0), {s.field: _array(np.ones(s.elements)) for s in moving(target.spaces)})
    numbers = np.arange(_WINDOWS * calls * rows * thin).reshape(_WINDOWS * calls, rows, thin) + 1
    weights = np.minimum(1.0, 3 * numbers / numbers.size) ** 2
    for window in range(_WINDOWS):
        adaptation = fresh_adaptation(tuning)
        for number in range(window * calls, (window + 1) * calls):
            state, k = (x, tuning, adaptation), jax.random.fold_in(key, number)
            (x, tuning, adaptation), _ = advance(
                target, moves, k, state, _array(weights[number]), jnp.asarray(True), MOST_STEPS
            )
        tuning = settle(tuning, adaptation, last=window == _WINDOWS - 1)
    return x, tuning


def run_chains(
    target: Target, moves: tuple[Symmetry, ...], key: Array, x: Position, tuning: Tuning, kept: int, thin: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Stored configurations {field: (chains, kept, …)} at fixed tuning, and mean rates by name."""
    rows = min(ROWS, kept)
    parts, rates = [], []
    state = (x, tuning, fresh_adaptation(tuning))
    for number in range(math.ceil(kept / rows)):
        ones = _array(np.ones((rows, thin)))
        state, (positions, rate) = advance(
            target, moves, jax.random.fold_in(key, number), state, ones, jnp.asarray(False), MOST_STEPS
        )
        parts.append({f: np.asarray(v) for f, v in positions.items()})
        rates.append({f: float(v) for f, v in rate.items()})
    stored = {f: np.concatenate([p[f] for p in parts])[:kept].swapaxes(0, 1) for f in parts[0]}
    return stored, {name: float(np.mean([r[name] for r in rates])) for name in rates[0]}


_Leap = tuple[Position, Velocity, tuple[Array, Velocity], Array]  # … the potential and its gradient at first, and now


@eqx.filter_jit
def advance(
    target: Target,
    moves: tuple[Symmetry, ...],
    key: Array,
    state: tuple[Position, Tuning, Adaptation],
    weights: Array,
    adapting: Array,
    most_steps: int,
) -> tuple[tuple[Position, Tuning, Adaptation], tuple[dict[str, Array], dict[str, Array]]]:
    """weights.shape = (rows, thin) updates of all chains, the weight of the model in each.

    `adapting` is a traced (): burning in and running share one compilation.
    Returns the new state, and the stored configurations after every row {field: (rows, chains, …)} with mean rates.
    """
    rows, thin = weights.shape

    def one(state: Any, key_and_weight: tuple[Array, Array]) -> tuple[Any, dict[str, Array]]:
        (x, tuning, adaptation), (key, weight) = state, key_and_weight
        partner_key, global_key, path_key = jax.random.split(key, 3)
        x, changed = partner_sweep(target, partner_key, x, weight)
        if moves:
            moved = move_globally(moves, target.spaces, global_key, x)  # the reference need not have the symmetry
            x = jax.tree.map(lambda new, old: jnp.where(weight == 1, new, old), moved, x)
        path, steps = trajectory(target, tuning, path_key, x, weight, most_steps)
        new_tuning, new_adaptation = adapt(tuning, adaptation, path)
        tuning = jax.tree.map(lambda new, old: jnp.where(adapting, new, old), new_tuning, tuning)
        adaptation = jax.tree.map(lambda new, old: jnp.where(adapting, new, old), new_adaptation, adaptation)
        rates = {"acceptance": path.acceptance, "steps": steps.astype(path.acceptance.dtype), "discrete": changed}
        return (path.x, tuning, adaptation), rates

    def row(state: Any, keys_and_weights: tuple[Array, Array]) -> tuple[Any, tuple[dict[str, Array], Any]]:
        state, rates = jax.lax.scan(one, state, (jax.random.split(keys_and_weights[0], thin), keys_and_weights[1]))
        return state, (decode(target.spaces, state[0]), rates)

    state, (kept, rates) = jax.lax.scan(row, state, (jax.random.split(key, rows), weights))
    return state, (kept, jax.tree.map(jnp.mean, rates))


def trajectory(
    target: Target, tuning: Tuning, key: Array, x: Position, weight: Array, most_steps: int
) -> tuple[Trajectory, Array]:
    """One trajectory of every chain in the potential weight·βE + (1 − weight)·reference, and its number of steps."""
    spaces, mass, step = target.spaces, tuning.mass, tuning.step
    velocity_key, length_key, accept_key = jax.random.split(key, 3)
    v = draw_velocity(velocity_key, spaces, x, mass)
    wanted = jax.random.uniform(length_key, (), working_dtype()) * tuning.time / step
    steps = jnp.clip(jnp.ceil(wanted), 1, most_steps).astype(jnp.int32)

    def leap(number: Array, state: _Leap) -> _Leap:
        x, v, first, _ = state
        x, v = drift(spaces, x, v, jnp.where(number == 0, 0.0, step))
        here = u, gradient = potential(target, x, weight)
        first = jax.tree.map(lambda new, old: jnp.where(number == 0, new, old), here, first)
        inside = (number > 0) & (number < steps)
        return x, kick(v, gradient, mass, jnp.where(inside, step, step / 2)), first, u

    # Step 0 goes nowhere: so the potential, most of what there is to compile, is in the program once and not twice.
    unknown = jnp.zeros(len(next(iter(x.values()))), working_dtype())
    new, velocity, (u, gradient), u_new = jax.lax.fori_loop(0, steps + 1, leap, (x, v, (unknown, v), unknown))
    before = u + kinetic(v, mass)
    change = (u_new - u) + (kinetic(velocity, mass) - kinetic(v, mass))
    probability = jnp.where(jnp.isfinite(change), jnp.exp(jnp.minimum(-change, 0.0)), 0.0)
    probability = jnp.where(jnp.isfinite(before), probability, jnp.isfinite(change).astype(probability.dtype))
    taken = jax.random.uniform(accept_key, probability.shape, probability.dtype) < probability
    here, _ = embedded(spaces, x, v, mass)
    there, speed = embedded(spaces, new, velocity, mass)
    jump, growth = ((there - here) ** 2).sum(1), 2 * ((there - here) * speed).sum(1) * steps * step
    safe = lambda a: jnp.where(probability > 0, probability * a, 0.0).mean()  # noqa: E731
    chosen = jax.tree.map(lambda a, b: jnp.where(taken.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, x)
    squares = {f: jnp.nan_to_num((g**2).mean((0, 2))) for f, g in gradient.items()}
    for s in moving(spaces):  # a group is some 2π across: lighter elements would only go round it
        squares[s.field] = jnp.maximum(squares[s.field], 0.1 if s.kind == "group" else 0.0)
    path = Trajectory(tidy(spaces, chosen), probability.mean(), safe(jump), safe(growth), squares)
    return path, steps


def potential(target: Target, x: Position, weight: Array) -> tuple[Array, Velocity]:
    """weight·βE + (1 − weight)·reference, (b,), and its gradient on the manifold."""

    def u(x: Position) -> Array:
        return weight * target.energy(x) + (1 - weight) * target.reference(x)

    return with_gradient(target.spaces, u, x)


# Adaptation


def fresh_adaptation(tuning: Tuning) -> Adaptation:
    """Nothing seen yet."""
    zero = _number(0.0)
    squares = {f: jnp.zeros_like(m) for f, m in tuning.mass.items()}
    return Adaptation(jnp.log(2 * tuning.step), zero, jnp.log(tuning.step), zero, zero, zero, squares)


def adapt(tuning: Tuning, a: Adaptation, path: Trajectory) -> tuple[Tuning, Adaptation]:
    """The next step size and length after a trajectory (ibid., section 3.2, with γ = 0.05, t₀ = 10, κ = 0.75)."""
    count = a.count + 1
    mean_error = (1 - 1 / (count + 10)) * a.mean_error + (ACCEPTANCE - path.acceptance) / (count + 10)
    log_step = a.centre - jnp.sqrt(count) / 0.05 * mean_error
    log_step = jnp.clip(log_step, a.centre - 12, math.log(LONGEST_STEP))
    share = count**-0.75
    mean_log_step = share * log_step + (1 - share) * a.mean_log_step
    # Long jumps weigh more, so sums are compared, not single ratios.
    gain, jump = 0.95 * a.gain + path.growth, 0.95 * a.jump + path.jump
    pull = jnp.clip(gain / jnp.maximum(jump, jnp.finfo(jump.dtype).tiny) - ELASTICITY, -1, 1)
    time = tuning.time * jnp.exp(0.1 * pull * (path.acceptance > 0.3))
    step = jnp.exp(log_step)
    time = jnp.clip(time, step, MOST_STEPS * step)
    squares = jax.tree.map(lambda old, new: old + (new - old) / count, a.squares, path.squares)
    return Tuning(step, time, tuning.mass), Adaptation(a.centre, mean_error, mean_log_step, count, gain, jump, squares)


def settle(tuning: Tuning, a: Adaptation, last: bool = False) -> Tuning:
    """The tuning that a window has found; masses change after every window but the last: the step is made for them."""
    step = jnp.exp(a.mean_log_step)
    time = jnp.clip(tuning.time, step, MOST_STEPS * step)
    if last:
        return Tuning(step, time, tuning.mass)
    mass, ratio = {}, []
    for f, squares in a.squares.items():
        # Elements that feel little are not let loose: at most ten times lighter than the field's mean.
        mass[f] = jnp.maximum(squares, jnp.maximum(squares.mean() / 10, LEAST_MASS))
        ratio.append(jnp.log(mass[f] / tuning.mass[f]).mean())
    # Velocities scale with 1/√mass: the same distances take √ratio longer.
    factor = jnp.exp(jnp.stack(ratio).mean() / 2)
    return Tuning(step * factor, time * factor, mass)


# Shared with annealing and with NUTS


def precision(
    model: Model, theta: Mapping[str, float], temperature: float, key: Array, n: int
) -> AbstractContextManager[Any]:
    """Double precision where βE, of a random or of an ordered configuration, would round too much in single.

    n: configurations to look at, best as many as the caller draws next, since small programs compile for each shape.
    """
    target = make_target(model, theta, temperature)
    x = target.draw_reference(key, n)
    ordered = {f: v.at[1].set(jnp.broadcast_to(v[1, :1], v.shape[1:])) for f, v in x.items()}
    size = float(np.nan_to_num(np.abs(np.asarray(energy_of(target, ordered)))).max())
    return jax.enable_x64(True) if size * jnp.finfo(working_dtype()).eps > _PRECISE else nullcontext()


@eqx.filter_jit
def energy_of(target: Target, x: Position) -> Array:
    """βE, (b,), compiled as one program."""
    return target.energy(x)


def check_finite(target: Target, x: Position) -> None:
    """Raises VfeError `non-finite` if an energy is infinite or undefined, or a field runs away.

    A field that is in equilibrium has ⟨x·∇βE⟩ = 1 for each of its numbers (the virial theorem); one that runs down an
    energy without a bottom has far less than none.
    """
    u, gradient = eqx.filter_jit(potential)(target, x, _number(1.0))
    energy = np.asarray(u, np.float64)
    bad = np.flatnonzero(~np.isfinite(energy))
    if len(bad):
        raise non_finite(f"the energy is {energy[bad[0]]}")
    for s in target.spaces:
        if s.kind == "flat" and not float((x[s.field] * gradient[s.field]).mean()) > _LEAST_VIRIAL:
            raise non_finite(f"the field `{s.field}` runs away")


def non_finite(what: str) -> VfeError:
    """`non-finite`, for chains."""
    return VfeError(
        Diagnostic(
            "non-finite",
            f"{what} in a Markov chain, after burning in",
            notes=("an energy that is unbounded below has no Boltzmann distribution",),
            hints=("does every real field have a term that grows, such as a positive power?",),
        ),
        exit_code=3,
    )


def describe_chains(
    model: Model,
    theta: Mapping[str, float],
    stored: dict[str, np.ndarray],
    rates: Mapping[str, float],
    method: str,
) -> FieldChains:
    """Chains with the energies and observables of every configuration, in double precision."""
    shape = next(iter(stored.values())).shape[:2]
    flat = {f: v.reshape(-1, *v.shape[2:]) for f, v in stored.items()}
    energy, observables = evaluate_samples(model, flat, theta)
    energies = energy.reshape(shape)
    long_enough = shape[1] >= 4
    discrete = any(s.kind == "discrete" for s in spaces_of(model.program))
    return FieldChains(
        stored,
        energies,
        {name: np.asarray(v).reshape(shape) for name, v in observables.items()},
        method,
        acceptance=float(rates["acceptance"]),
        steps=float(rates["steps"]),
        step_size=float(rates["step_size"]),
        discrete=float(rates["discrete"]) if discrete else None,
        autocorrelation=autocorrelation_time(energies) if long_enough else float(shape[1]),
        r_hat=r_hat(energies) if long_enough else float("nan"),
    )


def _number(value: float) -> Array:
    return jnp.asarray(value, working_dtype())


def _array(values: np.ndarray) -> Array:
    return jnp.asarray(values, working_dtype())
