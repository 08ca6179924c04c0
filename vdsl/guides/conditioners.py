"""Conditioners: what a coupling layer lets the frozen variables say to the ones that move, with the model's symmetry.

Every moving variable i sees features of the frozen ones j through kernels shared by pairs that a symmetry of the
lattice relates,

    f_i = Σ_j K[class(i, j)] φ(x_j),

and a small network per variable turns f_i into the parameters of its map.

Real variables, in units of their typical spread: linear features are odd, squares are even under a global change of
sign. Where the model is even, scales and splines follow from even features only and the shift is a sum of odd features
with even gates.

Angles: z_i = Σ_j K e^{iθ_j} turns with the frozen angles; |z|² and z_a z̄_b do not. A gated sum of the z is a direction,
from which the angle is measured; where the model is not invariant, constants are added to z.

All output weights start at 0: fresh conditioners leave every variable where it is.
"""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Weights = dict[str, Array]


class Stencil(NamedTuple):
    """For each moving variable the frozen ones that it sees. near (…, moving, K); weight (…, moving, K): class numbers.

    `near` is None where every moving variable sees all frozen ones, in their order: a dense product is faster then.
    Weights past the last class are 0: padding. site (…, moving): class of each moving variable, for biases.
    """

    near: Array | None
    weight: Array
    site: Array


class Conditioner(eqx.Module):
    """Sizes. pairs, sites: how many classes of pairs and of variables there are; outputs: parameters of each map."""

    pairs: int = eqx.field(static=True)
    sites: int = eqx.field(static=True)
    features: int = eqx.field(static=True)
    hidden: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    symmetric: bool = eqx.field(static=True)
    fan_in: int = eqx.field(static=True)

    def _draw(self, key: Array, shapes: dict[str, tuple[int, ...]], inputs: int, outputs: int) -> Weights:
        """Normal numbers of these shapes, over √fan-in, and the network behind them; what it puts out is 0.

        Cut from one draw: every shape that is drawn is compiled by itself, and users wait for that.
        """
        shapes = {**shapes, "hidden": (inputs, self.hidden)}
        sizes = {name: int(np.prod(shape)) for name, shape in shapes.items()}
        noise = jnp.split(jax.random.normal(key, (sum(sizes.values()),)), np.cumsum(list(sizes.values()))[:-1])
        weights = {name: part.reshape(shapes[name]) for name, part in zip(sizes, noise, strict=True)}
        scales = {name: 1 / np.sqrt(inputs if name == "hidden" else self.fan_in) for name in weights}
        return {name: scales[name] * w for name, w in weights.items()} | {
            "hidden_bias": jnp.zeros((self.sites, self.hidden)),
            "out": jnp.zeros((self.hidden, outputs)),
            "out_bias": jnp.zeros((self.sites, outputs)),
        }


class RealConditioner(Conditioner):
    """Raw parameters (b, moving, outputs) and a shift (b, moving) from frozen values (b, frozen)."""

    def init(self, key: Array) -> Weights:
        """Fresh weights."""
        extra = 0 if self.symmetric else 1
        kernels: dict[str, tuple[int, ...]] = dict.fromkeys(
            ("linear", "bounded", "square"), (self.pairs, self.features)
        )
        weights = self._draw(key, kernels, 2 * self.features, self.features + self.outputs + extra)
        return weights | {"bias": jnp.zeros((self.sites, 3 * self.features))}

    def __call__(self, w: Weights, stencil: Stencil, x: Array) -> tuple[Array, Array]:
        """x (b, frozen)."""
        h = self.features
        bias = w["bias"][stencil.site]
        odd = gather_pairs(w["linear"], stencil, x)
        bounded = gather_pairs(w["bounded"], stencil, jnp.tanh(x))
        even = gather_pairs(w["square"], stencil, x**2) + bias[..., :h]
        if self.symmetric:
            features = jnp.concatenate([jnp.tanh(even), jnp.tanh(bounded) ** 2], -1)
        else:
            odd, bounded = odd + bias[..., h : 2 * h], bounded + bias[..., 2 * h :]
            features = jnp.tanh(jnp.concatenate([even, bounded], -1))
        out = _evaluate(w, stencil, features)
        shift = jnp.sum(out[..., :h] * (odd + jnp.tanh(odd)), -1)
        if not self.symmetric:
            shift = shift + out[..., -1]
        return out[..., h : h + self.outputs], shift


