"""Discrete fields beside continuous ones: Metropolis moves of single states, by differences of the whole energy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from vdsl.estimate.phase_space import Position, Target
from vdsl.ir.support import cardinality


def partner_sweep(target: Target, key: Array, x: Position, weight: Array) -> tuple[Position, Array]:
    """As many proposals as there are discrete values: another state of a random element, in every configuration.

    The density is e^{−weight·βE}, the reference being uniform in discrete fields. Returns the fraction taken.
    """
    taken, proposed = jnp.zeros(()), 0
    for number, s in enumerate(target.spaces):
        if s.kind == "discrete":
            x, count = _single(target, s.field, cardinality(s.support), jax.random.fold_in(key, number), x, weight)
            taken, proposed = taken + count, proposed + s.elements
    return x, taken / max(proposed, 1)


def _single(target: Target, field: str, q: int, key: Array, x: Position, weight: Array) -> tuple[Position, Array]:
    batch, elements = x[field].shape
    rows = jnp.arange(batch)

    def propose(carry: tuple[Array, Array, Array], key: Array) -> tuple[tuple[Array, Array, Array], None]:
        states, energy, taken = carry
        which, what, accept = jax.random.split(key, 3)
        element = jax.random.randint(which, (batch,), 0, elements)
        step = jax.random.randint(what, (batch,), 1, q)
        new = states.at[rows, element].set((states[rows, element] + step) % q)
        trial = target.energy({**x, field: new})
        yes = jax.random.uniform(accept, (batch,)) < jnp.exp(jnp.minimum(weight * (energy - trial), 0.0))
        return (jnp.where(yes[:, None], new, states), jnp.where(yes, trial, energy), taken + yes.mean()), None

    start = (x[field], target.energy(x), jnp.zeros(()))
    (states, _, taken), _ = jax.lax.scan(propose, start, jax.random.split(key, elements))
    return {**x, field: states}, taken
