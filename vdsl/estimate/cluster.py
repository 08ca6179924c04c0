"""A factor graph into Swendsen–Wang clusters, where the model is made of pairs that agree or disagree.

Two-state variables: any pair table is c + f·a + g·b + β[a = b], and the fields f, g are bonds to one ghost variable
that stands still in state 1. Variables of q > 2 states: pair tables c + β[a = b] with β ≤ 0, and no fields.
A bond that is satisfied (a = b for β < 0, a ≠ b for β > 0) freezes with probability 1 − e^{−|β|/T}; every cluster of
frozen bonds is then flipped, or recoloured, at random (Swendsen & Wang 1987, Phys. Rev. Lett. 58, 86).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from vdsl.ir.factors import FactorGraph

_FLAT = 1e-12  # energies below this, relative to the largest of the table, are no bond


@dataclass(frozen=True)
class Clusters:
    """Bonds i – j of strength β, (m,) each; the ghost is variable n. `frustrated`: no state satisfies all bonds."""

    i: np.ndarray
    j: np.ndarray
    beta: np.ndarray
    cardinalities: np.ndarray
    frustrated: bool


def find_clusters(graph: FactorGraph) -> Clusters | None:
    """The bonds of a graph that clusters can be grown on, or None if it has factors that are not of this form."""
    n = len(graph.cardinalities)
    if graph.opaque:
        return None
    strength: dict[tuple[int, int], float] = {}
    field = np.zeros(n)
    for group in graph.groups:
        scopes, tables = np.asarray(group.scopes), np.asarray(group.tables, np.float64)
        if not np.isfinite(tables).all() or scopes.shape[1] > 2:
            return None
        if scopes.shape[1] == 1:
            if tables.shape[1] > 2:
                if np.ptp(tables, axis=1).max() > _FLAT * np.abs(tables).max():
                    return None
            elif tables.shape[1] == 2:
                np.add.at(field, scopes[:, 0], tables[:, 1] - tables[:, 0])
            continue
        beta, fields = _agreement(tables)
        if beta is None:
            return None
        if fields is not None:
            np.add.at(field, scopes, fields)
        for (a, b), value in zip(scopes, beta, strict=True):
            pair = (int(min(a, b)), int(max(a, b)))
            strength[pair] = strength.get(pair, 0.0) + float(value)
    scale = max([abs(b) for b in strength.values()] + [float(np.abs(field).max(initial=0.0))], default=0.0)
    bonds = [(a, b, value) for (a, b), value in strength.items() if abs(value) > _FLAT * scale]
    bonds += [(int(v), n, float(field[v])) for v in np.flatnonzero(np.abs(field) > _FLAT * scale)]
    q = np.asarray(graph.cardinalities)
    if not bonds or any(value > 0 and q[a] > 2 for a, _, value in bonds):
        return None
    i, j, beta = (np.array(column) for column in zip(*bonds, strict=True))
    return Clusters(i, j, beta, q, _frustrated(n, i, j, beta))


def cluster_sweep(clusters: Clusters, key: jax.Array, states: jax.Array, temperature: jax.Array) -> jax.Array:
    """One update of all clusters. states: (n, batch) state indices; temperature: (batch,)."""
    n, batch = states.shape
    i, j, beta = jnp.asarray(clusters.i), jnp.asarray(clusters.j), jnp.asarray(clusters.beta, jnp.float32)[:, None]
    bond_key, state_key = jax.random.split(key)
    extended = jnp.concatenate([states, jnp.ones((1, batch), states.dtype)])
    satisfied = (extended[i] == extended[j]) == (beta < 0)
    frozen = satisfied & (
        jax.random.uniform(bond_key, (len(clusters.i), batch)) < -jnp.expm1(-jnp.abs(beta) / temperature)
    )
    labels = jax.vmap(_components, in_axes=(None, None, 1, None), out_axes=1)(i, j, frozen, n + 1)
    # One uniform number per label; a cluster takes the number of its label.
    u = jnp.take_along_axis(jax.random.uniform(state_key, (n + 1, batch)), labels, axis=0)[:n]
    with_ghost = labels[:n] == labels[n]
    q = jnp.asarray(clusters.cardinalities)[:, None]
    flipped = jnp.where((u < 0.5) & ~with_ghost, 1 - states, states)
    recoloured = jnp.minimum((u * q).astype(states.dtype), (q - 1).astype(states.dtype))
    return jnp.where(q == 2, flipped, recoloured)


def _components(i: jax.Array, j: jax.Array, joined: jax.Array, n: int) -> jax.Array:
    """A label for each of n vertices, the same for vertices that joined edges connect, (n,).

    Larger labels are hooked onto smaller ones across edges and pointers are halved, until no edge joins two labels.
    """

    def unfinished(labels: jax.Array) -> jax.Array:
        return (joined & (labels[i] != labels[j])).any()

    def step(labels: jax.Array) -> jax.Array:
        a, b = labels[i], labels[j]
        low = jnp.minimum(a, b)
        # Both ends follow through the halving: scattering to them as well would cost three times as much.
        labels = labels.at[jnp.where(joined, jnp.maximum(a, b), n)].min(low, mode="drop")
        return labels[labels]

    return jax.lax.while_loop(unfinished, step, jnp.arange(n))


def _agreement(tables: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
    """(β (m,), fields (m, 2) or None) of pair tables (m, q, q'), or (None, None) if they are not of the form."""
    q, other = tables.shape[1:]
    if q == other == 2:
        beta = (tables[:, 0, 0] + tables[:, 1, 1] - tables[:, 0, 1] - tables[:, 1, 0]) / 2
        c = tables[:, 0, 0] - beta
        return beta, np.stack([tables[:, 1, 0] - c, tables[:, 0, 1] - c], 1)
    if q != other:
        return None, None
    unequal, beta = tables[:, 0, 1], tables[:, 0, 0] - tables[:, 0, 1]
    form = unequal[:, None, None] + beta[:, None, None] * np.eye(q)
    fits = np.abs(tables - form).max(initial=0.0) <= _FLAT * max(np.abs(tables).max(initial=0.0), 1e-300)
    return (beta, None) if fits else (None, None)


def _frustrated(n: int, i: np.ndarray, j: np.ndarray, beta: np.ndarray) -> bool:
    """Whether no assignment of relative signs satisfies every bond: an odd cycle of disagreeing bonds."""
    neighbours: list[list[tuple[int, int]]] = [[] for _ in range(n + 1)]
    for a, b, sign in zip(i.tolist(), j.tolist(), np.where(beta < 0, 1, -1).tolist(), strict=True):
        neighbours[a].append((b, sign))
        neighbours[b].append((a, sign))
    signs = [0] * (n + 1)
    for start in range(n + 1):
        if signs[start]:
            continue
        signs[start], waiting = 1, [start]
        while waiting:
            v = waiting.pop()
            for w, sign in neighbours[v]:
                if not signs[w]:
                    signs[w] = sign * signs[v]
                    waiting.append(w)
                elif signs[w] != sign * signs[v]:
                    return True
    return False
