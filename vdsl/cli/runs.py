"""`vdsl report` and `vdsl diagnose`: what finished runs say, side by side, and what limits one of them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from vdsl.cli.arguments import Parser, add_strict
from vdsl.cli.terminal import say, show, show_text
from vdsl.report import write
from vdsl.report.result import read_result, to_json


def arguments_report(parser: Parser) -> None:
    """DIR… and the plot."""
    parser.add_argument("directory", metavar="DIR", nargs="+", type=Path, help="a run, or a scan")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="write a PNG: the training histories, or the sweep")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else")


def run_report(options: argparse.Namespace) -> int:
    """One run as `vdsl solve` showed it; several side by side; a scan as its table."""
    from vdsl.report.summary import comparison, scan_table, summary

    directories = options.directory
    if len(directories) == 1 and (directories[0] / write.SCAN).exists():
        name, values, points = write.read_scan(directories[0])
        if options.json:
            show_text(to_json({"scan": name, "values": values, "results": points}))
        else:
            show(scan_table(name, values, points))
        if options.plot:
            from vdsl.report.plots import plot_scan

            plot_scan(name, values, points, options.plot)
        return 0
    results = {str(d): read_result(d / write.RESULT) for d in directories}
    if options.json:
        show_text(to_json({"runs": results}))
    elif len(results) == 1:
        (directory, result), *_ = results.items()
        show(summary(result, saved=Path(directory)))
    else:
        show(comparison(results))
    if options.plot:
        from vdsl.report.plots import plot_history

        histories = {str(d): write.read_arrays(d / write.HISTORY) for d in directories}
        plot_history(histories, {name: result["sites"] for name, result in results.items()}, options.plot)
        say(f"wrote {options.plot}")
    return 0


def arguments_diagnose(parser: Parser) -> None:
    """DIR."""
    parser.add_argument("directory", metavar="DIR", type=Path, help="a run that has ended")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else")
    add_strict(parser)


def run_diagnose(options: argparse.Namespace) -> int:
    """Checks the run against every threshold; says cause and remedy of what fails."""
    from vdsl.report.diagnose import Check, checks, sheet

    directory = options.directory
    result = read_result(directory / write.RESULT)
    diagnostics = _optional_json(directory / write.DIAGNOSTICS)
    history = write.read_arrays(directory / write.HISTORY) if (directory / write.HISTORY).exists() else {}
    found: tuple[Check, ...] = checks(result, diagnostics, history)
    if options.json:
        show_text(to_json({"run": str(directory), "checks": [c.to_json() for c in found]}))
    else:
        show(sheet(result, found))
    return 1 if options.strict and not all(c.passed for c in found) else 0


def _optional_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
