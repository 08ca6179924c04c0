"""A factor graph into heat-bath sweeps: whole colours at once, from gathers into the factors' tables.

Variables that no factor joins have one colour and are drawn together from their conditionals. Arrays are
(variables, batch), so that reading a neighbour in every chain is one contiguous row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from vdsl.ir.factors import FactorGraph

OpaqueEnergy = Callable[[jax.Array], jax.Array]  # state indices (n,) to the energy of terms without factors
HeatBath = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
_FORBIDDEN = 1e30  # stands for an infinite energy: differences of two such are 0, not NaN


@dataclass(frozen=True)
class Plan:
    """The heat bath of a graph as padded gathers, one slice per colour.

    tables: all factors flattened one after another. variables (C, V), n where padded. For entry d of variable v, the
    energy of state a is tables[offset + own·a + Σ_k strides_k · states[others_k]]: offset, own (C, V, D); others,
    strides (C, V, D, K). Padding points at tables[-1] = 0. allowed (C, V, Q): which states exist.
    """

    n: int
    tables: np.ndarray
    variables: np.ndarray
    offset: np.ndarray
    own: np.ndarray
    others: np.ndarray
    strides: np.ndarray
    allowed: np.ndarray


def plan_heat_bath(graph: FactorGraph, single: bool = False) -> Plan:
    """The plan of a graph; `single` puts every variable into a colour of its own."""
    q = np.asarray(graph.cardinalities)
    n = len(q)
    pieces: list[np.ndarray] = []
    entries: list[list[tuple[int, int, list[tuple[int, int]]]]] = [[] for _ in range(n)]
    used = 0
    for group in graph.groups:
        tables = np.clip(np.asarray(group.tables, np.float64), -_FORBIDDEN, _FORBIDDEN)
        shape = tables.shape[1:]
        strides = [int(np.prod(shape[p + 1 :])) for p in range(len(shape))]
        size = int(np.prod(shape))
        for row, scope in enumerate(np.asarray(group.scopes).tolist()):
            for p, v in enumerate(scope):
                rest = [(w, strides[k]) for k, w in enumerate(scope) if k != p]
                entries[v].append((used + row * size, strides[p], rest))
        pieces.append(tables.ravel())
        used += tables.size
    pieces.append(np.zeros(1))

    colours = [[v] for v in range(n)] if single else _colour(n, graph)
    depth = max([len(e) for e in entries] + [1])
    reach = max([len(rest) for e in entries for _, _, rest in e] + [1])
    shape = (len(colours), max(map(len, colours)), depth)
    variables = np.full(shape[:2], n)
    offset, own = np.full(shape, used), np.zeros(shape, int)
    others, strides_of = np.zeros((*shape, reach), int), np.zeros((*shape, reach), int)
    allowed = np.ones((*shape[:2], int(q.max())), bool)
    for c, members in enumerate(colours):
        for slot, v in enumerate(members):
            variables[c, slot] = v
            allowed[c, slot] = np.arange(q.max()) < q[v]
            for d, (start, stride, rest) in enumerate(entries[v]):
                offset[c, slot, d], own[c, slot, d] = start, stride
                for k, (w, other_stride) in enumerate(rest):
                    others[c, slot, d, k], strides_of[c, slot, d, k] = w, other_stride
    return Plan(n, np.concatenate(pieces), variables, offset, own, others, strides_of, allowed)


def heat_bath(plan: Plan, opaque: OpaqueEnergy | None = None) -> HeatBath:
    """A sweep (key, states (n, batch), temperature (batch,)) -> states; T-stationary colour by colour.

    With `opaque` the plan has one variable per colour, and its energy is evaluated for every candidate state.
    """
    tables = jnp.asarray(plan.tables, jnp.float32)
    gathers = (plan.variables, plan.offset, plan.own, plan.others, plan.strides)
    slices = (*(jnp.asarray(a, jnp.int32) for a in gathers), jnp.asarray(plan.allowed))
    q = plan.allowed.shape[-1]

    def sweep(key: jax.Array, states: jax.Array, temperature: jax.Array) -> jax.Array:
        def update(states: jax.Array, colour: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
            key, variables, offset, own, others, strides, allowed = colour
            place = offset[..., None] + (states[others] * strides[..., None]).sum(2)  # (V, D, batch)
            index = place[:, :, None] + own[:, :, None, None] * jnp.arange(q)[:, None]  # (V, D, Q, batch)
            # A state that a variable does not have reads some other number here, and is forbidden below.
            energy = tables[jnp.minimum(index, len(plan.tables) - 1)].sum(1)
            if opaque is not None:
                candidates = jax.vmap(lambda a: states.at[variables[0]].set(a))(jnp.arange(q, dtype=states.dtype))
                energy += jax.vmap(jax.vmap(opaque, in_axes=1))(candidates)[None]
            logits = jnp.where(allowed[..., None], -energy / temperature, -jnp.inf)
            below = jnp.cumsum(jnp.exp(logits - logits.max(1, keepdims=True)), axis=1)
            u = jax.random.uniform(key, (below.shape[0], below.shape[2])) * below[:, -1]
            chosen = (u[:, None] >= below[:, :-1]).sum(1).astype(states.dtype)
            return states.at[variables].set(chosen, mode="drop"), None

        keys = jax.random.split(key, len(plan.variables))
        return jax.lax.scan(update, states, (keys, *slices))[0]

    return sweep


def device_energy(graph: FactorGraph, opaque: OpaqueEnergy | None = None) -> Callable[[jax.Array], jax.Array]:
    """The energy of states (n, batch), shape (batch,), in single precision and without the constant."""
    parts = []
    for group in graph.groups:
        tables = np.clip(np.asarray(group.tables, np.float64), -_FORBIDDEN, _FORBIDDEN)
        strides = [int(np.prod(tables.shape[p + 2 :])) for p in range(tables.ndim - 1)]
        offset = np.arange(len(tables)) * int(np.prod(tables.shape[1:]))
        arrays = (offset, np.asarray(group.scopes), np.array(strides))
        parts.append((jnp.asarray(tables.ravel(), jnp.float32), *(jnp.asarray(a, jnp.int32) for a in arrays)))

    def energy(states: jax.Array) -> jax.Array:
        total = jnp.zeros(states.shape[1], jnp.float32)
        for tables, offset, scopes, strides in parts:
            total += tables[offset[:, None] + (states[scopes] * strides[:, None]).sum(1)].sum(0)
        return total if opaque is None else total + jax.vmap(opaque, in_axes=1)(states)

    return energy


def _colour(n: int, graph: FactorGraph) -> list[list[int]]:
    """Variables in classes that no factor joins: greedy, most-constrained first."""
    neighbours: list[set[int]] = [set() for _ in range(n)]
    for group in graph.groups:
        for scope in np.asarray(group.scopes).tolist():
            for v in scope:
                neighbours[v].update(scope)
    colours: list[list[int]] = []
    colour_of: dict[int, int] = {}
    # Breadth-first within degree: on a bipartite lattice plain number order already finds the two sublattices or
    # close to it; sorting by degree first serves hubs.
    for v in sorted(range(n), key=lambda v: (-len(neighbours[v]), v)):
        taken = {colour_of[w] for w in neighbours[v] if w in colour_of}
        c = next(c for c in range(len(colours) + 1) if c not in taken)
        if c == len(colours):
            colours.append([])
        colours[c].append(v)
        colour_of[v] = c
    return colours
