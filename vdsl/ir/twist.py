"""Twists: the derivative of an energy when a field turns by an angle a more in every cell along an axis.

The value at cell n is turned by a·n: an angle θ becomes θ + a n, a complex number z becomes z e^{ian}, a vector turns
in the plane of its components 0 and 1. Only differences enter an energy that is the same when all values turn together,
so a value read at a distance of d cells from the place that an element of a sum belongs to turns by a·d, also across
the periodic boundary: the derivative in a is that of the energy under twisted boundary conditions (Fisher, Barber &
Jasnow 1973, Phys. Rev. A 8, 1111). That each element stays the same is tried on random values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import pi, sqrt
from typing import Any

import numpy as np

from vdsl.ir.expr import (
    Binary,
    Call,
    Const,
    DataRead,
    Expr,
    IndexVar,
    Item,
    Items,
    Place,
    Read,
    Reduce,
    Select,
    Unary,
    children,
    walk,
)
from vdsl.ir.lattice import OPEN
from vdsl.ir.program import Field
from vdsl.ir.support import Angle, Complex, Group, Real, Sphere, event_shape, is_complex
from vdsl.ir.trial import OVER_SITES, TooInvolved, World, vanishes

ZERO, ONE = Const(0), Const(1)


class NotATwist(TooInvolved):
    """The energy has no such derivative; the text says why."""


@dataclass(frozen=True)
class Model(World):
    """What the derivative must know besides: how many cells a bond of a set, given by its ends, spans along an axis."""

    span: Callable[[str, int, Place, Place], Expr]


def can_turn(field: Field) -> bool:
    """Whether a field's values turn continuously in a plane."""
    match field.support:
        case Angle() | Complex() | Group("U1") | Sphere():
            return True
        case Real(int(n)):
            return n >= 2
    return False


def derivative(energy: Expr, field: Field, axis: int, model: Model) -> Expr:
    """∂E/∂a.

    Raises NotATwist where a distance is unknown or E is no function of differences, TooInvolved where that is not told.
    """
    return _Derivative(field, axis, model).of(energy, {})


Anchor = tuple[int, Expr]  # which place distances are counted from, and the distance of a variable from it
Frame = Mapping[str, Anchor]


