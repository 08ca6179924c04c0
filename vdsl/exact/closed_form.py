"""Closed forms: the homogeneous square-lattice Ising torus -> ln Z, E and Var E at any size, by Kaufman's formula."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vdsl.ir.factors import FactorGraph


@dataclass(frozen=True)
class IsingTorus:
    """H = constant − J_0 Σ s s' (bonds along axis 0) − J_1 Σ s s' (along axis 1) on a shape[0] × shape[1] torus.

    Couplings are not negative: on an axis of even length the sign of J is a relabelling of every other spin.
    """

    shape: tuple[int, int]
    couplings: tuple[float, float]
    constant: float = 0.0


@dataclass(frozen=True)
class Thermodynamics:
    """ln Z, ⟨E⟩ and Var E."""

    ln_z: float
    energy: float
    energy_variance: float


def recognise(graph: FactorGraph) -> IsingTorus | None:
    """The Ising torus that a factor graph is, or None.

    Two states per site, in any spelling (spins, two Potts colours, angles 0 and π): pair energies of the form
    a + b·[equal], uniform along each axis, no field. Axes shorter than 3 are left to elimination.
    """
    if graph.opaque or graph.coordinates is None or len(graph.fields) != 1 or (graph.cardinalities != 2).any():
        return None
    cells = graph.coordinates
    if cells.shape[1] != 2 or any(g.scopes.shape[1] != 2 for g in graph.groups):
        return None
    shape = tuple(int(k) + 1 for k in cells.max(0))
    if min(shape) < 3 or math.prod(shape) != graph.n:
        return None
    equal, different = np.zeros((2, graph.n)), np.zeros((2, graph.n))
    for g in graph.groups:
        t = g.tables
        if not (np.isclose(t[:, 0, 0], t[:, 1, 1], atol=1e-13) & np.isclose(t[:, 0, 1], t[:, 1, 0], atol=1e-13)).all():
            return None
        step = (cells[g.scopes[:, 1]] - cells[g.scopes[:, 0]]) % shape
        for axis in (0, 1):
            length, other = shape[axis], step[:, 1 - axis]
            for amount, end in ((1, 0), (length - 1, 1)):  # the bond belongs to the end that it leaves forwards
                rows = (step[:, axis] == amount) & (other == 0)
                np.add.at(equal[axis], g.scopes[rows, end], t[rows, 0, 0])
                np.add.at(different[axis], g.scopes[rows, end], t[rows, 0, 1])
        neighbours = (np.minimum(step, np.array(shape) - step).sum(1)) == 1
        if not neighbours.all():
            return None
    couplings, constant = (different - equal) / 2, (different + equal) / 2
    if np.abs(couplings - couplings[:, :1]).max() > 1e-13 * np.abs(couplings).max(initial=1e-300):
        return None
    j = couplings[:, 0]
    if (j == 0).any() or any(j[a] < 0 and shape[a] % 2 for a in (0, 1)):
        return None
    return IsingTorus(
        (shape[0], shape[1]), (abs(float(j[0])), abs(float(j[1]))), graph.constant + float(constant.sum())
    )


def in_range(torus: IsingTorus, temperature: float) -> bool:
    """Whether the hyperbolic functions of Kaufman's formula fit into floating point."""
    return max(torus.couplings) / temperature < 300


def kaufman(torus: IsingTorus, temperature: float) -> Thermodynamics:
    """Z = ½ (2 sinh 2K₀)^{MN/2} [∏2cosh(Mγ_odd/2) + ∏2sinh(Mγ_odd/2) + ∏2cosh(Mγ_even/2) + ∏2sinh(Mγ_even/2)].

    M = shape[0] transfer matrices of a ring of N = shape[1] spins, K_a = J_a/T, l = 0 … 2N−1,
    cosh γ_l = cosh 2K₁ cosh 2K₀* − sinh 2K₁ sinh 2K₀* cos(πl/N) with sinh 2K sinh 2K* = 1, and
    γ_0 = 2K₁ − 2K₀* = 2K₁ + ln tanh K₀, *signed* (Kaufman 1949, Phys. Rev. 76, 1232). E and Var E are the first two
    derivatives in β, taken term by term; every product is kept as a logarithm, its sinh(Mγ_0/2), which may vanish or
    be negative, apart. Valid `in_range`.
    """
    (m, n), (j0, j1), beta = torus.shape, torus.couplings, 1 / temperature
    k0, k1 = beta * j0, beta * j1
    gamma, slope, bend = _exponents(n, k0, k1, j0, j1)
    odd, even = slice(1, None, 2), slice(2, None, 2)
    terms = [_product(m, gamma[odd], slope[odd], bend[odd], sine) for sine in (False, True)]
    zero = (float(gamma[0]), float(slope[0]), float(bend[0]))
    for sine in (False, True):
        f, f1, f2, *_ = _product(m, gamma[even], slope[even], bend[even], sine)
        terms.append((f + m * abs(zero[0]) / 2, f1, f2, *_signed_factor(m, *zero, sine)))
    scale, first, second = _log_sum(terms)
    sites = m * n
    log_prefactor = sites / 2 * (2 * k0 + math.log(-math.expm1(-4 * k0))) - math.log(2)
    coth = 1 / math.tanh(2 * k0)
    ln_z = log_prefactor + scale - beta * torus.constant
    energy = torus.constant - sites * j0 * coth - first
    variance = second - 2 * sites * (j0 / math.sinh(2 * k0)) ** 2
    return Thermodynamics(float(ln_z), float(energy), max(float(variance), 0.0))


