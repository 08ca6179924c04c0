"""Field types: `spin`, `potts(3)`, `real[3]`, `SU(2)` … -> supports."""

from __future__ import annotations

from collections.abc import Callable

from vdsl.frontend import ast
from vdsl.frontend.findings import Findings, several, suggest
from vdsl.frontend.values import Broken, Quantity
from vdsl.ir.expr import Const
from vdsl.ir.kinds import INT
from vdsl.ir.support import Angle, Clock, Complex, Group, Occupation, Potts, Real, Sphere, Spin, Support

MOST_STATES = 32767
LONGEST_VECTOR = 1024
PLAIN: dict[str, Support] = {
    "spin": Spin(),
    "occupation": Occupation(),
    "real": Real(),
    "complex": Complex(),
    "angle": Angle(),
}
# name -> (what it makes, smallest and largest argument)
WITH_SIZE: dict[str, tuple[Callable[[int], Support], int, int]] = {
    "potts": (Potts, 1, MOST_STATES),
    "clock": (Clock, 1, MOST_STATES),
    "sphere": (Sphere, 2, LONGEST_VECTOR),
}
GROUPS = {("U", 1): Group("U1"), ("SU", 2): Group("SU2"), ("SU", 3): Group("SU3")}
_SPELLINGS = (
    "spin",
    "potts(q)",
    "clock(q)",
    "occupation",
    "real",
    "real[n]",
    "complex",
    "angle",
    "sphere(n)",
    "U(1)",
    "SU(2)",
    "SU(3)",
)
Evaluate = Callable[[ast.Expr], Quantity | Broken]


def support_of(node: ast.Expr, evaluate: Evaluate, findings: Findings) -> Support | None:
    """The support that a field type names; None when it names none (reported)."""
    match node:
        case ast.Name(id="position") | ast.CallExpr(function=ast.Name(id="position")):
            findings.error("not-supported-yet", "`position` needs particles, which are not supported yet", node.span)
            return None
        case ast.Name(id=name) if name in PLAIN:
            return PLAIN[name]
        case ast.Index(value=ast.Name(id="real"), index=(length,)):
            n = _size(length, "real[n]", 1, LONGEST_VECTOR, evaluate, findings)
            return None if n is None else Real(n)
        case ast.CallExpr(function=ast.Name(id=name), arguments=(size,), keywords=()) if name in WITH_SIZE:
            make, least, most = WITH_SIZE[name]
            n = _size(size, f"{name}(n)", least, most, evaluate, findings)
            return None if n is None else make(n)
        case ast.CallExpr(function=ast.Name(id=("U" | "SU") as name), arguments=(size,), keywords=()):
            n = _size(size, f"{name}(n)", 1, 10**6, evaluate, findings)
            if n is None:
                return None
            if (name, n) in GROUPS:
                return GROUPS[name, n]
            findings.error(
                "unknown-type", f"`{name}({n})` is not a field type", node.span, notes=["groups: U(1), SU(2), SU(3)"]
            )
            return None
    head = node
    while isinstance(head, ast.CallExpr | ast.Index):
        head = head.function if isinstance(head, ast.CallExpr) else head.value
    name = head.id if isinstance(head, ast.Name) else ""
    known = {s.split("(")[0].split("[")[0]: s for s in _SPELLINGS}
    if name in known:
        hints: tuple[str, ...] = (f"write `{known[name]}`",)
    else:
        hints = tuple(h for h in suggest(name, known))
    findings.error(
        "unknown-type",
        f"no field type called `{name}`" if name not in known else f"`{name}` is not used like this",
        node.span,
        "not a field type",
        notes=[f"field types: {several(_SPELLINGS)}"],
        hints=hints,
    )
    return None


def _size(node: ast.Expr, what: str, least: int, most: int, evaluate: Evaluate, findings: Findings) -> int | None:
    value = evaluate(node)
    match value:
        case Broken():
            return None
        case Quantity(kind, Const(int(n))) if kind == INT:
            if least <= n <= most:
                return n
            findings.error("out-of-range", f"`{what}` goes from {least} to {most}, and this is {n}", node.span)
            return None
    findings.error(
        "not-an-integer", f"the size in `{what}` is an integer, and this is {value}", node.span, "not an integer"
    )
    return None
