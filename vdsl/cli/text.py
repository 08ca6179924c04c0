"""`vdsl check`, `vdsl fmt` and `vdsl tex`: what only needs the text of a model. Nothing here imports JAX."""

from __future__ import annotations

import argparse
import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vdsl.cli.arguments import Parser, add_model, add_output, add_strict, overrides, usage
from vdsl.cli.source import STDIN, read_source
from vdsl.cli.terminal import say, say_diagnostics, show_text
from vdsl.errors import Diagnostic, VfeError
from vdsl.files import replace_file


def arguments_check(parser: Parser) -> None:
    """FILE… and the flags of the checker."""
    add_model(parser, nargs="+")
    add_output(parser)
    add_strict(parser)


def run_check(options: argparse.Namespace) -> int:
    """Checks every file, reports everything, returns the largest exit code."""
    from vdsl.compile import compile_source

    code, reports = 0, []
    for file in options.file:
        diagnostics: tuple[Diagnostic, ...]
        try:
            source, base = read_source(file)
            _, diagnostics = compile_source(source, overrides(options), base, options.allow_path)
            found = 1 if diagnostics and options.strict else 0
            verdict = f"{file}: ok{_counted(diagnostics, ', ')}"
        except VfeError as error:
            diagnostics, found = error.diagnostics, error.exit_code
            verdict = f"{file}: {_counted(diagnostics)}"
        code = max(code, found)
        reports.append({"file": file, "ok": found == 0, "diagnostics": [to_json(d) for d in diagnostics]})
        if options.json:
            continue
        if diagnostics:
            say_diagnostics(diagnostics)
            say("")
        if not options.quiet:
            show_text(verdict)
    if options.json:
        show_text(json.dumps({"files": reports}, indent=2, ensure_ascii=False))
    return code


def arguments_fmt(parser: Parser) -> None:
    """FILE…, `--check` and `--diff`."""
    parser.add_argument("file", metavar="FILE", nargs="+", help="a .vfe file, or - to format standard input")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not formatted")
    parser.add_argument("--diff", action="store_true", help="write nothing; show what would change")
    parser.add_argument("--quiet", action="store_true", help="do not name the files that change")


def run_fmt(options: argparse.Namespace) -> int:
    """Rewrites files in canonical layout. A file with syntax errors is left as it is."""
    from vdsl.frontend.format import format_module
    from vdsl.frontend.parse import parse

    code = 0
    for file in options.file:
        try:
            source, _ = read_source(file)
            formatted = format_module(parse(source))
        except VfeError as error:
            say_diagnostics(error.diagnostics)
            code = max(code, error.exit_code)
            continue
        changed = formatted != source.text
        if options.diff:
            if changed:
                show_text(_difference(source.text, formatted, source.name))
        elif file == STDIN and not options.check:
            print(formatted, end="")
            continue
        if changed and (options.check or options.diff):
            code = max(code, 1 if options.check else 0)
            if options.check and not options.quiet and not options.diff:
                show_text(f"{file}: would be formatted")
        elif changed:
            _rewrite(Path(file), formatted)
            if not options.quiet:
                say(f"{file}: formatted")
    return code


def arguments_tex(parser: Parser) -> None:
    """FILE."""
    add_model(parser)


def run_tex(options: argparse.Namespace) -> int:
    """Prints the Hamiltonian in LaTeX."""
    from vdsl.compile import compile_source
    from vdsl.frontend.tex import tex

    source, base = read_source(options.file)
    program, warnings = compile_source(source, overrides(options), base, options.allow_path)
    say_diagnostics(warnings)
    show_text(tex(program))
    return 0


def to_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """A diagnostic as an editor wants it: 1-based line and column, half-open end."""
    d = diagnostic
    out: dict[str, Any] = {"code": d.code, "severity": d.severity, "message": d.message}
    if d.span is not None:
        line, column = d.span.source.position(d.span.start)
        end_line, end_column = d.span.source.position(d.span.end)
        out |= {"line": line, "column": column, "end_line": end_line, "end_column": end_column, "label": d.label}
    return out | {"notes": list(d.notes), "hints": list(d.hints)}


def _counted(diagnostics: Sequence[Diagnostic], prefix: str = "") -> str:
    counts = []
    for severity in ("error", "warning"):
        n = sum(d.severity == severity for d in diagnostics)
        if n:
            counts.append(f"{n} {severity}{'s' if n > 1 else ''}")
    return prefix + ", ".join(counts) if counts else ""


def _difference(old: str, new: str, name: str) -> str:
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), name, f"{name} (formatted)"
    )
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines).rstrip("\n")


def _rewrite(path: Path, text: str) -> None:
    target = path.resolve()  # a link stays a link
    mode = target.stat().st_mode
    if not os.access(target, os.W_OK):
        raise usage(f"`{path}` is read-only")
    replace_file(target, text.encode())
    os.chmod(target, mode & 0o7777)
