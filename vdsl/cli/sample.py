"""`vdsl sample`: averages from independent Markov chains for a model file, or fresh samples of a solved run."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsl.cli.arguments import Parser, add_output, add_overrides, add_strict, natural, overrides, positive, usage
from vdsl.cli.solve import model_of, present, program_of, settings_from
from vdsl.cli.source import read_source
from vdsl.cli.terminal import say, say_diagnostics, show, show_text
from vdsl.errors import Diagnostic, VfeError
from vdsl.report import write
from vdsl.report.progress import Progress
from vdsl.report.summary import detail
from vdsl.report.table import Heading, Notes, Sheet, Table, duration, estimate

if TYPE_CHECKING:
    from vdsl.estimate.chain_averages import ChainAverages
    from vdsl.estimate.importance import Draw
    from vdsl.estimate.markov import MarkovResult
    from vdsl.ir.program import Program

METHODS = ("auto", "local", "cluster", "tempering")


def arguments_sample(parser: Parser) -> None:
    """FILE or DIR, the method and how much."""
    parser.add_argument("what", metavar="FILE|DIR", help="a .vfe file (or - for standard input), or a solved run")
    add_overrides(parser)
    parser.add_argument("--method", choices=METHODS, default="auto", help="how the chains move (default: auto)")
    parser.add_argument("--samples", type=positive, default=16384, metavar="N", help="samples in all (default 16384)")
    parser.add_argument("--chains", type=positive, default=32, metavar="N", help="independent chains (default 32)")
    parser.add_argument("--thin", type=positive, default=4, metavar="N", help="sweeps between samples (default 4)")
    parser.add_argument("--seed", type=natural, default=0, metavar="N", help="random seed (default 0)")
    parser.add_argument("--out", type=Path, metavar="FILE.npz", help="also write the samples and their energies")
    parser.add_argument("--force", action="store_true", help="overwrite --out")
    parser.add_argument("--x64", action="store_true", help="double precision")
    add_output(parser)
    add_strict(parser)


def run_sample(options: argparse.Namespace) -> int:
    """Samples a model by Markov chains, or a solved run by its guide."""
    _check_out(options)
    if Path(options.what).is_dir():
        return _sample_run(options)
    return _sample_model(options)


def _sample_model(options: argparse.Namespace) -> int:
    from vdsl.compile import compile_source

    started = time.monotonic()
    source, base = read_source(options.what)
    program, warnings = compile_source(source, overrides(options), base, options.allow_path)
    say_diagnostics(warnings)
    if options.chains < 2 or options.samples // options.chains < 8:
        raise usage(
            f"{options.samples} samples of {options.chains} chains are too few",
            "error bars need two chains or more, with eight samples or more each",
        )
    progress = Progress(sys.stderr, options.quiet)
    chain, found, head = _run_chains(program, options, progress)
    progress.clear()
    if options.out:
        _write(options.out, found.draw)
    quality: dict[str, Any] = {
        "method": chain.method,
        "samples": found.draw.energy.size,
        "chains": options.chains,
        "thin": options.thin,
        "acceptance": chain.acceptance,
        "exchange": chain.exchange,
        "autocorrelation": found.autocorrelation,
        "r_hat": found.r_hat,
        "warnings": [f"{w.code}: {w.message}" for w in found.warnings],
    }
    if options.json:
        from vdsl.report.result import footer, to_json

        result = head | {
            "energy": found.energy.to_json(),
            "heat_capacity": found.heat_capacity.to_json(),
            "observables": {name: value.to_json() for name, value in found.observables.items()},
            "derived": {name: value.to_json() for name, value in found.derived.items()},
            "quality": quality,
        }
        show_text(to_json(result | footer(_device())))
    else:
        show(_sheet(program, head, found, quality, time.monotonic() - started, options.out))
        say_diagnostics(found.warnings)
    return 1 if found.warnings and options.strict else 0


def _run_chains(
    program: Program, options: argparse.Namespace, progress: Progress
) -> tuple[MarkovResult, ChainAverages, dict[str, Any]]:
    model = model_of(program, options.x64)
    import jax

    from vdsl.estimate.chain_averages import chain_averages
    from vdsl.estimate.cluster import find_clusters
    from vdsl.estimate.markov import opaque_energy, sample_markov
    from vdsl.ir.factors import factorise
    from vdsl.ir.interpret import resolve_parameters, temperature
    from vdsl.ir.support import describe, is_discrete
    from vdsl.solver import header

    for field in program.fields:
        if not is_discrete(field.support):
            raise VfeError(
                Diagnostic(
                    "not-discrete",
                    f"no Markov chain yet for field `{field.name}` of type {describe(field.support)}",
                    notes=("local, cluster and tempering updates serve spin, potts, clock and occupation fields",),
                )
            )
    theta = resolve_parameters(program, {})
    t = temperature(program, theta)
    graph = factorise(program, theta)
    if options.method == "cluster" and find_clusters(graph) is None:
        raise VfeError(
            Diagnostic(
                "method-cannot-serve",
                "cluster updates do not apply to this model",
                notes=("they need pair terms that only tell equal from unequal, and no other terms of q > 2 states",),
                hints=("`--method tempering` or `--method local`",),
            ),
            exit_code=2,
        )
    progress.stage("running Markov chains")
    kept = -(-options.samples // options.chains)
    chain = sample_markov(
        graph, t, jax.random.key(options.seed), options.chains, kept * options.thin, options.thin, options.method,
        opaque=opaque_energy(graph, model, theta),
    )  # fmt: skip
    progress.stage("averaging")
    return chain, chain_averages(chain, graph, model, theta, t), header(program, theta, t)


def _sample_run(options: argparse.Namespace) -> int:
    """A new estimate of a solved run from samples with a seed of their own."""
    if options.overrides:
        raise usage("a solved run has its parameters already", "`--set` goes with a model file")
    directory = Path(options.what)
    manifest = write.read_manifest(directory)
    program = program_of(directory, manifest)
    model = model_of(program, bool(manifest.get("x64")) or options.x64)
    from vdsl.solver import reload

    progress = Progress(sys.stderr, options.quiet)
    run = reload(model, settings_from(manifest, directory), directory, options.seed, options.samples, progress)
    if options.out:
        _write(options.out, run.draw)
    return present(run.result, options, None, program.title)


def _check_out(options: argparse.Namespace) -> None:
    if options.out is None:
        return
    if options.out.suffix != ".npz":
        raise usage(f"`{options.out}` is no .npz file", "samples are written in NumPy's npz format")
    if options.out.exists() and not options.force:
        raise VfeError(
            Diagnostic("out-exists", f"`{options.out}` exists", hints=("`--force` overwrites it",)), exit_code=2
        )


def _write(path: Path, draw: Draw) -> None:
    arrays = {f"sample/{name}": values for name, values in draw.x.items()}
    arrays |= {f"observable/{name}": values for name, values in draw.observables.items()}
    write.write_arrays(path, arrays | {"log_q": draw.log_q, "energy": draw.energy})
    say(f"wrote {path}")


def _sheet(
    program: Program,
    head: dict[str, Any],
    found: ChainAverages,
    quality: dict[str, Any],
    seconds: float,
    out: Path | None,
) -> Sheet:
    n = head["sites"] or 1
    totals = {"energy": ("E  energy", found.energy), "heat_capacity": ("C  heat capacity", found.heat_capacity)}
    rows = [
        (words, estimate(value.value / n, value.error / n), estimate(value.value, value.error), *_mixing(found, name))
        for name, (words, value) in totals.items()
    ]
    blocks: list[Heading | Table | Notes] = [
        Heading(f"{program.name}{': ' + program.title if program.title else ''}", detail(head)),
        Table(("", "per site", "total", "autocorrelation", "R-hat"), tuple(rows)),
    ]
    averages = {**found.observables, **found.derived}
    if averages:
        lines = tuple((k, estimate(v.value, v.error), *_mixing(found, k)) for k, v in averages.items())
        blocks.append(Table(("observable", "average", "autocorrelation", "R-hat"), lines))
    moved = f"{quality['samples']:,} samples of {quality['chains']} chains, every {quality['thin']} sweeps"
    rates = f"{100 * quality['acceptance']:.0f} % of the variables change in a sweep"
    if quality["exchange"] is not None:
        rates += f", {100 * quality['exchange']:.0f} % of the exchanges are taken"
    notes = [("method", f"{quality['method']}: {moved}", ""), ("", rates, ""), ("time", duration(seconds), "")]
    if out is not None:
        notes.append(("saved", str(out), ""))
    blocks.append(Notes(tuple(notes)))
    return tuple(blocks)


def _mixing(found: ChainAverages, name: str) -> tuple[str, str]:
    if name not in found.r_hat:
        return "", ""
    return f"{found.autocorrelation[name]:.1f}", f"{found.r_hat[name]:.3f}"


def _device() -> str:
    import jax

    return jax.default_backend()
