"""`vdsl explain`: what the compiler understood of a model and what it would do with it, or what a diagnostic means."""

from __future__ import annotations

import argparse
import difflib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsl.cli.arguments import Parser, add_overrides, overrides, usage
from vdsl.cli.source import STDIN, read_source
from vdsl.cli.terminal import say_diagnostics, show, show_text
from vdsl.errors import VfeError
from vdsl.report.table import Heading, Notes, Sheet, Table, amount, number

if TYPE_CHECKING:
    from vdsl.guides.guide import GuideChoice
    from vdsl.guides.problem import Problem
    from vdsl.ir.program import Program


def arguments_explain(parser: Parser) -> None:
    """FILE or CODE."""
    parser.add_argument("what", metavar="FILE|CODE", help="a .vfe file, or the code of a diagnostic, e.g. unknown-set")
    add_overrides(parser)
    parser.add_argument("--guide", metavar="NAME", help="explain this guide instead of the default one")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else")


def run_explain(options: argparse.Namespace) -> int:
    """Explains a file if there is one of that name, else a code."""
    what = options.what
    if what == STDIN or what.endswith(".vfe") or "/" in what or Path(what).is_file():
        return _explain_model(options)
    return _explain_code(what, options.json)


def _explain_code(code: str, as_json: bool) -> int:
    from vdsl.codes import CODES

    found = CODES.get(code)
    if found is None:
        close = difflib.get_close_matches(code, CODES, 1, 0.5)
        hint = f"did you mean `{close[0]}`?" if close else "a code stands in brackets, as in error[unknown-set]"
        raise usage(f"there is no file and no diagnostic called `{code}`", hint)
    if as_json:
        text = {"code": code, "summary": found.summary, "body": found.body, "example": found.example}
        show_text(json.dumps(text, indent=2, ensure_ascii=False))
        return 0
    show_text(f"{code}: {found.summary}\n\n{_wrapped(found.body)}")
    if found.example:
        show_text("\nexample:\n" + "\n".join(f"    {line}" for line in found.example.splitlines()))
    return 0


def _explain_model(options: argparse.Namespace) -> int:
    from vdsl.compile import compile_source
    from vdsl.ir.interpret import resolve_parameters, temperature
    from vdsl.report.result import to_json

    source, base = read_source(options.what)
    program, warnings = compile_source(source, overrides(options), base, options.allow_path)
    say_diagnostics(warnings)
    theta = resolve_parameters(program, {})
    facts = _facts(program, theta, temperature(program, theta), options.guide)
    if options.json:
        show_text(to_json(facts))
    else:
        show(_sheet(program, facts))
    return 0


def _facts(program: Program, theta: dict[str, float], temperature: float, guide: str | None) -> dict[str, Any]:
    """Everything `explain` says, as data."""
    from vdsl.guides import registry
    from vdsl.guides.problem import Problem
    from vdsl.ir.support import cardinality, describe, is_discrete
    from vdsl.ir.symmetry import claimed, infer
    from vdsl.lowering.strategy import decisions

    fields = [
        {
            "name": f.name,
            "type": describe(f.support),
            "on": f.on,
            "values": program.elements(f),
            "states": cardinality(f.support) if is_discrete(f.support) else None,
        }
        for f in program.fields
    ]
    parameters = [
        {"name": s.name, "value": s.value, "kind": "structural", "range": str(s.range or ""), "doc": s.doc}
        for s in program.structure
    ] + [
        {"name": p.name, "value": theta[p.name], "kind": "dynamic", "range": str(p.range or ""), "doc": p.doc}
        for p in program.parameters
    ]
    terms = [
        {"where": d.where, "reduction": d.reduction, "strategy": d.strategy.kind, "reason": d.strategy.reason}
        for d in decisions(program)
    ]
    symmetries = [{"symmetry": str(s), "source": "inferred"} for s in infer(program, theta)]
    symmetries += [{"symmetry": str(s), "source": "claimed"} for s in claimed(program)]
    facts: dict[str, Any] = {
        "model": program.name,
        "title": program.title,
        "fingerprint": program.fingerprint,
        "temperature": temperature,
        "fields": fields,
        "sets": dict(_sets(program)),
        "parameters": parameters,
        "data": [
            {"name": d.name, "on": d.on, "shape": list(d.values.values.shape), "digest": d.values.digest}
            for d in program.data
        ],
        "terms": terms,
        "symmetries": symmetries,
        "bytes_per_sample": sum(program.elements(f) * _bytes(f) for f in program.fields),
    }
    problem = Problem(program, theta)
    try:
        registry.check_fields(program)
        facts["exact"] = _exact(problem)
        facts["guide"] = _guide(problem, guide)
    except VfeError as refused:  # explaining goes on: that there is no guide is one of the facts
        if refused.diagnostics[0].code not in ("no-guide", "too-large"):
            raise
        facts["no_guide"] = "; ".join((refused.diagnostics[0].message, *refused.diagnostics[0].notes))
    return facts


def _sets(program: Program) -> Iterator[tuple[str, int]]:
    lattice = program.lattice
    if lattice is None:
        return
    yield "sites", lattice.n_sites
    for name in lattice.bond_set_names():
        yield name, lattice.n_bonds(name)
    if not lattice.is_graph:
        yield "axes", lattice.n_axes
        if lattice.n_basis == 1:
            yield "links", lattice.n_links
            yield "planes", len(lattice.planes)
            yield "plaquettes", lattice.n_plaquettes


