"""Variable elimination: a factor graph -> ln Z, exact averages and covariances of sums of local terms, exact samples.

Eliminating v multiplies the factors and messages that contain it and sums over its states,

    m_v(parents) = Σ_{x_v} ∏_{factors, messages ∋ v},        p(x_v | parents) = ∏ / m_v(parents),

all in the log domain. The conditionals, read backwards, are an exact sampler (Lauritzen & Spiegelhalter 1988). Averages
are derivatives of ln Z with respect to sources λ_a in −E/T + Σ_a λ_a A_a, carried along as a jet: each message also
holds, for given parents, the mean and the covariances of the parts of every A_a that have been summed over, and

    mean_a ← Σ_{x_v} p(x_v|·) mean_a,   cov_ab ← Σ_{x_v} p(x_v|·) cov_ab + Cov_{x_v|·}(mean_a, mean_b),

the law of total covariance: no differences of large numbers, unlike derivatives of Z.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.exact.cost import afford, elimination_cost
from vdsl.ir.factors import FactorGraph, FactorGroup, LocalSum
from vdsl.ir.graph import Adjacency, Symbolic, adjacency, best_order, eliminate_symbolically


@dataclass(frozen=True)
class ConditionalTables:
    """An exact sampler: x_v given its parents, for every variable.

    order: elimination order; sampling runs through it backwards, so that parents come first. parents[v]: variable
    numbers. log_tables[v]: normalised log p(x_v | parents), shape (q_parent_1, …, q_parent_k, q_v); rows that cannot be
    reached are uniform.
    """

    order: np.ndarray
    parents: tuple[np.ndarray, ...]
    log_tables: tuple[np.ndarray, ...]
    ln_z: float


@dataclass(frozen=True)
class Moments:
    """ln Z, and means and covariances of sums of local terms: `covariances[a, b]` for the pairs that were asked for."""

    ln_z: float
    means: np.ndarray
    covariances: dict[tuple[int, int], float]


def log_partition(graph: FactorGraph, temperature: float, order: np.ndarray | Symbolic | None = None) -> float:
    """ln Z = ln Σ_x e^{−E(x)/T}. Raises VfeError `too-expensive` (exit code 4)."""
    return moments(graph, temperature, (), (), order).ln_z


def conditional_tables(
    graph: FactorGraph, temperature: float, order: np.ndarray | Symbolic | None = None
) -> ConditionalTables:
    """All conditionals of exact backward sampling. Raises VfeError `too-expensive` (exit code 4)."""
    symbolic = _planned(graph, order)
    afford(elimination_cost(graph, symbolic, keep_tables=True))
    tables: list[np.ndarray] = [np.zeros(0)] * graph.n
    ln_z = -graph.constant / temperature
    for bucket in _buckets(graph, temperature, (), symbolic):
        log_z, tables[bucket.variable] = _normalise(bucket.log_weights)
        ln_z += bucket.send(log_z, [], {})
    return ConditionalTables(symbolic.order, symbolic.parents, tuple(tables), ln_z)


def moments(
    graph: FactorGraph,
    temperature: float,
    sums: Sequence[LocalSum],
    pairs: Sequence[tuple[int, int]],
    order: np.ndarray | Symbolic | None = None,
) -> Moments:
    """ln Z, ⟨A_a⟩ for every sum and Cov(A_a, A_b) for every pair. Raises VfeError `too-expensive` (exit code 4)."""
    symbolic = _planned(graph, order, sums)
    afford(elimination_cost(graph, symbolic, sources=len(sums) + len(pairs)))
    ln_z = -graph.constant / temperature
    means = np.array([a.constant for a in sums])
    covariances = dict.fromkeys(pairs, 0.0)
    for bucket in _buckets(graph, temperature, tuple(a.groups for a in sums), symbolic):
        log_z, log_p = _normalise(bucket.log_weights)
        if not sums:
            ln_z += bucket.send(log_z, [], {})
            continue
        p = np.exp(log_p)
        sent_means = [None if m is None else (p * m).sum(-1) for m in bucket.means]
        sent_pairs: dict[tuple[int, int], np.ndarray] = {}
        for a, b in pairs:
            inherited = bucket.covariances.get((a, b))
            mean_a, mean_b = bucket.means[a], bucket.means[b]
            parts = [] if inherited is None else [(p * inherited).sum(-1)]
            sent_a, sent_b = sent_means[a], sent_means[b]
            if mean_a is not None and mean_b is not None and sent_a is not None and sent_b is not None:
                spread_a, spread_b = mean_a - sent_a[..., None], mean_b - sent_b[..., None]
                parts.append((p * spread_a * spread_b).sum(-1))
            if parts:
                sent_pairs[a, b] = sum(parts[1:], start=parts[0])
        ln_z += bucket.send(log_z, sent_means, sent_pairs)
        if not len(bucket.parents):
            means += np.array([0.0 if m is None else float(m) for m in sent_means])
            for pair, value in sent_pairs.items():
                covariances[pair] += float(value)
    return Moments(ln_z, means, covariances)


def draw(tables: ConditionalTables, count: int, rng: np.random.Generator) -> np.ndarray:
    """Independent exact samples as state indices, shape (count, n)."""
    states = np.zeros((count, len(tables.order)), np.int64)
    for v in tables.order[::-1]:
        log_p = tables.log_tables[v][tuple(states[:, u] for u in tables.parents[v])]
        below = np.cumsum(np.exp(np.broadcast_to(log_p, (count, log_p.shape[-1]))), axis=1)
        uniform = rng.random(count)[:, None] * below[:, -1:]
        states[:, v] = (uniform >= below[:, :-1]).sum(1)
    return states


def log_probability(tables: ConditionalTables, states: np.ndarray) -> np.ndarray:
    """ln p of configurations given as state indices, shape (…, n) -> (…)."""
    total = np.zeros(states.shape[:-1])
    for v, (above, table) in enumerate(zip(tables.parents, tables.log_tables, strict=True)):
        total += table[(*(states[..., u] for u in above), states[..., v])]
    return total


# --- buckets ---------------------------------------------------------------------------------------------------------


@dataclass
class _Message:
    """What is left of eliminated variables: a log weight over the parents, and the jet of every source."""

    scope: tuple[int, ...]
    log_weight: np.ndarray
    means: list[np.ndarray | None]
    covariances: dict[tuple[int, int], np.ndarray]


@dataclass
class _Bucket:
    """Everything that contains the variable to be eliminated, multiplied out over (parents, variable)."""

    variable: int
    parents: np.ndarray
    log_weights: np.ndarray
    means: list[np.ndarray | None]
    covariances: dict[tuple[int, int], np.ndarray]
    waiting: list[list[_Message]]

    def send(self, log_z: np.ndarray, means: list[np.ndarray | None], covariances: dict) -> float:
        """Hands the message on to the first parent; without parents, returns its log weight."""
        if not len(self.parents):
            return float(log_z)
        # The parent that is eliminated first stands last, where the sum over it will run.
        message = _Message(tuple(self.parents.tolist()), log_z, means, covariances)
        self.waiting[self.parents[-1]].append(message)
        return 0.0


def _buckets(
    graph: FactorGraph, temperature: float, sources: tuple[tuple[FactorGroup, ...], ...], symbolic: Symbolic
) -> Iterator[_Bucket]:
    """The buckets in order of elimination; each must be sent on before the next is asked for."""
    position = np.empty(graph.n, int)
    position[symbolic.order] = np.arange(graph.n)
    waiting: list[list[_Message]] = [[] for _ in range(graph.n)]
    weights = _assigned(graph.groups, position)
    insertions = [_assigned(groups, position) for groups in sources]
    for v in symbolic.order.tolist():
        scope = (*symbolic.parents[v].tolist(), v)
        place = {u: k for k, u in enumerate(scope)}
        shape = tuple(int(graph.cardinalities[u]) for u in scope)
        log_weights = np.zeros((1,) * len(shape))
        for factor_scope, table in weights[v]:  # grows axis by axis: cheaper than adding each to the full table
            log_weights = log_weights + _aligned(table, factor_scope, place, shape) * (-1 / temperature)
        log_weights = np.array(np.broadcast_to(log_weights, shape))
        means: list[np.ndarray | None] = []
        for here in insertions:
            total = None
            for factor_scope, table in here[v]:
                total = _plus(total, _aligned(np.where(np.isfinite(table), table, 0.0), factor_scope, place, shape))
            means.append(total)
        covariances: dict[tuple[int, int], np.ndarray] = {}
        for message in waiting[v]:
            log_weights += _aligned(message.log_weight, message.scope, place, shape)
            for a, mean in enumerate(message.means):
                if mean is not None:
                    means[a] = _plus(means[a], _aligned(mean, message.scope, place, shape))
            for pair, value in message.covariances.items():
                covariances[pair] = _plus(covariances.get(pair), _aligned(value, message.scope, place, shape))
        waiting[v] = []
        yield _Bucket(v, symbolic.parents[v], log_weights, means, covariances, waiting)


def _plus(total: np.ndarray | None, part: np.ndarray) -> np.ndarray:
    return part if total is None else total + part


def _assigned(groups: tuple[FactorGroup, ...], position: np.ndarray) -> list[list[tuple[tuple[int, ...], np.ndarray]]]:
    """Each factor, at the variable of its scope that is eliminated first."""
    out: list[list[tuple[tuple[int, ...], np.ndarray]]] = [[] for _ in position]
    for group in groups:
        first = np.take_along_axis(group.scopes, position[group.scopes].argmin(1)[:, None], 1)[:, 0]
        for v, scope, table in zip(first.tolist(), group.scopes.tolist(), group.tables, strict=True):
            out[v].append((tuple(scope), table))
    return out


def _aligned(table: np.ndarray, scope: tuple[int, ...], place: dict[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """A table over `scope` as a view that broadcasts against the bucket's axes."""
    axes = [place[u] for u in scope]
    if axes != sorted(axes):
        table = table.transpose(np.argsort(axes))
    wanted = set(axes)
    return table.reshape(tuple(q if k in wanted else 1 for k, q in enumerate(shape)))


