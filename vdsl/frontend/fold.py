"""Constants folded: operations on literals, exactly on integers, with bounds on size; nothing here ever hangs.

Integers stay exact up to 2^63; beyond that a result becomes a float, and a float beyond the largest one is an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from vdsl.ir.expr import Binary, Call, Const, Expr, Items, Param, Ref, Select, Unary

LARGEST_INTEGER = 2**63 - 1
Number = bool | int | float | complex


class FoldError(Exception):
    """An operation on constants that has no value: `code` is the diagnostic's."""

    def __init__(self, code: str, message: str):
        self.code = code
        super().__init__(message)


def literal(value: int | float) -> Const:
    """A number as written; an integer too large to be exact becomes a float. Raises FoldError."""
    return Const(_bounded(value))


def binary(op: str, left: Expr, right: Expr) -> Expr:
    """`left op right`, as a constant when both sides are. Raises FoldError."""
    if isinstance(left, Const) and isinstance(right, Const):
        return Const(_bounded(_binary_value(op, left.value, right.value)))
    return Binary(op, left, right)


def unary(op: str, operand: Expr) -> Expr:
    """`-x`, `not x` or `x'`, as a constant when x is one; two minus signs cancel."""
    match op, operand:
        case "-", Const(value):
            return Const(-value)
        case "not", Const(value):
            return Const(not value)
        case "'", Const(value):
            return Const(value.conjugate() if isinstance(value, complex) else value)
        case _, Unary(inner, x) if inner == op:
            return x
    return Unary(op, operand)


def select(condition: Expr, yes: Expr, no: Expr) -> Expr:
    """`if condition then yes else no`, decided now when the condition is a constant."""
    if isinstance(condition, Const):
        return yes if condition.value else no
    return Select(condition, yes, no)


def call(function: str, arguments: tuple[Expr, ...]) -> Expr:
    """A built-in, evaluated now when its arguments are constant numbers. Raises FoldError."""
    if function in _SCALAR_FUNCTIONS and arguments and all(isinstance(a, Const) for a in arguments):
        values = [a.value for a in arguments if isinstance(a, Const)]
        if any(isinstance(v, complex) for v in values) and function not in _COMPLEX_FUNCTIONS:
            return Call(function, arguments)
        try:
            return Const(_bounded(_SCALAR_FUNCTIONS[function](*values)))
        except ZeroDivisionError:
            raise FoldError("division-by-zero", f"`{function}` divides by zero here") from None
        except ValueError:
            shown = ", ".join(_show(v) for v in values)
            raise FoldError("domain", f"`{function}({shown})` is not a real number") from None
        except OverflowError:
            raise FoldError("overflow", f"`{function}` of this is larger than any number") from None
    return Call(function, arguments)


def substitute(expr: Expr, values: dict[str, Expr]) -> Expr:
    """A scalar expression with parameters and definitions replaced, folded again. Reductions are left alone."""
    match expr:
        case Param(name) | Ref(name):
            return values.get(name, expr)
        case Unary(op, x):
            return unary(op, substitute(x, values))
        case Binary(op, a, b):
            return binary(op, substitute(a, values), substitute(b, values))
        case Select(c, a, b):
            return select(substitute(c, values), substitute(a, values), substitute(b, values))
        case Call(function, arguments):
            return call(function, tuple(substitute(a, values) for a in arguments))
        case Items(items):
            return replace(expr, items=tuple(substitute(a, values) for a in items))
    return expr


def is_static(expr: Expr) -> bool:
    """Whether an expression is a constant, or a vector of constants."""
    return isinstance(expr, Const) or (isinstance(expr, Items) and all(isinstance(x, Const) for x in expr.items))


def _bounded(value: Number) -> Number:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) <= LARGEST_INTEGER:
            return value
        try:
            return float(value)
        except OverflowError:
            raise FoldError("overflow", "this number is larger than any floating-point number") from None
    if isinstance(value, float) and math.isnan(value):
        raise FoldError("domain", "this has no value (it is not a number)")
    if isinstance(value, complex) and (math.isnan(value.real) or math.isnan(value.imag)):
        raise FoldError("domain", "this has no value (it is not a number)")
    return value


def _binary_value(op: str, a: Number, b: Number) -> Number:
    if op == "^":
        return _power(a, b)
    try:
        return _OPERATIONS[op](a, b)
    except ZeroDivisionError:
        raise FoldError("division-by-zero", "this divides by zero") from None
    except OverflowError:
        raise FoldError("overflow", "the result is larger than any number") from None


def _power(a: Number, b: Number) -> Number:
    if isinstance(a, int) and isinstance(b, int) and b >= 0 and (abs(a) <= 1 or a.bit_length() * b <= 128):
        return a**b
    if a == 0 and isinstance(b, int | float) and b < 0:
        raise FoldError("division-by-zero", "zero to a negative power")
    try:
        result = complex(a) ** b if isinstance(a, complex) else float(a) ** b
    except OverflowError:
        raise FoldError("overflow", "this power is larger than any number") from None
    if isinstance(result, complex) and not isinstance(a, complex) and not isinstance(b, complex):
        raise FoldError("domain", f"{_show(a)} to the power {_show(b)} is not a real number")
    return result


def _show(value: Number) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


_OPERATIONS: dict[str, Callable] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "and": lambda a, b: a and b,
    "or": lambda a, b: a or b,
}


def _logcosh(x: float) -> float:
    return abs(x) + math.log1p(math.exp(-2 * abs(x))) - math.log(2)


def _wrap(x: float) -> float:
    return math.pi - (math.pi - x) % (2 * math.pi)


def _sign(x: float) -> float:
    one = (x > 0) - (x < 0)
    return one if isinstance(x, int) else float(one)


def _real(x: Number) -> float:
    return x.real if isinstance(x, complex) else float(x)


def _imaginary(x: Number) -> float:
    return x.imag if isinstance(x, complex) else 0.0


_COMPLEX_FUNCTIONS = frozenset(("abs", "re", "im", "conj"))
_MATH = (
    "sqrt exp log log2 log10 expm1 log1p sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh "
    "floor ceil erf lgamma"
)
_SCALAR_FUNCTIONS: dict[str, Callable] = {
    **{name: getattr(math, name) for name in _MATH.split()},
    "abs": abs,
    "sign": _sign,
    "round": round,
    "min": min,
    "max": max,
    "logcosh": _logcosh,
    "wrap": _wrap,
    "delta": lambda a, b: int(a == b),
    "re": _real,
    "im": _imaginary,
    "conj": lambda x: x.conjugate(),
    "arg": lambda x: 0.0 if x >= 0 else math.pi,
}
