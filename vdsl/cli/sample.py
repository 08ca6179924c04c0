"""`vdsl sample`: averages from independent Markov chains for a model file, or fresh samples of a solved run."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
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
    from vdsl.estimate.stats import Estimate
    from vdsl.ir.program import Program
    from vdsl.model import Model

DISCRETE = ("local", "cluster", "tempering")
CONTINUOUS = ("hmc", "heatbath", "nuts", "smc", "blackjax")
METHODS = ("auto", *DISCRETE, *CONTINUOUS)


def arguments_sample(parser: Parser) -> None:
    """FILE or DIR, the method and how much."""
    parser.add_argument("what", metavar="FILE|DIR", help="a .vfe file (or - for standard input), or a solved run")
    add_overrides(parser)
    parser.add_argument("--method", choices=METHODS, default="auto", help="how the chains move (default: auto)")
    parser.add_argument("--samples", type=positive, default=16384, metavar="N", help="samples in all (default 16384)")
    parser.add_argument("--chains", type=positive, default=32, metavar="N", help="independent chains (default 32)")
    parser.add_argument("--thin", type=positive, default=4, metavar="N", help="updates between samples (default 4)")
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
    sampled = _run_chains(program, options, progress)
    found = sampled.found
    progress.clear()
    if options.out:
        _write(options.out, found.draw)
    if options.json:
        from vdsl.report.result import footer, to_json

        totals = sampled.free_energies | {"energy": found.energy, "heat_capacity": found.heat_capacity}
        result = sampled.head | {name: value.to_json() for name, value in totals.items()}
        result |= {
            "observables": {name: value.to_json() for name, value in found.observables.items()},
            "derived": {name: value.to_json() for name, value in found.derived.items()},
            "quality": _quality(sampled, options),
        }
        show_text(to_json(result | footer(_device())))
    else:
        show(_sheet(program, sampled, options, time.monotonic() - started))
        say_diagnostics(found.warnings)
    return 1 if found.warnings and options.strict else 0


@dataclass(frozen=True)
class Sampled:
    """What a sampler gave. rates: its numbers for `quality`; words: the same for people; free_energies: F, S, ln Z."""

    head: dict[str, Any]
    found: ChainAverages
    method: str
    rates: Mapping[str, float | None]
    words: str
    moved: str
    free_energies: dict[str, Estimate] = field(default_factory=dict)


def _quality(sampled: Sampled, options: argparse.Namespace) -> dict[str, Any]:
    found = sampled.found
    return {
        "method": sampled.method,
        "samples": found.draw.energy.size,
        "chains": options.chains,
        "thin": options.thin,
        **sampled.rates,
        "autocorrelation": found.autocorrelation,
        "r_hat": found.r_hat,
        "warnings": [f"{w.code}: {w.message}" for w in found.warnings],
    }


def _run_chains(program: Program, options: argparse.Namespace, progress: Progress) -> Sampled:
    model = model_of(program, options.x64)
    from vdsl.ir.interpret import resolve_parameters, temperature
    from vdsl.ir.support import is_discrete
    from vdsl.solver import header

    continuous = [f for f in program.fields if not is_discrete(f.support)]
    method = options.method
    if method == "auto":
        method = "hmc" if continuous else "auto"
    elif continuous and method in DISCRETE:
        raise _cannot_serve(
            f"{method} updates do not apply to field `{continuous[0].name}`", "they move discrete fields only",
            "`--method hmc`",
        )  # fmt: skip
    elif not continuous and method in CONTINUOUS:
        raise _cannot_serve(
            f"`{method}` does not apply to this model", "it has no continuous field", "leave out `--method`"
        )
    theta = resolve_parameters(program, {})
    t = temperature(program, theta)
    run = _run_fields if continuous else _run_discrete
    return run(model, theta, t, method, options, progress, header(program, theta, t))


def _run_discrete(
    model: Model, theta: dict[str, float], t: float, method: str, options: argparse.Namespace, progress: Progress,
    head: dict[str, Any],
) -> Sampled:  # fmt: skip
    import jax

    from vdsl.estimate.chain_averages import chain_averages
    from vdsl.estimate.cluster import find_clusters
    from vdsl.estimate.markov import opaque_energy, sample_markov
    from vdsl.ir.factors import factorise

    graph = factorise(model.program, theta)
    if method == "cluster" and find_clusters(graph) is None:
        raise _cannot_serve(
            "cluster updates do not apply to this model",
            "they need pair terms that only tell equal from unequal, and no other terms of q > 2 states",
            "`--method tempering` or `--method local`",
        )
    progress.stage("running Markov chains")
    kept = -(-options.samples // options.chains)
    chain = sample_markov(
        graph, t, jax.random.key(options.seed), options.chains, kept * options.thin, options.thin, method,
        opaque=opaque_energy(graph, model, theta),
    )  # fmt: skip
    progress.stage("averaging")
    words = f"{100 * chain.acceptance:.0f} % of the variables change in a sweep"
    if chain.exchange is not None:
        words += f", {100 * chain.exchange:.0f} % of the exchanges are taken"
    rates = {"acceptance": chain.acceptance, "exchange": chain.exchange}
    averages = chain_averages(chain, graph, model, theta, t)
    return Sampled(head, averages, chain.method, rates, words, _moved(chain.method, averages, options, "sweeps"))


def _run_fields(
    model: Model, theta: dict[str, float], t: float, method: str, options: argparse.Namespace, progress: Progress,
    head: dict[str, Any],
) -> Sampled:  # fmt: skip
    import jax

    from vdsl.estimate.chain_averages import field_averages
    from vdsl.estimate.hmc import sample_hmc
    from vdsl.estimate.nuts import sample_nuts

    key, kept = jax.random.key(options.seed), -(-options.samples // options.chains)
    if method == "smc":
        return _run_populations(model, theta, t, options, progress, head)
    if method == "heatbath":
        return _run_local(model, theta, t, options, progress, head)
    if method == "hmc":
        chains = sample_hmc(model, theta, key, options.chains, kept, options.thin, on_stage=progress.stage)
    else:
        progress.stage("running the No-U-Turn sampler")
        library = "numpyro" if method == "nuts" else method
        chains = sample_nuts(model, theta, key, options.chains, kept, options.thin, library)
    progress.stage("averaging")
    words = f"{100 * chains.acceptance:.0f} % acceptance, {chains.steps:.1f} leapfrog steps a trajectory"
    if chains.discrete is not None:
        words += f", {100 * chains.discrete:.0f} % of the discrete moves are taken"
    rates = {"acceptance": chains.acceptance, "steps": chains.steps, "discrete": chains.discrete}
    averages = field_averages(chains, model, theta, t)
    return Sampled(head, averages, method, rates, words, _moved(method, averages, options, "trajectories"))


def _run_local(
    model: Model, theta: dict[str, float], t: float, options: argparse.Namespace, progress: Progress,
    head: dict[str, Any],
) -> Sampled:  # fmt: skip
    import jax

    from vdsl.estimate.chain_averages import field_averages
    from vdsl.estimate.local import sample_local
    from vdsl.ir.support import is_discrete

    kept = -(-options.samples // options.chains)
    key = jax.random.key(options.seed)
    chains, baths = sample_local(model, theta, key, options.chains, kept, options.thin, on_stage=progress.stage)
    progress.stage("averaging")
    others = [f.name for f in model.fields if f.name not in baths and not is_discrete(f.support)]
    words = [f"heat baths: {', '.join(baths)}"] if baths else []
    if others:
        taken = 100 * chains.acceptance
        words.append(f"Metropolis steps: {', '.join(others)}, {taken:.0f} % taken")
    rates = {"acceptance": chains.acceptance, "steps": None, "discrete": chains.discrete}
    averages = field_averages(chains, model, theta, t)
    return Sampled(head, averages, "heatbath", rates, "; ".join(words), _moved("heatbath", averages, options, "sweeps"))


def _moved(method: str, found: ChainAverages, options: argparse.Namespace, unit: str) -> str:
    return f"{method}: {found.draw.energy.size:,} samples of {options.chains} chains, every {options.thin} {unit}"


def _run_populations(
    model: Model, theta: dict[str, float], t: float, options: argparse.Namespace, progress: Progress,
    head: dict[str, Any],
) -> Sampled:  # fmt: skip
    import jax

    from vdsl.estimate.chain_averages import population_averages
    from vdsl.estimate.smc import sample_smc

    particles = -(-options.samples // options.chains)
    found = sample_smc(
        model, theta, jax.random.key(options.seed), options.chains, particles, options.thin, progress.stage
    )
    progress.stage("averaging")
    averages, totals = population_averages(found, model, theta, t)
    words = f"{found.levels} levels, {100 * found.acceptance:.0f} % acceptance, {found.steps:.1f} leapfrog steps each"
    rates = {"acceptance": found.acceptance, "steps": found.steps, "levels": found.levels}
    moved = (
        f"smc: {averages.draw.energy.size:,} particles in {options.chains} populations, {options.thin} moves a level"
    )
    return Sampled(head, averages, "smc", rates, words, moved, totals)


def _cannot_serve(message: str, note: str, hint: str) -> VfeError:
    return VfeError(Diagnostic("method-cannot-serve", message, notes=(note,), hints=(hint,)), exit_code=2)


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


def _sheet(program: Program, sampled: Sampled, options: argparse.Namespace, seconds: float) -> Sheet:
    head, found = sampled.head, sampled.found
    n = head["sites"] or 1
    words = {"free_energy": "F  free energy", "entropy": "S  entropy", "ln_z": "   ln Z"}
    totals = {words[name]: (name, value) for name, value in sampled.free_energies.items()}
    totals |= {"E  energy": ("energy", found.energy), "C  heat capacity": ("heat_capacity", found.heat_capacity)}
    mixing = ("autocorrelation", "R-hat") if found.r_hat else ()  # populations have neither
    rows = [
        (what, estimate(v.value / n, v.error / n), estimate(v.value, v.error), *_mixing(found, name))
        for what, (name, v) in totals.items()
    ]
    blocks: list[Heading | Table | Notes] = [
        Heading(f"{program.name}{': ' + program.title if program.title else ''}", detail(head)),
        Table(("", "per site", "total", *mixing), tuple(rows)),
    ]
    averages = {**found.observables, **found.derived}
    if averages:
        lines = tuple((k, estimate(v.value, v.error), *_mixing(found, k)) for k, v in averages.items())
        blocks.append(Table(("observable", "average", *mixing), lines))
    notes = [("method", sampled.moved, ""), ("", sampled.words, ""), ("time", duration(seconds), "")]
    if options.out is not None:
        notes.append(("saved", str(options.out), ""))
    blocks.append(Notes(tuple(notes)))
    return tuple(blocks)


def _mixing(found: ChainAverages, name: str) -> tuple[str, ...]:
    """The cells of one row under autocorrelation and R-hat: none where no quantity has them."""
    if not found.r_hat:
        return ()
    if name not in found.r_hat:
        return "", ""
    return f"{found.autocorrelation[name]:.1f}", f"{found.r_hat[name]:.3f}"


def _device() -> str:
    import jax

    return jax.default_backend()
