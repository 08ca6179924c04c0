"""Partition functions by enumeration, by transfer matrix, and of the square Ising torus by Kaufman's formula."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

import numpy as np

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
