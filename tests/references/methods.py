"""Partition functions by enumeration, transfer matrix or operator, determinant, and Kaufman's formula."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.special import ive, spherical_in

Array = np.ndarray


def logsumexp(x: Array, axis: int | None = None) -> Array:
    """ln Σ e^x without overflow."""
    top = np.max(x, axis=axis, keepdims=True)
    out = np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True)) + top
    return np.squeeze(out, axis=axis) if axis is not None else out.reshape(())


def configurations(states: Sequence[float], n: int) -> Array:
    """All configurations of n sites, shape (q^n, n); the last site changes fastest."""
    return np.array(list(itertools.product(states, repeat=n)), dtype=float)


def enumerate_spins(n: int, energy: Callable[[Array], Array], temperature: float, chunk: int = 2**16) -> float:
    """ln Z of n spins by brute force; `energy` maps (m, n) values ±1 to (m,) energies."""
    parts = []
    for start in range(0, 2**n, chunk):
        numbers = np.arange(start, min(start + chunk, 2**n))
        spins = 2.0 * ((numbers[:, None] >> np.arange(n)) & 1) - 1.0
        parts.append(logsumexp(-energy(spins) / temperature))
    return float(logsumexp(np.array(parts)))


def pair_energy(edges: Iterable[tuple[int, int]], couplings: Iterable[float]) -> Callable[[Array], Array]:
    """−Σ J_ij s_i s_j as a function of spins (m, n)."""
    i, j = np.array(list(edges)).T
    weights = np.array(list(couplings))
    return lambda s: -(s[:, i] * s[:, j]) @ weights


def transfer_ring(rows: Sequence[Array]) -> float:
    """ln Tr Π_y exp(−R_y), R_y (R, R) the reduced energy of one row and of its bonds to the next."""
    product, shift = None, 0.0
    for reduced in rows:
        offset = reduced.min()
        matrix = np.exp(offset - reduced)
        product = matrix if product is None else product @ matrix
        scale = product.max()
        product, shift = product / scale, shift + np.log(scale) - offset
    return float(np.log(np.trace(product)) + shift)


def transfer_strip(rows: Sequence[Array], last: Array) -> float:
    """ln of 1ᵀ Π_y exp(−R_y) e^(−last): a strip with open ends; `last` is the last row's own reduced energy."""
    log_vector = -np.asarray(last)
    for reduced in reversed(rows):
        log_vector = logsumexp(-reduced + log_vector[None, :], axis=1)
    return float(logsumexp(log_vector))


def kaufman(length: int, temperature: float, coupling: float = 1.0) -> float:
    """ln Z of the length×length square Ising torus without a field (Kaufman 1949, Phys. Rev. 76, 1232).

    Z = ½ (2 sinh 2K)^(N/2) [Π 2cosh(Lγ_odd/2) + Π 2sinh(Lγ_odd/2) + Π 2cosh(Lγ_even/2) + Π 2sinh(Lγ_even/2)], with
    cosh γ_l = cosh 2K coth 2K − cos(πl/L) and γ_0 = 2K + ln tanh K, which is negative above T_c.
    """
    k = coupling / temperature
    l = np.arange(2 * length)
    gamma = np.arccosh(np.maximum(np.cosh(2 * k) / np.tanh(2 * k) - np.cos(np.pi * l / length), 1.0))
    gamma[0] = 2 * k + np.log(np.tanh(k))
    logs, signs = [], []
    for parity in (1, 0):
        half = length * gamma[l % 2 == parity] / 2
        logs.append(np.sum(np.abs(half) + np.log1p(np.exp(-2 * np.abs(half)))))
        signs.append(1.0)
        with np.errstate(divide="ignore"):
            logs.append(np.sum(np.abs(half) + np.log1p(-np.exp(-2 * np.abs(half)))))
        signs.append(float(np.prod(np.sign(half))))
    top = max(logs)
    total = sum(sign * np.exp(value - top) for sign, value in zip(signs, logs, strict=True))
    return float(np.log(total) + top - np.log(2) + length**2 / 2 * np.log(2 * np.sinh(2 * k)))


def gaussian(matrix: Array, linear: Array | float = 0.0, temperature: float = 1.0) -> float:
    """ln ∫ e^{−(½ xᵀAx − bᵀx)/T} dx = (n/2) ln 2πT − ½ ln det A + bᵀA⁻¹b / 2T."""
    n = len(matrix)
    b = np.broadcast_to(linear, n)
    log_det = 2 * np.log(np.diag(np.linalg.cholesky(matrix))).sum()
    return float(
        n / 2 * np.log(2 * np.pi * temperature) - log_det / 2 + b @ np.linalg.solve(matrix, b) / 2 / temperature
    )


def laplacian(n: int, bonds: Iterable[tuple[int, int]], springs: Iterable[float]) -> Array:
    """A of ½ Σ k (x_i − x_j)² = ½ xᵀAx."""
    a = np.zeros((n, n))
    for (i, j), k in zip(bonds, springs, strict=True):
        a[i, i] += k
        a[j, j] += k
        a[i, j] -= k
        a[j, i] -= k
    return a