def _exponents(n: int, k0: float, k1: float, j0: float, j1: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """γ_l and its first two derivatives in β for l = 0 … 2n−1; γ_0 signed.

    cosh γ − 1 is computed as a sum of positive terms, so that nothing cancels where γ is small.
    """
    sine2 = np.sin(np.pi * np.arange(2 * n) / (2 * n)) ** 2
    dual = math.log1p(math.exp(-2 * k0)) - math.log1p(-math.exp(-2 * k0))  # 2K₀* = −ln tanh K₀
    s, c = math.sinh(2 * k1), math.cosh(2 * k1)
    t, coth = 1 / math.sinh(2 * k0), 1 / math.tanh(2 * k0)  # sinh and cosh of 2K₀*
    excess = 2 * math.sinh(k1 - dual / 2) ** 2 + 2 * s * t * sine2
    gamma = 2 * np.arcsinh(np.sqrt(excess / 2))
    # d(2K₀*)/dβ = −2 j0 t; d²/dβ² = 4 j0² t coth
    u, v, w = 2 * j1, -2 * j0 * t, 4 * j0**2 * t * coth
    difference, du = 2 * k1 - dual, u - v
    first = math.sinh(difference) * du + 2 * (c * t * u + s * coth * v) * sine2
    second = (
        math.cosh(difference) * du**2
        - math.sinh(difference) * w
        + 2 * (s * t * u**2 + 2 * c * coth * u * v + s * t * v**2 + s * coth * w) * sine2
    )
    gamma[0] = difference
    root = np.sinh(gamma)
    root[0] = 1.0  # replaced below
    slope = first / root
    bend = (second - slope**2 * np.cosh(gamma)) / root
    slope[0], bend[0] = du, -w
    return gamma, slope, bend


Term = tuple[float, float, float, float, float, float]


def _product(m: int, gamma: np.ndarray, slope: np.ndarray, bend: np.ndarray, sine: bool) -> Term:
    """ln ∏ 2cosh(mγ/2) (or 2sinh), its first two derivatives in β, and a trivial factor (1, 0, 0); γ > 0."""
    decay = np.exp(-m * gamma)
    sign = -1.0 if sine else 1.0
    value = m * gamma / 2 + np.log1p(sign * decay)
    ratio = (1 - sign * decay) / (1 + sign * decay)  # tanh, or coth
    curvature = sign * 4 * decay / (1 + sign * decay) ** 2  # sech², or −csch²
    first = m / 2 * ratio * slope
    second = (m / 2) ** 2 * curvature * slope**2 + m / 2 * ratio * bend
    return float(value.sum()), float(first.sum()), float(second.sum()), 1.0, 0.0, 0.0


def _signed_factor(m: int, gamma: float, slope: float, bend: float, sine: bool) -> tuple[float, float, float]:
    """2cosh(mγ/2) (or 2sinh), which may vanish, and its first two derivatives; all times e^{−m|γ|/2}."""
    a, b, decay = m / 2 * slope, m / 2 * bend, math.exp(-m * abs(gamma))
    cosh, sinh = 1 + decay, math.copysign(1 - decay, gamma)
    if sine:
        return sinh, a * cosh, a * a * sinh + b * cosh
    return cosh, a * sinh, a * a * cosh + b * sinh


def _log_sum(terms: list[Term]) -> tuple[float, float, float]:
    """ln Σ e^{f}·g and its first two derivatives, from (f, f', f'', g, g', g'') of every term."""
    shift = max(f for f, *_ in terms)
    slope = next(f1 for f, f1, *_ in terms if f == shift)  # taken out, so that squares of large slopes never cancel
    total = np.zeros(3)
    for f, f1, f2, g, g1, g2 in terms:
        d = f1 - slope
        total += math.exp(f - shift) * np.array([g, g1 + g * d, g2 + 2 * g1 * d + g * (d * d + f2)])
    first = total[1] / total[0]
    return shift + math.log(total[0]), slope + first, total[2] / total[0] - first**2
