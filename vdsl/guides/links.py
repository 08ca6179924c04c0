"""Links: which links of a lattice move together, the staples that close their plaquettes, and what stands still around.

In one *turn* the links of one direction μ and of one colour of sites move, all others stand still. The colouring is
such that no plaquette holds two links of a turn, so that every staple S of a moving link U, P = U S, stands still:

    S = U_ν(x+μ) U_μ(x+ν)† U_ν(x)†           above: for each ν ≠ μ in the order of the axes,
    S = U_ν(x+μ−ν)† U_μ(x−ν)† U_ν(x−ν)       below: likewise.

Loops made of two staples of the same link, S_i S_j†, are frozen as well, and gauge invariant under a trace.

In more than two dimensions so are *bent* paths: a staple one of whose links along ν is replaced by its own staples in
planes (ν, ρ), ρ ≠ μ, which hold no link along μ at all. With U they close loops of two plaquettes at a right angle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vdsl.ir.lattice import OPEN, Lattice


@dataclass(frozen=True)
class Turns:
    """All turns of a sweep, padded to one size: T turns, S = 2(d − 1) staples, A moving links, M neighbours.

    active (T, A): link numbers; beyond the last where padded. staples (T, 3, S, A): the links of a staple in order, −1
    for none. exists (T, S, A): 1 where the staple is there. near (T, M, 2, S, A): for each neighbour's place, up to two
    of the rows S·A (staple, moving link) of the same turn; S·A where there is none. Bent paths: side (T, 3, R, B) are
    the staples of the B links of other directions in planes without μ, R = 2(d − 2), side_exists (T, R, B) whether they
    are there, and bend (T, 2, S, A) which of the B are the first and the last link of a staple.
    """

    active: np.ndarray
    staples: np.ndarray
    exists: np.ndarray
    near: np.ndarray
    side: np.ndarray
    side_exists: np.ndarray
    bend: np.ndarray


def colours(lattice: Lattice) -> np.ndarray:
    """A colour for every site such that neighbours differ: a checkerboard; three colours where a ring is odd."""
    cells = np.indices(lattice.shape).reshape(lattice.n_axes, -1)
    rings = [
        length % 2 == 1 and boundary != OPEN for length, boundary in zip(lattice.shape, lattice.boundary, strict=True)
    ]
    if not any(rings):
        return cells.sum(0) % 2
    steps = np.zeros(cells.shape[1], int)
    for x, length, odd in zip(cells, lattice.shape, rings, strict=True):
        steps += np.where(odd & (x == length - 1), 2, x % 2)  # 0 1 0 1 … 2 around an odd ring: ±1 modulo 3 everywhere
    return steps % 3


def turns(lattice: Lattice, reach: int) -> Turns:
    """The turns of a hypercubic lattice. reach: neighbours are at most 2·reach steps away."""
    colour = colours(lattice)
    pairs = [(mu, c) for mu in range(lattice.n_axes) for c in range(colour.max() + 1)]
    rows = [_turn(lattice, mu, np.flatnonzero(colour == c), reach) for mu, c in pairs]
    size = max(len(row[0]) for row in rows)
    padded = [np.stack(column) for column in zip(*(_padded(row, size, lattice) for row in rows), strict=True)]
    active, staples, exists, near = padded
    sides = {mu: _sides(lattice, mu) for mu in range(lattice.n_axes)}
    widest = max(len(links) for links, _, _ in sides.values())
    side, there, place = [], [], []
    for mu, _ in pairs:
        links, found, exist = sides[mu]
        more = widest - len(links)
        side.append(np.pad(found, ((0, 0), (0, 0), (0, more)), constant_values=-1))
        there.append(np.pad(exist, ((0, 0), (0, more))))
        place.append(np.full(lattice.n_links + 1, -1))  # the last: of no link
        place[-1][links] = np.arange(len(links))
    bend = np.stack([where[s[[0, 2]]] for where, s in zip(place, staples, strict=True)])
    return Turns(active, staples, exists, near, np.stack(side), np.stack(there), bend)


def places(reach: int) -> list[tuple[int, int]]:
    """Displacements (a along μ, b along the staple's side): a ≥ 0 stands for ±a; a + b even, as the checkerboard is."""
    reached = [(a, b) for a in range(2 * reach + 1) for b in range(-2 * reach, 2 * reach + 1)]
    return [(a, b) for a, b in reached if (a + b) % 2 == 0 and a + abs(b) <= 2 * reach]


def plaquette_links(lattice: Lattice) -> np.ndarray:
    """(4, n): U_μ(x), U_ν(x+μ), U_μ(x+ν), U_ν(x) of every plaquette; the last two enter as adjoints."""
    site, mu, nu = lattice.plaquettes
    beside, above = np.zeros_like(site), np.zeros_like(site)
    for axis in range(lattice.n_axes):
        beside[mu == axis] = lattice.move(site[mu == axis], lattice.axis_step(axis))[0]
        above[nu == axis] = lattice.move(site[nu == axis], lattice.axis_step(axis))[0]
    number = lattice.link_number
    return np.stack([number[site, mu], number[beside, nu], number[above, mu], number[site, nu]])


def _turn(lattice: Lattice, mu: int, sites: np.ndarray, reach: int) -> tuple[np.ndarray, ...]:
    """active (A,), staples (3, S, A), exists (S, A), near (M, 2, S, A) with −1 for none."""
    number = lattice.link_number
    sites = sites[number[sites, mu] >= 0]
    others = [nu for nu in range(lattice.n_axes) if nu != mu]
    staples: list[np.ndarray] = []
    exists: list[np.ndarray] = []
    near: list[np.ndarray] = []
    place = np.full(lattice.n_sites, -1)
    place[sites] = np.arange(len(sites))
    for side in (1, -1):
        for nu in others:
            corners = [{mu: 1}, {nu: 1}, {}] if side > 0 else [{mu: 1, nu: -1}, {nu: -1}, {nu: -1}]
            links = []
            for corner, axis in zip(corners, (nu, mu, nu), strict=True):
                moved, there = _moved(lattice, sites, corner)
                links.append(np.where(there, number[moved, axis], -1))
            found = np.stack(links)
            exists.append(np.all(found >= 0, axis=0))
            staples.append(found)
            rows = []
            for a, b in places(reach):
                signs = (1, -1) if a else (1,)
                two = [_moved(lattice, sites, {mu: sign * a, nu: side * b}) for sign in signs]
                two += [(sites, np.zeros(len(sites), bool))] * (2 - len(two))
                rows.append([np.where(there, place[moved], -1) for moved, there in two])
            near.append(np.array(rows))
    return number[sites, mu], np.stack(staples, 1), np.stack(exists), np.stack(near, 2)


def _sides(lattice: Lattice, mu: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Links (B,) of other directions than μ; their staples (3, R, B) in planes without μ, first those above."""
    number, (site, along) = lattice.link_number, lattice.links
    links = np.flatnonzero(along != mu)
    staples = np.full((3, 2 * (lattice.n_axes - 2), len(links)), -1)
    exists = np.zeros(staples.shape[1:], bool)
    for nu in (nu for nu in range(lattice.n_axes) if nu != mu):
        these = along[links] == nu
        x = site[links[these]]
        row = 0
        for sign in (1, -1):
            for rho in (rho for rho in range(lattice.n_axes) if rho not in (mu, nu)):
                corners = [{nu: 1}, {rho: 1}, {}] if sign > 0 else [{nu: 1, rho: -1}, {rho: -1}, {rho: -1}]
                found = []
                for corner, axis in zip(corners, (rho, nu, rho), strict=True):
                    moved, there = _moved(lattice, x, corner)
                    found.append(np.where(there, number[moved, axis], -1))
                exists[row, these] = np.min(found, axis=0) >= 0
                staples[:, row, these] = found
                row += 1
    return links, staples, exists


def _padded(row: tuple[np.ndarray, ...], size: int, lattice: Lattice) -> tuple[np.ndarray, ...]:
    active, staples, exists, near = row
    more = size - len(active)
    ends = lattice.n_links + np.arange(more)  # different numbers, all beyond the last link
    count = exists.shape[0]
    flat = np.where(near >= 0, near + size * np.arange(count)[:, None], count * size)
    return (
        np.concatenate([active, ends]),
        np.pad(staples, ((0, 0), (0, 0), (0, more)), constant_values=-1),
        np.pad(exists, ((0, 0), (0, more))),
        np.pad(flat, ((0, 0), (0, 0), (0, 0), (0, more)), constant_values=count * size),
    )


def _moved(lattice: Lattice, sites: np.ndarray, by: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Sites moved by whole cells along some axes, and whether they exist."""
    moved, there, _ = lattice.move(sites, tuple(by.get(axis, 0) for axis in range(lattice.n_axes)))
    return moved, there
