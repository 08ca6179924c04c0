"""Names in expressions: every one resolved, what each declaration needs recorded, loops and misspellings reported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from vdsl.errors import Span
from vdsl.frontend import ast
from vdsl.frontend.cycles import report_cycles
from vdsl.frontend.findings import Findings, several, suggest
from vdsl.frontend.scope import (
    BUILT_IN_SETS,
    CONSTANTS,
    REDUCTIONS,
    SET_FUNCTIONS,
    SPECIAL_FUNCTIONS,
    Node,
    Scope,
    declare,
    lattice_name,
    refuse_reserved,
    set_names,
)
from vdsl.ir.functions import FUNCTIONS


def resolve(module: ast.Module, findings: Findings) -> Scope:
    """Builds the table and reports every problem with names."""
    scope = declare(module, findings)
    walker = _Names(scope, findings)
    for statement in module.statements:
        walker.statement(statement)
    report_cycles(scope, walker.edges, findings)
    scope.used = frozenset(walker.used)
    scope.needs = {node: tuple(targets) for node, targets in walker.edges.items()}
    return scope


class _Names:
    """Walks expressions; knows what each declaration depends on and which names were used."""

    def __init__(self, scope: Scope, findings: Findings):
        self.scope = scope
        self.findings = findings
        self.used: set[str] = set()
        self.used_functions: set[str] = set()
        self.edges: dict[Node, dict[Node, Span]] = {}
        self._node: Node = ("", "")
        self._statement: object = None

    def statement(self, s: ast.Statement) -> None:
        """Resolves the names of one statement."""
        self._statement = s
        match s:
            case ast.Fn(name=name):
                self._node = ("function", name.id)
                seen: set[str] = set()
                for p in s.parameters:
                    refuse_reserved(p, CONSTANTS, "the name of a constant", self.findings)
                    if p.id in seen:
                        self.findings.error("duplicate-name", f"two arguments are called `{p.id}`", p.span)
                    seen.add(p.id)
                self.expression(s.body, frozenset(seen))
                return
            case ast.LatticeDecl():
                self._node = ("lattice", "")
                for e in s.sizes:
                    self.expression(e, frozenset())
                return
            case ast.UnitCell():
                self._node = ("lattice", "")
                self._unit_cell(s)
                return
            case ast.FieldDecl():
                self._node = ("value", s.name.id)
                if s.on is not None:
                    self._set(s.on, bonds=False, local=frozenset())
                self._type(s.kind)
                return
            case ast.DataDecl():
                self._node = ("value", s.name.id)
                if s.on is not None:
                    self._set(s.on, bonds=False, local=frozenset())
                if isinstance(s.origin, ast.Drawn):
                    for e in (*s.origin.distribution.arguments, *(k.value for k in s.origin.distribution.keywords)):
                        self.expression(e, frozenset())
                    if s.origin.seed is not None:
                        self.expression(s.origin.seed, frozenset())
                for option in s.origin.options:
                    if option.key.id == "type":
                        self._type(option.value)
                    else:
                        self.expression(option.value, frozenset())
                return
            case ast.Interaction():
                self._node = ("interaction", s.name.id)
            case ast.ParamDecl() | ast.Let() | ast.ObservableDecl() | ast.DerivedDecl():
                self._node = ("value", s.name.id)
            case ast.ScanDecl():
                self._node = ("scan", s.name.id)
                if s.name.id not in self._parameters():
                    self.findings.error(
                        "unknown-name",
                        f"no parameter called `{s.name.id}` to scan",
                        s.name.span,
                        notes=[f"parameters: {several(self._parameters())}"],
                        hints=suggest(s.name.id, self._parameters()),
                    )
                if isinstance(s.values, ast.CallExpr):
                    for e in s.values.arguments:
                        self.expression(e, frozenset())
                    return
            case ast.SymmetryDecl() | ast.Model() | ast.Particles() | ast.Units() | ast.Block():
                return
            case _:
                self._node = ("other", "")
        for f in fields(s):
            value = getattr(s, f.name)
            if f.name != "name" and f.name != "kind":
                for e in _expressions(value):
                    self.expression(e, frozenset())

    def expression(self, e: ast.Expr, local: frozenset[str]) -> None:
        """Resolves the names of an expression under local names."""
        stack: list[tuple[ast.Expr, frozenset[str]]] = [(e, local)]
        while stack:
            node, local = stack.pop()
            match node:
                case ast.Name():
                    self._name(node, local)
                case ast.LetIn(name=name, value=value, body=body):
                    stack.append((body, self._bind((name,), local)))
                    stack.append((value, local))
                case ast.Reduction(binders=binders, where=where, body=body):
                    inner = local
                    for binder in binders:
                        self._set(binder.over, binder.bracketed, inner)
                        inner = self._bind(binder.names, inner)
                    stack.append((body, inner))
                    if where is not None:
                        stack.append((where, inner))
                case ast.CallExpr():
                    stack.extend((a, local) for a in reversed(self._call(node, local)))
                case ast.Prefix(operand=x) | ast.Postfix(operand=x):
                    stack.append((x, local))
                case ast.Infix(left=a, right=b):
                    stack += [(b, local), (a, local)]
                case ast.If(condition=c, yes=a, no=b):
                    stack += [(b, local), (a, local), (c, local)]
                case ast.Index(value=value, index=index):
                    stack += [(i, local) for i in reversed(index)]
                    stack.append((value, local))
                case ast.TupleExpr(items=items) | ast.ListExpr(items=items):
                    stack += [(i, local) for i in reversed(items)]

    def _type(self, kind: ast.Expr) -> None:
        """The names in the size of a field's type."""
        sizes = kind.arguments if isinstance(kind, ast.CallExpr) else kind.index if isinstance(kind, ast.Index) else ()
        for e in sizes:
            self.expression(e, frozenset())

    def _bind(self, names: tuple[ast.Name, ...], local: frozenset[str]) -> frozenset[str]:
        for name in names:
            refuse_reserved(name, CONSTANTS, "the name of a constant", self.findings)
            if name.id in local:
                self.findings.error(
                    "duplicate-name",
                    f"`{name.id}` already stands for something here",
                    name.span,
                    "bound again",
                    hints=["give the inner variable another name"],
                )
            local = local | {name.id}
        return local

    def _name(self, node: ast.Name, local: frozenset[str]) -> None:
        name = node.id
        if name in local or name in CONSTANTS:
            return
        if name in self.scope.values:
            self._use(("value", name), node.span)
            return
        in_average = isinstance(self._statement, ast.ObservableDecl | ast.DerivedDecl)
        if name in self.scope.interactions and in_average:
            self._use(("interaction", name), node.span)
            return
        if name == "T" and isinstance(self._statement, ast.DerivedDecl):
            return
        notes, hints = [], suggest(name, (*self.scope.values, *sorted(local), *CONSTANTS))
        if name in self.scope.functions or name in FUNCTIONS or name in SPECIAL_FUNCTIONS:
            notes, hints = [f"`{name}` is a function"], (f"write `{name}(…)`",)
        elif name in set_names(self.scope):
            notes, hints = [f"`{name}` is a set; it stands after `in`, or in `size({name})`"], ()
        elif name in self.scope.interactions:
            notes, hints = [f"`{name}` is an interaction; only observables may use its energy"], ()
        self.findings.error(
            "unknown-name", f"no value called `{name}` here", node.span, "not declared", notes=notes, hints=hints
        )

    def _call(self, node: ast.CallExpr, local: frozenset[str]) -> list[ast.Expr]:
        """Checks a call's function; returns the arguments that are expressions."""
        name = node.function.id
        everything = [*node.arguments, *(k.value for k in node.keywords)]
        if name == "size":
            for a in node.arguments:
                self._set(a, bonds=False, local=local)
            return [k.value for k in node.keywords]
        if name in self.scope.functions:
            self._use(("function", name), node.function.span)
        elif name in SET_FUNCTIONS:
            self.findings.error(
                "unknown-function",
                f"`{name}(…)` is a set, not a value",
                node.function.span,
                notes=[f"a set stands after `in`, as in `sum(k in {name}(…): …)`, or in `size({name}(…))`"],
            )
        elif name not in FUNCTIONS and name not in SPECIAL_FUNCTIONS:
            notes = []
            hints = suggest(name, (*self.scope.functions, *FUNCTIONS, *SPECIAL_FUNCTIONS, *REDUCTIONS))
            if name in local or name in self.scope.values:
                notes, hints = [f"`{name}` is a value"], (f"to multiply, write `{name} * (…)`; to index, `{name}[…]`",)
            elif name in REDUCTIONS:
                notes, hints = [f"`{name}` runs over a set"], (f"write `{name}(i in sites: …)`",)
            self.findings.error(
                "unknown-function", f"no function called `{name}`", node.function.span, notes=notes, hints=hints
            )
        return everything

    def _set(self, over: ast.Expr, bonds: bool, local: frozenset[str]) -> None:
        if self.scope.lattice is not None:
            self._use(("lattice", ""), over.span)
        match over:
            case ast.CallExpr(function=f) if f.id in SET_FUNCTIONS:
                if f.id == "pairs":
                    for a in over.arguments:
                        self._set(a, False, local)
                    return
                if f.id == "shell" and not self.scope.has_axes:
                    self._unknown_set(over, "shell", bonds)
                for a in over.arguments:
                    self.expression(a, local)
                return
            case ast.CallExpr(function=f):
                self._unknown_set(f, f.id, bonds)
            case ast.Name(id=name):
                if name not in set_names(self.scope) and self.scope.lattice is not None:
                    self._unknown_set(over, name, bonds)
            case _:
                self.findings.error(
                    "unknown-set",
                    "a set was expected here",
                    over.span,
                    "not a set",
                    notes=[f"sets: {several((*set_names(self.scope), 'shell(k)', 'pairs(sites)', 'range(n)'))}"],
                )

    def _unknown_set(self, at: ast.Expr, name: str, bonds: bool) -> None:
        sets = set_names(self.scope)
        lattice = lattice_name(self.scope)
        if name in BUILT_IN_SETS or name in SET_FUNCTIONS:
            notes = [f"`{lattice}` is a graph: it has sites and bonds, no axes, links, plaquettes or shells"]
        elif bonds:
            notes = [f"the lattice `{lattice}` has bonds: {several(self.scope.bond_sets)}"]
        else:
            notes = [f"the lattice `{lattice}` has sets: {several(sets)}"]
        pool = [p for p in (*self.scope.bond_sets, *BUILT_IN_SETS) if p in sets]
        hints = suggest(name, [*pool, "pairs", *(["shell"] if self.scope.has_axes else []), "range"])
        for short, full in (("pairs", "pairs(sites)"), ("shell", "shell(k)"), ("range", "range(n)")):
            hints = tuple(h.replace(f"`{short}`", f"`{full}`") for h in hints)
        if name in self.scope.values and isinstance(self.scope.values[name], ast.ParamDecl | ast.Let):
            hints = (f"for the integers below `{name}`, write `range({name})`",)
        label = "not a set of bonds" if bonds else "not a set"
        self.findings.error("unknown-set", f"no set called `{name}` here", at.span, label, notes=notes, hints=hints)

    def _unit_cell(self, s: ast.UnitCell) -> None:
        for item in s.items:
            match item:
                case ast.CellVectors(vectors=vectors):
                    for e in vectors:
                        self.expression(e, frozenset())
                case ast.CellSite(position=e) | ast.CellBond(displacement=e):
                    self.expression(e, frozenset())
                case ast.Option(key=key, value=e) if key.id != "boundary":
                    self.expression(e, frozenset())

    def _use(self, target: Node, span: Span) -> None:
        self.edges.setdefault(self._node, {}).setdefault(target, span)
        kind, name = target
        if kind == "value" and target != self._node:
            self.used.add(name)
        elif kind == "function" and target != self._node:
            self.used_functions.add(name)

    def _parameters(self) -> list[str]:
        return [name for name, v in self.scope.values.items() if isinstance(v, ast.ParamDecl)]


def _expressions(value: object) -> Iterator[ast.Expr]:
    if isinstance(value, ast.RangeExpr):
        yield value.lower
        yield value.upper
    elif isinstance(value, ast.Expr) and not isinstance(value, ast.String):
        yield value
