"""Stand-in: a Gaussian in the place of a translation-invariant model, by momenta, so that any volume will do.

The same as `cavity` where all units are alike. Real units take the model's pair couplings and on every site the
curvature that expectation propagation asks for; angles that are stiff enough spin waves with the couplings that these
leave; other angles and unit vectors a spherical model. What a site is to expect of its surroundings is a regression.

φ⁴ untrained, against the best Gaussian: Var ln w .06 and .32 at L = 8, .77 and 2.8 at 16, 8.4 and 19 at 32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vdsl.guides.cavity import uniform_cavity, uniform_spin_waves
from vdsl.guides.monomials import Monomials


@dataclass(frozen=True, eq=False)
class StandIn:
    """A Gaussian of mean μ and covariance by displacement (*cells), and what it has on a site.

    On a site it has e^{−a(x − μ)²/2 − g(x − μ)}, which stands for the model's own potential there. boost (*cells): what
    turns a stiffness of angles back into a coupling of their cosines.
    """

    mean: float
    covariance: np.ndarray
    curvature: float
    slope: float
    boost: np.ndarray
    cell: np.ndarray

    @property
    def variance(self) -> float:
        """Of a site."""
        return float(self.covariance.flat[0])

    def regression(self, site: int, window: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """The best prediction of a site from a window: weights (P,), fields (P,) and the precision of what is left."""
        sides, at = np.array(self.covariance.shape), self.cell[window]
        between = self.covariance[tuple(np.moveaxis((at[:, None] - at[None]) % sides, -1, 0))]
        moved = tuple(((at - self.cell[site]) % sides).T)
        weights = np.linalg.solve(between, self.covariance[moved])
        precision = float(1 / (self.variance - weights @ self.covariance[moved]))
        return weights, precision * weights * self.boost[moved], precision


def build_stand_in(monomials: Monomials, cell: np.ndarray, sides: tuple[int, ...], beta: float) -> StandIn:
    """For one species whose units are the cells (N, axes) of a periodic lattice, all alike."""
    s = monomials.species[0]
    kernel = np.zeros(sides)
    there = np.arange(s.units)
    np.add.at(kernel, tuple(((cell - cell[0]) % np.array(sides)).T), direct_couplings(monomials, 0, there, beta))
    boost = np.ones(sides)
    if s.kind == "real":
        site = _site_potential(monomials, beta)
        spectrum = np.fft.fftn(kernel).real
        own = uniform_cavity(spectrum, site)
        mean = float(site[0] / (own - spectrum.flat[0]))
        return StandIn(mean, np.fft.ifftn(1 / (own - spectrum)).real, own, own * mean - float(site[0]), boost, cell)
    waves = uniform_spin_waves(kernel) if s.kind == "angle" else None
    if waves is not None:
        kernel, own, boost = waves
        spectrum = np.fft.fftn(kernel).real
    else:
        spectrum = np.fft.fftn(kernel).real
        own = uniform_cavity(spectrum, None, s.seen)
    return StandIn(0.0, np.fft.ifftn(1 / (own - spectrum)).real, own, 0.0, boost, cell)


def direct_couplings(monomials: Monomials, site: int, others: np.ndarray, beta: float) -> np.ndarray:
    """−β times the coefficients of x_site · x_other (m,), averaged over components: what is known of them already."""
    s = monomials.species[0]
    out = np.zeros(monomials.n_units)
    for rows, c in monomials.products:
        if rows.shape[1] == 2:
            unit, component = (rows - s.row) // s.features, (rows - s.row) % s.features
            plain = (component[:, 0] == component[:, 1]) & (component[:, 0] < s.seen)
            for a, b in ((0, 1), (1, 0)):
                chosen = plain & (unit[:, a] == site) & (unit[:, b] != site)
                np.add.at(out, unit[chosen, b], -beta * c[chosen] / s.seen)
    return out[others]


def _site_potential(monomials: Monomials, beta: float) -> np.ndarray:
    """−β times the coefficients of x, x², … of the first unit."""
    s = monomials.species[0]
    site = np.zeros(s.features)
    for rows, c in monomials.products:
        if rows.shape[1] == 1:
            own = rows[:, 0] - s.row < s.features
            np.add.at(site, rows[own, 0] - s.row, -beta * c[own])
    return site
