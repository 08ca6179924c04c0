"""Warns where the energy of a real field certainly has no lower bound: then ln Z does not exist.

The energy of the uniform configuration with every real value equal to t is often a polynomial in t. Its leading
coefficient decides: a negative one, or an odd degree, lets the energy fall without end. Anything that is not such a
polynomial is left alone, so a warning is always right and silence proves nothing. On lattices that are not large more
directions than the uniform one are looked at (vdsl.frontend.growth).
"""

from __future__ import annotations

from vdsl.frontend.findings import Findings
from vdsl.frontend.growth import warn_unbound_directions
from vdsl.frontend.scope import Scope
from vdsl.frontend.sets import SetTable
from vdsl.ir.expr import Binary, Const, Expr, Param, Read, Reduce, Ref, Unary
from vdsl.ir.lattice import Lattice
from vdsl.ir.program import Program
from vdsl.ir.support import Complex, Real

Polynomial = dict[int, float]
HIGHEST_DEGREE = 64


def warn_unbounded(program: Program, values: dict[str, Expr | None], scope: Scope, findings: Findings) -> None:
    """Warns once per real field, at its declaration."""
    lattice = program.lattice
    if lattice is None or not any(isinstance(f.support, Real | Complex) for f in program.fields):
        return
    numbers = {name: float(v.value.real) for name, v in values.items() if isinstance(v, Const)}
    if all(b == "periodic" for b in lattice.boundary):
        before = len(findings.warnings)
        _warn_uniform(program, numbers, lattice, scope, findings)
        if len(findings.warnings) > before:
            return
    if len(numbers) == len(values):
        warn_unbound_directions(program, numbers, scope, findings)


def _warn_uniform(
    program: Program, numbers: dict[str, float], lattice: Lattice, scope: Scope, findings: Findings
) -> None:
    """Looks at uniform configurations, of lattices of any size."""
    for field in program.fields:
        if field.support != Real():
            continue
        energy: Polynomial | None = {}
        for term in program.terms:
            part = _polynomial(term.value, field.name, program, SetTable(lattice), numbers)
            if part is not None and energy is not None:
                energy = _add(energy, part)
            else:
                energy = None
        degree = _degree(energy) if energy is not None else 0
        if energy is None or degree == 0 or (degree % 2 == 0 and energy[degree] > 0):
            continue
        sign = "negative" if energy[degree] < 0 else "positive"
        findings.warning(
            "unbounded-energy",
            f"the energy has no lower bound in `{field.name}`",
            scope.values[field.name].name.span,
            notes=[
                f"in the uniform configuration it falls like {field.name}^{degree} (a {sign} coefficient), so that "
                "ln Z is infinite"
            ],
            hints=["add a term that grows faster, or change the sign of a coupling"],
        )


def _degree(p: Polynomial) -> int:
    scale = max((abs(c) for c in p.values()), default=0.0)
    return max((n for n, c in p.items() if abs(c) > 1e-9 * scale), default=0)


def _add(a: Polynomial, b: Polynomial, sign: float = 1.0) -> Polynomial:
    return {n: a.get(n, 0.0) + sign * b.get(n, 0.0) for n in {*a, *b}}


def _multiply(a: Polynomial, b: Polynomial) -> Polynomial | None:
    if a and b and max(a) + max(b) > HIGHEST_DEGREE:
        return None
    out: Polynomial = {}
    for n, x in a.items():
        for m, y in b.items():
            out[n + m] = out.get(n + m, 0.0) + x * y
    return out


def _polynomial(e: Expr, field: str, program: Program, sets: SetTable, numbers: dict[str, float]) -> Polynomial | None:
    def go(x: Expr) -> Polynomial | None:
        return _polynomial(x, field, program, sets, numbers)

    match e:
        case Const(value) if isinstance(value, int | float) and not isinstance(value, bool):
            return {0: float(value)}
        case Param(name) if name in numbers:
            return {0: numbers[name]}
        case Ref(name):
            definition = next((d for d in program.definitions if d.name == name), None)
            return None if definition is None else go(definition.value)
        case Read(name, _, _, ()) if name == field:
            return {1: 1.0}
        case Read(name, _, _, ()) if program.field(name).support == Real():
            return {0: 0.0}  # the other real fields are held at zero
        case Unary("-", x):
            inner = go(x)
            return None if inner is None else _add({}, inner, -1.0)
        case Binary("+" | "-" as op, a, b):
            left, right = go(a), go(b)
            return None if left is None or right is None else _add(left, right, 1.0 if op == "+" else -1.0)
        case Binary("*", a, b):
            left, right = go(a), go(b)
            return None if left is None or right is None else _multiply(left, right)
        case Binary("/", a, b):
            left, right = go(a), go(b)
            if left is None or right is None or _degree(right) > 0 or not right.get(0):
                return None
            return {n: c / right[0] for n, c in left.items()}
        case Binary("^", a, Const(int(n))) if 0 <= n <= HIGHEST_DEGREE:
            base, out = go(a), {0: 1.0}
            for _ in range(n):
                product = None if base is None or out is None else _multiply(out, base)
                if product is None:
                    return None
                out = product
            return out
        case Reduce("sum", binders, body, None):
            inner = go(body)
            elements = 1
            for binder in binders:
                elements *= sets.count(binder.over)
            return None if inner is None else {n: c * elements for n, c in inner.items()}
    return None
