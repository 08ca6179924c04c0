"""Loops of links: transporters along straight lines, and rectangular loops averaged over a lattice.

A *transporter* of length n along axis μ is U_μ(x) U_μ(x+μ) … U_μ(x+(n−1)μ); a rectangular loop of R × T in the plane
(μ, ν) is S_μ(x; R) S_ν(x+Rμ; T) S_μ(x+Tν; R)† S_ν(x; T)†. Angles add instead. Links are arrays as stored, link after
link; where the lattice is open, the loops that leave it do not exist.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vdsl.ir.lattice import Lattice

Links = Any  # angles or complex numbers (links,), or matrices (links, n, n)


def mean_loops(lattice: Lattice, links: np.ndarray, largest: int = 64) -> dict[tuple[int, int], float]:
    """The mean of Re tr W/N over positions for every R × T that fits inside a two-dimensional lattice, area above 1."""
    u = np.exp(1j * links) if not np.iscomplexobj(links) else links
    sides = [min(length - 1, largest) for length in lattice.shape]
    lines = [_lines(lattice, u, axis, sides[axis]) for axis in (0, 1)]
    out = {}
    for r in range(1, sides[0] + 1):
        for t in range(1, sides[1] + 1):
            if r * t > 1:
                out[r, t] = _mean(lattice, lines, r, t)
    return out


def _mean(lattice: Lattice, lines: list[list[np.ndarray]], r: int, t: int) -> float:
    sites = np.arange(lattice.n_sites)
    corner = lattice.move(sites, (r, t))[1]
    right, up = lattice.move(sites, (r, 0))[0], lattice.move(sites, (0, t))[0]
    along, beside = lines[0][r - 1], lines[1][t - 1]
    loop = _product(_product(along, beside[right]), _adjoint(_product(beside, along[up])))[corner]
    trace = np.trace(loop, axis1=1, axis2=2) / loop.shape[-1] if loop.ndim == 3 else loop
    return float(trace.real.mean())


def _lines(lattice: Lattice, u: np.ndarray, axis: int, longest: int) -> list[np.ndarray]:
    """Transporters of length 1, 2, … from every site; arbitrary where they leave the lattice."""
    sites = np.arange(lattice.n_sites)
    link = u[lattice.link_number[:, axis]]
    out = [link]
    for n in range(1, longest):
        step = tuple(n * int(a == axis) for a in range(lattice.n_axes))
        out.append(_product(out[-1], link[lattice.move(sites, step)[0]]))
    return out


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a @ b if a.ndim == 3 else a * b


def _adjoint(a: np.ndarray) -> np.ndarray:
    return a.conj().swapaxes(1, 2) if a.ndim == 3 else a.conj()
