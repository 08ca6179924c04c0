"""Circle: plaquettes of U(1), one after another, each knowing the flux that is left.

    p(P | R) ∝ F(P) G_m(R − P),    F = e^{−βf},    G_m(x) = Σ_n c_n^m e^{inx},    c_n = ∫ F(P) e^{−inP} dP/2π

is the distribution of one of m + 1 plaquettes whose sum is R: exact, whatever F is. For large m, G_m is flat, and all
plaquettes but the last few are independent. What is drawn from is the density that interpolates ln p linearly between
nodes; ln q is the density of what is drawn, so that a coarse table costs weight and never bias.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers, reals
from vdsl.guides.gauge.algebra import TURN_BITS
from vdsl.guides.gauge.steps import alias_cell, at, inside_log, log_masses, pick, uniforms, walker
from vdsl.ir.gauge import ClassFunction
from vdsl.lowering.kernels import working_dtype

_FLAT = 1e-4  # what is left of G_m beside its mean when plaquettes count as independent
_ROUGHNESS = 0.05  # standard deviation of ln w over all plaquettes that interpolation may cause, about
_LEAST_NODES, _MOST_NODES = 256, 4096
_TINY = 1e-15  # of the peak of G_m: below it there is only rounding


class Circle(eqx.Module):
    """Plaquettes of a lattice with a constraint, or of an open one. Angles are int32 fractions of a turn.

    log_f (K,): ln of one plaquette's density in dP/2π at the nodes. accept, alias (K,): its cells, for Walker's method.
    log_g (steps, 2K): ln G_m at −x_k, twice around, m = steps … 1. blind: plaquettes that are drawn independently.
    """

    log_f: Array
    accept: Array
    alias: Array
    log_g: Array
    blind: int = eqx.field(static=True)

    @property
    def count(self) -> int:
        """How many plaquettes there are, the one that the constraint fixes included."""
        return self.blind + (self.log_g.shape[0] + 1 if self.log_g.shape[0] else 0)

    def sample(self, key: Array, total: Array) -> tuple[Array, Array]:
        """Plaquettes (b, count) that add up to `total` (b,) if they are constrained, and ln q in ∏ dP/2π."""
        steps, n = self.log_g.shape[0], len(total)
        for_blind, for_steps = uniforms(key, (3, n, self.blind), (steps, 2, n))
        blind, log_q = self._draw_blind(for_blind)
        if not steps:
            return blind, log_q
        rest = total - jnp.sum(blind, axis=1, dtype=jnp.int32)

        def step(rest: Array, inputs: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            drawn, log_p = self._draw(*inputs, rest)
            return rest - drawn, (drawn, log_p)

        rest, (drawn, log_p) = jax.lax.scan(step, rest, (for_steps, self.log_g))
        return jnp.concatenate([blind, drawn.T, rest[:, None]], 1), log_q + jnp.sum(log_p, axis=0)

    def log_prob(self, plaquettes: Array, total: Array) -> Array:
        """ln q of plaquettes (b, count)."""
        blind, informed = plaquettes[:, : self.blind], plaquettes[:, self.blind :]
        cell, place = self._cell(blind)
        low = self.log_f[cell]
        log_q = jnp.sum(low + (self.log_f[self._next(cell)] - low) * place, axis=1)
        if not self.log_g.shape[0]:
            return log_q
        rest = total - jnp.sum(blind, axis=1, dtype=jnp.int32)

        def step(rest: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
            plaquette, table = inputs
            g, masses = self._conditional(table, rest)
            cell, place = self._cell(plaquette)
            low = at(g, cell)
            log_p = low + (at(g, self._next(cell)) - low) * place - jnp.log(jnp.mean(masses, axis=1))
            return rest - plaquette, log_p

        _, log_p = jax.lax.scan(step, rest, (informed[:, :-1].T, self.log_g))
        return log_q + jnp.sum(log_p, axis=0)

    # One plaquette

    @property
    def _nodes(self) -> int:
        return self.log_f.shape[0]

    @property
    def _shift(self) -> int:
        """Bits of a turn below one cell."""
        return TURN_BITS - (self._nodes.bit_length() - 1)

    def _cell(self, turn: Array) -> tuple[Array, Array]:
        """The cell that an angle lies in, and where in it, in [0, 1)."""
        cell = jax.lax.shift_right_logical(turn, jnp.asarray(self._shift, jnp.int32))
        inside = jnp.bitwise_and(turn, (1 << self._shift) - 1)
        return cell, inside.astype(working_dtype()) * 2.0**-self._shift

    def _turn(self, cell: Array, place: Array) -> Array:
        inside = jnp.minimum((place * 2.0**self._shift).astype(jnp.int32), (1 << self._shift) - 1)
        return jnp.left_shift(cell.astype(jnp.int32), self._shift) + inside

    def _next(self, cell: Array) -> Array:
        return jnp.bitwise_and(cell + 1, self._nodes - 1)

    def _draw_blind(self, u: Array) -> tuple[Array, Array]:
        cell = alias_cell(u[0], u[1], self.accept, self.alias)
        low = self.log_f[cell]
        rise = self.log_f[self._next(cell)] - low
        place = inside_log(u[2], rise)
        return self._turn(cell, place), jnp.sum(low + rise * place, axis=1)

    def _draw(self, u: Array, table: Array, rest: Array) -> tuple[Array, Array]:
        g, masses = self._conditional(table, rest)
        cell, total = pick(masses, u[0])
        low = at(g, cell)
        rise = at(g, self._next(cell)) - low
        place = inside_log(u[1], rise)
        return self._turn(cell, place), low + rise * place - jnp.log(total / self._nodes)

    def _conditional(self, table: Array, rest: Array) -> tuple[Array, Array]:
        """ln of the density at the nodes, less its peak, and the masses of the cells, both (b, K)."""
        start, between = self._cell(rest)
        first = jnp.bitwise_and(-start - 1, self._nodes - 1)
        window = jax.vmap(lambda k: jax.lax.dynamic_slice(table, (k,), (self._nodes + 1,)))(first)
        g = self.log_f + window[:, 1:] + between[:, None] * (window[:, :-1] - window[:, 1:])
        g = g - jnp.max(g, axis=1, keepdims=True)
        return g, log_masses(g, jnp.roll(g, -1, axis=1))


def build_circle(f: ClassFunction, beta: float, plaquettes: int, closed: bool) -> Circle:
    """The conditionals at inverse temperature β, for so many plaquettes, constrained or not."""
    nodes = nodes_for(f, beta, plaquettes)
    values = f.refined(nodes) if nodes >= len(f.values) else f.values[:: len(f.values) // nodes]
    log_f = -beta * (values - values.min())
    masses = _masses_host(log_f)
    log_f = log_f - np.log(masses.mean())
    spectrum = np.fft.fft(np.exp(log_f))
    ratio = spectrum / spectrum[0].real
    informed = informed_count(ratio[1:], plaquettes) if closed else 0
    tables = np.empty((max(informed - 1, 0), 2 * nodes))
    for k, m in enumerate(range(informed - 1, 0, -1)):
        tables[k] = np.tile(np.log(density_of_sum(ratio, m)[-np.arange(nodes)]), 2)
    accept, alias = walker(masses)
    return Circle(reals(log_f), reals(accept), integers(alias), reals(tables), plaquettes - informed)


def nodes_for(f: ClassFunction, beta: float, plaquettes: int) -> int:
    """Nodes so fine that interpolating ln p costs little over all plaquettes: |g''|h²/8 each, at random signs."""
    g, step = -beta * f.values, 2 * np.pi / len(f.values)
    curvature = np.abs(np.roll(g, 1) + np.roll(g, -1) - 2 * g)[g > g.max() - 8].max() / step**2
    wanted = 2 * np.pi * np.sqrt(2 * curvature * np.sqrt(plaquettes) / (8 * _ROUGHNESS))
    return int(np.clip(2 ** np.ceil(np.log2(max(wanted, 1.0))), _LEAST_NODES, _MOST_NODES))


def informed_count(ratio: np.ndarray, plaquettes: int) -> int:
    """How many of the last plaquettes must know the flux: until Σ |c_n/c_0|^m is negligible. A power of two, or all."""
    size = np.sort(np.abs(ratio))[::-1][:64]
    count = 4
    while count < plaquettes and (size**count).sum() > _FLAT:
        count *= 2
    return min(count, plaquettes)


def density_of_sum(ratio: np.ndarray, m: int) -> np.ndarray:
    """G_m at the nodes, in units of its mean."""
    density = np.fft.ifft(ratio**m).real * len(ratio)
    return np.maximum(density, _TINY * density.max())


def _masses_host(g: np.ndarray) -> np.ndarray:
    rise = np.roll(g, -1) - g
    return np.exp(g) * np.where(np.abs(rise) < 1e-8, 1.0, np.expm1(rise) / np.where(rise == 0, 1.0, rise))
