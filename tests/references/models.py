"""ln Z of every example, as a function of its parameters: `REFERENCES[stem](**parameters)`.

Nothing here imports vdsl. Signs, boundaries and the numbering of bonds are written out once more on purpose.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from references import gauge
from references.methods import (
    Array,
    configurations,
    enumerate_spins,
    gaussian,
    heisenberg_ring,
    kaufman,
    laplacian,
    logsumexp,
    pair_energy,
    phi4_torus,
    radial_ring,
    transfer_operator_ring,
    transfer_ring,
    transfer_strip,
)

EXAMPLES = Path(__file__).parents[2] / "examples"
SPINS = (-1.0, 1.0)
T_C = 2 / np.log(1 + np.sqrt(2))


def table(name: str, header: int = 0) -> Array:
    """The numbers of a CSV file beside the examples."""
    return np.loadtxt(EXAMPLES / name, delimiter=",", skiprows=header, ndmin=2)


def ring(values: Array) -> Array:
    """Σ over the bonds of a periodic row of f(x_a, x_{a+1}) = x_a x_{a+1}; values (R, width)."""
    return np.sum(values * np.roll(values, -1, axis=1), axis=1)


def ising(L: int = 16, J: float = 1.0, h: float = 0.0, T: float = T_C) -> float:
    if h == 0.0:
        return kaufman(L, T, J)
    s = configurations(SPINS, L)
    return transfer_ring([(-J * (ring(s)[:, None] + s @ s.T) - h * s.sum(1)[:, None]) / T] * L)


def ising_chain(N: int = 64, J: float = 1.0, h: float = 0.1, T: float = 1.0) -> float:
    k, b = J / T, h / T
    root = np.sqrt(np.exp(2 * k) * np.sinh(b) ** 2 + np.exp(-2 * k))
    large, small = np.exp(k) * np.cosh(b) + root, np.exp(k) * np.cosh(b) - root
    return float(N * np.log(large) + np.log1p((small / large) ** N))


def ising_tree(disorder: int = 3, T: float = 0.5) -> float:
    edges = table("tree31.csv", header=1)
    couplings = np.random.default_rng(disorder).normal(0, 1, len(edges))
    return float((len(edges) + 1) * np.log(2) + np.sum(np.log(np.cosh(couplings / T))))


def cubic_layers(couplings: Array, T: float) -> float:
    """ln Z of spins on an L³ torus, couplings (L, L, L, 3): the bond of site (x, y, z) along each axis."""
    length = len(couplings)
    s = configurations(SPINS, length * length)
    grid = s.reshape(-1, length, length)
    layers = []
    for x in range(length):
        own = -np.einsum("ryz,ryz,yz->r", grid, np.roll(grid, -1, 1), couplings[x, :, :, 1])
        own -= np.einsum("ryz,ryz,yz->r", grid, np.roll(grid, -1, 2), couplings[x, :, :, 2])
        between = -(s * couplings[x, :, :, 0].reshape(-1)) @ s.T
        layers.append((own[:, None] + between) / T)
    return transfer_ring(layers)


def ising_3d(L: int = 4, J: float = 1.0, T: float = 4.511523) -> float:
    return cubic_layers(np.full((L, L, L, 3), J), T)


def edwards_anderson(L: int = 8, disorder: int = 7, T: float = 0.5) -> float:
    # Bonds are numbered cell by cell, then axis by axis; L >= 3, so that no bond is missing or counted twice.
    return cubic_layers(np.random.default_rng(disorder).normal(0, 1, (L, L, L, 3)), T)


def edwards_anderson_2d(T: float = 1.0) -> float:
    """From the generator, not from the file: [x, y, 0] couples (x, y)-(x+1, y), [x, y, 1] couples (x, y)-(x, y+1)."""
    length = 10
    couplings = np.random.RandomState(1).uniform(0, 2, (length, length, 2)) - 1
    s = configurations(SPINS, length)
    own = [-(s[:, :-1] * s[:, 1:]) @ couplings[x, :-1, 1] / T for x in range(length)]
    rows = [own[x][:, None] - (s * couplings[x, :, 0]) @ s.T / T for x in range(length - 1)]
    return transfer_strip(rows, own[-1])


def sk(N: int = 20, T: float = 1.0) -> float:
    """From the generator, not from the file."""
    j = np.triu(np.random.default_rng(0).standard_normal((N, N)) / np.sqrt(N), 1)
    return enumerate_spins(N, lambda s: -np.einsum("ri,ri->r", s @ j, s), T)


def _alike(a: Array, b: Array) -> Array:
    return (a[:, None, :] == b[None, :, :]).sum(-1)


def potts(L: int = 8, q: int = 3) -> float:
    """Rows run along the periodic direction; bonds (1, 0), (0, 1) and (1, -1), as 60° between the vectors has them."""
    T = 1 / np.log(1 + np.sqrt(q))
    s = configurations(range(q), L)
    own = -(s == np.roll(s, -1, 1)).sum(1) / T
    between = -(_alike(s, s) + _alike(s, np.roll(s, 1, 1))) / T
    return transfer_strip([own[:, None] + between] * (L - 1), own)


def potts_square(L: int = 6, q: int = 3, K: float | None = None) -> float:
    K = np.log(1 + np.sqrt(3)) if K is None else K
    s = configurations(range(q), L)
    return transfer_ring([-K * ((s == np.roll(s, -1, 1)).sum(1)[:, None] + _alike(s, s))] * L)


def triangular_antiferromagnet(L: int = 6, J: float = 1.0, T: float = 0.2) -> float:
    s = configurations(SPINS, L)
    return transfer_ring([J * (ring(s)[:, None] + s @ s.T + s @ np.roll(s, 1, 1).T) / T] * L)


def kagome_antiferromagnet(L: int = 4, J: float = 1.0, T: float = 0.5) -> float:
    """A row holds the triangles (A, B, C) of one line of cells: A-B within and to the next cell, C above A and B."""
    s = configurations(SPINS, 3 * L).reshape(-1, L, 3)
    a, b, c = s[..., 0], s[..., 1], s[..., 2]
    own = (a * b + b * np.roll(a, -1, 1) + a * c + b * c).sum(1)
    between = c @ a.T + c @ np.roll(b, 1, 1).T  # C(x) is joined to A(x) and B(x - 1) of the next line
    return transfer_ring([J * (own[:, None] + between) / T] * L)


def ashkin_teller(L: int = 6, K: float = 0.2, J: float | None = None, T: float = 1.0) -> float:
    J = np.arcsinh(np.exp(-2 * K)) / 2 if J is None else J
    pairs = configurations(SPINS, 2 * L)
    a, b = pairs[:, :L], pairs[:, L:]
    own = J * (ring(a) + ring(b)) + K * ring(a * b)
    between = J * (a @ a.T + b @ b.T) + K * (a * b) @ (a * b).T
    return transfer_ring([-(own[:, None] + between) / T] * L)


def clock(L: int = 6, q: int = 6, J: float = 1.0, T: float = 0.8) -> float:
    x = 2 * np.pi * configurations(range(q), L) / q
    own = np.cos(x - np.roll(x, -1, 1)).sum(1)
    between = np.cos(x) @ np.cos(x).T + np.sin(x) @ np.sin(x).T
    return transfer_ring([-J * (own[:, None] + between) / T] * L)


def lattice_gas(L: int = 8, eps: float = 4.0, mu: float = -8.0, T: float = 2.5) -> float:
    if mu == -2 * eps:
        return kaufman(L, T, eps / 4) - L * L * eps / (2 * T)
    n = configurations((0.0, 1.0), L)
    return transfer_ring([(-eps * (ring(n)[:, None] + n @ n.T) - mu * n.sum(1)[:, None]) / T] * L)


def hopfield(N: int = 20, P: int = 3, T: float = 0.4) -> float:
    """H = −(1/2N) Σ_p (Σ_i ξ_i s_i)² + P/2: the pairs i < j of the same sum."""
    xi = table("patterns.csv")
    return enumerate_spins(N, lambda s: -((s @ xi.T) ** 2).sum(1) / (2 * N) + P / 2, T)


def random_graph(J: float = 1.0, T: float = 1.0) -> float:
    edges = table("random_3_regular.csv", header=1).astype(int)
    return enumerate_spins(20, pair_energy(edges, np.full(len(edges), -J)), T)


def fully_frustrated(L: int = 4, J: float = 1.0, T: float = 0.5) -> float:
    """2L×2L sites; vertical bonds of odd columns are antiferromagnetic."""
    s = configurations(SPINS, 2 * L)
    column = np.where(np.arange(2 * L) % 2 == 0, 1.0, -1.0)
    return transfer_ring([-J * (ring(s)[:, None] + (s * column) @ s.T) / T] * (2 * L))


def blume_capel(L: int = 6, J: float = 1.0, D: float = 1.966, T: float = 0.608) -> float:
    s = configurations((-1.0, 0.0, 1.0), L)
    own = -J * ring(s) + D * (s**2).sum(1)
    return transfer_ring([(own[:, None] - J * s @ s.T) / T] * L)


def phi4(L: int = 4, m2: float = 1.0, lam: float = 0.0) -> float:
    """The free field has a closed form, ln Z = (V/2) ln π − ½ Σ_k ln(k̂² + m²), k̂² = Σ_μ 4 sin²(k_μ/2)."""
    if lam != 0.0:
        return phi4_torus(L, m2, lam)
    return float(L * L / 2 * np.log(np.pi) - 0.5 * np.log(momenta(L) + m2).sum())


def momenta(L: int) -> Array:
    """k̂² = Σ_μ 4 sin²(k_μ/2) on a square torus."""
    k2 = 4 * np.sin(np.pi * np.arange(L) / L) ** 2
    return k2[:, None] + k2[None, :]


def free_field(L: int = 32, m2: float = 0.25, T: float = 1.0) -> float:
    return float(0.5 * np.log(2 * np.pi * T / (momenta(L) + m2)).sum())


def random_springs(L: int = 12, disorder: int = 11, hold: float = 0.1, force: float = 0.5, T: float = 1.0) -> float:
    """Bonds cell by cell, along axis 0 and then along axis 1, where they exist."""
    bonds = []
    for x in range(L):
        for y in range(L):
            bonds += [(x * L + y, (x + 1) * L + y)] if x + 1 < L else []
            bonds += [(x * L + y, x * L + y + 1)] if y + 1 < L else []
    springs = np.random.default_rng(disorder).uniform(0.2, 1.8, len(bonds))
    forces = force * np.random.default_rng(disorder + 1).normal(0, 1, L * L)
    return gaussian(laplacian(L * L, bonds, springs) + hold * np.eye(L * L), forces, T)


def heisenberg_chain(N: int = 32, J: float = 1.0, T: float = 1.0) -> float:
    return float(N * np.log(4 * np.pi) + (N - 1) * np.log(np.sinh(J / T) * T / J))


def heisenberg(L: int = 2, J: float = 1.0, T: float = 1.0) -> float:
    """Four sites only: on the torus of length 2 every bond counts twice, and they make a ring."""
    if L != 2:
        raise ValueError("only the ring of four has a closed form")
    return heisenberg_ring(4, 2 * J / T)


def o2(L: int = 2, kappa: float = 0.5, lam: float = 1.0) -> float:
    """Four sites only, as above: two bonds of 2κ between neighbours."""
    if L != 2:
        raise ValueError("only the ring of four has a closed form")
    return radial_ring(4, lambda r: r**2 + lam * (r**2 - 1) ** 2, 4 * kappa, reach=4.0)


def complex_scalar(L: int = 2, r: float = -2.0, u: float = 1.0) -> float:
    """Four sites only: |ψ − ψ'|² = |ψ|² + |ψ'|² − 2 Re ψ̄ψ', and each site has four bonds."""
    if L != 2:
        raise ValueError("only the ring of four has a closed form")
    return radial_ring(4, lambda x: (4 + r) * x**2 + u * x**4, 4.0, reach=4.5)


