"""Frames: a global phase taken out of a density exactly, by describing everything from one variable's point of view.

If the energy does not change under θ → θ + wα, ψ → e^{iwα}ψ of all fields (reals of two components counting as ψ), a
configuration is a phase α and what is left when α has been turned back, in which an *anchor* is fixed: an angle is 0,
or a plane vector is (r, 0). With α uniform and any density q' of what is left,

    ln q(x) = −ln 2π + ln q'(x')                        (an angle)
    ln q(x) = −ln 2π + ln p(r) + ln q'(x' | r)          (a plane vector: d²ψ = r dr dα, p(r) with respect to r dr)

is normalised and has the symmetry whatever has been learned. p(r) ∝ e^{η·(r, r², …)} is a density of rays.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers, reals
from vdsl.guides.monomials import Monomials, Species
from vdsl.guides.problem import Problem
from vdsl.ir.support import Complex, Real


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


def phases_of(problem: Problem, monomials: Monomials, pinned: Sequence[str] = ()) -> tuple[Phase, ...]:
    """The phases that need a frame: not those of angles alone, whose conditionals turn by themselves.

    `pinned`: fields with values that a gauge has set to 0, so that a phase of theirs is no symmetry of the rest.
    """
    if len(monomials.species) == 1 and monomials.species[0].kind == "angle":
        return ()
    kinds = {s.block.field: s.kind for s in monomials.species}  # of a field by length and phase: that of its phases
    found: list[Phase] = []
    for s in problem.symmetries:
        if set(pinned) & set(s.fields):
            continue
        plane = [kinds[f] == "real" and _plane(problem, f) for f in s.fields]
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
    s = turning(monomials, phase.anchor)
    size = 2 if phase.plane else 1
    element = 0 if near is None else (near - s.start) // size
    return s.start + size * element + np.arange(size)


def turning(monomials: Monomials, field: str) -> Species:
    """What a phase moves of a field: not its lengths."""
    return next(s for s in monomials.species if s.block.field == field and s.kind != "radius")


def build_frame(phase: Phase, monomials: Monomials, anchor: np.ndarray) -> Frame:
    """The frame of a phase whose anchor are these units."""
    angles = np.zeros((monomials.n_variables, 1))
    pairs, charges = [np.zeros((0, 2), int)], [np.zeros(0)]
    for field, weight in zip(phase.fields, phase.weights, strict=True):
        s = turning(monomials, field)
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


def _plane(problem: Problem, field: str) -> bool:
    support = problem.program.field(field).support
    return support == Complex() or support == Real(2)
