"""Factors: a program with discrete fields -> tables of energy over few variables each.

    E(x) = constant + Σ_groups Σ_rows tables[row][x[scopes[row]]] + opaque terms

Sums, constant multiples, means, powers and products of sums are expanded; what a body reads becomes the scope of a
table, and a table that is itself a sum over fewer variables is taken apart (an ANOVA decomposition), so that
`phi[x] * (2*phi[x] - phi[x+mu] - phi[x-mu])` and `(s[i] + s[j])^2` give pairs. What stays too wide is *opaque*.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from vdsl.ir.expr import Binary, Call, Const, Expr, Ref, Unary
from vdsl.ir.program import Program
from vdsl.ir.sums import collect_terms, column, inside, number, split_sums
from vdsl.ir.tables import (
    MAX_ENTRIES,
    SMALL_TABLE,
    Context,
    Elements,
    NodeValues,
    NotLocal,
    Scope,
    collect_reads,
    evaluate,
    over_states,
)

_ROUNDING = 1e-13


@dataclass(frozen=True)
class FactorGroup:
    """Factors of one term whose scopes have the same cardinalities.

    scopes: variable numbers, shape (m, k), increasing within a row, no row twice. tables: energies, not divided by T,
    shape (m, q_1, …, q_k); states in the order of `support.stored_states`.
    """

    term: str
    scopes: np.ndarray
    tables: np.ndarray


@dataclass(frozen=True)
class FactorGraph:
    """An energy over discrete variables as a sum of factors.

    Variables are numbered field by field in program order, element by element. fields: (name, first variable, count).
    constant: the energy that no variable enters. opaque: (term name, expression) of what is not a sum of small factors.
    coordinates: the integer cell coordinates of every variable, shape (n, axes), or None on a graph.
    """

    cardinalities: np.ndarray
    fields: tuple[tuple[str, int, int], ...]
    groups: tuple[FactorGroup, ...]
    constant: float
    opaque: tuple[tuple[str, Expr], ...] = ()
    coordinates: np.ndarray | None = None

    @property
    def n(self) -> int:
        """The number of variables."""
        return len(self.cardinalities)

    def energy(self, states: np.ndarray) -> np.ndarray:
        """The energy of configurations given as state indices, shape (…, n) -> (…); opaque terms left out."""
        return self.constant + sum(_group_values(g, states) for g in self.groups) + np.zeros(states.shape[:-1])


@dataclass(frozen=True)
class LocalSum:
    """A function of the configuration that is a constant plus a sum of factors."""

    constant: float = 0.0
    groups: tuple[FactorGroup, ...] = ()

    def evaluate(self, states: np.ndarray) -> np.ndarray:
        """Its value in configurations given as state indices, shape (…, n) -> (…)."""
        return self.constant + sum(_group_values(g, states) for g in self.groups) + np.zeros(states.shape[:-1])


@dataclass(frozen=True)
class Polynomial:
    """linear + Σ coefficient · a · b over products of two local sums: what means and covariances determine exactly.

    The sums are `LocalSum`s, or expansions.
    """

    linear: Any
    products: tuple[tuple[float, Any, Any], ...] = ()

    def evaluate(self, states: np.ndarray) -> np.ndarray:
        """Its value in configurations as the sums take them, state indices or variables, shape (…, n) -> (…)."""
        quadratic = (c * a.evaluate(states) * b.evaluate(states) for c, a, b in self.products)
        return self.linear.evaluate(states) + sum(quadratic)


class Sums(Protocol):
    """How local sums of one kind are made and added."""

    def constant(self, value: float) -> Any:
        """The sum that is a number."""

    def of(self, context: Context, node: Expr) -> Any:
        """An expression as a sum of local terms. Raises NotLocal."""

    def scaled(self, a: Any, c: float) -> Any:
        """c · a."""

    def added(self, a: Any, b: Any) -> Any:
        """a + b."""


def factorise(program: Program, theta: dict[str, float], nodes: Mapping[str, NodeValues] | None = None) -> FactorGraph:
    """The factors of a program's energy at parameters theta.

    Every field must be discrete (else TypeError), or be given by `nodes`: then its states are these, one variable for
    every element of the field, and the tables hold the energies at the nodes.
    """
    context = Context(program, theta, nodes)
    missing = [f.name for f in program.fields if f.name not in context.cardinality]
    if missing:
        raise TypeError(f"{missing} are not discrete")
    cardinalities = np.concatenate(
        [np.full(program.elements(f), context.cardinality[f.name]) for f in program.fields] or [np.zeros(0, int)]
    )
    collector = _Collector()
    opaque = collect_terms(program, context, collector)
    fields = tuple((f.name, context.first[f.name], program.elements(f)) for f in program.fields)
    groups = collector.groups()
    return FactorGraph(cardinalities, fields, groups, collector.constant, tuple(opaque), coordinates_of(program))


def factorise_observable(program: Program, expr: Expr, theta: dict[str, float]) -> Polynomial | None:
    """An observable as a polynomial of degree ≤ 2 in sums of factors, or None if it is not one."""
    context = Context(program, theta)
    return polynomial_of(context, context.inline(expr))


def polynomial_of(context: Context, node: Expr, sums: Sums | None = None) -> Polynomial | None:
    """The same for an expression without references to observables; in other local sums than tables, if given."""
    try:
        return _polynomial(context, node, sums or _TableSums())
    except NotLocal:
        return None


def states_of(program: Program, configuration: dict[str, np.ndarray]) -> np.ndarray:
    """State indices, shape (…, n), of stored configurations {field: (…, elements)}."""
    columns = []
    for f in program.fields:
        stored = np.asarray(configuration[f.name]).astype(int)
        columns.append((stored + 1) // 2 if f.support.__class__.__name__ == "Spin" else stored)
    return np.concatenate(columns, axis=-1)


def _group_values(group: FactorGroup, states: np.ndarray) -> np.ndarray:
    rows = np.arange(len(group.scopes))
    index = tuple(states[..., group.scopes[:, a]] for a in range(group.scopes.shape[1]))
    return group.tables[(rows, *index)].sum(-1)


def coordinates_of(program: Program) -> np.ndarray | None:
    """The integer cell coordinates of every element of every field, shape (n, axes), or None on a graph."""
    lattice = program.lattice
    if lattice is None or lattice.is_graph:
        return None
    cells = np.stack(np.unravel_index(np.arange(lattice.n_cells), lattice.shape), 1)
    parts = []
    for f in program.fields:
        site = np.arange(lattice.n_sites) if f.on == "sites" else lattice.links[0]
        parts.append(cells[site // lattice.n_basis])
    return np.concatenate(parts)


# --- collecting ------------------------------------------------------------------------------------------------------


@dataclass
class _Collector:
    """Factors as they are found: per (term, cardinalities) a list of (scopes, flat tables)."""

    constant: float = 0.0
    entries: int = 0
    base: int = 0
    found: dict[tuple[str, tuple[int, ...]], list[tuple[np.ndarray, np.ndarray]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, term: str, scopes: np.ndarray, tables: np.ndarray) -> None:
        """Adds factors with increasing scopes, taken apart into smaller ones where they can be."""
        self.entries += tables.size
        for columns, kept_rows, part in decompose(tables):
            if columns:
                self.found[term, part.shape[1:]].append((scopes[kept_rows][:, columns], part))
            else:
                self.constant += float(part.sum())

    def fresh(self) -> _Collector:
        return _Collector(entries=self.entries, base=self.entries)

    def tabulate(
        self, context: Context, node: Expr, elements: Elements, coefficient: np.ndarray, term: str, largest: int
    ) -> None:
        """Adds a body over the states of what it reads."""
        _add_tables(context, node, elements, coefficient, self, term, largest)

    def absorb(self, other: _Collector) -> None:
        self.constant += other.constant
        self.entries += other.entries - other.base
        for key, parts in other.found.items():
            self.found[key] += parts

    def groups(self) -> tuple[FactorGroup, ...]:
        """One group per term and shape, identical scopes added up, factors that vanish dropped."""
        out = []
        for (term, shape), parts in self.found.items():
            scopes = np.concatenate([p[0] for p in parts])
            tables = np.concatenate([p[1] for p in parts])
            scopes, tables = merged(scopes, tables.reshape(len(tables), -1))
            kept = (tables != 0).any(1)
            if kept.any():
                out.append(FactorGroup(term, scopes[kept], tables[kept].reshape(-1, *shape)))
        return tuple(out)


def merged(scopes: np.ndarray, tables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows with the same scope added up: (scopes, tables (m, …)) in increasing order of the scopes."""
    order = np.lexsort(scopes.T[::-1])
    scopes, tables = scopes[order], tables[order]
    first = np.ones(len(scopes), bool)
    first[1:] = (scopes[1:] != scopes[:-1]).any(1)
    starts = np.flatnonzero(first)
    return scopes[starts], np.add.reduceat(tables, starts, axis=0)


