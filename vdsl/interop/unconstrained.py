"""Model -> a log density on Rᴰ, for gradient-based samplers of other libraries.

| field               | unconstrained                                        | log density adds            |
|---------------------|------------------------------------------------------|-----------------------------|
| real, complex       | itself (complex: re, im)                             |                             |
| angle, U(1)         | any real number; taken mod 2π                        |                             |
| sphere(n), SU(2)    | a vector of Rⁿ (R⁴) over its length                  | −½ |vector|²                |

Angles unroll: the density is periodic and no sampler meets a wall at ±π. Of vectors the length is an independent χ
variable, and their direction has the model's density. Discrete fields and SU(3) have no such coordinates.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from vdsl.errors import Diagnostic, VfeError
from vdsl.ir.program import Field
from vdsl.ir.support import Angle, Complex, Group, Real, Sphere, describe, event_shape, is_discrete
from vdsl.lowering.kernels import working_dtype


class Unconstrained:
    """`log_density(z)` of z {field: array}, `start(key)`, and `configuration(z)` as the model stores it.

    Raises VfeError `unsupported-support` for fields that have no such coordinates.
    """

    def __init__(self, model: Any, params: Mapping[str, Any] | None = None):
        for field in model.fields:
            if is_discrete(field.support) or field.support == Group("SU3"):
                raise _unsupported(field)
        self.model, self.params = model, dict(params or {})

    def start(self, key: Array) -> dict[str, Array]:
        """Independent values: angles and directions uniform, real numbers standard normal."""
        out = {}
        for number, f in enumerate(self.model.fields):
            k, shape = jax.random.fold_in(key, number), (self.model.program.elements(f), *_shape(f))
            circle = f.support in (Angle(), Group("U1"))
            out[f.name] = (
                jax.random.uniform(k, shape, working_dtype(), -jnp.pi, jnp.pi)
                if circle
                else jax.random.normal(k, shape, working_dtype())
            )
        return out

    def configuration(self, z: Mapping[str, Array]) -> dict[str, Array]:
        """{field: (elements, *event)}."""
        return {f.name: _value(f, z[f.name]) for f in self.model.fields}

    def log_density(self, z: Mapping[str, Array]) -> Array:
        """−H/T and the density of lengths, up to a constant."""
        total = self.model.log_density(self.configuration(z), self.params)
        for f in self.model.fields:
            if isinstance(f.support, Sphere) or f.support == Group("SU2"):
                total -= 0.5 * (z[f.name] ** 2).sum()
        return total


def quaternion_matrix(q: Array) -> Array:
    """Unit quaternions (…, 4) as SU(2) matrices (…, 2, 2)."""
    a, b, c, d = jnp.moveaxis(q, -1, 0)
    rows = [[a + 1j * d, c + 1j * b], [-c + 1j * b, a - 1j * d]]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def _shape(field: Field) -> tuple[int, ...]:
    match field.support:
        case Complex():
            return (2,)
        case Group("SU2"):
            return (4,)
    return event_shape(field.support)


def _value(field: Field, z: Array) -> Array:
    match field.support:
        case Real():
            return z
        case Complex():
            return jax.lax.complex(z[..., 0], z[..., 1])
        case Angle():
            return z - 2 * jnp.pi * jnp.ceil((z - jnp.pi) / (2 * jnp.pi))
        case Group("U1"):
            return jnp.exp(1j * z)
        case Sphere():
            return z / jnp.linalg.norm(z, axis=-1, keepdims=True)
        case Group("SU2"):
            return quaternion_matrix(z / jnp.linalg.norm(z, axis=-1, keepdims=True))
    raise _unsupported(field)


def _unsupported(field: Field) -> VfeError:
    return VfeError(
        Diagnostic(
            "unsupported-support",
            f"samplers on Rᴰ cannot move `{field.name}` : {describe(field.support)}",
            notes=("expected real, complex, angle, sphere, U(1) or SU(2) fields only",),
            hints=("`vdsl sample --method hmc` moves fields of every type, discrete ones by single-state updates",),
        ),
        exit_code=2,
    )
