"""Long chains `a + b − c …` as balanced trees, so that depth grows with the logarithm of their length.

Every pass after this one may recurse: a sum of two thousand terms is eleven deep, and as exact as pairwise summation.
"""

from __future__ import annotations

from vdsl.errors import Span
from vdsl.frontend import ast

LONGEST_CHAIN = 30  # operations that are left as they are written
_FAMILIES: tuple[tuple[str, ...], ...] = (("+", "-"), ("*",), ("and",), ("or",))
Signed = tuple[str, ast.Expr]


def balanced(node: ast.Infix) -> ast.Infix:
    """The same value: a long chain of one family of operators is cut into pairs, pairs of pairs, and so on.

    `a - b - c` becomes `a - (b + c)`: an operand whose sign is `-` is added to another such one, and subtracted in
    the end. The order of factors is kept, so that matrices multiply as written.
    """
    family: tuple[str, ...] = next((f for f in _FAMILIES if node.op in f), ())
    row: list[Signed] = []
    left: ast.Expr = node
    while isinstance(left, ast.Infix) and left.op in family:
        row.append((left.op, left.right))
        left = left.left
    if len(row) <= LONGEST_CHAIN:
        return node
    row.append((family[0], left))
    row.reverse()
    while len(row) > 2:
        pairs = [_pair(row[k], row[k + 1], family[0]) for k in range(0, len(row) - 1, 2)]
        row = pairs + row[len(row) - len(row) % 2 :]
    (_, first), (op, last) = row
    return _joined(op, first, last)


def _pair(a: Signed, b: Signed, plus: str) -> Signed:
    """(s a) + (t b) for signs s and t, with a sign of its own."""
    (s, left), (t, right) = a, b
    if s == t:
        return s, _joined(plus, left, right)
    return plus, _joined("-", left, right) if s == plus else _joined("-", right, left)


def _joined(op: str, a: ast.Expr, b: ast.Expr) -> ast.Infix:
    span = Span(a.span.source, min(a.span.start, b.span.start), max(a.span.end, b.span.end))
    return ast.Infix(op, a, b, span=span)
