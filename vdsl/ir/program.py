"""Program: a model after checking. Closed, hashable, canonical; all that the front end hands to the back end."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from vdsl.errors import Span
from vdsl.ir.expr import Expr
from vdsl.ir.lattice import Lattice
from vdsl.ir.support import Support


@dataclass(frozen=True)
class Range:
    """An interval; `lower_open` and `upper_open` say whether its ends are excluded."""

    lower: float
    upper: float
    lower_open: bool = False
    upper_open: bool = False

    def __contains__(self, x: float) -> bool:
        above = x > self.lower if self.lower_open else x >= self.lower
        below = x < self.upper if self.upper_open else x <= self.upper
        return above and below

    def __str__(self) -> str:
        return f"{'(' if self.lower_open else '['}{self.lower:g}, {self.upper:g}{')' if self.upper_open else ']'}"


@dataclass(frozen=True)
class Parameter:
    """A dynamic real parameter. `default` may use other parameters; None means that it must be given."""

    name: str
    default: Expr | None
    range: Range | None = None
    doc: str = ""


@dataclass(frozen=True)
class Structure:
    """A structural (`: int`) parameter and the value this program was built for."""

    name: str
    value: int
    range: Range | None = None
    doc: str = ""


class FrozenArray:
    """A read-only array that is hashed and compared by its content."""

    def __init__(self, values: np.ndarray):
        self.values = np.array(values)
        self.values.setflags(write=False)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of dtype, shape and bytes."""
        h = hashlib.sha256(f"{self.values.dtype.str}{self.values.shape}".encode())
        h.update(np.ascontiguousarray(self.values).tobytes())
        return h.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrozenArray) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"FrozenArray({self.values.dtype}{list(self.values.shape)} {self.digest[:12]})"


@dataclass(frozen=True)
class Data:
    """Frozen numbers. `on` is "sites", "links", the name of a bond set, or None (a plain array); rows in set order."""

    name: str
    on: str | None
    values: FrozenArray


@dataclass(frozen=True)
class Definition:
    """A `let` that could not be folded to a constant: it depends on dynamic parameters or on data."""

    name: str
    value: Expr


@dataclass(frozen=True)
class Field:
    """Degrees of freedom on every site or every link."""

    name: str
    support: Support
    on: str = "sites"  # or "links"


@dataclass(frozen=True)
class Term:
    """One named, additive, real, scalar term of the energy."""

    name: str
    value: Expr


@dataclass(frozen=True)
class Observable:
    """A function of one configuration (`observable`), or of averages through `Expect` (`derived`)."""

    name: str
    value: Expr
    doc: str = ""


@dataclass(frozen=True)
class Claim:
    """A claimed symmetry: kind ("z2", "translation", "permutation", "shift", "rotation", "gauge") and fields.

    No fields: all that it can act on. `span` is where it is claimed, and no part of its meaning.
    """

    kind: str
    fields: tuple[str, ...] = ()
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Scan:
    """A sweep of one parameter."""

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Settings:
    """A `guide` or `train` block: a name and its options, sorted by key."""

    name: str = ""
    options: tuple[tuple[str, bool | int | float | str], ...] = ()


@dataclass(frozen=True)
class Program:
    """A checked model.

    Invariants: definitions and observables come after what they refer to; names are unique; every `Reduce` variable is
    unique within its top-level expression; expressions type-check and every term is a real scalar.
    """

    name: str
    lattice: Lattice | None
    fields: tuple[Field, ...]
    terms: tuple[Term, ...]
    temperature: Expr
    title: str = ""
    structure: tuple[Structure, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    data: tuple[Data, ...] = ()
    definitions: tuple[Definition, ...] = ()
    observables: tuple[Observable, ...] = ()
    derived: tuple[Observable, ...] = ()
    claims: tuple[Claim, ...] = ()
    scans: tuple[Scan, ...] = ()
    guide: Settings | None = None
    train: Settings | None = None

    def field(self, name: str) -> Field:
        """The field of that name."""
        return next(f for f in self.fields if f.name == name)

    def elements(self, field: Field) -> int:
        """How many values a field has: the number of sites, or of links that exist."""
        if self.lattice is None:
            return 0
        return self.lattice.n_sites if field.on == "sites" else self.lattice.n_links

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical printed form: what is computed, not how it is reported (no titles, no docs)."""
        content = (
            self.lattice, self.fields, self.terms, self.temperature, self.structure,
            tuple((p.name, p.default, p.range) for p in self.parameters),
            self.data, self.definitions,
            tuple((o.name, o.value) for o in self.observables + self.derived),
        )  # fmt: skip
        return hashlib.sha256(repr(content).encode()).hexdigest()
