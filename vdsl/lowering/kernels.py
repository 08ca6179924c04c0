"""Operations on the values of a program, for NumPy constants and JAX arrays alike.

A scalar is an array over the elements of the reductions around it (or a plain number). A vector is a tuple of scalars
and a matrix a tuple of rows: structure of arrays, so that every product is written out into elementwise
multiply-adds, which XLA fuses into one loop and whose unused parts (the off-diagonal of a trace, the imaginary part
of `re`) it drops. Batched 3×3 `dot_general` is several times slower on CPUs.

Operands that are all NumPy stay NumPy: that is how constants are folded when a program is lowered.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce as fold
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Value = Any  # a scalar, a tuple of scalars, or a tuple of tuples of scalars


def working_dtype() -> np.dtype:
    """The real type that energies are computed in: float32, or float64 under `jax_enable_x64`. Decided here only."""
    return jnp.result_type(float)


def complex_dtype() -> np.dtype:
    """The complex type that goes with `working_dtype`."""
    return jnp.result_type(complex)


def working_constant(x: Any) -> Any:
    """A static scalar as the constant of a compiled function: arrays in the working types, numbers as they are."""
    if not isinstance(x, np.ndarray | np.generic) or x.dtype == bool:
        return x
    match x.dtype.kind:
        case "f":
            return np.asarray(x, working_dtype())
        case "c":
            return np.asarray(x, complex_dtype())
    return np.asarray(x, jnp.result_type(int)) if x.dtype.itemsize > 4 else x


def is_static(value: Value) -> bool:
    """Whether a value is known when the program is lowered."""
    if isinstance(value, tuple):
        return all(is_static(v) for v in value)
    return isinstance(value, bool | int | float | complex | np.ndarray | np.generic)


def module(*values: Value) -> Any:
    """NumPy when every operand is static, jax.numpy otherwise."""
    return np if all(is_static(v) for v in values) else jnp


def components(value: Value) -> list:
    """The scalars of a value, in order."""
    return [s for v in value for s in components(v)] if isinstance(value, tuple) else [value]


def map_value(f: Callable[[Any], Any], value: Value) -> Value:
    """f of every scalar of a value."""
    return tuple(map_value(f, v) for v in value) if isinstance(value, tuple) else f(value)


def zip_value(f: Callable[[Any, Any], Any], a: Value, b: Value) -> Value:
    """f of corresponding scalars; a scalar operand goes with every component of the other."""
    match isinstance(a, tuple), isinstance(b, tuple):
        case True, True:
            return tuple(zip_value(f, x, y) for x, y in zip(a, b, strict=True))
        case True, False:
            return tuple(zip_value(f, x, b) for x in a)
        case False, True:
            return tuple(zip_value(f, a, y) for y in b)
    return f(a, b)


def number(x: Any) -> Any:
    """A scalar fit for arithmetic: booleans and int8 colours become int32, so that nothing saturates or overflows."""
    if isinstance(x, bool | np.bool_):
        return int(x)
    if isinstance(x, int | float | complex):
        return x
    if x.dtype == bool or (jnp.issubdtype(x.dtype, jnp.integer) and x.dtype.itemsize < 4):
        return x.astype(np.int32)
    return x


def real_number(x: Any) -> Any:
    """A scalar fit for a reduction: integers and booleans in the working real type, real and complex as they are."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return x.astype(complex_dtype())
    return x.astype(working_dtype())


def unary(op: str, a: Value) -> Value:
    """`-`, `not` and `'`."""
    match op:
        case "-":
            return map_value(lambda x: -number(x), a)
        case "not":
            return module(a).logical_not(a)
        case "'":
            return adjoint(a)
    raise KeyError(op)


def binary(op: str, a: Value, b: Value) -> Value:
    """Arithmetic, comparisons and logic; `*` of two matrices, or of a matrix and a vector, is the matrix product."""
    if op == "*" and is_matrix(a) and isinstance(b, tuple):
        return matrix_product(a, b)
    if op == "^":
        return power(a, b)
    return zip_value(_BINARY[op], a, b)


