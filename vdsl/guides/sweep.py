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
from vdsl.guides.rows import Rows, build_rows


class Crossing(eqx.Module):
    """Factors that join two or more letters of a block with the skeleton: their tables depend on the sample.

    rows picks a table of the block letters' states, flattened; config (T, K, C, Q^(w+1)) says which entry each state of
    window and new letter uses (in a row of its own length, zero-padded).
    """

    base: Array
    position: Array
    stride: Array
    table: Array
    config: Array


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
        digits = jnp.stack([window // q ** (w - 1 - a) % q for a in range(w)])
        weights, xs = self._weights(skeleton, beta)

        def back(window, inputs):
            psi, x, step_key = inputs
            rest, new = window // q, window % q
            message = jnp.take_along_axis(psi.reshape(q, -1, k_max, batch), rest[None, None], axis=1)[:, 0]
            index = (jnp.arange(q)[:, None, None] * q ** (w - 1) + rest[None]) * q + new[None]
            # exp of the energies of the configurations that end in (rest, new), one for each oldest state
            chosen = weights(x, index)
            oldest = _categorical(step_key, message * chosen)
            return oldest * q ** (w - 1) + rest, oldest

        keys = jax.random.split(key_steps, t_max)
        _, old = jax.lax.scan(back, window, (before, xs, keys), reverse=True)
        states = jnp.concatenate([old, digits])[w:]
        out = jnp.zeros((self.letters + 1, batch), jnp.int32).at[self.layout].set(states)
        return out, jnp.sum(log_scale, axis=0) - beta * self.offset

    def _forward(self, skeleton: Array, beta: Array, keep: bool):
        skeleton = _at_least_one(skeleton)
        q, w, (_, k_max) = self.q, self.width, self.layout.shape
        batch = skeleton.shape[1]
        h = self.rows(skeleton)  # (T, K, b, Q)
        lowest = jnp.min(h, axis=-1, keepdims=True)
        field = jnp.moveaxis(jnp.exp(-beta * (h - lowest)), -1, 1)  # (T, Q, K, b)
        boltzmann = jnp.exp(-beta * self.interior) * self.valid[:, None, None]
        start = jnp.zeros((q**w, k_max, batch), field.dtype).at[0].set(1.0)
        scale0 = -beta * jnp.sum(lowest[..., 0], axis=0)
        _, xs = self._weights(skeleton, beta)

        def step(carry, inputs):
            psi, log_scale, inverse = carry
            weight, known, x = inputs
            table = psi.reshape(q, -1, k_max, batch)
            if self.crossing is None:
                new = sum(table[o][:, None] * weight[o][..., None] for o in range(q))
            else:
                dense = weight[..., None] * jnp.exp(-beta * self._crossing_energy(x)).reshape(q, -1, q, k_max, batch)
                new = jnp.sum(table[:, :, None] * dense, axis=0)
            new = (new * (known * inverse)[None]).reshape(q**w, k_max, batch)
            total = jnp.sum(new, axis=0)
            return (new, log_scale + jnp.log(total), 1.0 / total), (psi if keep else None)

        carry = (start, scale0, jnp.ones((k_max, batch), field.dtype))
        return jax.lax.scan(step, carry, (boltzmann, field, xs))

    def _weights(self, skeleton: Array, beta: Array):
        """A function (step inputs, configuration index (Q, K, b)) -> Boltzmann weight, and the step inputs."""
        k_max = self.layout.shape[1]
        skeleton = _at_least_one(skeleton)
        crossing = None
        if self.crossing is not None:
            c = self.crossing
            row = c.base[..., None] + jnp.sum(c.stride[..., None] * skeleton[c.position], axis=-2)  # (T, K, C, b)
            crossing = (row, c.config)

        def weight(x, index):
            interior, _ = x
            flat = interior.reshape(-1, k_max)
            energy = flat[index, jnp.arange(k_max)[:, None]]
            if self.crossing is not None:
                dense = self._crossing_energy(x)  # (Q^(w+1), K, b)
                energy = energy + jnp.take_along_axis(dense, index, axis=0)
            return jnp.exp(-beta * energy)

        return weight, (self.interior, crossing)

    def _crossing_energy(self, x) -> Array:
        _, (row, config) = x
        values = self.crossing.table[row]  # (K, C, b, Qm)
        picked = jax.vmap(jax.vmap(lambda v, c: v[:, c]))(values, config)  # (K, C, b, Q^(w+1))
        return jnp.moveaxis(jnp.sum(picked, axis=1), -1, 0)


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
        interior=jnp.asarray(flat - lowest, float),
        offset=jnp.asarray(lowest.sum(), float),
        valid=jnp.asarray(valid, float),
        rows=build_rows((t_max, k_max), fields, q),
        crossing=_build_crossing((t_max, k_max), crossings, q, w) if crossings else None,
        layout=jnp.asarray(layout, jnp.int32),
        q=q,
        width=w,
        letters=alphabet.n,
    )


def _build_crossing(shape, entries, q: int, w: int) -> Crossing:
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
    return Crossing(rows.base, rows.position, rows.stride, rows.table, jnp.asarray(config))


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
