"""Arithmetic of kinds: the kind of `a op b` and of a reduction, or None where there is none."""

from __future__ import annotations

from vdsl.frontend.values import Quantity, bounds, is_index
from vdsl.ir.kinds import (
    BOOL,
    BOOL_LEVEL,
    COMPLEX_LEVEL,
    INT,
    REAL,
    REAL_LEVEL,
    Kind,
    Matrix,
    Scalar,
    Vector,
    is_number,
    is_real,
    join,
)


def infix_kind(op: str, left: Quantity, right: Quantity, ranges: dict[str, tuple[int, int]]) -> Kind | None:
    """The kind of `left op right`; `ranges` bounds the integer variables of reductions."""
    a, b = left.kind, right.kind
    match op:
        case "+" | "-":
            return None if BOOL in (a, b) else join(a, b)
        case "*":
            return _product_kind(a, b)
        case "/":
            return _quotient_kind(a, b)
        case "//" | "%":
            return join(a, b) if is_real(a) and is_real(b) else None
        case "^":
            return _power_kind(left, right, ranges)
        case "==" | "!=":
            same = isinstance(a, Scalar) and isinstance(b, Scalar) and join(a, b) is not None
            return BOOL if same and COMPLEX_LEVEL not in (a.level, b.level) else None  # type: ignore[union-attr]
        case "<" | "<=" | ">" | ">=":
            return BOOL if is_real(a) and is_real(b) else None
        case "and" | "or":
            return BOOL if a == b == BOOL else None
    return None


def reduction_kind(op: str, body: Kind) -> Kind | None:
    """The kind of a reduction of values of a kind."""
    match op, body:
        case _, Scalar(level) if level == BOOL_LEVEL:
            return None
        case "sum", _:
            return body
        case "mean", Scalar(level):
            return Scalar(max(level, REAL_LEVEL))
        case "mean", Vector(n, level):
            return Vector(n, max(level, REAL_LEVEL))
        case "mean", Matrix():
            return body
        case "prod", Scalar():
            return body
        case "max" | "min", Scalar(level) if level < COMPLEX_LEVEL:
            return body
    return None


def _product_kind(a: Kind, b: Kind) -> Kind | None:
    match a, b:
        case (Scalar(x), Scalar(y)) if min(x, y) > BOOL_LEVEL:
            return Scalar(max(x, y))
        case (Scalar(x), Vector(n, y)) | (Vector(n, y), Scalar(x)) if x > BOOL_LEVEL:
            return Vector(n, max(x, y))
        case (Scalar(x), Matrix() as m) | (Matrix() as m, Scalar(x)) if x > BOOL_LEVEL:
            return m
        case (Matrix(n), Matrix(m)) if n == m:
            return a
    return None


def _quotient_kind(a: Kind, b: Kind) -> Kind | None:
    if not isinstance(b, Scalar) or b == BOOL or a == BOOL:
        return None
    match a:
        case Scalar(level):
            return Scalar(max(level, b.level, REAL_LEVEL))
        case Vector(n, level):
            return Vector(n, max(level, b.level, REAL_LEVEL))
    return a


def _power_kind(left: Quantity, right: Quantity, ranges: dict[str, tuple[int, int]]) -> Kind | None:
    a, b = left.kind, right.kind
    if not (is_number(a) and is_number(b) and isinstance(a, Scalar) and isinstance(b, Scalar)):
        return None
    if a == b == INT:
        known = bounds(right.expr, ranges) if is_index(right.expr) else None
        return INT if known is not None and known[0] >= 0 else REAL
    return Scalar(max(a.level, b.level))
