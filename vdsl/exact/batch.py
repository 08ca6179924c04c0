"""Batch: any observable, for many configurations at once, with NumPy.

Configurations are state indices (S, n) of discrete fields, or with `FlatEvaluator` variables (S, n) of any fields as
`expansion.variables_of` gives them. What is a polynomial of local sums is evaluated from its tables; other reductions
element by element; the rest by applying functions to the values of their arguments.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vdsl.ir.expand import ExpansionSums
from vdsl.ir.expr import Binary, Call, Expr, Item, Items, Reduce, Select, Unary
from vdsl.ir.factors import FactorGraph, Polynomial, polynomial_of
from vdsl.ir.support import Angle, Complex, Group, Real, Sphere, Spin
from vdsl.ir.tables import (
    BINARY,
    COMBINE,
    FUNCTIONS,
    UNARY,
    Context,
    Elements,
    FoundRead,
    NotLocal,
    Scope,
    bodies,
    chosen,
    collect_reads,
    each,
    evaluate,
    expand,
    presence,
)
from vdsl.ir.values import wrap

CHUNK = 4096
_ENTRIES = 2**22


class BatchEvaluator:
    """Evaluates expressions of one program at fixed parameters; remembers their tables between batches."""

    def __init__(self, context: Context):
        self.context = context
        self._inlined: dict[int, tuple[Expr, Expr]] = {}
        self._polynomials: dict[int, tuple[Expr, Polynomial | None]] = {}

    def __call__(self, expr: Expr, states: np.ndarray) -> np.ndarray:
        """The values of a closed scalar expression in configurations given as state indices, (S, n) -> (S,).

        Raises NotLocal for what has no batched evaluation.
        """
        if id(expr) not in self._inlined:
            self._inlined[id(expr)] = (expr, self.context.inline(expr))
        node = self._inlined[id(expr)][1]
        with np.errstate(all="ignore"):
            value = self._value(node, states)
        if isinstance(value, tuple) or np.iscomplexobj(value):
            raise NotLocal
        return np.broadcast_to(np.asarray(value, float), (len(states),))

    def _value(self, node: Expr, states: np.ndarray):  # type: ignore[no-untyped-def]
        if not self.context.reads(node):
            return each(lambda v: np.asarray(v).reshape(-1)[0], evaluate(self.context, node, Elements(1)))
        polynomial = self._polynomial(node)
        if polynomial is not None:
            return polynomial.evaluate(states)
        match node:
            case Unary(op, operand):
                return each(UNARY[op], self._value(operand, states))
            case Binary(op, left, right):
                return each(BINARY[op], self._value(left, states), self._value(right, states))
            case Select(condition, yes, no):
                return each(np.where, *(self._value(n, states) for n in (condition, yes, no)))
            case Call(function, arguments):
                return FUNCTIONS[function](*(self._value(a, states) for a in arguments))
            case Items(items):
                return tuple(self._value(i, states) for i in items)
            case Item(vector, (index,)) if not self.context.reads(index):
                return self._value(vector, states)[int(np.asarray(evaluate(self.context, index, Elements(1))))]
            case Reduce():
                return self._reduced(node, states)
        raise NotLocal

    def _polynomial(self, node: Expr) -> Polynomial | None:
        if id(node) not in self._polynomials:
            self._polynomials[id(node)] = (node, self._expanded(node))
        return self._polynomials[id(node)][1]

    def _expanded(self, node: Expr) -> Polynomial | None:
        return polynomial_of(self.context, node)

    def _read(self, found: FoundRead, rows: np.ndarray, count: int) -> object:
        """The value of a read, (elements, S), or a tuple of such arrays, in configurations `rows` (S, n)."""
        plain, crossed = self.context.states[found.read.field]
        state = rows[:, np.broadcast_to(found.variable, (count,))].T
        return np.where((np.asarray(found.sign) == 1).reshape(-1, 1), plain[state], crossed[state])

    def _reduced(self, node: Reduce, states: np.ndarray) -> np.ndarray:
        """A reduction whose body has no table: arrays over (elements, configurations)."""
        context = self.context
        everything = Reduce("sum", node.binders, node.body)
        every, present, _ = expand(context, Elements(1), everything)
        if node.where is not None:
            present = present & presence(context, bodies(node), every)
        every = every.take(present)
        combine, identity = COMBINE[node.op]
        parts = []
        step = max(1, _ENTRIES // max(every.count, 1))
        for start in range(0, len(states), step):
            rows = states[start : start + step]
            reads = (r for n in bodies(node) for r in collect_reads(context, n, every))
            values = {r.key: self._read(r, rows, every.count) for r in reads}
            scope = Scope(1, values)
            shape = (every.count, len(rows))
            body = np.broadcast_to(np.asarray(evaluate(context, node.body, every, scope)), shape)
            held = np.ones(shape, bool)
            if node.where is not None:
                held = np.broadcast_to(np.asarray(evaluate(context, node.where, every, scope), bool), shape)
            total = combine.reduce(np.where(held, body, identity), axis=0, initial=identity)
            parts.append(total / held.sum(0) if node.op == "mean" else total)
        return np.concatenate(parts)


class FlatEvaluator(BatchEvaluator):
    """The same for variables, (S, n)."""

    def __init__(self, context: Context):
        super().__init__(context)
        self.sums = ExpansionSums(context.program)
        self.block = {b.field: b for b in self.sums.blocks}

    def _expanded(self, node: Expr) -> Polynomial | None:
        return polynomial_of(self.context, node, self.sums)

    def _read(self, found: FoundRead, rows: np.ndarray, count: int) -> object:
        block, support = self.block[found.read.field], self.context.program.field(found.read.field).support
        element = np.broadcast_to(found.variable, (count,)) - self.context.first[block.field]
        sign = np.broadcast_to(found.sign, (count,)).reshape(-1, 1)
        parts = tuple(rows[:, block.first + element * block.components + c].T for c in range(block.components))
        match support:
            case Spin() | Real(None):
                return parts[0] * sign
            case Angle():
                return wrap(parts[0] * sign)
            case Complex():
                return (parts[0] + 1j * parts[1]) * sign
            case Group("U1"):
                return np.exp(1j * parts[0]) * sign
            case Real() | Sphere():
                vector = tuple(p * sign for p in parts)
                return chosen(self.context, found, vector) if found.read.component else vector
            case Group():
                raise NotLocal
        plain, crossed = self.context.states[block.field]
        state = parts[0].astype(int)
        return np.where(sign == 1, plain[state], crossed[state])


def every_configuration(graph: FactorGraph, chunk: int = 2**14) -> Iterator[np.ndarray]:
    """All configurations as state indices, in chunks of shape (≤ chunk, n)."""
    shape = tuple(graph.cardinalities.tolist())
    total = int(np.prod(shape, dtype=object))
    for start in range(0, total, chunk):
        index = np.arange(start, min(total, start + chunk))
        yield np.stack(np.unravel_index(index, shape), 1) if shape else np.zeros((1, 0), int)
