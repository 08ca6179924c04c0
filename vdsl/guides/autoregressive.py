"""The default guide for discrete fields: learn a skeleton, sum the rest exactly.

The interaction graph is dissected (dissection.py): the letters of a small skeleton are sampled one after another, each
from a conditional that depends on its parents only,

    ln q(z_k | parents) ∝ −β E(z_k; parents) + net_k(parents),

the energy of the bonds to letters that are already known plus what a small network (nets.py) has learned of everything
that is still unknown. Given the skeleton the rest falls apart into narrow blocks, which are summed and sampled exactly
(sweep.py). Global symmetries hold exactly: a flip or a cyclic shift is fixed by the first letter, colours that permute
are treated alike. With an empty skeleton the guide *is* the Boltzmann distribution.

Autoregressive densities for spins: Wu, Wang & Zhang 2019, arXiv:1809.10606. Cutset: Bidyuk & Dechter 2007.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.alphabet import Alphabet, Codec, LetterGroup, colours_permute, find_shifts
from vdsl.guides.arrays import integers, reals
from vdsl.guides.dissection import Dissection, Interactions
from vdsl.guides.factors import Energy, build_factor_energy, typical_field
from vdsl.guides.guide import Configuration, Guide, Params
from vdsl.guides.nets import NETS, Net
from vdsl.guides.rows import Rows, build_rows
from vdsl.guides.sweep import Sweep, build_sweep
from vdsl.guides.tables import padded_levels

_SWEEP_ARITHMETIC = 2.0**18  # multiplications per sample; 32×32 Ising took 0.05 s for a batch of 512


class Frame(eqx.Module):
    """Gauge fixing by the first letter: `act`, `undo` (G, S, Q) relabel states; `element` (Q,) is g in z_0 = g·rep."""

    act: Array
    undo: Array
    element: Array


class Autoregressive(Guide):
    """S skeleton letters in sampling order, P padded parents each, depth levels of at most W letters."""

    beta: Array
    typical_field: Array
    parents: Array  # (S, P)
    mask: Array  # (S, P)
    levels: Array  # (depth, W), padded with S
    valid: Array  # (S, Q)
    known: Rows  # targets (S,): bonds to earlier skeleton letters
    skeleton: Array  # (S,)
    skeleton_energy: Energy
    energy: Energy
    sweep: Sweep | None
    frame: Frame | None
    net: Net = eqx.field(static=True)
    codec: Codec = eqx.field(static=True)

    def anneal_from(self) -> float:
        return min(1.0, 2.0 / float(self.typical_field))

    def trainable(self) -> bool:
        return self.skeleton.shape[0] > 0

    def bytes_per_sample(self) -> int:
        learned = self.parents.size * 8 + self.skeleton.shape[0] * self.net.hidden * 4
        return 4096 + learned + (0 if self.sweep is None else self.sweep.bytes_per_sample())

    def init(self, key: Array) -> Params:
        return self.net.init(key, *self.parents.shape)

    # --- the skeleton ---

    def sample_latent(self, params: Params, key: Array, n: int, scale: Array) -> Array:
        size = self.skeleton.shape[0]
        beta = scale * self.beta

        def step(z: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
            level, level_key = inputs
            k = jnp.minimum(level, size - 1)
            logits = self._logits(jax.tree.map(lambda p: p[k], params), self.known.at(k), k, z[:size], beta)
            drawn = jax.random.categorical(level_key, logits, axis=1)
            return z.at[level].set(drawn.astype(jnp.int32)), None

        z = jnp.zeros((size + 1, n), jnp.int32)
        if size == 0:
            return z[:0]
        keys = jax.random.split(key, self.levels.shape[0] + 1)
        if self.frame is None:
            return jax.lax.scan(step, z, (self.levels, keys[1:]))[0][:size]
        first = jax.random.categorical(keys[0], self._first(params, beta), shape=(n,))
        g = self.frame.element[first]
        z = z.at[0].set(self.frame.undo[g, 0, first])
        z = jax.lax.scan(step, z, (self.levels[1:], keys[2:]))[0][:size]
        return self.frame.act[g, jnp.arange(size)[:, None], z]

    def latent_log_prob(self, params: Params, z: Array, scale: Array) -> Array:
        size, n = z.shape
        if size == 0:
            return jnp.zeros(n)
        beta = scale * self.beta
        index = jnp.arange(size)
        first = jnp.zeros(n)
        if self.frame is not None:
            first = jax.nn.log_softmax(self._first(params, beta))[z[0]]
            z = self.frame.undo[self.frame.element[z[0]], index[:, None], z]
        log_p = jax.nn.log_softmax(self._logits(params, self.known, index, z, beta), axis=1)
        chosen = jnp.take_along_axis(log_p, z[:, None], axis=1)[:, 0]
        return first + jnp.sum(chosen if self.frame is None else chosen[1:], axis=0)

    def latent_energy(self, z: Array, scale: Array) -> Array:
        beta = scale * self.beta
        u = beta * self.skeleton_energy(z)
        return u if self.sweep is None else u - self.sweep.ln_z(z, beta)

    def _logits(self, params: Params, known: Rows, k: Array, z: Array, beta: Array) -> Array:
        """(W, Q, n) for skeleton letters k (W,): learned part plus the field of what is known; −inf where invalid."""
        learned = jax.vmap(self.net.logits)(params, z[self.parents[k]], self.mask[k])
        logits = learned - beta * jnp.swapaxes(known(z), 1, 2)
        return jnp.where(self.valid[k][..., None], logits, -jnp.inf)

    def _first(self, params: Params, beta: Array) -> Array:
        """Logits (Q,) of the first letter: averaged over the group, so that all elements are equally likely."""
        assert self.frame is not None
        z = jnp.zeros((self.skeleton.shape[0], 1), jnp.int32)
        zero = jnp.zeros(1, jnp.int32)
        raw = self._logits(jax.tree.map(lambda p: p[:1], params), self.known.at(zero), zero, z, beta)[0, :, 0]
        return jnp.mean(raw[self.frame.act[:, 0]], axis=0)

    # --- whole configurations ---

    def sample_and_log_prob(self, params: Params, key: Array, n: int) -> tuple[Configuration, Array]:
        key_z, key_blocks = jax.random.split(key)
        one = jnp.ones(())
        z = self.sample_latent(params, key_z, n, one)
        log_q = self.latent_log_prob(params, z, one)
        if self.sweep is None:
            letters = jnp.zeros((self.codec.n, n), jnp.int32).at[self.skeleton].set(z)
            return self.codec.decode(letters), log_q
        letters, ln_z = self.sweep.sample(key_blocks, z, self.beta)
        letters = letters[:-1].at[self.skeleton].set(z)
        inside = self.energy(letters) - self.skeleton_energy(z)
        return self.codec.decode(letters), log_q - self.beta * inside - ln_z

    def log_prob(self, params: Params, x: Configuration) -> Array:
        letters = self.codec.encode(x)
        z = letters[self.skeleton]
        log_q = self.latent_log_prob(params, z, jnp.ones(()))
        if self.sweep is None:
            return log_q
        inside = self.energy(letters) - self.skeleton_energy(z)
        return log_q - self.beta * inside - self.sweep.ln_z(z, self.beta)


def interactions(alphabet: Alphabet) -> Interactions:
    """Who interacts with whom, among letters."""
    return Interactions(alphabet.n, alphabet.edges(), alphabet.coordinates)


def sweep_width(q: int, n: int) -> int:
    """How wide a sweep may be: as wide as its arithmetic, n·q^(w+1) per sample, stays within a budget.

    Wider sweeps leave less to learn. Messages of up to 128 states are always affordable, of more than 4096 never.
    """
    states = np.clip(_SWEEP_ARITHMETIC / (n * q), 128, 4096)
    return max(1, int(np.floor(np.log(states) / np.log(max(q, 2)) + 1e-9)))


def symmetry_of(alphabet: Alphabet, skeleton: np.ndarray) -> tuple[str, LetterGroup | None]:
    """Which net the symmetries call for, and the group to fix by the first letter if any."""
    if len(skeleton) == 0:
        return "plain", None
    if colours_permute(alphabet):
        return "colours", None
    group = find_shifts(alphabet, int(skeleton[0]))
    if group.order == 1:
        return "plain", None
    if alphabet.q == 2 and group.order == 2 and (group.act[1] == [1, 0]).all():
        return "odd", None
    return "plain", group


def build_autoregressive(
    alphabet: Alphabet,
    dissection: Dissection,
    constant: float,
    temperature: float,
    hidden: int,
    whole_energy: Energy | None = None,
) -> Autoregressive:
    """The guide for a dissected model at one temperature and one set of parameters.

    `whole_energy` replaces the factors' where they are not the whole energy; the skeleton must then be everything,
    in letter order.
    """
    skeleton = dissection.skeleton
    size = len(skeleton)
    net_name, group = symmetry_of(alphabet, skeleton)
    most = max((len(p) for p in dissection.parents), default=0)
    parents, mask = np.zeros((size, max(most, 1)), np.int32), np.zeros((size, max(most, 1)))
    for k, above in enumerate(dissection.parents):
        parents[k, : len(above)], mask[k, : len(above)] = above, 1.0
    on_skeleton = np.zeros(alphabet.n, bool)
    on_skeleton[skeleton] = True
    place = np.full(alphabet.n, -1)
    place[skeleton] = np.arange(size)
    return Autoregressive(
        beta=reals(1.0 / temperature),
        parents=integers(parents),
        mask=reals(mask),
        levels=integers(_levels(dissection.level, group is not None)),
        valid=jax.device_put(np.arange(alphabet.q)[None] < alphabet.sizes[skeleton][:, None]),
        known=_known_rows(alphabet, place, size),
        skeleton=integers(skeleton),
        skeleton_energy=whole_energy or build_factor_energy(alphabet, constant, place),
        energy=whole_energy or build_factor_energy(alphabet, constant),
        sweep=build_sweep(alphabet, skeleton, dissection.blocks, dissection.width),
        frame=None if group is None else _frame(group, skeleton, alphabet.q),
        net=NETS[net_name](alphabet.q, hidden),
        codec=alphabet.codec,
        typical_field=reals(typical_field(alphabet, temperature)),
    )


def _levels(level: np.ndarray, first_alone: bool) -> np.ndarray:
    depth = np.array(level)
    if first_alone and len(depth):
        depth = depth + 1
        depth[0] = 0
    return padded_levels(depth)


def _known_rows(alphabet: Alphabet, place: np.ndarray, size: int) -> Rows:
    entries = []
    for f in alphabet.factors:
        for scope, table in zip(f.scopes, f.tables, strict=True):
            at = place[scope]
            if (at < 0).any():
                continue
            order = np.argsort(at)
            entries.append(((int(at[order[-1]]),), at[order[:-1]], np.transpose(table, order)))
    return build_rows((size,), entries, alphabet.q)


def _frame(group: LetterGroup, skeleton: np.ndarray, q: int) -> Frame:
    act = group.act[:, group.kind_of[skeleton]]  # (G, S, Q)
    undo = np.argsort(act, axis=-1)
    element = np.zeros(q, int)
    for state in range(q):
        orbit = act[:, 0, state]
        representative = orbit.min()
        element[state] = int(np.flatnonzero(act[:, 0, representative] == state)[0])
    return Frame(integers(act), integers(undo), integers(element))
