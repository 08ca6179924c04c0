"""Expressions: a syntax tree and the declarations around it -> a kind and an IR expression.

Nothing is raised for a user's mistake: it is reported, and the expression becomes `BROKEN`, which whatever contains it
passes on in silence, so that several mistakes in one statement are all found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from vdsl.errors import Related, Span
from vdsl.frontend import ast, calls, fold, indexing, places, reductions
from vdsl.frontend.arithmetic import infix_kind
from vdsl.frontend.chains import balanced
from vdsl.frontend.findings import Findings, declared
from vdsl.frontend.open_loops import OpenLoop, open_loop, reads_of
from vdsl.frontend.scope import Scope
from vdsl.frontend.sets import SetTable
from vdsl.frontend.values import (
    BROKEN,
    Axis,
    Broken,
    Displacement,
    Quantity,
    Site,
    Text,
    Value,
    number,
)
from vdsl.ir.expr import Const, Expr, IndexVar, Items, Place, Read, SetOf, children, walk
from vdsl.ir.kinds import (
    BOOL,
    COMPLEX_LEVEL,
    INT,
    INT_LEVEL,
    REAL,
    Scalar,
    Vector,
    is_number,
    join,
)
from vdsl.ir.program import Data, Field
from vdsl.ir.support import is_discrete

LARGEST_EXPRESSION = 100_000
DEEPEST_EXPRESSION = 120


@dataclass(frozen=True)
class Role:
    """Where an expression stands, and so what it may depend on."""

    name: str
    parameters: bool = True
    data: bool = False
    fields: bool = False
    observables: bool = False
    expect: bool = False


SIZE = Role("a size", parameters=False)
DEFAULT = Role("the default of a parameter")
CONSTANT = Role("a constant", data=True)
TEMPERATURE = Role("the temperature", data=True)
ENERGY = Role("an interaction", data=True, fields=True)
OBSERVABLE = Role("an observable", data=True, fields=True, observables=True)
DERIVED = Role("a derived quantity", data=True, expect=True)


class Declarations(Protocol):
    """What names stand for; declarations are checked when first asked for."""

    findings: Findings
    scope: Scope
    open_loops: dict[Span, OpenLoop]

    def value(self, name: str) -> Value | Data | Field:
        """A parameter, constant, data set, field, observable or derived quantity."""
        ...

    def energy_of(self, interaction: str) -> Value:
        """The value of an interaction."""
        ...

    def temperature(self) -> Value:
        """The temperature."""
        ...

    def sets(self) -> SetTable | None:
        """The sets of the lattice; None if the lattice is broken."""
        ...

    def declared(self, name: str) -> Field | Data:
        """A field or data set, also one that the compiler made itself."""
        ...

    def bond_span(self, bonds: str, axis: int, i: Place, j: Place) -> Expr:
        """How many cells a bond of a set, given by its ends, spans along an axis."""
        ...


class Elaborator:
    """Checks one top-level expression."""

    def __init__(self, declarations: Declarations, role: Role):
        self.world = declarations
        self.role = role
        self.locals: dict[str, Value] = {}
        self.ranges: dict[str, tuple[int, int]] = {}
        self._fresh = 0
        self._depth = 0
        self._calls: list[Related] = []
        self._measured: dict[int, tuple[Expr | Place, int, int]] = {}
        self._too_large = False

    def error(self, code: str, message: str, span: Span, label: str = "", **more: Any) -> Broken:
        """Reports an error, with the calls that led to it."""
        more["related"] = [*more.get("related", ()), *self._calls]
        self.world.findings.error(code, message, span, label, **more)
        return BROKEN

    # Walking the tree

    def value(self, node: ast.Expr) -> Value:
        """What an expression stands for."""
        if self._too_large:
            return BROKEN
        if self._depth >= DEEPEST_EXPRESSION:
            return self._too_deep(node)
        self._depth += 1
        try:
            result = self._value(node)
        except fold.FoldError as found:
            result = self.error(found.code, str(found), node.span)
        finally:
            self._depth -= 1
        return result if not isinstance(result, Quantity) else self._bounded(result, node)

    def quantity(self, node: ast.Expr) -> Quantity | Broken:
        """The value of an expression that must be a number, a truth value, a vector or a matrix."""
        return self.as_quantity(self.value(node), node.span)

    def as_quantity(self, value: Value, span: Span) -> Quantity | Broken:
        """A site or an axis stands for its number where a number is needed."""
        match value:
            case Quantity() | Broken():
                return value
            case Site(Place(str(base), ())):
                return Quantity(INT, IndexVar(base))
            case Site(Place(None, (), n)) if n is not None:
                return Quantity(INT, n)
            case Axis(int(axis)):
                return number(axis)
            case Axis(str(axis)):
                return Quantity(INT, IndexVar(axis))
        return self.error("kind-mismatch", f"a number was expected here, and this is {value}", span, "not a number")

    def _value(self, node: ast.Expr) -> Value:
        match node:
            case ast.Number(value=value):
                return self._literal(value)
            case ast.String(value=text):
                return Text(text)
            case ast.Name():
                return self._name(node)
            case ast.Prefix(op=op, operand=operand):
                return self._prefix(op, self.value(operand), node)
            case ast.Postfix(operand=operand):
                return self._adjoint(self.value(operand), node)
            case ast.Infix():
                return self._infix(node)
            case ast.If():
                return self._if(node)
            case ast.LetIn(name=name, value=bound, body=body):
                return self.under({name.id: self.value(bound)}, body)
            case ast.CallExpr():
                return calls.call(self, node)
            case ast.Index():
                return indexing.index(self, node)
            case ast.TupleExpr(items=items) | ast.ListExpr(items=items):
                return self._items(items, node)
            case ast.Reduction():
                return reductions.reduction(self, node)

    def _literal(self, value: int | float) -> Quantity:
        constant = fold.literal(value)
        return Quantity(INT if isinstance(constant.value, int) else REAL, constant)

    def under(self, names: dict[str, Value], body: ast.Expr) -> Value:
        """The value of an expression with more local names."""
        before = self.locals
        self.locals = before | names
        try:
            return self.value(body)
        finally:
            self.locals = before

    def inline(self, function: ast.Fn, arguments: list[Value], at: Span) -> Value:
        """The body of a user's function, its arguments put in."""
        before = self.locals
        self.locals = {p.id: a for p, a in zip(function.parameters, arguments, strict=True)}
        if len(self._calls) < 3:
            self._calls.append(Related(at, f"in this call of `{function.name.id}`"))
            popped = True
        else:
            popped = False
        try:
            return self.value(function.body)
        finally:
            self.locals = before
            if popped:
                self._calls.pop()

    def with_role(self, role: Role, node: ast.Expr) -> Value:
        """The value of an expression in another role."""
        before, self.role = self.role, role
        try:
            return self.value(node)
        finally:
            self.role = before

    def _name(self, node: ast.Name) -> Value:
        name = node.id
        if name in self.locals:
            return self.locals[name]
        match name:
            case "pi":
                return Quantity(REAL, Const(3.141592653589793))
            case "inf":
                return Quantity(REAL, Const(float("inf")))
            case "true" | "false":
                return Quantity(BOOL, Const(name == "true"))
        scope = self.world.scope
        if name not in scope.values:
            if name in scope.interactions:
                return self.allowed("field", name, node) or self.world.energy_of(name)
            return self.world.temperature() if name == "T" else BROKEN
        found = self.world.value(name)
        statement = scope.values[name]
        match found:
            case Field():
                hint = f"{name}[x, mu]" if found.on == "links" else f"{name}[i]"
                return self.allowed("field", name, node) or self.error(
                    "bad-index",
                    f"the field `{name}` has one value per {found.on[:-1]}: say which",
                    node.span,
                    related=[declared(name, statement.name.span)],
                    hints=[f"write `{hint}` inside a reduction"],
                )
            case Data():
                return self.allowed("data", name, node) or indexing.read_data(self, found, node, ())
        match statement:
            case ast.ParamDecl() if isinstance(found, Quantity) and not fold.is_static(found.expr):
                return self.allowed("parameter", name, node) or found
            case ast.Let() if isinstance(found, Quantity) and not fold.is_static(found.expr):
                return self.allowed("parameter", name, node) or found
            case ast.ObservableDecl():
                return self.allowed("observable", name, node) or found
            case ast.DerivedDecl():
                if self.role is DERIVED:
                    return found
                return self.error(
                    "wrong-place",
                    f"{self.role.name} cannot use the derived quantity `{name}`",
                    node.span,
                    related=[declared(name, statement.name.span)],
                    notes=["only `derived` statements may"],
                )
        return found

    def allowed(self, what: str, name: str, node: ast.Expr) -> Broken | None:
        """None when this role may depend on such a thing; otherwise the error is reported."""
        role = self.role
        allowed = {
            "parameter": role.parameters,
            "data": role.data,
            "field": role.fields,
            "observable": role.observables,
        }[what]
        if allowed:
            return None
        scope = self.world.scope
        place = scope.values.get(name) or scope.interactions[name]
        related = [declared(name, place.name.span)]
        if role is SIZE:
            hints = [f"declare it with `param {name} : int`"] if isinstance(place, ast.ParamDecl) else []
            return self.error(
                "not-static",
                f"`{name}` is not known when the model is compiled",
                node.span,
                "sizes must be known",
                related=related,
                hints=hints,
            )
        if role is DERIVED:
            return self.error(
                "wrong-place",
                f"`{name}` fluctuates: a derived quantity may only use its averages",
                node.span,
                related=related,
                hints=[f"write `expect({name})`" if what == "observable" else "put `expect(…)` around what fluctuates"],
            )
        hints = []
        if role in (CONSTANT, TEMPERATURE) and what == "field":
            hints = ["use an `observable`, or a `fn` that takes the value as an argument"]
        elif what == "observable":
            hints = ["repeat its definition, or put the common part in a `fn`"]
        return self.error(
            "wrong-place", f"{role.name} cannot depend on the {what} `{name}`", node.span, related=related, hints=hints
        )

    # Operators

    def _prefix(self, op: str, value: Value, node: ast.Expr) -> Value:
        if isinstance(value, Broken):
            return BROKEN
        if op == "-" and isinstance(value, Axis | Displacement):
            return places.scale(Const(-1), value)
        operand = self.as_quantity(value, node.span)
        if isinstance(operand, Broken):
            return BROKEN
        if op == "not":
            if operand.kind != BOOL:
                return self.error("kind-mismatch", f"`not` needs a truth value, and this is {operand}", node.span)
            return Quantity(BOOL, fold.unary("not", operand.expr))
        if operand.kind == BOOL:
            return self.error("kind-mismatch", f"`{op}` needs a number, and this is {operand}", node.span)
        if op == "+":
            return operand
        if isinstance(operand.expr, Items):
            return Quantity(operand.kind, Items(tuple(fold.unary("-", x) for x in operand.expr.items)))
        return Quantity(operand.kind, fold.unary("-", operand.expr))

    def _adjoint(self, value: Value, node: ast.Expr) -> Value:
        operand = self.as_quantity(value, node.span)
        match operand:
            case Broken():
                return BROKEN
            case Quantity(Scalar(level), _) if INT_LEVEL <= level < COMPLEX_LEVEL:
                return operand
            case Quantity(Scalar(level) | Vector(_, level), _) if level != COMPLEX_LEVEL:
                return self.error(
                    "kind-mismatch", f"`'` is the adjoint of a number or a matrix, and this is {operand}", node.span
                )
        return Quantity(operand.kind, fold.unary("'", operand.expr))

    def _infix(self, node: ast.Infix) -> Value:
        """Chains `a + b + c …` are walked in a loop, so that only real nesting counts as depth."""
        node = balanced(node)
        spine = [node]
        while isinstance(spine[-1].left, ast.Infix) and len(spine) < DEEPEST_EXPRESSION:
            spine.append(balanced(spine[-1].left))
        spine.reverse()
        total = self.value(spine[0].left)
        for link in spine:
            total = self._combine(link.op, total, self.value(link.right), link)
        return total

    def _combine(self, op: str, a: Value, b: Value, node: ast.Infix) -> Value:
        """`a op b`; constants that have no value together are reported here."""
        try:
            return self._combined(op, a, b, node)
        except fold.FoldError as found:
            return self.error(found.code, str(found), node.span)

    def _combined(self, op: str, a: Value, b: Value, node: ast.Infix) -> Value:
        if isinstance(a, Broken) or isinstance(b, Broken):
            return BROKEN
        if op in ("+", "-", "*") and isinstance(a, Site | Axis | Displacement) | isinstance(
            b, Site | Axis | Displacement
        ):
            return places.combine_places(self, op, a, b, node)
        left, right = self.as_quantity(a, node.left.span), self.as_quantity(b, node.right.span)
        if isinstance(left, Broken) or isinstance(right, Broken):
            return BROKEN
        kind = infix_kind(op, left, right, self.ranges)
        if kind is None:
            return self._mismatch(op, left, right, node)
        if op in ("==", "!="):
            self.warn_exact(left.expr, right.expr, node.span)
        if isinstance(kind, Vector) and fold.is_static(left.expr) and fold.is_static(right.expr):
            pairs = zip(_spread(left.expr, kind.n), _spread(right.expr, kind.n), strict=True)
            return Quantity(kind, Items(tuple(fold.binary(op, x, y) for x, y in pairs)))
        return Quantity(kind, fold.binary(op, left.expr, right.expr))

    def _mismatch(self, op: str, left: Quantity, right: Quantity, node: ast.Infix) -> Broken:
        shaped = [q for q in (left, right) if not isinstance(q.kind, Scalar)]
        hints, code = [], "shape-mismatch" if shaped else "kind-mismatch"
        both_vectors = isinstance(left.kind, Vector) and isinstance(right.kind, Vector)
        if both_vectors and op == "*":
            hints = ["write `dot(a, b)` for the scalar product"]
        elif op == "^" and shaped:
            hints = ["write products out, or take `dot(a, a)` for a square"]
        elif op in ("+", "-", "*", "/", "^") and BOOL in (left.kind, right.kind):
            hints = ["turn a truth value into a number with `if … then 1 else 0`"]
        elif op in ("<", "<=", ">", ">=", "==", "!=") and any(q.kind == Scalar(COMPLEX_LEVEL) for q in (left, right)):
            hints = ["compare `re(…)`, `im(…)` or `abs(…)`"]
        return self.error(code, f"`{op}` cannot combine {left} and {right}", node.span, hints=hints)

    def _if(self, node: ast.If) -> Value:
        condition, yes, no = self.quantity(node.condition), self.quantity(node.yes), self.quantity(node.no)
        if isinstance(condition, Quantity) and condition.kind != BOOL:
            condition = self.error(
                "kind-mismatch",
                f"a condition must be a truth value, and this is {condition}",
                node.condition.span,
                hints=["compare it: `x != 0`"],
            )
        if isinstance(condition, Broken) or isinstance(yes, Broken) or isinstance(no, Broken):
            return BROKEN
        kind = yes.kind if yes.kind == no.kind else join(yes.kind, no.kind)
        if kind is None:
            code = "kind-mismatch" if isinstance(yes.kind, Scalar) and isinstance(no.kind, Scalar) else "shape-mismatch"
            return self.error(code, f"the branches of this `if` differ: {yes} and {no}", node.span)
        return Quantity(kind, fold.select(condition.expr, yes.expr, no.expr))

    def _items(self, nodes: tuple[ast.Expr, ...], node: ast.Expr) -> Value:
        items = [self.quantity(n) for n in nodes]
        if any(isinstance(q, Broken) for q in items) or not items:
            return BROKEN if items else self.error("kind-mismatch", "an empty tuple has no value", node.span)
        for item, n in zip(items, nodes, strict=True):
            if isinstance(item, Quantity) and not is_number(item.kind):
                return self.error("kind-mismatch", f"a vector is made of numbers, and this is {item}", n.span)
        level = max(q.kind.level for q in items if isinstance(q, Quantity) and isinstance(q.kind, Scalar))
        return Quantity(Vector(len(items), level), Items(tuple(q.expr for q in items if isinstance(q, Quantity))))

    # Reductions

    def fresh(self, prefix: str) -> str:
        """A variable that no other reduction uses."""
        self._fresh += 1
        return f"{prefix}.{self._fresh}"

    def set_of(self, node: ast.Expr) -> SetOf | None:
        """The set that a name or a call stands for; None when it is none (reported)."""
        sets = self.world.sets()
        if sets is None:
            return None
        before, self.role = self.role, SIZE
        try:
            return sets.resolve(self, node)
        finally:
            self.role = before

    # Guards

    def note_open_loop(self, product: Expr, span: Span) -> None:
        """Remembers a trace of links that does not close: what that means depends on the claims of the model."""
        sets = self.world.sets()
        why = None if sets is None else open_loop(product, sets.lattice)
        if why is not None:
            found = OpenLoop(reads_of(product), span, why, self.role is ENERGY)
            self.world.open_loops.setdefault(span, found)

    def warn_exact(self, left: Expr, right: Expr, span: Span) -> None:
        """Warns about testing a continuous field for equality."""
        for node in (*walk(left), *walk(right)):
            if isinstance(node, Read):
                found = self.world.value(node.field)
                if isinstance(found, Field) and not is_discrete(found.support):
                    self.world.findings.warning(
                        "exact-comparison",
                        f"the values of `{node.field}` are never exactly equal to anything",
                        span,
                        notes=["the field is continuous: this has probability zero"],
                        hints=["compare with a tolerance: `abs(a - b) < 0.1`"],
                    )
                    return

    def _bounded(self, value: Quantity, node: ast.Expr) -> Value:
        """The value, unless its expression has outgrown the limits (reported once)."""
        _, size, depth = self._measure(value.expr)
        if size <= LARGEST_EXPRESSION and depth <= DEEPEST_EXPRESSION:
            return value
        self._too_large = True
        if size > LARGEST_EXPRESSION:
            return self.error(
                "too-large",
                "this expression grows too large when its functions are written out",
                node.span,
                notes=[f"at most {LARGEST_EXPRESSION} operations"],
                exit_code=4,
            )
        return self._too_deep(node)

    def _too_deep(self, node: ast.Expr) -> Broken:
        self._too_large = True
        return self.error(
            "too-deep",
            "this expression is nested too deeply",
            node.span,
            notes=[
                f"at most {DEEPEST_EXPRESSION} levels, counted through functions",
                "long sums and products of many terms are not deep; chains of `/`, `%` and `^` are",
            ],
            exit_code=4,
        )

    def _measure(self, node: Expr | Place) -> tuple[Expr | Place, int, int]:
        """Size and depth as a tree (shared parts count each time); kept, so that each node costs its children only."""
        known = self._measured.get(id(node))
        if known is None:
            below = [self._measure(c) for c in children(node)]
            known = (node, 1 + sum(b[1] for b in below), 1 + max((b[2] for b in below), default=0))
            self._measured[id(node)] = known
        return known


def _spread(expr: Expr, n: int) -> tuple[Expr, ...]:
    return expr.items if isinstance(expr, Items) else (expr,) * n
