"""Characters of U(1), SU(2) and SU(3): a function of conjugacy classes -> its coefficients over the representations.

λ_r[w] = (1/d_r) ∫ dP w(P) χ_r(P)*      normalised Haar measure

U(1)    r = n, any integer, χ = e^{inφ}
SU(2)   r = d ≥ 1, χ = sin(dα)/sin α at eigenvalues e^{±iα}, measure (2/π) sin²α dα
SU(3)   r = (p, q), d = (p+1)(q+1)(p+q+2)/2; by Weyl's formula χ_r Δ = det e^{i l_j θ_k}, l = (p+q+2, q+1, 0), with
        Δ the same of (0, 0), and measure |Δ|²/3! dθ₁dθ₂/(2π)². w·Δ is antisymmetric, so that ∫ w |Δ|² χ*/3! is one
        Fourier coefficient of it, that of e^{i(l₁θ₁ + l₂θ₂ + l₃θ₃)}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ClassFunctions = Callable[[np.ndarray], np.ndarray]  # holonomies: angles (k,), matrices (k, n, n) -> values (m, k)
_START, _MOST = {"U1": 64, "SU2": 48, "SU3": 24}, {"U1": 1024, "SU2": 768, "SU3": 96}
_CONVERGED = 1e-13  # relative to the largest coefficient; ln Z of V plaquettes is then good to V times that


@dataclass(frozen=True)
class Coefficients:
    """λ_r of m functions, (m, R). labels: (R, 1) or (R, 2) integers; dimensions (R,); `converged` in the nodes."""

    labels: np.ndarray
    dimensions: np.ndarray
    values: np.ndarray
    converged: bool

    def neighbours(self, group: str, charge: int = 1) -> np.ndarray:
        """N_{r f}^{r'}, (R, R): how often r' stands in r ⊗ f, f the fundamental one (the charge of U(1))."""
        place = _places(self.labels)
        every: dict[str, tuple[tuple[int, ...], ...]] = {
            "U1": ((charge,),), "SU2": ((1,), (-1,)), "SU3": ((1, 0), (-1, 1), (0, -1)),
        }  # fmt: skip
        steps = every[group]
        out = np.zeros((len(self.labels),) * 2)
        for label, k in place.items():
            for step in steps:
                other = place.get(tuple(a + b for a, b in zip(label, step, strict=True)))
                if other is not None:
                    out[k, other] = 1.0
        return out


def coefficients(group: str, functions: ClassFunctions) -> Coefficients:
    """The coefficients of functions on the group, on as many nodes as they need: doubled until nothing changes."""
    nodes = _START[group]
    before = _with_nodes(group, functions, nodes)
    while 2 * nodes <= _MOST[group]:
        nodes *= 2
        found = _with_nodes(group, functions, nodes)
        if (_change(found, before) <= _CONVERGED * np.abs(found.values).max(1)).all():
            return Coefficients(found.labels, found.dimensions, found.values, True)
        before = found
    return before


def _change(found: Coefficients, before: Coefficients) -> np.ndarray:
    place = _places(found.labels)
    at = [place[label] for label in _places(before.labels)]
    return np.abs(found.values[:, at] - before.values).max(1)


def _places(labels: np.ndarray) -> dict[tuple[int, ...], int]:
    return {tuple(int(n) for n in label): k for k, label in enumerate(labels)}


def _with_nodes(group: str, functions: ClassFunctions, nodes: int) -> Coefficients:
    match group:
        case "U1":
            return _circle(functions, nodes)
        case "SU2":
            return _special_two(functions, nodes)
    return _special_three(functions, nodes)


def _circle(functions: ClassFunctions, nodes: int) -> Coefficients:
    """Labels 0, 1, −1, 2, −2, …: a longer list begins with a shorter one.

    Gauss–Legendre on (−π, π): functions of `wrap` jump at ±π, where equispaced nodes would only converge as 1/nodes².
    """
    x, weights = np.polynomial.legendre.leggauss(nodes)
    phi = np.pi * x
    n = np.arange(1, nodes // 4)
    labels = np.concatenate([[0], np.stack([n, -n], 1).ravel()])
    values = (functions(phi) * weights / 2) @ np.exp(-1j * np.outer(phi, labels))
    return Coefficients(labels[:, None], np.ones(len(labels)), values, False)


def _special_two(functions: ClassFunctions, nodes: int) -> Coefficients:
    alpha = np.pi * (np.arange(nodes) + 0.5) / nodes
    e = np.exp(1j * alpha)
    matrices = np.zeros((nodes, 2, 2), complex)
    matrices[:, 0, 0], matrices[:, 1, 1] = e, e.conj()
    d = np.arange(1, nodes // 2)
    weights = np.sin(np.outer(alpha, d)) * np.sin(alpha)[:, None] * (2 / nodes) / d
    return Coefficients(d[:, None], d.astype(float), (functions(matrices) @ weights).astype(complex), False)


def _special_three(functions: ClassFunctions, nodes: int) -> Coefficients:
    """The class functions are symmetric in the three phases: each class is evaluated once."""
    i, j = np.meshgrid(np.arange(nodes), np.arange(nodes), indexing="ij")
    triple = np.sort(np.stack([i, j, (-i - j) % nodes], -1).reshape(-1, 3), axis=1)
    classes, where = np.unique(triple, axis=0, return_inverse=True)
    phases = np.exp(2j * np.pi * classes / nodes)
    matrices = np.zeros((len(classes), 3, 3), complex)
    matrices[:, [0, 1, 2], [0, 1, 2]] = phases
    values = functions(matrices)[:, where.reshape(-1)].reshape(-1, nodes, nodes)
    e = np.exp(2j * np.pi * np.stack([i, j, -i - j]) / nodes)
    delta = np.zeros((nodes, nodes), complex)
    for permutation, sign in _PERMUTATIONS:
        a, b, _ = permutation
        delta += sign * e[a] ** 2 * e[b]
    spectrum = np.fft.fft2(values * delta) / nodes**2
    p, q = (a.ravel() for a in np.meshgrid(*(np.arange(nodes // 4),) * 2, indexing="ij"))
    kept = p + q + 2 < nodes // 2
    p, q = p[kept], q[kept]
    d = (p + 1) * (q + 1) * (p + q + 2) / 2
    return Coefficients(np.stack([p, q], 1), d, spectrum[:, p + q + 2, q + 1] / d, False)


_PERMUTATIONS = (
    ((0, 1, 2), 1), ((1, 2, 0), 1), ((2, 0, 1), 1), ((1, 0, 2), -1), ((0, 2, 1), -1), ((2, 1, 0), -1),
)  # fmt: skip
