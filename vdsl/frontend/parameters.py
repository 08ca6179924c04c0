"""Parameters: overrides typed and matched to their declarations, defaults and ranges evaluated and enforced."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Integral, Real

from vdsl.frontend import ast
from vdsl.frontend.findings import Findings, several, suggest
from vdsl.frontend.fold import LARGEST_INTEGER
from vdsl.ir.program import Range

Overrides = dict[str, int | float]
_USAGE = 2  # the exit code of a bad command line


def typed_overrides(given: dict[str, object], declared: Iterable[ast.ParamDecl], findings: Findings) -> Overrides:
    """The overrides as numbers of the declared types. Strings are read as the language reads numbers."""
    declarations = {p.name.id: p for p in declared}
    out: Overrides = {}
    for name, value in given.items():
        declaration = declarations.get(name)
        if declaration is None:
            findings.error(
                "unknown-parameter",
                f"the model has no parameter `{name}`",
                None,
                notes=[f"parameters: {several(declarations)}"],
                hints=suggest(name, declarations),
                exit_code=_USAGE,
            )
            continue
        number = _number(value)
        shown = value if isinstance(value, str) else repr(value)
        if number is None or math.isnan(number):
            findings.error(
                "bad-override",
                f"`{name}` was given {shown}, which is not a number",
                declaration.name.span,
                "declared here",
                exit_code=_USAGE,
            )
        elif is_structural(declaration):
            if not isinstance(number, int):
                findings.error(
                    "bad-override",
                    f"`{name}` is an integer, and was given {shown}",
                    declaration.name.span,
                    "declared as `int` here",
                    exit_code=_USAGE,
                )
            elif abs(number) > LARGEST_INTEGER:
                findings.error(
                    "bad-override",
                    f"`{name}` was given an integer that is too large",
                    declaration.name.span,
                    exit_code=_USAGE,
                )
            else:
                out[name] = number
        else:
            try:
                out[name] = float(number)
            except OverflowError:
                findings.error(
                    "bad-override",
                    f"`{name}` was given a number that is too large",
                    declaration.name.span,
                    exit_code=_USAGE,
                )
    return out


def is_structural(declaration: ast.ParamDecl) -> bool:
    """Whether a parameter is declared `: int`."""
    return declaration.kind is not None and declaration.kind.id == "int"


def enforce(
    declaration: ast.ParamDecl, value: float, allowed: Range | None, overridden: bool, findings: Findings
) -> None:
    """Refuses a value outside the parameter's range; infinity needs a range that admits it."""
    name = declaration.name.id
    if allowed is not None and value in allowed:
        return
    if allowed is None and math.isfinite(value):
        return
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    at = declaration.default.span if declaration.default is not None and not overridden else declaration.name.span
    where = declaration.range.span if declaration.range is not None else None
    wanted = f"the range is {allowed}" if allowed is not None else "a parameter is finite unless its range holds `inf`"
    from vdsl.errors import Related

    findings.error(
        "out-of-range",
        f"`{name}` = {shown} is out of range",
        at,
        "" if overridden else f"this is {shown}",
        related=[Related(where, "declared here")] if where else [],
        notes=[wanted],
        exit_code=_USAGE if overridden else 1,
    )


def _number(value: object) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, str) and len(value) <= 400 and "_" not in value:
        for read in (int, float):
            try:
                return read(value)
            except ValueError:
                continue
    return None