def power(a: Value, b: Value) -> Value:
    """a^b; whole powers by multiplication, also of matrices."""
    whole = is_static(b) and np.ndim(b) == 0 and not isinstance(b, complex | np.complexfloating) and b == int(b)
    if is_matrix(a):
        return fold(matrix_product, [a] * int(b)) if b != 0 else identity_matrix(len(a))
    a = number(a)
    if whole and not is_static(a) and abs(int(b)) <= 64:
        n = int(b)
        return jax.lax.integer_pow(a if n >= 0 else real_number(a), n)
    m = module(a, b)
    if m is np:
        integers = all(np.issubdtype(np.asarray(v).dtype, np.integer) for v in (a, b))
        return np.power(a, b) if integers and np.min(b, initial=0) >= 0 else np.power(np.asarray(a) * 1.0, b)
    return jnp.power(real_number(a), number(b))


def select(condition: Any, yes: Value, no: Value) -> Value:
    """`if condition then yes else no`, element by element."""
    return zip_value(lambda y, n: module(condition, y, n).where(condition, number(y), number(n)), yes, no)


def reversed_angle(x: Any, sign: Any) -> Any:
    """An angle seen across antiperiodic boundaries: −x where the sign is −1, but π for π, to stay in (−π, π]."""
    m = module(x, sign)
    pi = np.asarray(np.pi, x.dtype)
    return m.where((sign < 0) & (x != pi), -x, x)


def is_matrix(a: Value) -> bool:
    """Whether a value is a matrix."""
    return isinstance(a, tuple) and isinstance(a[0], tuple)


def identity_matrix(n: int) -> Value:
    """The n×n unit matrix."""
    return tuple(tuple(1.0 if i == j else 0.0 for j in range(n)) for i in range(n))


def adjoint(a: Value) -> Value:
    """The Hermitian conjugate of a matrix; the complex conjugate of a number."""
    if is_matrix(a):
        return tuple(tuple(conj(a[i][j]) for i in range(len(a))) for j in range(len(a[0])))
    return map_value(conj, a)


def conj(x: Any) -> Any:
    """The complex conjugate; real values as they are."""
    return module(x).conj(x) if np.issubdtype(_dtype(x), np.complexfloating) else x


def matrix_product(a: Value, b: Value) -> Value:
    """The product of a matrix with a matrix or a vector, written out."""
    if not is_matrix(b):
        return tuple(_sum_of_products(row, b) for row in a)
    columns = tuple(zip(*b, strict=True))
    return tuple(tuple(_sum_of_products(row, column) for column in columns) for row in a)


def trace(a: Value) -> Any:
    """The sum of the diagonal."""
    return fold(lambda x, y: x + y, [a[i][i] for i in range(len(a))])


def trace_of_product(factors: list[Value]) -> Any:
    """tr(A B C D …) = Σ_ij X_ij Y_ji with X and Y the products of the two halves.

    As many multiplications as from the left, but its gradient needs fewer of the intermediate products again.
    """
    matrices = [f for f in factors if is_matrix(f)]
    scale = fold(multiply, [f for f in factors if not is_matrix(f)], 1)
    half = (len(matrices) + 1) // 2
    x = fold(matrix_product, matrices[:half])
    if len(matrices) == 1:
        return multiply(scale, trace(x))
    y = fold(matrix_product, matrices[half:])
    pairs = [multiply(x[i][j], y[j][i]) for i in range(len(x)) for j in range(len(x))]
    return multiply(scale, fold(lambda a, b: a + b, pairs))


def determinant(a: Value) -> Any:
    """The determinant, by expansion along the first row."""
    if len(a) == 1:
        return a[0][0]
    minors = [tuple(row[:k] + row[k + 1 :] for row in a[1:]) for k in range(len(a))]
    terms = [(-1) ** k * a[0][k] * determinant(minors[k]) for k in range(len(a))]
    return fold(lambda x, y: x + y, terms)


def dot(a: Value, b: Value) -> Any:
    """Σ_k a_k b_k, with no conjugation."""
    return _sum_of_products(components(a), components(b))


def cross(a: Value, b: Value) -> Value:
    """The cross product of two vectors of three components."""
    return tuple(a[(k + 1) % 3] * b[(k + 2) % 3] - a[(k + 2) % 3] * b[(k + 1) % 3] for k in range(3))


def norm(a: Value) -> Any:
    """√Σ|a_k|²."""
    parts = [number(x) for x in components(a)]
    squares = [module(x).real(x * conj(x)) if np.issubdtype(_dtype(x), np.complexfloating) else x * x for x in parts]
    total = fold(lambda x, y: x + y, squares)
    return module(total).sqrt(total)


def logcosh(x: Any) -> Any:
    """log cosh x = |x| + log1p(e^(−2|x|)) − log 2, which does not overflow."""
    m, x = module(x), number(x)
    return m.abs(x) + m.log1p(m.exp(-2.0 * m.abs(x))) - np.log(2)


