"""The symmetries of a model as moves of whole configurations that change no energy: accepted with probability one.

Only what is inferred from the terms is used, since that holds for certain. They make wells and directions that a
symmetry relates equally likely, whatever the chain can cross.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from vdsl.errors import InternalError
from vdsl.estimate.phase_space import Position, Space
from vdsl.ir.program import Program
from vdsl.ir.support import Real, cardinality
from vdsl.ir.symmetry import Symmetry, infer
from vdsl.lowering.kernels import working_dtype

_KINDS = ("z2", "shift", "rotation")


def global_moves(program: Program, theta: Mapping[str, float]) -> tuple[Symmetry, ...]:
    """The inferred symmetries that act on a position as a sign, a common angle or a common rotation."""
    return tuple(s for s in infer(program, theta) if s.kind in _KINDS)


def move_globally(moves: tuple[Symmetry, ...], spaces: tuple[Space, ...], key: Array, x: Position) -> Position:
    """x after an independent random element of every symmetry, another one for each configuration."""
    x, at = dict(x), {s.field: s for s in spaces}
    for number, move in enumerate(moves):
        k = jax.random.fold_in(key, number)
        b = len(next(iter(x.values())))
        match move.kind:
            case "z2":
                flip = jax.random.bernoulli(k, 0.5, (b,))
                for name in move.fields:
                    x[name] = _where(flip, _negated(at[name], x[name]), x[name])
            case "shift":
                steps = jax.random.randint(k, (b,), 0, max(move.order, 1))
                angle = jax.random.uniform(k, (b,), working_dtype(), -jnp.pi, jnp.pi)
                angle = 2 * jnp.pi * steps / move.order if move.order else angle
                for name, weight in zip(move.fields, move.weights, strict=True):
                    x[name] = _shifted(at[name], x[name], angle, steps, weight, move.order)
            case "rotation":
                n = at[move.fields[0]].k
                matrix = jax.random.orthogonal(k, n, (b,), working_dtype())
                if move.group.startswith("SO"):
                    matrix = matrix.at[:, :, 0].multiply(jnp.linalg.det(matrix)[:, None])
                for name in move.fields:
                    x[name] = jnp.einsum("bij,bej->bei", matrix, x[name])
    return x


def _where(condition: Array, yes: Array, no: Array) -> Array:
    return jnp.where(condition.reshape(-1, *[1] * (yes.ndim - 1)), yes, no)


def _negated(space: Space, x: Array) -> Array:
    match space.kind:
        case "discrete":
            return 1 - x
        case "circle":
            return x + jnp.pi  # the group element −1
    return -x


def _shifted(space: Space, x: Array, angle: Array, steps: Array, weight: int, order: int) -> Array:
    match space.kind:
        case "circle":
            return x + weight * angle[:, None, None]
        case "discrete":
            q = cardinality(space.support)
            return (x + (steps * weight * (q // order))[:, None]) % q
        case "flat" if not isinstance(space.support, Real):
            c, s = jnp.cos(weight * angle)[:, None], jnp.sin(weight * angle)[:, None]
            return jnp.stack([c * x[..., 0] - s * x[..., 1], s * x[..., 0] + c * x[..., 1]], -1)
    raise InternalError(f"no shift of {space}")
