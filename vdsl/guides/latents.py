"""Latents: configurations of any fields as raw real values (V, b), one row a variable, and back.

The numbering is that of `vdsl.ir.expansion`: fields in program order, element by element, components fastest. A spin is
±1, another discrete value its state index, a complex number (re, im), an element of U(1) its angle. Complex fields
that a polar expansion describes (ir/polar.py) have all their lengths first, then all phases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.guide import Configuration
from vdsl.ir.expansion import Block
from vdsl.ir.program import Program
from vdsl.ir.support import Angle, Complex, Group, event_shape, is_discrete, stored_states
from vdsl.lowering.kernels import working_dtype


@dataclass(frozen=True)
class Piece:
    """One field: its rows, how many elements, the shape of one value, and how it is stored."""

    field: str
    first: int
    elements: int
    components: int
    event: tuple[int, ...]
    form: str  # "plain" | "complex" | "polar" | "U1" | "angle" | a NumPy integer type


@dataclass(frozen=True)
class Codec:
    """Hashable: it is part of a guide's structure."""

    pieces: tuple[Piece, ...]

    @property
    def log_haar(self) -> float:
        """What ln q gains from Lebesgue measure here to the base measure: ln 2π for each element of U(1)."""
        return sum(p.elements for p in self.pieces if p.form == "U1") * math.log(2 * math.pi)

    def encode(self, x: Configuration) -> Array:
        """Configurations {field: (b, elements, …)} as (V, b)."""
        parts = []
        for p in self.pieces:
            values = jnp.asarray(x[p.field])
            if p.form == "complex":
                values = jnp.stack([jnp.real(values), jnp.imag(values)], -1)
            elif p.form == "polar":
                values = jnp.concatenate([jnp.abs(values), jnp.angle(values)], -1)
            elif p.form == "U1":
                values = jnp.angle(values)
            parts.append(values.reshape(values.shape[0], -1).T.astype(working_dtype()))
        return jnp.concatenate(parts)

    def decode(self, values: Array) -> Configuration:
        """(V, b) as configurations."""
        out = {}
        for p in self.pieces:
            part = values[p.first : p.first + p.elements * p.components].T
            match p.form:
                case "complex":
                    pair = part.reshape(-1, p.elements, 2)
                    out[p.field] = jax.lax.complex(pair[..., 0], pair[..., 1])
                case "polar":
                    length, phase = jnp.split(part, 2, axis=1)
                    out[p.field] = length * jnp.exp(1j * phase)
                case "U1":
                    out[p.field] = jnp.exp(1j * part)
                case "plain" | "angle":
                    out[p.field] = part.reshape(-1, p.elements, *p.event)
                case dtype:
                    out[p.field] = jnp.round(part).astype(dtype)
        return out


def codec_of(program: Program, blocks: Sequence[Block]) -> Codec:
    """For the fields of a program, in the numbering of its expansion."""
    pieces = []
    polar = {b.field for b in blocks if b.kind == "radius"}
    for b in blocks:
        support = program.field(b.field).support
        if b.field in polar:
            if b.kind == "radius":
                pieces.append(Piece(b.field, b.first, b.elements, 2, event_shape(support), "polar"))
            continue
        match support:
            case Complex():
                form = "complex"
            case Group("U1"):
                form = "U1"
            case Angle():
                form = "angle"
            case _:
                form = str(np.dtype(stored_states(support).dtype)) if is_discrete(support) else "plain"
        pieces.append(Piece(b.field, b.first, b.elements, b.components, event_shape(support), form))
    return Codec(tuple(pieces))