def _normalise(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(log Σ over the last axis, log conditionals); a row of weight zero has a uniform conditional.

    A loop over the few states is faster than NumPy's reductions over a last axis of length 2 or 3.
    """
    states = log_weights.shape[-1]
    if np.isnan(log_weights).any():
        raise VfeError(
            Diagnostic("not-a-number", "the energy of some configurations is not a number (NaN)"), exit_code=3
        )
    top = log_weights[..., 0].copy()
    for k in range(1, states):
        np.maximum(top, log_weights[..., k], out=top)
    dead = ~np.isfinite(top)
    if (top[dead] == math.inf).any():
        raise VfeError(Diagnostic("not-a-number", "some configurations have an energy of minus infinity"), exit_code=3)
    top[dead] = 0.0
    total = np.zeros_like(top)
    for k in range(states):
        total += np.exp(log_weights[..., k] - top)
    with np.errstate(divide="ignore"):
        log_z = np.log(total) + top
    conditionals = log_weights - np.where(dead, 0.0, log_z)[..., None]
    conditionals[dead] = -math.log(states)
    return log_z, conditionals


# --- planning --------------------------------------------------------------------------------------------------------


def plan(graph: FactorGraph, sums: Sequence[LocalSum] = (), budget: float = 12.0) -> Symbolic:
    """The best order found for the interaction graph, joined by what the sums couple; `budget` as in `best_order`."""
    return best_order(_adjacency(graph, sums), graph.cardinalities, graph.coordinates, budget)


def _adjacency(graph: FactorGraph, sums: Sequence[LocalSum]) -> Adjacency:
    return adjacency(graph.n, [g.scopes for g in graph.groups] + [g.scopes for a in sums for g in a.groups])


def _planned(graph: FactorGraph, order: np.ndarray | Symbolic | None, sums: Sequence[LocalSum] = ()) -> Symbolic:
    if graph.opaque:
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(name for name, _ in graph.opaque))
        raise VfeError(
            Diagnostic(
                "not-local",
                f"the interaction {names} is not a sum of terms of a few variables each, as elimination needs",
                hints=("use `vdsl solve`",),
            ),
            exit_code=4,
        )
    if isinstance(order, Symbolic):
        return order
    if order is None:
        return plan(graph, sums)
    return eliminate_symbolically(_adjacency(graph, sums), order, graph.cardinalities)
