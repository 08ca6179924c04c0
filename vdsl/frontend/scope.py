"""Names: a module -> a table of its declarations, every name in it declared once and free of cycles.

Three name spaces do not disturb each other: values (parameters, lets, data, fields, observables, derived quantities),
functions (known by the bracket that follows), and sets (after `in` and `on`, and in `size`). Interactions are named
apart; an observable may use an interaction's name for its energy. Variables of reductions, `let … in` and arguments of
functions hide top-level names, never one another.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Any

from vdsl.errors import Related
from vdsl.frontend import ast
from vdsl.frontend.findings import Findings, several, suggest
from vdsl.ir.functions import FUNCTIONS
from vdsl.ir.lattice import DIMENSIONS

CONSTANTS = ("pi", "inf", "true", "false")
READY_MADE = (
    "magnetisation",
    "correlation",
    "structure_factor",
    "susceptibility",
    "susceptibility_abs",
    "binder",
    "correlation_length",
    "helicity",
)
LOOPS = ("wilson_loop", "polyakov_loop", "topological_charge")  # observables of link fields
SPECIAL_FUNCTIONS = ("expect", "size", "circulation", "loop", "dist", *READY_MADE, *LOOPS)
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


def set_names(scope: Scope) -> tuple[str, ...]:
    """The names that may stand after `in`."""
    return (*(BUILT_IN_SETS if scope.has_axes else ("sites",)), *scope.bond_sets)


def lattice_name(scope: Scope) -> str:
    """The lattice as the file calls it."""
    match scope.lattice:
        case ast.LatticeDecl(kind=name) | ast.UnitCell(name=name):
            return name.id
    return ""


def declare(module: ast.Module, findings: Findings) -> Scope:
    """The table of a module's declarations; duplicates, reserved names and missing statements are reported."""
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
                refuse_reserved(s.name, CONSTANTS, "the name of a constant", findings)
                _add(scope.values, s, findings)
            case ast.Particles():
                _add(scope.values, s, findings)
            case ast.Fn():
                taken = (*FUNCTIONS, *SPECIAL_FUNCTIONS, *REDUCTIONS, *SET_FUNCTIONS)
                refuse_reserved(s.name, taken, "a built-in function", findings)
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


def refuse_reserved(name: ast.Name, reserved: tuple[str, ...], what: str, findings: Findings) -> None:
    """Reports a name that the language has taken."""
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
                    refuse_reserved(item.name, (*BUILT_IN_SETS, *SET_FUNCTIONS), "a built-in set", findings)
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
