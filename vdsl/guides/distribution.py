"""Distribution: a guide at fixed parameters as a distrax distribution over configurations."""

from __future__ import annotations

import distrax
import jax
from jax import Array

from vdsl.guides.guide import Configuration, Guide, Params


class GuideDistribution(distrax.Distribution):
    """A guide at fixed parameters. Events are configurations: {field: (elements, *event_shape)}."""

    def __init__(self, guide: Guide, params: Params):
        self.guide = guide
        self.params = params

    def _sample_n(self, key: Array, n: int) -> Configuration:
        return self.guide.sample_and_log_prob(self.params, key, n)[0]

    def _sample_n_and_log_prob(self, key: Array, n: int) -> tuple[Configuration, Array]:
        return self.guide.sample_and_log_prob(self.params, key, n)

    def log_prob(self, value: Configuration) -> Array:
        """ln q; value leaves (…, elements)."""
        lead = next(iter(value.values())).shape[:-1]
        flat = {k: v.reshape(-1, v.shape[-1]) for k, v in value.items()}
        return self.guide.log_prob(self.params, flat).reshape(lead)

    @property
    def event_shape(self) -> dict[str, tuple[int, ...]]:
        """Shape of one configuration, field by field."""
        x = jax.eval_shape(lambda k: self.guide.sample_and_log_prob(self.params, k, 1)[0], jax.random.key(0))
        return {name: tuple(leaf.shape[1:]) for name, leaf in x.items()}
