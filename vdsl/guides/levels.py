"""Levels: a periodic lattice thinned again and again, and who is near whom when it is refined.

On a hypercubic lattice every second level keeps the sites of even parity (a lattice turned and √2 wider in two
dimensions) and every other those with all coordinates even; so sites halve at each level in two dimensions. A
refinement goes back: its new sites fall into colours by their place in the wider cell, nearest new sites differing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Window:
    """Sources near each target: places (targets, m) in a list of `count` sites, `count` where there is none.

    moves (m, axes): the displacement of each column.
    """

    count: int
    places: np.ndarray
    moves: np.ndarray


@dataclass(frozen=True, eq=False)
class Refinement:
    """Sites by number: coarse, and new ones with their colours; spacing: the distance of nearest sites after it."""

    coarse: np.ndarray
    new: np.ndarray
    colour: np.ndarray
    spacing: float


def thin(cell: np.ndarray, sides: tuple[int, ...], kept: np.ndarray, most: int) -> tuple[np.ndarray, list[Refinement]]:
    """The sites that remain when at most `most` do (or no more can go), and refinements from there to the kept ones.

    cell (D, axes): coordinates; kept: numbers of all sites, or of those of one parity. At least one refinement, if any
    is possible; () for other sets.
    """
    parity = cell[kept].sum(1) % 2
    whole = len(kept) == len(cell)
    if not whole and (len(set(parity.tolist())) > 1 or 2 * len(kept) != len(cell)):
        return kept, []
    place = cell - (0 if whole else int(parity[0])) * np.eye(cell.shape[1], dtype=int)[0]
    line = cell.shape[1] == 1  # where even parity is the wider lattice itself
    sites, width, even = kept, 2 if line and not whole else 1, not (line or whole)
    found: list[Refinement] = []
    while (len(sites) > most or not found) and all(side % (2 * width) == 0 for side in sides) and len(sites) >= 8:
        at = place[sites] // width
        if even or line:
            stays, near = np.all(at % 2 == 0, axis=1), width * (np.sqrt(2) if even else 1.0)
            even, width = False, 2 * width
        else:
            stays, near, even = at.sum(1) % 2 == 0, float(width), True
        goes = at[~stays]
        cosets = np.unique(goes % 2, axis=0, return_inverse=True)[1].reshape(-1)
        colour = cosets if cosets.max() > 0 else (goes // 2).sum(1) % 2
        found.append(Refinement(sites[stays], sites[~stays], colour, float(near)))
        sites = sites[stays]
    return sites, found[::-1]


def window(
    cell: np.ndarray, sides: tuple[int, ...], targets: np.ndarray, sources: np.ndarray, reach: float, most: int
) -> Window:
    """The sources within a distance of each target, nearest displacements first, at most about `most` of them."""
    sides_, d = np.array(sides), len(sides)
    span = [np.arange(-min(int(reach), (n - 1) // 2), min(int(reach), n // 2) + 1) for n in sides]
    moves = np.stack(np.meshgrid(*span, indexing="ij"), -1).reshape(-1, d)
    length = (moves**2).sum(1)
    moves = moves[(length > 0) & (length <= reach**2 + 1e-9)]
    moves = moves[np.argsort((moves**2).sum(1), kind="stable")]
    number = np.full(sides, len(sources))
    number[tuple(cell[sources].T)] = np.arange(len(sources))
    places = number[tuple(np.moveaxis((cell[targets][:, None] + moves[None]) % sides_, -1, 0))]
    there = np.flatnonzero((places < len(sources)).any(0))
    if len(there) > most:  # whole shells only, or the window would lean to one side
        last = (moves[there[most]] ** 2).sum()
        there = there[(moves[there] ** 2).sum(1) < last]
    return Window(len(sources), places[:, there], moves[there])
