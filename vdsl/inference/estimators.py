"""Gradient estimators: a guide and samples into a surrogate to differentiate. The surrogate is never printed.

With r(z) = u(z) + ln q(z), whose mean is the reduced variational free energy F̃:

| name            | gradient                                         | needs                                         |
|-----------------|--------------------------------------------------|-----------------------------------------------|
| score           | E[(r − b) ∇ ln q(z)], b the other samples' mean  | nothing: discrete fields, mixed fields        |
| reparameterised | E[∇ r(z(ε))]                                     | samples differentiable in the parameters      |
| path            | E[∂r/∂z · ∇z(ε)]                                 | the same, and ln q differentiable in z        |

All are unbiased. The noise of `score` and of `path` vanishes where r is constant, that is, with the guide's error; that
of `reparameterised` does not: it holds the score itself, whose mean is 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from vdsl.guides.guide import Guide, Params, log_ess


class BatchStatistics(NamedTuple):
    """What one batch says, for the log only: reduced variational free energy, variance of ln w, ESS."""

    reduced_free_energy: Array
    variance: Array
    ess: Array


Estimator = Callable[[Guide, Params, Array, int, Array], tuple[Array, BatchStatistics]]


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
    return jnp.mean(advantage * log_q), _statistics(r)


def reparameterised(guide: Guide, params: Params, key: Array, n: int, scale: Array) -> tuple[Array, BatchStatistics]:
    """F̃ of a batch as a function of the parameters through its samples z(ε; params) (Kingma & Welling 2014)."""
    z, log_q = guide.draw_latent(params, key, n, scale)
    r = guide.latent_energy(z, scale) + log_q
    return jnp.mean(r), _statistics(r)


def path_gradient(guide: Guide, params: Params, key: Array, n: int, scale: Array) -> tuple[Array, BatchStatistics]:
    """The same, with the parameters inside ln q held fixed: what is left out is E[∇ln q] = 0 (Roeder et al. 2017).

    Costs one evaluation of ln q at given z more than `reparameterised`.
    """
    z, _ = guide.draw_latent(params, key, n, scale)
    r = guide.latent_energy(z, scale) + guide.latent_log_prob(jax.lax.stop_gradient(params), z, scale)
    return jnp.mean(r), _statistics(r)


def _statistics(r: Any) -> BatchStatistics:
    r = jax.lax.stop_gradient(r)
    return BatchStatistics(jnp.mean(r), jnp.var(r), jnp.exp(log_ess(-r)))


ESTIMATORS: dict[str, Estimator] = {
    "score": score_function,
    "reparameterised": reparameterised,
    "path": path_gradient,
}
