"""Text to syntax tree.

The lexer cuts the text into statements; each is parsed by itself, so that every bad statement is reported and no good
one is lost. Lark makes the LALR(1) table of `grammar/vfe.lark`; trees grow bottom-up while parsing, so nothing here
recurses.
"""

from __future__ import annotations

import gc
import importlib.resources
from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import fields, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import lark
from lark.exceptions import UnexpectedToken
from lark.lexer import Lexer as LarkLexer

from vdsl.errors import Diagnostic, Source, Span, VfeError
from vdsl.frontend import ast, syntax
from vdsl.frontend.lexer import MAX_ERRORS, Token, decode, lex, unescape

__all__ = ["MAX_INSIDE", "REDUCTIONS", "decode", "parse"]

MAX_INSIDE = 200  # levels of a syntax tree, not counting the steps to the left operand of a chain, `a + b + c …`
REDUCTIONS = ("sum", "prod", "mean", "max", "min")


def parse(source: Source) -> ast.Module:
    """The syntax tree of a file.

    Raises VfeError with every syntax error found, up to MAX_ERRORS of them; with exit code 4 where a limit on size,
    nesting or depth is passed.
    """
    lexed = lex(source)
    problems = lexed.problems
    statements = []
    for statement in lexed.statements:
        if len(problems) >= MAX_ERRORS:
            break
        if statement.broken:
            continue
        problem = syntax.bad_head(statement.tokens)
        if problem is None:
            node = _statement(statement.tokens)
            if isinstance(node, Diagnostic):
                problem = node
            else:
                statements.append(node)
        if problem is not None:
            problems.append(problem)
    if problems:
        raise VfeError(sorted(problems, key=lambda d: d.span.start if d.span else 0)[:MAX_ERRORS])
    return ast.Module(tuple(statements), tuple(lexed.comments), Span(source, 0, len(source.text)))


def _statement(tokens: list[Token]) -> Any:
    """One statement, or what is wrong with it. Raises `too-deep`."""
    parser, terminals = _parser()
    state: Any = parser.parse_interactive()  # it asks of a token only its `type`
    at = 0
    try:
        for token in tokens:
            state.feed_token(token._replace(type=terminals[token.type]))
            at += 1
        node = state.feed_token(Token("$END", "", tokens[-1].end, tokens[-1].end, tokens[-1].source))
    except UnexpectedToken:
        return syntax.unexpected(tokens, at, _accepted(tokens[:at]))
    except VfeError as error:
        return error.diagnostics[0]
    if len(tokens) > MAX_INSIDE:
        _refuse_depth(node)
    return node


def _accepted(tokens: list[Token]) -> frozenset[str]:
    """The token types that may follow. Reads again, building nothing: the parser that failed has folded back."""
    parser, terminals = _parser()
    state: Any = parser.parse_interactive()
    state.parser_state.parse_conf = copy(state.parser_state.parse_conf)
    state.parser_state.parse_conf.callbacks = {}
    for token in tokens:
        state.feed_token(token._replace(type=terminals[token.type]))
    texts = {name: text for text, name in terminals.items()}
    return frozenset(texts.get(name, name) for name in state.accepts())


def _refuse_depth(root: Any) -> None:
    """Raises `too-deep` for a tree that later passes could not walk. Iterative itself.

    Going down the left of an operator costs nothing: a sum of n terms is n deep, and passes walk such a chain in a
    loop. Every other step down counts.
    """
    stack = [(root, 0)]
    while stack:
        node, inside = stack.pop()
        if inside > MAX_INSIDE:
            raise VfeError(
                Diagnostic(
                    "too-deep",
                    f"more than {MAX_INSIDE} operations inside each other",
                    Span(node.span.source, node.span.start, node.span.start + 1),
                    "the limit is passed here",
                    hints=("name parts of it with `let`, or put the numbers into a data file and use `sum`",),
                ),
                exit_code=4,
            )
        chain = isinstance(node, ast.Infix)
        for i, child in enumerate(_children(node)):
            stack.append((child, inside if chain and i == 0 else inside + 1))


def _children(node: Any) -> Iterator[Any]:
    for f in fields(node):
        value = getattr(node, f.name)
        for item in value if isinstance(value, tuple) else (value,):
            if hasattr(item, "span"):
                yield item


# --- The parser -------------------------------------------------------------------------------------------------------


class _NoLexer(LarkLexer):
    """Tokens come from vdsl.frontend.lexer, one statement at a time."""

    def __init__(self, _conf: object):
        pass

    def lex(self, _state: object, _parser_state: object) -> Iterator[lark.Token]:
        return iter(())


def grammar_text() -> str:
    """The grammar: package data in an installed vdsl, `grammar/` beside the package in a checkout."""
    packaged = importlib.resources.files("vdsl") / "grammar" / "vfe.lark"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "grammar" / "vfe.lark").read_text(encoding="utf-8")


