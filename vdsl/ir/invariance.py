"""How terms change when a field is flipped, shifted, rotated, recoloured or translated: read off from their form.

Each analysis walks an expression bottom-up and computes how its value transforms; what it cannot follow it counts as
broken. So whatever is found to be a symmetry is one for certain, and some symmetries are not found.

- `parities`: the value is a sum of parts, each odd in some set of fields and even in the others. A joint sign flip
  leaves it alone if every such set meets the flipped fields in an even number.
- `phase_constraints`, `shift_constraints`: a value has a charge, an integer for each field, under ψ_f → e^{i c_f} ψ_f
  or θ_f → θ_f + c_f. Each constraint v found says v·c = 0 (mod 2π); the symmetries are the c that satisfy them all.
- `compared_together`: fields whose values are only ever compared for equality, in classes.
- `rotated_together`: vector fields that enter only through scalar products, in classes.
- `is_homogeneous`: nothing refers to a particular site.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from vdsl.ir.expr import (
    Binary,
    Call,
    Const,
    DataRead,
    Expr,
    IndexVar,
    Item,
    Items,
    Param,
    Place,
    Read,
    Reduce,
    Ref,
    Select,
    Unary,
    children,
    walk,
)
from vdsl.ir.interpret import evaluate
from vdsl.ir.program import Program
from vdsl.ir.values import BINARY, apply_unary

ODD_FUNCTIONS = frozenset(["sin", "tan", "asin", "atan", "sinh", "tanh", "asinh", "atanh", "erf", "sign"])
EVEN_FUNCTIONS = frozenset(["cos", "cosh", "logcosh", "abs", "norm"])
LINEAR_FUNCTIONS = frozenset(["re", "im", "conj", "tr"])
PERIODIC_FUNCTIONS = frozenset(["cos", "sin", "tan", "wrap"])
_MOST_PARTS = 256


# What is analysed


def terms(program: Program, theta: Mapping[str, float] | None = None) -> tuple[Expr, ...]:
    """The energy terms with observables written out; at given parameters, without what is multiplied by 0 there."""
    observables = {o.name: o.value for o in program.observables}
    definitions = {d.name for d in program.definitions}

    def visit(node: Expr) -> Expr:
        match node:
            case Ref(name) if name in observables:
                return _rewrite(observables[name], visit)
            case Param() if theta is not None:
                return Const(theta[node.name])
            case Ref(name) if theta is not None and name in definitions:
                value = evaluate(program, node, theta)
                return node if getattr(value, "ndim", 0) else Const(value)
        return fold(node)

    return tuple(_rewrite(term.value, visit) for term in program.terms)


def fold(node: Expr) -> Expr:
    """A node whose children are folded, folded: constants computed, products with 0 and sums of 0 removed."""
    zero = Const(0)
    match node:
        case Unary(op, Const(value)):
            return Const(apply_unary(op, value))
        case Binary("*", Const(0), _) | Binary("*", _, Const(0)) | Binary("/", Const(0), _):
            return zero
        case Binary("+", Const(0), other) | Binary("+" | "-", other, Const(0)):
            return other
        case Binary("+" | "-" | "*" as op, Const(a), Const(b)):
            return Const(BINARY[op](a, b))
        case Reduce("sum" | "mean", _, Const(0)):
            return zero
    return node


def _rewrite(node: Expr, visit: Callable[[Expr], Expr]) -> Expr:
    """The node with `visit` applied to it and to all expressions below, children first."""

    def inside(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(inside(v) for v in value)
        if isinstance(value, Place):
            return value
        return _rewrite(value, visit) if isinstance(value, Expr) else value

    changes = {f.name: inside(getattr(node, f.name)) for f in fields(node) if f.name != "binders"}
    return visit(replace(node, **changes))


# Sign flips


def parities(expr: Expr, bit: Mapping[str, int]) -> frozenset[int]:
    """The sets of fields (bit masks) in which the parts of a value are odd; `bit` gives the mask of each field."""

    def of(node: Expr) -> frozenset[int]:
        match node:
            case Read(name):
                return frozenset({bit.get(name, 0)})
            case Unary("-" | "'", operand):
                return of(operand)
            case Unary("not", operand):
                return of(operand) | {0}
            case Binary("+" | "-", left, right):
                return _few(of(left) | of(right))
            case Binary("*" | "and", left, right):
                return _product(of(left), of(right))
            case Binary("or", left, right):
                a, b = of(left), of(right)
                return _few(a | b | _product(a, b))
            case Binary("/", left, right):
                below = of(right)
                return _product(of(left), below if len(below) == 1 else _span(below))
            case Binary("^", base, Const(int(n))):
                parts = of(base)
                if len(parts) == 1:
                    return parts if n % 2 else frozenset({0})
                return _span(parts)
            case Binary("==" | "!=", a, b) | Call("delta", (a, b)):
                ours, theirs = of(a), of(b)
                return frozenset({0}) if ours == theirs and len(ours) == 1 else _span(ours | theirs)
            case Select(condition, yes, no):
                return _product(of(condition) | {0}, of(yes) | of(no))
            case Call("dot" | "cross", (a, b)):
                return _product(of(a), of(b))
            case Call(name, (a,)) if name in LINEAR_FUNCTIONS:
                return of(a)
            case Call(name, (a,)) if name in ODD_FUNCTIONS | EVEN_FUNCTIONS and len(of(a)) == 1:
                return of(a) if name in ODD_FUNCTIONS else frozenset({0})
            case Items(items):
                return _few(frozenset().union(*(of(i) for i in items)) or frozenset({0}))
            case Item(value):
                return of(value)
            case Reduce("sum" | "mean", _, body, where):
                return of(body) if where is None else _product(of(body), _span(of(where)))
        parts = frozenset().union(*(of(child) for child in children(node) if not isinstance(child, Place)))
        return _span(parts)  # a function of the parts: it can depend on the flip only through their signs

    return of(expr)


def _product(a: frozenset[int], b: frozenset[int]) -> frozenset[int]:
    return _few(frozenset(x ^ y for x in a for y in b))


def _span(masks: frozenset[int]) -> frozenset[int]:
    """All sums (mod 2) of the masks, 0 among them."""
    span = {0}
    for mask in masks:
        if mask not in span:
            span |= {mask ^ other for other in span}
        if len(span) > _MOST_PARTS:
            break
    else:
        return frozenset(span)
    return _few(frozenset(span | masks))


def _few(masks: frozenset[int]) -> frozenset[int]:
    """The masks; when there are too many, each field on its own, which allows no flip of any of them."""
    if len(masks) <= _MOST_PARTS:
        return masks
    every = 0
    for mask in masks:
        every |= mask
    return frozenset({0} | {1 << k for k in range(every.bit_length()) if every >> k & 1})


# Phases and shifts

Charge = tuple[int, ...]


@dataclass(frozen=True)
class _Angular:
    """An angle modulo 2π: it moves by `charge`·c, and is made of the fields `touched`."""

    charge: Charge
    touched: frozenset[int]


def phase_constraints(expr: Expr, number: Mapping[str, int]) -> set[Charge]:
    """Constraints on the phases of complex fields; `number` gives the place of each field in a charge."""
    zero = (0,) * len(number)
    found: set[Charge] = set()

    def neutral(*charges: Charge) -> Charge:
        found.update(charges)
        return zero

    def same(*charges: Charge) -> Charge:
        """The charge of a sum: its parts must agree."""
        found.update(_subtract(c, charges[0]) for c in charges[1:])
        return charges[0] if charges else zero

    def of(node: Expr) -> Charge:
        match node:
            case Const(0):
                return zero
            case Read(name) if name in number:
                return tuple(int(k == number[name]) for k in range(len(number)))
            case Unary("-", operand):
                return of(operand)
            case Unary("'", operand) | Call("conj", (operand,)):
                return _scale(-1, of(operand))
            case Binary("*", left, right):
                return _add(of(left), of(right))
            case Binary("/", left, right):
                return _subtract(of(left), of(right))
            case Binary("+" | "-", left, right):
                return same(of(left), of(right))
            case Binary("^", base, Const(int(n))):
                return _scale(n, of(base))
            case Binary("==" | "!=", left, right) | Call("delta", (left, right)):
                return neutral(same(of(left), of(right)))
            case Call("abs", (a,)):
                of(a)
                return zero
            case Call("tr", (a,)):
                return of(a)
            case Select(condition, yes, no):
                neutral(of(condition))
                return same(of(yes), of(no))
            case Reduce("sum" | "mean", _, body, where):
                if where is not None:
                    neutral(of(where))
                return of(body)
        return neutral(*(of(child) for child in children(node) if not isinstance(child, Place)))

    neutral(of(expr))
    return found - {zero}


def shift_constraints(expr: Expr, number: Mapping[str, int]) -> set[Charge]:
    """Constraints on the shifts of angle and clock fields, whose values mean something only modulo 2π."""
    zero = (0,) * len(number)
    found: set[Charge] = set()

    def unit(k: int) -> Charge:
        return tuple(int(k == m) for m in range(len(number)))

    def fixed(*values: _Angular | None) -> None:
        """An angle used where 2π is not 0: its fields cannot move."""
        found.update(unit(k) for value in values if value is not None for k in value.touched)

    def of(node: Expr) -> _Angular | None:
        """None for a value that does not move once the constraints hold."""
        match node:
            case Read(name) if name in number:
                return _Angular(unit(number[name]), frozenset({number[name]}))
            case Unary("-", operand):
                a = of(operand)
                return None if a is None else _Angular(_scale(-1, a.charge), a.touched)
            case Binary("+" | "-" as op, left, right):
                a, b = of(left), of(right)
                if a is None and b is None:
                    return None
                a, b = a or _Angular(zero, frozenset()), b or _Angular(zero, frozenset())
                return _Angular((_add if op == "+" else _subtract)(a.charge, b.charge), a.touched | b.touched)
            case Binary("*", Const(int(n)), other) | Binary("*", other, Const(int(n))):
                a = of(other)
                return None if a is None else _Angular(_scale(n, a.charge), a.touched)
            case Call(name, (argument,)) if name in PERIODIC_FUNCTIONS:
                a = of(argument)
                if a is not None:
                    found.add(a.charge)
                return None
            case Binary("==" | "!=", Read(f), Read(g)) | Call("delta", (Read(f), Read(g))) if f == g:
                return None
        fixed(*(of(child) for child in children(node) if not isinstance(child, Place)))
        return None

    fixed(of(expr))
    return found - {zero}


def _add(a: Charge, b: Charge) -> Charge:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def _subtract(a: Charge, b: Charge) -> Charge:
    return tuple(x - y for x, y in zip(a, b, strict=True))


def _scale(n: int, a: Charge) -> Charge:
    return tuple(n * x for x in a)


# Colours and rotations


class Classes:
    """Names in disjoint classes, some of them broken."""

    def __init__(self, names: Iterable[str]):
        self.parent = {name: name for name in names}
        self.broken: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.parent

    def root(self, name: str) -> str:
        while self.parent[name] != name:
            name = self.parent[name]
        return name

    def join(self, names: Iterable[str]) -> None:
        for a, b in itertools.pairwise(sorted(names)):
            self.parent[self.root(a)] = self.root(b)

    def breaks(self, names: Iterable[str]) -> None:
        self.broken.update(names)

    def intact(self) -> tuple[tuple[str, ...], ...]:
        """The classes without a broken member, in the order of their first names."""
        members: dict[str, list[str]] = {}
        for name in self.parent:
            members.setdefault(self.root(name), []).append(name)
        return tuple(tuple(m) for m in members.values() if not self.broken & set(m))


def compared_together(exprs: Iterable[Expr], names: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Classes of the fields whose values are only compared, by `==`, `!=` or `delta`, within their class."""
    classes = Classes(names)
    for expr in exprs:
        stack: list[Expr | Place] = [expr]
        while stack:
            node = stack.pop()
            match node:
                case Binary("==" | "!=", Read(f), Read(g)) | Call("delta", (Read(f), Read(g))) if (
                    f in classes and g in classes
                ):
                    classes.join((f, g))
                    continue
                case Read(f) if f in classes:
                    classes.breaks((f,))
            stack.extend(children(node))
    return classes.intact()