def decompose(tables: np.ndarray) -> Iterable[tuple[list[int], np.ndarray, np.ndarray]]:
    """(columns, rows, tables over those columns) whose sum is the tables.

    The ANOVA parts f_A = ∏_{i∈A}(1 − M_i) ∏_{i∉A} M_i f, with M_i the mean over variable i, are computed all at once:
    every axis gets one slot for the mean and q for the deviations. A row whose part of full order vanishes is replaced
    by its smaller parts; the others stay whole, since splitting them would only add factors.
    """
    m, k, shape = len(tables), tables.ndim - 1, tables.shape[1:]
    axes = tuple(range(1, k + 1))
    everything = np.arange(m)
    affordable = math.prod(shape) <= SMALL_TABLE and m * math.prod(q + 1 for q in shape) <= MAX_ENTRIES
    if m == 0 or k == 0 or not affordable or not np.isfinite(tables).all():
        yield list(range(k)), everything, tables
        return
    parts = tables
    for axis in axes:
        mean = parts.mean(axis, keepdims=True)
        parts = np.concatenate([mean, parts - mean], axis)
    scale = _ROUNDING * np.abs(tables).max(axes, keepdims=True)
    parts = np.where(np.abs(parts) <= scale, 0.0, parts)
    whole = (parts[(slice(None), *(slice(1, None),) * k)] != 0).any(axes)
    if whole.any():
        yield list(range(k)), everything[whole], tables[whole]
    if whole.all():
        return
    rest, parts = everything[~whole], parts[~whole]
    for size in range(k):
        for chosen in itertools.combinations(range(k), size):
            part = parts[(slice(None), *(slice(1, None) if a in chosen else 0 for a in range(k)))]
            present = (part != 0).any(tuple(range(1, size + 1))) if size else part != 0
            if present.any():
                yield list(chosen), rest[present], part[present]