class AngleConditioner(Conditioner):
    """Raw parameters (b, moving, outputs) and the direction to measure angles from (b, moving), from frozen angles.

    `symmetric`: a global rotation changes the direction alone. `mirror`: reflecting all angles reflects it, and leaves
    the raw parameters as they are.
    """

    mirror: bool = eqx.field(static=True)

    def init(self, key: Array) -> Weights:
        """Fresh weights."""
        h, inner = self.features, 2 * self.features if self.mirror else 3 * self.features
        gates = h if self.mirror else 2 * h
        shapes: dict[str, tuple[int, ...]] = {"kernel": (self.pairs, h)}
        if not self.symmetric:
            shapes["bias"] = (2, self.sites, h)
        weights = self._draw(key, shapes, inner, gates + self.outputs)
        # One feature is the sum of all that is seen: the direction that a ferromagnet would take.
        return weights | {"kernel": weights["kernel"].at[:, 0].set(1 / np.sqrt(self.fan_in))}

    def __call__(self, w: Weights, stencil: Stencil, theta: Array) -> tuple[Array, Array]:
        """theta (b, frozen)."""
        h = self.features
        re, im = (gather_pairs(w["kernel"], stencil, f) for f in (jnp.cos(theta), jnp.sin(theta)))
        if not self.symmetric:
            re = re + w["bias"][0][stencil.site]
            if not self.mirror:
                im = im + w["bias"][1][stencil.site]
        total_re, total_im = jnp.sum(re, -1, keepdims=True), jnp.sum(im, -1, keepdims=True)
        length = re**2 + im**2
        invariants = [length / (1 + length), jnp.tanh(re * total_re + im * total_im)]
        if not self.mirror:
            invariants.append(jnp.tanh(im * total_re - re * total_im))
        out = _evaluate(w, stencil, jnp.concatenate(invariants, -1))
        gate = out[..., :h].at[..., 0].add(1.0)
        x, y = jnp.sum(gate * re, -1), jnp.sum(gate * im, -1)
        if not self.mirror:
            turn = out[..., h : 2 * h]
            x, y = x - jnp.sum(turn * im, -1), y + jnp.sum(turn * re, -1)
        squared = x**2 + y**2
        safe = squared > 1e-12
        direction = jnp.arctan2(jnp.where(safe, y, 0.0), jnp.where(safe, x, 1.0))
        # Where the direction is undefined the map must not depend on it: parameters vanish there.
        return out[..., -self.outputs :] * (squared / (1 + squared))[..., None], direction


def gather_pairs(kernel: Array, stencil: Stencil, values: Array) -> Array:
    """Σ_j K[class(i, j)] v_j: kernel (classes, H), values (b, frozen) -> (b, moving, H)."""
    padded = jnp.concatenate([kernel, jnp.zeros((1, kernel.shape[1]), kernel.dtype)])
    weights = padded[stencil.weight]  # (moving, K, H)
    if stencil.near is None:
        return jnp.einsum("bf,mfh->bmh", values, weights)
    return jnp.einsum("bmk,mkh->bmh", values[:, stencil.near], weights)


def _evaluate(w: Weights, stencil: Stencil, features: Array) -> Array:
    hidden = jnp.tanh(features @ w["hidden"] + w["hidden_bias"][stencil.site])
    return hidden @ w["out"] + w["out_bias"][stencil.site]