def double_well_chain(N: int = 32, k: float = 2.0, a: float = 2.0, b: float = 1.0, T: float = 1.0) -> float:
    return transfer_operator_ring(
        N, lambda x: (-a * x**2 + b * x**4) / T, lambda x, y: k / 2 * (x - y) ** 2 / T, reach=5.0
    )


def compressible_ising(L: int = 3, J: float = 0.4, g: float = 0.5, k: float = 2.0, hold: float = 0.5) -> float:
    """Z = Σ_s e^{JΣss'} ∫du e^{−½uᵀAu − c(s)ᵀu}, with c = g Σ ss' (e_{x+μ} − e_x) in the component along the bond."""
    n = L * L
    site = lambda x, y: (x % L) * L + y % L  # noqa: E731
    bonds = [(site(x, y), site(x + (mu == 0), y + (mu == 1)), mu) for x in range(L) for y in range(L) for mu in (0, 1)]
    inverse = np.linalg.inv(one := laplacian(n, [b[:2] for b in bonds], [k] * len(bonds)) + hold * np.eye(n))
    s = configurations(SPINS, n)
    exponent = np.zeros(len(s))
    pull = np.zeros((2, len(s), n))
    for i, j, mu in bonds:
        exponent += J * s[:, i] * s[:, j]
        pull[mu, :, j] += g * s[:, i] * s[:, j]
        pull[mu, :, i] -= g * s[:, i] * s[:, j]
    for c in pull:
        exponent += np.einsum("ri,ij,rj->r", c, inverse, c) / 2
    return float(logsumexp(exponent)) + 2 * gaussian(one)


