"""Amortised: one guide for a whole range of a parameter.

The guides of K points of a sweep differ in their numbers (couplings, β) and not in their form, so they stack. Every
trained number becomes a polynomial of the swept parameter c, scaled to [−1, 1]:

    params(c) = Σ_{r ≤ R} T_r(c) params_r,     T_r the Chebyshev polynomials,

with params_0 fresh and the others zero at the start. A training step draws one point at random and a batch there, so
that the gradient is that of the mean of F̃ over the points. It works for any guide: it knows nothing about guides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.errors import Diagnostic, InternalError, VfeError
from vdsl.guides.arrays import reals
from vdsl.guides.guide import Configuration, Guide, Params, Recipe

DEGREE = 4


class Amortised(Guide):
    """guides: those of the points, each array with a leading axis (K,). weights (K, R + 1): T_r at the points."""

    beta: Array
    guides: Guide
    weights: Array

    def anneal_from(self) -> float:
        return min(self._guide(k).anneal_from() for k in range(len(self.weights)))

    def recipe(self) -> Recipe:
        return self._guide(0).recipe()

    def trainable(self) -> bool:
        return self._guide(0).trainable()

    def bytes_per_sample(self) -> int:
        return self._guide(0).bytes_per_sample()

    def init(self, key: Array) -> Params:
        rest = self.weights.shape[1] - 1
        fresh = self._guide(0).init(key)
        return jax.tree.map(lambda p: jnp.concatenate([p[None], jnp.zeros((rest, *p.shape), p.dtype)]), fresh)

    def at(self, params: Params, k: Array | int) -> tuple[Guide, Params]:
        """The guide and the parameters of point k."""
        here = jax.tree.map(lambda p: jnp.tensordot(self.weights[k].astype(p.dtype), p, axes=1), params)
        return self._guide(k), here

    def sample_latent(self, params: Params, key: Array, n: int, scale: Array) -> Any:
        k, key = self._point(key)
        guide, here = self.at(params, k)
        return k, guide.sample_latent(here, key, n, scale)

    def draw_latent(self, params: Params, key: Array, n: int, scale: Array) -> tuple[Any, Array]:
        k, key = self._point(key)
        guide, here = self.at(params, k)
        z, log_q = guide.draw_latent(here, key, n, scale)
        return (k, z), log_q

    def latent_log_prob(self, params: Params, z: Any, scale: Array) -> Array:
        guide, here = self.at(params, z[0])
        return guide.latent_log_prob(here, z[1], scale)

    def latent_energy(self, z: Any, scale: Array) -> Array:
        return self._guide(z[0]).latent_energy(z[1], scale)

    def sample_and_log_prob(self, params: Params, key: Array, n: int) -> tuple[Configuration, Array]:
        raise InternalError("an amortised guide is sampled at one of its points")

    def log_prob(self, params: Params, x: Configuration) -> Array:
        raise InternalError("an amortised guide has a density at each of its points")

    def _guide(self, k: Array | int) -> Guide:
        return jax.tree.map(lambda a: a[k], self.guides)

    def _point(self, key: Array) -> tuple[Array, Array]:
        key, pick = jax.random.split(key)
        return jax.random.randint(pick, (), 0, len(self.weights)), key


def same_form(a: Any, b: Any) -> bool:
    """Whether two pytrees differ in numbers only: the same structure, and arrays of the same shapes."""
    one: Any = jax.tree.structure(a)
    return bool(one == jax.tree.structure(b)) and all(
        x.shape == y.shape for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def build_amortised(guides: Sequence[Guide], values: Sequence[float]) -> Amortised:
    """From the guides of the points and the values of the parameter there. Raises VfeError `cannot-amortise`."""
    if not all(same_form(guide, guides[0]) for guide in guides):
        raise VfeError(
            Diagnostic(
                "cannot-amortise",
                "the points of this sweep need guides of different form",
                notes=("one guide for all points needs the same interactions and symmetries at each",),
                hints=("leave out the points where a coupling vanishes, or sweep without `--amortise`",),
            ),
            exit_code=2,
        )
    low, high = min(values), max(values)
    c = 2 * (np.asarray(values, float) - low) / max(high - low, 1e-300) - 1
    degree = min(DEGREE, len(set(values)) - 1)
    weights = np.polynomial.chebyshev.chebvander(c, degree)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *guides)
    return Amortised(reals(np.mean([float(g.beta) for g in guides])), stacked, reals(weights))
