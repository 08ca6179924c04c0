"""Train: a guide and a plan into trained parameters, by stochastic descent on the variational free energy.

A host loop over jitted `lax.scan` chunks. Everything a step reads is in `TrainState` and the `Plan`, so that stopping
and resuming equals never stopping, to the last bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax import Array

from vdsl.errors import Diagnostic, VfeError
from vdsl.guides.arrays import integers, reals
from vdsl.guides.guide import Guide, Params, Recipe
from vdsl.inference.estimators import ESTIMATORS, BatchStatistics


@dataclass(frozen=True)
class Plan:
    """How a guide is trained: every number that matters, as the manifest records it.

    β is annealed from `anneal_from` times its value to its value over the first `anneal` of the steps; the global
    gradient norm is clipped at `clip`. The learning rate warms up over 2 % of the steps, stays at its peak, and falls
    to zero as half a cosine over the last `decay` of the steps. The fall begins early, and is shortened to the time it
    took to get there, once the running mean of Var(ln w) has not fallen by 2 % for `patience` steps after annealing:
    more steps at that rate would bring nothing. Training stops when the rate is zero or that mean is below `enough`.
    The gradient is that of `estimator`, and the path gradient from the fraction `path_from` of the steps on.
    """

    steps: int
    batch: int
    chunk: int
    seed: int
    learning_rate: float
    anneal: float
    anneal_from: float
    clip: float
    enough: float
    patience: int
    decay: float
    estimator: str = "score"
    path_from: float = 1.0

    def estimator_at(self, step: int) -> str:
        """The gradient estimator of the chunk that begins at a step."""
        return "path" if self.path_from < 1 and step >= self.path_from * self.steps else self.estimator


class TrainState(NamedTuple):
    """Everything a step reads. `variance`: running mean of Var(ln w); `best`: its lowest, at `best_step`.

    `turn`: the step at which the learning rate begins to fall.
    """

    params: Params
    optimiser: Any
    key: Array
    step: Array
    variance: Array
    best: Array
    best_step: Array
    turn: Array


@dataclass(frozen=True)
class ChunkLog:
    """A chunk of steps, averaged. `free_energy` is the batch F_q = T·E[u + ln q] at T / `scale`: annealing scales β."""

    step: int
    free_energy: float
    ess: float
    variance: float
    steps_per_second: float
    scale: float


class Schedule(NamedTuple):
    """The plan's numbers as traced arguments: plans that differ only in these share one compilation.

    `latest_turn`: the step at which the learning rate begins to fall if it does not do so early.
    """

    steps: Array
    learning_rate: Array
    anneal: Array
    anneal_from: Array
    clip: Array
    patience: Array
    latest_turn: Array

    def scale(self, step: Array) -> Array:
        """What β is multiplied by."""
        done = step / jnp.maximum(self.anneal * self.steps, 1)
        return jnp.minimum(1.0, self.anneal_from + (1 - self.anneal_from) * done)

    def rate(self, step: Array, turn: Array) -> Array:
        """The learning rate at a step, when its fall begins at step `turn`."""
        warm = jnp.minimum(1.0, (step + 1) / jnp.maximum(0.02 * self.steps, 1))
        fallen = jnp.clip((step - turn) / jnp.maximum(self.end(turn) - turn, 1), 0.0, 1.0)
        return self.learning_rate * warm * 0.5 * (1 + jnp.cos(jnp.pi * fallen))

    def end(self, turn: Array) -> Array:
        """The step at which the learning rate is zero."""
        return jnp.where(turn < self.latest_turn, jnp.minimum(self.steps, 2 * turn), self.steps)


def schedule(plan: Plan) -> Schedule:
    """The plan's numbers on the device."""
    return Schedule(
        steps=integers(plan.steps),
        learning_rate=reals(plan.learning_rate),
        anneal=reals(plan.anneal),
        anneal_from=reals(plan.anneal_from),
        clip=reals(plan.clip),
        patience=integers(plan.patience),
        latest_turn=integers(_latest_turn(plan)),
    )


def initial_state(guide: Guide, plan: Plan) -> TrainState:
    """A fresh state."""
    return _initial_state(guide, jax.random.key(plan.seed), integers(_latest_turn(plan)))


