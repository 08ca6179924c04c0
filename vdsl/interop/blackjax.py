"""Model -> BlackJAX: a log density on Rᴰ with starting points, and a NUTS run over it. BlackJAX is optional.

door = to_blackjax(model)
kernel = blackjax.nuts(door.log_density, step_size=0.1, inverse_mass_matrix=...)
state = kernel.init(door.start(key))            # any BlackJAX kernel that takes a log density
x = door.configuration(state.position)          # as the model stores it
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import jax
from jax import Array

from vdsl.errors import Diagnostic, VfeError
from vdsl.interop.unconstrained import Unconstrained


def to_blackjax(model: Any, params: Mapping[str, Any] | None = None) -> Unconstrained:
    """The log density of a model for BlackJAX. Raises VfeError `no-blackjax`, `unsupported-support`."""
    require_blackjax()
    return Unconstrained(model, params)


def require_blackjax() -> Any:
    """The module. Raises VfeError `no-blackjax` (exit code 2) if it is not installed."""
    try:
        return import_module("blackjax")
    except ImportError as error:
        raise VfeError(
            Diagnostic(
                "no-blackjax",
                f"BlackJAX cannot be imported: {error}",
                hints=('`pip install "vdsl[blackjax]"`, or `--method nuts`, which needs nothing more',),
            ),
            exit_code=2,
        ) from None


def blackjax_nuts(
    door: Unconstrained, key: Array, chains: int, kept: int, thin: int, warmup: int
) -> tuple[dict[str, Array], Array, Array]:
    """Stored configurations {field: (chains, kept, …)}, acceptances and leapfrog steps, means over all.

    Stan's window adaptation on each chain by itself, all chains in one program.
    """
    blackjax = require_blackjax()

    def one(key: Array) -> tuple[dict[str, Array], Array, Array]:
        start, warm, run = jax.random.split(key, 3)
        adaptation = blackjax.window_adaptation(blackjax.nuts, door.log_density)
        (state, tuned), _ = adaptation.run(warm, door.start(start), num_steps=warmup)
        kernel = blackjax.nuts(door.log_density, **tuned)

        def keep(state: Any, key: Array) -> tuple[Any, tuple[dict[str, Array], Array, Array]]:
            step = lambda state, key: kernel.step(key, state)  # noqa: E731
            state, info = jax.lax.scan(step, state, jax.random.split(key, thin))
            kept = door.configuration(state.position)
            return state, (kept, info.acceptance_rate.mean(), info.num_integration_steps.mean())

        _, (x, rate, steps) = jax.lax.scan(keep, state, jax.random.split(run, kept))
        return x, rate.mean(), steps.mean()

    x, rates, steps = jax.jit(jax.vmap(one))(jax.random.split(key, chains))
    return x, rates.mean(), steps.mean()