def _add_tables(
    context: Context,
    node: Expr,
    elements: Elements,
    coefficient: np.ndarray,
    out: _Collector,
    term: str,
    largest: int,
) -> None:
    """Tabulates a body over the states of what it reads, for all elements whose reads coincide in the same way."""
    reads = collect_reads(context, node, elements)
    if not reads:  # all of them stand in reductions over empty sets
        out.constant += float(coefficient @ column(context, node, elements))
        return
    variables = np.stack([np.broadcast_to(v, (elements.count,)) for _, _, v, _, _ in reads], 1)
    ranks, pattern = coincidences(variables)
    made = []  # added at the end only, so that a body given up half-way leaves nothing behind
    for code in np.unique(pattern):
        rows = np.flatnonzero(pattern == code)
        rank = ranks[rows[0]]
        k = int(rank.max()) + 1
        first_read = [int(np.argmax(rank == a)) for a in range(k)]
        shape = [context.cardinality[reads[r][1].field] for r in first_read]
        if math.prod(shape) > largest or out.entries + len(rows) * math.prod(shape) > context.max_entries:
            raise NotLocal
        values = {
            r.key: over_states(context, r, rows, tuple(shape[a] if a == axis else 1 for a in range(k)))
            for r, axis in zip(reads, rank, strict=True)
        }
        table = evaluate(context, node, elements.take(rows), Scope(k, values))
        if isinstance(table, tuple) or np.iscomplexobj(np.asarray(table)):
            raise NotLocal
        scaled = coefficient[rows].reshape(-1, *(1,) * k) * np.asarray(table, float)
        made.append((variables[rows][:, first_read], np.broadcast_to(scaled, (len(rows), *shape))))
    for scopes, tables in made:
        out.add(term, scopes, tables)


