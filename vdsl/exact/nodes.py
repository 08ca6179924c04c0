"""Nodes: quadrature rules for continuous supports. Every rule is a product of rules whose error falls exponentially.

| support           | nodes                                                           |
|-------------------|-----------------------------------------------------------------|
| angle, U(1), sphere(2) | equispaced on the circle (the trapezoid rule)              |
| real, real[n], complex | equispaced on an interval per component, outside of which the density vanishes to rounding |
| sphere(3)         | Gauss–Legendre in z times equispaced in the azimuth             |

For periodic analytic functions, and for analytic functions that vanish at both ends with all derivatives, the trapezoid
rule converges exponentially (Trefethen & Weideman 2014).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from vdsl.ir.support import Angle, Complex, Group, Real, Sphere, Support, event_shape, is_discrete
from vdsl.ir.tables import NodeValues
from vdsl.ir.values import wrap

Box = tuple[tuple[float, float], ...]  # an interval per real component

_CIRCLE, _INTERVAL, _POLAR = 16, 18, 8  # nodes at fineness 1


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


def count(support: Support, fineness: float) -> int:
    """How many nodes `nodes_of` makes."""
    match support:
        case Angle() | Group() | Sphere(2):
            return round(_CIRCLE * fineness)
        case Sphere():
            return 2 * round(_POLAR * fineness) ** 2
    return round(_INTERVAL * fineness) ** components(support)


def components(support: Support) -> int:
    """How many real components a value has that range over an interval each."""
    match support:
        case Complex():
            return 2
        case Real():
            return math.prod(event_shape(support))
    return 0


def nodes_of(support: Support, fineness: float, box: Box) -> Nodes:
    """The rule of a support; `box` for real components only."""
    match support:
        case Angle():
            theta = _circle(round(_CIRCLE * fineness))
            return Nodes((theta, wrap(-theta)), np.full(len(theta), math.log(2 * math.pi / len(theta))))
        case Group():
            theta = _circle(round(_CIRCLE * fineness))
            z = np.exp(1j * theta)
            return Nodes((z, -z), np.full(len(theta), math.log(2 * math.pi / len(theta))))
        case Sphere(2):
            theta = _circle(round(_CIRCLE * fineness))
            v = (np.cos(theta), np.sin(theta))
            return Nodes((v, _negative(v)), np.full(len(theta), math.log(2 * math.pi / len(theta))))
        case Sphere():
            return _sphere(round(_POLAR * fineness))
    if is_discrete(support):
        raise TypeError(f"{support} needs no nodes")
    return _grid(support, round(_INTERVAL * fineness), box)


def _circle(q: int) -> np.ndarray:
    return -math.pi + 2 * math.pi * (np.arange(q) + 1) / q


def _sphere(polar: int) -> Nodes:
    """Exact for polynomials of degree below 2·polar."""
    z, weights = np.polynomial.legendre.leggauss(polar)
    azimuth = _circle(2 * polar)
    r = np.sqrt(1 - z**2)
    v = (np.outer(r, np.cos(azimuth)).ravel(), np.outer(r, np.sin(azimuth)).ravel(), np.repeat(z, 2 * polar))
    return Nodes((v, _negative(v)), np.log(np.repeat(weights, 2 * polar) * math.pi / polar))


def _grid(support: Support, q: int, box: Box) -> Nodes:
    axes = [np.linspace(a, b, q) for a, b in box]
    mesh = tuple(m.ravel() for m in np.meshgrid(*axes, indexing="ij"))
    log_weight = sum(math.log((b - a) / (q - 1)) for a, b in box)
    weights = np.full(len(mesh[0]), log_weight)
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


def sides(box: Box) -> list[tuple[int, int]]:
    """(component, 0 for the lower or 1 for the upper end) of every end of a box."""
    return list(itertools.product(range(len(box)), (0, 1)))
