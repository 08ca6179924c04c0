"""`vdsl scan`: a model solved at every value of a parameter; one table, one plot.

A scan is a directory of runs, one for each value, each complete in itself (`vdsl report`, `vdsl sample`), and a
`scan.json` that holds all that was asked for, so that `vdsl resume` continues it wherever it was stopped.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsl.cli.arguments import Parser, add_model, add_output, add_run, add_strict, literal, overrides, usage
from vdsl.cli.solve import model_of, settings_of
from vdsl.cli.source import data_files, read_source
from vdsl.cli.terminal import say, say_diagnostics, show, show_text
from vdsl.errors import Diagnostic, Source
from vdsl.report import write
from vdsl.report.progress import Progress
from vdsl.report.table import number

if TYPE_CHECKING:
    from vdsl.ir.program import Program

_MOST = 1000


def arguments_scan(parser: Parser) -> None:
    """FILE, the sweep, and the flags of a run."""
    add_model(parser)
    parser.add_argument(
        "--scan",
        type=sweep,
        metavar="NAME=A:B:N",
        help="N values from A to B, or NAME=A,B,C (default: the file's scan)",
    )
    parser.add_argument("--amortise", action="store_true", help="train one guide for all values of a real parameter")
    parser.add_argument("--cold", action="store_true", help="start every point afresh, not from its neighbour's guide")
    parser.add_argument("--exact", action="store_true", help="solve every point exactly instead of training a guide")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="where the plot goes (default: scan.png in --out)")
    add_run(parser)
    add_output(parser)
    add_strict(parser)


def run_scan(options: argparse.Namespace) -> int:
    """Solves every point and shows the table; writes the plot where matplotlib is installed."""
    from vdsl.compile import compile_source

    source, base = read_source(options.file)
    given = overrides(options)
    name, values = _chosen(options, compile_source(source, given, base, options.allow_path)[0])
    if name in given:
        raise usage(f"`{name}` is both set and scanned")
    if options.exact and options.amortise:
        raise usage("`--exact` trains no guide that `--amortise` could share")
    plan = {
        "schema": write.MANIFEST_SCHEMA,
        "name": name,
        "values": values,
        "points": [f"{name}={number(value)}" for value in values],
        "exact": options.exact,
        "amortise": options.amortise,
        "cold": options.cold,
        "settings": asdict(settings_of(options)),
        "x64": options.x64,
        "source": {"name": source.name, "text": source.text},
        "base": str(base),
        "overrides": given,
        "allow_path": options.allow_path,
    }
    programs = _programs(plan, base)
    directory = write.claim(options.out, f"{programs[0].name}-scan", options.force)
    with write.locked(directory):
        for file, content in data_files(source, base).items():
            write.write_bytes(directory / write.DATA / file, content)
        write.write_json(directory / write.SCAN, plan | {"model": programs[0].name})
        code = _solve_points(directory, plan, programs, options)
    return code or _present(directory, options)


def resume_scan(directory: Path, options: argparse.Namespace) -> int:
    """Continues a scan that was stopped: the points that are missing, the interrupted one from its checkpoint."""
    plan = write.read_scan_plan(directory)
    if "source" not in plan:
        raise usage(f"`{directory}` was written by another version of vdsl", "start again with `vdsl scan`")
    copied = directory / write.DATA
    programs = _programs(plan, copied if copied.is_dir() else Path(plan["base"]))
    with write.locked(directory):
        code = _solve_points(directory, plan, programs, options)
    return code or _present(directory, options)


def _programs(plan: dict[str, Any], base: Path) -> list[Program]:
    """The program of every point: all of them first, so that a value out of range is said before anything is done."""
    from vdsl.compile import compile_source

    source, programs = Source(plan["source"]["name"], plan["source"]["text"]), []
    warnings: tuple[Diagnostic, ...] = ()
    for value in plan["values"]:
        overrides = {**plan["overrides"], plan["name"]: value}
        program, warnings = compile_source(source, overrides, base, plan["allow_path"])
        programs.append(program)
    say_diagnostics(warnings)
    return programs


def _solve_points(directory: Path, plan: dict[str, Any], programs: list[Program], options: argparse.Namespace) -> int:
    """Solves the points that have no result yet; 130 if that was interrupted."""
    targets = [directory / point for point in plan["points"]]
    for target in targets:
        target.mkdir(exist_ok=True)
    progress = Progress(sys.stderr, options.quiet)
    if plan["exact"]:
        return _exactly(programs, targets, plan, progress)
    from vdsl.cli.signals import stop_on_signals, terminate_like_interrupt
    from vdsl.fit import Interrupted
    from vdsl.run import SolveSettings
    from vdsl.sweep import Point, execute_sweep

    files = {str(f.relative_to(directory / write.DATA)): f for f in (directory / write.DATA).rglob("*") if f.is_file()}
    context = {name: plan[name] for name in ("source", "base", "allow_path")}
    context |= {"files": {name: f.read_bytes() for name, f in files.items()}}
    points = []
    for value, target, program in zip(plan["values"], targets, programs, strict=True):
        given = context | {"overrides": {**plan["overrides"], plan["name"]: value}}
        points.append(Point(float(value), model_of(program, plan["x64"]), target, given))
    terminate_like_interrupt()
    with ExitStack() as locks:
        for target in targets:
            locks.enter_context(write.locked(target))
        try:
            execute_sweep(
                points,
                SolveSettings(**plan["settings"]),
                amortise=plan["amortise"],
                cold=plan["cold"],
                progress=progress,
                shared=directory,
                guard=lambda: stop_on_signals(progress),
                on_point=lambda point: progress.message(f"{point.directory}"),
            )
        except (Interrupted, KeyboardInterrupt):
            progress.clear()
            say(f"stopped; `vdsl report {directory}` shows the points that are done,")
            say(f"`vdsl resume {directory}` continues with the rest")
            return 130
    return 0


def _exactly(programs: list[Program], targets: list[Path], plan: dict[str, Any], progress: Progress) -> int:
    from vdsl import exact
    from vdsl.ir.interpret import resolve_parameters
    from vdsl.report.result import footer

    for program, target in zip(programs, targets, strict=True):
        progress.stage(f"{target}: exactly")
        found = exact.solve(program, resolve_parameters(program, {}), seed=plan["settings"]["seed"] or 0)
        result = found.to_json() | footer("cpu")
        result.pop("method")
        write.write_json(target / write.RESULT, result)
    progress.clear()
    return 0


def sweep(text: str) -> tuple[str, list[float]]:
    """`T=1.6:3.2:17` (first, last, how many) or `T=1,2,4`."""
    name, equals, values = text.partition("=")
    name = name.strip()
    wrong = argparse.ArgumentTypeError(f"`{text}` is no sweep: write T=1.6:3.2:17 or T=1,2,4")
    if not equals or not re.fullmatch(r"\w+", name):
        raise wrong
    if ":" in values:
        ends = [end for end in map(literal, values.split(":")) if not isinstance(end, str)]
        if values.count(":") != 2 or len(ends) != 3:
            raise wrong
        first, last, count = ends
        if not isinstance(count, int) or not 1 <= count <= _MOST or not all(math.isfinite(e) for e in (first, last)):
            raise wrong
        step = (last - first) / max(count - 1, 1)
        found = [float(first + k * step) for k in range(count - 1)] + [float(last if count > 1 else first)]
        whole = isinstance(first, int) and isinstance(last, int) and all(v == round(v) for v in found)
        return name, [int(v) for v in found] if whole else found
    parts = [literal(part) for part in values.split(",")]
    if any(isinstance(part, str) or not math.isfinite(part) for part in parts) or len(parts) > _MOST:
        raise wrong
    return name, parts  # type: ignore[return-value]


def _chosen(options: argparse.Namespace, program: Program) -> tuple[str, list[float]]:
    if options.scan is not None:
        return options.scan
    if not program.scans:
        raise usage(f"`{options.file}` has no `scan` statement", "say what to sweep: --scan T=1.6:3.2:17")
    if len(program.scans) > 1:
        names = ", ".join(f"`{scan.name}`" for scan in program.scans)
        raise usage(f"`{options.file}` has several scans: {names}", "choose one with --scan NAME=A:B:N")
    scan = program.scans[0]
    whole = scan.name in {s.name for s in program.structure}
    return scan.name, [int(v) if whole and v == int(v) else v for v in scan.values]


def _present(directory: Path, options: argparse.Namespace) -> int:
    from vdsl.report.plots import available, plot_scan
    from vdsl.report.result import to_json
    from vdsl.report.summary import scan_table

    name, values, results = write.read_scan(directory)
    warnings = [w for result in results for w in result.get("quality", {}).get("warnings", [])]
    if options.json:
        show_text(to_json({"scan": name, "values": values, "results": results}))
    else:
        show(scan_table(name, values, results))
    if available():
        path = getattr(options, "plot", None) or directory / "scan.png"
        plot_scan(name, values, results, path)
        _tell(options, f"\nplot {path}")
    elif getattr(options, "plot", None) is not None:
        plot_scan(name, values, results, options.plot)  # says what is missing
    else:
        _tell(options, "\nno plot: matplotlib is not installed (pip install 'vdsl[plot]')")
    _tell(options, f"saved {directory}")
    if warnings and not options.json:
        show_text(f"{len(warnings)} warnings; `vdsl diagnose` says more about a point")
    return 1 if warnings and options.strict else 0


def _tell(options: argparse.Namespace, text: str) -> None:
    if not options.quiet:
        say(text)
