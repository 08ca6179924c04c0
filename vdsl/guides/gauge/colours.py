"""Colours: holonomies and plaquettes of SU(3): exact as long as what is left to come does not matter, nearly so then.

Plaquettes that need not know the rest are drawn from F = e^{−βf} itself: eigenvalues from a table on the maximal torus,
eigenvectors Haar. The last few know what their product must become. With R what P and m more must make, the density
F(P) G_m(P†R) is replaced by

    q(P | R) ∝ exp Re tr[M P],     M = κ₁ + κ_m R†,     ∫χ₃ e^{κ_m Re tr} = 3u₃^m ∫e^{κ_m Re tr}

which for Wilson's action is exact at m = 1, and close for more: the heat kernels of one coupling are nearly those of
another. In the basis where R, and M, are diagonal, P = (v, w) is its first column and an element of SU(2), and

    ∫ e^{Re tr MP} dw = e^{Re m₁v₁} 2I₁(k)/k,     k² = |m₂|²(1 − |v₂|²) + |m₃|²(1 − |v₃|²) + 2 Re m₂m₃v̄₁

so that v₁ is drawn from a table in two dimensions, |v₂|² from one in one, the phases of v₂ and v₃ uniformly, and w from
e^{k cos α}. All tables are interpolated, and ln q is the density of that. The holonomies are Haar, which is what they
are when the characters of all plaquettes together have died out.
"""

from __future__ import annotations

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers, reals
from vdsl.guides.gauge.algebra import Matrices, Quaternions, product, special_unitary, unit
from vdsl.guides.gauge.spins import about, haar
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
from vdsl.lowering.kernels import working_dtype

_FLAT = 1e-4  # what is left of G_m beside 1 when plaquettes count as independent
_TORUS = 256  # nodes per angle of the maximal torus
_MODULI, _PHASES, _SPLITS, _POLAR = 32, 32, 16, 128  # cells in |v₁|, arg v₁, |v₂|² and α
_LARGEST = 8  # p + q of the representations that are looked at
_MIXED = 0.6180339887  # eigenvectors of R are those of a mixture of its Hermitian and antihermitian parts