def ring_polymer(P: int = 16, beta: float = 2.0) -> float:
    e = beta / P
    return float(P / 2 * np.log(2 * np.pi * e) - np.log(2 * np.sinh(P * np.arcsinh(e / 2))))


def xy(L: int = 3, J: float = 1.0, T: float = 1.0, points: int = 16) -> float:
    """The trapezoidal rule converges exponentially on a circle, so a fine clock model is the XY model."""
    return clock(L, points, J, T) + L * L * np.log(2 * np.pi / points)


def xy_helicity(L: int = 3, T: float = 1.0, points: int = 12) -> float:
    """Υ = (1/N) ∂²F/∂a² of the XY torus: −T ln Tr R(a)^L with a turn by a from row to row, differenced numerically."""
    x = 2 * np.pi * configurations(range(points), L) / points
    own = np.cos(x - np.roll(x, -1, 1)).sum(1)[:, None]

    def free_energy(a: float) -> float:
        between = np.cos(x + a) @ np.cos(x).T + np.sin(x + a) @ np.sin(x).T
        return -T * transfer_ring([-(own + between) / T] * L)

    h, here = 0.05, free_energy(0.0)
    near, far = (2 * (free_energy(k * h) - here) / (k * h) ** 2 for k in (1, 2))  # F is even in a
    return (4 * near - far) / 3 / L**2


