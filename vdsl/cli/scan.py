"""`vdsl scan`: a model solved at every value of a parameter; one table, one plot.

A scan is a directory of runs, one for each value, each complete in itself (`vdsl resume`, `vdsl report`), and a
`scan.json` that says what was asked for.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsl.cli.arguments import Parser, add_model, add_output, add_run, add_strict, literal, overrides, usage
from vdsl.cli.solve import model_of, settings_of
from vdsl.cli.source import data_files, read_source
from vdsl.cli.terminal import say, say_diagnostics, show, show_text
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
    programs = []
    for value in values:  # all of them first: a value out of range is said before anything is computed
        program, warnings = compile_source(source, {**given, name: value}, base, options.allow_path)
        programs.append(program)
    say_diagnostics(warnings)
    directory = write.claim(options.out, f"{programs[0].name}-scan", options.force)
    plan = {
        "schema": write.MANIFEST_SCHEMA,
        "model": programs[0].name,
        "name": name,
        "values": values,
        "points": [f"{name}={number(value)}" for value in values],
        "exact": options.exact,
        "settings": asdict(settings_of(options)),
        "x64": options.x64,
    }
    with write.locked(directory):
        write.write_json(directory / write.SCAN, plan)
        for program, value, point in zip(programs, values, plan["points"], strict=True):
            context = {
                "source": {"name": source.name, "text": source.text},
                "base": str(base),
                "files": data_files(source, base),
                "overrides": {**given, name: value},
                "allow_path": options.allow_path,
            }
            code = _point(program, directory / point, context, options, f"{point} ({directory})")
            if code:
                return code
    return _present(directory, options)


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


def _point(program: Program, directory: Path, context: dict[str, Any], options: argparse.Namespace, title: str) -> int:
    """Solves one point into its directory; 130 if it was interrupted."""
    progress = Progress(sys.stderr, options.quiet)
    target = write.claim(directory, program.name)
    if options.exact:
        from vdsl import exact
        from vdsl.ir.interpret import resolve_parameters
        from vdsl.report.result import footer

        progress.stage(f"{title}: exactly")
        result = exact.solve(program, resolve_parameters(program, {}), seed=options.seed).to_json() | footer("cpu")
        result.pop("method")
        write.write_json(target / write.RESULT, result)
        progress.clear()
        return 0
    model = model_of(program, options.x64)
    from vdsl.cli.signals import stop_on_signals, terminate_like_interrupt
    from vdsl.fit import Interrupted
    from vdsl.solver import execute

    terminate_like_interrupt()
    progress.message(title)
    with write.locked(target):
        try:
            execute(
                model, settings_of(options), target, given=context, progress=progress,
                guard=lambda: stop_on_signals(progress),
            )  # fmt: skip
        except (Interrupted, KeyboardInterrupt):
            progress.clear()
            say(f"stopped at {title}; `vdsl report {directory.parent}` shows the points before it,")
            say(f"`vdsl resume {directory}` continues this one")
            return 130
    return 0


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
        path = options.plot or directory / "scan.png"
        plot_scan(name, values, results, path)
        _tell(options, f"\nplot {path}")
    elif options.plot is not None:
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