class _Derivative:
    """One derivative; `uniform`: every value turns by the same angle instead."""

    def __init__(self, field: Field, axis: int, model: Model, uniform: bool = False):
        self.field, self.axis, self.model, self.uniform = field, axis, model, uniform
        self.anchors = 0

    def of(self, e: Expr, frame: Frame) -> Expr:
        if not _reads(e, self.field.name):
            return ZERO
        match e:
            case Read():
                return self.read(e, frame)
            case Unary("-", x):
                return _times(Const(-1), self.of(x, frame))
            case Unary("'", x):
                return _linear("conj", self.of(x, frame))
            case Binary(op, a, b):
                return self.binary(op, a, b, frame)
            case Select(condition, yes, no) if not _reads(condition, self.field.name):
                one, other = self.of(yes, frame), self.of(no, frame)
                return ZERO if one == other == ZERO else Select(condition, one, other)
            case Call(function, arguments):
                return self.call(function, arguments, frame)
            case Items(items):
                parts = tuple(self.of(x, frame) for x in items)
                return ZERO if all(p == ZERO for p in parts) else Items(parts)
            case Item(value, index):
                inner = self.of(value, frame)
                return ZERO if inner == ZERO else Item(inner, index)
            case Reduce():
                return self.reduce(e, frame)
        raise NotATwist("a condition on it jumps")

    def read(self, e: Read, frame: Frame) -> Expr:
        turned = ONE if self.uniform else self.distance(e.place, frame)
        if turned == ZERO:
            return ZERO
        match self.field.support:
            case Angle():
                return turned
            case Complex() | Group():
                return _times(turned, Binary("*", Const(1j), e))
        x, y = (replace(e, component=(Const(k),)) for k in range(2))
        match e.component:
            case ():
                n = getattr(self.field.support, "n", 2)
                return _times(turned, Items((Unary("-", y), x, *(Const(0.0),) * (n - 2))))
            case (Const(0),):
                return _times(turned, Unary("-", y))
            case (Const(1),):
                return _times(turned, x)
            case (Const(),):
                return ZERO
            case (k,):
                first, second = Call("delta", (k, Const(0))), Call("delta", (k, Const(1)))
                return _times(turned, Binary("-", _times(second, x), _times(first, y)))
        raise NotATwist("a value is read in an unknown way")

    def distance(self, place: Place, frame: Frame) -> Expr:
        """Cells along the axis from the anchor of a place."""
        if place.base is None or place.base not in frame:
            raise NotATwist("it reads a site by its number")
        total = frame[place.base][1]
        for axis, amount in place.steps:
            if isinstance(axis, str):
                total = _plus(total, _times(Call("delta", (IndexVar(axis), Const(self.axis))), amount))
            elif axis == self.axis:
                total = _plus(total, amount)
        return total

    def binary(self, op: str, a: Expr, b: Expr, frame: Frame) -> Expr:
        if op == "^":
            return self.power(a, b, frame)
        x, y = self.of(a, frame), self.of(b, frame)
        match op:
            case "+":
                return _plus(x, y)
            case "-":
                return _plus(x, _times(Const(-1), y))
            case "*":
                return _plus(_times(x, b), _times(a, y))
            case "/":
                first = ZERO if x == ZERO else Binary("/", x, b)
                second = ZERO if y == ZERO else Binary("/", _times(a, y), Binary("^", b, Const(2)))
                return _plus(first, _times(Const(-1), second))
        raise NotATwist(f"`{op}` has no derivative")

    def power(self, a: Expr, n: Expr, frame: Frame) -> Expr:
        if _reads(n, self.field.name):
            raise NotATwist("an exponent depends on it")
        if isinstance(n, Const) and isinstance(n.value, int):
            if n.value == 1:
                return self.of(a, frame)
            k = n.value
            match a:  # even powers of a length are smooth, a length is not
                case Call("abs", (z,)) if k % 2 == 0:
                    a, n = Call("re", (Binary("*", Call("conj", (z,)), z),)), Const(k // 2)
                    return self.power(a, n, frame)
                case Call("norm", (v,)) if k % 2 == 0:
                    return self.power(Call("dot", (v, v)), Const(k // 2), frame)
        inner = self.of(a, frame)
        lower = Const(n.value - 1) if isinstance(n, Const) else Binary("-", n, ONE)
        rest = a if lower == ONE else Binary("^", a, lower)
        return _times(_times(n, rest), inner)

    def call(self, function: str, arguments: tuple[Expr, ...], frame: Frame) -> Expr:
        match function, arguments:
            case "re" | "im" | "conj", (x,):
                return _linear(function, self.of(x, frame))
            case "dot" | "cross", (a, b):
                x, y = self.of(a, frame), self.of(b, frame)
                first = ZERO if x == ZERO else Call(function, (x, b))
                second = ZERO if y == ZERO else Call(function, (a, y))
                return _plus(first, second)
            case "norm", (v,):
                inner = self.of(v, frame)
                return ZERO if inner == ZERO else Binary("/", Call("dot", (v, inner)), Call("norm", (v,)))
            case name, (x,) if name in _SLOPES:
                inner = self.of(x, frame)
                return ZERO if inner == ZERO else _times(_SLOPES[name](x), inner)
        if all(self.of(x, frame) == ZERO for x in arguments):
            return ZERO
        raise NotATwist(f"`{function}` is not smooth, or has no derivative here")

    def reduce(self, e: Reduce, frame: Frame) -> Expr:
        if e.where is not None and _reads(e.where, self.field.name):
            raise NotATwist("a `where` depends on it")
        inner = self.bind(e, frame)
        own = {v: a for v, a in inner.items() if v not in frame}
        if own:
            if self.uniform:
                return ZERO  # tried by itself
            self.check_element(e, own)
        body = self.of(e.body, inner)
        if body == ZERO:
            return ZERO
        if e.op not in ("sum", "mean"):
            raise NotATwist(f"`{e.op}` has no derivative")
        if OPEN in self.model.lattice.boundary:
            body = _reading_as_much(body, e.body, self.model)
        return Reduce(e.op, e.binders, body, e.where)

    def bind(self, e: Reduce, frame: Frame) -> Frame:
        """The frame with the sites that a reduction binds; the ends of a bond have one anchor, those of a pair two."""
        bound = dict(frame)
        for binder in e.binders:
            if binder.over.kind not in OVER_SITES:
                continue
            self.anchors += 1
            first = binder.variables[0]
            bound[first] = (self.anchors, ZERO)
            if binder.over.kind == "bonds":
                i, j = binder.variables
                bound[j] = (self.anchors, self.model.span(binder.over.name, self.axis, Place(i), Place(j)))
            elif binder.over.kind == "pairs":
                self.anchors += 1
                bound[binder.variables[1]] = (self.anchors, ZERO)
        return bound

    def check_element(self, e: Reduce, own: Frame) -> None:
        """Whether all that an element reads hangs together and may turn together."""
        bases = {r.place.base for r in _own_reads(e.body, self.field.name)}
        if any(base not in own for base in bases):
            raise NotATwist("a sum inside a sum reads both sites" if None not in bases else "it reads a fixed site")
        if len({own[str(base)][0] for base in bases}) > 1:
            raise NotATwist("it relates sites whose distance is not known")
        turned = _Derivative(self.field, self.axis, self.model, uniform=True).of(e.body, own)
        if turned == ZERO:
            return
        for seed in range(2):
            if not vanishes(turned, e, self.model, np.random.default_rng(seed)):
                raise NotATwist("its terms change when all values turn together")


# Expressions


def _reads(e: Expr, field: str) -> bool:
    return any(isinstance(node, Read) and node.field == field for node in walk(e))


def _own_reads(e: Expr, field: str) -> list[Read]:
    """What an element reads itself, or through sums over integers and axes; sums over sites look after themselves."""
    found, stack = [], [e]
    while stack:
        node = stack.pop()
        if isinstance(node, Read) and node.field == field:
            found.append(node)
        if not (isinstance(node, Reduce) and any(b.over.kind in OVER_SITES for b in node.binders)):
            stack.extend(c for c in children(node) if not isinstance(c, Place))
    return found


def _reading_as_much(body: Expr, original: Expr, model: Model) -> Expr:
    """The body times one, absent where the original is: past an open boundary."""
    here = {_where(r) for r in _direct(body)}
    one: Expr = ONE
    for r in _direct(original):
        places = (r.place,) if isinstance(r, Read) else r.places
        if any(p.steps for p in places) and _where(r) not in here:
            here.add(_where(r))
            one = Binary("+", one, Binary("*", Const(0.0), _number(r, model)))
    return _times(one, body)


def _where(r: Read | DataRead) -> tuple[Any, Any]:
    return (r.place if isinstance(r, Read) else r.places, r.axis)


def _number(r: Read | DataRead, model: Model) -> Expr:
    """A real number made of what is read."""
    if isinstance(r, DataRead):
        found = model.data(r.data)
        scalar = found.values.values.ndim == (found.on is not None) + len(r.index)
        return r if scalar else Item(r, (Const(0),))
    support = model.field(r.field).support
    rest = len(event_shape(support)) - len(r.component)
    value = replace(r, component=(*r.component, *(Const(0),) * rest))
    return Call("re", (value,)) if is_complex(support) else value


def _direct(e: Expr) -> list[Read | DataRead]:
    found, stack = [], [e]
    while stack:
        node = stack.pop()
        if isinstance(node, Read | DataRead):
            found.append(node)
        if not isinstance(node, Reduce):
            stack.extend(c for c in children(node) if not isinstance(c, Place))
    return found


def _plus(a: Expr, b: Expr) -> Expr:
    if a == ZERO:
        return b
    if b == ZERO:
        return a
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(a.value + b.value)
    return Binary("+", a, b)


def _times(a: Expr, b: Expr) -> Expr:
    if a == ZERO or b == ZERO:
        return ZERO
    if a == ONE:
        return b
    if b == ONE:
        return a
    if isinstance(a, Const) and isinstance(b, Const):
        return Const(a.value * b.value)
    if a == Const(-1):
        return b.operand if isinstance(b, Unary) and b.op == "-" else Unary("-", b)
    return Binary("*", a, b)


def _linear(function: str, inner: Expr) -> Expr:
    return ZERO if inner == ZERO else Call(function, (inner,))


_SLOPES: dict[str, Callable[[Expr], Expr]] = {
    "cos": lambda x: Unary("-", Call("sin", (x,))),
    "sin": lambda x: Call("cos", (x,)),
    "tan": lambda x: Binary("^", Call("cos", (x,)), Const(-2)),
    "exp": lambda x: Call("exp", (x,)),
    "expm1": lambda x: Call("exp", (x,)),
    "log": lambda x: Binary("/", Const(1.0), x),
    "log1p": lambda x: Binary("/", Const(1.0), Binary("+", Const(1.0), x)),
    "sqrt": lambda x: Binary("/", Const(0.5), Call("sqrt", (x,))),
    "sinh": lambda x: Call("cosh", (x,)),
    "cosh": lambda x: Call("sinh", (x,)),
    "tanh": lambda x: Binary("^", Call("cosh", (x,)), Const(-2)),
    "logcosh": lambda x: Call("tanh", (x,)),
    "atan": lambda x: Binary("/", Const(1.0), Binary("+", Const(1.0), Binary("^", x, Const(2)))),
    "asinh": lambda x: Binary("/", Const(1.0), Call("sqrt", (Binary("+", Const(1.0), Binary("^", x, Const(2))),))),
    "erf": lambda x: Binary("*", Const(2 / sqrt(pi)), Call("exp", (Unary("-", Binary("^", x, Const(2))),))),
}