def plan(
    guide: Guide,
    time_limit: float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    estimator: str | None = None,
    learning_rate: float | None = None,
) -> Plan:
    """A plan that fits the time: the number of steps is fixed here, once, from the timing of a few of them.

    Without a time limit and without steps, 2000 steps. What the caller leaves open the guide's recipe says, and what
    that leaves open is decided here. Raises VfeError `bad-setting` (usage).
    """
    if batch is not None and batch < 2:
        why = "the baseline of a sample is the mean of the others"
        raise VfeError(Diagnostic("bad-setting", f"a batch of {batch} is too small", notes=(why,)), exit_code=2)
    if steps is not None and steps < 1:
        raise VfeError(Diagnostic("bad-setting", f"cannot train for {steps} steps"), exit_code=2)
    size, start, recipe = guide.n_parameters(), guide.anneal_from(), guide.recipe()
    count = 2000 if steps is None else steps
    draft = Plan(
        steps=count,
        batch=batch or recipe.batch or (512 if size < 2**20 else 256),
        chunk=10,
        seed=seed,
        learning_rate=learning_rate or _learning_rate(recipe, size, count),
        # slower where fields are strong: frustrated or cold
        anneal=(0.1 if start > 0.3 else 0.5) if recipe.anneal is None else recipe.anneal,
        anneal_from=start,
        clip=1.0 if recipe.clip is None else recipe.clip,
        enough=1e-4,
        patience=2000,
        decay=0.8 if recipe.decay is None else recipe.decay,
        estimator=recipe.estimator,
        path_from=recipe.path_from,
    )
    if estimator is not None:
        draft = replace(draft, estimator=_checked(estimator, recipe), path_from=1.0)
    if not guide.trainable():
        return replace(draft, steps=0)
    if time_limit is None or steps is not None:
        return draft
    began = time.monotonic()
    seconds = _seconds_per_step(guide, draft)
    left = time_limit - (time.monotonic() - began)
    fitting = int(min(max(left / seconds, 20), 20_000))
    return replace(draft, steps=fitting, learning_rate=learning_rate or _learning_rate(recipe, size, fitting))


def train(
    guide: Guide,
    plan: Plan,
    state: TrainState,
    on_chunk: Callable[[TrainState, ChunkLog], bool],
    deadline: float | None = None,
) -> TrainState:
    """Runs the plan to its end from wherever `state` is. `on_chunk` is called after every chunk; False stops.

    `deadline` (time.monotonic) is the emergency brake for a machine that has become slower than the plan assumed.
    Raises VfeError `non-finite` (exit code 3) when the free energy or the gradient stops being a number.
    """
    temperature = 1.0 / float(guide.beta)
    while not finished(plan, state) and (deadline is None or time.monotonic() < deadline):
        began, before = time.monotonic(), int(state.step)
        name = plan.estimator_at(before)
        state, statistics = _advance(guide, state, schedule(plan), plan.batch, plan.chunk, name)
        step = int(state.step)
        reduced, variance, ess = (float(s) / max(step - before, 1) for s in statistics)
        _check_finite(reduced, step)
        rate = (step - before) / max(time.monotonic() - began, 1e-9)
        scale = min(1.0, plan.anneal_from + (1 - plan.anneal_from) * (step - 1) / max(plan.anneal * plan.steps, 1))
        if not on_chunk(state, ChunkLog(step, reduced * temperature / scale, ess, variance, rate, scale)):
            break
    return state


def finished(plan: Plan, state: TrainState) -> bool:
    """Whether the plan has nothing left to do: the learning rate has reached zero, or the guide is exact enough."""
    step, turn = int(state.step), int(state.turn)
    if step >= (min(plan.steps, 2 * turn) if turn < _latest_turn(plan) else plan.steps):
        return True
    annealed = step > plan.anneal * plan.steps + 100  # the running mean needs some steps at full β
    return annealed and float(state.variance) < plan.enough


def one_step(
    guide: Guide, state: TrainState, schedule: Schedule, batch: int, estimator: str = "score"
) -> tuple[TrainState, BatchStatistics]:
    """One update: a gradient of the surrogate, clipped by its global norm, into Adam (Kingma & Ba 2015)."""
    key, key_batch = jax.random.split(state.key)
    scale = schedule.scale(state.step)

    def loss(params: Params) -> tuple[Array, BatchStatistics]:
        return ESTIMATORS[estimator](guide, params, key_batch, batch, scale)

    gradient, statistics = jax.grad(loss, has_aux=True)(state.params)
    norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient)))
    shrink = jnp.minimum(1.0, schedule.clip / jnp.maximum(norm, 1e-30))
    direction, optimiser = _ADAM.update(jax.tree.map(lambda g: g * shrink, gradient), state.optimiser, state.params)
    rate = schedule.rate(state.step, state.turn)
    params = jax.tree.map(lambda p, d: p - rate * d, state.params, direction)
    step = state.step + 1
    variance = 0.98 * state.variance + 0.02 * statistics.variance
    better = (step <= schedule.anneal * schedule.steps) | (variance < 0.98 * state.best)
    best, best_step = jnp.where(better, variance, state.best), jnp.where(better, step, state.best_step)
    stalled = (step < state.turn) & (step - best_step > schedule.patience)
    turn = jnp.where(stalled, step, state.turn)
    return TrainState(params, optimiser, key, step, variance, best, best_step, turn), statistics


