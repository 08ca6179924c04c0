"""Factor graphs written by hand, and their exact averages by enumeration."""

import itertools

import numpy as np

from vdsl.ir.factors import FactorGraph, FactorGroup

SPINS = np.array([-1.0, 1.0])


def graph(cardinalities, *groups, constant=0.0, opaque=()) -> FactorGraph:
    """Groups are (scopes, tables); one table stands for all scopes if it has no row axis."""
    made = []
    for number, (scopes, tables) in enumerate(groups):
        scopes = np.asarray(scopes)
        tables = np.asarray(tables, float)
        if tables.ndim == scopes.shape[1]:
            tables = np.repeat(tables[None], len(scopes), axis=0)
        made.append(FactorGroup(f"term{number}", scopes, tables))
    q = np.asarray(cardinalities)
    return FactorGraph(q, (("s", 0, len(q)),), tuple(made), constant, tuple(opaque))


def square_bonds(L: int) -> np.ndarray:
    """Bonds of the periodic square lattice, smaller variable first, for L > 2."""
    sites = np.arange(L * L).reshape(L, L)
    pairs = [np.stack([sites.ravel(), np.roll(sites, -1, axis).ravel()], 1) for axis in (0, 1)]
    return np.sort(np.concatenate(pairs), axis=1)


def sk(n: int, seed: int) -> FactorGraph:
    """Sherrington–Kirkpatrick couplings of the project's reference instance."""
    J = np.triu(np.random.default_rng(seed).standard_normal((n, n)) / np.sqrt(n), 1)
    i, j = np.triu_indices(n, 1)
    return graph([2] * n, (np.stack([i, j], 1), -J[i, j][:, None, None] * np.outer(SPINS, SPINS)))


def enumerate_states(g: FactorGraph) -> np.ndarray:
    return np.array(list(itertools.product(*(range(q) for q in g.cardinalities))))


def boltzmann(energies: np.ndarray, temperature: float) -> np.ndarray:
    p = np.exp(-(energies - energies.min()) / temperature)
    return p / p.sum()


def union(parts: list[tuple[FactorGraph, float]]) -> tuple[FactorGraph, list[slice]]:
    """Graphs at their temperatures side by side, as one graph at temperature 1, and the variables of each."""
    groups, places, first = [], [], 0
    for g, temperature in parts:
        groups += [FactorGroup(f.term, f.scopes + first, f.tables / temperature) for f in g.groups]
        places.append(slice(first, first + g.n))
        first += g.n
    q = np.concatenate([g.cardinalities for g, _ in parts])
    return FactorGraph(q, (("s", 0, first),), tuple(groups), 0.0), places


def graph_ring(n: int) -> FactorGraph:
    """The Ising ring of n spins, J = 1."""
    bonds = np.array([[k, k + 1] for k in range(n - 1)] + [[0, n - 1]])
    return graph([2] * n, (bonds, -np.outer(SPINS, SPINS)))
