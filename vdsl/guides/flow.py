"""Flow: a base density pushed through a bijection, with what can be summed exactly left out of both.

    x = f(z),  z ~ base,   ln q(x) = ln base(z) − ln|det ∂f/∂z|

Everything is (b, D) in the model's chart. A *remainder* is a set of coordinates that do not interact with each other
once the rest is known: a flow then lives on the rest only (`kept`; the other entries are 0 and never read), training
sees u(x_kept) = −ln ∫ dx_rest e^{−βE}, and the remainder is drawn from its exact conditional.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from vdsl.guides.chart import Chart
from vdsl.guides.guide import Configuration, Guide, Params, Recipe
from vdsl.guides.problem import FlatEnergy


class Base(eqx.Module):
    """A density on (b, D) that training may deform: the start of a flow. Entries that are not kept are 0."""

    @abstractmethod
    def init(self, key: Array) -> Params:
        """Fresh parameters."""

    @abstractmethod
    def sample(self, params: Params, key: Array, n: int) -> Array:
        """n samples (n, D), differentiable in the parameters."""

    @abstractmethod
    def log_prob(self, params: Params, z: Array) -> Array:
        """ln base(z), shape (b,), over the kept coordinates."""


class Bijection(eqx.Module):
    """x = f(z) on (b, D), entry for entry 0 where not kept. Identity, or nearly so, at fresh parameters."""

    @abstractmethod
    def init(self, key: Array) -> Params:
        """Fresh parameters."""

    @abstractmethod
    def forward(self, params: Params, z: Array) -> tuple[Array, Array]:
        """f(z) and ln|det ∂f/∂z| at z, shapes (b, D) and (b,)."""

    @abstractmethod
    def inverse(self, params: Params, x: Array) -> tuple[Array, Array]:
        """f⁻¹(x) and ln|det ∂f⁻¹/∂x| at x."""


class Remainder(eqx.Module):
    """Coordinates that are independent given the kept ones, with their exact conditionals."""

    @abstractmethod
    def reduced_energy(self, x: Array, beta: Array) -> Array:
        """u = −ln ∫ dx_rest e^{−βE(x)} of (b, D) with the remainder's entries 0; differentiable in x."""

    @abstractmethod
    def sample(self, key: Array, x: Array, beta: Array) -> tuple[Array, Array]:
        """x with the remainder drawn, and ln q(x_rest | x_kept)."""

    @abstractmethod
    def log_prob(self, x: Array, beta: Array) -> Array:
        """ln q(x_rest | x_kept) of whole configurations."""


class Flow(Guide):
    """base, then bijection, then the remainder if any. `kept` (D,): 1 where the flow lives."""

    beta: Array
    energy: FlatEnergy
    kept: Array
    base: Base
    bijection: Bijection
    remainder: Remainder | None
    chart: Chart = eqx.field(static=True)
    hints: Recipe = eqx.field(static=True)
    bytes_each: int = eqx.field(static=True)

    def recipe(self) -> Recipe:
        return self.hints

    def bytes_per_sample(self) -> int:
        return self.bytes_each

    def init(self, key: Array) -> Params:
        one, two = jax.random.split(key)
        return {"base": self.base.init(one), "flow": self.bijection.init(two)}

    def trainable(self) -> bool:
        return bool(jax.tree.leaves(jax.eval_shape(self.init, jax.random.key(0))))

    def draw_latent(self, params: Params, key: Array, n: int, scale: Array) -> tuple[Array, Array]:
        z = self.base.sample(params["base"], key, n)
        x, log_det = self.bijection.forward(params["flow"], z)
        return x, self.base.log_prob(params["base"], z) - log_det + self.chart.log_haar

    def sample_latent(self, params: Params, key: Array, n: int, scale: Array) -> Array:
        return self.draw_latent(params, key, n, scale)[0]

    def latent_log_prob(self, params: Params, z: Any, scale: Array) -> Array:
        start, log_det = self.bijection.inverse(params["flow"], z * self.kept)
        return self.base.log_prob(params["base"], start) + log_det + self.chart.log_haar

    def latent_energy(self, z: Any, scale: Array) -> Array:
        beta = scale * self.beta
        return beta * self.energy(z) if self.remainder is None else self.remainder.reduced_energy(z, beta)

    def sample_and_log_prob(self, params: Params, key: Array, n: int) -> tuple[Configuration, Array]:
        key_flow, key_rest = jax.random.split(key)
        x, log_q = self.draw_latent(params, key_flow, n, jnp.ones(()))
        if self.remainder is not None:
            x, log_rest = self.remainder.sample(key_rest, x, self.beta)
            log_q = log_q + log_rest
        return self.chart.decode(x), log_q

    def log_prob(self, params: Params, x: Configuration) -> Array:
        flat = self.chart.encode(x)
        log_q = self.latent_log_prob(params, flat, jnp.ones(()))
        return log_q if self.remainder is None else log_q + self.remainder.log_prob(flat, self.beta)