def transfer_operator_ring(
    n: int, site: Callable[[Array], Array], bond: Callable[[Array, Array], Array], reach: float, points: int = 401
) -> float:
    """ln Z of a ring of n real numbers with reduced energies `site(x)` and `bond(x, y)`.

    The trapezoidal rule on [−reach, reach]: for a smooth integrand that has died away there its error is exponential
    in the number of points.
    """
    x = np.linspace(-reach, reach, points)
    half = site(x) / 2
    kernel = np.exp(-bond(x[:, None], x[None, :]) - half[:, None] - half[None, :]) * (x[1] - x[0])
    values = np.linalg.eigvalsh((kernel + kernel.T) / 2)
    top = values[-1]
    return float(n * np.log(top) + np.log(((values / top) ** n).sum()))


def radial_ring(n: int, potential: Callable[[Array], Array], coupling: float, reach: float, points: int = 96) -> float:
    """ln Z of a ring of n vectors of the plane with reduced energy Σ V(|x|) − c Σ x·y.

    Angular momentum is conserved: Z = Σ_m Tr K_m^n with K_m(r, r') = 2π I_m(c r r') e^{−V/2 − V'/2} √(r r'); radii by
    Gauss-Legendre quadrature on (0, reach).
    """
    nodes, weights = np.polynomial.legendre.leggauss(points)
    r, w = reach * (nodes + 1) / 2, reach * weights / 2
    argument = coupling * r[:, None] * r[None, :]
    half = np.log(w * r) / 2 - potential(r) / 2
    traces = []
    for m in range(200):
        kernel = 2 * np.pi * ive(m, argument) * np.exp(argument + half[:, None] + half[None, :])
        values = np.linalg.eigvalsh(kernel)
        trace = (values**n).sum() * (1 if m == 0 else 2)  # m and −m
        traces.append(trace)
        if m > 2 and trace < 1e-17 * traces[0]:
            break
    return float(np.log(np.sum(traces)))


def heisenberg_ring(n: int, coupling: float) -> float:
    """ln Z of a ring of n unit vectors: Z = Σ_l (2l + 1) (4π i_l(K))^n (Joyce 1967, Phys. Rev. 155, 478)."""
    l = np.arange(60)
    logs = n * np.log(4 * np.pi * np.maximum(spherical_in(l, coupling), 1e-300)) + np.log(2 * l + 1)
    return float(logsumexp(logs))


def gauss_rule(weight: Callable[[Array], Array], points: int, reach: float) -> tuple[Array, Array]:
    """Nodes and weights of ∫ w(x) f(x) dx, exact for polynomials up to degree 2·points − 1.

    Lanczos on a fine grid gives the recursion of the orthogonal polynomials, whose Jacobi matrix has the nodes as its
    eigenvalues (Golub & Welsch 1969, Math. Comp. 23, 221).
    """
    x = np.linspace(-reach, reach, 4001)
    w = weight(x) * (x[1] - x[0])
    basis = [np.sqrt(w / w.sum())]
    diagonal, off = [], []
    for k in range(points):
        v = x * basis[k]
        diagonal.append(v @ basis[k])
        for b in [*basis, *basis]:  # twice: orthogonal to rounding
            v = v - (v @ b) * b
        off.append(np.linalg.norm(v))
        basis.append(v / off[-1])
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off[:-1], 1) + np.diag(off[:-1], -1))
    return nodes, w.sum() * vectors[0] ** 2


def phi4_torus(length: int, m2: float, lam: float, points: int = 12) -> float:
    """ln Z of φ⁴ on a length × length torus, Σ (φ − φ')² + m² φ² + λ φ⁴: Tr R^length over rows of length sites.

    All squares belong to the weight e^{−(4 + m²)φ² − λφ⁴} of a Gauss rule at each site; what is left, e^{2φφ'} on
    bonds, is entire, so that the rule converges faster than any exponential. Even and odd rows are kept apart.
    """
    nodes, weights = gauss_rule(lambda x: np.exp(-(4 + m2) * x**2 - lam * x**4), points, reach=6.0)
    rows = configurations(nodes, length)
    half = points**length // 2
    upper, mirror = rows[half:], rows[half - 1 :: -1]  # the last site changes fastest: row k and its mirror, n − 1 − k
    own = np.log(configurations(weights, length)[half:]).sum(1) + 2 * (upper * np.roll(upper, 1, 1)).sum(1)

    def kernel(a: Array, b: Array) -> Array:
        return np.exp(2 * a @ b.T + own[:, None] / 2 + own[None, :] / 2)

    direct, crossed = kernel(upper, upper), kernel(upper, mirror)
    total = 0.0
    for block in (direct + crossed, direct - crossed):
        power = block
        for _ in range(length - 2):
            power = power @ block
        total += (power * block.T).sum()
    return float(np.log(total))
