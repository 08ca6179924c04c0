"""`vdsl exact`: exact ln Z and averages where the model allows; the cost where it does not."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from vdsl.cli.arguments import Parser, add_model, add_output, natural, overrides
from vdsl.cli.source import read_source
from vdsl.cli.terminal import say, say_diagnostics, show, show_text
from vdsl.report import write


def arguments_exact(parser: Parser) -> None:
    """FILE."""
    add_model(parser)
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="for averages that need exact samples")
    parser.add_argument("--out", type=Path, metavar="DIR", help="also save result.json there")
    parser.add_argument("--force", action="store_true", help="replace the run in --out")
    add_output(parser)


def run_exact(options: argparse.Namespace) -> int:
    """Solves exactly and shows the result in the form of `vdsl solve`."""
    from vdsl import exact
    from vdsl.compile import compile_source
    from vdsl.ir.interpret import resolve_parameters
    from vdsl.report.result import footer, to_json
    from vdsl.report.summary import summary

    started = time.monotonic()
    source, base = read_source(options.file)
    program, warnings = compile_source(source, overrides(options), base, options.allow_path)
    say_diagnostics(warnings)
    directory = None if options.out is None else write.claim(options.out, program.name, options.force)
    found = exact.solve(program, resolve_parameters(program, {}), seed=options.seed)
    result = found.to_json() | footer("cpu")
    method = result.pop("method")
    if directory is not None:
        with write.locked(directory):
            write.write_text(directory / write.MODEL, source.text)
            write.write_json(directory / write.RESULT, result)
    if options.json:
        show_text(to_json(result))
    else:
        notes = [("method", method, "")] + [("left out", f"{k}: {why}", "") for k, why in found.left_out.items()]
        show(summary(result, program.title, directory, time.monotonic() - started, notes))
    if directory is not None and not options.quiet and options.json:
        say(f"saved in {directory}")
    return 0
