"""Cavity: a Gaussian stand-in for a model, from which the conditionals of a sequential guide start.

Every unit is given a Gaussian of n components with the model's pair couplings J and a precision D_i of its own, chosen
so that its variance is that of the unit itself in the field of the others: with G = (D − J)⁻¹,

    G_ii = ⟨x²⟩ under e^{−βV_i(x) − (1/G_ii − D_i) x²/2}      (real; expectation propagation, Minka 2001)
    G_ii = 1/n                                               (spins n = 1, angles 2, unit vectors: a spherical model)

Eliminating units of it in the reverse of the sampling order is a Cholesky factorisation, and leaves each unit with a
linear field of its parents and a change of its own precision: exact for quadratic energies, a good start for others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vdsl.errors import InternalError
from vdsl.guides.monomials import Monomials

_MOST_UNITS = 2500
_ROUNDS = 60
_MASS = 1e-3
_MOST_BOOST = 0.7  # ln of; XY 16×16 without training: ESS .31 at T = .9 with any cap ≥ 1, .44 at 1.2 with .6
_STIFF = 0.5  # couplings softer than this fraction of themselves are beyond spin waves


@dataclass(frozen=True)
class Start:
    """For all N units: the field on unit k is linear[k] + Σ_j weights[k, j] x_j, and its precision gains `precision`.

    weights count the direct couplings too; they are 0 except for parents. length: √G_ii.
    """

    weights: np.ndarray
    linear: np.ndarray
    precision: np.ndarray
    length: np.ndarray


def cavity_start(monomials: Monomials, beta: float, kept: np.ndarray, rest: np.ndarray) -> Start:
    """The start for `kept` units in sampling order, with `rest` integrated out first."""
    n = monomials.n_units
    j = pair_couplings(monomials, beta)
    site = _site_potentials(monomials, beta)
    waves = _spin_waves(monomials, j)
    if waves is not None:
        j, own, boost = waves
        variance = np.full(n, 0.5)
    else:
        (own, variance), boost = _solve(monomials, j, site), np.ones((n, n))
    order = np.concatenate([rest, kept[::-1]]).astype(int)
    lower = np.linalg.cholesky((np.diag(own) - j)[np.ix_(order, order)])
    diagonal = np.diag(lower)
    weights, precision, linear = np.zeros((n, n)), np.zeros(n), np.zeros(n)
    weights[np.ix_(order, order)] = -np.tril(lower, -1).T * diagonal[:, None]
    weights *= boost
    precision[order] = diagonal**2 - own[order]
    field = site[:, 0]
    linear[order] = diagonal * np.linalg.solve(lower, field[order]) - field[order]
    return Start(weights, linear, precision, np.sqrt(variance))


def serves(monomials: Monomials) -> bool:
    """Whether the dense matrices are affordable."""
    return monomials.n_units <= _MOST_UNITS


def pair_couplings(monomials: Monomials, beta: float) -> np.ndarray:
    """J (N, N): −β times the coefficients of x_i·x_j, averaged over components; other couplings count as none."""
    n = monomials.n_units
    j = np.zeros((n, n))
    owner = monomials.unit_of_row()
    component = np.concatenate([np.tile(np.arange(s.features), s.units) for s in monomials.species])
    seen = np.concatenate([np.tile(np.arange(s.features) < s.seen, s.units) for s in monomials.species])
    sort = np.concatenate([np.full(s.units * s.features, _sort(s.kind)) for s in monomials.species])
    share = np.concatenate([np.full(s.units * s.features, 1.0 / max(s.seen, 1)) for s in monomials.species])
    for rows, c in monomials.products:
        if rows.shape[1] != 2:
            continue
        a, b = rows.T
        plain = seen[a] & seen[b] & (component[a] == component[b]) & (sort[a] == sort[b]) & (sort[a] > 0)
        plain &= (owner[a] != owner[b]) & (share[a] == share[b])
        np.add.at(j, (owner[a][plain], owner[b][plain]), -beta * c[plain] * share[a][plain])
    return j + j.T


def _sort(kind: str) -> int:
    """Which kinds couple as x·y: reals and spins with each other, angles with angles, vectors with vectors."""
    return {"real": 1, "spin": 1, "angle": 2, "unit": 3}.get(kind, 0)


def _site_potentials(monomials: Monomials, beta: float) -> np.ndarray:
    """(N, P): −β times the coefficients of x, x², … of real units; zeros elsewhere."""
    most = max([s.features for s in monomials.species if s.kind == "real"], default=2)
    out = np.zeros((monomials.n_units, most))
    for rows, c in monomials.products:
        if rows.shape[1] != 1:
            continue
        for s in monomials.species:
            inside = (rows[:, 0] >= s.row) & (rows[:, 0] < s.row + s.units * s.features)
            if s.kind == "real":
                at = rows[inside, 0] - s.row
                np.add.at(out, (s.start + at // s.features, at % s.features), -beta * c[inside])
    return out


def _solve(monomials: Monomials, j: np.ndarray, site: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """D and the variances G_ii, by damped iteration; D − J is positive definite throughout."""
    n = monomials.n_units
    real = np.zeros(n, bool)
    components = np.ones(n)
    for s in monomials.species:
        units = slice(s.start, s.start + s.units)
        real[units] = s.kind == "real"
        components[units] = s.seen if s.kind in ("angle", "unit") else 1
    quartic = real & (np.abs(site[:, 2:]).sum(1) > 0 if site.shape[1] > 2 else np.zeros(n, bool))
    gaussian = real & ~quartic
    own = np.abs(j).sum(1) + components
    own[gaussian] = -2 * site[gaussian, 1]
    spectrum = _uniform_spectrum(j, site, components, real)
    first = _variance(own, j, spectrum)
    if first is None:  # a quadratic part that only other couplings bound: make the diagonal dominate
        own = np.maximum(own, np.abs(j).sum(1) + 1e-3)
        first = _variance(own, j, spectrum)
    if first is None:
        raise InternalError("a diagonally dominant matrix is positive definite")
    variance = first
    for _ in range(_ROUNDS):
        wanted = 1 / components
        wanted[gaussian] = variance[gaussian]
        if quartic.any():
            wanted[quartic] = tilted_variance(site[quartic], (1 / variance - own)[quartic])
        step = 0.7 * (1 / wanted - 1 / variance)
        if np.abs(step * variance).max() < 1e-6:
            break
        while True:
            found = _variance(own + step, j, spectrum)
            if found is not None:
                break
            step = step / 2
        own, variance = own + step, found
    return own, variance


def _spin_waves(monomials: Monomials, j: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """For angles alone, stiff enough: couplings, precisions, and what turns a stiffness back into a cosine's coupling.

    The self-consistent harmonic approximation, J_ij → J_ij e^{−⟨(θ_i − θ_j)²⟩/2} (Pokrovskii & Uimin 1973), whose
    quadratic form in angles is a Laplacian; a small mass makes the uniform mode normalisable.
    """
    if any(s.kind != "angle" for s in monomials.species) or (j < 0).any() or not (j > 0).any():
        return None
    stiff = j.copy()
    for _ in range(_ROUNDS):
        own = stiff.sum(1) * (1 + _MASS)
        if own.min() <= 0:
            return None
        g = np.linalg.inv(np.diag(own) - stiff)
        spread = np.diag(g)[:, None] + np.diag(g)[None] - 2 * g
        found = j * np.exp(-(spread + spread.T) / 4)  # symmetric, or rounding grows from round to round
        if found.sum() < _STIFF * j.sum():
            return None
        close = np.abs(found - stiff).max() < 1e-4 * j.max()
        stiff = found
        if close:
            break
    return stiff, stiff.sum(1) * (1 + _MASS), np.exp(np.minimum(spread / 2, _MOST_BOOST))


def _uniform_spectrum(j: np.ndarray, site: np.ndarray, components: np.ndarray, real: np.ndarray) -> np.ndarray | None:
    """Eigenvalues of J where all units are alike, so that every G_ii is the mean over the spectrum."""
    rows = np.sort(np.abs(j), axis=1)
    alike = np.ptp(site, axis=0).max() < 1e-12 and np.ptp(components) == 0 and (real.all() or not real.any())
    return (
        np.linalg.eigvalsh(j) if alike and np.ptp(rows, axis=0).max() < 1e-12 and (np.ptp(j.sum(1)) < 1e-12) else None
    )


def _variance(own: np.ndarray, j: np.ndarray, spectrum: np.ndarray | None) -> np.ndarray | None:
    """diag (D − J)⁻¹, or None where that is not positive definite."""
    if spectrum is not None:
        gaps = own.mean() - spectrum
        return np.full(len(own), np.mean(1 / gaps)) if gaps.min() > 0 else None
    try:
        lower = np.linalg.cholesky(np.diag(own) - j)
    except np.linalg.LinAlgError:
        return None
    inverse = np.linalg.inv(lower)
    return np.sum(inverse**2, axis=0)


def uniform_cavity(spectrum: np.ndarray, site: np.ndarray | None, components: int = 1) -> float:
    """D where all units are alike: from the eigenvalues of J and one unit's potential (P,), as in `_solve`.

    G_ii = mean 1/(D − J_k). One number is sought, so that no matrix is needed and any volume will do. site: None for
    units that are no reals, whose G_ii is 1/n for n components.
    """
    if site is not None and not site[2:].any():
        return float(-2 * site[1])
    own = float(np.abs(spectrum).max() + components)
    for _ in range(_ROUNDS):
        variance = float(np.mean(1 / (own - spectrum)))
        wanted = 1 / components
        if site is not None:
            wanted = float(tilted_variance(site[None], np.array([1 / variance - own]))[0])
        step = 0.7 * (1 / wanted - 1 / variance)
        if abs(step) * variance < 1e-6:
            break
        while own + step <= spectrum.max():
            step /= 2
        own += step
    return own


def uniform_spin_waves(kernel: np.ndarray) -> tuple[np.ndarray, float, np.ndarray] | None:
    """`_spin_waves` where all angles are alike: couplings and boosts by displacement (*cells), and one precision."""
    if (kernel < 0).any() or not (kernel > 0).any():
        return None
    stiff = kernel.copy()
    for _ in range(_ROUNDS):
        own = float(stiff.sum()) * (1 + _MASS)
        g = np.fft.ifftn(1 / (own - np.fft.fftn(stiff).real)).real
        spread = 2 * (g.flat[0] - g)
        found = kernel * np.exp(-spread / 2)
        if found.sum() < _STIFF * kernel.sum():
            return None
        close = np.abs(found - stiff).max() < 1e-4 * kernel.max()
        stiff = found
        if close:
            break
    return stiff, float(stiff.sum()) * (1 + _MASS), np.exp(np.minimum(spread / 2, _MOST_BOOST))


def tilted_variance(site: np.ndarray, cavity: np.ndarray) -> np.ndarray:
    """Var x under e^{Σ_p site_p x^p − cavity x²/2}, (m,): on 601 nodes, once for units that are alike."""
    degree = site.shape[1]
    eta = site.copy()
    eta[:, 1] -= cavity / 2
    eta, inverse = np.unique(eta, axis=0, return_inverse=True)
    top = np.maximum(-eta[:, -1], 1e-12)
    radius = np.max(
        [(degree * 30 / top) ** (1 / degree)]
        + [(degree * np.abs(eta[:, p - 1]) / top) ** (1 / (degree - p)) for p in range(1, degree)],
        axis=0,
    )
    x = np.linspace(-1, 1, 601)[None] * radius[:, None]
    g = np.zeros_like(x)
    for p in range(degree, 0, -1):
        g = (g + eta[:, p - 1 : p]) * x
    weight = np.exp(g - g.max(1, keepdims=True))
    weight /= weight.sum(1, keepdims=True)
    mean = (weight * x).sum(1)
    return ((weight * (x - mean[:, None]) ** 2).sum(1))[inverse.reshape(-1)]
