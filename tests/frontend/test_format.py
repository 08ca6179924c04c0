"""The formatter: the same tree, the same comments, and nothing left to change."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path

import pytest
import syntax_trees
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vdsl.errors import Source, VfeError
from vdsl.frontend import ast
from vdsl.frontend.format import format_expression, format_module
from vdsl.frontend.layout import WIDTH
from vdsl.frontend.parse import parse

HERE = Path(__file__).parent
FILES = [*sorted((HERE / "language_examples").glob("*.vfe")), *sorted((HERE.parents[1] / "examples").glob("*.vfe"))]


def parsed(text: str) -> ast.Module:
    return parse(Source("test.vfe", text))


def formatted(text: str) -> str:
    return format_module(parsed(text))


@given(syntax_trees.modules)
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_parse_inverts_format(module: ast.Module) -> None:
    text = format_module(module)
    again = parsed(text)
    assert again == module
    assert format_module(again) == text


def test_brackets_follow_precedence() -> None:
    pairs = syntax_trees.nested_pairs()
    text = "".join(f"temperature {format_expression(e)}\n" for e in pairs)
    for statement, expected in zip(parsed(text).statements, pairs, strict=True):
        assert isinstance(statement, ast.Temperature)
        assert statement.value == expected


def test_expressions_have_the_fewest_brackets() -> None:
    """Without any one of its bracket pairs, what is printed is another tree, or none."""
    for expr in syntax_trees.nested_pairs():
        text = format_expression(expr)
        for at in (i for i, c in enumerate(text) if c == "(" and (i == 0 or text[i - 1] in " (-+[:^")):
            inside = 1
            stop = next(
                j for j in range(at + 1, len(text)) if not (inside := inside + {"(": 1, ")": -1}.get(text[j], 0))
            )
            bare = text[:at] + text[at + 1 : stop] + text[stop + 1 :]
            try:
                statement = parsed(f"temperature {bare}").statements[0]
            except VfeError:
                continue
            assert isinstance(statement, ast.Temperature)
            assert statement.value != expr, text


def test_the_generator_makes_every_node() -> None:
    source = Path(syntax_trees.__file__).read_text()
    nodes = {*typing.get_args(ast.Statement), *typing.get_args(ast.Expr), ast.BinderExpr, ast.RangeExpr, ast.Keyword}
    assert all(f"ast.{node.__name__}" in source for node in nodes)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_files_keep_their_tree_and_comments(path: Path) -> None:
    module = parsed(path.read_text())
    text = format_module(module)
    again = parsed(text)
    assert again == module
    assert [c.text for c in again.comments] == [c.text for c in module.comments]
    assert format_module(again) == text
    assert max(len(line) for line in text.splitlines() if "#" not in line) <= WIDTH


_PARTS = (
    "param a = 1\n", "let b = (2,\n", "let b = (2, # in\n# own\n", "# note\n", "   # far\n", "\n", "\n\n\n", " ;",
    "param c = 2;", "param d # at d\n", "fn f( # f\nx) = x\n", 'data J from "a" {\n# why\ndefault = 0 } # J\n',
    "lattice l { # open\n# first\nsize = 1 # one\n\n\n# last\n} # close\n",
    "guide g { x = 1;\ny = [1, # two\n2] # y\n}\n",
)  # fmt: skip


@given(st.lists(st.sampled_from(_PARTS), max_size=12))
@settings(max_examples=300, deadline=None)
def test_comments_survive_wherever_they_stand(parts: list[str]) -> None:
    # A part that opens a bracket is closed at once; what the next part adds would only lengthen the tuple.
    text = "".join(part + "3)\n" if part.startswith("let b") else part for part in parts)
    module = parsed(text)
    out = format_module(module)
    again = parsed(out)
    assert again == module
    assert sorted(c.text for c in again.comments) == sorted(c.text for c in module.comments)
    assert format_module(again) == out


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("let a=1+2*x", "let a = 1 + 2 * x\n"),
        ("let a = (((1)))", "let a = 1\n"),
        ("let a = (a*b)*c - (d - e)", "let a = a * b * c - (d - e)\n"),
        ("let a = -(x**2)", "let a = -x^2\n"),
        ("let a = (-x)^2", "let a = (-x)^2\n"),
        ("let a = (2^3)^4 + 2^(3^4) + 2^(-3)", "let a = (2^3)^4 + 2^3^4 + 2^-3\n"),
        ("let a = (x + y)'", "let a = (x + y)'\n"),
        ("let a = not (a and b) or (c)", "let a = not (a and b) or c\n"),
        ("let a = (if x then 1 else 2) + 1", "let a = (if x then 1 else 2) + 1\n"),
        ("let a = (1,)", "let a = (1,)\n"),
        ("let a = (a < b) == (c < d)", "let a = (a < b) == (c < d)\n"),
        ("let a = sum( <i,j>in nn,k in range( 3 ) where i!=0:x )",
         "let a = sum(<i, j> in nn, k in range(3) where i != 0: x)\n"),
        ('param  J:int=1 in(0,inf)"doc"', 'param J : int = 1 in (0, inf)  "doc"\n'),
        ('data J on nn from "a.csv" {default=0}', 'data J on nn from "a.csv" { default = 0 }\n'),
        ("data J on nn~normal(0,1)seed 3", "data J on nn ~ normal(0, 1) seed 3\n"),
        ('lattice graph(from "e.csv")', 'lattice graph(from "e.csv")\n'),
        ("param a;param b", "param a\nparam b\n"),
        ("\n\n\nparam a\n\n\n\nparam b\n\n", "param a\n\nparam b\n"),
        ("interaction a=1\ninteraction bcd=2", "interaction a   = 1\ninteraction bcd = 2\n"),
        ("interaction a=1\n\ninteraction bcd=2", "interaction a = 1\n\ninteraction bcd = 2\n"),
        ("param a # one\nparam bcd   # two", "param a    # one\nparam bcd  # two\n"),
        ("let a = (1, # why\n 2) # end", "# why\nlet a = (1, 2)  # end\n"),
        ("train{steps=1;batch=2}", "train { steps = 1; batch = 2 }\n"),
        ("guide g{\nx=1\n# c\ny=2 # d\n\n\nz=3}",
         "guide g {\n  x = 1\n  # c\n  y = 2  # d\n\n  z = 3\n}\n"),
        ("lattice l{site A at(0,0);bond x:A->A 1}", "lattice l {\n  site A at (0, 0)\n  bond x : A -> A (1)\n}\n"),
        ("# only a comment", "# only a comment\n"),
        ("", ""),
    ],
)  # fmt: skip
def test_canonical_layout(written: str, canonical: str) -> None:
    assert formatted(written) == canonical
    assert formatted(canonical) == canonical


def test_long_lines_break_inside_brackets_only() -> None:
    terms = " + ".join(f"a{i} * b{i}" for i in range(40))
    text = formatted(f"let x = 2 * ({terms})\nlet y = [{', '.join(map(str, range(80)))}]\nlet z = {terms}\n")
    assert parsed(text) == parsed(
        f"let x = 2 * ({terms})\nlet y = [{', '.join(map(str, range(80)))}]\nlet z = {terms}\n"
    )
    broken = text[: text.index("let z")].splitlines()
    assert len(broken) > 6
    assert max(map(len, broken)) <= WIDTH


def test_deep_chains_format() -> None:
    text = "let a = " + " + ".join(["x"] * 5000) + "\n"
    assert formatted(text) == text


def test_long_sums_outside_brackets_stay_on_their_line() -> None:
    text = "let a = " + " + ".join(f"J*s[{k}]*s[{k + 1}]" for k in range(2000)) + "\n"
    assert formatted(text) == text.replace("*", " * ")
    wide = "let a = " + " + ".join(["sum(i in sites: s[i])"] * 1200) + "\n"
    assert parsed(formatted(wide)) == parsed(wide)


def test_spans_are_no_part_of_equality() -> None:
    assert parsed("let a = 1") == parsed("\n  let   a =\t1 # one")
    assert all(f.name != "span" or not f.compare for f in dataclasses.fields(ast.Let))
