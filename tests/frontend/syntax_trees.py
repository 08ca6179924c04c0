"""Random syntax trees: every node type, every position a name may stand in, soft keywords as names."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from vdsl.errors import Source, Span
from vdsl.frontend import ast

_SPAN = Span(Source("tree", ""), 0, 0)

_WORDS = (
    "s", "J", "i", "x_1", "theta", "β", "sum", "mean", "pi", "inf", "normal", "nn", "sites", "graph", "model", "param",
    "let", "fn", "data", "lattice", "field", "interaction", "temperature", "on", "from", "seed", "at", "where",
    "vectors", "site", "bond", "group", "train", "guide",
)  # fmt: skip
_NUMBERS = ("0", "1", "16", "1.0", "2.", ".5", "1e-3", "2.5E+10", "007", "2.269185314213022")


def make(kind: type, *parts: Any) -> st.SearchStrategy[Any]:
    """Nodes of a kind from strategies for its parts."""
    return st.builds(lambda *values: kind(*values, span=_SPAN), *parts)


names = make(ast.Name, st.sampled_from(_WORDS))
strings = make(
    ast.String,
    st.text(
        st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")) | st.sampled_from('\\"\n\t#;'),
        max_size=8,
    ),
)
numbers = st.sampled_from(_NUMBERS).map(lambda t: ast.Number(t, int(t) if t.isdigit() else float(t), span=_SPAN))
_OPS = ("+", "-", "*", "/", "//", "%", "^", "==", "!=", "<", "<=", ">", ">=", "and", "or")


def _several(items: st.SearchStrategy[Any], least: int = 0, most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, min_size=least, max_size=most).map(tuple)


def _keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[ast.Keyword, ...]]:
    return _several(make(ast.Keyword, names, inner), most=2)


def _compound(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    binder = make(ast.BinderExpr, _several(names, 1, 1), inner, st.just(False)) | make(
        ast.BinderExpr, _several(names, 1, 3), inner, st.just(True)
    )
    reduction = make(ast.Name, st.sampled_from(("sum", "prod", "mean", "max", "min")))
    return st.one_of(
        make(ast.Prefix, st.sampled_from(("-", "+", "not")), inner),
        make(ast.Postfix, st.just("'"), inner),
        make(ast.Infix, st.sampled_from(_OPS), inner, inner),
        make(ast.If, inner, inner, inner),
        make(ast.LetIn, names, inner, inner),
        make(ast.CallExpr, names, _several(inner), _keywords(inner)),
        make(ast.Index, inner, _several(inner, 1)),
        make(ast.TupleExpr, _several(inner, 1)),
        make(ast.ListExpr, _several(inner)),
        make(ast.Reduction, reduction, _several(binder, 1, 2), st.none() | inner, inner),
    )


exprs = st.recursive(numbers | names | strings, _compound, max_leaves=12)
small = st.recursive(numbers | names | strings, _compound, max_leaves=4)
calls = make(ast.CallExpr, names, _several(small), _keywords(small))
sets = names | calls
docs = st.none() | strings
ranges = make(ast.RangeExpr, small, small, st.booleans(), st.booleans())
options = make(ast.Option, names, small)
_origins = make(ast.FromFile, strings, _several(options)) | make(ast.Drawn, calls, st.none() | small, _several(options))
_cell_items = st.one_of(
    make(ast.CellVectors, _several(small, 1)),
    make(ast.CellSite, names, small),
    make(ast.CellBond, names, names, names, small),
    make(ast.CellGroup, names, _several(names, 1)),
    options,
)
statements = st.one_of(
    make(ast.Model, names, docs),
    make(ast.ParamDecl, names, st.none() | names, st.none() | exprs, st.none() | ranges, docs),
    make(ast.Let, names, exprs, docs),
    make(ast.Fn, names, _several(names), exprs, docs),
    make(ast.DataDecl, names, st.none() | sets, _origins, docs),
    make(ast.LatticeDecl, names, _several(exprs), _keywords(exprs), st.none()),
    make(ast.LatticeDecl, names, st.just(()), _keywords(exprs), strings),
    make(ast.UnitCell, names, _several(_cell_items, most=5)),
    make(ast.Particles, names, exprs, exprs),
    make(ast.Units, names),
    make(ast.FieldDecl, names, sets | make(ast.Index, names, _several(small, 1)), st.none() | sets, docs),
    make(ast.Interaction, names, exprs, docs),
    make(ast.Temperature, exprs),
    make(ast.ObservableDecl, names, exprs, docs),
    make(ast.DerivedDecl, names, exprs, docs),
    make(ast.SymmetryDecl, _several(sets, 1)),
    make(ast.ScanDecl, names, exprs),
    make(ast.Block, st.just("guide"), st.none() | names, _several(options)),
    make(ast.Block, st.just("train"), st.none(), _several(options)),
)
modules = _several(statements, most=6).map(lambda s: ast.Module(s, (), _SPAN))


def nested_pairs() -> list[ast.Expr]:
    """Every form of expression with every form in each of its places."""
    a, b, c = (ast.Name(n, span=_SPAN) for n in "abc")

    def forms(x: ast.Expr, y: ast.Expr, z: ast.Expr) -> list[ast.Expr]:
        binder = ast.BinderExpr((b,), x, False, span=_SPAN)
        return [
            *(ast.Infix(op, x, y, span=_SPAN) for op in _OPS),
            *(ast.Prefix(op, x, span=_SPAN) for op in ("-", "+", "not")),
            ast.Postfix("'", x, span=_SPAN),
            ast.Index(x, (y,), span=_SPAN),
            ast.If(x, y, z, span=_SPAN),
            ast.LetIn(b, x, y, span=_SPAN),
            ast.TupleExpr((x,), span=_SPAN),
            ast.TupleExpr((x, y), span=_SPAN),
            ast.ListExpr((x,), span=_SPAN),
            ast.CallExpr(a, (x,), (ast.Keyword(b, y, span=_SPAN),), span=_SPAN),
            ast.Reduction(ast.Name("sum", span=_SPAN), (binder,), y, z, span=_SPAN),
        ]

    inner = forms(a, b, c)
    return [
        *(outer for form in inner for outer in forms(form, b, c)),
        *(outer for form in inner for outer in forms(a, form, c)),
        *(outer for form in inner for outer in forms(a, b, form)),
    ]
