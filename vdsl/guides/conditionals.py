"""Conditionals: parents' features into natural parameters, one small network for each unit of a species.

All start from zero output beside their linear part, so that training starts at the known field plus a linear start.
Padding of parents points at a row of zeros. T units, P parent features, H hidden units, b samples.

- `Components` (reals, lengths, spins, states): x (T, P, b) -> η (T, F, b). With a global flip, statistics that change
  sign are odd functions of the parents that do and even ones of the others, exactly; lengths are even in sines.
- `Turning` (angles): everything is seen in the frame of a reference direction, that of the known field plus a learned
  linear combination of parents, so that η turns with the parents, exactly.
- `Pointing` (unit vectors): the same in Rⁿ.
"""

from __future__ import annotations

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Params = dict[str, Array]


class Waves(eqx.Module):
    """e^{i m·θ} of C integer combinations m of parents' angles, A harmonics at most, times B powers of lengths at most.

    rows (T, C, A): of the cosines, each followed by its sine; signs (T, C, A) of the harmonics; sizes (T, C, B): rows
    of the powers. Their start: weights (T, 2, C) of the real and imaginary part of a field on an angle, or (T, F, C) of
    the real part in every statistic of a length.
    """

    rows: Array
    signs: Array
    sizes: Array
    weights: Array

    def __call__(self, features: Array) -> tuple[Array, Array]:
        """Real and imaginary parts (T, C, b)."""
        cosine, sine = features[self.rows[..., 0]], self.signs[..., :1] * features[self.rows[..., 0] + 1]
        for a in range(1, self.rows.shape[2]):
            c, s = features[self.rows[..., a]], self.signs[..., a, None] * features[self.rows[..., a] + 1]
            cosine, sine = cosine * c - sine * s, cosine * s + sine * c
        for a in range(self.sizes.shape[2]):
            size = features[self.sizes[..., a]]
            cosine, sine = cosine * size, sine * size
        return cosine, sine


class Inputs(eqx.Module):
    """What a unit sees. scalars (T, P) and vectors (T, n, Q): rows of features; scale (T, P) what they are divided by.

    odd (T, P): 1 where a scalar changes sign under the flip. Linear start: weights (T, P) of scalars, (T, Q) of
    vectors. awake (T,): 0 where nothing sets a direction. waves: of angles that meet in threes or more, and of lengths.
    """

    scalars: Array
    scale: Array
    odd: Array
    scalar_weights: Array
    vectors: Array
    vector_weights: Array
    awake: Array
    waves: Waves | None = None

    def at(self, index: Array) -> Inputs:
        """Of some of the units."""
        return jax.tree.map(lambda a: a[index], self)


class Conditional(eqx.Module):
    """The protocol; `hidden` units a network."""

    hidden: int = eqx.field(static=True)

    @abstractmethod
    def init(self, key: Array, inputs: Inputs) -> Params:
        """Fresh parameters, stacked over units."""

    @abstractmethod
    def learned(self, params: Params, inputs: Inputs, features: Array, known: Array) -> Array:
        """What is added to the known η (T, F, b), in the units of its features' scale."""

    @staticmethod
    @abstractmethod
    def by_parent(parents: int) -> dict[str, tuple[int, tuple[int, ...]]]:
        """Parameters with entries for each parent: along which axis, and where every run of so many parents begins."""


