"""Monomials: arithmetic of expressions that are polynomial in real variables and harmonic in angles.

    Polynomial = Σ_monomials coefficient · ∏_slots g(x_slot; power)       g = x^p (real, unit) or e^{ipx} (angle)
    Phase      = constant + Σ_slots multiple · x_slot                      raw angles, before a cosine is taken of them
    Modulus    = (Polynomial)^{1/2} of a square that cannot be negative    |z| and norm(v), before they are squared

Coefficients are arrays that broadcast to (elements, q_1, …, q_K), the states of the discrete variables in scope being
axes as in `tables`; plain arrays are numbers, and a tuple of values is a vector. What leaves this algebra (a division
by a field, exp φ, cos of half an angle) raises NotLocal: nothing is ever approximated.
"""

from __future__ import annotations

import functools
import math
import operator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vdsl.ir.tables import BINARY, FUNCTIONS, UNARY, NotLocal

MAX_MONOMIALS = 4096

Slot = tuple[int, str]  # the rank of a variable in scope, and its kind: "real" | "unit" | "angle"
Monomial = tuple[tuple[Slot, int], ...]  # (slot, power), increasing slots, no power 0


@dataclass(frozen=True)
class Polynomial:
    """See the module."""

    terms: dict[Monomial, np.ndarray]


@dataclass(frozen=True)
class Phase:
    """See the module; `wrapped`: known only modulo 2π, so it may be multiplied by integers only."""

    multiples: dict[Slot, np.ndarray]
    constant: np.ndarray
    wrapped: bool = False


@dataclass(frozen=True)
class Modulus:
    """See the module."""

    square: Polynomial


Value = Any  # an array, Polynomial, Phase, Modulus, or a tuple of these


def variable(slot: Slot, factor: np.ndarray) -> Polynomial:
    """factor · x_slot, or factor · e^{ix} of an angle."""
    return Polynomial({((slot, 1),): factor})


def angle(slot: Slot, sign: int) -> Phase:
    """± x_slot."""
    return Phase({slot: np.asarray(float(sign))}, np.asarray(0.0))


def polynomial(value: Value) -> Polynomial:
    """A value as a polynomial. Raises NotLocal for a bare angle, a modulus, a vector."""
    if isinstance(value, Polynomial):
        return value
    if isinstance(value, Phase | Modulus | tuple):
        raise NotLocal
    return Polynomial({(): np.asarray(value)})


def is_number(value: Value) -> bool:
    """Whether a value is free of continuous variables (vectors: all components)."""
    if isinstance(value, tuple):
        return all(is_number(v) for v in value)
    return not isinstance(value, Polynomial | Phase | Modulus)


# --- operators -------------------------------------------------------------------------------------------------------


def unary(op: str, x: Value) -> Value:
    """`-` and `'`."""
    if is_number(x):
        return _each(UNARY[op], x)
    match op:
        case "-":
            return _each(lambda v: times(v, np.asarray(-1.0)), x)
        case "'":
            return _each(conjugate, x)
    raise NotLocal


def binary(op: str, x: Value, y: Value) -> Value:
    """Arithmetic; comparisons and logic of numbers only."""
    if is_number(x) and is_number(y):
        return _each(BINARY[op], x, y)
    match op:
        case "+":
            return _each(plus, x, y)
        case "-":
            return _each(minus, x, y)
        case "*":
            return _each(times, x, y)
        case "/" if is_number(y):
            return _each(lambda a, b: times(a, 1 / np.asarray(b, np.result_type(b, float))), x, y)
        case "^" if is_number(y) and not isinstance(x, tuple):
            return power(x, y)
    raise NotLocal