def wrap(x: Any) -> Any:
    """x − 2πk in (−π, π]."""
    m = module(x)
    return x - 2 * np.pi * m.ceil((x - np.pi) / (2 * np.pi))


def call(function: str, arguments: list[Value]) -> Value:
    """A built-in function. Raises KeyError for a name it does not know."""
    if function in _ELEMENTARY:
        name = _ELEMENTARY[function]
        (a,) = arguments
        return map_value(lambda x: getattr(module(x), name)(number(x)), a)
    return _FUNCTIONS[function](*arguments)


def multiply(a: Any, b: Any) -> Any:
    """The product of two scalars."""
    if isinstance(a, int) and a == 1:
        return b
    return _BINARY["*"](a, b)


def _dtype(x: Any) -> Any:
    return x.dtype if hasattr(x, "dtype") else np.asarray(x).dtype


def _sum_of_products(a: Any, b: Any) -> Any:
    return fold(lambda x, y: x + y, [number(x) * number(y) for x, y in zip(a, b, strict=True)])


def _arithmetic(name: str) -> Callable[[Any, Any], Any]:
    def apply(a: Any, b: Any) -> Any:
        with np.errstate(all="ignore"):
            return getattr(module(a, b), name)(number(a), number(b))

    return apply


def _plain(name: str) -> Callable[[Any, Any], Any]:
    return lambda a, b: getattr(module(a, b), name)(a, b)


def _extremum(name: str) -> Callable[..., Any]:
    def apply(*arguments: Any) -> Any:
        items = [x for a in arguments for x in components(a)]
        return fold(_arithmetic(name), items)

    return apply


def _real_part(name: str) -> Callable[[Any], Any]:
    return lambda a: map_value(lambda x: getattr(module(x), name)(number(x)), a)


def _rounding(name: str) -> Callable[[Any], Any]:
    """Rounds to an integer: as a real number on arrays, where an infinity has to survive; as an int when static."""

    def apply(x: Any) -> Any:
        rounded = getattr(module(x), name)(number(x))
        return int(rounded) if is_static(x) and np.ndim(x) == 0 and np.isfinite(rounded) else rounded

    return apply


def _special(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def apply(x: Any) -> Any:
        return function(real_number(x))

    return apply


def _all_equal(a: Value, b: Value) -> Any:
    same = [_plain("equal")(x, y) for x, y in zip(components(a), components(b), strict=True)]
    return fold(_plain("logical_and"), same)


_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "+": _arithmetic("add"),
    "-": _arithmetic("subtract"),
    "*": _arithmetic("multiply"),
    "/": _arithmetic("true_divide"),
    "//": _arithmetic("floor_divide"),
    "%": _arithmetic("mod"),
    "==": _plain("equal"),
    "!=": _plain("not_equal"),
    "<": _plain("less"),
    "<=": _plain("less_equal"),
    ">": _plain("greater"),
    ">=": _plain("greater_equal"),
    "and": _plain("logical_and"),
    "or": _plain("logical_or"),
}

# Language name -> NumPy name, one argument, component by component.
_ELEMENTARY = {
    "abs": "abs", "sign": "sign", "arg": "angle", "sqrt": "sqrt",
    "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p", "log2": "log2", "log10": "log10",
    "sin": "sin", "cos": "cos", "tan": "tan", "asin": "arcsin", "acos": "arccos", "atan": "arctan",
    "sinh": "sinh", "cosh": "cosh", "tanh": "tanh", "asinh": "arcsinh", "acosh": "arccosh", "atanh": "arctanh",
}  # fmt: skip

_FUNCTIONS: dict[str, Callable[..., Value]] = {
    "atan2": _arithmetic("arctan2"),
    "min": _extremum("minimum"),
    "max": _extremum("maximum"),
    "floor": _rounding("floor"),
    "ceil": _rounding("ceil"),
    "round": _rounding("round"),
    "erf": _special(jax.scipy.special.erf),
    "lgamma": _special(jax.scipy.special.gammaln),
    "logcosh": logcosh,
    "dot": dot,
    "cross": cross,
    "norm": norm,
    "re": _real_part("real"),
    "im": _real_part("imag"),
    "conj": lambda a: map_value(conj, a),
    "tr": trace,
    "det": determinant,
    "delta": _all_equal,
    "wrap": wrap,
}
