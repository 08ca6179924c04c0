"""Expand: a program into its `Expansion`.

Sums are taken apart as for factors; a body is then evaluated in the algebra of `monomials`, its reads being symbols,
for all elements whose reads coincide in the same way at once. States of discrete variables are axes of the
coefficients on the way, and become monomials of spins and indicators of states at the end.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from vdsl.ir import monomials as algebra
from vdsl.ir.expansion import Block, Expansion, MonomialGroup
from vdsl.ir.expr import Binary, Call, Expr, Item, Items, Read, Reduce, Select, Unary
from vdsl.ir.factors import coincidences, coordinates_of, decompose
from vdsl.ir.monomials import Monomial, Value
from vdsl.ir.program import Program
from vdsl.ir.sums import collect_terms, split_sums
from vdsl.ir.support import Angle, Complex, Group, Real, Sphere, Spin, Support, cardinality, event_shape, is_discrete
from vdsl.ir.tables import (
    Context,
    Elements,
    FoundRead,
    NotLocal,
    Scope,
    bodies,
    collect_reads,
    evaluate,
    over_states,
    presence,
    unrolled,
)

_ROUNDING = 1e-14  # a coefficient this small beside what was added up to it is a cancellation


def expand_energy(program: Program, theta: Mapping[str, float]) -> Expansion:
    """The energy at parameters θ as a sum of products of one-variable functions; what is none is left opaque."""
    context = Context(program, dict(theta))
    blocks = blocks_of(program)
    collector = _Collector(blocks)
    opaque = collect_terms(program, context, collector)
    return _finished(program, blocks, collector, tuple(opaque))


def expand_expression(program: Program, expr: Expr, theta: Mapping[str, float]) -> Expansion | None:
    """The same for a real scalar expression, e.g. an observable; None if it is no such sum."""
    context = Context(program, dict(theta))
    try:
        return ExpansionSums(program).of(context, context.inline(expr))
    except NotLocal:
        return None


class ExpansionSums:
    """Expansions as the local sums of `factors.polynomial_of`."""

    def __init__(self, program: Program):
        self.program, self.blocks = program, blocks_of(program)

    def constant(self, value: float) -> Expansion:
        return Expansion(self.blocks, (), value)

    def of(self, context: Context, node: Expr) -> Expansion:
        collector = _Collector(self.blocks)
        split_sums(context, node, Elements(1), np.ones(1), collector, "")
        return _finished(self.program, self.blocks, collector, ())

    def scaled(self, a: Expansion, c: float) -> Expansion:
        groups = tuple(replace(g, coefficients=c * g.coefficients) for g in a.groups)
        return replace(a, groups=groups, constant=c * a.constant)

    def added(self, a: Expansion, b: Expansion) -> Expansion:
        kinds = a.kinds()
        collector = _Collector(self.blocks, constant=a.constant + b.constant)
        for g in a.groups + b.groups:
            generators = tuple((str(kinds[v]), p) for v, p in zip(g.scopes[0], g.exponents, strict=True))
            collector.found["", generators].append((g.scopes, g.coefficients))
        return _finished(self.program, self.blocks, collector, ())


def blocks_of(program: Program) -> tuple[Block, ...]:
    """The variables of a program's fields; SU(n) matrices as the real and imaginary parts of their entries."""
    blocks, first = [], 0
    for f in program.fields:
        kind, components, states = _shape(f.support)
        blocks.append(Block(f.name, kind, first, program.elements(f), components, states))
        first += blocks[-1].elements * components
    return tuple(blocks)


def _shape(support: Support) -> tuple[str, int, int]:
    """(kind, components, states)."""
    match support:
        case Spin():
            return "spin", 1, 2
        case Real():
            return "real", math.prod(event_shape(support)), 0
        case Complex():
            return "real", 2, 0
        case Angle() | Group("U1"):
            return "angle", 1, 0
        case Sphere(n):
            return "unit", n, 0
        case Group():
            return "real", 2 * math.prod(event_shape(support)), 0
    return "states", 1, cardinality(support)