def call(function: str, arguments: tuple[Value, ...]) -> Value:
    """A built-in function."""
    if all(is_number(a) for a in arguments):
        if function not in FUNCTIONS:
            raise NotLocal
        return FUNCTIONS[function](*arguments)
    match function, arguments:
        case "dot", (tuple() as a, tuple() as b):
            return total([times(x, y) for x, y in zip(a, b, strict=True)])
        case "norm", (tuple() as a,):
            return Modulus(polynomial(total([times(x, conjugate(x)) for x in a])))
        case "cross", (tuple() as a, tuple() as b):
            return _cross(a, b)
        case "conj", (a,):
            return _each(conjugate, a)
        case "re", (a,):
            return _each(lambda z: times(plus(z, conjugate(z)), np.asarray(0.5)), a)
        case "im", (a,):
            return _each(lambda z: times(minus(z, conjugate(z)), np.asarray(-0.5j)), a)
        case "abs", (Modulus() as a,):
            return a
        case "abs", (Polynomial() as a,):
            return Modulus(polynomial(times(a, conjugate(a))))
        case "wrap", (Phase(multiples, constant),):
            return Phase(multiples, constant, True)
        case "cos", (Phase() as a,):
            return times(plus(_wave(a, 1), _wave(a, -1)), np.asarray(0.5))
        case "sin", (Phase() as a,):
            return times(minus(_wave(a, 1), _wave(a, -1)), np.asarray(-0.5j))
        case "exp", (Phase(multiples, constant, wrapped),):
            turned = {slot: -1j * m for slot, m in multiples.items()}
            return _wave(Phase(turned, -1j * constant, wrapped), 1)
    raise NotLocal


def _cross(a: tuple, b: tuple) -> tuple:
    def minor(i: int, j: int) -> Value:
        return minus(times(a[i], b[j]), times(a[j], b[i]))

    return tuple(minor((k + 1) % 3, (k + 2) % 3) for k in range(3))


def where(condition: np.ndarray, yes: Value, no: Value) -> Value:
    """`yes` or `no`, by a condition on elements and discrete states."""
    if isinstance(yes, tuple) or isinstance(no, tuple):
        return _each(lambda a, b: where(condition, a, b), yes, no)
    if is_number(yes) and is_number(no):
        return np.where(condition, yes, no)
    a, b = polynomial(yes).terms, polynomial(no).terms
    zero = np.asarray(0.0)
    return Polynomial({m: np.where(condition, a.get(m, zero), b.get(m, zero)) for m in {**a, **b}})


def total(values: list[Value]) -> Value:
    """The sum of values."""
    return functools.reduce(plus, values, np.asarray(0.0))


def plus(x: Value, y: Value) -> Value:
    """x + y of scalars."""
    if is_number(x) and is_number(y):
        return np.add(x, y)
    if isinstance(x, Phase) or isinstance(y, Phase):
        a, b = _phase(x), _phase(y)
        multiples = dict(a.multiples)
        for slot, m in b.multiples.items():
            multiples[slot] = multiples[slot] + m if slot in multiples else m
        return Phase(multiples, a.constant + b.constant, a.wrapped or b.wrapped)
    p, q = polynomial(x).terms, polynomial(y).terms
    terms = dict(p)
    for monomial, c in q.items():
        terms[monomial] = terms[monomial] + c if monomial in terms else c
    return _checked(terms)


def minus(x: Value, y: Value) -> Value:
    """x − y of scalars."""
    return plus(x, times(y, np.asarray(-1.0)))


def times(x: Value, y: Value) -> Value:
    """x · y of scalars."""
    if is_number(x) and is_number(y):
        return np.multiply(x, y)
    if isinstance(x, Phase) or isinstance(y, Phase):
        a, b = (x, y) if isinstance(x, Phase) else (y, x)
        return _multiple(a, b)
    if isinstance(x, Modulus) and isinstance(y, Modulus):
        if not _same(x.square, y.square):
            raise NotLocal
        return x.square
    p, q = polynomial(x).terms, polynomial(y).terms
    if len(p) * len(q) > MAX_MONOMIALS:
        raise NotLocal
    terms: dict[Monomial, np.ndarray] = {}
    for a, c in p.items():
        for b, d in q.items():
            monomial, product = _product(a, b), c * d
            terms[monomial] = terms[monomial] + product if monomial in terms else product
    return _checked(terms)


