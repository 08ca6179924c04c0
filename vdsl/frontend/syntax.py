"""What is wrong with a statement that does not parse, in the words of the person who wrote it."""

from __future__ import annotations

import difflib

from vdsl.errors import Diagnostic, Related, Span
from vdsl.frontend import ast
from vdsl.frontend.lexer import CELL_HEADS, HEADS, Token

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
    "const": "let", "var": "let", "set": "let", "function": "fn", "func": "fn", "energy": "interaction",
    "hamiltonian": "interaction", "term": "interaction", "potential": "interaction", "beta": "temperature",
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
_CELL_SHAPES = {
    "vectors": "vectors (1, 0), (0, 1)",
    "site": "site A at (0, 0)",
    "bond": "bond x : A -> B (0, 0)",
    "group": "group nn = x, y",
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
            notes=() if hints else (f"statements start with {_either(HEADS)}",),
            hints=tuple(hints),
        )
    brackets: tuple[str, ...] = ()
    if head.type in _OPERATORS or head.type in _OPERANDS or head.type in ("(", "[", "{", ",", ":", "="):
        brackets = ("a line goes on in the next only inside brackets",)
    return Diagnostic(
        "unknown-statement",
        f"a statement cannot start with {_found(head)}",
        head.span,
        "not a statement",
        hints=brackets,
    )


def unexpected(tokens: list[Token], at: int, accepted: frozenset[str]) -> Diagnostic:
    """What to say about token `at` (the end, if it is past the last) when only `accepted` may stand there."""
    token = tokens[at] if at < len(tokens) else None
    if token and token.type in _COMPARISONS and "+" in accepted:
        return _chained(tokens, at)
    hint = _hint(tokens, at, accepted)
    return Diagnostic(
        "syntax",
        f"expected {_expected(accepted, tokens, at)}, found {_found(token)}",
        token.span if token else Span(tokens[-1].source, tokens[-1].end, tokens[-1].end + 1),
        "not expected here" if token else "something is missing here",
        notes=_shape(tokens, at),
        hints=(hint,) if hint else (),
    )


def not_a_reduction(name: Token, reductions: tuple[str, ...]) -> Diagnostic:
    """`foo(i in sites: …)`."""
    said = {"average": "mean", "avg": "mean", "total": "sum", "product": "prod", "maximum": "max", "minimum": "min"}
    close = [said[name.text]] if name.text in said else difflib.get_close_matches(name.text.lower(), reductions, 1)
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
    if token.text == "\n":
        return "the end of the line"
    text = token.text if len(token.text) <= 30 else token.text[:28] + "…"
    match token.type:
        case "NUMBER":
            return f"the number `{text}`"
        case "STRING":
            return f"the text {text}"
    return f"`{text}`"


def _expected(accepted: frozenset[str], tokens: list[Token], at: int) -> str:
    """What may stand there, in words: the general before the particular, and no more than helps."""
    if "NUMBER" in accepted:
        return "an expression"
    names = []
    rest = accepted - {"NAME", "STRING", "$END"}
    if "NAME" in accepted:
        names.append(_name_wanted(tokens, at))
    if "+" in accepted:
        names.append("an operator")
        rest -= _OPERATORS | {"(", "[", "="}
    elif tokens[at - 1].type in _OPERANDS and (accepted - {"(", "[", "'"}) and "{" not in accepted:
        rest -= {"(", "[", "'"}
    names += [f"`{t}`" for t in sorted(rest, key=lambda t: (t[0].isalpha(), t))]
    if "STRING" in accepted and ("+" not in accepted or not names):
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
    """How the statement, or the item of a unit cell, is written, where it went wrong early."""
    item = _item_start(tokens, at)
    head = tokens[item].type
    shape = (_CELL_SHAPES if item else _HEAD_SHAPES).get(head)
    early = at - item <= (6 if item else 3)
    return (f"it is written `{shape}`",) if shape and early else ()


def _item_start(tokens: list[Token], at: int) -> int:
    """Where the item of a `{…}` that holds token `at` starts; 0 outside blocks."""
    inside = 0
    for i in range(at - 1, -1, -1):
        if tokens[i].type in ")]}":
            inside += 1
        elif tokens[i].type in "([" and inside:
            inside -= 1
        elif tokens[i].type in (";", "{") and not inside:
            return i + 1 if i + 1 < len(tokens) else 0
    return 0


def _hint(tokens: list[Token], at: int, accepted: frozenset[str]) -> str | None:
    """The first of the common mistakes that fits, and what to write instead."""
    token, before = (tokens[at] if at < len(tokens) else None), tokens[at - 1]
    text = token.text if token else ""
    for near in (token, before):
        if near is not None and near.type == "NAME" and near.text in _PYTHON:
            return _PYTHON[near.text]
    if accepted == {"="} and before.text not in CELL_HEADS and _item_start(tokens, at) == at - 1:
        close = difflib.get_close_matches(before.text, CELL_HEADS, 1)
        if close and tokens[0].type == "lattice":
            return f"did you mean `{close[0]}`?"
    if token is None:
        if "else" in accepted:
            return "every `if` has an `else`"
        if "NUMBER" in accepted:
            return "a statement goes on in the next line only inside brackets"
        return None
    if text == "=" and at == 1 and "NUMBER" in accepted:
        return f"`{tokens[0].text}` takes no `=`"
    if text == "==" and "=" in accepted:
        return "`=` defines, `==` compares"
    if text == "=" and "==" in accepted:
        return "to compare write `==`"
    if text in ("if", "let") and "NUMBER" in accepted:
        return f"put `{text} …` into brackets when it is part of a larger expression"
    if text == "'" and accepted & {"NUMBER", "STRING"}:
        return 'text is written in double quotes: "…"'
    if accepted == {"in"} and before.type == ">":
        return "say what the indices run over: `<i, j> in nn: …`"
    if (":" in accepted and "where" in accepted) or (accepted == {"in"} and tokens[at - 2].type == ","):
        return "a reduction is written `sum(i in sites: …)`, with a `:` before its body"
    if text == ":" and ("in" in accepted or ("+" in accepted and ")" in accepted)):
        return "say what the index runs over: `sum(i in sites: …)`"
    if text == ":" and "=" in accepted:
        return "a definition is written with `=`"
    if text == "in" and "on" in accepted:
        return "write `on`: a field stands on a set"
    if text == "in" and "+" in accepted:
        return "`in` follows one name, or several in `<…>`: `<i, j> in nn`"
    if text == "," and ">" in accepted and "+" not in accepted:
        return "indices in pairs are written `<i, j> in nn`"
    if before.type in _OPERANDS and "*" in accepted and token.type in ("NAME", "NUMBER", "("):
        return "multiplication is written `*`"
    if token.type == "STRING" and "$END" in accepted:
        return "this statement takes no text; write a comment with `#`"
    return None


def _join(names: list[str]) -> str:
    if len(names) <= 1:
        return "".join(names)
    return ", ".join(names[:-1]) + " or " + names[-1]


def _either(names: tuple[str, ...]) -> str:
    return _join([f"`{n}`" for n in names])
