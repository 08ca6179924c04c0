"""Chart: the continuous fields of a model as plain arrays of real numbers, flat or on the grid of the lattice.

A configuration {field: (b, elements, *event)} of real, real[n], complex, angle and U(1) fields becomes x (b, D):
fields in program order, element by element, components fastest, the numbering of `vdsl.ir.expansion`. A complex value
is (re, im), so that its base measure is Lebesgue in both; an angle is itself, an element of U(1) its argument. On a
lattice with a cell grid the same numbers are also an image (b, channels, *cells): `to_grid` and `from_grid` are inverse
to each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.ir.program import Program
from vdsl.ir.support import Angle, Complex, Group, Real, event_shape
from vdsl.lowering.kernels import working_dtype


@dataclass(frozen=True)
class Piece:
    """The coordinates of one field: first … first + elements·components − 1. kind: real, complex, angle or U1."""

    field: str
    kind: str
    first: int
    elements: int
    components: int
    event: tuple[int, ...]


@dataclass(frozen=True)
class Chart:
    """Hashable: it is part of a guide's structure. `cells`: the grid, () if there is none.

    `grid`: for each channel and cell, row-major, the coordinate there: (channels, cells) flattened; () without a grid.
    """

    pieces: tuple[Piece, ...]
    cells: tuple[int, ...] = ()
    boundary: tuple[str, ...] = ()
    grid: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """D, how many real numbers a configuration is."""
        return sum(p.elements * p.components for p in self.pieces)

    @property
    def channels(self) -> int:
        """How many numbers a cell holds."""
        return len(self.grid) // int(np.prod(self.cells)) if self.cells else 0

    @property
    def log_haar(self) -> float:
        """What ln q gains from Lebesgue measure here to the base measure: ln 2π for each element of U(1)."""
        return sum(p.elements for p in self.pieces if p.kind == "U1") * math.log(2 * math.pi)

    def periodic(self) -> np.ndarray:
        """Which coordinates are angles, (D,)."""
        return np.concatenate([np.full(p.elements * p.components, p.kind in ("angle", "U1")) for p in self.pieces])

    def encode(self, x: dict[str, Array]) -> Array:
        """Configurations as (b, D)."""
        parts = []
        for p in self.pieces:
            values = jnp.asarray(x[p.field])
            match p.kind:
                case "complex":
                    values = jnp.stack([jnp.real(values), jnp.imag(values)], -1)
                case "U1":
                    values = jnp.angle(values)
            parts.append(values.reshape(values.shape[0], -1).astype(working_dtype()))
        return jnp.concatenate(parts, axis=1)

    def decode(self, x: Array) -> dict[str, Array]:
        """(b, D) as configurations."""
        out = {}
        for p in self.pieces:
            values = x[:, p.first : p.first + p.elements * p.components]
            match p.kind:
                case "complex":
                    pair = values.reshape(len(x), p.elements, 2)
                    out[p.field] = jax.lax.complex(pair[..., 0], pair[..., 1])
                case "U1":
                    out[p.field] = jnp.exp(1j * values)
                case "angle":
                    out[p.field] = values - 2 * jnp.pi * jnp.ceil((values - jnp.pi) / (2 * jnp.pi))  # into (−π, π]
                case _:
                    out[p.field] = values.reshape(len(x), p.elements, *p.event)
        return out

    def to_grid(self, x: Array) -> Array:
        """(b, D) as images (b, channels, *cells)."""
        return x[:, np.array(self.grid)].reshape(len(x), self.channels, *self.cells)

    def from_grid(self, image: Array) -> Array:
        """Images (b, channels, *cells) as (b, D)."""
        return image.reshape(len(image), -1)[:, np.argsort(np.array(self.grid))]


def chart_of(program: Program) -> Chart | None:
    """The chart of a program, or None if a field has no such coordinates (discrete, sphere, SU(N))."""
    pieces, first = [], 0
    for f in program.fields:
        event = event_shape(f.support)
        match f.support:
            case Real():
                kind, components = "real", int(np.prod(event, dtype=int))
            case Complex():
                kind, components = "complex", 2
            case Angle():
                kind, components = "angle", 1
            case Group("U1"):
                kind, components = "U1", 1
            case _:
                return None
        pieces.append(Piece(f.name, kind, first, program.elements(f), components, event))
        first += program.elements(f) * components
    return Chart(tuple(pieces), *_grid(program, pieces))


def _grid(program: Program, pieces: list[Piece]) -> tuple[tuple[int, ...], tuple[str, ...], tuple[int, ...]]:
    """Cells, boundary and the coordinate at every channel and cell; empty where links are missing or cells are."""
    lattice = program.lattice
    if lattice is None or lattice.is_graph:
        return (), (), ()
    cell = np.arange(lattice.n_cells)
    rows = []
    for p in pieces:
        if program.field(p.field).on == "sites":
            starts = [cell * lattice.n_basis + b for b in range(lattice.n_basis)]
        elif (lattice.link_number < 0).any():
            return (), (), ()
        else:
            per_site = [lattice.link_number[:, axis] for axis in range(lattice.n_axes)]
            starts = [column[cell * lattice.n_basis + b] for b in range(lattice.n_basis) for column in per_site]
        rows += [p.first + element * p.components + c for element in starts for c in range(p.components)]
    return lattice.shape, lattice.boundary, tuple(np.concatenate(rows).tolist())
