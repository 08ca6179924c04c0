"""Guide: a trial density, normalised and directly sampled, derived from a model.

A guide is a function from trainable parameters to a distribution over configurations of the model: the same support,
the same base measure. What training sees of it is a little more general: a guide may sum part of the configuration
exactly and only *learn* the rest, z, for which

    u(z) = −ln Σ_{x consistent with z} e^{−β E(x)}           (its `latent_energy`)
    F_q  = T · E_{z~q}[u(z) + ln q(z)]                        (equal to E_x[E + T ln q(x)] for the joint q)

With nothing summed, z is the configuration and u = βE. Everything is batched; what z is (an array or a pytree, with the
batch on whichever axis) is the guide's own business. `scale` multiplies β = 1/T and is 1 except while annealing.

A guide whose samples are differentiable in the parameters says so (`reparameterised`) and gives them by `draw_latent`.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import Array

from vdsl.errors import InternalError

if TYPE_CHECKING:
    import distrax

Configuration = dict[str, Array]
Params = Any


@dataclass(frozen=True)
class Recipe:
    """How a guide likes to be trained; None leaves a number to the general plan.

    estimator: see `inference.estimators`. learning_rate: for runs of `steps`, if that is given; longer ones learn more
    slowly, by the power −0.6 of their number of steps.
    path_from: the fraction of the steps after which a reparameterised guide's gradient is the path gradient.
    """

    estimator: str = "score"  # or "reparameterised"
    learning_rate: float | None = None
    steps: int | None = None
    batch: int | None = None
    anneal: float | None = None
    clip: float | None = None
    decay: float | None = None
    path_from: float = 1.0


class Guide(eqx.Module):
    """The protocol. A guide's array leaves are the model's numbers (tables, couplings): traced, never baked in."""

    beta: eqx.AbstractVar[Array]

    def anneal_from(self) -> float:
        """The fraction of β where annealing starts: where local fields are of order one."""
        return 1.0

    def trainable(self) -> bool:
        """Whether there is anything to learn; False for guides that are worked out and not trained."""
        return True

    def recipe(self) -> Recipe:
        """How it likes to be trained."""
        return Recipe()

    @abstractmethod
    def init(self, key: Array) -> Params:
        """Fresh trainable parameters: a pytree of arrays."""

    def draw_latent(self, params: Params, key: Array, n: int, scale: Array) -> tuple[Any, Array]:
        """n latent samples, differentiable in the parameters, and ln q of each: for reparameterised guides only."""
        raise InternalError(f"{type(self).__name__} has no differentiable samples")

    @abstractmethod
    def sample_latent(self, params: Params, key: Array, n: int, scale: Array) -> Any:
        """n latent samples z."""

    @abstractmethod
    def latent_log_prob(self, params: Params, z: Any, scale: Array) -> Array:
        """ln q(z), shape (n,), differentiable in the parameters (and in z, for reparameterised guides)."""

    @abstractmethod
    def latent_energy(self, z: Any, scale: Array) -> Array:
        """u(z), shape (n,), differentiable in z for reparameterised guides."""

    @abstractmethod
    def sample_and_log_prob(self, params: Params, key: Array, n: int) -> tuple[Configuration, Array]:
        """n configurations and ln q of each."""

    @abstractmethod
    def log_prob(self, params: Params, x: Configuration) -> Array:
        """ln q of given configurations, shape (n,)."""

    def distribution(self, params: Params) -> distrax.Distribution:
        """The guide as a distrax distribution over configurations."""
        from vdsl.guides.distribution import GuideDistribution  # distrax takes half a second to import

        return GuideDistribution(self, params)

    def bytes_per_sample(self) -> int:
        """What drawing one configuration keeps in memory, about: callers bound their batches by it."""
        return 4096

    def n_parameters(self) -> int:
        """How many numbers are trained."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        return sum(int(leaf.size) for leaf in jax.tree.leaves(shapes))


@dataclass(frozen=True)
class GuideChoice:
    """Which guide, why, and what it looks like: what `vdsl explain` prints."""

    name: str
    reason: str
    description: dict[str, Any] = field(default_factory=dict)
    structure: Any = field(default=None, repr=False)  # what `build` needs again


def log_ess(log_w: Array) -> Array:
    """ln of the normalised effective sample size (Σw)²/(nΣw²)."""
    return 2 * jax.nn.logsumexp(log_w) - jax.nn.logsumexp(2 * log_w) - jnp.log(log_w.size)
