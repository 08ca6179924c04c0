"""Vector field: velocities made of pairs, dx_i/dt = Σ_j K_ij(t) h(x_j) g(x_i), shared by the symmetries of a lattice.

For real variables, in units of the typical spread,

    dx_i/dt = c_i + s_i x_i + Σ_n (A_in sin ν_n x_i + B_in cos ν_n x_i)/ν_n

    c_i, B_in: odd features of the others,   Σ_j K_ij(t) {x_j, sin ω_f x_j}
    s_i, A_in: even features of the others,  k(t) + Σ_j K_ij(t) {1, cos ω_f x_j}

(Gerdes, de Haan, Rainone, Bondesan & Cheng 2022, arXiv:2207.00283, have c_i and constant A_in; to gate by the others
costs little more.) It is odd under a global change of sign; where the model is not, every feature feeds every
coefficient. For angles

    dθ_i/dt = Σ_n Σ_j K_ijn(t) sin(n(θ_j − θ_i)) / n,

which commutes with a global rotation. K_ij depends on the class of the pair alone: the displacement up to the
point group, for all distances on the lattice. In time K is piecewise linear between knots. K = 0 at fresh parameters.

The divergence is a sum over i of what the velocity of i has in x_i itself; `move` has its integral in closed form.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from vdsl.guides.integrate import affine_flow, affine_flow_inverse, rotor_flow

Weights = dict[str, Array]
PAIR_KERNELS = ("odd", "even", "odd_to_even", "even_to_odd", "pair")


class Dense(eqx.Module):
    """All pairs of targets and sources: index (targets, sources), the class of each."""

    index: Array

    def apply(self, kernel: Array, features: Array) -> Array:
        """Σ_{f,j} K[o, f, class(i, j)] h_f(x_j): (o, f, classes) and (f, sources, b) -> (o, targets, b)."""
        return jnp.einsum("ofij,fjb->oib", kernel[..., self.index], features)


class RealField(eqx.Module):
    """The velocity of real variables; see the module. `odd`: whether it commutes with a global change of sign."""

    features: int = eqx.field(static=True)
    rotors: int = eqx.field(static=True)
    odd: bool = eqx.field(static=True)

    def init(self, key: Array, knots: int, pairs: int, sites: int) -> dict[str, Any]:
        """No velocity. Weights (knots, outputs, features, pair classes), biases (knots, outputs, site classes)."""
        outputs, odd, even = 1 + self.rotors, 1 + self.features, self.features
        kernels = {
            "odd": jnp.zeros((knots, outputs, odd, pairs)),
            "even": jnp.zeros((knots, outputs, even, pairs)),
            "bias": jnp.zeros((knots, outputs, sites)),
        }
        if not self.odd:
            kernels |= {
                "odd_to_even": jnp.zeros((knots, outputs, odd, pairs)),
                "even_to_odd": jnp.zeros((knots, outputs, even, pairs)),
                "bias_odd": jnp.zeros((knots, outputs, sites)),
            }
        return {
            "kernels": kernels,
            "omega": jnp.linspace(0.5, 0.5 * self.features, self.features),
            "log_nu": jnp.log(jnp.linspace(1.0, self.rotors, self.rotors)),
        }

    def coefficients(self, params: Weights, kernels: Weights, pairing: Dense, site: Array, x: Array) -> tuple:
        """(c, s, a, b) of the targets from the values x (sources, b) of all others; a and b (rotors, targets, b).

        site (targets,): the classes of the targets.
        """
        phase = params["omega"][:, None, None] * x
        odd = jnp.concatenate([x[None], jnp.sin(phase)])
        even = jnp.cos(phase)
        from_odd = pairing.apply(kernels["odd"], odd)
        from_even = pairing.apply(kernels["even"], even) + kernels["bias"][:, site, None]
        if not self.odd:
            from_odd, from_even = (
                from_odd + pairing.apply(kernels["even_to_odd"], even) + kernels["bias_odd"][:, site, None],
                from_even + pairing.apply(kernels["odd_to_even"], odd),
            )
        return from_odd[0], from_even[0], from_even[1:], from_odd[1:]

    def move(self, params: Weights, x: Array, coefficients: tuple, h: float | Array) -> tuple[Array, Array]:
        """The targets (targets, b) after time h, and the sum of ln of the slopes (b,)."""
        shift, scale, a, b = coefficients
        x, log_det = affine_flow(x, h * scale, h * shift)
        for n in range(self.rotors):
            nu = jnp.exp(params["log_nu"][n])
            u, slope = rotor_flow(nu * x, h * a[n], h * b[n])
            x, log_det = u / nu, log_det + slope
        return x, log_det.sum(0)

    def move_back(self, params: Weights, x: Array, coefficients: tuple, h: float | Array) -> tuple[Array, Array]:
        """The inverse of `move`, the same coefficients given."""
        shift, scale, a, b = coefficients
        log_det = jnp.zeros_like(x)
        for n in reversed(range(self.rotors)):
            nu = jnp.exp(params["log_nu"][n])
            u, slope = rotor_flow(nu * x, -h * a[n], -h * b[n])
            x, log_det = u / nu, log_det + slope
        x, slope = affine_flow_inverse(x, h * scale, h * shift)
        return x, (log_det + slope).sum(0)


class AngleField(eqx.Module):
    """The velocity of angles; see the module. `free`: each angle has its own field; they cannot turn together."""

    harmonics: int = eqx.field(static=True)
    free: bool = eqx.field(static=True)

    def init(self, key: Array, knots: int, pairs: int, sites: int) -> dict[str, Any]:
        """No velocity."""
        kernels = {"pair": jnp.zeros((knots, self.harmonics, pairs))}
        if self.free:
            kernels["field"] = jnp.zeros((knots, 2 * self.harmonics, sites))
        return {"kernels": kernels}

    def coefficients(self, params: Weights, kernels: Weights, pairing: Dense, site: Array, x: Array) -> tuple:
        """(a, b) of the targets, (harmonics, targets, b), from the angles x (sources, b) of all others."""
        phase = jnp.arange(1, self.harmonics + 1, dtype=x.dtype)[:, None, None] * x
        # harmonics as a batch: each has its own features
        both = jax.vmap(lambda k, f: pairing.apply(k[None, None], f[None])[0])
        a, b = -both(kernels["pair"], jnp.cos(phase)), both(kernels["pair"], jnp.sin(phase))
        if self.free:
            own = kernels["field"][:, site, None]
            a, b = a + own[: self.harmonics], b + own[self.harmonics :]
        return a, b

    def move(self, params: Weights, x: Array, coefficients: tuple, h: float | Array) -> tuple[Array, Array]:
        """The targets (targets, b) after time h, and the sum of ln of the slopes (b,)."""
        a, b = coefficients
        log_det = jnp.zeros_like(x)
        for n in range(self.harmonics):
            u, slope = rotor_flow((n + 1) * x, h * a[n], h * b[n])
            x, log_det = u / (n + 1), log_det + slope
        return x, log_det.sum(0)

    def move_back(self, params: Weights, x: Array, coefficients: tuple, h: float | Array) -> tuple[Array, Array]:
        """The inverse of `move`, the same coefficients given."""
        a, b = coefficients
        log_det = jnp.zeros_like(x)
        for n in reversed(range(self.harmonics)):
            u, slope = rotor_flow((n + 1) * x, -h * a[n], -h * b[n])
            x, log_det = u / (n + 1), log_det + slope
        return x, log_det.sum(0)
