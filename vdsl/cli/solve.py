"""`vdsl solve` and `vdsl resume`: train, estimate, save, and say how good it is."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsl.cli.arguments import Parser, add_model, add_output, add_run, add_strict, overrides, usage
from vdsl.cli.source import data_files, read_source
from vdsl.cli.terminal import say, say_diagnostics, show, show_text
from vdsl.errors import Diagnostic, Source, VfeError
from vdsl.report import write
from vdsl.report.progress import Progress

if TYPE_CHECKING:
    from vdsl.ir.program import Program
    from vdsl.model import Model
    from vdsl.run import SolveSettings


def arguments_solve(parser: Parser) -> None:
    """FILE and the flags of a run."""
    add_model(parser)
    add_run(parser)
    add_output(parser)
    add_strict(parser)


def run_solve(options: argparse.Namespace) -> int:
    """Compiles, claims a directory, solves, shows the table."""
    from vdsl.compile import compile_source

    started = time.monotonic()
    source, base = read_source(options.file)
    given = overrides(options)
    program, warnings = compile_source(source, given, base, options.allow_path)
    say_diagnostics(warnings)
    directory = write.claim(options.out, program.name, options.force)
    model, settings = model_of(program, options.x64), settings_of(options)
    context = {
        "source": {"name": source.name, "text": source.text},
        "base": str(base),
        "files": data_files(source, base),
        "overrides": given,
        "allow_path": options.allow_path,
    }
    try:
        with write.locked(directory):
            return _execute(model, settings, directory, context, options, started)
    finally:
        write.discard_if_empty(directory)


def arguments_resume(parser: Parser) -> None:
    """DIR."""
    parser.add_argument(
        "directory", metavar="DIR", type=Path, help="the directory of a run, or of a scan, that was stopped"
    )
    add_output(parser)
    add_strict(parser)


def run_resume(options: argparse.Namespace) -> int:
    """Continues a run; one that has ended is shown again."""
    from vdsl.report.result import read_result

    started = time.monotonic()
    directory = options.directory
    if (directory / write.SCAN).exists():
        from vdsl.cli.scan import resume_scan

        return resume_scan(directory, options)
    manifest = write.read_manifest(directory)
    with write.locked(directory):
        if (directory / write.RESULT).exists():
            if not options.quiet:
                say(f"`{directory}` has ended already: nothing is left to do")
            return present(read_result(directory / write.RESULT), options, directory)
        program = program_of(directory, manifest)
        _compare_versions(manifest)
        model = model_of(program, bool(manifest.get("x64")))
        return _execute(model, settings_from(manifest, directory), directory, {}, options, started)


def settings_of(options: argparse.Namespace) -> SolveSettings:
    """The settings that the flags ask for."""
    from vdsl.run import SolveSettings

    return SolveSettings(
        options.seed, options.time_limit, options.steps, options.batch, options.guide, options.samples,
        options.estimator, options.learning_rate,
    )  # fmt: skip


def model_of(program: Program, x64: bool) -> Model:
    """The compiled model; imports JAX, in double precision if asked."""
    import jax

    if x64:
        jax.config.update("jax_enable_x64", True)
    from vdsl.model import Model

    return Model(program)


def program_of(directory: Path, manifest: dict[str, Any]) -> Program:
    """The program of a run, compiled again from what its directory holds. Raises VfeError `bad-checkpoint` if the
    result is not the program the run was started with."""
    from vdsl.compile import compile_source

    source = Source((manifest["source"] or {}).get("name", "<run>"), write.read_source(directory))
    copied = directory / write.DATA
    base = copied if copied.is_dir() else Path(manifest.get("base") or directory)
    program, _ = compile_source(source, manifest["overrides"], base, bool(manifest.get("allow_path")))
    if program.fingerprint != manifest.get("fingerprint"):
        raise VfeError(
            Diagnostic(
                "bad-checkpoint",
                f"the model in `{directory}` is no longer the one it was started with",
                notes=("its model.vfe, its data or the version of vdsl has changed",),
                hints=("start again with `vdsl solve`",),
            ),
            exit_code=2,
        )
    return program


def present(
    result: dict[str, Any],
    options: argparse.Namespace,
    saved: Path | None,
    title: str = "",
    seconds: float | None = None,
) -> int:
    """Shows a result as the flags ask; returns the exit code."""
    from vdsl.report.result import to_json
    from vdsl.report.summary import summary

    if options.json:
        show_text(to_json(result))
    else:
        show(summary(result, title, saved, seconds))
    warnings = result.get("quality", {}).get("warnings", [])
    if warnings and not options.json and not options.quiet and saved is not None:
        say(f"\n`vdsl diagnose {saved}` says what to do about the warning{'s' if len(warnings) > 1 else ''}")
    return 1 if warnings and options.strict else 0


def _execute(
    model: Model,
    settings: SolveSettings,
    directory: Path,
    context: dict[str, Any],
    options: argparse.Namespace,
    started: float,
) -> int:
    from vdsl.cli.signals import stop_on_signals, terminate_like_interrupt
    from vdsl.fit import Interrupted
    from vdsl.solver import execute

    progress = Progress(sys.stderr, options.quiet)
    terminate_like_interrupt()
    try:
        run = execute(
            model, settings, directory, given=context, progress=progress, guard=lambda: stop_on_signals(progress)
        )
    except Interrupted as stopped:
        progress.clear()
        say(f"stopped at step {stopped.step} of {stopped.steps}; saved. Continue with: vdsl resume {directory}")
        return 130
    except KeyboardInterrupt:
        progress.clear()
        say(f"interrupted; continue from what is saved with: vdsl resume {directory}")
        return 130
    except VfeError as error:
        progress.clear()
        if error.exit_code == 4 and (directory / write.CHECKPOINT).exists():
            last = error.diagnostics[-1]
            hint = f"then continue from what is saved with: vdsl resume {directory}"
            raise VfeError((*error.diagnostics[:-1], replace(last, hints=(*last.hints, hint))), 4) from error
        raise
    title = model.program.title
    return present(run.result, options, directory, title, time.monotonic() - started)


def settings_from(manifest: dict[str, Any], directory: Path) -> SolveSettings:
    from vdsl.run import SolveSettings

    try:
        return SolveSettings(**manifest["settings"])
    except TypeError:
        raise usage(f"the settings in `{directory / write.MANIFEST}` are not those of this version of vdsl") from None


def _compare_versions(manifest: dict[str, Any]) -> None:
    from vdsl.report.result import versions

    now, then = versions(), manifest.get("versions", {})
    changed = [f"{name} {then[name]} -> {now[name]}" for name in now if name in then and then[name] != now[name]]
    if changed:
        message = "the run was started with other versions: the last digits may differ"
        say_diagnostics([Diagnostic("other-versions", message, notes=tuple(changed), severity="warning")])