def rotated_together(exprs: Iterable[Expr], names: Iterable[str]) -> tuple[tuple[tuple[str, ...], ...], frozenset[str]]:
    """Classes of vector fields that a common rotation leaves alone, and the fields that no reflection does."""
    classes = Classes(names)
    proper: set[str] = set()

    def of(node: Expr) -> frozenset[str] | None:
        """The fields a vector is a combination of; None for an invariant."""
        match node:
            case Read(name, _, _, ()) if name in classes:
                return frozenset({name})
            case Unary("-", operand):
                return of(operand)
            case Binary("+" | "-", left, right) | Select(_, left, right):
                if isinstance(node, Select):
                    broken(of(node.condition))
                a, b = of(left), of(right)
                if a is None or b is None:
                    broken(a, b)
                    return None
                classes.join(a | b)
                return a | b
            case Binary("*", left, right):
                a, b = of(left), of(right)
                if a is not None and b is not None:
                    broken(a, b)
                return a if b is None else b
            case Binary("/", left, right):
                broken(of(right))
                return of(left)
            case Call("dot" | "cross" as name, (left, right)):
                a, b = of(left), of(right)
                if a is None or b is None:
                    broken(a, b)
                    return None
                classes.join(a | b)
                if name == "dot":
                    return None
                proper.update(a | b)
                return a | b
            case Call("norm", (a,)):
                of(a)
                return None
            case Reduce("sum" | "mean", _, body, where):
                if where is not None:
                    broken(of(where))
                return of(body)
        broken(*(of(child) for child in children(node) if not isinstance(child, Place)))
        if isinstance(node, Read) and node.field in classes:
            classes.breaks((node.field,))
        return None

    def broken(*values: frozenset[str] | None) -> None:
        for value in values:
            classes.breaks(value or ())

    for expr in exprs:
        broken(of(expr))
    return classes.intact(), frozenset(proper)


# Translations


def is_homogeneous(expr: Expr) -> bool:
    """Whether a term treats all cells alike: it names no site, uses no site's number, reads no data of sites or bonds.

    A sum over `pairs` counts as inhomogeneous, because a translation can swap the two ends of a pair.
    """
    sites: set[str] = set()
    for node in walk(expr):
        if isinstance(node, Reduce):
            for binder in node.binders:
                match binder.over.kind:
                    case "pairs":
                        return False
                    case "sites" | "bonds":
                        sites.update(binder.variables)
                    case "links" | "plaquettes":
                        sites.add(binder.variables[0])
    for node in walk(expr):
        match node:
            case Place(base=None):
                return False
            case DataRead(key="site" | "link" | "bond"):
                return False
            case IndexVar(name) if name in sites:
                return False
    return True