def _bytes(field: Any) -> int:
    import numpy as np

    from vdsl.ir.support import event_shape, is_complex, is_discrete, stored_states

    if is_discrete(field.support):
        return stored_states(field.support).dtype.itemsize
    return int(np.prod(event_shape(field.support), dtype=int)) * (8 if is_complex(field.support) else 4)


def _exact(problem: Problem) -> dict[str, Any]:
    from vdsl import exact

    cost = exact.cost(problem.program, problem.theta, problem.graph if problem.discrete else None)
    return {
        "feasible": cost.feasible,
        "method": cost.method,
        "table_entries": cost.table_entries,
        "bytes": cost.bytes,
        "seconds": cost.seconds_estimate,
    }


def _guide(problem: Problem, name: str | None) -> dict[str, Any]:
    from vdsl import stages
    from vdsl.guides import registry

    said = problem.program.guide
    choice: GuideChoice = registry.choose(problem, name or (said.name if said is not None else "") or None)
    guide = registry.build(choice, problem)
    first = stages.describe(problem, choice)
    return {
        "name": choice.name,
        "reason": choice.reason,
        **choice.description,
        **({"trained first on": first} if first else {}),
        "parameters": guide.n_parameters(),
        "trained": guide.trainable(),
    }


def _sheet(program: Program, facts: Mapping[str, Any]) -> Sheet:
    fields = tuple(
        (f["name"], f["type"], f["on"], f"{f['values']:,}", "" if f["states"] is None else str(f["states"]))
        for f in facts["fields"]
    )
    sets = tuple((name, f"{count:,}") for name, count in facts["sets"].items())
    blocks: list[Heading | Table | Notes] = [
        Heading(_title(facts), f"fingerprint {facts['fingerprint'][:16]}"),
        Table(("field", "type", "on", "values", "states each"), fields, left=("type", "on")),
        Table((_lattice(program), "count"), sets),
    ]
    if facts["parameters"]:
        parameters = tuple(
            (p["name"], number(p["value"]), p["kind"], p["range"], p["doc"]) for p in facts["parameters"]
        )
        blocks.append(
            Table(("parameter", "value", "kind", "range", "meaning"), parameters, left=("kind", "range", "meaning"))
        )
    if facts["data"]:
        data = tuple(
            (d["name"], d["on"] or "", "×".join(map(str, d["shape"])), d["digest"][:12]) for d in facts["data"]
        )
        blocks.append(Table(("data", "on", "shape", "sha-256"), data, left=("on",)))
    rows = tuple((t["where"], t["reduction"], t["strategy"], t["reason"]) for t in facts["terms"])
    if rows:
        blocks.append(
            Table(
                ("term", "reduction", "lowered to", "because of"), rows, left=("reduction", "lowered to", "because of")
            )
        )
    blocks.append(Notes(tuple(_notes(facts))))
    return tuple(blocks)


def _notes(facts: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    yield "temperature", number(facts["temperature"]), ""
    for k, s in enumerate(facts["symmetries"]):
        yield ("symmetries" if k == 0 else ""), f"{s['symmetry']} ({s['source']})", ""
    if not facts["symmetries"]:
        yield "symmetries", "none found", ""
    yield "memory", f"{amount(facts['bytes_per_sample'])} a configuration", ""
    if "exact" in facts:
        yield "exact", _exact_words(facts["exact"]), ""
    guide = facts.get("guide")
    if guide is None:
        yield "guide", f"none: {facts['no_guide']}", ""
        return
    yield "guide", f"{guide['name']}: {guide['reason']}", ""
    size = "nothing to train" if not guide["trained"] else f"{guide['parameters']:,} numbers to train"
    yield "", size, ""
    for key, value in guide.items():
        if key not in {"name", "reason", "parameters", "trained"}:
            shown = f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
            yield "", f"{key}: {shown}", ""


def _exact_words(exact: Mapping[str, Any]) -> str:
    from vdsl.report.table import duration

    verdict = "feasible" if exact["feasible"] else "too expensive"
    if exact["bytes"] == math.inf:
        return f"{verdict}: {exact['method']}, beyond any machine"
    return f"{verdict}: {exact['method']}, {_large(exact['bytes'])}, about {_long(exact['seconds'], duration)}"


def _large(size: float) -> str:
    return amount(size) if size < 2**50 else f"{size:.1e} bytes"


def _long(seconds: float, duration: Any) -> str:
    return duration(seconds) if seconds < 1e6 else f"{seconds / 31557600:.1e} years"


def _lattice(program: Program) -> str:
    lattice = program.lattice
    if lattice is None:
        return "set"
    if lattice.is_graph:
        return f"{lattice.kind}({lattice.n_sites})"
    boundary = sorted(set(lattice.boundary))
    edges = boundary[0] if len(boundary) == 1 else f"({', '.join(lattice.boundary)})"
    return f"{lattice.kind}({', '.join(map(str, lattice.shape))}), {edges}"


def _title(facts: Mapping[str, Any]) -> str:
    return f"{facts['model']}: {facts['title']}" if facts["title"] else str(facts["model"])


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.fill(line, 100) for line in text.splitlines())