class Components(Conditional):
    """odd: which statistics change sign under the flip, one a feature; all False for a unit that does not.

    linear: the first so many statistics have a part linear in all parents of their own parity. near: the network sees
    the first so many parents, the nearest. changing, staying: whether some of these change sign, and some do not.

        u = tanh(W_o x_changing),  v = tanh(W_e x_staying + W_s u² + bias),  odd = A (u, u·v) + …,  even = B v + …
    """

    odd: tuple[bool, ...] = eqx.field(static=True)
    linear: int = eqx.field(static=True)
    near: int = eqx.field(static=True)
    changing: bool = eqx.field(static=True)
    staying: bool = eqx.field(static=True)

    def init(self, key: Array, inputs: Inputs) -> Params:
        units, parents = inputs.scalars.shape
        one, two, three = jax.random.split(key, 3)
        h, f = self.hidden, len(self.odd)
        params = {
            "skip": jnp.zeros((units, self.linear, parents)).at[:, 0].set(inputs.scalar_weights),
            "shift": jnp.zeros((units, f)),
            "bias": jnp.zeros((units, h)),
            "even_out": jnp.zeros((units, f, h)),
        }
        if self.changing:
            params["odd"] = _weights(one, (units, h, self.near), 0.7)
            params["square"] = _weights(two, (units, h, h), 1.0)
            params["odd_out"] = jnp.zeros((units, f, 2 * h))
        if self.staying:
            params["even"] = _weights(three, (units, h, self.near), 0.7)
        if inputs.waves is not None:
            params["waves"] = inputs.waves.weights
        return params

    def learned(self, params: Params, inputs: Inputs, features: Array, known: Array) -> Array:
        x = features[inputs.scalars] / inputs.scale[..., None]
        near, sign = x[:, : self.near], inputs.odd[..., None]
        u, inner = jnp.zeros((len(x), self.hidden, x.shape[2]), x.dtype), params["bias"][..., None]
        if self.changing:
            u = jnp.tanh(params["odd"] @ (near * sign[:, : self.near]))
            inner = inner + params["square"] @ u**2
        if self.staying:
            inner = inner + params["even"] @ (near * (1 - sign[:, : self.near]))
        v = jnp.tanh(inner)
        out = params["even_out"] @ v + params["shift"][..., None]
        if any(self.odd):
            odd = params["odd_out"] @ jnp.concatenate([u, u * v], axis=1) if self.changing else jnp.zeros_like(out)
            out = jnp.where(np.array(self.odd)[:, None], odd, out)
        linear = params["skip"] @ (x * (sign if self.odd[0] else 1 - sign))
        if inputs.waves is not None:
            out = out + params["waves"] @ inputs.waves(features)[0]
        return out + jnp.pad(linear, ((0, 0), (0, len(self.odd) - self.linear), (0, 0)))

    @staticmethod
    def by_parent(parents: int) -> dict[str, tuple[int, tuple[int, ...]]]:
        return dict.fromkeys(("skip", "odd", "even"), (-1, (0,)))


class Turning(Conditional):
    """Harmonics 1 and 2 relative to the reference direction; higher ones stay as they are known.

    The reference direction sees all parents and waves of them, the network only the first `near` parents. mirrored:
    where all angles may change sign together, cosines are even functions of the parents' sines and sines odd ones, as
    in `Components`, exactly.
    """

    near: int = eqx.field(static=True)
    mirrored: bool = eqx.field(static=True)

    def init(self, key: Array, inputs: Inputs) -> Params:
        units, angles = inputs.vector_weights.shape
        near, h = min(angles, self.near), self.hidden
        rest = 1 + inputs.scalars.shape[1]
        params = {"along": inputs.vector_weights, "bias": jnp.zeros((units, h))}
        if inputs.waves is not None:
            params["waves"] = inputs.waves.weights[:, :1] if self.mirrored else inputs.waves.weights
        if not self.mirrored:
            return params | {
                "across": jnp.zeros((units, angles)),
                "W": _weights(key, (units, h, 2 * near + rest), 0.7),
                "out": jnp.zeros((units, 4, h)),
                "shift": jnp.zeros((units, 4)),
            }
        one, two, three = jax.random.split(key, 3)
        return params | {
            "odd": _weights(one, (units, h, near), 0.7),
            "even": _weights(two, (units, h, near + rest), 0.7),
            "square": _weights(three, (units, h, h), 1.0),
            "even_out": jnp.zeros((units, 2, h)),
            "odd_out": jnp.zeros((units, 2, 2 * h)),
            "shift": jnp.zeros((units, 2)),
        }

    def learned(self, params: Params, inputs: Inputs, features: Array, known: Array) -> Array:
        cosine, sine = features[inputs.vectors[:, 0]], features[inputs.vectors[:, 1]]
        field = jnp.concatenate([params["along"][:, None] @ cosine, params["along"][:, None] @ sine], axis=1)
        if not self.mirrored:
            across = params["across"][:, None]
            field = field + jnp.concatenate([-across @ sine, across @ cosine], axis=1)
        if inputs.waves is not None:
            c, s = inputs.waves(features)
            x = params["waves"][:, :1]
            field = field + jnp.concatenate([x @ c, x @ s], axis=1)
            if not self.mirrored:
                y = params["waves"][:, 1:]
                field = field + jnp.concatenate([-y @ s, y @ c], axis=1)
        total = known[:, :2] + field
        size = jnp.sum(total**2, axis=1)
        strength = jnp.sqrt(jnp.maximum(size, 1e-12))
        c, s = jnp.where(size > 1e-12, total[:, 0] / strength, 1.0), jnp.where(size > 1e-12, total[:, 1] / strength, 0)
        cosine, sine = cosine[:, : self.near], sine[:, : self.near]
        cosine, sine = cosine * c[:, None] + sine * s[:, None], sine * c[:, None] - cosine * s[:, None]
        rest = [(strength / (1 + strength))[:, None], _even(inputs, features)]
        a1, b1, a2, b2 = jnp.moveaxis(self._harmonics(params, cosine, sine, rest) * inputs.awake[:, None, None], 1, 0)
        c2, s2 = c * c - s * s, 2 * c * s
        extra = [field[:, 0] + a1 * c - b1 * s, field[:, 1] + a1 * s + b1 * c, a2 * c2 - b2 * s2, a2 * s2 + b2 * c2]
        return jnp.pad(jnp.stack(extra, axis=1), ((0, 0), (0, known.shape[1] - 4), (0, 0)))

    def _harmonics(self, params: Params, cosine: Array, sine: Array, rest: list[Array]) -> Array:
        """a₁, b₁, a₂, b₂ (T, 4, b) in the frame of the reference direction."""
        shift, bias = params["shift"][..., None], params["bias"][..., None]
        if not self.mirrored:
            return params["out"] @ jnp.tanh(params["W"] @ jnp.concatenate([cosine, sine, *rest], axis=1) + bias) + shift
        u = jnp.tanh(params["odd"] @ sine)
        v = jnp.tanh(params["even"] @ jnp.concatenate([cosine, *rest], axis=1) + params["square"] @ u**2 + bias)
        even = params["even_out"] @ v + shift
        odd = params["odd_out"] @ jnp.concatenate([u, u * v], axis=1)
        return jnp.stack([even[:, 0], odd[:, 0], even[:, 1], odd[:, 1]], axis=1)

    @staticmethod
    def by_parent(parents: int) -> dict[str, tuple[int, tuple[int, ...]]]:
        return dict.fromkeys(("along", "across", "odd", "even"), (-1, (0,))) | {"W": (-1, (0, parents))}