def build_parser(grammar: str) -> lark.Lark:
    """An LALR(1) parser of one statement. Strict: raises GrammarError where the grammar has a conflict."""
    collecting = gc.isenabled()
    gc.disable()  # the table is a hundred thousand small objects that all stay: collecting meanwhile only costs time
    try:
        return lark.Lark(
            grammar,
            start="statement",
            parser="lalr",
            lexer=_NoLexer,
            strict=True,
            keep_all_tokens=True,
            maybe_placeholders=False,
            transformer=_Builder(),
        )
    finally:
        if collecting:
            gc.enable()


@lru_cache(maxsize=1)
def _parser() -> tuple[lark.Lark, dict[str, str]]:
    """The parser, and its name for each type of token."""
    parser = build_parser(grammar_text())
    names = {t.pattern.value: t.name for t in parser.terminals if t.pattern is not None}
    return parser, {**names, "NAME": "NAME", "NUMBER": "NUMBER", "STRING": "STRING"}


# --- Tokens to nodes --------------------------------------------------------------------------------------------------


def _span(children: list[Any]) -> Span:
    first, last = children[0], children[-1]
    start = first if isinstance(first, Token) else first.span
    return Span(start.source, start.start, last.end if isinstance(last, Token) else last.span.end)


def _name(token: Token) -> ast.Name:
    return ast.Name(token.text, span=token.span)


def _string(token: Token) -> ast.String:
    return ast.String(unescape(token.text), span=token.span)


def _after(children: list[Any], terminal: str) -> Any:
    """The child that follows a keyword or sign, or None."""
    return next((b for a, b in pairwise(children) if isinstance(a, Token) and a.type == terminal), None)


def _doc(children: list[Any]) -> ast.String | None:
    last = children[-1]
    return _string(last) if isinstance(last, Token) and last.type == "STRING" else None


