"""A model with continuous fields into Markov chains of local updates: heat baths and Metropolis steps, by colours.

The elements of a colour do not feel each other, so one gradient of the energy serves all of them:

    circle, SU(N)   where −βE is linear in each element (Wilson's action and the like) its staple is the gradient, and
                    the element is drawn from its conditional (`heat_baths`)
    all others      a step along a geodesic, accepted with e^{−ΔβE}; ΔβE of every element by itself is the integral of
                    its gradient along the path, by Gauss–Legendre quadrature. The nodes are symmetric, so that the way
                    back costs exactly the negative

Which it is, and whether the quadrature is good, is tried on random configurations; energies with kinks are refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.errors import Diagnostic, VfeError
from vdsl.estimate.colours import colour_masks, gradient
from vdsl.estimate.heat_baths import draw_special_unitary, draw_von_mises
from vdsl.estimate.hmc import FieldChains, check_finite, describe_chains, precision
from vdsl.estimate.partners import partner_sweep
from vdsl.estimate.phase_space import Position, Space, Target, decode, drift, make_target, moving, tidy
from vdsl.ir import interpret
from vdsl.lowering.kernels import working_dtype
from vdsl.model import Model

ACCEPTANCE = 0.5  # of Metropolis steps
_ROWS = 32  # rows of kept samples that one call of the compiled program makes
_BURN_IN = 200  # sweeps, at least
_LONGEST = 3.0  # Metropolis step on a compact manifold
_NODES = 6
_LINEAR = 2e-4  # relative change of a staple that is rounding, in single precision
_QUADRATURE = 5e-3  # error of ΔβE that is none, in units of its own size and of 1


class Plan(eqx.Module):
    """masks {field: (colours, elements)}; baths: the fields with heat baths."""

    masks: dict[str, Array]
    baths: tuple[str, ...] = eqx.field(static=True)


State = tuple[Position, dict[str, Array]]  # positions, and the Metropolis step of every field


def sample_local(
    model: Model,
    theta: Mapping[str, float],
    key: Array,
    chains: int = 32,
    kept: int = 512,
    thin: int = 4,
    burn_in: int | None = None,
    on_stage: Callable[[str], None] = lambda _: None,
) -> tuple[FieldChains, tuple[str, ...]]:
    """Chains from independent random starts, one sample kept after every `thin` sweeps, and the fields with heat baths.

    burn_in: sweeps thrown away, a quarter of the others if None, and 200 at least. `acceptance` is that of Metropolis
    steps, 1 where all fields have heat baths. Raises VfeError `method-cannot-serve`, `non-finite`.
    """
    temperature = float(interpret.temperature(model.program, dict(theta)))
    start_key, plan_key, burn_key, run_key = jax.random.split(key, 4)
    with precision(model, theta, temperature, start_key, chains):
        target = make_target(model, theta, temperature)
        x = target.draw_reference(start_key, chains)
        on_stage("looking for what does not interact")
        plan = make_plan(target, plan_key)
        steps = {s.field: jnp.full((), 0.5, working_dtype()) for s in moving(target.spaces)}
        rows = min(_ROWS, kept)
        on_stage("burning in")
        state: State = (x, steps)
        wanted = max(kept * thin // 4 if burn_in is None else burn_in, _BURN_IN)
        for number in range(math.ceil(wanted / (rows * thin))):
            state, _ = advance(target, plan, jax.random.fold_in(burn_key, number), state, jnp.ones(()), rows, thin)
        check_finite(target, state[0])
        on_stage("running local updates")
        parts, rates = [], []
        for number in range(math.ceil(kept / rows)):
            key = jax.random.fold_in(run_key, number)
            state, (stored, acceptance, discrete) = advance(target, plan, key, state, jnp.zeros(()), rows, thin)
            parts.append({f: np.asarray(v) for f, v in stored.items()})
            rates.append((float(acceptance), float(discrete)))
    found = {f: np.concatenate([p[f] for p in parts])[:kept].swapaxes(0, 1) for f in parts[0]}
    mean = np.mean(rates, axis=0)
    metropolis = [float(v) for f, v in state[1].items() if f not in plan.baths]
    rate = {"acceptance": mean[0], "discrete": mean[1], "steps": 1.0, "step_size": max(metropolis, default=0.0)}
    return describe_chains(model, theta, found, rate, "heatbath"), plan.baths


@eqx.filter_jit
def advance(
    target: Target, plan: Plan, key: Array, state: State, adapting: Array, rows: int, thin: int
) -> tuple[State, tuple[dict[str, Array], Array, Array]]:
    """rows × thin sweeps: the new state; stored configurations after every row, and mean rates of what was taken."""

    def sweep(state: State, key: Array) -> tuple[State, tuple[Array, Array]]:
        x, steps = state
        x, changed = partner_sweep(target, jax.random.fold_in(key, len(target.spaces)), x, jnp.ones(()))
        rates = []
        for number, s in enumerate(moving(target.spaces)):
            keys = jax.random.split(jax.random.fold_in(key, number), len(plan.masks[s.field]))
            inputs = (keys, plan.masks[s.field])
            if s.field in plan.baths:
                x = jax.lax.scan(partial(_bath_of, target, s), x, inputs)[0]
                continue
            x, taken = jax.lax.scan(partial(_metropolis_of, target, s, steps[s.field]), x, inputs)
            rate = taken.sum() / (s.elements * len(x[s.field]))
            longest = jnp.inf if s.kind == "flat" else _LONGEST
            grown = steps[s.field] * jnp.exp(0.1 * adapting * (rate - ACCEPTANCE))
            steps = steps | {s.field: jnp.minimum(grown, longest).astype(working_dtype())}
            rates.append(rate)
        mean = jnp.stack(rates).mean() if rates else jnp.ones(())
        return (tidy(target.spaces, x), steps), (mean, changed)

    def row(state: State, key: Array) -> tuple[State, Any]:
        state, rates = jax.lax.scan(sweep, state, jax.random.split(key, thin))
        return state, (decode(target.spaces, state[0]), *rates)

    state, (stored, acceptance, discrete) = jax.lax.scan(row, state, jax.random.split(key, rows))
    return state, (stored, acceptance.mean(), jnp.mean(discrete))


def _bath_of(target: Target, s: Space, x: Position, inputs: tuple[Array, Array]) -> tuple[Position, None]:
    return bath(target, s, inputs[0], x, inputs[1]), None


def _metropolis_of(
    target: Target, s: Space, step: Array, x: Position, inputs: tuple[Array, Array]
) -> tuple[Position, Array]:
    return metropolis(target, s, inputs[0], x, inputs[1], step)


# Updates of one colour: mask (elements,)


def bath(target: Target, s: Space, key: Array, x: Position, mask: Array) -> Position:
    """The masked elements drawn from their conditionals."""
    if s.kind == "circle":
        a, b = circle_field(target, s, x, mask)
        theta = x[s.field][..., 0]
        drawn = draw_von_mises(key, a, b, theta)
        return x | {s.field: jnp.where(mask, drawn, theta)[..., None]}
    return x | {s.field: draw_special_unitary(key, x[s.field], staples(target, s, x), mask[None])}


def circle_field(target: Target, s: Space, x: Position, mask: Array) -> tuple[Array, Array]:
    """a, b of βE = a cos θ + b sin θ + … for the masked elements, from the slopes at θ and θ + π/2."""
    theta = x[s.field][..., 0]
    turned = x | {s.field: x[s.field] + (mask * (jnp.pi / 2))[:, None].astype(x[s.field].dtype)}
    both = jax.tree.map(lambda *parts: jnp.concatenate(parts), x, turned)  # one gradient to compile
    here, there = jnp.split(gradient(target, both)[s.field][..., 0], 2)
    c, sine = jnp.cos(theta), jnp.sin(theta)
    return -(here * sine + there * c), here * c - there * sine


def staples(target: Target, s: Space, x: Position) -> Array:
    """A of −βE = Re tr(U A) + …, for all elements: (b, elements, n, n)."""
    # JAX's gradient of a real function is ∂/∂Re − i ∂/∂Im: dβE = Re Σ g_ij dU_ij
    g = jax.grad(lambda u: target.energy(x | {s.field: u}).sum())(x[s.field])
    return -g.swapaxes(-1, -2)


def metropolis(target: Target, s: Space, key: Array, x: Position, mask: Array, step: Array) -> tuple[Position, Array]:
    """A Metropolis step of every masked element; how many were taken."""
    move, accept = jax.random.split(key)
    shape = (len(x[s.field]), s.elements, s.k)
    v = step * jax.random.normal(move, shape, working_dtype()) * mask[:, None]
    if s.kind == "sphere":
        v = v - (v * x[s.field]).sum(-1, keepdims=True) * x[s.field]
    change = path_integral(target, s, x, v)
    taken = (jnp.log1p(-jax.random.uniform(accept, change.shape, change.dtype)) < -change) & mask
    new = moved(target, s, x, v, jnp.ones(()))[0]
    keep = taken.reshape(*taken.shape, *(1,) * (x[s.field].ndim - 2))
    return x | {s.field: jnp.where(keep, new[s.field], x[s.field])}, taken.sum()


def path_integral(target: Target, s: Space, x: Position, v: Array) -> Array:
    """ΔβE of every moved element along its geodesic, (b, elements): ∫₀¹ ∇βE · v dt."""
    nodes, weights = np.polynomial.legendre.leggauss(_NODES)

    def add(total: Array, node: tuple[Array, Array]) -> tuple[Array, None]:
        at, velocity = moved(target, s, x, v, node[0])
        return total + node[1] * (gradient(target, at)[s.field] * velocity).sum(-1), None

    inputs = (jnp.asarray((nodes + 1) / 2, v.dtype), jnp.asarray(weights / 2, v.dtype))
    return jax.lax.scan(add, jnp.zeros(v.shape[:2], v.dtype), inputs)[0]


def moved(target: Target, s: Space, x: Position, v: Array, time: Array) -> tuple[Position, Array]:
    """Positions and velocities after free motion of one field."""
    new, velocity = drift((s,), {s.field: x[s.field]}, {s.field: v}, time)
    return x | new, velocity[s.field]


# Planning


def make_plan(target: Target, key: Array) -> Plan:
    """Colours, and which fields have a heat bath. Raises `method-cannot-serve` for energies with kinks."""
    one, two, three = jax.random.split(key, 3)
    masks = {f: jnp.asarray(m) for f, m in colour_masks(target, one).items()}
    x, y = target.draw_reference(two, 4), target.draw_reference(three, 4)
    baths = []
    for s in moving(target.spaces):
        if s.kind in ("circle", "group") and all(float(_bend(target, s, x, y, m)) < _LINEAR for m in masks[s.field]):
            baths.append(s.field)
            continue
        for number, mask in enumerate(masks[s.field]):
            error = float(_error(target, s, jax.random.fold_in(key, number), x, mask))
            if not error < _QUADRATURE:
                raise VfeError(
                    Diagnostic(
                        "method-cannot-serve",
                        f"the energy is not a smooth function of `{s.field}`, as local updates need",
                        notes=(f"the integral of its gradient misses the change of the energy by {error:.1g}",),
                        hints=("`--method hmc` needs gradients as well, but accepts by energies",),
                    ),
                    exit_code=2,
                )
    return Plan(masks, tuple(baths))


@eqx.filter_jit
def _bend(target: Target, s: Space, x: Position, y: Position, mask: Array) -> Array:
    """How far −βE is from linear in the masked elements, relative to the largest staple."""
    if s.kind == "circle":
        a, b = circle_field(target, s, x, mask)
        shift = x[s.field][..., 0] + 0.7 * mask
        g = gradient(target, x | {s.field: shift[..., None]})[s.field][..., 0]
        difference = g + a * jnp.sin(shift) - b * jnp.cos(shift)
        size = jnp.hypot(a, b)
    else:
        changed = jnp.where(mask[:, None, None], y[s.field], x[s.field])
        both = jax.tree.map(lambda *parts: jnp.concatenate(parts), x, x | {s.field: changed})
        here, there = jnp.split(staples(target, s, both), 2)
        difference = jnp.abs(there - here).max((-1, -2))
        size = jnp.abs(here).max((-1, -2))
    return (jnp.abs(difference) * mask).max() / jnp.maximum((size * mask).max(), jnp.finfo(size.dtype).tiny)


@eqx.filter_jit
def _error(target: Target, s: Space, key: Array, x: Position, mask: Array) -> Array:
    """Error of the summed ΔβE against the energy itself, relative where it is large."""
    v = 0.5 * jax.random.normal(key, (len(x[s.field]), s.elements, s.k), working_dtype()) * mask[:, None]
    if s.kind == "sphere":
        v = v - (v * x[s.field]).sum(-1, keepdims=True) * x[s.field]
    parts = path_integral(target, s, x, v)
    change = target.energy(moved(target, s, x, v, jnp.ones(()))[0]) - target.energy(x)
    rounding = 30 * jnp.finfo(change.dtype).eps * jnp.abs(target.energy(x)).max()
    return (jnp.abs(parts.sum(1) - change) / (1 + jnp.abs(parts).sum(1) + rounding / _QUADRATURE)).max()