def coincidences(variables: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The place of every entry among the distinct values of its row, in increasing order; and a code per pattern."""
    order = np.argsort(variables, axis=1, kind="stable")
    ordered = np.take_along_axis(variables, order, 1)
    steps = np.zeros(ordered.shape, int)
    steps[:, 1:] = np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1)
    ranks = np.empty_like(steps)
    np.put_along_axis(ranks, order, steps, 1)
    code = np.zeros(len(ranks), int)
    for place in ranks.T:
        mixed = np.asarray(code * (variables.shape[1] + 1) + place)
        _, code = np.unique(mixed, return_inverse=True)
        code = code.reshape(-1)
    return ranks, code


# --- observables -----------------------------------------------------------------------------------------------------


def _polynomial(context: Context, node: Expr, sums: Sums) -> Polynomial:
    def of(n: Expr) -> Polynomial:
        return _polynomial(context, n, sums)

    def scaled(p: Polynomial, c: float) -> Polynomial:
        return Polynomial(sums.scaled(p.linear, c), tuple((c * k, a, b) for k, a, b in p.products))

    def added(p: Polynomial, r: Polynomial) -> Polynomial:
        return Polynomial(sums.added(p.linear, r.linear), p.products + r.products)

    def product(p: Polynomial, r: Polynomial) -> Polynomial:
        if p.products or r.products:
            raise NotLocal
        return Polynomial(sums.constant(0.0), ((1.0, p.linear, r.linear),))

    match node:
        case _ if not context.reads(node):
            return Polynomial(sums.constant(number(context, node)))
        case Binary("+", left, right):
            return added(of(left), of(right))
        case Binary("-", left, right):
            return added(of(left), scaled(of(right), -1.0))
        case Unary("-", operand):
            return scaled(of(operand), -1.0)
        case Binary("*", left, right) if not context.reads(left):
            return scaled(of(right), number(context, left))
        case Binary("*", left, right) if not context.reads(right):
            return scaled(of(left), number(context, right))
        case Binary("/", left, right) if not context.reads(right):
            return scaled(of(left), 1 / number(context, right))
        case Binary("*", left, right):
            return product(of(left), of(right))
        case Binary("^", Call("abs", (z,)), Const(2) | Const(2.0)) if inside(context, Call("re", (z,))) is not None:
            real, imaginary = of(Call("re", (z,))), of(Call("im", (z,)))
            return added(product(real, real), product(imaginary, imaginary))
        case Binary("^", base, Const(2) | Const(2.0)):
            factor = of(base)
            return product(factor, factor)
        case Call() if (moved := inside(context, node)) is not None:
            return of(moved)
        case Ref():
            raise NotLocal
    return Polynomial(sums.of(context, node))


class _TableSums:
    """Local sums of tables."""

    def constant(self, value: float) -> LocalSum:
        return LocalSum(value)

    def of(self, context: Context, node: Expr) -> LocalSum:
        collector = _Collector()
        split_sums(context, node, Elements(1), np.ones(1), collector, "")
        return LocalSum(collector.constant, collector.groups())

    def scaled(self, a: LocalSum, c: float) -> LocalSum:
        return LocalSum(c * a.constant, tuple(replace(g, tables=c * g.tables) for g in a.groups))

    def added(self, a: LocalSum, b: LocalSum) -> LocalSum:
        collector = _Collector(a.constant + b.constant)
        for g in a.groups + b.groups:
            collector.found["", g.tables.shape[1:]].append((g.scopes, g.tables))
        return LocalSum(collector.constant, collector.groups())
