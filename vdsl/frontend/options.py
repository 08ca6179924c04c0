"""Claims, sweeps and settings: the statements that say how to treat a model rather than what it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vdsl.errors import Related
from vdsl.frontend import ast
from vdsl.frontend.findings import Findings, count, declared, several, suggest
from vdsl.frontend.values import Broken, Quantity, Text
from vdsl.ir.claims import KINDS, can_act
from vdsl.ir.expr import Const, Items
from vdsl.ir.program import Claim, Field, Range, Scan, Settings
from vdsl.ir.settings import GUIDE_OPTIONS, GUIDES, TRAIN_OPTIONS, Option
from vdsl.ir.support import describe

LONGEST_SCAN = 100_000
Evaluate = Callable[[ast.Expr], object]


def claims_of(
    s: ast.SymmetryDecl, field_of: Callable[[str], Field | None], names: list[str], findings: Findings
) -> list[Claim]:
    """The claims of one statement, each of a known kind and about fields that it can act on."""
    out = []
    for node in s.claims:
        name = node.function if isinstance(node, ast.CallExpr) else node
        arguments = node.arguments if isinstance(node, ast.CallExpr) else ()
        if not isinstance(name, ast.Name) or name.id not in KINDS:
            spelled = name.id if isinstance(name, ast.Name) else ""
            findings.error(
                "unknown-symmetry",
                f"no symmetry called `{spelled}`",
                name.span,
                notes=[f"symmetries: {several(KINDS)}"],
                hints=suggest(spelled, KINDS),
            )
            continue
        if name.id == "translation" and isinstance(node, ast.CallExpr):
            hints = ["write `translation`"]
            findings.error("wrong-arguments", "`translation` moves every field, and names none", node.span, hints=hints)
            continue
        fields = [_acted_on(a, name.id, field_of, names, findings) for a in arguments]
        if all(f is not None for f in fields):
            acted_on = dict.fromkeys(f.name for f in fields if f is not None)
            out.append(Claim(name.id, tuple(acted_on), node.span))
    return out


def scan_of(
    s: ast.ScanDecl, evaluate: Evaluate, allowed: Range | None, structural: bool, at: ast.ParamDecl, findings: Findings
) -> Scan | None:
    """The values of a sweep, each within the parameter's range."""
    values = _scan_values(s, evaluate, findings)
    if values is None:
        return None
    if len(values) == 0:
        findings.error("bad-scan", f"the scan of `{s.name.id}` is empty", s.values.span)
        return None
    for value in values:
        if structural and value != int(value):
            findings.error(
                "bad-scan",
                f"`{s.name.id}` is an integer, and the scan holds {value:g}",
                s.values.span,
                related=[declared(s.name.id, at.name.span)],
                hints=["use `range(…)` or a list"],
            )
            return None
        if not np.isfinite(value) or (allowed is not None and value not in allowed):
            findings.error(
                "out-of-range",
                f"the scan holds {s.name.id} = {value:g}, which is out of range",
                s.values.span,
                related=[Related(at.range.span, "declared here")] if at.range else [],
                notes=[f"the range is {allowed}"] if allowed else [],
            )
            return None
    return Scan(s.name.id, tuple(float(v) for v in values))


def settings_of(s: ast.Block, evaluate: Evaluate, findings: Findings) -> Settings:
    """The name and the options of a `guide` or `train` block, each known to it and of the kind that it takes."""
    name = s.name.id if s.name else ""
    known: dict[str, Option] = TRAIN_OPTIONS if s.head == "train" else GUIDE_OPTIONS.get(name, {})
    if s.name and name not in GUIDES:
        findings.error(
            "unknown-guide",
            f"no guide called `{name}`",
            s.name.span,
            notes=[f"guides: {several(GUIDES)}"],
            hints=suggest(name, GUIDES),
        )
        return Settings(name)
    options: dict[str, bool | int | float | str] = {}
    places: dict[str, ast.Name] = {}
    for option in s.options:
        key = option.key.id
        if key in places:
            findings.error(
                "duplicate-name",
                f"the option `{key}` is given twice",
                option.key.span,
                related=[Related(places[key].span, "first given here")],
            )
            continue
        places[key] = option.key
        if key not in known:
            findings.error(
                "unknown-option",
                f"`{' '.join(part for part in (s.head, name) if part)}` has no option `{key}`",
                option.key.span,
                notes=[f"options: {_listed(known)}"],
                hints=suggest(key, known) or _elsewhere(s, key),
            )
            continue
        value = _option(option.value, evaluate)
        if value is not None and not isinstance(value, Broken) and known[key].accepts(value):
            options[key] = value
        elif not isinstance(value, Broken):
            findings.error("bad-option", f"`{key}` is {known[key]}", option.value.span)
    return Settings(name, tuple(sorted(options.items())))


