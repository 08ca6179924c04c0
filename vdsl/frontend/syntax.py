"""What is wrong with a statement that does not parse, in the words of the person who wrote it."""

from __future__ import annotations

import difflib

from vdsl.errors import Diagnostic, Related, Span
from vdsl.frontend import ast
from vdsl.frontend.lexer import HEADS, Token

_COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
_OPERATORS = frozenset({"+", "-", "*", "/", "//", "%", "^", "**", "'", "and", "or", *_COMPARISONS})
_OPERANDS = frozenset({"NAME", "NUMBER", "STRING", ")", "]", "}", "'"})
_PYTHON = {
    "lambda": "a function is a statement of its own: `fn NAME(x) = …`",
    "def": "a function is written `fn NAME(x) = …`",
    "for": "a sum over a set is written `sum(i in sites: …)`",
    "import": "nothing is imported; every function of the language is already there",
    "return": "a function is one expression: `fn NAME(x) = …`",
    "elif": "write `else if`",
    "is": "to compare write `==`",
    "True": "a condition is a comparison, such as `i != j`",
    "False": "a condition is a comparison, such as `i != j`",
    "None": "there is no empty value; leave the default out instead",
}
_MEANT = {
    "const": "let", "var": "let", "set": "let", "def": "fn", "function": "fn", "func": "fn", "hamiltonian": "interaction",
    "energy": "interaction", "term": "interaction", "potential": "interaction", "beta": "temperature",
    "temp": "temperature", "parameter": "param", "variable": "field", "variables": "field", "spin": "field",
    "measure": "observable", "unit": "units",
}  # fmt: skip
_HEAD_SHAPES = {
    "model": 'model NAME "title"',
    "param": "param NAME = 1.0 in [0, inf)",
    "let": "let NAME = expression",
    "fn": "fn NAME(a, b) = expression",
    "data": 'data NAME on SET from "file.csv"` or `data NAME on SET ~ normal(0, 1) seed 1',
    "lattice": "lattice square(L, L)` or `lattice NAME { … }",
    "particles": "particles NAME : N in BOX",
    "units": "units NAME",
    "field": "field NAME : spin",
    "interaction": "interaction NAME = expression",
    "temperature": "temperature expression",
    "observable": "observable NAME = expression",
    "derived": "derived NAME = expression",
    "symmetry": "symmetry z2(s), translation",
    "scan": "scan NAME = linspace(a, b, n)",
    "guide": "guide NAME { … }",
    "train": "train { … }",
}


def bad_head(tokens: list[Token]) -> Diagnostic | None:
    """A statement that does not start with a statement's first word."""
    head = tokens[0]
    if head.type in HEADS:
        return None
    if head.type == "NAME":
        hints = []
        close = difflib.get_close_matches(head.text, HEADS, 1, 0.7) or difflib.get_close_matches(
            head.text.lower(), HEADS, 1, 0.7
        )
        meant = _MEANT.get(head.text.lower()) or (close[0] if close else None)
        if head.text in _PYTHON:
            hints.append(_PYTHON[head.text])
        elif len(tokens) > 1 and tokens[1].type == "=":
            hints.append(f"a constant is declared with `let {head.text} = …`, a parameter with `param {head.text} = …`")
        elif meant:
            hints.append(f"did you mean `{meant}`?")
        return Diagnostic(
            "unknown-statement",
            f"`{head.text}` does not start a statement",
            head.span,
            "not a statement",
            notes=(f"statements start with {_either(HEADS)}",),
            hints=tuple(hints),
        )
    hints = ()
    if head.type in _OPERATORS or head.type in _OPERANDS or head.type in ("(", "[", "{", ",", ":", "="):
        hints = ("a line goes on in the next only inside brackets",)
    return Diagnostic(
        "unknown-statement", f"a statement cannot start with {_found(head)}", head.span, "not a statement", hints=hints
    )


def unexpected(tokens: list[Token], at: int, accepted: frozenset[str]) -> Diagnostic:
    """What to say about token `at` (the end, if it is past the last) when only `accepted` may stand there."""
    token = tokens[at] if at < len(tokens) else None
    before = tokens[at - 1] if at else None
    span = token.span if token else Span(tokens[-1].source, tokens[-1].end, tokens[-1].end + 1)
    if token and token.type in _COMPARISONS and "+" in accepted:
        return _chained(tokens, at)
    expected = _expected(accepted, tokens, at)
    found = _found(token)
    return Diagnostic(
        "syntax",
        f"expected {expected}, found {found}",
        span,
        f"expected {expected}" if len(expected) < 40 else "not expected here",
        related=_opened(tokens, at) if token is None or token.type in ")]}" else (),
        notes=_shape(tokens, at),
        hints=_hints(tokens, at, token, before, accepted),
    )


def not_a_reduction(name: Token, reductions: tuple[str, ...]) -> Diagnostic:
    """`foo(i in sites: …)`."""
    close = difflib.get_close_matches(name.text, reductions, 1)
    return Diagnostic(
        "not-a-reduction",
        f"`{name.text}` does not run over a set",
        name.span,
        f"expected {_either(reductions)}",
        hints=(f"did you mean `{close[0]}`?",) if close else (),
    )


