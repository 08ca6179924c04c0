"""Checking: a module -> a `Program`, in phases whose errors are reported together.

Names and overrides; then sizes, ranges and the lattice; then fields and data; then every expression; then values.
"""

from __future__ import annotations

from pathlib import Path, PurePath

from vdsl.errors import Diagnostic, InternalError
from vdsl.frontend import ast, open_loops
from vdsl.frontend.boundaries import warn_multiplicity
from vdsl.frontend.boundedness import warn_unbounded
from vdsl.frontend.canonical import canonical
from vdsl.frontend.declarations import ModelDeclarations
from vdsl.frontend.findings import Findings
from vdsl.frontend.names import resolve
from vdsl.frontend.options import claims_of, scan_of, settings_of
from vdsl.frontend.parameters import is_structural, typed_overrides
from vdsl.frontend.scope import Scope, report_unused
from vdsl.frontend.values import Quantity
from vdsl.ir.claims import claimed
from vdsl.ir.expr import Const
from vdsl.ir.program import Claim, Data, Field, Observable, Program, Scan, Settings

Options = tuple[list[Claim], list[Scan], Settings | None, Settings | None]


def check(
    module: ast.Module,
    overrides: dict[str, object] | None = None,
    base_dir: Path | None = None,
    allow_path: bool = False,
) -> tuple[Program, tuple[Diagnostic, ...]]:
    """The program of a module under overrides of its parameters, and the warnings.

    Data files are looked up beside `base_dir`, and nowhere else unless `allow_path`. Raises VfeError with all the
    errors of the first phase that has any; its exit code is 2 for bad overrides and 4 where a limit was passed.
    """
    findings = Findings()
    scope = resolve(module, findings)
    findings.stop_if_any()
    parameters = [s for s in scope.values.values() if isinstance(s, ast.ParamDecl)]
    given = typed_overrides(overrides or {}, parameters, findings)
    findings.stop_if_any()

    world = ModelDeclarations(scope, findings, given, base_dir, allow_path)
    for p in parameters:
        world.value(p.name.id)
        world.range_of(p)
    findings.stop_if_any()
    sets = world.sets()
    findings.stop_if_any()
    for name, s in scope.values.items():
        if isinstance(s, ast.FieldDecl | ast.DataDecl):
            world.value(name)
    findings.stop_if_any()

    program = _program(module, scope, world, parameters)
    findings.stop_if_any()
    report_unused(scope, findings)
    if program is not None and world.open_loops:
        claimed(program)  # raises where a claim makes no sense, which is told first
        links = [f.name for f in program.fields if f.on == "links"]
        open_loops.report(list(world.open_loops.values()), program.claims, links, findings)
    findings.stop_if_any()
    if program is None or sets is None:
        raise InternalError("a broken model without a diagnostic")
    _check_values(world, parameters, scope)
    findings.stop_if_any()
    for name, node in sets.used_bonds.items():
        warn_multiplicity(sets.lattice, name, node.span, findings)
    warn_unbounded(program, {p.name: world.resolved(p.name) for p in program.parameters}, scope, findings)
    warnings = sorted(findings.warnings, key=lambda d: d.span.start if d.span else -1)
    return program, tuple(warnings)


def _program(
    module: ast.Module, scope: Scope, world: ModelDeclarations, parameters: list[ast.ParamDecl]
) -> Program | None:
    for name in scope.values:
        world.value(name)
    terms = [world.term(name) for name in scope.interactions]
    temperature = world.temperature()
    structure = [world.structure(p) for p in parameters if is_structural(p)]
    dynamic = [world.parameter(p) for p in parameters if not is_structural(p)]
    derived = []
    for name, s in scope.values.items():
        found = world.value(name)
        if isinstance(s, ast.DerivedDecl) and isinstance(found, Quantity):
            derived.append(Observable(name, canonical(found.expr), s.doc.value if s.doc else ""))
    claims, scans, guide, train = _options(module, scope, world)
    sets = world.sets()
    if world.findings.errors or sets is None or not isinstance(temperature, Quantity):
        return None
    values = [world.value(name) for name in scope.values]
    return Program(
        name=_model_name(module, scope),
        title=scope.model.title.value if scope.model and scope.model.title else "",
        lattice=sets.lattice,
        fields=tuple(v for v in values if isinstance(v, Field)),
        terms=tuple(t for t in terms if t is not None),
        temperature=temperature.expr,
        structure=tuple(p for p in structure if p is not None),
        parameters=tuple(p for p in dynamic if p is not None),
        data=(*(v for v in values if isinstance(v, Data)), *world.spans.values()),
        definitions=tuple(world.definitions.values()),
        observables=tuple(world.observables.values()),
        derived=tuple(derived),
        claims=tuple(dict.fromkeys(claims)),
        scans=tuple(scans),
        guide=guide,
        train=train,
    )


def _options(module: ast.Module, scope: Scope, world: ModelDeclarations) -> Options:
    fields = [name for name, s in scope.values.items() if isinstance(s, ast.FieldDecl)]

    def field_of(name: str) -> Field | None:
        found = world.value(name)
        return found if isinstance(found, Field) else None

    claims, scans, blocks = [], [], {}
    for s in module.statements:
        match s:
            case ast.SymmetryDecl():
                claims += claims_of(s, field_of, fields, world.findings)
            case ast.ScanDecl():
                parameter = scope.values[s.name.id]
                if isinstance(parameter, ast.ParamDecl):
                    scan = scan_of(
                        s, world.static, world.range_of(parameter), is_structural(parameter), parameter, world.findings
                    )
                    scans += [] if scan is None else [scan]
            case ast.Block():
                blocks[s.head] = settings_of(s, world.static_value, world.findings)
    return claims, scans, blocks.get("guide"), blocks.get("train")


def _check_values(world: ModelDeclarations, parameters: list[ast.ParamDecl], scope: Scope) -> None:
    """Ranges of the dynamic parameters, and the sign of the temperature, at the values that the program starts from."""
    for p in parameters:
        if not is_structural(p):
            world.check_value(p)
    temperature = world.temperature()
    if not isinstance(temperature, Quantity) or scope.temperature is None or world.findings.errors:
        return
    value = world.at_defaults(temperature.expr, scope.temperature.value)
    if isinstance(value, Const) and not 0 < float(value.value.real) < float("inf"):
        world.findings.error(
            "bad-temperature",
            f"the temperature is {float(value.value.real):g}",
            scope.temperature.value.span,
            "must be positive and finite",
        )


def _model_name(module: ast.Module, scope: Scope) -> str:
    """The name it gives itself, or the stem of its file."""
    if scope.model is not None:
        return scope.model.name.id
    source = module.statements[0].span.source.name
    return PurePath(source).stem if not source.startswith("<") else "model"
