"""Spins: holonomies and plaquettes of SU(2) on a torus, exactly, by its characters χ_n(α) = sin nα / sin α.

With F = e^{−βf}, c_n = ∫ F χ_n, u_n = c_n/(n c_1) and G_m = Σ_n n u_n^m χ_n the density of a product of m plaquettes,

    q(A)     ∝ Σ_n u_n^V χ_n(A)²                    a class function
    q(B | A) ∝ G_V(A · BA†B†)                       depends on the angle between the axes of A and BAB†, if A is given
    q(P | R) ∝ F(P) G_m(P†R)                        P times m more plaquettes make R

where the class angle of P has the marginal sin²α F(α) Σ_n u_n^m χ_n(α) χ_n(ρ), as ∫dt/2 χ_n(γ) = χ_n(α) χ_n(ρ)/n for
cos γ = cos α cos ρ + t sin α sin ρ; and t, the cosine between the axes of P and R, has the density G_m(γ(t)). What is
drawn from are interpolations of these in α (linear) and in t (logarithmic: ln G_m is nearly linear in cos γ).
"""

from __future__ import annotations

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers, reals
from vdsl.guides.gauge.algebra import Quaternions, unit
from vdsl.guides.gauge.steps import (
    alias_cell,
    at,
    inside_linear,
    inside_log,
    log_masses,
    normals,
    pick,
    uniforms,
    walker,
)
from vdsl.ir.gauge import ClassFunction

_FLAT = 1e-4  # what is left of G_m beside 1 when plaquettes count as independent
_COSINES, _TABLE = 16, 512  # cells in t, and in cos γ
_LEAST_NODES, _MOST_NODES = 256, 2048
_MOST_CHARACTERS = 128
_TINY = 1e-15


class Angles(eqx.Module):
    """A density of class angles in [0, π], linear between K + 1 nodes, drawn by Walker's method."""

    density: Array
    accept: Array
    alias: Array

    def sample(self, u: Array) -> tuple[Array, Array]:
        """Angles and ln of their density in the Haar measure, from uniform numbers (3, …)."""
        cell = alias_cell(u[0], u[1], self.accept, self.alias)
        low, high = self.density[cell], self.density[cell + 1]
        place = _inside(u[2], cell, low, high, self.accept.shape[0])
        angle = (cell + place) * (math.pi / self.accept.shape[0])
        return angle, jnp.log(_value(place, cell, low, high, self.accept.shape[0]) / haar(angle))

    def log_prob(self, angle: Array) -> Array:
        """ln of the density in the Haar measure."""
        cells = self.accept.shape[0]
        place = angle * (cells / math.pi)
        cell = jnp.clip(place.astype(jnp.int32), 0, cells - 1)
        low, high = self.density[cell], self.density[cell + 1]
        return jnp.log(_value(jnp.clip(place - cell, 0, 1), cell, low, high, cells) / haar(angle))


