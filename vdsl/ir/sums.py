"""Sums: an energy, or any expression, as a sum over elements of bodies of small scope, for a collector to tabulate.

Sums, constant multiples, means and products of sums are expanded; what is left, a *body* read by each of many elements
at once, is handed to a `Collector`. A collector that finds a body too wide raises NotLocal, and the body is distributed
over its brackets and tried again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol, Self

import numpy as np

from vdsl.ir.expr import Binary, Call, Const, Expr, Reduce, Select, Unary
from vdsl.ir.program import Program
from vdsl.ir.tables import Context, Elements, NotLocal, evaluate, expand, presence


class Collector(Protocol):
    """What adds up a sum: `constant`, and parts that depend on the fields, found by `tabulate`."""

    constant: float

    def fresh(self) -> Self:
        """An empty one that counts what this one already holds against its limits."""

    def absorb(self, other: Self) -> None:
        """Adds what a fresh one has found."""

    def tabulate(
        self, context: Context, node: Expr, elements: Elements, coefficient: np.ndarray, term: str, largest: int
    ) -> None:
        """Adds Σ_elements coefficient · node, or raises NotLocal and adds nothing; `largest`: entries of a table."""


def collect_terms(program: Program, context: Context, collector: Collector) -> list[tuple[str, Expr]]:
    """Adds every term of a program; what cannot be added comes back as (term name, expression)."""
    opaque: list[tuple[str, Expr]] = []
    for term in program.terms:
        inlined = context.inline(term.value)
        if not presence(context, (inlined,), Elements(1)).all():
            continue  # it reads past an open boundary outside every reduction
        for factor, part in additive(context, inlined, 1.0):
            trial = collector.fresh()
            try:
                split_sums(context, part, Elements(1), np.array([factor]), trial, term.name)
            except NotLocal:
                opaque.append((term.name, part if factor == 1.0 else Binary("*", Const(factor), part)))
            else:
                collector.absorb(trial)
    return opaque


def additive(context: Context, node: Expr, factor: float) -> list[tuple[float, Expr]]:
    """The top-level summands of a term with their constant multiples, so that one opaque part spoils no other."""
    match node:
        case Binary("+", left, right):
            return additive(context, left, factor) + additive(context, right, factor)
        case Binary("-", left, right):
            return additive(context, left, factor) + additive(context, right, -factor)
        case Unary("-", operand):
            return additive(context, operand, -factor)
        case Binary("*", left, right) if not context.reads(left):
            return additive(context, right, factor * number(context, left))
        case Binary("*", left, right) if not context.reads(right):
            return additive(context, left, factor * number(context, right))
        case Binary("/", left, right) if not context.reads(right):
            return additive(context, left, factor / number(context, right))
    return [(factor, node)]


def number(context: Context, node: Expr) -> float:
    """The value of an expression that reads no field. Raises NotLocal unless it is one real number."""
    value = np.asarray(evaluate(context, node, Elements(1)))
    if value.size != 1 or np.iscomplexobj(value):
        raise NotLocal
    return float(value.reshape(()))


def column(context: Context, node: Expr, elements: Elements) -> np.ndarray:
    """The same in every element."""
    value = evaluate(context, node, elements)
    if isinstance(value, tuple) or np.iscomplexobj(np.asarray(value)):
        raise NotLocal
    return np.broadcast_to(np.asarray(value, float), (elements.count,))


def split_sums(
    context: Context, node: Expr, elements: Elements, coefficient: np.ndarray, out: Collector, term: str
) -> None:
    """Adds Σ_elements coefficient · node to the collector. Raises NotLocal."""

    def split(n: Expr, c: np.ndarray) -> None:
        split_sums(context, n, elements, c, out, term)

    if elements.count == 0:
        return
    if not context.reads(node):
        out.constant += float(coefficient @ column(context, node, elements))
        return
    match node:
        case Binary("+", left, right):
            split(left, coefficient)
            split(right, coefficient)
        case Binary("-", left, right):
            split(left, coefficient)
            split(right, -coefficient)
        case Unary("-", operand):
            split(operand, -coefficient)
        case Binary("*", left, right) if not context.reads(left):
            split(right, coefficient * column(context, left, elements))
        case Binary("*", left, right) if not context.reads(right):
            split(left, coefficient * column(context, right, elements))
        case Binary("/", left, right) if not context.reads(right):
            split(left, coefficient / column(context, right, elements))
        case Select(condition, yes, no) if not context.reads(condition):
            held = np.broadcast_to(np.asarray(evaluate(context, condition, elements), bool), (elements.count,))
            for branch, rows in ((yes, held), (no, ~held)):
                split_sums(context, branch, elements.take(rows), coefficient[rows], out, term)
        case Reduce("sum" | "mean", _, body, where):
            if where is not None and context.reads(where):
                if node.op == "mean":
                    raise NotLocal
                split(Reduce("sum", node.binders, Select(where, body, Const(0.0))), coefficient)
                return
            every, present, outer = expand(context, elements, node)
            if node.op == "mean":
                counts = np.bincount(outer[present], minlength=elements.count)
                if not counts.all():
                    raise NotLocal  # a mean over nothing: not a number
                coefficient = coefficient / counts
            split_sums(context, body, every.take(present), coefficient[outer[present]], out, term)
        case Call() if (moved := inside(context, node)) is not None:
            split(moved, coefficient)
        case _:
            try:
                out.tabulate(context, node, elements, coefficient, term, context.small_table)
            except NotLocal:
                trial = out.fresh()
                try:
                    split_sums(context, _distributed(context, node), elements, coefficient, trial, term)
                except NotLocal:
                    out.tabulate(context, node, elements, coefficient, term, context.max_table)
                else:
                    out.absorb(trial)


def inside(context: Context, node: Expr) -> Expr | None:
    """re or im of a sum as the sum of re or im; None for anything else."""
    if not isinstance(node, Call) or node.function not in ("re", "im"):
        return None

    def part(n: Expr) -> Expr:
        return Call(node.function, (n,))

    match node.arguments[0]:
        case Reduce("sum" | "mean", _, body, _) as total:
            return replace(total, body=part(body))
        case Binary("+" | "-" as op, left, right):
            return Binary(op, part(left), part(right))
        case Binary("*", factor, Reduce("sum" | "mean", _, body, _) as total) if not context.reads(factor):
            return replace(total, body=part(Binary("*", factor, body)))
        case Binary("*" | "/" as op, Reduce("sum" | "mean", _, body, _) as total, factor) if not context.reads(factor):
            return replace(total, body=part(Binary(op, body, factor)))
    return None


def _distributed(context: Context, node: Expr) -> Expr:
    """One step of a·(b + c) = a·b + a·c, with a sum over elements as the bracket where there is one."""
    match node:
        case Binary("^", base, Const(2) | Const(2.0)):
            return _distributed(context, Binary("*", base, context.renamed(base)))
        case Binary("*", left, right):
            for bracket, other, swap in ((left, right, False), (right, left, True)):
                match bracket:
                    case Binary("+" | "-" as op, a, b):
                        return Binary(op, _times(a, other, swap), _times(b, context.renamed(other), swap))
                    case Unary("-", a):
                        return Unary("-", _times(a, other, swap))
                    case Binary("*" | "/" as op, a, b) if not context.reads(b):
                        return Binary(op, _times(a, other, swap), b)
                    case Binary("*", a, b) if not context.reads(a):
                        return Binary("*", a, _times(b, other, swap))
                    case Reduce("sum" | "mean", _, body, _):
                        return replace(bracket, body=_times(body, other, swap))
                    case Binary("*", _, _) | Binary("^", _, Const(2) | Const(2.0)):
                        try:
                            return _times(_distributed(context, bracket), other, swap)
                        except NotLocal:
                            continue
    raise NotLocal


def _times(bracket: Expr, other: Expr, swap: bool) -> Expr:
    return Binary("*", other, bracket) if swap else Binary("*", bracket, other)