def _listed(known: dict[str, Option]) -> str:
    """`layers` (an integer from 1 to 64), …"""
    return several(f"`{name}` ({option})" for name, option in known.items())


def _elsewhere(s: ast.Block, key: str) -> list[str]:
    """Which guides have an option that this one has not."""
    having = [name for name, options in GUIDE_OPTIONS.items() if key in options]
    if s.head != "guide" or not having:
        return []
    return [f"`{key}` is an option of {several(f'`guide {name}`' for name in having)}"]


def _option(node: ast.Expr, evaluate: Evaluate) -> bool | int | float | str | Broken | None:
    """A number, a truth value or a string known when compiling; None for anything else."""
    match evaluate(node):
        case Broken() as broken:
            return broken
        case Text(text):
            return text
        case Quantity(_, Const(value)) if not isinstance(value, complex):
            return value
    return None


def _acted_on(
    node: ast.Expr, kind: str, field_of: Callable[[str], Field | None], names: list[str], findings: Findings
) -> Field | None:
    name = node.id if isinstance(node, ast.Name) else ""
    if name not in names:
        findings.error(
            "unknown-field",
            f"no field called `{name}`" if name else "a symmetry acts on fields, named one by one",
            node.span,
            "not a field",
            notes=[f"fields: {several(names)}"],
            hints=suggest(name, names),
        )
        return None
    field = field_of(name)
    if field is None:
        return None
    if not can_act(kind, field):
        message = f"`{kind}` does not act on `{name}`, a field of `{describe(field.support)}` on {field.on}"
        findings.error("wrong-symmetry", message, node.span)
        return None
    return field


def _scan_values(s: ast.ScanDecl, evaluate: Evaluate, findings: Findings) -> Sequence[float] | np.ndarray | None:
    match s.values:
        case ast.CallExpr(function=ast.Name(id=("linspace" | "range") as name), arguments=nodes, keywords=()):
            numbers = [_real(n, evaluate, findings) for n in nodes]
            if any(x is None for x in numbers):
                return None
            known = [x for x in numbers if x is not None]
            if name == "linspace" and len(known) == 3 and isinstance(known[2], int) and 1 <= known[2] <= LONGEST_SCAN:
                return np.linspace(known[0], known[1], known[2])
            whole = all(isinstance(x, int) for x in known)
            if name == "range" and whole and 1 <= len(known) <= 3 and (len(known) < 3 or known[2] != 0):
                values = range(*(int(x) for x in known))
                if len(values) <= LONGEST_SCAN:
                    return values
            wanted = (
                "`linspace(first, last, how many)`" if name == "linspace" else "`range(start, stop, step)` of integers"
            )
            findings.error(
                "bad-scan",
                f"a scan was expected as {wanted}",
                s.values.span,
                notes=[f"at most {count(LONGEST_SCAN, 'value')}"],
            )
            return None
        case _:
            match evaluate(s.values):
                case Broken():
                    return None
                case Quantity(_, Items(items)) if all(isinstance(x, Const) for x in items):
                    return [x.value.real for x in items if isinstance(x, Const)]
    findings.error("bad-scan", "a scan is `linspace(a, b, n)`, `range(…)` or a list of numbers", s.values.span)
    return None


def _real(node: ast.Expr, evaluate: Evaluate, findings: Findings) -> int | float | None:
    match evaluate(node):
        case Quantity(_, Const(value)) if not isinstance(value, bool | complex):
            return value
        case Broken():
            return None
    findings.error("bad-scan", "a number known when compiling was expected here", node.span)
    return None
