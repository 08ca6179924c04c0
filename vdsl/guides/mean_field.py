"""Mean field: every letter independent, q(x) = ∏_v q_v(x_v). The plainest baseline: F_q is the mean-field free energy.

It breaks symmetries where that lowers F_q, and misses the correlations; both show in its effective sample size.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.alphabet import Alphabet, Codec
from vdsl.guides.arrays import reals
from vdsl.guides.factors import Energy, typical_field
from vdsl.guides.guide import Configuration, Guide, Params


class MeanField(Guide):
    """Logits (n, Q), trained; valid (n, Q) says which states exist."""

    beta: Array
    typical_field: Array
    valid: Array
    energy: Energy
    codec: Codec = eqx.field(static=True)

    def anneal_from(self) -> float:
        return min(1.0, 2.0 / float(self.typical_field))

    def init(self, key: Array) -> Params:
        # A small random start: the symmetric point is stationary even where it is a saddle.
        return {"logits": jax.random.uniform(key, self.valid.shape, minval=-0.2, maxval=0.2)}

    def sample_latent(self, params: Params, key: Array, n: int, scale: Array) -> Array:
        return jax.random.categorical(key, self._log_p(params), shape=(n, self.codec.n)).T.astype(jnp.int32)

    def latent_log_prob(self, params: Params, z: Array, scale: Array) -> Array:
        return jnp.sum(jnp.take_along_axis(self._log_p(params), z, axis=1), axis=0)

    def latent_energy(self, z: Array, scale: Array) -> Array:
        return scale * self.beta * self.energy(z)

    def sample_and_log_prob(self, params: Params, key: Array, n: int) -> tuple[Configuration, Array]:
        one = jnp.ones(())
        z = self.sample_latent(params, key, n, one)
        return self.codec.decode(z), self.latent_log_prob(params, z, one)

    def log_prob(self, params: Params, x: Configuration) -> Array:
        return self.latent_log_prob(params, self.codec.encode(x), jnp.ones(()))

    def _log_p(self, params: Params) -> Array:
        return jax.nn.log_softmax(jnp.where(self.valid, params["logits"], -jnp.inf), axis=1)


def build_mean_field(alphabet: Alphabet, energy: Energy, temperature: float) -> MeanField:
    """The guide at one temperature."""
    valid = jax.device_put(np.arange(alphabet.q)[None] < np.asarray(alphabet.sizes)[:, None])
    beta, strength = reals(1.0 / temperature), typical_field(alphabet, temperature)
    return MeanField(beta, reals(strength), valid, energy, alphabet.codec)
