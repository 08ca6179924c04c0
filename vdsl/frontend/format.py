"""Syntax tree to canonical text: one layout for every way of writing the same file, comments kept.

What is kept from the source: the order of statements, comments, single blank lines, and whether a block of options
stood on one line. Everything else follows from the tree, so formatting twice changes nothing and `parse` gives back
the same tree. A comment inside brackets moves to its own line above its statement.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vdsl.errors import InternalError
from vdsl.frontend import ast
from vdsl.frontend.layout import Break, Group, Piece, flat, lay_out

_ALIGNED = ({"interaction"}, {"observable", "derived"}, {"let"})  # heads whose neighbours line up their `=`


def format_module(module: ast.Module) -> str:
    """The canonical text of a file, ending in a newline (the empty string for an empty file)."""
    printer = _Printer(module)
    lines = printer.sequence(module.statements, module.comments, "")
    return "".join(f"{line}\n" for line in _with_comments(lines))


def format_expression(expr: ast.Expr) -> str:
    """An expression on one line, with the fewest brackets."""
    return flat(_pieces(expr, 0))


@dataclass(frozen=True)
class _Line:
    code: str
    comment: str = ""


def _with_comments(lines: Sequence[_Line]) -> list[str]:
    """Joins code and trailing comments; comments of neighbouring lines line up."""
    out: list[str] = []
    at = 0
    while at < len(lines):
        stop = at + 1
        while lines[at].comment and stop < len(lines) and lines[stop].comment:
            stop += 1
        column = max(len(line.code) for line in lines[at:stop]) + 2
        out += [f"{line.code:<{column}}{line.comment}" if line.comment else line.code for line in lines[at:stop]]
        at = stop
    return out


class _Printer:
    """Statements and items of blocks, with the comments and blank lines between them."""

    def __init__(self, module: ast.Module):
        text = module.span.source.text if module.span else ""
        self.starts = [0] + [i + 1 for i, c in enumerate(text) if c == "\n"]

    def line(self, offset: int) -> int:
        return bisect_right(self.starts, offset)

    def sequence(self, nodes: Sequence[Any], comments: Sequence[ast.Comment], indent: str) -> list[_Line]:
        """Nodes and the comments around and inside them, in the order of the source."""
        entries: list[tuple[int, int, bool, list[_Line]]] = []  # first line, last line, a comment?, text
        columns = self.columns(nodes, comments)
        waiting = list(comments)
        for node, column in zip(nodes, columns, strict=True):
            start, end = node.span.start, node.span.end
            while waiting and waiting[0].span.start < start:
                entries.append(self.own_line(waiting.pop(0), indent))
            inside = []
            while waiting and waiting[0].span.start < end:
                inside.append(waiting.pop(0))
            trailing = ""
            if waiting and not waiting[0].own_line and self.line(waiting[0].span.start) == self.line(end - 1):
                following = next((n for n in nodes if n.span.start >= end), None)
                if following is None or following.span.start > waiting[0].span.start:
                    trailing = waiting.pop(0).text
            lines = self.node(node, inside, indent, column)
            lines[-1] = _Line(lines[-1].code, trailing)
            entries.append((self.line(start), self.line(max(start, end - 1)), False, lines))
        entries += [self.own_line(comment, indent) for comment in waiting]
        out: list[_Line] = []
        for i, (first, _, _, lines) in enumerate(entries):
            if i and first - entries[i - 1][1] > 1:
                out.append(_Line(""))
            out += lines
        return out

    def own_line(self, comment: ast.Comment, indent: str) -> tuple[int, int, bool, list[_Line]]:
        line = self.line(comment.span.start)
        return line, line, True, [_Line(indent + comment.text)]

    def columns(self, nodes: Sequence[Any], comments: Sequence[ast.Comment]) -> list[tuple[int, int]]:
        """For each node the width its head and its name are padded to, so that the `=` of neighbours line up."""
        out = [(0, 0)] * len(nodes)
        at = 0
        while at < len(nodes):
            stop = at + 1
            family = next((f for f in _ALIGNED if _head(nodes[at]) in f), None)
            while family and stop < len(nodes) and _head(nodes[stop]) in family:
                start, end = nodes[stop - 1].span.end, nodes[stop].span.end
                apart = self.line(nodes[stop].span.start) - self.line(max(0, start - 1)) > 1
                between = any(
                    start <= c.span.start < end and (c.own_line or c.span.start > nodes[stop].span.start)
                    for c in comments
                )
                if apart or between:
                    break
                stop += 1
            if family:
                head = max(len(_head(n)) for n in nodes[at:stop])
                name = max(len(n.name.id) for n in nodes[at:stop])
                out[at:stop] = [(head, name)] * (stop - at)
            at = stop
        return out

    def node(self, node: Any, inside: Sequence[ast.Comment], indent: str, column: tuple[int, int]) -> list[_Line]:
        """One statement or item, and the comments inside it."""
        block = _block_of(node)
        if block is None:
            above = [_Line(indent + c.text) for c in inside]
            return above + [_Line(line) for line in lay_out(_statement(node, column), indent)]
        before, items, after = block
        one_line = not isinstance(node, ast.UnitCell) and (
            not items or self.line(items[0].span.start) == self.line(node.span.start)
        )
        if not inside and one_line:
            pieces = [*before, *_one_line(items), *after]
            if len(indent) + len(flat(pieces)) <= 100 or not items:
                return [_Line(line) for line in lay_out(pieces, indent)]
        first = items[0].span.start if items else node.span.end
        opening = [c for c in inside if self.line(c.span.start) < self.line(first) and not c.own_line]
        above = [_Line(indent + c.text) for c in opening]
        head = [_Line(line) for line in lay_out([*before, " {"], indent)]
        rest = [c for c in inside if c not in opening]
        body = self.sequence(items, rest, indent + "  ")
        return [*above, *head, *body, _Line(indent + "}" + flat(after))]


def _one_line(items: Sequence[ast.Option]) -> list[Piece]:
    if not items:
        return [" {}"]
    out: list[Piece] = [" { "]
    for i, item in enumerate(items):
        out += ["; "] if i else []
        out += _statement(item, (0, 0))
    return [*out, " }"]


def _block_of(node: Any) -> tuple[list[Piece], Sequence[Any], list[Piece]] | None:
    """What stands before `{`, the items, and what stands after `}`; None for a statement without a block."""
    match node:
        case ast.UnitCell(name, items):
            return [f"lattice {name.id}"], items, []
        case ast.Block(head, None, options):
            return [head], options, []
        case ast.Block(head, ast.Name(name), options) if options:
            return [f"{head} {name}"], options, []
        case ast.DataDecl(origin=ast.FromFile() | ast.Drawn()) if node.origin.options:
            return _data(node), node.origin.options, _doc(node.doc)
    return None


# --- Statements -------------------------------------------------------------------------------------------------------


def _head(node: Any) -> str:
    match node:
        case ast.Interaction():
            return "interaction"
        case ast.ObservableDecl():
            return "observable"
        case ast.DerivedDecl():
            return "derived"
        case ast.Let():
            return "let"
    return ""


def _statement(node: Any, column: tuple[int, int]) -> list[Piece]:
    match node:
        case ast.Model(name, title):
            return [f"model {name.id}", *([f" {_quoted(title.value)}"] if title else [])]
        case ast.ParamDecl(name, kind, default, range_, doc):
            out: list[Piece] = [f"param {name.id}"]
            out += [f" : {kind.id}"] if kind else []
            out += [" = ", *_pieces(default, 0)] if default else []
            out += [" in ", *_range(range_)] if range_ else []
            return out + _doc(doc)
        case ast.Let() | ast.Interaction() | ast.ObservableDecl() | ast.DerivedDecl():
            head = f"{_head(node):<{column[0]}} {node.name.id:<{column[1]}} = "
            return [head, *_pieces(node.value, 0), *_doc(node.doc)]
        case ast.Fn(name, parameters, body, doc):
            return [f"fn {name.id}({', '.join(p.id for p in parameters)}) = ", *_pieces(body, 0), *_doc(doc)]
        case ast.DataDecl():
            return [*_data(node), *_doc(node.doc)]
        case ast.LatticeDecl(kind, sizes, keywords, path):
            given: list[list[Piece]] = [[f"from {_quoted(path.value)}"]] if path else []
            given += _arguments(sizes, keywords)
            return ["lattice ", Group(f"{kind.id}(", given, ")")]
        case ast.Particles(name, count, box):
            return [f"particles {name.id} : ", *_pieces(count, 0), " in ", *_pieces(box, 0)]
        case ast.Units(name):
            return [f"units {name.id}"]
        case ast.FieldDecl(name, kind, on, doc):
            where: list[Piece] = [" on ", *_pieces(on, 9)] if on else []
            return [f"field {name.id} : ", *_pieces(kind, 9), *where, *_doc(doc)]
        case ast.Temperature(value):
            return ["temperature ", *_pieces(value, 0)]
        case ast.SymmetryDecl(claims):
            return ["symmetry ", *_listed(claims, 9)]
        case ast.ScanDecl(name, values):
            return [f"scan {name.id} = ", *_pieces(values, 0)]
        case ast.Block(head, ast.Name(name), ()):
            return [f"{head} {name}"]
        case ast.CellVectors(vectors):
            return ["vectors ", *_listed(vectors, 0)]
        case ast.CellSite(name, position):
            return [f"site {name.id} at ", *_pieces(position, 0)]
        case ast.CellBond(name, source, target, displacement):
            step = displacement if isinstance(displacement, ast.TupleExpr) else None
            moved = _pieces(step, 0) if step else [Group("(", [_pieces(displacement, 0)], ")")]
            return [f"bond {name.id} : {source.id} -> {target.id} ", *moved]
        case ast.CellGroup(name, members):
            return [f"group {name.id} = {', '.join(m.id for m in members)}"]
        case ast.Option(key, value):
            return [f"{key.id} = ", *_pieces(value, 0)]
    raise InternalError(f"no layout for {type(node).__name__}")


def _data(node: ast.DataDecl) -> list[Piece]:
    out: list[Piece] = [f"data {node.name.id}"]
    out += [" on ", *_pieces(node.on, 9)] if node.on else []
    match node.origin:
        case ast.FromFile(path):
            return [*out, f" from {_quoted(path.value)}"]
        case ast.Drawn(distribution, seed):
            return [*out, " ~ ", *_pieces(distribution, 9), *([" seed ", *_pieces(seed, 0)] if seed else [])]
    raise InternalError("data without an origin")


def _range(range_: ast.RangeExpr) -> list[Piece]:
    bounds = [_pieces(range_.lower, 0), _pieces(range_.upper, 0)]
    return [Group("(" if range_.lower_open else "[", bounds, ")" if range_.upper_open else "]")]


def _doc(doc: ast.String | None) -> list[Piece]:
    return [f"  {_quoted(doc.value)}"] if doc else []


def _listed(items: Sequence[ast.Expr], level: int) -> list[Piece]:
    out: list[Piece] = []
    for i, item in enumerate(items):
        out += [", "] if i else []
        out += _pieces(item, level)
    return out


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


# --- Expressions ------------------------------------------------------------------------------------------------------

# How tightly each form holds together, as in the grammar: `if`/`let` 0, or 1, and 2, not 3, comparison 4, sum 5,
# term 6, sign 7, power 8, postfix 9.
_INFIX = {
    "or": (1, 1, 2),
    "and": (2, 2, 3),
    "==": (4, 5, 5),
    "!=": (4, 5, 5),
    "<": (4, 5, 5),
    "<=": (4, 5, 5),
    ">": (4, 5, 5),
    ">=": (4, 5, 5),
    "+": (5, 5, 6),
    "-": (5, 5, 6),
    "*": (6, 6, 7),
    "/": (6, 6, 7),
    "//": (6, 6, 7),
    "%": (6, 6, 7),
    "^": (8, 9, 7),
}  # fmt: skip  (own level, what the left operand must reach, what the right one must)


def _level(expr: ast.Expr) -> int:
    match expr:
        case ast.If() | ast.LetIn():
            return 0
        case ast.Infix(op):
            return _INFIX[op][0]
        case ast.Prefix(op):
            return 3 if op == "not" else 7
    return 9


def _pieces(expr: ast.Expr, needed: int) -> list[Piece]:
    """An expression, in brackets if it holds together less than `needed`. Chains to the left are walked in a loop:
    a sum of a thousand terms is a tree a thousand deep."""
    if _level(expr) < needed:
        return [Group("(", [_pieces(expr, 0)], ")")]
    chain: list[tuple[ast.Infix | ast.Postfix | ast.Index, bool]] = []  # outermost first; is its left part bracketed?
    while True:
        match expr:
            case ast.Infix(op, left):
                bracketed = _level(left) < _INFIX[op][1]
            case ast.Postfix(_, left) | ast.Index(left):
                bracketed = _level(left) < 9
            case _:
                break
        chain.append((expr, bracketed))
        expr = left
        if bracketed:
            break
    out: list[Piece] = [Group("(", [_pieces(expr, 0)], ")")] if chain and chain[-1][1] else _leaf(expr)
    for node, _ in reversed(chain):
        match node:
            case ast.Infix("^", _, right):
                out += ["^", *_pieces(right, _INFIX["^"][2])]
            case ast.Infix(op, _, right):
                out += [Break(_INFIX[op][0]), f"{op} ", *_pieces(right, _INFIX[op][2])]
            case ast.Postfix(sign):
                out.append(sign)
            case ast.Index(_, index):
                out.append(Group("[", [_pieces(i, 0) for i in index], "]"))
    return out


def _leaf(expr: ast.Expr) -> list[Piece]:
    match expr:
        case ast.Number(text):
            return [text]
        case ast.String(value):
            return [_quoted(value)]
        case ast.Name(text):
            return [text]
        case ast.Prefix(op, operand):
            return [f"{op} " if op == "not" else op, *_pieces(operand, 3 if op == "not" else 7)]
        case ast.If(condition, yes, no):
            return [
                "if ", *_pieces(condition, 0), Break(0), "then ", *_pieces(yes, 0), Break(0), "else ", *_pieces(no, 0)
            ]  # fmt: skip
        case ast.LetIn(name, value, body):
            return [f"let {name.id} = ", *_pieces(value, 0), Break(0), "in ", *_pieces(body, 0)]
        case ast.CallExpr(function, arguments, keywords):
            return [Group(f"{function.id}(", _arguments(arguments, keywords), ")")]
        case ast.TupleExpr((item,)):
            return [Group("(", [[*_pieces(item, 0), ","]], ")")]
        case ast.TupleExpr(items):
            return [Group("(", [_pieces(i, 0) for i in items], ")", fill=True)]
        case ast.ListExpr(items):
            return [Group("[", [_pieces(i, 0) for i in items], "]", fill=True)]
        case ast.Reduction(reduction, binders, where, body):
            over = ", ".join(flat(_binder(b)) for b in binders)
            filtered = f" where {flat(_pieces(where, 0))}" if where else ""
            return [Group(f"{reduction.id}({over}{filtered}:", [_pieces(body, 0)], ")", gap=" ")]
    raise InternalError(f"no layout for {type(expr).__name__}")


def _binder(binder: ast.BinderExpr) -> list[Piece]:
    names = ", ".join(n.id for n in binder.names)
    return [f"<{names}>" if binder.bracketed else names, " in ", *_pieces(binder.over, 9)]


def _arguments(positional: Sequence[ast.Expr], keywords: Sequence[ast.Keyword]) -> list[list[Piece]]:
    return [_pieces(a, 0) for a in positional] + [[f"{k.name.id} = ", *_pieces(k.value, 0)] for k in keywords]