class Colours(eqx.Module):
    """See the module. torus (n, n): the density of the eigenvalue angles in (dφ/2π)², drawn by accept and alias (n²,);
    own: κ₁; others (steps,): κ_m, m = steps … 1."""

    torus: Array
    accept: Array
    alias: Array
    own: Array
    others: Array
    blind: int = eqx.field(static=True)
    periodic: tuple[bool, bool] = eqx.field(static=True)

    def sample(self, key: Array, n: int) -> tuple[Array, Array, Array, Array]:
        """A, B (n, 3, 3), plaquettes (n, V, 3, 3) and ln q in the Haar measure of all that is drawn."""
        keys, algebra, steps = jax.random.split(key), Matrices(2), self.others.shape[0]
        of_blind, of_steps = uniforms(keys[0], (4, n, self.blind), (steps, 9, n))
        ab, turns, towards = normals(keys[1], (2, 2, n, 3, 3), (2, n, self.blind, 3, 3), (steps, n, 3))
        haar = special_unitary(jax.lax.complex(ab[0], ab[1]))
        a, b = (u if periodic else algebra.identity((n,)) for u, periodic in zip(haar, self.periodic, strict=True))
        blind, log_q = self._draw_blind(of_blind, special_unitary(jax.lax.complex(turns[0], turns[1])))
        if not self.closed:
            return a, b, blind, log_q
        rest = algebra.multiply(algebra.inverse(algebra.total(blind)), algebra.commutator(a, b))

        def step(rest: Array, inputs: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            drawn, log_p = _draw(*inputs, self.own, rest)
            return algebra.multiply(algebra.inverse(drawn), rest), (drawn, log_p)

        rest, (drawn, log_p) = jax.lax.scan(step, rest, (of_steps, towards, self.others))
        plaquettes = jnp.concatenate([blind, jnp.moveaxis(drawn, 0, 1), rest[:, None]], 1)
        return a, b, plaquettes, log_q + jnp.sum(log_p, axis=0)

    def log_prob(self, a: Array, b: Array, plaquettes: Array) -> Array:
        """ln q of given ones."""
        algebra = Matrices(2)
        blind = plaquettes[:, : self.blind]
        log_q = jnp.sum(self._class_log_prob(jnp.angle(_spectrum(blind)[1])), axis=1)
        if not self.closed:
            return log_q
        rest = algebra.multiply(algebra.inverse(algebra.total(blind)), algebra.commutator(a, b))

        def step(rest: Array, inputs: tuple[Array, Array]) -> tuple[Array, Array]:
            plaquette, other = inputs
            log_p = _log_prob(self.own, other, rest, plaquette)
            return algebra.multiply(algebra.inverse(plaquette), rest), log_p

        informed = jnp.moveaxis(plaquettes[:, self.blind : -1], 1, 0)
        _, log_p = jax.lax.scan(step, rest, (informed, self.others))
        return log_q + jnp.sum(log_p, axis=0)

    @property
    def closed(self) -> bool:
        """Whether the plaquettes are constrained."""
        return all(self.periodic)

    def _draw_blind(self, u: Array, turn: Array) -> tuple[Array, Array]:
        nodes = self.torus.shape[0]
        cell = alias_cell(u[0], u[1], self.accept, self.alias)
        i, j = cell // nodes, cell % nodes
        up, right = (i + 1) % nodes, (j + 1) % nodes
        corners = (self.torus[i, j], self.torus[i, right], self.torus[up, j], self.torus[up, right])
        s, t, _ = _inside_square(u[2], u[3], *corners)
        first, second = (i + s) * (2 * math.pi / nodes), (j + t) * (2 * math.pi / nodes)
        angles = jnp.stack([first, second, -first - second], -1)
        plaquettes = product(turn * jnp.exp(1j * angles)[..., None, :], Matrices(2).inverse(turn))
        return Matrices(2).multiply(plaquettes, Matrices(2).identity(turn.shape[:2])), jnp.sum(
            self._class_log_prob(angles), 1
        )

    def _class_log_prob(self, angles: Array) -> Array:
        """ln q in the Haar measure from the three eigenvalue angles: all their orders are the same element."""
        nodes = self.torus.shape[0]
        total = jnp.zeros_like(angles[..., 0])
        for k, m in itertools.permutations(range(3), 2):
            place = jnp.mod(angles[..., (k, m)] * (nodes / (2 * math.pi)), nodes)
            cell = jnp.clip(place.astype(jnp.int32), 0, nodes - 1)
            (i, j), (s, t) = jnp.moveaxis(cell, -1, 0), jnp.moveaxis(place - cell, -1, 0)
            up, right = (i + 1) % nodes, (j + 1) % nodes
            low = self.torus[i, j] + (self.torus[up, j] - self.torus[i, j]) * s
            high = self.torus[i, right] + (self.torus[up, right] - self.torus[i, right]) * s
            total = total + low + (high - low) * t
        differences = angles - jnp.roll(angles, -1, -1)
        vandermonde = jnp.prod(4 * jnp.sin(0.5 * differences) ** 2, -1)
        tiny = jnp.finfo(total.dtype).tiny
        return jnp.log(jnp.maximum(total, tiny)) - jnp.log(jnp.maximum(vandermonde, tiny))


def build_colours(f: ClassFunction, beta: float, plaquettes: int, periodic: tuple[bool, bool]) -> Colours:
    """The conditionals at inverse temperature β."""
    values = -beta * f.refined(_TORUS)
    weight = np.exp(values - values.max())
    torus = _vandermonde(_TORUS) * weight
    torus = torus / torus.mean()
    corners = 0.25 * sum(np.roll(torus, shift, (0, 1)) for shift in ((0, 0), (-1, 0), (0, -1), (-1, -1)))
    accept, alias = walker(corners.ravel())
    informed, own, others = 0, 0.0, np.zeros(0)
    if all(periodic):
        sizes, ratios = character_ratios(weight)
        informed = 4
        while informed < plaquettes and (sizes[1:] ** 2 * np.abs(ratios[1:]) ** informed).sum() > _FLAT:
            informed *= 2
        informed = min(informed, plaquettes)
        own = coupling_of(ratios[1])
        others = np.array([coupling_of(ratios[1] ** m) for m in range(informed - 1, 0, -1)])
    return Colours(
        reals(torus), reals(accept), integers(alias), reals(own), reals(others), plaquettes - informed, periodic
    )


def character_ratios(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(d_r, u_r = ∫wχ_r / (d_r ∫w)) of a class function on the torus: the trivial one, χ₃, then others."""
    angle = 2 * np.pi * np.arange(len(weight)) / len(weight)
    angles = np.stack([*np.broadcast_arrays(angle[:, None], angle), -angle[:, None] - angle])

    def alternating(p: int, q: int) -> np.ndarray:
        waves = [np.exp(1j * level * angles) for level in (p + q + 2, q + 1, 0)]
        a, b, c = waves
        return (
            a[0] * (b[1] * c[2] - b[2] * c[1]) + a[1] * (b[2] * c[0] - b[0] * c[2]) + a[2] * (b[0] * c[1] - b[1] * c[0])
        )

    base = alternating(0, 0).conj() * weight
    norm = (base * alternating(0, 0)).mean().real
    kinds = [(p, total - p) for total in range(_LARGEST + 1) for p in range(total, -1, -1)]
    sizes = np.array([(p + 1) * (q + 1) * (p + q + 2) // 2 for p, q in kinds])
    return sizes, np.array([(base * alternating(p, q)).mean().real / norm for p, q in kinds]) / sizes


def coupling_of(ratio: float) -> float:
    """κ with ∫χ₃ e^{κ Re tr U} = 3·ratio·∫e^{κ Re tr U}, by bisection."""
    angle = 2 * np.pi * np.arange(_TORUS) / _TORUS
    trace = np.cos(angle[:, None]) + np.cos(angle) + np.cos(angle[:, None] + angle)
    measure = _vandermonde(_TORUS)
    low, high = -100.0, 100.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        weight = measure * np.exp(middle * trace - np.max(middle * trace))
        low, high = (middle, high) if (weight * trace).sum() < 3 * ratio * weight.sum() else (low, middle)
    return 0.5 * (low + high)


def _vandermonde(n: int) -> np.ndarray:
    """∏_{i<j} |e^{iφ_i} − e^{iφ_j}|² on the torus: six times the density of the Haar measure in (dφ/2π)²."""
    angle = 2 * np.pi * np.arange(n) / n
    a, b = angle[:, None], angle[None]
    return 64 * (np.sin((a - b) / 2) * np.sin((2 * a + b) / 2) * np.sin((a + 2 * b) / 2)) ** 2


# --- one plaquette that knows the rest -------------------------------------------------------------------------------


def _spectrum(u: Array) -> tuple[Array, Array]:
    """(eigenvectors as columns, eigenvalues) of unitary matrices."""
    adjoint = Matrices(2).inverse(u)
    mixture = 0.5 * (u + adjoint) - 0.5j * _MIXED * (u - adjoint)
    vectors = jnp.linalg.eigh(mixture)[1]
    # As Rayleigh quotients the eigenvalues are right to second order where two of the mixture are close.
    return vectors, jnp.sum(vectors.conj() * product(u, vectors), -2)


def _draw(u: Array, noise: Array, other: Array, own: Array, rest: Array) -> tuple[Array, Array]:
    """P (b, 3, 3) and ln of its density in the Haar measure, from uniform (9, b) and normal (b, 3) numbers."""
    vectors, values = _spectrum(rest)
    m = own + other * values.conj()
    table = _first_entry(m)
    cell, total = pick(_square_masses(table), u[0])
    corners = _corners(table, cell // _PHASES, cell % _PHASES)
    s, t, density = _inside_square(u[1], u[2], *corners)
    psi = (cell // _PHASES + s) * (0.5 * math.pi / _MODULI)
    theta = (cell % _PHASES + t) * (2 * math.pi / _PHASES)
    log_q = jnp.log(density) - jnp.log(total) - _log_measure(psi)
    # how 1 − |v₁|² is split
    first = jnp.cos(psi) * jnp.exp(1j * theta)
    g = _split_table(m, psi, first)
    piece, mass = pick(log_masses(g[:, :-1], g[:, 1:]), u[3])
    low, rise = at(g, piece), at(g, piece + 1) - at(g, piece)
    inside = inside_log(u[4], rise)
    y = (piece + inside) / _SPLITS
    log_q = log_q + low + rise * inside - jnp.log(mass / _SPLITS)
    phases = jnp.exp(2j * math.pi * u[5:7])
    v = jnp.stack([first, jnp.sin(psi) * jnp.sqrt(y) * phases[0], jnp.sin(psi) * jnp.sqrt(1 - y) * phases[1]], -1)
    # the other two columns: a basis turned by an element of SU(2)
    second, third = _completed(v)
    p, q = m[:, 1] * second[:, 1], m[:, 1] * third[:, 1]
    r, o = m[:, 2] * second[:, 2], m[:, 2] * third[:, 2]
    pull = jnp.stack([(p + o).real, -(q + r).imag, (r - q).real, -(p - o).imag], -1)
    k = jnp.sqrt(jnp.sum(pull**2, -1) + 1e-12)
    alpha, log_p = _draw_polar(u[7:], k)
    towards = unit(pull + jnp.asarray([1e-12, 0, 0, 0], pull.dtype))
    turned = Quaternions(1).multiply(towards, about(alpha, unit(noise)))
    a, b = jax.lax.complex(turned[:, 0], turned[:, 3]), jax.lax.complex(turned[:, 2], turned[:, 1])
    column2 = second * a[:, None] - third * b.conj()[:, None]
    column3 = second * b[:, None] + third * a.conj()[:, None]
    h = jnp.stack([v, column2, column3], -1)
    plaquette = product(product(vectors, h), Matrices(2).inverse(vectors))
    return Matrices(2).multiply(plaquette, Matrices(2).identity((len(rest),))), log_q + log_p


def _log_prob(own: Array, other: Array, rest: Array, plaquette: Array) -> Array:
    vectors, values = _spectrum(rest)
    m = own + other * values.conj()
    h = product(product(Matrices(2).inverse(vectors), plaquette), vectors)
    v = h[..., 0]
    across = jnp.sum(jnp.abs(v[:, 1:]) ** 2, -1)
    psi = jnp.arctan2(jnp.sqrt(across), jnp.abs(v[:, 0]))
    table = _first_entry(m)
    turn = jnp.mod(jnp.angle(v[:, 0]) / (2 * math.pi), 1.0)
    places = jnp.stack([psi * (_MODULI / (0.5 * math.pi)), turn * _PHASES])
    i, j = jnp.clip(places.astype(jnp.int32), 0, jnp.asarray([[_MODULI - 1], [_PHASES - 1]]))
    s, t = places[0] - i, places[1] - j
    f00, f01, f10, f11 = _corners(table, i, j)
    low, high = f00 + (f10 - f00) * s, f01 + (f11 - f01) * s
    tiny = jnp.finfo(psi.dtype).tiny
    log_q = jnp.log(jnp.maximum(low + (high - low) * t, tiny)) - jnp.log(jnp.sum(_square_masses(table), 1))
    log_q = log_q - _log_measure(psi)
    g = _split_table(m, psi, v[:, 0])
    place = jnp.abs(v[:, 1]) ** 2 / jnp.maximum(across, 1e-20) * _SPLITS
    piece = jnp.clip(place.astype(jnp.int32), 0, _SPLITS - 1)
    low = at(g, piece)
    log_q = log_q + low + (at(g, piece + 1) - low) * (place - piece)
    log_q = log_q - jnp.log(jnp.mean(log_masses(g[:, :-1], g[:, 1:]), 1))
    k = jnp.sqrt(jnp.maximum(_square_of_k(m, jnp.abs(v[:, 1]) ** 2, jnp.abs(v[:, 2]) ** 2, v[:, 0]), 0) + 1e-12)
    diagonal = jnp.real(m[:, 1] * h[:, 1, 1] + m[:, 2] * h[:, 2, 2])
    alpha = jnp.arccos(jnp.clip(diagonal / k, -1, 1))
    return log_q + _polar_log_prob(k, alpha)


def _square_of_k(m: Array, second: Array, third: Array, first: Array) -> Array:
    """k² from |v₂|², |v₃|² and v₁."""
    pull = 2 * jnp.real(m[:, 1] * m[:, 2] * first.conj())
    return jnp.abs(m[:, 1]) ** 2 * (1 - second) + jnp.abs(m[:, 2]) ** 2 * (1 - third) + pull


def _log_sphere(square: Array) -> Array:
    """ln 2I₁(k)/k, the mean of e^{k cos α} over S³, from k²."""
    k = jnp.sqrt(jnp.maximum(square, 1e-8))
    return jnp.log(2 * jax.scipy.special.i1e(k) / k) + k


def _first_entry(m: Array) -> Array:
    """The density of (ψ, θ), v₁ = cos ψ e^{iθ}, at the nodes (b, ψ + 1, θ), not normalised."""
    psi = jnp.linspace(0, 0.5 * math.pi, _MODULI + 1, dtype=working_dtype())[:, None]
    theta = jnp.arange(_PHASES, dtype=psi.dtype) * (2 * math.pi / _PHASES)
    first = jnp.cos(psi) * jnp.exp(1j * theta)
    own = jnp.real(m[:, 0, None, None] * first)
    second, third = (jnp.abs(m[:, k, None, None]) ** 2 for k in (1, 2))
    pull = 2 * jnp.real((m[:, 1] * m[:, 2])[:, None, None] * first.conj())
    across = jnp.sin(psi) ** 2
    nodes, weights = np.polynomial.legendre.leggauss(3)
    parts = []
    for y, w in zip(0.5 * (nodes + 1), 0.5 * weights, strict=True):
        square = second * (1 - y * across) + third * (1 - (1 - y) * across) + pull
        parts.append(_log_sphere(square) + math.log(w))
    g = own + jax.nn.logsumexp(jnp.stack(parts), axis=0)
    return jnp.sin(psi) ** 3 * jnp.cos(psi) * jnp.exp(g - jnp.max(g, axis=(1, 2), keepdims=True))


def _square_masses(table: Array) -> Array:
    """Masses of the cells, (b, ψ·θ), in units of a cell's area."""
    pairs = table + jnp.roll(table, -1, 2)
    return 0.25 * (pairs[:, 1:] + pairs[:, :-1]).reshape(len(table), -1)


def _corners(table: Array, i: Array, j: Array) -> tuple[Array, Array, Array, Array]:
    flat = table.reshape(len(table), -1)
    right = (j + 1) % _PHASES
    return tuple(at(flat, a * _PHASES + b) for a, b in ((i, j), (i, right), (i + 1, j), (i + 1, right)))  # type: ignore[return-value]


def _inside_square(u: Array, v: Array, f00: Array, f01: Array, f10: Array, f11: Array) -> tuple[Array, Array, Array]:
    """(s, t) in a cell where the density is bilinear, and the density there."""
    s = inside_linear(u, f00 + f01, f10 + f11)
    low, high = f00 + (f10 - f00) * s, f01 + (f11 - f01) * s
    t = inside_linear(v, low, high)
    return s, t, jnp.maximum(low + (high - low) * t, jnp.finfo(s.dtype).tiny)


def _log_measure(psi: Array) -> Array:
    """ln of the uniform density of (ψ, θ) on S⁵, 4 sin³ψ cos ψ / 2π, in units of a cell's area."""
    area = (0.5 * math.pi / _MODULI) * (2 * math.pi / _PHASES)
    sine, cosine = jnp.maximum(jnp.sin(psi), 1e-9), jnp.maximum(jnp.cos(psi), 1e-9)
    return 3 * jnp.log(sine) + jnp.log(cosine) + math.log(4 / (2 * math.pi) * area)


def _split_table(m: Array, psi: Array, first: Array) -> Array:
    """ln of the density of y = |v₂|²/(1 − |v₁|²) at the nodes (b, 17), less its peak."""
    y = jnp.linspace(0, 1, _SPLITS + 1, dtype=psi.dtype)
    across = (jnp.sin(psi) ** 2)[:, None]
    second, third = (jnp.abs(m[:, k, None]) ** 2 for k in (1, 2))
    pull = 2 * jnp.real(m[:, 1] * m[:, 2] * first.conj())[:, None]
    g = _log_sphere(second * (1 - y * across) + third * (1 - (1 - y) * across) + pull)
    return g - jnp.max(g, axis=1, keepdims=True)


def _completed(v: Array) -> tuple[Array, Array]:
    """Two columns that make v the first one of an element of SU(3)."""
    seed = jnp.where(
        (jnp.abs(v[:, 1]) > 0.8)[:, None], jnp.asarray([0, 0, 1], v.dtype), jnp.asarray([0, 1, 0], v.dtype)
    )
    second = seed - v * jnp.sum(v.conj() * seed, -1, keepdims=True)
    second = second * jax.lax.rsqrt(jnp.sum(jnp.abs(second) ** 2, -1, keepdims=True))
    return second, jnp.cross(v, second).conj()


def _polar_table(k: Array) -> Array:
    """sin²α e^{k (cos α − 1)} at the nodes (b, 129)."""
    alpha = jnp.linspace(0, math.pi, _POLAR + 1, dtype=k.dtype)
    return jnp.sin(alpha) ** 2 * jnp.exp(k[:, None] * (jnp.cos(alpha) - 1))


def _draw_polar(u: Array, k: Array) -> tuple[Array, Array]:
    table = _polar_table(k)
    cell, total = pick(0.5 * (table[:, 1:] + table[:, :-1]), u[0])
    low, high = at(table, cell), at(table, cell + 1)
    place = inside_linear(u[1], low, high)
    alpha = (cell + place) * (math.pi / _POLAR)
    return alpha, jnp.log(low + (high - low) * place) - jnp.log(total * (math.pi / _POLAR)) - jnp.log(haar(alpha))


def _polar_log_prob(k: Array, alpha: Array) -> Array:
    table = _polar_table(k)
    place = alpha * (_POLAR / math.pi)
    cell = jnp.clip(place.astype(jnp.int32), 0, _POLAR - 1)
    low, high = at(table, cell), at(table, cell + 1)
    total = jnp.sum(0.5 * (table[:, 1:] + table[:, :-1]), 1) * (math.pi / _POLAR)
    tiny = jnp.finfo(k.dtype).tiny
    return jnp.log(jnp.maximum(low + (high - low) * (place - cell), tiny)) - jnp.log(total) - jnp.log(haar(alpha))
