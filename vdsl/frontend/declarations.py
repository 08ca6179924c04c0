"""Declarations: what every name of a model stands for, worked out when first asked for, in any order of the text.

Cycles cannot occur: names were resolved before.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vdsl.errors import InternalError, Span
from vdsl.frontend import ast, fold
from vdsl.frontend.boundaries import check_antiperiodic
from vdsl.frontend.canonical import canonical
from vdsl.frontend.data import LARGEST_DATA, DataChecker
from vdsl.frontend.expressions import (
    CONSTANT,
    DEFAULT,
    DERIVED,
    ENERGY,
    OBSERVABLE,
    SIZE,
    TEMPERATURE,
    Elaborator,
    Role,
)
from vdsl.frontend.findings import Findings, declared
from vdsl.frontend.lattices import LatticeChecker
from vdsl.frontend.open_loops import OpenLoop
from vdsl.frontend.parameters import Overrides, enforce, is_structural
from vdsl.frontend.scope import Scope, ValueDeclaration
from vdsl.frontend.sets import SetTable
from vdsl.frontend.supports import support_of
from vdsl.frontend.values import BROKEN, Broken, Quantity, Value, number
from vdsl.ir.expr import Const, DataRead, Expr, Param, Place, Reduce, Ref, SetOf, walk
from vdsl.ir.kinds import BOOL, COMPLEX, INT, REAL, Scalar, is_real
from vdsl.ir.program import Data, Definition, Field, FrozenArray, Observable, Parameter, Range, Structure, Term
from vdsl.ir.support import has_negation
from vdsl.ir.twist import NotATwist

DEEPEST_DEFAULT = 20
_UNKNOWN = object()


class ModelDeclarations:
    """The declarations of one module under given overrides; results are kept."""

    def __init__(self, scope: Scope, findings: Findings, overrides: Overrides, base_dir: Path | None, allow_path: bool):
        self.scope = scope
        self.findings = findings
        self.overrides = overrides
        self.base_dir = base_dir
        self.allow_path = allow_path
        self.definitions: dict[str, Definition] = {}
        self.observables: dict[str, Observable] = {}
        self.spans: dict[str, Data] = {}
        self.open_loops: dict[Span, OpenLoop] = {}
        self._values: dict[str, Value | Data | Field] = {}
        self._energies: dict[str, Value] = {}
        self._ranges: dict[str, Range | None] = {}
        self._resolved: dict[str, Expr | None] = {}
        self._defaults: dict[str, Expr | None] = {}
        self._sets: object = _UNKNOWN
        self._temperature: Value | None = None

    def value(self, name: str) -> Value | Data | Field:
        """A parameter, constant, data set, field, observable or derived quantity."""
        if name not in self._values:
            for needed in [*self.scope.before(name, self._values), name]:  # in this order nothing recurses deeply
                if needed not in self._values:
                    self._values[needed] = self._value(self.scope.values[needed])
        return self._values[name]

    def energy_of(self, interaction: str) -> Value:
        """The value of an interaction: a real scalar, or broken."""
        if interaction not in self._energies:
            s = self.scope.interactions[interaction]
            found = self._real_scalar(s.value, ENERGY, f"the interaction `{interaction}`")
            if isinstance(found, Quantity):
                found = Quantity(found.kind, canonical(found.expr))
            self._energies[interaction] = found
        return self._energies[interaction]

    def temperature(self) -> Value:
        """The temperature: a real scalar, or broken."""
        if self._temperature is None:
            if self.scope.temperature is None:
                return BROKEN
            found = self._real_scalar(self.scope.temperature.value, TEMPERATURE, "the temperature")
            if isinstance(found, Quantity):
                found = Quantity(found.kind, canonical(found.expr))
            self._temperature = found
        return self._temperature

    def sets(self) -> SetTable | None:
        """The sets of the lattice; None if it is broken."""
        if self._sets is _UNKNOWN:
            self._sets = None
            if self.scope.lattice is not None:
                checker = LatticeChecker(self.static, self.findings, self.base_dir, self.allow_path)
                lattice = checker.lattice(self.scope.lattice)
                self._sets = None if lattice is None else SetTable(lattice)
        return self._sets if isinstance(self._sets, SetTable) else None

    def declared(self, name: str) -> Field | Data:
        """A field or data set, also one that the compiler made itself."""
        found = self.spans.get(name) or self.value(name)
        if not isinstance(found, Field | Data):
            raise InternalError(f"{name} is neither a field nor data")
        return found

    def bond_span(self, bonds: str, axis: int, i: Place, j: Place) -> Expr:
        """How many cells a bond of a set, given by its ends, spans along an axis: data, where the bonds differ.

        Raises NotATwist where these would be too many.
        """
        sets = self.sets()
        if sets is None:
            raise InternalError("no lattice")
        steps = [c.displacement[axis] for c in sets.lattice.bond_classes(bonds)]
        if len(set(steps)) == 1:
            return Const(steps[0])
        if sets.lattice.n_bonds(bonds) > LARGEST_DATA:
            raise NotATwist("the lattice has too many bonds")
        name = f"{bonds}.{axis}"  # no name that a model could give
        if name not in self.spans:
            values = np.array(steps, float)[sets.lattice.bonds(bonds).cls]
            self.spans[name] = Data(name, bonds, FrozenArray(values))
        return DataRead(name, "bond", (i, j))

    def static(self, node: ast.Expr) -> Quantity | Broken:
        """The value of an expression that must be known when compiling."""
        found = Elaborator(self, SIZE).quantity(node)
        if isinstance(found, Quantity) and not fold.is_static(found.expr):
            self.findings.error("not-static", "this is not known when the model is compiled", node.span)
            return BROKEN
        return found

    def static_value(self, node: ast.Expr) -> Value:
        """As `static`, for expressions that may also be strings."""
        return Elaborator(self, SIZE).value(node) if isinstance(node, ast.String) else self.static(node)

    def term(self, name: str) -> Term | None:
        """An interaction as a term of the energy."""
        found = self.energy_of(name)
        return Term(name, found.expr) if isinstance(found, Quantity) else None

    # Parameters

    def structure(self, s: ast.ParamDecl) -> Structure | None:
        """A structural parameter with its value."""
        found = self.value(s.name.id)
        match found:
            case Quantity(_, Const(int(value))):
                return Structure(s.name.id, value, self.range_of(s), s.doc.value if s.doc else "")
        return None

    def parameter(self, s: ast.ParamDecl) -> Parameter | None:
        """A dynamic parameter; an override takes the place of its default."""
        name = s.name.id
        doc = s.doc.value if s.doc else ""
        if name in self.overrides:
            return Parameter(name, Const(float(self.overrides[name])), self.range_of(s), doc)
        if s.default is None:
            return Parameter(name, None, self.range_of(s), doc)
        default = self._default(s)
        return None if default is None else Parameter(name, default, self.range_of(s), doc)

    def check_value(self, s: ast.ParamDecl) -> None:
        """Enforces the range of a dynamic parameter on the value it has under the overrides."""
        value = self.resolved(s.name.id)
        if isinstance(value, Const):
            enforce(s, float(value.value.real), self.range_of(s), s.name.id in self.overrides, self.findings)

    def range_of(self, s: ast.ParamDecl) -> Range | None:
        """The range of a parameter."""
        name = s.name.id
        if name not in self._ranges:
            self._ranges[name] = self._range(s)
        return self._ranges[name]

    def resolved(self, name: str) -> Expr | None:
        """The value of a dynamic parameter under the overrides and defaults, as a constant where that is possible."""
        if name not in self._resolved:
            for needed in [*self.scope.before(name, self._resolved), name]:
                if needed not in self._resolved:
                    self._resolved[needed] = self._resolve(needed)
        return self._resolved[name]

    def _resolve(self, name: str) -> Expr | None:
        s = self.scope.values[name]
        if name in self.definitions and isinstance(s, ast.Let):
            found = self.at_defaults(self.definitions[name].value, s.value)
            return found if isinstance(found, Const) else None
        if name in self.overrides:
            return Const(float(self.overrides[name]))
        if isinstance(s, ast.ParamDecl) and s.default is not None and not is_structural(s):
            default = self._default(s)
            return None if default is None else self.at_defaults(default, s.default)
        return None

    def at_defaults(self, expr: Expr, node: ast.Expr) -> Expr | None:
        """An expression with parameters and definitions at their values; None (reported) where that has no value."""
        values: dict[str, Expr] = {}
        for part in walk(expr):
            if isinstance(part, Param | Ref) and part.name in self.scope.values:
                found = self.resolved(part.name)
                if found is not None:
                    values[part.name] = found
        try:
            return fold.substitute(expr, values)
        except fold.FoldError as found:
            self.findings.error(found.code, f"at the values of the parameters, {found}", node.span)
            return None

    def _default(self, s: ast.ParamDecl) -> Expr | None:
        if s.name.id not in self._defaults:
            found = (
                BROKEN if s.default is None else self._real_scalar(s.default, DEFAULT, f"the default of `{s.name.id}`")
            )
            self._defaults[s.name.id] = (
                self._without_definitions(found.expr, s.default) if isinstance(found, Quantity) and s.default else None
            )
        return self._defaults[s.name.id]

    def _without_definitions(self, expr: Expr, node: ast.Expr, depth: int = 0) -> Expr | None:
        """A default may use a `let`; written out, so that parameters depend on parameters only."""
        if depth > DEEPEST_DEFAULT:
            self.findings.error("too-deep", "this default leads through too many constants", node.span, exit_code=4)
            return None
        values: dict[str, Expr] = {}
        for part in walk(expr):
            if isinstance(part, Ref) and part.name in self.definitions:
                inner = self._without_definitions(self.definitions[part.name].value, node, depth + 1)
                if inner is None:
                    return None
                values[part.name] = inner
            elif isinstance(part, DataRead | Reduce):
                self.findings.error(
                    "wrong-place", "the default of a parameter can only depend on parameters", node.span
                )
                return None
        return fold.substitute(expr, values)

    def _range(self, s: ast.ParamDecl) -> Range | None:
        if s.range is None:
            return None
        ends = []
        for node in (s.range.lower, s.range.upper):
            found = self.static(node)
            match found:
                case Broken():
                    return None
                case Quantity(kind, Const(value)) if is_real(kind):
                    ends.append(float(value.real))
                case _:
                    self.findings.error(
                        "kind-mismatch", f"the end of a range is a real number, and this is {found}", node.span
                    )
                    return None
        out = Range(ends[0], ends[1], s.range.lower_open, s.range.upper_open)
        if ends[0] > ends[1] or (ends[0] == ends[1] and ends[0] not in out):
            self.findings.error("bad-range", f"the range {out} is empty", s.range.span)
            return None
        return out

    def _structural(self, s: ast.ParamDecl) -> Value:
        name = s.name.id
        if name in self.overrides:
            value = int(self.overrides[name])
        elif s.default is None:
            self.findings.error(
                "missing-parameter",
                f"`{name}` has no value",
                s.name.span,
                "declared without a default",
                hints=[f"give it with `--set {name}=…`, or in Python `load(…, {name}=…)`"],
                exit_code=2,
            )
            return BROKEN
        else:
            match self.static(s.default):
                case Broken():
                    return BROKEN
                case Quantity(kind, Const(int(value))) if kind == INT:
                    pass
                case found:
                    self.findings.error(
                        "not-an-integer",
                        f"`{name}` is an integer, and this is {found}",
                        s.default.span,
                        "not an integer",
                        hints=["`//` divides integers"],
                    )
                    return BROKEN
        enforce(s, value, self.range_of(s), name in self.overrides, self.findings)
        return number(value)

    # Other values

    def _value(self, s: ValueDeclaration) -> Value | Data | Field:
        match s:
            case ast.ParamDecl():
                if s.kind is not None and s.kind.id not in ("int", "real"):
                    self.findings.error(
                        "unknown-type", f"a parameter is `int` or `real`, not `{s.kind.id}`", s.kind.span
                    )
                    return BROKEN
                return self._structural(s) if is_structural(s) else Quantity(REAL, Param(s.name.id))
            case ast.Let():
                return self._let(s)
            case ast.FieldDecl():
                return self._field(s)
            case ast.DataDecl():
                over = None
                if s.on is not None:
                    over = self._set(s.on)
                    if over is None:
                        return BROKEN
                checker = DataChecker(self.static, self.sets(), self.findings, self.base_dir, self.allow_path)
                return checker.data(s, over) or BROKEN
            case ast.ObservableDecl():
                return self._observable(s)
            case ast.DerivedDecl():
                return self._real_scalar(s.value, DERIVED, f"the derived quantity `{s.name.id}`")
        return BROKEN

    def _set(self, node: ast.Expr) -> SetOf | None:
        return Elaborator(self, SIZE).set_of(node)

    def _let(self, s: ast.Let) -> Value:
        found = Elaborator(self, CONSTANT).value(s.value)
        if not isinstance(found, Quantity) or fold.is_static(found.expr):
            return found
        self.definitions[s.name.id] = Definition(s.name.id, canonical(found.expr))
        return Quantity(found.kind, Ref(s.name.id))

    def _field(self, s: ast.FieldDecl) -> Field | Broken:
        support = support_of(s.kind, self.static, self.findings)
        on = "sites"
        if s.on is not None:
            over = self._set(s.on)
            if over is None:
                return BROKEN
            on = over.kind
            if on not in ("sites", "links"):
                self.findings.error(
                    "bad-set",
                    f"a field cannot live on `{over.name or on}`",
                    s.on.span,
                    notes=["fields live on `sites` or on `links`"],
                )
                return BROKEN
        if support is None:
            return BROKEN
        sets = self.sets()
        if sets is not None and self.scope.lattice is not None:
            at = self.scope.lattice
            place = at.kind.span if isinstance(at, ast.LatticeDecl) else at.name.span
            check_antiperiodic(sets.lattice, s.name, has_negation(support), self.findings, place)
        return Field(s.name.id, support, on)

    def _observable(self, s: ast.ObservableDecl) -> Value:
        found = Elaborator(self, OBSERVABLE).quantity(s.value)
        if isinstance(found, Broken):
            return BROKEN
        if not is_real(found.kind):
            return self._not_a_number(found, s.value, f"the observable `{s.name.id}`")
        expr = canonical(found.expr)
        self.observables[s.name.id] = Observable(s.name.id, expr, s.doc.value if s.doc else "")
        return Quantity(found.kind, Ref(s.name.id))

    def _real_scalar(self, node: ast.Expr, role: Role, what: str) -> Quantity | Broken:
        found = Elaborator(self, role).quantity(node)
        if isinstance(found, Broken) or is_real(found.kind):
            return found
        return self._not_a_number(found, node, what)

    def _not_a_number(self, found: Quantity, node: ast.Expr, what: str) -> Broken:
        hints = []
        if found.kind == COMPLEX:
            hints = ["take `re(…)`, `im(…)` or `abs(…)` of it"]
        elif found.kind == BOOL:
            hints = ["turn a truth value into a number with `if … then 1 else 0`"]
        elif not isinstance(found.kind, Scalar):
            hints = ["make a number of it with `dot`, `norm` or `re(tr(…))`, or take a component"]
        self.findings.error(
            "not-a-real-number", f"{what} must be one real number, and this is {found}", node.span, hints=hints
        )
        return BROKEN


__all__ = ["ModelDeclarations", "declared"]
