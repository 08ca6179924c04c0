"""Tables: the exact guide, where the model's treewidth allows it.

Variable elimination (exact/elimination.py) leaves the exact conditional of every variable given its parents as a table;
sampling backwards through the elimination order draws from the Boltzmann distribution itself. Nothing is trained:
F_q = F up to rounding. Variables of equal depth in the elimination tree are drawn together.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.exact.elimination import ConditionalTables
from vdsl.guides.alphabet import Codec
from vdsl.guides.arrays import integers, reals
from vdsl.guides.guide import Configuration, Guide, Params
from vdsl.lowering.kernels import working_dtype


class Tables(Guide):
    """V variables; row of variable v = base[v] + Σ_p stride[v, p] · state of parents[v, p]; log_p (R, Q)."""

    beta: Array
    log_p: Array
    base: Array
    parents: Array
    stride: Array
    levels: Array
    ln_z: Array
    codec: Codec = eqx.field(static=True)

    def trainable(self) -> bool:
        return False

    def init(self, key: Array) -> Params:
        return {}

    def sample_latent(self, params: Params, key: Array, n: int, scale: Array) -> Array:
        size = self.base.shape[0]

        def step(z: Array, inputs: tuple[Array, Array]) -> tuple[Array, None]:
            level, level_key = inputs
            v = jnp.minimum(level, size - 1)
            drawn = jax.random.categorical(level_key, self.log_p[self._rows(v, z)], axis=-1)
            return z.at[level].set(drawn.astype(jnp.int32)), None

        keys = jax.random.split(key, self.levels.shape[0])
        return jax.lax.scan(step, jnp.zeros((size + 1, n), jnp.int32), (self.levels, keys))[0][:size]

    def latent_log_prob(self, params: Params, z: Array, scale: Array) -> Array:
        rows = self._rows(jnp.arange(z.shape[0]), z)
        return jnp.sum(self.log_p[rows, z], axis=0)

    def latent_energy(self, z: Array, scale: Array) -> Array:
        """βE = −ln q − ln Z: the tables are the Boltzmann distribution."""
        return -self.latent_log_prob({}, z, scale) - self.ln_z

    def sample_and_log_prob(self, params: Params, key: Array, n: int) -> tuple[Configuration, Array]:
        one = jnp.ones(())
        z = self.sample_latent(params, key, n, one)
        return self.codec.decode(z), self.latent_log_prob(params, z, one)

    def log_prob(self, params: Params, x: Configuration) -> Array:
        return self.latent_log_prob(params, self.codec.encode(x), jnp.ones(()))

    def _rows(self, v: Array, z: Array) -> Array:
        return self.base[v][:, None] + jnp.sum(self.stride[v][..., None] * z[self.parents[v]], axis=1)


def build_tables(tables: ConditionalTables, codec: Codec, cardinalities: np.ndarray, temperature: float) -> Tables:
    """The guide from the conditionals of an elimination. Tables that repeat are stored once."""
    n, q = len(tables.order), int(cardinalities.max())
    most = max(1, max(len(p) for p in tables.parents))
    base, level = np.zeros(n, np.int64), np.zeros(n, int)
    parents, stride = np.zeros((n, most), np.int64), np.zeros((n, most), np.int64)
    pieces: list[np.ndarray] = []
    seen: dict[bytes, int] = {}
    height = 0
    for v in tables.order[::-1]:
        above, log_p = tables.parents[v], tables.log_tables[v]
        shape = tuple(cardinalities[above].tolist())
        full = np.full((int(np.prod(shape)), q), -np.inf, working_dtype())
        full[:, : cardinalities[v]] = np.broadcast_to(log_p, (*shape, cardinalities[v])).reshape(len(full), -1)
        key = full.tobytes() if full.size <= 4096 else b""
        if not key or key not in seen:
            if key:
                seen[key] = height
            base[v] = height
            pieces.append(full)
            height += len(full)
        else:
            base[v] = seen[key]
        parents[v, : len(above)] = above
        stride[v, : len(above)] = [int(np.prod(shape[m + 1 :])) for m in range(len(above))]
        level[v] = level[above].max() + 1 if len(above) else 0
    return Tables(
        beta=reals(1.0 / temperature),
        log_p=reals(np.concatenate(pieces)),
        base=integers(base),
        parents=integers(parents),
        stride=integers(stride),
        levels=integers(padded_levels(level)),
        ln_z=reals(tables.ln_z),
        codec=codec,
    )


def padded_levels(level: np.ndarray) -> np.ndarray:
    """The members of each level as rows of equal length, padded with the number of letters."""
    rows = [np.flatnonzero(level == d) for d in range(int(level.max(initial=-1)) + 1)]
    out = np.full((len(rows), max(map(len, rows), default=1)), len(level))
    for d, row in enumerate(rows):
        out[d, : len(row)] = row
    return out