class Spins(eqx.Module):
    """See the module. basis (N, K + 1): sin nα sin α F(α) at the nodes; powers (steps, N): u_n^m, m = steps … 1;
    log_g (steps + 1, T + 1): ln G_m at cos γ from −1 to 1, m = V first and then m = steps … 1."""

    plaquette: Angles
    holonomy: Angles
    basis: Array
    powers: Array
    log_g: Array
    blind: int = eqx.field(static=True)
    periodic: tuple[bool, bool] = eqx.field(static=True)

    def sample(self, key: Array, n: int) -> tuple[Array, Array, Array, Array]:
        """A, B (n, 4), plaquettes (n, V, 4) and ln q in the Haar measure of all that is drawn."""
        keys, algebra, steps = jax.random.split(key), Quaternions(1), self.powers.shape[0]
        of_blind, of_holonomies, of_steps = uniforms(keys[0], (3, n, self.blind), (6, n), (steps, 4, n))
        towards_blind, ab, towards_steps = normals(keys[1], (n, self.blind, 3), (2, n, 4), (steps, n, 3))
        angle, log_q = self.plaquette.sample(of_blind)
        log_q = jnp.sum(log_q, axis=1)
        blind = about(angle, unit(towards_blind))
        if not self.closed:
            a, b = (
                unit(noise) if periodic else algebra.identity((n,))
                for noise, periodic in zip(ab, self.periodic, strict=True)
            )
            return a, b, blind, log_q
        a, b, log_ab = self._draw_holonomies(of_holonomies, ab[..., 1:])
        rest = algebra.multiply(algebra.inverse(algebra.total(blind)), algebra.commutator(a, b))

        def step(rest: Array, inputs: tuple[Array, Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            drawn, log_p = self._draw(*inputs, rest)
            return algebra.multiply(algebra.inverse(drawn), rest), (drawn, log_p)

        inputs = of_steps, towards_steps, self.powers, self.log_g[1:]
        rest, (drawn, log_p) = jax.lax.scan(step, rest, inputs)
        plaquettes = jnp.concatenate([blind, jnp.moveaxis(drawn, 0, 1), rest[:, None]], 1)
        return a, b, plaquettes, log_q + log_ab + jnp.sum(log_p, axis=0)

    def log_prob(self, a: Array, b: Array, plaquettes: Array) -> Array:
        """ln q of given ones."""
        algebra = Quaternions(1)
        blind = plaquettes[:, : self.blind]
        angle = _angle(blind)
        log_q = jnp.sum(self.plaquette.log_prob(angle), axis=1)
        if not self.closed:
            return log_q
        rest = algebra.multiply(algebra.inverse(algebra.total(blind)), algebra.commutator(a, b))

        def step(rest: Array, inputs: tuple[Array, Array, Array]) -> tuple[Array, Array]:
            plaquette, powers, table = inputs
            alpha = _angle(plaquette)
            density = self._marginal(powers, _angle(rest))
            place = alpha * (self._cells / math.pi)
            cell = jnp.clip(place.astype(jnp.int32), 0, self._cells - 1)
            low, high = at(density, cell), at(density, cell + 1)
            log_p = jnp.log(
                _value(jnp.clip(place - cell, 0, 1), cell, low, high, self._cells) / (_mass(density) * haar(alpha))
            )
            t = jnp.sum(_axis(plaquette) * _axis(rest), -1)
            log_p = log_p + _cosine_log_prob(table, alpha, _angle(rest), t)
            return algebra.multiply(algebra.inverse(plaquette), rest), log_p

        informed = jnp.moveaxis(plaquettes[:, self.blind : -1], 1, 0)
        _, log_p = jax.lax.scan(step, rest, (informed, self.powers, self.log_g[1:]))
        return log_q + self._holonomies_log_prob(a, b) + jnp.sum(log_p, axis=0)

    @property
    def closed(self) -> bool:
        """Whether the plaquettes are constrained."""
        return all(self.periodic)

    @property
    def _cells(self) -> int:
        return self.basis.shape[1] - 1

    # Holonomies

    def _draw_holonomies(self, u: Array, noise: Array) -> tuple[Array, Array, Array]:
        algebra = Quaternions(1)
        angle, log_q = self.holonomy.sample(u[:3])
        axis = unit(noise[0])
        s, log_s = _draw_cosine(u[3:5], self.log_g[0], angle, angle)
        across = _across(noise[1], axis)
        # Conjugation turns the axis by the angle whose cosine is s, towards `across`: half of it about their normal.
        # By e^{iφ axis·σ} the axis stays.
        half = jnp.sqrt(jnp.maximum(0.5 * (1 + s), 0)), jnp.sqrt(jnp.maximum(0.5 * (1 - s), 0))
        there = jnp.concatenate([half[0][:, None], -half[1][:, None] * jnp.cross(axis, across)], 1)
        spin = about(2 * math.pi * u[5], axis)
        return about(angle, axis), algebra.multiply(unit(there), spin), log_q + log_s

    def _holonomies_log_prob(self, a: Array, b: Array) -> Array:
        algebra, angle = Quaternions(1), _angle(a)
        turned = algebra.multiply(algebra.multiply(b, a), algebra.inverse(b))
        s = jnp.sum(_axis(a) * _axis(turned), -1)
        log_q = self.holonomy.log_prob(angle)
        return log_q + _cosine_log_prob(self.log_g[0], angle, angle, s)

    # One plaquette

    def _draw(self, u: Array, noise: Array, powers: Array, table: Array, rest: Array) -> tuple[Array, Array]:
        rho, axis = _angle(rest), _axis(rest)
        density = self._marginal(powers, rho)
        cell, total = pick(_masses(density), u[0])
        low, high = at(density, cell), at(density, cell + 1)
        place = _inside(u[1], cell, low, high, self._cells)
        alpha = (cell + place) * (math.pi / self._cells)
        log_p = jnp.log(_value(place, cell, low, high, self._cells) / (total * (math.pi / self._cells) * haar(alpha)))
        t, log_t = _draw_cosine(u[2:], table, alpha, rho)
        towards = t[:, None] * axis + jnp.sqrt(jnp.maximum(1 - t**2, 0))[:, None] * _across(noise, axis)
        return about(alpha, unit(towards)), log_p + log_t

    def _marginal(self, powers: Array, rho: Array) -> Array:
        """The density of the class angle at the nodes (b, K + 1), not normalised."""
        n = jnp.arange(1, powers.shape[0] + 1, dtype=rho.dtype)
        sine = jnp.sin(rho)[:, None]
        poles = n * jnp.where(jnp.cos(rho)[:, None] > 0, 1.0, (-1.0) ** (n + 1))
        characters = jnp.where(sine < 1e-3, poles, jnp.sin(n * rho[:, None]) / jnp.maximum(sine, 1e-3))
        density = (characters * powers) @ self.basis
        # Where nothing is left but rounding: some weight, so that no angle is impossible.
        least = 1e-6 * jnp.max(density, axis=1, keepdims=True) * self.basis[0] / jnp.max(self.basis[0])
        return jnp.maximum(density, least)


def build_spins(f: ClassFunction, beta: float, plaquettes: int, periodic: tuple[bool, bool]) -> Spins:
    """The conditionals at inverse temperature β."""
    grid = 2 * _MOST_NODES
    values = -beta * f.refined(grid)
    weight = np.exp(values - values.max())
    alpha = 2 * np.pi * np.arange(grid) / grid
    sines = -np.fft.fft(np.sin(alpha) * weight).imag[1 : grid // 2]  # ∝ ∫ sin nα sin α F = c_n
    d = np.arange(1, len(sines) + 1)
    u = sines / sines[0] / d
    kept = int(np.clip(np.flatnonzero(np.abs(u * d) > 1e-9).max() + 1, 2, _MOST_CHARACTERS))
    u, d = u[:kept], d[:kept]
    informed = _informed(u, d, plaquettes) if all(periodic) else 0
    curvature = np.abs(np.roll(values, 1) + np.roll(values, -1) - 2 * values)[values > values.max() - 8].max()
    cells = int(np.clip(2 ** np.ceil(np.log2(64 * np.sqrt(curvature) * grid / (2 * np.pi) + 1)), _LEAST_NODES, 1024))
    nodes = np.pi * np.arange(cells + 1) / cells
    at_nodes = weight[: grid // 2 + 1 : grid // 2 // cells]
    basis = np.sin(d[:, None] * nodes) * np.sin(nodes) * at_nodes
    waves = np.sin(d[:, None] * nodes)
    steps = np.arange(informed - 1, 0, -1)
    cosine = np.linspace(-1, 1, _TABLE + 1)
    gamma = np.arccos(cosine)
    with np.errstate(divide="ignore", invalid="ignore"):
        characters = np.sin(d[:, None] * gamma) / np.sin(gamma)
    characters[:, -1], characters[:, 0] = d, d * (-1.0) ** (d + 1)
    density = (d * u ** np.concatenate([[plaquettes], steps])[:, None]) @ characters
    density = np.maximum(density, _TINY * density.max(1, keepdims=True))
    return Spins(
        _angles(basis[0]),
        _angles(u**plaquettes @ waves**2),
        reals(basis),
        reals(u ** steps[:, None]),
        reals(np.log(density)),
        plaquettes - informed,
        periodic,
    )


def _informed(u: np.ndarray, d: np.ndarray, plaquettes: int) -> int:
    count = 4
    while count < plaquettes and (d[1:] ** 2 * np.abs(u[1:]) ** count).sum() > _FLAT:
        count *= 2
    return min(count, plaquettes)


def _angles(density: np.ndarray) -> Angles:
    density = np.maximum(density, 0)
    masses = 0.5 * (density[1:] + density[:-1])
    masses[0], masses[-1] = density[1] / 3, density[-2] / 3
    density = density / (masses.sum() * np.pi / len(masses))
    accept, alias = walker(masses)
    return Angles(reals(density), reals(accept), integers(alias))


# --- quaternions -----------------------------------------------------------------------------------------------------


def _angle(a: Array) -> Array:
    return jnp.arctan2(jnp.sqrt(jnp.sum(a[..., 1:] ** 2, -1)), a[..., 0])


def _axis(a: Array) -> Array:
    """The direction of the vector part; some direction for ±1."""
    vector = a[..., 1:]
    size = jnp.sum(vector**2, -1, keepdims=True)
    return jnp.where(size > 1e-24, vector * jax.lax.rsqrt(jnp.maximum(size, 1e-24)), jnp.asarray([0.0, 0.0, 1.0]))


def about(angle: Array, axis: Array) -> Array:
    """cos + sin · axis·σ, i left out."""
    return jnp.concatenate([jnp.cos(angle)[..., None], jnp.sin(angle)[..., None] * axis], -1)


def _across(noise: Array, axis: Array) -> Array:
    """A uniform direction orthogonal to an axis, from normal noise."""
    return unit(noise - axis * jnp.sum(noise * axis, -1, keepdims=True))


def haar(angle: Array) -> Array:
    """The density of Haar's class angle, (2/π) sin²α. Ratios of densities before logarithms: in single precision every
    logarithm is a little off, and all plaquettes alike."""
    return (2 / math.pi) * jnp.maximum(jnp.sin(angle) ** 2, 1e-24)


def _mass(density: Array) -> Array:
    return jnp.sum(_masses(density), axis=1) * (math.pi / (density.shape[1] - 1))


def _masses(density: Array) -> Array:
    """Masses of the cells (b, K) in units of their width: linear inside, and quadratic where it vanishes as sin²α."""
    inner = 0.5 * (density[:, 2:-1] + density[:, 1:-2])
    return jnp.concatenate([density[:, 1:2] / 3, inner, density[:, -2:-1] / 3], 1)


def _value(place: Array, cell: Array, low: Array, high: Array, cells: int) -> Array:
    """The density at a place in a cell."""
    linear = low + (high - low) * place
    ends = jnp.where(cell == 0, high * place**2, low * (1 - place) ** 2)
    return jnp.maximum(jnp.where((cell == 0) | (cell == cells - 1), ends, linear), 1e-30)


def _inside(u: Array, cell: Array, low: Array, high: Array, cells: int) -> Array:
    """The place in a cell below which there is the share u of its mass."""
    ends = jnp.where(cell == 0, jnp.cbrt(u), 1 - jnp.cbrt(1 - u))
    return jnp.where((cell == 0) | (cell == cells - 1), ends, inside_linear(u, low, high))


# --- cosines ---------------------------------------------------------------------------------------------------------


def _cosine_table(table: Array, alpha: Array, rho: Array) -> tuple[Array, Array]:
    """ln G_m less its peak at the nodes in t (b, 17), and masses of the cells (b, 16)."""
    t = jnp.linspace(-1, 1, _COSINES + 1, dtype=alpha.dtype)
    cosine = (jnp.cos(alpha) * jnp.cos(rho))[:, None] + (jnp.sin(alpha) * jnp.sin(rho))[:, None] * t
    place = (cosine + 1) * (0.5 * _TABLE)
    cell = jnp.clip(place.astype(jnp.int32), 0, _TABLE - 1)
    low = table[cell]
    g = low + (table[cell + 1] - low) * jnp.clip(place - cell, 0, 1)
    g = g - jnp.max(g, axis=1, keepdims=True)
    return g, log_masses(g[:, :-1], g[:, 1:])


def _draw_cosine(u: Array, table: Array, alpha: Array, rho: Array) -> tuple[Array, Array]:
    """t and ln of its density in dt/2, from uniform numbers (2, b)."""
    g, masses = _cosine_table(table, alpha, rho)
    cell, total = pick(masses, u[0])
    low = at(g, cell)
    rise = at(g, cell + 1) - low
    place = inside_log(u[1], rise)
    return (cell + place) * (2 / _COSINES) - 1, low + rise * place - jnp.log(total / _COSINES)


def _cosine_log_prob(table: Array, alpha: Array, rho: Array, t: Array) -> Array:
    g, masses = _cosine_table(table, alpha, rho)
    place = (t + 1) * (0.5 * _COSINES)
    cell = jnp.clip(place.astype(jnp.int32), 0, _COSINES - 1)
    low = at(g, cell)
    return low + (at(g, cell + 1) - low) * jnp.clip(place - cell, 0, 1) - jnp.log(jnp.mean(masses, axis=1))