def power(x: Value, y: Value) -> Value:
    """x^y for a whole number y ≥ 0, the same in every element; even numbers only for a modulus."""
    exponents = np.unique(np.asarray(y))
    if len(exponents) != 1 or np.iscomplexobj(exponents) or exponents[0] != np.floor(exponents[0]):
        raise NotLocal
    n = int(exponents[0])
    if not 0 <= n <= 64:
        raise NotLocal
    if isinstance(x, Modulus):
        if n % 2:
            raise NotLocal
        return power(x.square, np.asarray(n // 2))
    base = polynomial(x)
    return functools.reduce(times, [base] * n, np.asarray(1.0))


def conjugate(x: Value) -> Value:
    """The complex conjugate of a scalar; the generators of real variables are real, e^{ipx} becomes e^{−ipx}."""
    match x:
        case Polynomial(terms):
            return Polynomial({_reflected(m): np.conj(c) for m, c in terms.items()})
        case Phase() | Modulus() | tuple():
            raise NotLocal
    return np.conj(x)


def _each(function, *arguments: Value) -> Value:  # type: ignore[no-untyped-def]
    """A function of scalars, applied to every component where an argument is a vector."""
    lengths = {len(a) for a in arguments if isinstance(a, tuple)}
    if not lengths:
        return function(*arguments)
    if len(lengths) > 1:
        raise NotLocal
    columns = [a if isinstance(a, tuple) else (a,) * next(iter(lengths)) for a in arguments]
    return tuple(function(*row) for row in zip(*columns, strict=True))


def _product(a: Monomial, b: Monomial) -> Monomial:
    powers = dict(a)
    for slot, p in b:
        powers[slot] = powers.get(slot, 0) + p
    return tuple(sorted((slot, p) for slot, p in powers.items() if p))


def _reflected(m: Monomial) -> Monomial:
    return tuple((slot, -p if slot[1] == "angle" else p) for slot, p in m)


def _checked(terms: dict[Monomial, np.ndarray]) -> Polynomial:
    if len(terms) > MAX_MONOMIALS:
        raise NotLocal
    return Polynomial(terms)


def _same(a: Polynomial, b: Polynomial) -> bool:
    return a.terms.keys() == b.terms.keys() and all(np.array_equal(c, b.terms[m]) for m, c in a.terms.items())


# --- angles ----------------------------------------------------------------------------------------------------------


def _phase(x: Value) -> Phase:
    if isinstance(x, Phase):
        return x
    if not is_number(x) or isinstance(x, tuple):
        raise NotLocal
    return Phase({}, np.asarray(x))


def _multiple(a: Phase, factor: Value) -> Phase:
    if not is_number(factor) or isinstance(factor, tuple):
        raise NotLocal
    c = np.asarray(factor)
    if a.wrapped and (np.iscomplexobj(c) or (c != np.round(c)).any()):
        raise NotLocal
    return Phase({slot: m * c for slot, m in a.multiples.items()}, a.constant * c, a.wrapped)


def _wave(a: Phase, sign: int) -> Value:
    """e^{± i a}: one monomial for every set of whole multiples that occurs in some element or state."""
    amplitude = np.exp(sign * 1j * np.asarray(a.constant))
    slots = sorted(a.multiples)
    columns = np.broadcast_arrays(*(np.asarray(a.multiples[s]) for s in slots))
    whole = [np.round(c.real) for c in columns]
    if any((np.abs(c - w) > 1e-12 * np.maximum(1, np.abs(w))).any() for c, w in zip(columns, whole, strict=True)):
        raise NotLocal
    stacked = np.stack(whole, -1).astype(int)
    kinds = np.unique(stacked.reshape(-1, len(slots)), axis=0)
    terms: dict[Monomial, np.ndarray] = {}
    for kind in kinds:
        monomial = tuple((slot, sign * int(p)) for slot, p in zip(slots, kind, strict=True) if p)
        mask = functools.reduce(operator.and_, (w == p for w, p in zip(whole, kind, strict=True)))
        terms[monomial] = amplitude * mask if len(kinds) > 1 else amplitude
    if len(terms) > math.isqrt(MAX_MONOMIALS):
        raise NotLocal
    return Polynomial(terms)
