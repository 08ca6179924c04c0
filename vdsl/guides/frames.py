"""Frames: a global phase taken out of a density exactly, by describing everything from one variable's point of view.

If the energy does not change under θ → θ + wα, ψ → e^{iwα}ψ of all fields (reals of two components counting as ψ), a
configuration is a phase α and what is left when α has been turned back, in which an *anchor* is fixed: an angle is 0,
or a plane vector is (r, 0). With α uniform and any density q' of what is left,

    ln q(x) = −ln 2π + ln q'(x')                        (an angle)
    ln q(x) = −ln 2π r + ln p(r) + ln q'(x' | r)        (a plane vector: d²ψ = r dr dα)

is normalised and has the symmetry whatever has been learned. p(r) ∝ r e^{η·(r, r², …)} is a table: linear between nodes
and an exponential beyond the last, so that what is sampled is what `log_prob` reports.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers, reals
from vdsl.guides.monomials import Monomials
from vdsl.guides.problem import Problem
from vdsl.ir.support import Complex, Real

_NODES = 512
_DEPTH = 18.0  # the table ends where the density has fallen by e^−18


@dataclass(frozen=True)
class Phase:
    """A global phase: fields with their charges, and the field that holds the anchor, of charge ±1."""

    fields: tuple[str, ...]
    weights: tuple[int, ...]
    anchor: str
    plane: bool


class Frame(eqx.Module):
    """How a phase turns raw values (V, b). angles (V, 1): charges; first, second (P,): rows of the two components, with
    charges (P, 1). anchor (1,) or (2,): its rows; sign: its charge."""

    angles: Array
    first: Array
    second: Array
    charges: Array
    anchor: Array
    sign: Array

    def turn(self, values: Array, alpha: Array) -> Array:
        """Values after a turn by alpha (b,), angles within (−π, π]."""
        turned = values + self.angles * alpha
        values = jnp.where(self.angles != 0, turned - 2 * jnp.pi * jnp.round(turned / (2 * jnp.pi)), values)
        cosine, sine = jnp.cos(self.charges * alpha), jnp.sin(self.charges * alpha)
        x, y = values[self.first], values[self.second]
        values = values.at[self.first].set(cosine * x - sine * y)
        return values.at[self.second].set(sine * x + cosine * y)

    def phase(self, values: Array) -> Array:
        """What the anchor has been turned by, (b,)."""
        if self.anchor.shape[0] == 1:
            return self.sign * values[self.anchor[0]]
        return self.sign * jnp.arctan2(values[self.anchor[1]], values[self.anchor[0]])

    def log_measure(self, values: Array) -> Array:
        """−ln of the volume of the orbit of values in the frame: −ln 2π, or −ln 2πr; (b,)."""
        whole = jnp.full(values.shape[1], -jnp.log(2 * jnp.pi), values.dtype)
        if self.anchor.shape[0] == 1:
            return whole
        return whole - jnp.log(jnp.maximum(values[self.anchor[0]], jnp.finfo(values.dtype).tiny))


def phases_of(problem: Problem, monomials: Monomials, pinned: Sequence[str] = ()) -> tuple[Phase, ...]:
    """The phases that need a frame: not those of angles alone, whose conditionals turn by themselves.

    `pinned`: fields with values that a gauge has set to 0, so that a phase of theirs is no symmetry of the rest.
    """
    if len(monomials.species) == 1 and monomials.species[0].kind == "angle":
        return ()
    kinds = {s.block.field: s.kind for s in monomials.species}
    found: list[Phase] = []
    for s in problem.symmetries:
        if set(pinned) & set(s.fields):
            continue
        plane = [_plane(problem, f) for f in s.fields]
        weights = s.weights or (1,) * len(s.fields)
        if s.kind == "rotation":
            if not all(problem.program.field(f).support == Real(2) for f in s.fields):
                continue
        elif s.kind != "shift" or s.order != 0:
            continue
        able = [
            (f, p)
            for f, p, w in zip(s.fields, plane, weights, strict=True)
            if abs(w) == 1 and (p or kinds[f] == "angle") and not any(f in other.fields for other in found)
        ]
        if able and not any(other.anchor in s.fields for other in found):
            anchor, is_plane = min(able, key=lambda choice: choice[1])  # angles before plane vectors
            found.append(Phase(s.fields, weights, anchor, is_plane))
    return tuple(found)


def anchor_units(phase: Phase, monomials: Monomials, near: int | None) -> np.ndarray:
    """The units of the anchor: of the element that a unit belongs to, or of the first."""
    s = next(s for s in monomials.species if s.block.field == phase.anchor)
    size = 2 if phase.plane else 1
    element = 0 if near is None else (near - s.start) // size
    return s.start + size * element + np.arange(size)


def build_frame(phase: Phase, monomials: Monomials, anchor: np.ndarray) -> Frame:
    """The frame of a phase whose anchor are these units."""
    angles = np.zeros((monomials.n_variables, 1))
    pairs, charges = [np.zeros((0, 2), int)], [np.zeros(0)]
    for field, weight in zip(phase.fields, phase.weights, strict=True):
        s = next(s for s in monomials.species if s.block.field == field)
        rows = s.block.first + np.arange(s.block.elements * s.block.components)
        if s.kind == "angle":
            angles[rows] = weight
        else:
            pairs.append(rows.reshape(-1, 2))
            charges.append(np.full(len(rows) // 2, float(weight)))
    both = np.concatenate(pairs)
    weight = phase.weights[phase.fields.index(phase.anchor)]
    return Frame(
        angles=reals(angles),
        first=integers(both[:, 0]),
        second=integers(both[:, 1]),
        charges=reals(np.concatenate(charges)[:, None]),
        anchor=integers(monomials.variables_of(anchor).reshape(-1)),
        sign=reals(float(weight)),
    )


def sample_radius(key: Array, eta: Array, n: int) -> Array:
    """n draws of r from p(r) ∝ r e^{Σ η_p r^p}, eta (F,)."""
    step, f, mass = _radial_table(eta)
    total = jnp.cumsum(mass)
    u = jax.random.uniform(key, (n,), eta.dtype) * total[-1]
    k = jnp.clip(jnp.searchsorted(total, u, side="right"), 0, _NODES)
    rest = u - jnp.where(k > 0, total[k - 1], 0.0)
    low, high = f[jnp.minimum(k, _NODES - 1)], f[jnp.minimum(k + 1, _NODES)]
    area = 2 * rest / step  # of the cell: (f₀ + f₁)·fraction, f linear within it
    inside = area / (low + jnp.sqrt(jnp.maximum(low**2 + (high - low) * area, 1e-30)))
    beyond = -jnp.log(jnp.maximum(1 - rest / mass[-1], 1e-7)) * mass[-1] / (f[-1] * step)
    return step * jnp.where(k < _NODES, k + jnp.clip(inside, 0, 1), _NODES + beyond)


def radius_log_prob(eta: Array, r: Array) -> Array:
    """ln p(r), (b,)."""
    step, f, mass = _radial_table(eta)
    t = r / step
    k = jnp.clip(jnp.floor(t), 0, _NODES - 1).astype(int)
    inside = f[k] + (f[k + 1] - f[k]) * (jnp.minimum(t, _NODES) - k)
    beyond = jnp.maximum(t - _NODES, 0) * step * f[-1] / mass[-1]
    return jnp.log(jnp.maximum(inside, jnp.finfo(f.dtype).tiny)) - beyond - jnp.log(jnp.sum(mass))


def _radial_table(eta: Array) -> tuple[Array, Array, Array]:
    """Step, the density at nodes k·step (k ≤ M) up to a factor, and the masses of M cells and of the tail."""

    def log_f(r: Array) -> Array:
        powers = r[:, None] ** jnp.arange(1, eta.shape[0] + 1)
        return powers @ eta + jnp.log(jnp.maximum(r, jnp.finfo(eta.dtype).tiny))

    held = jax.lax.stop_gradient(eta)
    end = (60 / jnp.maximum(-held[-1], 1e-12)) ** (1 / held.shape[0]) * 2
    for p in range(1, held.shape[0]):  # where the highest power beats the others by far
        other = 2 * held.shape[0] * jnp.abs(held[p - 1]) / jnp.maximum(-held[-1], 1e-12)
        end = jnp.maximum(end, other ** (1 / (held.shape[0] - p)))
    for _ in range(3):
        r = jnp.linspace(0, 1, _NODES + 1) * end
        g = jax.lax.stop_gradient(log_f(r))
        end = jnp.minimum(jnp.max(jnp.where(g > jnp.max(g) - _DEPTH, r, 0.0)) + end / _NODES, end)
    r = jnp.linspace(0, 1, _NODES + 1) * end
    g = log_f(r)
    f = jnp.exp(g - jax.lax.stop_gradient(jnp.max(g))).at[0].set(0.0)
    step = end / _NODES
    rate = jnp.maximum(g[-2] - g[-1], 1.0 / _NODES) / step
    return step, f, jnp.concatenate([step * (f[1:] + f[:-1]) / 2, (f[-1] / rate)[None]])


def _plane(problem: Problem, field: str) -> bool:
    support = problem.program.field(field).support
    return support == Complex() or support == Real(2)
