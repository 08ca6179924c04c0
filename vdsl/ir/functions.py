"""The built-in functions: names, arities, and the kind of the result for the kinds of the arguments.

`Call` nodes hold only names of `FUNCTIONS`. Meanings (x, y scalars; a, b vectors; M a matrix; z complex):

    abs sign floor ceil round                     as NumPy's; `sign(0)` = 0; `floor`, `ceil` and `round` give an int
    sqrt exp log log2 log10 expm1 log1p           natural unless the name says otherwise
    sin cos tan asin acos atan atan2 sinh cosh tanh asinh acosh atanh
    erf lgamma logcosh                            log cosh x = |x| + log1p(e^{-2|x|}) - log 2
    min(x, …) max(x, …)                           of two or more numbers
    wrap(x)                                       x moved into (-pi, pi] by a multiple of 2 pi
    delta(x, y)                                   the integer 1 where x == y, else 0
    re im conj abs arg                            of a complex number (a real one is its own real part)
    dot(a, b) cross(a, b) norm(a)                 Σ a_k b_k without conjugation; |a|
    tr(M) det(M) conj(M)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vdsl.ir.kinds import (
    BOOL_LEVEL,
    COMPLEX,
    COMPLEX_LEVEL,
    INT,
    INT_LEVEL,
    REAL,
    REAL_LEVEL,
    Kind,
    Matrix,
    Scalar,
    Vector,
    is_number,
    is_real,
)

Rule = Callable[[tuple[Kind, ...]], Kind | None]


@dataclass(frozen=True)
class Function:
    """A built-in; `most` is None for any number of arguments, `rule` gives the kind of the result or None."""

    name: str
    least: int
    most: int | None
    rule: Rule
    expects: str


def _real_to_real(kinds: tuple[Kind, ...]) -> Kind | None:
    return REAL if all(is_real(k) for k in kinds) else None


def _analytic(kinds: tuple[Kind, ...]) -> Kind | None:
    if not is_number(kinds[0]):
        return None
    return COMPLEX if kinds[0] == COMPLEX else REAL


def _to_int(kinds: tuple[Kind, ...]) -> Kind | None:
    return INT if is_real(kinds[0]) else None


def _same_real(kinds: tuple[Kind, ...]) -> Kind | None:
    if not all(is_real(k) for k in kinds):
        return None
    return INT if all(k == INT for k in kinds) else REAL


def _abs(kinds: tuple[Kind, ...]) -> Kind | None:
    if not is_number(kinds[0]):
        return None
    return INT if kinds[0] == INT else REAL


def _number_to_real(kinds: tuple[Kind, ...]) -> Kind | None:
    return REAL if is_number(kinds[0]) else None


def _conj(kinds: tuple[Kind, ...]) -> Kind | None:
    return kinds[0] if is_number(kinds[0]) or isinstance(kinds[0], Vector | Matrix) else None


def _delta(kinds: tuple[Kind, ...]) -> Kind | None:
    match kinds:
        case (Scalar(a), Scalar(b)) if (
            a < COMPLEX_LEVEL and b < COMPLEX_LEVEL and (a == BOOL_LEVEL) == (b == BOOL_LEVEL)
        ):
            return INT
    return None


def _dot(kinds: tuple[Kind, ...]) -> Kind | None:
    match kinds:
        case (Vector(n, a), Vector(m, b)) if n == m:
            return Scalar(max(a, b, INT_LEVEL))
    return None


def _cross(kinds: tuple[Kind, ...]) -> Kind | None:
    match kinds:
        case (Vector(3, a), Vector(3, b)) if max(a, b) <= REAL_LEVEL:
            return Vector(3, max(a, b, INT_LEVEL))
    return None


def _norm(kinds: tuple[Kind, ...]) -> Kind | None:
    return REAL if isinstance(kinds[0], Vector) else None


def _matrix_to_complex(kinds: tuple[Kind, ...]) -> Kind | None:
    return COMPLEX if isinstance(kinds[0], Matrix) else None


def _table() -> dict[str, Function]:
    real_only = "tan asin acos atan asinh acosh atanh log2 log10 expm1 log1p erf lgamma logcosh wrap"
    rows = [Function(name, 1, 1, _real_to_real, "a real number") for name in real_only.split()]
    rows += [
        Function(name, 1, 1, _analytic, "a number")
        for name in ["sqrt", "exp", "log", "sin", "cos", "sinh", "cosh", "tanh"]
    ]
    rows += [Function(name, 1, 1, _to_int, "a real number") for name in ["floor", "ceil", "round"]]
    rows += [Function(name, 2, None, _same_real, "real numbers") for name in ["min", "max"]]
    rows += [Function(name, 1, 1, _number_to_real, "a number") for name in ["re", "im", "arg"]]
    rows += [Function(name, 1, 1, _matrix_to_complex, "a matrix") for name in ["tr", "det"]]
    rows += [
        Function("abs", 1, 1, _abs, "a number"),
        Function("sign", 1, 1, _same_real, "a real number"),
        Function("atan2", 2, 2, _real_to_real, "two real numbers"),
        Function("delta", 2, 2, _delta, "two integers, spins or truth values"),
        Function("dot", 2, 2, _dot, "two vectors of the same length"),
        Function("cross", 2, 2, _cross, "two real vectors of length 3"),
        Function("norm", 1, 1, _norm, "a vector"),
        Function("conj", 1, 1, _conj, "a number, a vector or a matrix"),
    ]
    return {f.name: f for f in rows}


FUNCTIONS: dict[str, Function] = _table()
