"""Supports: where a field takes its values, the shape of one value, and the measure it is integrated with.

A configuration stores one array per field, shape `(elements, *event_shape)`:

| support      | stored                 | value in an expression  | base measure        |
|--------------|------------------------|-------------------------|---------------------|
| Spin         | int8 ±1                | real ±1                 | counting            |
| Potts(q)     | int8 0 … q−1           | int 0 … q−1             | counting            |
| Clock(q)     | int8 k                 | real angle 2πk/q        | counting            |
| Occupation   | int8 0, 1              | int 0, 1                | counting            |
| Real(n)      | float, event (n,) or ()| real                    | Lebesgue            |
| Complex      | complex                | complex                 | Lebesgue on R²      |
| Angle        | float in (−π, π]       | real                    | Lebesgue            |
| Sphere(n)    | float, event (n,)      | vector                  | surface area        |
| Group("U1")  | complex, event ()      | complex                 | dθ/2π               |
| Group("SU2"/"SU3") | complex, event (n,n) | matrix              | normalised Haar     |

The *state index* of a discrete value runs over range(cardinality) in the order of `values`; int16/int32 replace int8
when the cardinality needs it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spin:
    """±1; state 0 is −1 and state 1 is +1."""


@dataclass(frozen=True)
class Potts:
    """One of q colours 0 … q−1."""

    q: int


@dataclass(frozen=True)
class Clock:
    """One of q angles 2πk/q; stored as k."""

    q: int


@dataclass(frozen=True)
class Occupation:
    """0 or 1."""


@dataclass(frozen=True)
class Real:
    """A real number, or a vector of n of them."""

    n: int | None = None


@dataclass(frozen=True)
class Complex:
    """A complex number."""


@dataclass(frozen=True)
class Angle:
    """An angle in (−π, π]."""


@dataclass(frozen=True)
class Sphere:
    """A unit vector in Rⁿ."""

    n: int


@dataclass(frozen=True)
class Group:
    """An element of U(1), SU(2) or SU(3), in its defining representation."""

    name: str  # "U1" | "SU2" | "SU3"


Support = Spin | Potts | Clock | Occupation | Real | Complex | Angle | Sphere | Group


def is_discrete(support: Support) -> bool:
    """Whether the support is a finite set."""
    return isinstance(support, Spin | Potts | Clock | Occupation)


def cardinality(support: Support) -> int:
    """The number of states of a discrete support."""
    match support:
        case Spin() | Occupation():
            return 2
        case Potts(q) | Clock(q):
            return q
    raise TypeError(f"{support} is not discrete")


def stored_states(support: Support) -> np.ndarray:
    """The stored number of each state index, shape (q,): [-1, 1] for a spin, 0 … q−1 otherwise."""
    dtype = np.int8 if cardinality(support) <= 127 else np.int32
    if isinstance(support, Spin):
        return np.array([-1, 1], np.int8)
    return np.arange(cardinality(support), dtype=dtype)


def event_shape(support: Support) -> tuple[int, ...]:
    """The shape of one value."""
    match support:
        case Real(int(n)) | Sphere(n):
            return (n,)
        case Group("SU2"):
            return (2, 2)
        case Group("SU3"):
            return (3, 3)
    return ()


def is_complex(support: Support) -> bool:
    """Whether values are complex numbers or complex matrices."""
    return isinstance(support, Complex | Group)


def has_negation(support: Support) -> bool:
    """Whether −x lies in the support with x, so that an antiperiodic boundary makes sense."""
    return not isinstance(support, Potts | Occupation) and support != Group("SU3")


def describe(support: Support) -> str:
    """The support as the language spells it."""
    match support:
        case Spin():
            return "spin"
        case Potts(q):
            return f"potts({q})"
        case Clock(q):
            return f"clock({q})"
        case Occupation():
            return "occupation"
        case Real(None):
            return "real"
        case Real(n):
            return f"real[{n}]"
        case Complex():
            return "complex"
        case Angle():
            return "angle"
        case Sphere(n):
            return f"sphere({n})"
        case Group(name):
            return {"U1": "U(1)", "SU2": "SU(2)", "SU3": "SU(3)"}[name]
