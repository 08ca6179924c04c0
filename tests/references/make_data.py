"""Writes the CSV files that ship beside the examples: `python tests/references/make_data.py examples`. NumPy only."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


def couplings_table(rows: list[tuple[int, int, float]]) -> str:
    """One row per bond, in full precision."""
    return "i,j,J\n" + "".join(f"{i},{j},{float(coupling)!r}\n" for i, j, coupling in rows)


def edges_table(edges: list[tuple[int, int]]) -> str:
    return "i,j\n" + "".join(f"{i},{j}\n" for i, j in edges)


def sk20() -> str:
    """The couplings of physics papers' standard test: row-major pairs i < j of 20 spins, variance 1/20."""
    j = np.triu(np.random.default_rng(0).standard_normal((20, 20)) / np.sqrt(20), 1)
    return couplings_table([(a, b, j[a, b]) for a in range(20) for b in range(a + 1, 20)])


def edwards_anderson_10x10() -> str:
    """Site (x, y) is number 10x + y; [x, y, 0] couples (x, y)-(x+1, y), [x, y, 1] couples (x, y)-(x, y+1)."""
    j = np.random.RandomState(1).uniform(0, 2, (10, 10, 2)) - 1
    rows = []
    for x in range(10):
        for y in range(10):
            if x < 9:
                rows.append((10 * x + y, 10 * (x + 1) + y, j[x, y, 0]))
            if y < 9:
                rows.append((10 * x + y, 10 * x + y + 1, j[x, y, 1]))
    return couplings_table(rows)


def tree31() -> str:
    """A binary tree: vertex k hangs on (k − 1) // 2."""
    return edges_table([((k - 1) // 2, k) for k in range(1, 31)])


def patterns() -> str:
    """Three random patterns of 20 spins."""
    xi = np.random.default_rng(1982).choice([-1, 1], size=(3, 20))
    return "".join(",".join(str(x) for x in row) + "\n" for row in xi)


def random_3_regular(n: int = 20, seed: int = 5) -> str:
    """A uniform 3-regular simple graph: pair the half-edges at random until no loop and no double edge appears."""
    rng = np.random.default_rng(seed)
    while True:
        pairs = np.sort(rng.permutation(np.repeat(np.arange(n), 3)).reshape(-1, 2), axis=1)
        edges = {(int(a), int(b)) for a, b in pairs}
        if len(edges) == 3 * n // 2 and all(a != b for a, b in edges):
            return edges_table(sorted(edges))


FILES = {
    "sk20.csv": sk20,
    "edwards_anderson_10x10.csv": edwards_anderson_10x10,
    "tree31.csv": tree31,
    "patterns.csv": patterns,
    "random_3_regular.csv": random_3_regular,
}


if __name__ == "__main__":
    for name, make in FILES.items():
        Path(sys.argv[1], name).write_text(make())