def u1(L: int = 16, beta: float = 6.0) -> float:
    """Z = Σ_n I_n(β)^V in Haar measure; I_n by the trapezoidal rule."""
    x = 2 * np.pi * np.arange(256) / 256
    n = np.arange(-40, 41)
    bessel = (np.exp(beta * np.cos(x)) * np.cos(n[:, None] * x)).mean(1)
    volume = L * L
    powers = volume * np.log(bessel[bessel > 1e-12 * bessel.max()])
    return float(logsumexp(powers) + 2 * volume * np.log(2 * np.pi))


def su3(L: int = 4, beta: float = 6.0, points: int = 64, highest: int = 12) -> float:
    """Z = Σ_r a_r^V on the torus, a_r = (1/d_r) ∫ dU e^{(β/3) Re tr U} χ_r(U)*; Weyl's formula on the maximal torus.

    With A_λ = det e^{iθ_j λ_k} and λ = (r₁ + r₂ + 2, r₂ + 1, 0): χ_r = A_λ/A_ρ, and Weyl's measure is |A_ρ|²/3!/(2π)².
    """
    t = 2 * np.pi * np.arange(points) / points
    a, b = np.meshgrid(t, t, indexing="ij")
    phases = np.exp(1j * np.stack([a, b, -a - b], -1))
    weight = np.exp(beta / 3 * phases.sum(-1).real)

    def numerator(r1: int, r2: int) -> Array:
        return np.linalg.det(phases[..., :, None] ** np.array([r1 + r2 + 2, r2 + 1, 0]))

    ground = numerator(0, 0)
    terms = []
    for r1 in range(highest):
        for r2 in range(highest):
            dimension = (r1 + 1) * (r2 + 1) * (r1 + r2 + 2) / 2
            average = (weight * ground * numerator(r1, r2).conj()).mean().real / 6
            terms.append(max(average / dimension, 1e-300))
    return float(logsumexp(L * L * np.log(terms)))


def kitaev_heisenberg(L: int = 6, J: float = 0.0, K: float = 0.0) -> float:
    """Free spins only: the area of the sphere, once a site."""
    if (J, K) != (0.0, 0.0):
        raise ValueError("only free spins have a closed form")
    return float(2 * L * L * np.log(4 * np.pi))


REFERENCES: dict[str, Callable[..., float]] = {
    f.__name__: f
    for f in (
        ising, ising_chain, ising_tree, ising_3d, edwards_anderson, edwards_anderson_2d, sk, potts, potts_square,
        triangular_antiferromagnet, kagome_antiferromagnet, ashkin_teller, clock, lattice_gas, hopfield, random_graph,
        fully_frustrated, blume_capel, phi4, xy, u1, su3, kitaev_heisenberg, free_field, random_springs,
        heisenberg_chain, heisenberg, o2, complex_scalar, double_well_chain, compressible_ising, ring_polymer,
        gauge.su2, gauge.su2_mixed, gauge.u1_4d, gauge.su2_4d, gauge.u1_improved, gauge.higgs, gauge.higgs_complex,
    )
}  # fmt: skip
