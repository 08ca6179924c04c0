"""Kinds of values: bool < int < real < complex scalars, vectors of them, and square complex matrices."""

from __future__ import annotations

from dataclasses import dataclass

from vdsl.ir.support import Clock, Group, Occupation, Potts, Real, Sphere, Support, event_shape, is_complex

BOOL_LEVEL, INT_LEVEL, REAL_LEVEL, COMPLEX_LEVEL = range(4)
_LEVELS = ("truth value", "integer", "real number", "complex number")


@dataclass(frozen=True)
class Scalar:
    """One number or truth value; `level` counts up bool, int, real, complex."""

    level: int

    def __str__(self) -> str:
        return _LEVELS[self.level]


@dataclass(frozen=True)
class Vector:
    """n numbers of one level."""

    n: int
    level: int = REAL_LEVEL

    def __str__(self) -> str:
        return f"{'complex ' if self.level == COMPLEX_LEVEL else ''}vector of {self.n}"


@dataclass(frozen=True)
class Matrix:
    """An n × n complex matrix."""

    n: int

    def __str__(self) -> str:
        return f"{self.n}×{self.n} matrix"


Kind = Scalar | Vector | Matrix

BOOL, INT, REAL, COMPLEX = (Scalar(level) for level in range(4))


def kind_of_support(support: Support) -> Kind:
    """The kind of a field's value in an expression: a potts colour and an occupation are integers, a clock an angle."""
    match support:
        case Potts() | Occupation():
            return INT
        case Real(int(n)) | Sphere(n):
            return Vector(n)
        case Group("SU2" | "SU3"):
            return Matrix(event_shape(support)[0])
        case Clock():
            return REAL
    return COMPLEX if is_complex(support) else REAL


def is_number(kind: Kind) -> bool:
    """Whether a kind is a scalar that arithmetic accepts."""
    return isinstance(kind, Scalar) and kind.level >= INT_LEVEL


def is_real(kind: Kind) -> bool:
    """Whether a kind is an int or a real scalar."""
    return isinstance(kind, Scalar) and INT_LEVEL <= kind.level <= REAL_LEVEL


def join(a: Kind, b: Kind) -> Kind | None:
    """The smallest kind that holds both, or None: numbers widen, shapes must agree, booleans mix with nothing else."""
    match a, b:
        case Scalar(x), Scalar(y):
            return Scalar(max(x, y)) if (x == BOOL_LEVEL) == (y == BOOL_LEVEL) else None
        case Vector(n, x), Vector(m, y) if n == m:
            return Vector(n, max(x, y))
        case Matrix(n), Matrix(m) if n == m:
            return a
    return None
