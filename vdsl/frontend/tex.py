"""A checked Program to the LaTeX of its Hamiltonian: amsmath, one aligned line a term.

Levels say how tightly a form holds together, as in the formatter: or 1, and 2, not 3, comparison 4, sum 5, a product
that ends in a big operator 5.5 (its body reaches to the end, so nothing may follow), product 6, sign 7, power 8,
atom 9.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from vdsl.errors import InternalError
from vdsl.ir import expr as ir
from vdsl.ir.program import Program

_GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi "  # noqa: SIM905
    "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega".split()
)
_NAMED = {"lam": r"\lambda", "eps": r"\epsilon", "inf": r"\infty"}
_COMPARE = {"==": "=", "!=": r"\ne", "<": "<", "<=": r"\le", ">": ">", ">=": r"\ge", "and": r"\land", "or": r"\lor"}
_LEVELS = {"or": 1, "and": 2, **dict.fromkeys(("==", "!=", "<", "<=", ">", ">="), 4), "+": 5, "-": 5}
_FUNCTIONS = frozenset("sin cos tan sinh cosh tanh exp log max min det arg".split())  # noqa: SIM905
_OPERATORS = {"re": "Re", "im": "Im", "tr": "Tr", "sign": "sgn", "asin": "arcsin", "acos": "arccos", "atan": "arctan"}
_AROUND = {
    "abs": (r"\left|", r"\right|"),
    "norm": (r"\left\lVert ", r"\right\rVert"),
    "sqrt": (r"\sqrt{", "}"),
    "conj": (r"\overline{", "}"),
    "floor": (r"\left\lfloor ", r"\right\rfloor"),
    "ceil": (r"\left\lceil ", r"\right\rceil"),
}
_BIG = {"sum": r"\sum", "prod": r"\prod", "max": r"\max", "min": r"\min", "mean": r"\operatorname*{mean}"}


def tex(program: Program) -> str:
    """An `align*` of H, term by term, then of the definitions it uses."""
    lines = [("H &= 0", "")] if not program.terms else []
    for i, term in enumerate(program.terms):
        text = _at(term.value, 5)
        lead = "H &=" if i == 0 else r"&\quad" if text.startswith("-") else r"&\quad +"
        lines.append((f"{lead} {text}", f"  % {term.name}"))
    lines += [(f"{_name(d.name)} &= {_at(d.value, 5)}", "") for d in program.definitions]
    newline = r" \\"
    body = [f"  {line}{newline if i < len(lines) - 1 else ''}{note}" for i, (line, note) in enumerate(lines)]
    return "\n".join([r"\begin{align*}", *body, r"\end{align*}", ""])


def _name(name: str) -> str:
    """`beta` is a Greek letter, `m2` and `x_1` have subscripts, longer names stand upright."""
    if name in _NAMED:
        return _NAMED[name]
    if name in _GREEK:
        return f"\\{name}"
    if len(name) == 1:
        if name.isascii():
            return name if name != "_" else r"\_"
        greek = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", unicodedata.name(name, ""))
        case, letter = greek.groups() if greek else ("", "")
        letter = {"LAMDA": "LAMBDA"}.get(letter, letter)
        known = letter.lower() if case == "SMALL" else letter.capitalize()
        return f"\\{known}" if known in _GREEK else name
    split = re.fullmatch(r"(.*[^_0-9])(?:_([^_]+)|([0-9]+))", name)
    if split:
        subscript = split[3] or (split[2] if split[2].isdigit() else _name(split[2]))
        return f"{_name(split[1])}_{{{subscript}}}"
    return _upright(name)


def _upright(name: str) -> str:
    escaped = name.replace("_", r"\_")
    return rf"\mathrm{{{escaped}}}"


def _indexed(name: str, subscript: str, superscript: str = "") -> str:
    base = f"{{{_name(name)}}}" if "_" in _name(name) else _name(name)
    return base + (f"_{{{subscript}}}" if subscript else "") + (f"^{{{superscript}}}" if superscript else "")


def _number(value: bool | int | float | complex) -> str:
    match value:
        case bool():
            return r"\text{true}" if value else r"\text{false}"
        case complex():
            sign = "-" if value.imag < 0 else "+"
            return rf"\left({_number(value.real)} {sign} {_number(abs(value.imag))} i\right)"
        case float() if math.isinf(value):
            return r"\infty" if value > 0 else r"-\infty"
        case float() if abs(value) == math.pi:
            return r"\pi" if value > 0 else r"-\pi"
    text = f"{value:.12g}" if isinstance(value, float) else str(value)
    mantissa, _, exponent = text.partition("e")
    return rf"{mantissa} \times 10^{{{int(exponent)}}}" if exponent else text


def _level(e: ir.Expr) -> float:
    match e:
        case ir.Reduce():
            return 5.5
        case ir.Binary("*", _, right):
            return 5.5 if _open_ended(right) else 6
        case ir.Binary("/"):
            return 8  # a fraction; as the base of a power it needs brackets
        case ir.Binary(op):
            return _LEVELS.get(op, 8 if op == "^" else 6)
        case ir.Unary("'"):
            return 8
        case ir.Unary(op, operand):
            return 3 if op == "not" else 5.5 if _open_ended(operand) else 7
        case ir.Call("dot" | "cross"):
            return 6
        case ir.Const(value):
            text = _number(value)
            return 7 if text.startswith("-") else 6 if r"\times" in text else 9
    return 9


def _open_ended(e: ir.Expr) -> bool:
    return isinstance(e, ir.Reduce) or (isinstance(e, ir.Unary | ir.Binary) and _level(e) == 5.5)


def _at(e: ir.Expr, needed: float) -> str:
    """An expression, in brackets if it holds together less than `needed`."""
    text = _text(e)
    return text if _level(e) >= needed else rf"\left({text}\right)"


def _factor(e: ir.Expr) -> str:
    """The right factor of a product: a big operator may end it, a sign may not begin it."""
    text = _text(e)
    if text.startswith("-"):
        return rf"\left({text}\right)"
    if _open_ended(e) or (_level(e) >= 6 and not isinstance(e, ir.Binary)) or _level(e) >= 8:
        return text
    return rf"\left({text}\right)"


def _text(e: ir.Expr) -> str:
    # Chains of operators are walked down their left side in a loop: a sum of a thousand terms is a thousand deep.
    chain: list[ir.Binary] = []
    while isinstance(e, ir.Binary) and e.op in ("+", "-", "*"):
        chain.append(e)
        if _level(e.left) < (5 if e.op in "+-" else 6):
            break
        e = e.left
    if not chain:
        return _leaf(e)
    out = [_at(chain[-1].left, 5 if chain[-1].op in "+-" else 6)] if e is chain[-1] else [_leaf(e)]
    for node in reversed(chain):
        if node.op == "*":
            right = _factor(node.right)
            out.append(rf" \cdot {right}" if right[0].isdigit() else f" {right}")
        else:
            right = _at(node.right, 5.5)
            out.append(f" {node.op} " + (rf"\left({right}\right)" if right.startswith("-") else right))
    return "".join(out)


def _leaf(e: ir.Expr) -> str:
    match e:
        case ir.Const(value):
            return _number(value)
        case ir.Param(name) | ir.Ref(name) | ir.IndexVar(name):
            return _name(name)
        case ir.Read(field, place, axis, component):
            upper = f"({', '.join(_text(c) for c in component)})" if component else ""
            return _indexed(field, ", ".join([_place(place), *_axes(axis)]), upper)
        case ir.DataRead(data, _, places, axis, index):
            return _indexed(data, ", ".join([*map(_place, places), *_axes(axis), *map(_text, index)]))
        case ir.Unary("-", operand):
            return "-" + _factor(operand)
        case ir.Unary("not", operand):
            return rf"\lnot {_at(operand, 9)}"
        case ir.Unary("'", operand):
            return f"{_base(operand)}^{{\\dagger}}"
        case ir.Binary("/", ir.Unary("-", left), right):
            return rf"-\frac{{{_text(left)}}}{{{_text(right)}}}"
        case ir.Binary("/", left, right):
            return rf"\frac{{{_text(left)}}}{{{_text(right)}}}"
        case ir.Binary("//", left, right):
            return rf"\left\lfloor \frac{{{_text(left)}}}{{{_text(right)}}} \right\rfloor"
        case ir.Binary("%", left, right):
            return rf"{_at(left, 8)} \bmod {_at(right, 8)}"
        case ir.Binary("^", left, right):
            return f"{_base(left)}^{{{_text(right)}}}"
        case ir.Binary(op, left, right):
            level = _level(e)
            return f"{_at(left, level if op in ('and', 'or') else 5)} {_COMPARE[op]} {_at(right, level + 1)}"
        case ir.Select(condition, yes, no):
            cases = rf"{_text(yes)} & \text{{if }} {_text(condition)} \\ {_text(no)} & \text{{otherwise}}"
            return rf"\begin{{cases}} {cases} \end{{cases}}"
        case ir.Call(function, arguments):
            return _call(function, arguments)
        case ir.Items(items):
            return rf"\left({', '.join(map(_text, items))}\right)"
        case ir.Item(value, index):
            return rf"\left({_text(value)}\right)_{{{', '.join(map(_text, index))}}}"
        case ir.Reduce(op, binders, body, where):
            return f"{_BIG[op]}{_limits(binders, where)} {_at(body, 5.5)}"
        case ir.Expect(value):
            return rf"\left\langle {_text(value)} \right\rangle"
    raise InternalError(f"no LaTeX for {type(e).__name__}")


def _base(e: ir.Expr) -> str:
    """What a superscript may be put on."""
    bare = _level(e) == 9 and not isinstance(e, ir.Call) and not (isinstance(e, ir.Read) and e.component)
    return _text(e) if bare else rf"\left({_text(e)}\right)"


def _call(function: str, arguments: Sequence[ir.Expr]) -> str:
    inner = ", ".join(map(_text, arguments))
    match function:
        case "delta":
            return rf"\delta_{{{inner}}}"
        case "dot" | "cross":
            sign = r"\cdot" if function == "dot" else r"\times"
            return f"{_at(arguments[0], 9)} {sign} {_at(arguments[1], 9)}"
    if function in _AROUND:
        return inner.join(_AROUND[function])
    name = f"\\{function}" if function in _FUNCTIONS else rf"\operatorname{{{_OPERATORS.get(function, function)}}}"
    return rf"{name}\left({inner}\right)"


def _axes(axis: int | str | None) -> list[str]:
    return [] if axis is None else [str(axis) if isinstance(axis, int) else _name(axis)]


def _place(place: ir.Place) -> str:
    out = _name(place.base) if place.base is not None else _text(place.number) if place.number is not None else ""
    for axis, amount in place.steps:
        unit = rf"\hat{{{axis if isinstance(axis, int) else _name(axis)}}}"
        text = _at(amount, 6)
        sign = "-" if text.startswith("-") else "+"
        times = text.removeprefix("-")
        out += f" {sign} {'' if times == '1' else times}{unit}"
    return out


def _limits(binders: Sequence[ir.Binder], where: ir.Expr | None) -> str:
    """What stands under the big operator; the last number of a single range stands above it."""
    if len(binders) == 1 and where is None and binders[0].over.kind == "range" and binders[0].over.bounds[2] == 1:
        start, stop, _ = binders[0].over.bounds
        return f"_{{{_name(binders[0].variables[0])}={start}}}^{{{stop - 1}}}"
    over = r",\, ".join(_over(b) for b in binders)
    return rf"_{{\substack{{{over} \\ {_text(where)}}}}}" if where is not None else f"_{{{over}}}"


def _over(binder: ir.Binder) -> str:
    names = [_name(v) for v in binder.variables]
    match binder.over.kind:
        case "bonds":
            kind = "" if binder.over.name == "nn" else f"_{{{_upright(binder.over.name)}}}"
            return rf"\langle {','.join(names)} \rangle{kind}"
        case "pairs":
            return "<".join(names)
        case "planes":
            return "<".join(names)
        case "plaquettes":
            return f"{names[0]},\\, {'<'.join(names[1:])}"
        case "range":
            start, stop, step = binder.over.bounds
            shown = ", ".join(str(n) for n in range(start, stop, step)[:3])
            return f"{start} \\le {names[0]} < {stop}" if step == 1 else rf"{names[0]} \in \{{{shown}, \dots\}}"
    return ", ".join(names)
