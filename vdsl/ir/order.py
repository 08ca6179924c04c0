"""Order parameters: a field's value at a site as a vector v of real numbers, and what is measured with it.

    spin, real            v = s
    real[n], sphere(n)    v = the vector
    complex, U(1)         v = (re z, im z)
    angle, clock(q)       v = (cos θ, sin θ)
    potts(q)              v_a = √(q/(q−1)) (δ(s, a) − 1/q), a = 0 … q−1: unit vectors that add up to zero

so that v(x) · v(y) = (q δ(s_x, s_y) − 1)/(q − 1) for potts, cos(θ_x − θ_y) for angles, Re z̄_x z_y for complex numbers.
"""

from __future__ import annotations

from functools import reduce
from math import pi, prod, sqrt

import numpy as np

from vdsl.ir.expr import Binary, Binder, Call, Const, Expr, IndexVar, Place, Read, Reduce, SetOf
from vdsl.ir.lattice import Lattice
from vdsl.ir.program import Field
from vdsl.ir.support import Angle, Clock, Complex, Group, Potts, Real, Sphere, Spin

LARGEST_ORDER = 64  # components


def n_components(field: Field) -> int:
    """How many components the order parameter has; 0 where the field has none."""
    match field.support:
        case Spin() | Real(None):
            return 1
        case Real(int(n)) | Sphere(n):
            return n
        case Potts(q) if q >= 2:
            return q
        case Complex() | Group("U1") | Angle() | Clock():
            return 2
    return 0


def components(field: Field, place: Place) -> tuple[Expr, ...]:
    """The components of v at a place."""
    value = Read(field.name, place)
    match field.support:
        case Spin() | Real(None):
            return (value,)
        case Real(int(n)) | Sphere(n):
            return tuple(Read(field.name, place, None, (Const(k),)) for k in range(n))
        case Complex() | Group("U1"):
            return Call("re", (value,)), Call("im", (value,))
        case Angle() | Clock():
            return Call("cos", (value,)), Call("sin", (value,))
        case Potts(q):
            scale = Const(sqrt(q / (q - 1)))
            shifted = [Binary("-", Call("delta", (value, Const(a))), Const(1 / q)) for a in range(q)]
            return tuple(Binary("*", scale, s) for s in shifted)
    raise TypeError(f"{field.support} has no order parameter")


def product(field: Field, a: Place, b: Place) -> Expr:
    """v(a) · v(b)."""
    x, y = Read(field.name, a), Read(field.name, b)
    match field.support:
        case Spin() | Real(None):
            return Binary("*", x, y)
        case Real() | Sphere():
            return Call("dot", (x, y))
        case Complex() | Group("U1"):
            return Call("re", (Binary("*", Call("conj", (x,)), y),))
        case Angle() | Clock():
            return Call("cos", (Binary("-", x, y),))
        case Potts(q):
            return Binary("/", Binary("-", Binary("*", Const(q), Call("delta", (x, y))), Const(1)), Const(q - 1))
    raise TypeError(f"{field.support} has no order parameter")


def magnetisation(field: Field, variable: str) -> tuple[Expr, ...]:
    """The components of m = (1/N) Σ_x v(x)."""
    return tuple(_mean(variable, v) for v in components(field, Place(variable)))


def square(values: tuple[Expr, ...]) -> Expr:
    """Σ_a m_a²."""
    return total(tuple(Binary("^", m, Const(2)) for m in values))


def total(values: tuple[Expr, ...]) -> Expr:
    """The sum of a few expressions."""
    return reduce(lambda a, b: Binary("+", a, b), values)


def wave(field: Field, lattice: Lattice, numbers: tuple[int, ...], variable: str) -> Expr:
    """|m(k)|² = |(1/N) Σ_x v(x) e^{i k·x}|² with k·x = 2π Σ_μ n_μ x_μ / L_μ, x_μ in units of the primitive vectors."""
    phase = _phase(lattice, numbers, variable)
    parts: list[Expr] = []
    for v in components(field, Place(variable)):
        if phase is None:
            parts.append(_mean(variable, v))
        else:
            parts += [_mean(variable, Binary("*", v, Call(f, (phase,)))) for f in ("cos", "sin")]
    return square(tuple(parts))


def plane_spacing(lattice: Lattice, axis: int) -> float:
    """The distance between neighbouring lattice planes that an axis crosses: 1 on a square lattice."""
    return float(1 / np.linalg.norm(np.linalg.pinv(np.array(lattice.vectors))[:, axis]))


def _mean(variable: str, body: Expr) -> Expr:
    return Reduce("mean", (Binder((variable,), SetOf("sites")),), body)


def _phase(lattice: Lattice, numbers: tuple[int, ...], variable: str) -> Expr | None:
    """k·x as a function of the site's number, which counts cells row by row, and within a cell its sites."""
    terms: list[Expr] = []
    number: Expr = IndexVar(variable)
    places = np.array(lattice.basis) @ np.linalg.pinv(np.array(lattice.vectors))  # (basis, axes), in primitive vectors
    for axis, n in enumerate(numbers):
        if n == 0:
            continue
        stride, length = lattice.n_basis * prod(lattice.shape[axis + 1 :]), lattice.shape[axis]
        cell = number if stride == 1 else Binary("//", number, Const(stride))
        if axis > 0:
            cell = Binary("%", cell, Const(length))
        terms.append(Binary("*", Const(2 * pi * n / length), cell))
    for b in range(lattice.n_basis):
        shift = 2 * pi * sum(n * float(places[b, axis]) / lattice.shape[axis] for axis, n in enumerate(numbers))
        if abs(shift) > 1e-12:
            here = Call("delta", (Binary("%", number, Const(lattice.n_basis)), Const(b)))
            terms.append(Binary("*", Const(shift), here))
    return total(tuple(terms)) if terms else None
