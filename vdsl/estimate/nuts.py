"""A model with continuous fields into chains of the No-U-Turn sampler, NumPyro's or BlackJAX's: an answer of others.

They share the compiled energy with `hmc` and nothing else: coordinates, integrator, adaptation are their own.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.errors import VfeError
from vdsl.estimate.hmc import FieldChains, describe_chains, non_finite
from vdsl.interop.blackjax import blackjax_nuts, to_blackjax
from vdsl.interop.unconstrained import Unconstrained
from vdsl.model import Model

_WARM_UP = 300  # trajectories at least


def sample_nuts(
    model: Model,
    theta: Mapping[str, float],
    key: Array,
    chains: int = 32,
    kept: int = 512,
    thin: int = 1,
    library: str = "numpyro",
) -> FieldChains:
    """Chains from independent starts, one sample kept after every `thin` trajectories; kept/4 more are thrown away.

    library: "numpyro" or "blackjax". Raises VfeError `unsupported-support` (discrete fields, SU(3)), `no-blackjax`,
    `non-finite`.
    """
    warm_up = max(_WARM_UP, kept * thin // 4)
    parameters = {name: float(value) for name, value in theta.items()}
    if library == "blackjax":
        stored, rate, steps = blackjax_nuts(to_blackjax(model, parameters), key, chains, kept, thin, warm_up)
    else:
        stored, rate, steps = _numpyro(Unconstrained(model, parameters), key, chains, kept, thin, warm_up)
    x = {f: np.asarray(v) for f, v in stored.items()}
    if not all(np.isfinite(v).all() for v in x.values()):
        raise _diverged()
    rates = {"acceptance": float(rate), "steps": float(steps), "step_size": float("nan"), "discrete": 0.0}
    return describe_chains(model, theta, x, rates, "nuts" if library == "numpyro" else "blackjax")


def _numpyro(
    door: Unconstrained, key: Array, chains: int, kept: int, thin: int, warm_up: int
) -> tuple[dict[str, Array], Array, Array]:
    from numpyro.infer import MCMC, NUTS

    kernel = NUTS(potential_fn=lambda z: -door.log_density(z), max_tree_depth=8)
    mcmc = MCMC(
        kernel, num_warmup=warm_up, num_samples=kept * thin, num_chains=chains, thinning=thin,
        chain_method="vectorized", progress_bar=False,
    )  # fmt: skip
    start_key, run_key = jax.random.split(key)
    start = jax.vmap(door.start)(jax.random.split(start_key, chains))
    mcmc.run(run_key, init_params=start, extra_fields=("accept_prob", "num_steps"))
    z = mcmc.get_samples(group_by_chain=True)
    extra = mcmc.get_extra_fields()
    stored = jax.jit(jax.vmap(jax.vmap(door.configuration)))(z)
    return stored, jnp.mean(extra["accept_prob"]), jnp.mean(extra["num_steps"])


def _diverged() -> VfeError:
    return non_finite("a field has run away")
