"""Model -> NumPyro: one sample site per field, under its base measure, and one factor −H/T.

    p(x) ∝ Π_fields base(x_f) · e^{−H(x)/T}

| field               | site                                                                                      |
|---------------------|-------------------------------------------------------------------------------------------|
| real, complex       | flat on R (complex: two real sites, `NAME_re` and `NAME_im`), started by a standard normal |
| angle               | uniform on (−π, π]                                                                         |
| sphere(n)           | `NAME_normal` standard normal in Rⁿ, normalised: uniform on the sphere                     |
| U(1)                | `NAME_angle` uniform on (−π, π], exponentiated                                             |
| SU(2)               | `NAME_normal` standard normal quaternions, normalised: Haar                                |
| discrete            | a uniform categorical site `NAME_state` of state indices                                |

Densities with respect to Lebesgue or Haar measure are those of `Model.log_density` up to a constant. SU(3) has no
chart here that samplers can use: `unsupported-support`.

NumPyro's gradient samplers need models without discrete sites: `NUTS` refuses them, and nothing here sums them. For
those models `vdsl sample --method hmc` alternates trajectories with updates of the discrete fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints

from vdsl.errors import Diagnostic, VfeError
from vdsl.interop.unconstrained import quaternion_matrix
from vdsl.ir.program import Field
from vdsl.ir.support import (
    Angle,
    Clock,
    Complex,
    Group,
    Occupation,
    Potts,
    Real,
    Sphere,
    Spin,
    cardinality,
    describe,
    event_shape,
    stored_states,
)


def numpyro_model(model: Any) -> Callable[..., None]:
    """A NumPyro model of a `vdsl.model.Model`; call it with `params` to override parameters.

    Every field is also recorded as a deterministic site under its own name, in the form that the model stores.
    Raises `unsupported-support` for SU(3).
    """
    for field in model.fields:
        if field.support == Group("SU3"):
            raise _unsupported(field)

    def sampled(params: dict[str, Any] | None = None) -> None:
        x = {f.name: _sample(f, model.program.elements(f)) for f in model.fields}
        numpyro.factor("energy", model.log_density(x, params))

    return sampled


def _sample(field: Field, n: int) -> Any:
    """The value of a field, shape (n, *event)."""
    name = field.name
    match field.support:
        case Real():
            return numpyro.sample(name, _flat((n, *event_shape(field.support))))
        case Complex():
            real, imaginary = numpyro.sample(f"{name}_re", _flat((n,))), numpyro.sample(f"{name}_im", _flat((n,)))
            return numpyro.deterministic(name, real + 1j * imaginary)
        case Angle():
            return numpyro.sample(name, _circle(n))
        case Sphere(dimension):
            return numpyro.deterministic(name, _unit(name, n, dimension))
        case Group("U1"):
            return numpyro.deterministic(name, jnp.exp(1j * numpyro.sample(f"{name}_angle", _circle(n))))
        case Group("SU2"):
            return numpyro.deterministic(name, quaternion_matrix(_unit(name, n, 4)))
        case Spin() | Potts() | Clock() | Occupation():
            q = cardinality(field.support)
            site = dist.Categorical(logits=jnp.zeros((n, q))).to_event(1)
            state = numpyro.sample(f"{name}_state", site)
            return numpyro.deterministic(name, jnp.asarray(stored_states(field.support))[state])
    raise _unsupported(field)


def _flat(shape: tuple[int, ...]) -> dist.Distribution:
    return dist.ImproperUniform(constraints.independent(constraints.real, len(shape)), (), shape)


def _circle(n: int) -> dist.Distribution:
    return dist.Uniform(-jnp.pi, jnp.pi).expand([n]).to_event(1)


def _unit(name: str, n: int, dimension: int) -> Any:
    v = numpyro.sample(f"{name}_normal", dist.Normal(0.0, 1.0).expand([n, dimension]).to_event(2))
    return v / jnp.linalg.norm(v, axis=-1, keepdims=True)


def _unsupported(field: Field) -> VfeError:
    return VfeError(
        Diagnostic(
            "unsupported-support",
            f"NumPyro has no sample site for `{field.name}` : {describe(field.support)}",
            notes=("expected spin, potts, clock, occupation, real, complex, angle, sphere, U(1) or SU(2)",),
            hints=("`model.log_density` is a JAX function that any other sampler can use",),
        ),
        exit_code=2,
    )