def argument_order(span: Span, keyword: ast.Keyword) -> Diagnostic:
    """`f(a = 1, b)`."""
    return Diagnostic(
        "argument-order",
        "an argument without a name stands after one with a name",
        span,
        "move it to the front",
        related=(Related(keyword.span, "the first named argument"),),
    )


def _chained(tokens: list[Token], at: int) -> Diagnostic:
    first = next((t for t in reversed(tokens[:at]) if t.type in _COMPARISONS), tokens[at])
    return Diagnostic(
        "chained-comparison",
        f"`{first.text}` and `{tokens[at].text}` do not chain",
        tokens[at].span,
        "a second comparison",
        related=(Related(first.span, "the first comparison"),),
        hints=(f"write both and join them: `a {first.text} b and b {tokens[at].text} c`",),
    )


def _found(token: Token | None) -> str:
    if token is None:
        return "the end of the statement"
    text = token.text if len(token.text) <= 30 else token.text[:28] + "…"
    match token.type:
        case "NUMBER":
            return f"the number `{text}`"
        case "STRING":
            return f"the text {text}"
        case "NAME":
            return f"`{text}`"
    return f"`{text}`"


def _expected(accepted: frozenset[str], tokens: list[Token], at: int) -> str:
    if "NUMBER" in accepted:
        others = sorted({")", "]", "}", "from"} & accepted) if tokens[at - 1].type in ("(", "[", "{") else []
        return _join(["an expression", *(f"`{t}`" for t in others)])
    names = []
    if "NAME" in accepted:
        names.append(_name_wanted(tokens, at))
    if "+" in accepted:
        names.append("an operator")
        rest = accepted - _OPERATORS - {"[", "'"}
    else:
        rest = accepted - {"'"}
    words = sorted(t for t in rest - {"NAME", "STRING", "$END"} if t[0].isalpha())
    signs = sorted(t for t in rest - {"NAME", "STRING", "$END"} if not t[0].isalpha())
    names += [f"`{t}`" for t in (*signs, *words)]
    if "STRING" in accepted:
        names.append('a text in "…"')
    if "$END" in accepted:
        names.append("the end of the statement")
    return _join(names)


def _name_wanted(tokens: list[Token], at: int) -> str:
    if at == 1:
        kinds = {"lattice": "the kind of lattice", "units": "the name of the units", "symmetry": "a symmetry"}
        return kinds.get(tokens[0].type, "a name")
    if tokens[at - 1].type == ":" and tokens[0].type == "field":
        return "a type, such as `spin`"
    if tokens[at - 1].type == "on":
        return "a set, such as `sites`"
    return "a name"


def _shape(tokens: list[Token], at: int) -> tuple[str, ...]:
    """How the statement is written, where it went wrong before its expression began."""
    head = tokens[0].type
    if head in _HEAD_SHAPES and at <= 3:
        return (f"it is written `{_HEAD_SHAPES[head]}`",)
    return ()


def _opened(tokens: list[Token], at: int) -> tuple[Related, ...]:
    return ()


def _hints(
    tokens: list[Token], at: int, token: Token | None, before: Token | None, accepted: frozenset[str]
) -> tuple[str, ...]:
    """At most one hint: the first of the common mistakes that fits."""
    text = token.text if token else ""
    for near in (token, before):
        if near is not None and near.type == "NAME" and near.text in _PYTHON:
            return (_PYTHON[near.text],)
    if token is None and "NUMBER" in accepted:
        return ("the statement ends with its line; a line goes on in the next only inside brackets",)
    if token is None:
        return ()
    if text == "==" and "=" in accepted:
        return ("`=` defines, `==` compares",)
    if text == "=" and before and before.type in (":", "=", "<", ">", "!"):
        return ()
    if text == "=" and "==" in accepted:
        return ("to compare write `==`",)
    if text == ":" and "=" in accepted:
        return ("a definition is written with `=`",)
    if token.type in ("if", "let") or (text == "let" and "NUMBER" in accepted):
        return (f"put `{text} …` into brackets when it is part of a larger expression",)
    if text == "'" and "NUMBER" in accepted:
        return ('text is written in double quotes: "…"',)
    if ":" in accepted and "where" in accepted:
        return ("a reduction is written `sum(i in sites: …)`, with a `:` before its body",)
    if "in" in accepted and _in_binder(tokens, at):
        return ("say what the indices run over: `<i, j> in nn: …`",)
    if text == ":" and "+" in accepted:
        return ("say what the index runs over: `sum(i in sites: …)`",)
    if text == "in" and "+" in accepted:
        return ("`in` follows one name, or several in `<…>`: `<i, j> in nn`",)
    if text == "," and ">" in accepted:
        return ("indices in pairs are written `<i, j> in nn`",)
    if before and before.type in _OPERANDS and "*" in accepted and token.type in ("NAME", "NUMBER", "("):
        return ("multiplication is written `*`",)
    if token.type == "STRING" and "$END" in accepted:
        return ("this statement takes no text; write a comment with `#`",)
    return ()


def _in_binder(tokens: list[Token], at: int) -> bool:
    return at > 0 and tokens[at - 1].type == ">"


def _join(names: list[str]) -> str:
    if len(names) <= 1:
        return "".join(names)
    return ", ".join(names[:-1]) + " or " + names[-1]


def _either(names: tuple[str, ...]) -> str:
    return _join([f"`{n}`" for n in names])