# --- private ---------------------------------------------------------------------------------------------------------

_ADAM = optax.scale_by_adam(b1=0.9, b2=0.99)


def _learning_rate(recipe: Recipe, size: int, steps: int) -> float:
    """Long runs end better from a lower peak: on Ising 16×16, .01 beat .02 at 600 steps and .004 beat .01 at 4000; on
    φ⁴ 32×32 1,400 steps from .003 ended at ESS .80, 5,500 from .008 at .81, after half the way at .72 and .50."""
    if recipe.learning_rate is None:
        return min(0.01 if size < 2**17 else 0.005, 0.01 * (1000 / steps) ** 0.6)
    return recipe.learning_rate * min(1.0, ((recipe.steps or steps) / steps) ** 0.6)


def _checked(estimator: str, recipe: Recipe) -> str:
    """An estimator that the guide can be trained with. Raises VfeError `bad-setting`."""
    if estimator not in ESTIMATORS:
        known = ", ".join(ESTIMATORS)
        raise VfeError(
            Diagnostic("bad-setting", f"no gradient estimator called `{estimator}`", notes=(f"estimators: {known}",)),
            exit_code=2,
        )
    if estimator != "score" and recipe.estimator == "score":
        why = "its samples are not differentiable in its parameters"
        raise VfeError(
            Diagnostic("bad-setting", f"this guide cannot be trained with the `{estimator}` gradient", notes=(why,)),
            exit_code=2,
        )
    return estimator


def _latest_turn(plan: Plan) -> int:
    return round((1 - plan.decay) * plan.steps)


@eqx.filter_jit
def _initial_state(guide: Guide, key: Array, turn: Array) -> TrainState:
    """Compiled as a whole: eagerly, every little array would be a compilation of its own."""
    key_init, key = jax.random.split(key)
    params = guide.init(key_init)
    zero = jnp.zeros((), jnp.int32)
    return TrainState(params, _ADAM.init(params), key, zero, jnp.ones(()), jnp.full((), jnp.inf), zero, turn)


@eqx.filter_jit
def _advance(
    guide: Guide, state: TrainState, schedule: Schedule, batch: int, chunk: int, estimator: str
) -> tuple[TrainState, BatchStatistics]:
    """Up to `chunk` steps, none beyond the end of the schedule; statistics summed over the steps taken."""

    def step(state: TrainState, _: None) -> tuple[TrainState, BatchStatistics]:
        idle = BatchStatistics(*(jnp.zeros(()),) * 3)
        take = partial(one_step, guide, schedule=schedule, batch=batch, estimator=estimator)
        return jax.lax.cond(state.step < schedule.end(state.turn), take, lambda s: (s, idle), state)

    state, statistics = jax.lax.scan(step, state, length=chunk)
    return state, jax.tree.map(lambda s: jnp.sum(s, axis=0), statistics)


def _seconds_per_step(guide: Guide, plan: Plan) -> float:
    """Compiles, then times a few steps that are thrown away."""
    state = initial_state(guide, plan)

    def run(steps: int) -> None:
        few = schedule(replace(plan, steps=steps))
        jax.block_until_ready(_advance(guide, state, few, plan.batch, plan.chunk, plan.estimator_at(0)))

    run(1)
    began = time.monotonic()
    run(1)
    one = time.monotonic() - began
    if one > 0.3:
        return one
    began = time.monotonic()
    run(plan.chunk)
    return (time.monotonic() - began) / plan.chunk


def _check_finite(reduced: float, step: int) -> None:
    if math.isfinite(reduced):
        return
    raise VfeError(
        Diagnostic(
            "non-finite",
            f"the variational free energy is {reduced} after step {step}",
            notes=("a sample of the guide has an energy that is not a number, or the parameters have diverged",),
            hints=("look for a division by zero or a logarithm of zero in the interactions", "lower the learning rate"),
        ),
        exit_code=3,
    )
