"""Sweep: sums blocks of letters exactly, given the skeleton around them, and samples them exactly.

A block is ordered so that interactions reach at most `w` places back. The message of the sweep is a table over the
last w letters; each step brings a new letter in and sums the oldest out, as a site-by-site transfer matrix does:

    ψ'(x_{t−w+1} … x_t) = Σ_{x_{t−w}} ψ(x_{t−w} … x_{t−1}) exp(−β E_t(x_{t−w} … x_t; skeleton))

ln of the final sum is −β times the block's free energy with the skeleton held fixed. Tables have the batch as their
last axis, so that the arithmetic runs along it; they are rescaled at every step, the logarithm of the scale kept apart.

Blocks are independent given the skeleton: they are laid end to end on a few chains of equal length that run together.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.alphabet import Alphabet
from vdsl.guides.arrays import integers, reals
from vdsl.guides.rows import Rows, build_rows


class Crossing(eqx.Module):
    """Factors that join two or more letters of a block with the skeleton: their tables depend on the sample.

    rows picks a table of the block letters' states, flattened and zero-padded to one length Qm; config
    (T, K, C, Q^(w+1)) says which of its entries each state of window and new letter uses.
    """

    base: Array
    position: Array
    stride: Array
    table: Array
    config: Array

    def __call__(self, skeleton: Array) -> CrossingRows:
        """The rows for given skeleton letters (S, b)."""
        row = self.base[..., None] + jnp.sum(self.stride[..., None] * skeleton[self.position], axis=-2)
        return CrossingRows(row, self.config)


class CrossingRows(eqx.Module):
    """Row numbers (T, K, C, b) and what to pick from the rows; the leading axis is the step, for a scan."""

    row: Array
    config: Array

    def energies(self, table: Array) -> Array:
        """At one step: energies (Q^(w+1), K, b) of every state of window and new letter."""
        values = table[self.row]  # (K, C, b, Qm)
        picked = jax.vmap(jax.vmap(lambda v, c: v[:, c]))(values, self.config)  # (K, C, b, Q^(w+1))
        return jnp.moveaxis(jnp.sum(picked, axis=1), -1, 0)


class Sweep(eqx.Module):
    """T steps on K chains. interior (T, Q, R, Q, K): energies E_t of oldest, the rest of the window, new letter.

    valid (T, Q, K): which states the new letter has. rows: the fields that the skeleton exerts, targets (T, K).
    layout (T, K): the letter each step brings in, n for padding.
    """

    interior: Array
    offset: Array
    valid: Array
    rows: Rows
    crossing: Crossing | None
    layout: Array
    q: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    letters: int = eqx.field(static=True)

    def bytes_per_sample(self) -> int:
        """Sampling keeps the message before every step."""
        return int(self.layout.size) * self.q**self.width * 4

    def ln_z(self, skeleton: Array, beta: Array) -> Array:
        """ln Σ_blocks e^{−βE}, shape (b,), for skeleton letters (S, b). E: all factors that touch a block."""
        (_, log_scale, _), _ = self._forward(skeleton, beta, keep=False)
        return jnp.sum(log_scale, axis=0) - beta * self.offset

    def sample(self, key: Array, skeleton: Array, beta: Array) -> tuple[Array, Array]:
        """Block letters drawn from their exact conditional, (n + 1, b) with the skeleton's rows 0, and ln Σ."""
        (psi, log_scale, _), before = self._forward(skeleton, beta, keep=True)
        q, w, (t_max, k_max) = self.q, self.width, self.layout.shape
        batch = skeleton.shape[1]
        key_last, key_steps = jax.random.split(key)
        window = _categorical(key_last, psi)
        last = jnp.stack([window // q ** (w - 1 - a) % q for a in range(w)])

        def back(window: Array, inputs: tuple) -> tuple[Array, Array]:
            psi, interior, crossing, step_key = inputs
            rest, new = window // q, window % q
            message = jnp.take_along_axis(psi.reshape(q, -1, k_max, batch), rest[None, None], axis=1)[:, 0]
            index = (jnp.arange(q)[:, None, None] * q ** (w - 1) + rest[None]) * q + new[None]  # (Q, K, b)
            energy = interior.reshape(-1, k_max)[index, jnp.arange(k_max)[:, None]]
            if crossing is not None and self.crossing is not None:
                energy = energy + jnp.take_along_axis(crossing.energies(self.crossing.table), index, axis=0)
            oldest = _categorical(step_key, message * jnp.exp(-beta * energy))
            return oldest * q ** (w - 1) + rest, oldest

        inputs = (before, self.interior, self._crossing(skeleton), jax.random.split(key_steps, t_max))
        _, old = jax.lax.scan(back, window, inputs, reverse=True)
        states = jnp.concatenate([old, last])[w:]
        out = jnp.zeros((self.letters + 1, batch), jnp.int32).at[self.layout].set(states)
        return out, jnp.sum(log_scale, axis=0) - beta * self.offset

    def _forward(self, skeleton: Array, beta: Array, keep: bool) -> tuple[tuple[Array, Array, Array], Array | None]:
        """The last message, its log scale and 1/its sum; and, on demand, the message before every step."""
        q, w, (_, k_max) = self.q, self.width, self.layout.shape
        batch = skeleton.shape[1]
        h = self.rows(_at_least_one(skeleton))  # (T, K, b, Q)
        lowest = jnp.min(h, axis=-1, keepdims=True)
        field = jnp.moveaxis(jnp.exp(-beta * (h - lowest)), -1, 1)  # (T, Q, K, b)
        boltzmann = jnp.exp(-beta * self.interior) * self.valid[:, None, None]
        start = jnp.zeros((q**w, k_max, batch), field.dtype).at[0].set(1.0)
        log_scale = -beta * jnp.sum(lowest[..., 0], axis=0)

        def step(carry: tuple[Array, Array, Array], inputs: tuple) -> tuple[tuple[Array, Array, Array], Array | None]:
            psi, log_scale, inverse = carry
            weight, known, crossing = inputs
            table = psi.reshape(q, -1, k_max, batch)
            if crossing is None or self.crossing is None:
                new = sum(table[o][:, None] * weight[o][..., None] for o in range(q))
            else:
                exponential = jnp.exp(-beta * crossing.energies(self.crossing.table)).reshape(q, -1, q, k_max, batch)
                new = jnp.sum(table[:, :, None] * weight[..., None] * exponential, axis=0)
            new = (new * (known * inverse)[None]).reshape(q**w, k_max, batch)
            total = jnp.sum(new, axis=0)
            return (new, log_scale + jnp.log(total), 1.0 / total), (psi if keep else None)

        carry = (start, log_scale, jnp.ones((k_max, batch), field.dtype))
        return jax.lax.scan(step, carry, (boltzmann, field, self._crossing(skeleton)))

    def _crossing(self, skeleton: Array) -> CrossingRows | None:
        return None if self.crossing is None else self.crossing(_at_least_one(skeleton))


def _at_least_one(skeleton: Array) -> Array:
    """Without a skeleton there is nothing to look up, but gathers need something to look at."""
    return skeleton if skeleton.shape[0] else jnp.zeros((1, skeleton.shape[1]), jnp.int32)


def _categorical(key: Array, weights: Array) -> Array:
    """A state drawn with probability ∝ weights along the first axis."""
    total = jnp.cumsum(weights, axis=0)
    u = jax.random.uniform(key, weights.shape[1:], weights.dtype) * total[-1]
    return jnp.minimum(jnp.sum(u[None] >= total, axis=0), weights.shape[0] - 1).astype(jnp.int32)


def build_sweep(alphabet: Alphabet, skeleton: np.ndarray, blocks: Sequence[np.ndarray], width: int) -> Sweep | None:
    """The sweep over the blocks, from the letters' factors. None when there is no block."""
    if not blocks:
        return None
    q, w = alphabet.q, max(width, 1)
    chains = _pack(blocks)
    t_max, k_max = max(len(c) for c in chains), len(chains)
    layout = np.full((t_max, k_max), alphabet.n)
    when, chain = np.full(alphabet.n, -1), np.full(alphabet.n, -1)
    valid = np.zeros((t_max, q, k_max))
    valid[:, 0] = 1.0  # padding holds its place in state 0
    for k, letters in enumerate(chains):
        at = np.arange(t_max - len(letters), t_max)
        layout[at, k], when[letters], chain[letters] = letters, at, k
        valid[at, :, k] = np.arange(q)[None] < alphabet.sizes[letters][:, None]
    place = np.full(alphabet.n, -1)
    place[skeleton] = np.arange(len(skeleton))

    interior = np.zeros((t_max, *(q,) * (w + 1), k_max))
    fields, crossings = [], []
    for factor in alphabet.factors:
        for scope, table in zip(factor.scopes, factor.tables, strict=True):
            inside = [a for a in range(len(scope)) if place[scope[a]] < 0]
            if not inside:
                continue
            inside.sort(key=lambda a: when[scope[a]])
            outside = [a for a in range(len(scope)) if place[scope[a]] >= 0]
            t, k = int(when[scope[inside[-1]]]), int(chain[scope[inside[-1]]])
            window = [int(when[scope[a]]) - (t - w) for a in inside]
            ordered = np.transpose(table, outside + inside)
            known = place[scope[outside]]
            if not outside:
                shape = [1] * (w + 1)
                for axis in window:
                    shape[axis] = q
                interior[t, ..., k] += ordered.reshape(shape)
            elif len(inside) == 1:
                fields.append(((t, k), known, ordered))
            else:
                crossings.append(((t, k), known, ordered, window))
    flat = interior.reshape(t_max, q, q ** (w - 1), q, k_max)
    lowest = flat.min((1, 2, 3), keepdims=True)
    return Sweep(
        interior=reals(flat - lowest),
        offset=reals(lowest.sum()),
        valid=reals(valid),
        rows=build_rows((t_max, k_max), fields, q),
        crossing=_build_crossing((t_max, k_max), crossings, q, w) if crossings else None,
        layout=integers(layout),
        q=q,
        width=w,
        letters=alphabet.n,
    )


def _build_crossing(
    shape: tuple[int, int], entries: list[tuple[tuple[int, int], np.ndarray, np.ndarray, list[int]]], q: int, w: int
) -> Crossing:
    longest = max(q ** len(window) for *_, window in entries)
    padded = []
    for target, known, table, _ in entries:
        flat = table.reshape(*table.shape[: len(known)], -1)
        fill = [(0, 0)] * len(known) + [(0, longest - flat.shape[-1])]
        padded.append((target, known, np.pad(flat, fill)))
    rows = build_rows(shape, padded, longest)
    slots = rows.base.shape[-1]
    config = np.zeros((*shape, slots, q ** (w + 1)), np.int32)
    states = np.stack(np.unravel_index(np.arange(q ** (w + 1)), (q,) * (w + 1)))
    used = np.zeros(shape, int)
    for target, _, _, window in entries:
        config[(*target, used[target])] = np.ravel_multi_index(tuple(states[a] for a in window), (q,) * len(window))
        used[target] += 1
    return Crossing(rows.base, rows.position, rows.stride, rows.table, integers(config))


def _pack(blocks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Blocks laid end to end on chains about as long as the longest block."""
    longest = max(len(b) for b in blocks)
    chains: list[list[np.ndarray]] = []
    lengths: list[int] = []
    for block in sorted(blocks, key=lambda b: -len(b)):
        k = next((k for k, n in enumerate(lengths) if n + len(block) <= longest), None)
        if k is None:
            chains.append([])
            lengths.append(0)
            k = len(chains) - 1
        chains[k].append(block)
        lengths[k] += len(block)
    return [np.concatenate(c) for c in chains]
