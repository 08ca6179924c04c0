"""Local phases: gauge freedom of U(1) taken out of a density exactly, by pinning the angles of a tree at 0.

Every configuration is one whose pinned angles are 0 and a gauge transformation α that is 0 at the roots of the trees,
uniquely and with unit Jacobian (ir/pinning.py; complex matter is described by lengths and phases). With α uniform and
any density q' of the angles and matter that are left,

    ln q(x) = ln q'(x') − (pinned angles) · ln 2π

is normalised and gauge invariant whatever has been learned. A root's own α moves no link; it is a global phase of the
matter, which frames.py takes out.
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers, reals
from vdsl.ir.pinning import Pins


class LocalPhases(eqx.Module):
    """Whole values (V, b) from those that are left (K, b), and back: `ir.pinning.Pins`. kept (K,): which are left."""

    angles: Array
    start: Array
    end: Array
    charge: Array
    paths: Array
    signs: Array
    free: Array
    kept: Array
    n_variables: int = eqx.field(static=True)

    @property
    def log_measure(self) -> float:
        """−ln of the volume of the transformations, in Lebesgue measure."""
        return -(self.n_variables - self.kept.shape[0]) * math.log(2 * math.pi)

    def fixed(self, values: Array) -> Array:
        """What is left of values (V, b) in the gauge where the pinned angles are 0."""
        alpha = jnp.sum(self.signs[..., None] * values[self.paths], axis=1)
        return self._moved(values, alpha)[self.kept]

    def spread(self, key: Array, values: Array) -> Array:
        """A uniformly drawn gauge transformation of values (K, b), the pinned angles being 0."""
        whole = jnp.zeros((self.n_variables, values.shape[1]), values.dtype).at[self.kept].set(values)
        shape = self.free.shape[0], values.shape[1]
        return self._moved(whole, self.free * jax.random.uniform(key, shape, minval=-jnp.pi, maxval=jnp.pi))

    def _moved(self, values: Array, alpha: Array) -> Array:
        """Values after the transformation alpha, angles within (−π, π]."""
        turned = values[self.angles] + self.charge * (alpha[self.start] - alpha[self.end])
        return values.at[self.angles].set(turned - 2 * jnp.pi * jnp.round(turned / (2 * jnp.pi)))


def build_local_phases(pins: Pins, n_variables: int) -> LocalPhases:
    """The pins as arrays."""
    return LocalPhases(
        angles=integers(pins.edges.variables),
        start=integers(pins.edges.start),
        end=integers(pins.edges.end),
        charge=reals(pins.edges.charge[:, None]),
        paths=integers(pins.paths),
        signs=reals(pins.signs),
        free=reals(pins.free[:, None]),
        kept=integers(np.setdiff1d(np.arange(n_variables), pins.pinned)),
        n_variables=n_variables,
    )