def _nodes(children: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(c for c in children if not isinstance(c, Token))


class _Builder:
    """Makes a node of each rule; every method takes the rule's children, all tokens included."""

    # Statements

    def model(self, c: list[Any]) -> ast.Model:
        return ast.Model(_name(c[1]), _doc(c), span=_span(c))

    def param(self, c: list[Any]) -> ast.ParamDecl:
        kind = _after(c, "COLON")
        return ast.ParamDecl(
            _name(c[1]), kind and _name(kind), _after(c, "EQUAL"), _after(c, "IN"), _doc(c), span=_span(c)
        )

    def let(self, c: list[Any]) -> ast.Let:
        return ast.Let(_name(c[1]), c[3], _doc(c), span=_span(c))

    def fn(self, c: list[Any]) -> ast.Fn:
        parameters = tuple(_name(t) for t in c[3:] if isinstance(t, Token) and t.type == "NAME")
        return ast.Fn(_name(c[1]), parameters, _after(c, "EQUAL"), _doc(c), span=_span(c))

    def data(self, c: list[Any]) -> ast.DataDecl:
        origin = next(n for n in c if isinstance(n, ast.FromFile | ast.Drawn))
        options = next((n for n in c if isinstance(n, _Options)), None)
        if options is not None:
            span = Span(origin.span.source, origin.span.start, options.span.end)
            origin = replace(origin, options=options.items, span=span)
        return ast.DataDecl(_name(c[1]), _after(c, "ON"), origin, _doc(c), span=_span(c))

    def from_file(self, c: list[Any]) -> ast.FromFile:
        return ast.FromFile(_string(c[1]), span=_span(c))

    def drawn(self, c: list[Any]) -> ast.Drawn:
        return ast.Drawn(c[1], _after(c, "SEED"), span=_span(c))

    def lattice(self, c: list[Any]) -> ast.LatticeDecl:
        path = _after(c, "FROM")
        sizes, keywords = _arguments(c[3:])
        return ast.LatticeDecl(_name(c[1]), sizes, keywords, path and _string(path), span=_span(c))

    def unit_cell(self, c: list[Any]) -> ast.UnitCell:
        return ast.UnitCell(_name(c[1]), _nodes(c), span=_span(c))

    def vectors(self, c: list[Any]) -> ast.CellVectors:
        return ast.CellVectors(_nodes(c), span=_span(c))

    def site(self, c: list[Any]) -> ast.CellSite:
        return ast.CellSite(_name(c[1]), c[3], span=_span(c))

    def bond(self, c: list[Any]) -> ast.CellBond:
        return ast.CellBond(_name(c[1]), _name(c[3]), _name(c[5]), c[6], span=_span(c))

    def group(self, c: list[Any]) -> ast.CellGroup:
        members = tuple(_name(t) for t in c[3:] if t.type == "NAME")
        return ast.CellGroup(_name(c[1]), members, span=_span(c))

    def particles(self, c: list[Any]) -> ast.Particles:
        return ast.Particles(_name(c[1]), c[3], c[5], span=_span(c))

    def units(self, c: list[Any]) -> ast.Units:
        return ast.Units(_name(c[1]), span=_span(c))

    def field(self, c: list[Any]) -> ast.FieldDecl:
        return ast.FieldDecl(_name(c[1]), c[3], _after(c, "ON"), _doc(c), span=_span(c))

    def interaction(self, c: list[Any]) -> ast.Interaction:
        return ast.Interaction(_name(c[1]), c[3], _doc(c), span=_span(c))

    def temperature(self, c: list[Any]) -> ast.Temperature:
        return ast.Temperature(c[1], span=_span(c))

    def observable(self, c: list[Any]) -> ast.ObservableDecl:
        return ast.ObservableDecl(_name(c[1]), c[3], _doc(c), span=_span(c))

    def derived(self, c: list[Any]) -> ast.DerivedDecl:
        return ast.DerivedDecl(_name(c[1]), c[3], _doc(c), span=_span(c))

    def symmetry(self, c: list[Any]) -> ast.SymmetryDecl:
        return ast.SymmetryDecl(_nodes(c), span=_span(c))

    def scan(self, c: list[Any]) -> ast.ScanDecl:
        return ast.ScanDecl(_name(c[1]), c[3], span=_span(c))

    def block(self, c: list[Any]) -> ast.Block:
        named = len(c) > 1 and isinstance(c[1], Token)
        options = c[-1].items if isinstance(c[-1], _Options) else ()
        return ast.Block(c[0].text, _name(c[1]) if named else None, options, span=_span(c))

    def options(self, c: list[Any]) -> _Options:
        return _Options(_nodes(c), _span(c))

    def option(self, c: list[Any]) -> ast.Option:
        return ast.Option(_name(c[0]), c[2], span=_span(c))

    def range(self, c: list[Any]) -> ast.RangeExpr:
        return ast.RangeExpr(c[1], c[3], c[0].text == "(", c[4].text == ")", span=_span(c))

    # Expressions

    def if_then_else(self, c: list[Any]) -> ast.If:
        return ast.If(c[1], c[3], c[5], span=_span(c))

    def let_in(self, c: list[Any]) -> ast.LetIn:
        return ast.LetIn(_name(c[1]), c[3], c[5], span=_span(c))

    def infix(self, c: list[Any]) -> ast.Infix:
        return ast.Infix("^" if c[1].text == "**" else c[1].text, c[0], c[2], span=_span(c))

    def prefix(self, c: list[Any]) -> ast.Prefix:
        return ast.Prefix(c[0].text, c[1], span=_span(c))

    def adjoint(self, c: list[Any]) -> ast.Postfix:
        return ast.Postfix("'", c[0], span=_span(c))

    def index(self, c: list[Any]) -> ast.Index:
        return ast.Index(c[0], _nodes(c[1:]), span=_span(c))

    def named_index(self, c: list[Any]) -> ast.Index:
        return ast.Index(_name(c[0]), _nodes(c[1:]), span=_span(c))

    def name(self, c: list[Any]) -> ast.Name:
        return _name(c[0])

    def number(self, c: list[Any]) -> ast.Number:
        text = c[0].text
        return ast.Number(text, int(text) if text.isdigit() else float(text), span=c[0].span)

    def string(self, c: list[Any]) -> ast.String:
        return _string(c[0])

    def parenthesised(self, c: list[Any]) -> Any:
        return replace(c[1], span=_span(c))

    def tuple_of(self, c: list[Any]) -> ast.TupleExpr:
        return ast.TupleExpr(_nodes(c), span=_span(c))

    def list_of(self, c: list[Any]) -> ast.ListExpr:
        return ast.ListExpr(_nodes(c), span=_span(c))

    def call(self, c: list[Any]) -> ast.CallExpr:
        return ast.CallExpr(_name(c[0]), *_arguments(c[1:]), span=_span(c))

    def keyword(self, c: list[Any]) -> ast.Keyword:
        return ast.Keyword(_name(c[0]), c[2], span=_span(c))

    def reduction(self, c: list[Any]) -> ast.Reduction:
        if c[0].text not in REDUCTIONS:
            raise VfeError(syntax.not_a_reduction(c[0], REDUCTIONS))
        binders = tuple(b for b in c if isinstance(b, ast.BinderExpr))
        return ast.Reduction(_name(c[0]), binders, _after(c, "WHERE"), c[-2], span=_span(c))

    def binder(self, c: list[Any]) -> ast.BinderExpr:
        names = tuple(_name(t) for t in c if isinstance(t, Token) and t.type == "NAME")
        return ast.BinderExpr(names, c[-1], c[0].type == "LESSTHAN", span=_span(c))


class _Options:
    """A `{…}` of options, on its way into the statement it belongs to."""

    def __init__(self, items: tuple[ast.Option, ...], span: Span):
        self.items = items
        self.span = span


def _arguments(children: list[Any]) -> tuple[tuple[Any, ...], tuple[ast.Keyword, ...]]:
    """Positional arguments, then keywords. Raises `argument-order`."""
    positional, keywords = [], []
    for node in _nodes(children):
        if isinstance(node, ast.Keyword):
            keywords.append(node)
        elif keywords:
            raise VfeError(syntax.argument_order(node.span, keywords[0]))
        else:
            positional.append(node)
    return tuple(positional), tuple(keywords)
