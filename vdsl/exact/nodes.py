"""Nodes: quadrature rules for continuous supports, every one a product of rules whose error falls exponentially.

| support                | rule                                                                              |
|------------------------|-----------------------------------------------------------------------------------|
| angle, U(1), sphere(2) | equispaced on the circle (the trapezoid rule)                                     |
| real, real[n], complex | per component: Gauss for e^{−V}, V a polynomial; equispaced where V is not known  |
| sphere(3)              | Gauss–Legendre in z times equispaced in the azimuth                               |

The weights are those of the base measure, so that what is summed is e^{−E/T} itself: a Gauss rule of n nodes x_k for
ρ = e^{−V} has 1/w_k = Σ_{j<n} φ_j(x_k)², with φ_j = p_j √ρ its orthonormal functions (Golub & Welsch 1969). For
periodic analytic functions, and for analytic functions that vanish with all derivatives at both ends, the trapezoid
rule converges exponentially as well (Trefethen & Weideman 2014).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vdsl.ir.support import Angle, Complex, Group, Real, Sphere, Support, event_shape, is_discrete
from vdsl.ir.tables import NodeValues
from vdsl.ir.values import wrap


@dataclass(frozen=True)
class Density:
    """What a real component is distributed like: on (lower, upper), where e^{−V(x)}, V = Σ potential[k] x^k, matters.

    No potential: only the interval is known.
    """

    lower: float
    upper: float
    potential: tuple[float, ...] = ()


Densities = tuple[Density, ...]  # one per real component

_CIRCLE, _GAUSS, _INTERVAL, _POLAR = 16, 9, 18, 8  # nodes at fineness 1


@dataclass(frozen=True)
class Nodes:
    """Values (and what stands for them across an antiperiodic boundary), and the logarithm of their weights (q,)."""

    values: NodeValues
    log_weights: np.ndarray

    def __len__(self) -> int:
        return len(self.log_weights)


def has_nodes(support: Support) -> bool:
    """Whether there is a rule."""
    match support:
        case Sphere(n):
            return n in (2, 3)
        case Group(name):
            return name == "U1"
    return True


def count(support: Support, fineness: float, densities: Densities = ()) -> int:
    """How many nodes `nodes_of` makes."""
    match support:
        case Angle() | Group() | Sphere(2):
            return round(_CIRCLE * fineness)
        case Sphere():
            return 2 * round(_POLAR * fineness) ** 2
    return math.prod(_along(d, fineness) for d in densities or (Density(0, 0, (0.0,)),) * components(support))


def components(support: Support) -> int:
    """How many real components a value has that range over an interval each."""
    match support:
        case Complex():
            return 2
        case Real():
            return math.prod(event_shape(support))
    return 0


def nodes_of(support: Support, fineness: float, densities: Densities) -> Nodes:
    """The rule of a support; `densities` for real components only."""
    match support:
        case Angle():
            theta = _circle(round(_CIRCLE * fineness))
            return Nodes((theta, wrap(-theta)), np.full(len(theta), math.log(2 * math.pi / len(theta))))
        case Group():
            theta = _circle(round(_CIRCLE * fineness))
            z = np.exp(1j * theta)
            return Nodes((z, -z), np.full(len(theta), -math.log(len(theta))))  # Haar
        case Sphere(2):
            theta = _circle(round(_CIRCLE * fineness))
            v = (np.cos(theta), np.sin(theta))
            return Nodes((v, _negative(v)), np.full(len(theta), math.log(2 * math.pi / len(theta))))
        case Sphere():
            return _sphere(round(_POLAR * fineness))
    if is_discrete(support):
        raise TypeError(f"{support} needs no nodes")
    return _grid(support, [_rule(d, _along(d, fineness)) for d in densities])


def _circle(q: int) -> np.ndarray:
    return -math.pi + 2 * math.pi * (np.arange(q) + 1) / q


def _sphere(polar: int) -> Nodes:
    """Exact for polynomials of degree below 2·polar."""
    z, weights = np.polynomial.legendre.leggauss(polar)
    azimuth = _circle(2 * polar)
    r = np.sqrt(1 - z**2)
    v = (np.outer(r, np.cos(azimuth)).ravel(), np.outer(r, np.sin(azimuth)).ravel(), np.repeat(z, 2 * polar))
    return Nodes((v, _negative(v)), np.log(np.repeat(weights, 2 * polar) * math.pi / polar))


def _along(density: Density, fineness: float) -> int:
    return round((_GAUSS if density.potential else _INTERVAL) * fineness)


def _rule(density: Density, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(nodes, ln weights) of one real component."""
    if not density.potential:
        return np.linspace(density.lower, density.upper, n), np.full(
            n, math.log((density.upper - density.lower) / (n - 1))
        )
    x = np.linspace(density.lower, density.upper, max(1025, 40 * n))
    v = np.polynomial.polynomial.polyval(x, density.potential)
    root = np.exp(-(v - v.min()) / 2) * math.sqrt(x[1] - x[0])
    diagonal, off = _lanczos(x, root, n)
    jacobi = np.diag(diagonal) + np.diag(off[1:], 1) + np.diag(off[1:], -1)
    nodes = np.linalg.eigvalsh(jacobi)
    at = np.polynomial.polynomial.polyval(nodes, density.potential)
    before, phi = np.zeros(n), np.exp(-(at - v.min()) / 2) / off[0]
    total = phi**2
    for j in range(n - 1):
        before, phi = phi, ((nodes - diagonal[j]) * phi - (off[j] if j else 0.0) * before) / off[j + 1]
        total += phi**2
    return nodes, -np.log(total)


def _lanczos(x: np.ndarray, start: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The recursion x p_j = off_{j+1} p_{j+1} + diagonal_j p_j + off_j p_{j−1} for weights start²; off_0² their sum."""
    diagonal, off = np.empty(n), np.empty(n)
    basis = np.empty((n, len(x)))
    off[0] = np.linalg.norm(start)
    basis[0] = start / off[0]
    for j in range(n):
        v = x * basis[j]
        diagonal[j] = v @ basis[j]
        if j + 1 < n:
            for _ in range(2):  # once more, against rounding
                v = v - basis[: j + 1].T @ (basis[: j + 1] @ v)
            off[j + 1] = np.linalg.norm(v)
            basis[j + 1] = v / off[j + 1]
    return diagonal, off


def _grid(support: Support, axes: list[tuple[np.ndarray, np.ndarray]]) -> Nodes:
    mesh = tuple(m.ravel() for m in np.meshgrid(*(x for x, _ in axes), indexing="ij"))
    weights = sum(m.ravel() for m in np.meshgrid(*(w for _, w in axes), indexing="ij"))
    if isinstance(support, Complex):
        z = mesh[0] + 1j * mesh[1]
        return Nodes((z, -z), weights)
    if not event_shape(support):
        return Nodes((mesh[0], -mesh[0]), weights)
    return Nodes((mesh, _negative(mesh)), weights)


def _negative(v: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return tuple(-c for c in v)


def coordinate(nodes: Nodes, support: Support, component: int) -> np.ndarray:
    """A real component of every node, (q,)."""
    plain = nodes.values[0]
    if isinstance(support, Complex):
        return plain.imag if component else plain.real
    return plain[component] if isinstance(plain, tuple) else plain
