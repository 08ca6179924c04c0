"""Net: from frozen loops around a moving link to the numbers of its move, gauge invariant, shared by translations.

The loops are pairs of staples of one link, W = tr(S_i S_j†)/N: with the staple on the other side of the link (a 1×2
loop in the plane), and the mean over those in other planes (two plaquettes at a right angle). Their real parts are
even under charge conjugation U → U*, their imaginary parts odd; cos 2φ and sin 2φ of them follow as 2r² − 1 and 2rs.
Numbers of a move are even or odd as well, hence

    even = c + w·E + a·h_E + b·h_O²,    odd = v·O + d·(h_O h_E),    h_E = tanh(A E + e),  h_O = tanh(B O),

E and O: the loops at the link and at its neighbours of the same turn, seen from the staple that the number is for, so
that staples on all sides, and places mirrored along the link, share their weights.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import stored
from vdsl.guides.guide import Params
from vdsl.guides.links_algebra import LinkGroup
from vdsl.guides.rearrange import Table


class LoopNet(eqx.Module):
    """even, odd: how many numbers of each; places: M neighbours; hidden: units; planes: whether there are several."""

    group: LinkGroup = eqx.field(static=True)
    even: int = eqx.field(static=True)
    odd: int = eqx.field(static=True)
    places: int = eqx.field(static=True)
    hidden: int = eqx.field(static=True)
    planes: bool = eqx.field(static=True)
    start: Array  # (E,): what the even numbers are at first

    def init(self, key: Array) -> Params:
        """Weights of one turn: the even numbers constant at `start`, the odd ones 0."""
        inputs, h = self._inputs(), self.hidden
        one, two = jax.random.split(key)
        params = {
            "c": self.start,
            "w": jnp.zeros((self.even, inputs)),
            "A": jax.random.normal(one, (h, inputs)) / np.sqrt(inputs),
            "e": jnp.zeros(h),
            "a": jnp.zeros((self.even, h)),
        }
        if not self.group.real:
            params |= {
                "b": jnp.zeros((self.even, h)),
                "B": jax.random.normal(two, (h, inputs)) / np.sqrt(inputs),
                "v": jnp.zeros((self.odd, inputs)),
                "d": jnp.zeros((self.odd, h)),
            }
        return params

    def __call__(self, w: Params, staples: Array, exists: Array, near: Table) -> tuple[Array, Array]:
        """staples (*g, S, A, b), exists (S, A), near (M, 2, S, A) -> even (E, S, A, b), odd (O, S, A, b)."""
        real, imaginary = self._loops(staples, exists)
        there, small = (
            exists[..., None],
            1 / self._inputs(),
        )  # steps of one size for every weight: their sum stays small
        evens = self._gathered(jnp.concatenate([real, 2 * (real**2 - imaginary**2) - there]), near)
        hidden = jnp.tanh(_mix(w["A"], evens) + w["e"][:, None, None, None])
        even = w["c"][:, None, None, None] + _mix(w["w"], evens) * small + _mix(w["a"], hidden)
        if self.group.real:
            return even * there, jnp.zeros((0, *even.shape[1:]), even.dtype)
        odds = self._gathered(jnp.concatenate([imaginary, 2 * real * imaginary]), near)
        turning = jnp.tanh(_mix(w["B"], odds))
        even = even + _mix(w["b"], turning**2)
        return even * there, (_mix(w["v"], odds) * small + _mix(w["d"], turning * hidden)) * there

    def _inputs(self) -> int:
        return self.places * (4 if self.planes else 2)

    def _loops(self, staples: Array, exists: Array) -> tuple[Array, Array]:
        """Real and imaginary parts (1 or 2, S, A, b) of the pair loops of every staple; 0 where a staple is missing."""
        # A pair of sums is the sum of pairs: one product with all other planes together.
        group, each = self.group.linear(staples)
        axis, count = group.rank, exists.shape[0]
        each = each * exists[..., None]
        opposite = jnp.roll(each, -(count // 2), axis)
        rows = [group.pair(each, opposite)]
        if self.planes:
            others = each.sum(axis, keepdims=True) - each - opposite
            re, im = group.pair(each, others)
            rows.append((re / (count - 2), im / (count - 2)))
        return jnp.stack([r for r, _ in rows]), jnp.stack([i for _, i in rows])

    def _gathered(self, values: Array, near: Table) -> Array:
        """(F, S, A, b) at the neighbours, mirrored places summed: (F·M, S, A, b)."""
        if self.places == 1:  # the link alone
            return values
        f, s, a, b = values.shape
        flat = jnp.concatenate([stored(values).reshape(f, s * a, b), jnp.zeros((f, 1, b), values.dtype)], 1)
        return near.take(flat).sum(2).reshape(f * self.places, s, a, b)


def _mix(weights: Array, values: Array) -> Array:
    """(O, I) by (I, S, A, b)."""
    return (weights @ values.reshape(values.shape[0], -1)).reshape(-1, *values.shape[1:])
