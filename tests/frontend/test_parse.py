"""The parser: every statement and expression form to the node it stands for."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lark.exceptions import GrammarError

from vdsl.errors import Source, Span, VfeError
from vdsl.frontend import ast
from vdsl.frontend import parse as parser
from vdsl.frontend.lexer import HEADS
from vdsl.frontend.parse import decode, parse

_NOWHERE = Span(Source("", ""), 0, 0)


def parsed(text: str) -> ast.Module:
    return parse(Source("test.vfe", text))


def statement(text: str) -> ast.Statement:
    (only,) = parsed(text).statements
    return only


def expression(text: str) -> ast.Expr:
    node = statement(f"temperature {text}")
    assert isinstance(node, ast.Temperature)
    return node.value


def problems(text: str) -> list[tuple[str, str]]:
    """(code, the text under the caret) of each error."""
    with pytest.raises(VfeError) as caught:
        parsed(text)
    return [(d.code, text[d.span.start : d.span.end]) for d in caught.value.diagnostics if d.span]


def N(name: str) -> ast.Name:
    return ast.Name(name, span=_NOWHERE)


def V(value: int | float, text: str = "") -> ast.Number:
    return ast.Number(text or str(value), value, span=_NOWHERE)


def S(value: str) -> ast.String:
    return ast.String(value, span=_NOWHERE)


def make(kind: type, *parts: object) -> object:
    return kind(*parts, span=_NOWHERE)


def op(sign: str, left: object, right: object) -> object:
    return make(ast.Infix, sign, left, right)


def call(name: str, *arguments: object) -> object:
    return make(ast.CallExpr, N(name), arguments)


a, b, c, i, j, s, x = map(N, "abcijsx")


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("a + b + c", op("+", op("+", a, b), c)),
        ("a - b + c", op("+", op("-", a, b), c)),
        ("a + b * c", op("+", a, op("*", b, c))),
        ("a // b % c", op("%", op("//", a, b), c)),
        ("-x^2", make(ast.Prefix, "-", op("^", x, V(2)))),
        ("a^b^c", op("^", a, op("^", b, c))),
        ("a**b", op("^", a, b)),
        ("2^-3", op("^", V(2), make(ast.Prefix, "-", V(3)))),
        ("2^-x^2", op("^", V(2), make(ast.Prefix, "-", op("^", x, V(2))))),
        ("a * -b", op("*", a, make(ast.Prefix, "-", b))),
        ("-a * b", op("*", make(ast.Prefix, "-", a), b)),
        ("a'[i]'", make(ast.Postfix, "'", make(ast.Index, make(ast.Postfix, "'", a), (i,)))),
        ("a^b'", op("^", a, make(ast.Postfix, "'", b))),
        ("a < b and not b == c or c", op("or", op("and", op("<", a, b), make(ast.Prefix, "not", op("==", b, c))), c)),
        ("if a then b else c + 1", make(ast.If, a, b, op("+", c, V(1)))),
        ("if a then b else if b then c else a", make(ast.If, a, b, make(ast.If, b, c, a))),
        ("let x = a in x * x", make(ast.LetIn, x, a, op("*", x, x))),
        ("((a))", a),
        ("(a,)", make(ast.TupleExpr, (a,))),
        ("(a, b,)", make(ast.TupleExpr, (a, b))),
        ("[]", make(ast.ListExpr, ())),
        ("[a, b,]", make(ast.ListExpr, (a, b))),
        ("s[i + (1, -1)]", make(ast.Index, s, (op("+", i, make(ast.TupleExpr, (V(1), make(ast.Prefix, "-", V(1))))),))),
        ("a(b, x = c)", make(ast.CallExpr, a, (b,), (make(ast.Keyword, x, c),))),
        ("a()", call("a")),
        ("1.5e-3", V(1.5e-3, "1.5e-3")),
        (".5", V(0.5, ".5")),
        ("2.", V(2.0, "2.")),
        ("007", V(7, "007")),
        ('"a\\"b\\\\\\n\\t"', S('a"b\\\n\t')),
    ],
)  # fmt: skip
def test_expressions(text: str, node: ast.Expr) -> None:
    assert expression(text) == node


def reduction(op_: str, binders: list[tuple[str, object, bool]], body: object, where: object = None) -> object:
    over = tuple(make(ast.BinderExpr, tuple(map(N, names.split())), over, pair) for names, over, pair in binders)
    return make(ast.Reduction, N(op_), over, where, body)


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("sum(i in s: i)", reduction("sum", [("i", s, False)], i)),
        ("mean(<i, j> in a: i < j)", reduction("mean", [("i j", a, True)], op("<", i, j))),
        ("max(x in s, <i, j> in a: x)", reduction("max", [("x", s, False), ("i j", a, True)], x)),
        ("prod(<i, j> in a, x in s where i < j: x)",
         reduction("prod", [("i j", a, True), ("x", s, False)], x, op("<", i, j))),
        ("min(i in range(3): i) + a", op("+", reduction("min", [("i", call("range", V(3)), False)], i), a)),
        ("sum(a) + sum", op("+", call("sum", a), N("sum"))),
        ("sum(i in s: sum(j in s: i))", reduction("sum", [("i", s, False)], reduction("sum", [("j", s, False)], i))),
    ],
)  # fmt: skip
def test_reductions(text: str, node: ast.Expr) -> None:
    assert expression(text) == node


_RANGE = make(ast.RangeExpr, V(0), N("inf"), False, True)


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ('model a "t"', make(ast.Model, a, S("t"))),
        ("model a", make(ast.Model, a, None)),
        ("param a", make(ast.ParamDecl, a, None, None, None, None)),
        ('param a : int = 1 in [0, inf) "d"', make(ast.ParamDecl, a, N("int"), V(1), _RANGE, S("d"))),
        ("param a = let b = 1 in b in [0, inf)",
         make(ast.ParamDecl, a, None, make(ast.LetIn, b, V(1), b), _RANGE, None)),
        ('let a = 1 "d"', make(ast.Let, a, V(1), S("d"))),
        ("fn a() = 1", make(ast.Fn, a, (), V(1))),
        ("fn a(b, c) = b", make(ast.Fn, a, (b, c), b)),
        ('data a from "f"', make(ast.DataDecl, a, None, make(ast.FromFile, S("f")))),
        ('data a on b from "f" { default = 0 } "d"',
         make(ast.DataDecl, a, b, make(ast.FromFile, S("f"), (make(ast.Option, N("default"), V(0)),)), S("d"))),
        ("data a on b(1) ~ c(0) seed x + 1",
         make(ast.DataDecl, a, call("b", V(1)), make(ast.Drawn, call("c", V(0)), op("+", x, V(1))))),
        ("lattice a(b, x = (c, c))",
         make(ast.LatticeDecl, a, (b,), (make(ast.Keyword, x, make(ast.TupleExpr, (c, c))),))),
        ('lattice graph(from "e.csv", x = 1)',
         make(ast.LatticeDecl, N("graph"), (), (make(ast.Keyword, x, V(1)),), S("e.csv"))),
        ("particles a : b in c(x)", make(ast.Particles, a, b, call("c", x))),
        ("units lj", make(ast.Units, N("lj"))),
        ("field s : a", make(ast.FieldDecl, s, a, None)),
        ('field s : a[b] on c "d"', make(ast.FieldDecl, s, make(ast.Index, a, (b,)), c, S("d"))),
        ("field s : SU(3) on links", make(ast.FieldDecl, s, call("SU", V(3)), N("links"))),
        ('interaction a = b "d"', make(ast.Interaction, a, b, S("d"))),
        ('observable a = b "d"', make(ast.ObservableDecl, a, b, S("d"))),
        ("derived a = b", make(ast.DerivedDecl, a, b, None)),
        ("symmetry a(s), b", make(ast.SymmetryDecl, (call("a", s), b))),
        ("scan a = [1]", make(ast.ScanDecl, a, make(ast.ListExpr, (V(1),)))),
        ("guide a", make(ast.Block, "guide", a, ())),
        ("guide {\n}", make(ast.Block, "guide", None, ())),
        ("guide a { b = 1, c = 2; x = 3\n\n }",
         make(ast.Block, "guide", a, tuple(make(ast.Option, n, V(v)) for n, v in ((b, 1), (c, 2), (x, 3))))),
        ("train { a =\n 1 }", make(ast.Block, "train", None, (make(ast.Option, a, V(1)),))),
        ("lattice a {; vectors (1,), b; site x at c\n bond i : a -> b -1; group j = i, i; size = (b,\n c) }",
         make(ast.UnitCell, a, (
             make(ast.CellVectors, (make(ast.TupleExpr, (V(1),)), b)), make(ast.CellSite, x, c),
             make(ast.CellBond, i, a, b, make(ast.Prefix, "-", V(1))), make(ast.CellGroup, j, (i, i)),
             make(ast.Option, N("size"), make(ast.TupleExpr, (b, c))),
         ))),
    ],
)  # fmt: skip
def test_statements(text: str, node: ast.Statement) -> None:
    assert statement(text) == node


@pytest.mark.parametrize(
    "word", [*HEADS, "on", "from", "seed", "at", "where", "site", "bond", "group", "vectors", "sum"]
)
def test_soft_keywords_are_names(word: str) -> None:
    text = (
        f"param {word} = {word} + {word}({word}) in [{word}, {word}]; field {word} : {word} on {word}\n"
        f"let a = sum({word} in {word} where {word}: {word}[{word}]') + (let {word} = {word} in {word})\n"
        f'data {word} on {word} ~ {word}({word} = {word}) seed {word}; data {word} from "f" {{ {word} = {word} }}\n'
        f"lattice {word} {{ site {word} at {word}; bond {word} : {word} -> {word} ({word}); group {word} = {word} }}\n"
        f"symmetry {word}({word}), {word}; interaction {word} = sum(<{word}, {word}> in {word}: {word})\n"
        f"fn f({word}) = {word}"
    )
    once = ("param", "field", "lattice", "site", "bond", "group", "symmetry", "interaction", "fn", "where", "seed")
    keywords = {**dict.fromkeys((*once, "from", "at"), 1), "let": 2, "data": 2, "on": 2}
    written = re.findall(r"\w+", text).count(word)
    assert ast_names(parsed(text)).count(word) == written - keywords.get(word, 0)


def ast_names(node: object) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, tuple):
        return [n for item in node for n in ast_names(item)]
    return [n for child in vars(node).values() for n in ast_names(child)] if hasattr(node, "__dict__") else []


def test_lines_and_semicolons_end_statements_outside_brackets_only() -> None:
    assert len(parsed("let a = (1\n+\n2); let b = 3;; ;\n\r\nlet c = [\n1]\n").statements) == 3
    assert parsed("let a = 1 # ; let b = 2").statements == parsed("let a = 1").statements


def test_spans_cover_what_was_written() -> None:
    text = "interaction e = -J * (a + b)' + sum(<i, j> in nn: s[i])"
    node = statement(text)
    assert isinstance(node, ast.Interaction)
    assert isinstance(node.value, ast.Infix)
    found = [text[n.span.start : n.span.end] for n in (node, node.name, node.value, node.value.left, node.value.right)]
    assert found == [text, "e", text[16:], "-J * (a + b)'", "sum(<i, j> in nn: s[i])"]


def test_comments_are_collected() -> None:
    found = parsed("# one\nlet a = (1, # two\n  # three\n 2) # four").comments
    assert [(k.text, k.own_line) for k in found] == [
        ("# one", True),
        ("# two", False),
        ("# three", True),
        ("# four", False),
    ]


def test_every_bad_statement_is_reported_and_good_ones_are_not() -> None:
    text = "let a =\nlet b = 1\nparm c = 1\nlet d = (1 + )\nfield s spin\nlet e = 2 − 1\n"
    assert problems(text) == [
        ("syntax", "\n"), ("unknown-statement", "parm"), ("syntax", ")"), ("syntax", "spin"),
        ("lookalike-character", "−"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("temperature a < b < c", ("chained-comparison", "<")),
        ("temperature a == b != c", ("chained-comparison", "!=")),
        ("temperature avg(i in s: i)", ("not-a-reduction", "avg")),
        ("temperature f(a = 1, b)", ("argument-order", "b")),
        ("temperature (1 + 2", ("unclosed-bracket", "(")),
        ("temperature [1, 2)", ("unmatched-bracket", ")")),
        ("temperature 1]", ("unmatched-bracket", "]")),
        ("param in = 1", ("syntax", "in")),
        ("param a in [0, 1}", ("unmatched-bracket", "}")),
    ],
)
def test_single_errors(text: str, expected: tuple[str, str]) -> None:
    assert problems(text) == [expected]


def test_an_unclosed_bracket_ends_before_the_next_statement() -> None:
    text = "interaction a = sum(i in s: (i + 1)\nfield s : spin\nparam = 1\n"
    assert problems(text) == [("unclosed-bracket", "("), ("syntax", "=")]


def test_the_grammar_is_strictly_lalr() -> None:
    """Lark refuses a conflict rather than guessing: the grammar builds, and an ambiguous one does not."""
    good = parser.grammar_text()
    parser.build_parser(good)
    with pytest.raises(GrammarError, match="conflict"):
        parser.build_parser(good.replace("| sum _compare sum ", "| comparison _compare comparison "))


def test_the_checkout_and_the_wheel_read_one_grammar() -> None:
    assert parser.grammar_text() == (Path(__file__).parents[2] / "grammar" / "vfe.lark").read_text(encoding="utf-8")


def test_parsing_is_quick_from_a_cold_start() -> None:
    """`vdsl check` answers within half a second; importing and building the parser may take half of that."""
    code = (
        "from vdsl.errors import Source; from vdsl.frontend.parse import parse; import sys, time\n"
        "parse(Source('t', 'let a = 1')); print(time.process_time()); print('jax' in sys.modules)"
    )
    best = min(
        float(
            subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()[0]
        )
        for _ in range(3)
    )
    assert best < 0.4


def test_a_model_parses_in_milliseconds() -> None:
    text = (Path(__file__).parent / "language_examples" / "ising.vfe").read_text()
    parsed(text)
    start = time.process_time()
    for _ in range(10):
        parsed(text)
    assert (time.process_time() - start) / 10 < 0.02


def test_byte_order_marks_and_windows_lines() -> None:
    source = decode(b"\xef\xbb\xbfparam a = 1\r\nparam b = 2\r\n", "t")
    assert source.text.startswith("param")
    assert len(parse(source).statements) == 2
    assert len(parsed("\ufeffparam a = 1").statements) == 1


@pytest.mark.parametrize("content", [b"param a = \xff1", "param a".encode("utf-16"), "param a".encode("utf-16-be")])
def test_other_encodings_are_refused(content: bytes) -> None:
    with pytest.raises(VfeError) as caught:
        parse(decode(content, "t"))
    assert caught.value.diagnostics[0].code in ("bad-encoding", "bad-character")


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parent / "language_examples").glob("*.vfe")), ids=lambda p: p.stem
)
def test_language_examples_parse(path: Path) -> None:
    heads = [line.split()[0] for line in path.read_text().splitlines() if line and line[0].isalpha()]
    assert len(parse(decode(path.read_bytes(), path.name)).statements) == len(heads)