def _finished(
    program: Program, blocks: tuple[Block, ...], collector: _Collector, opaque: tuple[tuple[str, Expr], ...]
) -> Expansion:
    cells = coordinates_of(program)
    if cells is not None:
        repeats = np.concatenate([np.full(b.elements, b.components) for b in blocks] or [np.zeros(0, int)])
        cells = np.repeat(cells, repeats, axis=0)
    return Expansion(blocks, collector.groups(), collector.constant, opaque, cells)


# --- collecting ------------------------------------------------------------------------------------------------------

Generators = tuple[tuple[str, int], ...]  # (kind, exponent), slot by slot


@dataclass
class _Collector:
    """Monomials as they are found: per (term, generators) a list of (scopes (m, k), coefficients (m,))."""

    blocks: tuple[Block, ...]
    constant: float = 0.0
    entries: int = 0
    base: int = 0
    found: dict[tuple[str, Generators], list[tuple[np.ndarray, np.ndarray]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def fresh(self) -> _Collector:
        return _Collector(self.blocks, entries=self.entries, base=self.entries)

    def absorb(self, other: _Collector) -> None:
        self.constant += other.constant
        self.entries += other.entries - other.base
        for key, parts in other.found.items():
            self.found[key] += parts

    def tabulate(
        self, context: Context, node: Expr, elements: Elements, coefficient: np.ndarray, term: str, largest: int
    ) -> None:
        made = list(
            _bodies(context, self.blocks, node, elements, coefficient, largest, context.max_entries - self.entries)
        )
        for columns, monomial, ranks, table in made:
            self.entries += table.size
            self._add(term, columns, monomial, ranks, table)

    def _add(self, term: str, columns: np.ndarray, monomial: Monomial, ranks: list[int], table: np.ndarray) -> None:
        """Adds table[states] · monomial; columns (m, ranks): the variable of every rank; `ranks`: those of the axes."""
        kinds = {rank: self._kind(columns, rank) for rank in ranks}
        for axes, rows, part in decompose(table):
            for states, values in _indicators([kinds[ranks[a]] for a in axes], part):
                place = {ranks[a]: g for a, g in zip(axes, states, strict=True) if g is not None}
                place |= {rank: (kind, power) for (rank, kind), power in monomial}
                present = values != 0
                if present.any():
                    chosen = sorted(place)
                    scopes = columns[rows][present][:, chosen]
                    self._record(term, scopes, tuple(place[r] for r in chosen), values[present])

    def _kind(self, columns: np.ndarray, rank: int) -> str:
        number = columns[0, rank]
        return next(b.kind for b in self.blocks if b.first <= number < b.first + b.elements * b.components)

    def _record(self, term: str, scopes: np.ndarray, generators: Generators, values: np.ndarray) -> None:
        leading = next((p for kind, p in generators if kind == "angle"), 1)
        if leading < 0:  # Re z = Re z*: every monomial in one spelling
            generators = tuple((kind, -p if kind == "angle" else p) for kind, p in generators)
            values = np.conj(values)
        if not generators:
            self.constant += float(values.sum().real)
            return
        angular = any(kind == "angle" for kind, _ in generators)
        self.found[term, generators].append((scopes, values.astype(complex) if angular else values.real.astype(float)))

    def groups(self) -> tuple[MonomialGroup, ...]:
        """One group per term and generators, identical scopes added up, what cancels dropped."""
        out = []
        for (term, generators), parts in self.found.items():
            scopes = np.concatenate([p[0] for p in parts])
            values = np.concatenate([p[1] for p in parts])
            order = np.lexsort(scopes.T[::-1])
            scopes, values = scopes[order], values[order]
            starts = np.flatnonzero(np.r_[True, (scopes[1:] != scopes[:-1]).any(1)])
            sums, sizes = np.add.reduceat(values, starts), np.add.reduceat(np.abs(values), starts)
            kept = np.abs(sums) > _ROUNDING * sizes
            if kept.any():
                exponents = tuple(p for _, p in generators)
                out.append(MonomialGroup(term, exponents, scopes[starts][kept], sums[kept]))
        return tuple(out)


def _indicators(kinds: list[str], tables: np.ndarray):  # type: ignore[no-untyped-def]
    """Tables over discrete variables as sums of products of generators: (generator or None per axis, values (m,)).

    A spin's states become 1 and x: f = (f₊ + f₋)/2 + x (f₊ − f₋)/2.
    """
    for axis, kind in enumerate(kinds, 1):
        if kind == "spin":
            down, up = np.take(tables, [0], axis), np.take(tables, [1], axis)
            tables = np.concatenate([(up + down) / 2, (up - down) / 2], axis)
    scale = np.abs(tables).max(axis=tuple(range(1, tables.ndim)), keepdims=True)
    tables = np.where(np.abs(tables) <= _ROUNDING * scale, 0.0, tables)
    for index in np.ndindex(tables.shape[1:]):
        names = [(k, i) if k == "states" else (("spin", 1) if i else None) for k, i in zip(kinds, index, strict=True)]
        yield names, tables[:, *index]


# --- bodies ----------------------------------------------------------------------------------------------------------


def _bodies(  # type: ignore[no-untyped-def]
    context: Context,
    blocks: tuple[Block, ...],
    node: Expr,
    elements: Elements,
    coefficient: np.ndarray,
    largest: int,
    entries_left: int,
):
    """coefficient · node in every element: (variables of the ranks (m, ranks), monomial, ranks of axes, table)."""
    reads = collect_reads(context, node, elements)
    if not reads:  # all of them stand in reductions over empty sets
        value = evaluate(context, node, elements)
        if isinstance(value, tuple):
            raise NotLocal
        scaled = coefficient * np.broadcast_to(np.asarray(value), (elements.count,))
        yield np.zeros((elements.count, 0), int), (), [], scaled
        return
    by_name = {b.field: b for b in blocks}
    widths, columns, marks = [], [], []
    for r in reads:
        found = _variables(context, by_name[r.read.field], r, elements.count)
        widths.append(len(found))
        columns += found
        if by_name[r.read.field].kind == "angle":
            marks.append(np.broadcast_to(r.sign, (elements.count,)))
    variables = np.stack(columns, 1)
    ranks, pattern = coincidences(variables)
    if marks:  # an angle that changes sign is another monomial
        _, pattern = np.unique(np.stack([pattern, *marks], 1), axis=0, return_inverse=True)
        pattern = pattern.reshape(-1)
    starts = np.cumsum([0, *widths])
    for code in np.unique(pattern):
        rows = np.flatnonzero(pattern == code)
        rank = ranks[rows[0]]
        place = [int(np.argmax(rank == a)) for a in range(int(rank.max()) + 1)]
        states = {
            int(rank[s]): context.cardinality[r.read.field]
            for r, s in zip(reads, starts, strict=False)
            if r.read.field in context.states
        }
        axes = sorted(states)
        shape = [states[a] for a in axes]
        if math.prod(shape) > largest:
            raise NotLocal
        symbols = {
            r.key: _symbol(context, r, rank[s : s + w].tolist(), rows, elements.count, axes, shape)
            for r, s, w in zip(reads, starts, widths, strict=False)
        }
        plain = {key: v for key, v in symbols.items() if isinstance(v, np.ndarray)}
        chosen = elements.take(rows)
        with np.errstate(all="ignore"):  # branches not taken may divide by zero; what is used is checked below
            value = _evaluate(context, node, chosen, Scope(len(axes), plain), symbols, ())
        terms = algebra.polynomial(value).terms
        entries_left -= len(terms) * len(rows) * math.prod(shape)
        if entries_left < 0:
            raise NotLocal
        for monomial, c in terms.items():
            scaled = coefficient[rows].reshape(-1, *(1,) * len(axes)) * np.asarray(c)
            if not np.isfinite(scaled).all():
                raise NotLocal
            yield variables[rows][:, place], monomial, axes, np.broadcast_to(scaled, (len(rows), *shape))


def _variables(context: Context, block: Block, found: FoundRead, count: int) -> list[np.ndarray]:
    """The variable numbers of the components that are read, each (count,)."""
    start = block.first + (found.variable - context.first[block.field]) * block.components
    picked: list[int | np.ndarray] = list(range(block.components))
    if found.read.component:
        if len(found.read.component) > 1:
            raise NotLocal
        index = np.asarray(evaluate(context, found.read.component[0], found.elements))
        picked = [np.broadcast_to(index, (count,)).astype(int) % block.components]
    return [np.broadcast_to(start + c, (count,)) for c in picked]


def _symbol(
    context: Context,
    found: FoundRead,
    ranks: list[int],
    rows: np.ndarray,
    count: int,
    axes: list[int],
    shape: list[int],
) -> Value:
    """What a read is in the algebra: an array over its states, a polynomial, a phase, or a vector of polynomials."""
    support = context.program.field(found.read.field).support
    if is_discrete(support):
        own = tuple(q if a == ranks[0] else 1 for a, q in zip(axes, shape, strict=True))
        return over_states(context, found, rows, own)
    sign = np.broadcast_to(found.sign, (count,))[rows]
    column = sign.astype(float).reshape(-1, *(1,) * len(axes)) if (sign != 1).any() else np.asarray(1.0)
    match support:
        case Angle():
            return algebra.angle((ranks[0], "angle"), int(sign[0]))
        case Group("U1"):
            return algebra.variable((ranks[0], "angle"), column)
        case Complex():
            real, imaginary = (algebra.variable((rank, "real"), column) for rank in ranks)
            return algebra.plus(real, algebra.times(imaginary, np.asarray(1j)))
        case Group():
            raise NotLocal
    kind = "unit" if isinstance(support, Sphere) else "real"
    components = tuple(algebra.variable((rank, kind), column) for rank in ranks)
    return components if event_shape(support) and not found.read.component else components[0]


Symbols = dict[tuple, Value]


def _evaluate(context: Context, node: Expr, elements: Elements, scope: Scope, symbols: Symbols, path: tuple) -> Value:
    """The value of an expression in the algebra; what reads no continuous field is left to `tables`."""
    if context.tabular(node):
        return evaluate(context, node, elements, scope, path)

    def value(n: Expr) -> Value:
        return _evaluate(context, n, elements, scope, symbols, path)

    match node:
        case Read():
            return symbols[id(node), path]
        case Unary(op, operand):
            return algebra.unary(op, value(operand))
        case Binary(op, left, right):
            return algebra.binary(op, value(left), value(right))
        case Select(condition, yes, no) if context.tabular(condition):
            held = np.asarray(value(condition), bool)
            return algebra.where(held, value(yes), value(no))
        case Call(function, arguments):
            return algebra.call(function, tuple(value(a) for a in arguments))
        case Items(items):
            return tuple(value(i) for i in items)
        case Item(vector, (index,)) if not context.reads(index):
            components, chosen = value(vector), np.unique(np.asarray(value(index)))
            if not isinstance(components, tuple) or len(chosen) != 1:
                raise NotLocal
            return components[int(chosen[0])]
        case Reduce("sum" | "mean" | "prod"):
            return _reduce(context, node, elements, scope, symbols, path)
    raise NotLocal


def _reduce(context: Context, node: Reduce, elements: Elements, scope: Scope, symbols: Symbols, path: tuple) -> Value:
    """A nested reduction, element by element."""
    zero, one = np.asarray(0.0), np.asarray(1.0)
    result: Value = one if node.op == "prod" else zero
    number = zero
    for row, inner in unrolled(context, node, elements):
        held = presence(context, bodies(node), inner).reshape((-1, *(1,) * scope.rank))
        if node.where is not None:
            if not context.tabular(node.where):
                raise NotLocal
            found = evaluate(context, node.where, inner, scope, (*path, row))
            held = held & np.asarray(found, bool)
        if not held.any():
            continue
        body = _evaluate(context, node.body, inner, scope, symbols, (*path, row))
        if isinstance(body, algebra.Phase) and not held.all():
            body = algebra.times(body, held.astype(float))
        elif not held.all():
            body = algebra.where(held, body, one if node.op == "prod" else zero)
        result = algebra.binary("*" if node.op == "prod" else "+", result, body)
        number = number + held
    return algebra.binary("/", result, number) if node.op == "mean" else result
