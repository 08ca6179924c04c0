"""Values of the language as Python and NumPy numbers: what an operator or a built-in function makes of its arguments.

A value is a scalar (bool, int, float, complex), a vector (1-d array) or a square matrix (2-d array). This is the
reference: one value at a time, float64 and complex128, no broadcasting beyond a scalar times an array. A division by
zero or a logarithm of zero gives the IEEE infinity or NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from vdsl.errors import InternalError

Value = Any  # bool, int, float, complex, or an array of one or two dimensions


def wrap(x: Value) -> Value:
    """The angle x moved into (−π, π] by a multiple of 2π."""
    return np.pi - np.mod(np.pi - x, 2 * np.pi)


def adjoint(x: Value) -> Value:
    """The conjugate transpose of a matrix; the conjugate of anything else."""
    return np.conj(x).T if np.ndim(x) == 2 else np.conj(x)


def apply_unary(op: str, x: Value) -> Value:
    """The value of a prefix or postfix operator."""
    match op:
        case "-":
            return -x
        case "not":
            return not x
        case "'":
            return adjoint(x)
    raise InternalError(f"no operator {op}")


def multiply(a: Value, b: Value) -> Value:
    """a·b: the matrix product where two matrices, or a matrix and a vector, meet."""
    if np.ndim(a) and np.ndim(b) and max(np.ndim(a), np.ndim(b)) == 2:
        return a @ b
    return a * b


def power(a: Value, b: Value) -> Value:
    """a^b: repeated multiplication for integers and matrices; NaN for a negative real to a fractional power."""
    if np.ndim(a) == 2:
        return np.linalg.matrix_power(a, int(b))
    if _is_int(a) and _is_int(b) and b >= 0:
        return int(a) ** int(b)
    if isinstance(a, complex) or isinstance(b, complex):
        return np.complex128(a) ** np.complex128(b) if not _is_int(b) else np.complex128(a) ** int(b)
    return np.float64(a) ** np.float64(b)


def divide(a: Value, b: Value) -> Value:
    """a / b, real (or complex) also for integers."""
    if np.ndim(a):
        return a / b
    return np.complex128(a) / b if isinstance(a, complex) or isinstance(b, complex) else np.float64(a) / np.float64(b)


def floor_divide(a: Value, b: Value) -> Value:
    """⌊a / b⌋, an integer for integers."""
    return int(a) // int(b) if _is_int(a) and _is_int(b) else np.floor_divide(np.float64(a), np.float64(b))


def modulo(a: Value, b: Value) -> Value:
    """a − b⌊a / b⌋: the sign of b, as in Python."""
    return int(a) % int(b) if _is_int(a) and _is_int(b) else np.mod(np.float64(a), np.float64(b))


BINARY: dict[str, Callable[[Value, Value], Value]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": multiply,
    "/": divide,
    "//": floor_divide,
    "%": modulo,
    "^": power,
    "==": lambda a, b: bool(np.all(a == b)),
    "!=": lambda a, b: not np.all(a == b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}


def _is_int(x: Value) -> bool:
    return isinstance(x, int | np.integer) and not isinstance(x, np.bool_)


def _real(function: Callable[..., Value]) -> Callable[..., Value]:
    """Applies an elementary function to a real (as float64, so that poles give inf or NaN) or a complex number."""
    return lambda *xs: function(*(np.complex128(x) if isinstance(x, complex) else np.float64(x) for x in xs))


def _integral(function: Callable[[Value], Value]) -> Callable[[Value], Value]:
    """Applies a rounding function: an integer, unless the argument is not finite."""
    return lambda x: int(function(x)) if np.isfinite(x) else x


def _logcosh(x: Value) -> Value:
    return np.abs(x) + np.log1p(np.exp(-2 * np.abs(np.float64(x)))) - np.log(2)


def _delta(a: Value, b: Value) -> int:
    return int(bool(np.all(a == b)))


def _dot(a: Value, b: Value) -> Value:
    """Σ aₖ bₖ; no conjugation."""
    return np.sum(np.asarray(a) * np.asarray(b))


def _norm(a: Value) -> Value:
    """(Σ |aₖ|²)^½; Frobenius for matrices."""
    return np.sqrt(np.sum(np.abs(np.asarray(a)) ** 2))


FUNCTIONS: dict[str, Callable[..., Value]] = {
    **{
        name: _real(getattr(np, name))
        for name in (
            "sin", "cos", "tan", "sinh", "cosh", "tanh", "exp", "expm1", "log", "log1p", "log2", "log10", "sqrt",
        )
    },
    "asin": _real(np.arcsin),
    "acos": _real(np.arccos),
    "atan": _real(np.arctan),
    "atan2": _real(np.arctan2),
    "asinh": _real(np.arcsinh),
    "acosh": _real(np.arccosh),
    "atanh": _real(np.arctanh),
    "abs": lambda x: np.abs(x),
    "sign": lambda x: int(np.sign(x)) if _is_int(x) else np.sign(np.float64(x)),
    "floor": _integral(np.floor),
    "ceil": _integral(np.ceil),
    "round": _integral(np.round),
    "min": lambda *xs: min(xs),
    "max": lambda *xs: max(xs),
    "erf": lambda x: math.erf(x),
    "lgamma": lambda x: math.lgamma(x) if x > 0 or x != np.floor(x) else np.inf,
    "logcosh": _logcosh,
    "dot": _dot,
    "cross": lambda a, b: np.cross(a, b),
    "norm": _norm,
    "re": lambda x: np.real(x),
    "im": lambda x: np.imag(x),
    "arg": lambda x: np.angle(x),
    "conj": lambda x: np.conj(x),
    "tr": lambda m: np.trace(m),
    "det": lambda m: np.linalg.det(m),
    "delta": _delta,
    "wrap": wrap,
}  # fmt: skip
