"""Names: a module -> a table of its declarations, every name in it declared once and free of cycles.

Three name spaces do not disturb each other: values (parameters, lets, data, fields, observables, derived quantities),
functions (known by the bracket that follows), and sets (after `in` and `on`, and in `size`). Interactions are named
apart; an observable may use an interaction's name for its energy. Variables of reductions, `let … in` and arguments of
functions hide top-level names, never one another.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from vdsl.errors import Related, Span
from vdsl.frontend import ast
from vdsl.frontend.findings import Findings, declared, several, suggest
from vdsl.ir.functions import FUNCTIONS
from vdsl.ir.lattice import DIMENSIONS

CONSTANTS = ("pi", "inf", "true", "false")
SPECIAL_FUNCTIONS = ("expect", "size", "circulation", "loop", "dist")
REDUCTIONS = ("sum", "prod", "mean", "max", "min")
BUILT_IN_SETS = ("sites", "links", "axes", "planes", "plaquettes")
SET_FUNCTIONS = ("shell", "pairs", "range")
LATTICE_KINDS = (*DIMENSIONS, "hypercubic", "complete", "graph")
GRAPH_KINDS = ("complete", "graph")

ValueDeclaration = (
    ast.ParamDecl | ast.Let | ast.DataDecl | ast.FieldDecl | ast.ObservableDecl | ast.DerivedDecl | ast.Particles
)
Node = tuple[str, str]  # ("value" | "function" | "interaction" | "lattice", name)


@dataclass
class Scope:
    """The declarations of a module by name, in the order of the text."""

    values: dict[str, ValueDeclaration] = field(default_factory=dict)
    functions: dict[str, ast.Fn] = field(default_factory=dict)
    interactions: dict[str, ast.Interaction] = field(default_factory=dict)
    lattice: ast.LatticeDecl | ast.UnitCell | None = None
    temperature: ast.Temperature | None = None
    model: ast.Model | None = None
    bond_sets: tuple[str, ...] = ()
    used: frozenset[str] = frozenset()
    needs: dict[Node, tuple[Node, ...]] = field(default_factory=dict)

    def before(self, name: str, done: Container[str]) -> list[str]:
        """The values that a value needs and that are not done, each after what it needs itself; without recursion."""
        order: dict[str, None] = {}
        seen: set[Node] = set()
        stack: list[tuple[Node, bool]] = [(("value", name), False)]
        while stack:
            node, finished = stack.pop()
            if finished:
                if node[0] == "value":
                    order[node[1]] = None
            elif node not in seen and not (node[0] == "value" and node[1] in done):
                seen.add(node)
                stack.append((node, True))
                stack += [(n, False) for n in reversed(self.needs.get(node, ()))]
        return [n for n in order if n != name]

    @property
    def has_axes(self) -> bool:
        """Whether the lattice has axes, links and so on: a graph has none."""
        return not (isinstance(self.lattice, ast.LatticeDecl) and self.lattice.kind.id in GRAPH_KINDS)


def resolve(module: ast.Module, findings: Findings) -> Scope:
    """Builds the table and reports every problem with names."""
    scope = _declare(module, findings)
    walker = _Names(scope, findings)
    for statement in module.statements:
        walker.statement(statement)
    _report_cycles(walker, findings)
    scope.used = frozenset(walker.used)
    scope.needs = {node: tuple(targets) for node, targets in walker.edges.items()}
    return scope


def set_names(scope: Scope) -> tuple[str, ...]:
    """The names that may stand after `in`."""
    return (*(BUILT_IN_SETS if scope.has_axes else ("sites",)), *scope.bond_sets)


def lattice_name(scope: Scope) -> str:
    """The lattice as the file calls it."""
    match scope.lattice:
        case ast.LatticeDecl(kind=name) | ast.UnitCell(name=name):
            return name.id
    return ""


def _declare(module: ast.Module, findings: Findings) -> Scope:
    scope = Scope()
    for s in module.statements:
        match s:
            case (
                ast.ParamDecl()
                | ast.Let()
                | ast.DataDecl()
                | ast.FieldDecl()
                | ast.ObservableDecl()
                | ast.DerivedDecl()
            ):
                _refuse_reserved(s.name, CONSTANTS, "the name of a constant", findings)
                _add(scope.values, s, findings)
            case ast.Particles():
                _add(scope.values, s, findings)
            case ast.Fn():
                taken = (*FUNCTIONS, *SPECIAL_FUNCTIONS, *REDUCTIONS, *SET_FUNCTIONS)
                _refuse_reserved(s.name, taken, "a built-in function", findings)
                _add(scope.functions, s, findings)
            case ast.Interaction():
                _add(scope.interactions, s, findings)
            case ast.LatticeDecl() | ast.UnitCell():
                scope.lattice = _only("lattice", scope.lattice, s, findings)
            case ast.Temperature():
                scope.temperature = _only("temperature", scope.temperature, s, findings)
            case ast.Model():
                scope.model = _only("model", scope.model, s, findings)
    scope.bond_sets = _bond_sets(scope.lattice, findings)
    for kind in ("guide", "train"):
        blocks = [s for s in module.statements if isinstance(s, ast.Block) and s.head == kind]
        for extra in blocks[1:]:
            _only(kind, blocks[0], extra, findings)
    _report_missing(module, scope, findings)
    return scope


def _add(table: dict[str, Any], statement: Any, findings: Findings) -> None:
    name = statement.name
    if name.id in table:
        first = table[name.id].name
        findings.error(
            "duplicate-name",
            f"`{name.id}` is declared twice",
            name.span,
            "declared again",
            related=[Related(first.span, "first declared here")],
        )
        return
    table[name.id] = statement


def _only(what: str, first: Any, statement: Any, findings: Findings) -> Any:
    if first is None:
        return statement
    findings.error(
        "duplicate-statement",
        f"a second `{what}` statement",
        statement.span,
        related=[Related(first.span, "the first one is here")],
        notes=[f"a model has at most one `{what}`"],
    )
    return first


def _refuse_reserved(name: ast.Name, reserved: tuple[str, ...], what: str, findings: Findings) -> None:
    if name.id in reserved:
        findings.error(
            "reserved-name", f"`{name.id}` is {what}", name.span, "cannot be declared", hints=["choose another name"]
        )


def _bond_sets(lattice: ast.LatticeDecl | ast.UnitCell | None, findings: Findings) -> tuple[str, ...]:
    match lattice:
        case ast.LatticeDecl(kind=kind):
            if kind.id not in LATTICE_KINDS:
                findings.error(
                    "unknown-lattice",
                    f"no lattice called `{kind.id}`",
                    kind.span,
                    notes=[f"lattices: {several(LATTICE_KINDS)}"],
                    hints=suggest(kind.id, LATTICE_KINDS)
                    or ["describe a lattice of your own with `lattice NAME { … }`"],
                )
            return ("nn",) if kind.id in GRAPH_KINDS else ("nn", "nnn")
        case ast.UnitCell(items=items):
            names: dict[str, ast.Name] = {}
            for item in items:
                if isinstance(item, ast.CellBond | ast.CellGroup):
                    _refuse_reserved(item.name, (*BUILT_IN_SETS, *SET_FUNCTIONS), "a built-in set", findings)
                    if item.name.id in names:
                        findings.error(
                            "duplicate-name",
                            f"`{item.name.id}` is declared twice",
                            item.name.span,
                            "declared again",
                            related=[Related(names[item.name.id].span, "first declared here")],
                        )
                    names.setdefault(item.name.id, item.name)
            return (*names, *(() if "nnn" in names else ("nnn",)))
    return ()


def _report_missing(module: ast.Module, scope: Scope, findings: Findings) -> None:
    at = scope.model.span if scope.model else module.statements[-1].span if module.statements else module.span
    later = [s for s in module.statements if isinstance(s, ast.Particles | ast.Units)]
    for s in later:
        what = "particles" if isinstance(s, ast.Particles) else "units"
        findings.error(
            "not-supported-yet",
            f"`{what}` is reserved, and not supported yet",
            s.span,
            notes=["fields live on lattices in this version"],
        )
    if later:
        return
    missing = [
        ("missing-lattice", "lattice", scope.lattice is None, "lattice square(16, 16)"),
        (
            "missing-field",
            "field",
            not any(isinstance(v, ast.FieldDecl) for v in scope.values.values()),
            "field s : spin",
        ),
        (
            "missing-interaction",
            "interaction",
            not scope.interactions,
            "interaction exchange = -sum(<i, j> in nn: s[i] * s[j])",
        ),
        ("missing-temperature", "temperature", scope.temperature is None, "temperature 1"),
    ]
    for code, what, absent, example in missing:
        if absent:
            findings.error(code, f"the model has no `{what}`", at, hints=[f"add a line such as `{example}`"])


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
                    _refuse_reserved(p, CONSTANTS, "the name of a constant", self.findings)
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
                if isinstance(s.kind, ast.CallExpr):
                    for e in s.kind.arguments:
                        self.expression(e, frozenset())
                elif isinstance(s.kind, ast.Index):
                    for e in s.kind.index:
                        self.expression(e, frozenset())
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

    def _bind(self, names: tuple[ast.Name, ...], local: frozenset[str]) -> frozenset[str]:
        for name in names:
            _refuse_reserved(name, CONSTANTS, "the name of a constant", self.findings)
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


def _report_cycles(walker: _Names, findings: Findings) -> None:
    """Depth-first search without recursion; each loop is reported once, at its first name in the text."""
    state: dict[Node, int] = {}
    for root in list(walker.edges):
        if root in state:
            continue
        path: list[Node] = [root]
        iterators = [iter(walker.edges.get(root, {}))]
        state[root] = 1
        while path:
            following = next(iterators[-1], None)
            if following is None:
                state[path.pop()] = 2
                iterators.pop()
            elif following not in state:
                state[following] = 1
                path.append(following)
                iterators.append(iter(walker.edges.get(following, {})))
            elif state[following] == 1:
                _report_cycle(path[path.index(following) :], walker, findings)


def _report_cycle(loop: list[Node], walker: _Names, findings: Findings) -> None:
    names = {node: _declaration_name(node, walker.scope) for node in loop}
    first = min(range(len(loop)), key=lambda k: names[loop[k]][1].start)
    loop = loop[first:] + loop[:first]
    shown = " -> ".join(names[node][0] for node in [*loop, loop[0]])
    recursion = any(kind == "function" for kind, _ in loop)
    related = []
    for node, after in zip(loop, [*loop[1:], loop[0]], strict=True):
        related.append(Related(walker.edges[node][after], f"`{names[node][0]}` uses `{names[after][0]}` here"))
    findings.error(
        "cycle",
        f"`{names[loop[0]][0]}` depends on itself: {shown}",
        names[loop[0]][1],
        related=related[:4],
        notes=["functions cannot call themselves"] if recursion else [],
    )


def _declaration_name(node: Node, scope: Scope) -> tuple[str, Span]:
    kind, name = node
    if kind == "lattice" and scope.lattice is not None:
        named = scope.lattice.kind if isinstance(scope.lattice, ast.LatticeDecl) else scope.lattice.name
        return "lattice", named.span
    tables: dict[str, Any] = {"value": scope.values, "function": scope.functions, "interaction": scope.interactions}
    return name, tables[kind][name].name.span


_KINDS = {ast.ParamDecl: "parameter", ast.Let: "constant", ast.DataDecl: "data"}


def report_unused(scope: Scope, findings: Findings) -> None:
    """Fields that nothing uses are errors; parameters, constants and data are warnings."""
    for name, s in scope.values.items():
        if name in scope.used:
            continue
        if isinstance(s, ast.FieldDecl):
            findings.error(
                "unused-field",
                f"the field `{name}` is never used",
                s.name.span,
                notes=["a field that enters no expression only adds a constant to ln Z"],
                hints=["use it in an interaction, or remove it"],
            )
        elif type(s) in _KINDS:
            findings.warning("unused", f"the {_KINDS[type(s)]} `{name}` is never used", s.name.span)


__all__ = ["Scope", "declared", "lattice_name", "resolve", "set_names"]
