"""Random configurations: every field drawn from its base measure, or standard normal where that has no total."""

from __future__ import annotations

import numpy as np

from vdsl.ir.program import Program
from vdsl.ir.support import (
    Angle,
    Clock,
    Complex,
    Group,
    Occupation,
    Potts,
    Real,
    Sphere,
    Spin,
    Support,
    event_shape,
    stored_states,
)


def random_configuration(program: Program, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One configuration, {field: (elements, *event)}: independent values, as `random_values` draws them."""
    return {field.name: random_values(field.support, program.elements(field), rng) for field in program.fields}


def random_values(support: Support, n: int, rng: np.random.Generator) -> np.ndarray:
    """n independent values: uniform in the base measure (Haar on groups); standard normal for real and complex."""
    match support:
        case Spin() | Potts() | Clock() | Occupation():
            states = stored_states(support)
            return states[rng.integers(len(states), size=n)]
        case Real():
            return rng.standard_normal((n, *event_shape(support)))
        case Complex():
            return rng.standard_normal(n) + 1j * rng.standard_normal(n)
        case Angle():
            return -rng.uniform(-np.pi, np.pi, n)
        case Sphere(dimension):
            v = rng.standard_normal((n, dimension))
            return v / np.linalg.norm(v, axis=1, keepdims=True)
        case Group("U1"):
            return np.exp(1j * rng.uniform(-np.pi, np.pi, n))
        case Group("SU2"):
            return _special_unitary(2, n, rng)
        case Group("SU3"):
            return _special_unitary(3, n, rng)
    raise TypeError(f"no measure on {support}")


def _special_unitary(size: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """Haar on SU(size): QR of a complex Gaussian, R's diagonal made positive (Mezzadri 2007), det divided out."""
    z = rng.standard_normal((n, size, size)) + 1j * rng.standard_normal((n, size, size))
    q, r = np.linalg.qr(z)
    diagonal = np.diagonal(r, axis1=1, axis2=2)
    u = q * (diagonal / np.abs(diagonal))[:, None, :]
    return u / np.linalg.det(u)[:, None, None] ** (1 / size)
