"""ln Z of gauge theories without vdsl: character sums and dual heights in two dimensions, strong coupling in four.

A U(1) weight is e^{β cos P} = Σ_n I_n(β) e^{inP}, and SU(2)'s e^{(β/2) tr P} = Σ_d (2d I_d(β)/β) χ_d(P). In two
dimensions a link lies between two plaquettes: integrating it leaves heights n on the plaquettes, equal ones without
matter.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from scipy.special import iv, ive

from references.methods import Array, logsumexp

LN_2PI = float(np.log(2 * np.pi))


def su2(L: int = 8, beta: float = 2.2) -> float:
    """Z = Σ_d (2 I_d(β)/β)^V."""
    d = np.arange(1, 40)
    return float(logsumexp(L * L * np.log(2 * iv(d, beta) / beta)))


def su2_mixed(L: int = 4, beta: float = 1.2, gamma: float = 1.0, points: int = 400) -> float:
    """Z = Σ_d λ_d^V, λ_d = (1/d) ∫ (2/π) sin²α dα e^{β cos α + γ (4cos²α − 1)/3} sin(dα)/sin α, by Gauss–Legendre."""
    x, weights = np.polynomial.legendre.leggauss(points)
    alpha = np.pi * (x + 1) / 2
    w = weights * np.sin(alpha) * np.exp(beta * np.cos(alpha) + gamma * (4 * np.cos(alpha) ** 2 - 1) / 3)
    d = np.arange(1, 40)
    coefficients = (w * np.sin(d[:, None] * alpha)).sum(1) / d
    kept = coefficients[coefficients > 1e-14 * coefficients.max()]
    return float(logsumexp(L * L * np.log(kept)))


def u1_4d(L: int = 4, beta: float = 0.6) -> float:
    """N_p ln I₀ + 2 N_c u⁶, u = I₁/I₀: plaquettes by themselves, and the surfaces of cubes in two orientations."""
    ratio = iv(1, beta) / iv(0, beta)
    return float(6 * L**4 * np.log(iv(0, beta)) + 2 * 4 * L**4 * ratio**6)


def su2_4d(L: int = 4, beta: float = 1.0) -> float:
    """N_p ln(2I₁/β) + 4 N_c u⁶, u = I₂/I₁: a sphere of A plaquettes weighs d² u^A."""
    ratio = iv(2, beta) / iv(1, beta)
    return float(6 * L**4 * np.log(2 * iv(1, beta) / beta) + 4 * 4 * L**4 * ratio**6)


def u1_improved(L: int = 8, beta: float = 2.0, c1: float = -1 / 12, points: int = 64) -> float:
    """At L = 2: ∫ over three fluxes, the fourth being what closes the torus; a 1 × 2 loop holds two of them."""
    if L != 2:
        raise ValueError("the integral has L² − 1 dimensions")
    grid = 2 * np.pi * np.arange(points) / points
    a, b, c = np.meshgrid(grid, grid, grid, indexing="ij")
    p = np.stack([a, b, c, -a - b - c])  # of the cells (0, 0), (0, 1), (1, 0), (1, 1)
    pairs = [(k, k ^ step) for k in range(4) for step in (1, 2)]
    action = -(1 - 8 * c1) * np.cos(p).sum(0) - c1 * sum(np.cos(p[i] + p[j]) for i, j in pairs)
    return float(logsumexp(-beta * action) - 3 * np.log(points) + 8 * LN_2PI)


def higgs(L: int = 8, beta: float = 2.0, kappa: float = 0.8, highest: int = 5) -> float:
    """Z = (2π)^{3V} Σ_n ∏_p I_{n_p}(β) ∏_l I_{n_p − n_p'}(κ): rows of L heights by transfer matrix."""
    heights = np.arange(-highest, highest + 1)
    rows = np.array(list(itertools.product(heights, repeat=L)))
    between = lambda a, b: np.log(ive(a - b, kappa)) + kappa  # noqa: E731
    own = (np.log(iv(rows, beta)) + between(rows, np.roll(rows, 1, 1))).sum(1)
    table = between(heights[:, None], heights[None, :])
    log_t = own[:, None] + sum(table[np.ix_(rows[:, k] + highest, rows[:, k] + highest)] for k in range(L))
    return _ring(log_t, L) + 3 * L * L * LN_2PI


def higgs_complex(
    L: int = 8, beta: float = 2.0, kappa: float = 0.5, lam: float = 1.0, highest: int = 4, points: int = 6
) -> float:
    """The same with radii: ∏_l I_{n_p − n_p'}(2κρρ'), ∫ρdρ e^{−ρ² − λ(ρ²−1)²} for each site; at L = 2.

    Cell x holds the height of the plaquette that starts there and the radius of its site. Link (x, μ) lies between the
    plaquettes of x and of x − ν, and joins the radii of x and x + μ.
    """
    if L != 2:
        raise ValueError("a row of L cells has (2·highest + 1)^L · points^L states")
    heights = np.arange(-highest, highest + 1)
    rho2, weight = _radii(points, lambda s: s + lam * (s - 1) ** 2)
    rho = np.sqrt(rho2)
    log_i = np.log(ive(np.arange(2 * highest + 1)[:, None, None], 2 * kappa * np.outer(rho, rho)))
    log_i = log_i + 2 * kappa * np.outer(rho, rho)  # [|n − n'|, ρ, ρ']
    n = np.array(list(itertools.product(range(len(heights)), repeat=2)))
    r = np.array(list(itertools.product(range(points), repeat=2)))
    n, r = np.repeat(n, len(r), 0), np.tile(r, (len(n), 1))  # a row: cells (x, 0), (x, 1)
    own = np.log(iv(heights[n], beta)).sum(1) + np.log(weight[r]).sum(1)
    log_t = np.empty((len(n), len(n)))
    for start in range(0, len(n), 512):
        a, ra = n[start : start + 512, None], r[start : start + 512, None]
        b, rb = n[None], r[None]
        total = own[None] + 0 * a[..., 0]
        for y in (0, 1):
            # link ((x, y), 0): plaquettes (x, y), (x, y − 1) of the upper row; radii (x, y), (x + 1, y)
            total = total + log_i[np.abs(a[..., y] - a[..., 1 - y]), ra[..., y], rb[..., y]]
            # link ((x + 1, y), 1): plaquettes (x + 1, y), (x, y); radii of the lower row
            total = total + log_i[np.abs(b[..., y] - a[..., y]), rb[..., y], rb[..., 1 - y]]
        log_t[start : start + 512] = total
    return _ring(log_t, 2) + 4 * LN_2PI  # the matter's angles; links have Haar measure


def _radii(points: int, potential: Callable[[Array], Array]) -> tuple[Array, Array]:
    """Nodes in s = ρ² and weights of ∫ρdρ e^{−V(s)} = ½∫ds e^{−V(s)}: Gauss's rule of that weight, by Lanczos."""
    x, w = np.polynomial.legendre.leggauss(400)
    s = 4.0 * (x + 1)
    w = w * 2.0 * np.exp(-potential(s))
    basis, diagonal, off = [np.sqrt(w / w.sum())], [], []
    for _ in range(points):
        v = s * basis[-1]
        diagonal.append(v @ basis[-1])
        for _again in range(2):
            v = v - sum((v @ q) * q for q in basis)
        off.append(np.linalg.norm(v))
        basis.append(v / off[-1])
    jacobi = np.diag(diagonal) + np.diag(off[:-1], 1) + np.diag(off[:-1], -1)
    nodes, vectors = np.linalg.eigh(jacobi)
    return nodes, vectors[0] ** 2 * w.sum()


def _ring(log_t: Array, length: int) -> float:
    """ln Tr T^length, length ≥ 2."""
    top = log_t.max()
    t = np.exp(log_t - top)
    total = (np.linalg.matrix_power(t, length - 1) * t.T).sum()
    return float(np.log(total) + length * top)