class Pointing(Conditional):
    """A field h, its direction moved by a combination of parents whose weights the network gives, and c of (ĥ·S)²."""

    def init(self, key: Array, inputs: Inputs) -> Params:
        units, _, parents = inputs.vectors.shape
        width = parents + 1 + inputs.scalars.shape[1]
        return {
            "along": inputs.vector_weights,
            "W": _weights(key, (units, self.hidden, width), 0.7),
            "bias": jnp.zeros((units, self.hidden)),
            "out": jnp.zeros((units, 2 + parents, self.hidden)),
            "shift": jnp.zeros((units, 2)),
        }

    def learned(self, params: Params, inputs: Inputs, features: Array, known: Array) -> Array:
        parents = features[inputs.vectors]  # (T, n, Q, b)
        field = jnp.einsum("tq,tnqb->tnb", params["along"], parents)
        total = known[:, :-1] + field
        size = jnp.sum(total**2, axis=1, keepdims=True)
        strength = jnp.sqrt(jnp.maximum(size, 1e-12))
        axis = jnp.where(size > 1e-12, total / strength, 0.0)
        seen = jnp.einsum("tnb,tnqb->tqb", axis, parents)
        seen = jnp.concatenate([seen, strength / (1 + strength), _even(inputs, features)], 1)
        hidden = jnp.tanh(params["W"] @ seen + params["bias"][..., None])
        out = (params["out"] @ hidden) * inputs.awake[:, None, None]
        shift = params["shift"][..., None] * inputs.awake[:, None, None]
        moved = axis * (out[:, :1] + shift[:, :1]) + jnp.einsum("tqb,tnqb->tnb", out[:, 2:], parents)
        return jnp.concatenate([field + moved, out[:, 1:2] + shift[:, 1:2]], axis=1)

    @staticmethod
    def by_parent(parents: int) -> dict[str, tuple[int, tuple[int, ...]]]:
        return {"along": (-1, (0,)), "W": (-1, (0,)), "out": (-2, (2,))}


def _even(inputs: Inputs, features: Array) -> Array:
    """Scalars of which nothing changes sign under the flip: those that do are multiplied by their sum."""
    x, sign = features[inputs.scalars] / inputs.scale[..., None], inputs.odd[..., None]
    return x * (1 - sign) + x * sign * jnp.sum(x * sign, axis=1, keepdims=True)


def _weights(key: Array, shape: tuple[int, ...], gain: float) -> Array:
    """Uniform, with standard deviation gain/√(last axis)."""
    bound = gain * np.sqrt(3.0 / max(shape[-1], 1))
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)
