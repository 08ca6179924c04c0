"""Gradient estimators: a guide and samples into a surrogate to differentiate. The surrogate is never printed."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vdsl.guides.guide import Guide, Params, log_ess


class BatchStatistics(NamedTuple):
    """What one batch says, for the log only: reduced variational free energy, variance of ln w, ESS."""

    reduced_free_energy: Array
    variance: Array
    ess: Array


def score_function(guide: Guide, params: Params, key: Array, n: int, scale: Array) -> tuple[Array, BatchStatistics]:
    """The score-function surrogate with a leave-one-out baseline.

        ∇F̃ = E_{z~q}[(r(z) − b) ∇ln q(z)],   r = u + ln q,   b_i = mean of r over the other samples,

    unbiased because b_i does not depend on z_i and E[∇ln q] = 0; the term E[∇ln q] from differentiating ln q inside r
    vanishes likewise. The variance of r − b goes to zero with the guide's error, so the gradient's does too.
    Returns (surrogate, statistics); n ≥ 2. Kool, van Hoof & Welling 2019; Mnih & Rezende 2016.
    """
    z = jax.lax.stop_gradient(guide.sample_latent(params, key, n, scale))
    log_q = guide.latent_log_prob(params, z, scale)
    r = jax.lax.stop_gradient(guide.latent_energy(z, scale) + log_q)
    advantage = (r - jnp.mean(r)) * (n / (n - 1))  # = r_i − mean_{j≠i} r_j
    return jnp.mean(advantage * log_q), BatchStatistics(jnp.mean(r), jnp.var(r), jnp.exp(log_ess(-r)))
