"""Nets: the learned part of an autoregressive conditional, one small network per letter.

Each maps the states of a letter's parents to logits over its own states, with the model's symmetry built in:

- `Plain`: one-hot parents, one hidden layer, a linear skip and a bias.
- `Odd`: two states and a global flip; features ±1, no biases, so that flipping all parents flips the logit exactly.
- `Colours`: q colours that permute; every colour is treated by the same network that sees where *it* stands among the
  parents, and a mean over colours; relabelling the colours relabels the logits exactly.

All start from zero output, so that training starts at the local field that is already known.
Parents are padded: parents (S, P) of positions, mask (S, P).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Params = dict[str, Array]


class Net(eqx.Module):
    """The protocol: `init` makes parameters stacked over letters; `logits` (Q, …) from parents' states (P, …)."""

    q: int = eqx.field(static=True)
    hidden: int = eqx.field(static=True)

    @abstractmethod
    def init(self, key: Array, letters: int, parents: int) -> Params:
        """Fresh parameters."""

    @abstractmethod
    def logits(self, params: Params, states: Array, mask: Array) -> Array:
        """For one letter: states (P, b) int, mask (P,) -> (Q, b)."""


class Odd(Net):
    """Two states; logit = w₂·tanh(W₁x) + s·x with x = ±1: odd under the global flip."""

    def init(self, key: Array, letters: int, parents: int) -> Params:
        return {
            "W": _weights(key, (letters, self.hidden, parents), 0.5),
            "out": jnp.zeros((letters, self.hidden)),
            "skip": jnp.zeros((letters, parents)),
        }

    def logits(self, params: Params, states: Array, mask: Array) -> Array:
        x = (2 * states - 1) * mask[:, None]
        z = params["out"] @ jnp.tanh(params["W"] @ x) + params["skip"] @ x
        return jnp.stack([-z / 2, z / 2])


class Plain(Net):
    """logits = W₂ tanh(W₁x + b₁) + S x + b₂ on centred one-hot parents; no symmetry."""

    def init(self, key: Array, letters: int, parents: int) -> Params:
        n = parents * self.q
        return {
            "W": _weights(key, (letters, self.hidden, n), 0.5 * np.sqrt(self.q)),
            "bias": jnp.zeros((letters, self.hidden)),
            "out": jnp.zeros((letters, self.q, self.hidden)),
            "skip": jnp.zeros((letters, self.q, n)),
            "shift": jnp.zeros((letters, self.q)),
        }

    def logits(self, params: Params, states: Array, mask: Array) -> Array:
        x = _one_hot(states, mask, self.q).reshape(-1, states.shape[1])
        hidden = jnp.tanh(params["W"] @ x + params["bias"][:, None])
        return params["out"] @ hidden + params["skip"] @ x + params["shift"][:, None]


class Colours(Net):
    """logit_c = w·tanh(A h_c + B h̄) + s·o_c, h_c = tanh(W o_c), h̄ = mean_c h_c; o_c: where c is among the parents."""

    def init(self, key: Array, letters: int, parents: int) -> Params:
        one, two, three = jax.random.split(key, 3)
        h = self.hidden
        return {
            "W": _weights(one, (letters, h, parents), 1.0),
            "bias": jnp.zeros((letters, h)),
            "own": _weights(two, (letters, h, h), 1.0),
            "mean": _weights(three, (letters, h, h), 1.0),
            "bias2": jnp.zeros((letters, h)),
            "out": jnp.zeros((letters, h)),
            "skip": jnp.zeros((letters, parents)),
        }

    def logits(self, params: Params, states: Array, mask: Array) -> Array:
        x = jnp.moveaxis(_one_hot(states, mask, self.q), 1, 0)  # (Q, P, b)
        hidden = jnp.tanh(params["W"] @ x + params["bias"][:, None])
        mixed = params["own"] @ hidden + (params["mean"] @ jnp.mean(hidden, axis=0))[None]
        return params["out"] @ jnp.tanh(mixed + params["bias2"][:, None]) + params["skip"] @ x


def _weights(key: Array, shape: tuple[int, ...], gain: float) -> Array:
    """Uniform, with standard deviation gain/√(last axis)."""
    bound = gain * np.sqrt(3.0 / max(shape[-1], 1))
    return jax.random.uniform(key, shape, minval=-bound, maxval=bound)


def _one_hot(states: Array, mask: Array, q: int) -> Array:
    """Centred one-hot of (P, b) states: (P, Q, b), zero for padding."""
    hot = states[:, None] == jnp.arange(q)[None, :, None]
    return (hot - 1.0 / q) * mask[:, None, None]


NETS: dict[str, Callable[[int, int], Net]] = {"odd": Odd, "plain": Plain, "colours": Colours}
