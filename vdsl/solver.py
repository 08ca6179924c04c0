"""`solve`: a model into a `Run`: choose a guide, train it, estimate from fresh samples, compare with what is exact.

    model -> guide -> plan -> trained parameters -> Draw -> Thermodynamics, checks -> result

With a directory every step is saved, so that `resume` continues after any kind of stop and ends with the same bits:
what training reads next lies in the checkpoint, and all that follows is a function of the seed and the trained
parameters.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vdsl import exact
from vdsl.errors import VfeError
from vdsl.estimate.chain import independence_chain
from vdsl.estimate.importance import Draw
from vdsl.estimate.modes import POPULATIONS, ModeCheck, check_modes, check_modes_continuous
from vdsl.estimate.stats import Estimate
from vdsl.estimate.thermo import evaluate_samples, thermodynamics
from vdsl.estimate.topology import Topology, charged_field, topology
from vdsl.fit import TIME_LIMIT, Fit, Guard, fit, load, never_stop
from vdsl.guides import registry
from vdsl.guides.amortised import same_form
from vdsl.guides.guide import Guide, GuideChoice
from vdsl.guides.problem import Problem
from vdsl.inference.train import finished
from vdsl.ir import interpret
from vdsl.report import result as results
from vdsl.report import write
from vdsl.report.progress import Progress
from vdsl.run import Run, SolveSettings, seed_of, with_blocks, write_end, write_plan, write_start
from vdsl.stages import Beginning, begin

if TYPE_CHECKING:
    from vdsl.ir.program import Program
    from vdsl.model import Model

SAMPLES = 16384
_EXACT_SECONDS, _EXACT_BYTES = 10.0, 2**30  # what a comparison may cost
_FRESH, _AGAIN = 0x5A, 0x5B  # folded into the seed: fresh samples share no random numbers with training
_SAMPLE_BYTES = 2**29  # what drawing one batch of fresh samples may keep in memory


def solve(
    model: Model,
    *,
    seed: int | None = None,
    time_limit: float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    guide: str | None = None,
    samples: int | None = None,
    estimator: str | None = None,
    learning_rate: float | None = None,
    out: str | Path | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Run:
    """Solves a model: trains its guide by variational free energy, then estimates everything from fresh samples.

    `time_limit` in seconds (60 unless `steps` is given) holds for all of it; the seed is 0 unless given. Files are
    written only if `out` is given. Raises VfeError for settings and models that cannot be solved, `non-finite` (exit 3)
    for numerical failure.
    """
    settings = SolveSettings(seed, time_limit, steps, batch, guide, samples, estimator, learning_rate)
    progress = Progress(sys.stderr, quiet)
    if out is None:
        return execute(model, settings, progress=progress)
    directory = write.claim(Path(out), model.program.name, force)
    with write.locked(directory):
        return execute(model, settings, directory, progress=progress)


def execute(
    model: Model,
    settings: SolveSettings,
    directory: Path | None = None,
    *,
    given: dict[str, Any] | None = None,
    progress: Progress | None = None,
    guard: Guard = never_stop,
    compiled: Model | None = None,
    start: Start | None = None,
) -> Run:
    """Solves a model, or continues in `directory` where a checkpoint lies there (whose lock the caller holds).

    `given` is what only the caller knows about the model, see `write_start`; `guard` as in `fit`, whose `Interrupted`
    passes through. `compiled`: a model that differs in the values of its parameters only, whose compiled functions are
    used; `start`: a solved neighbour, whose guide is the start of this one where they have the same shape.
    """
    progress = progress or Progress(sys.stderr, quiet=True)
    started = time.monotonic()
    settings = with_blocks(settings, model.program)
    solved = solvable(model, settings, progress, compiled, None if start is None else start.choice)
    path = None if directory is None else directory / write.CHECKPOINT
    if directory is not None and path is not None and not path.exists():
        write_start(directory, model, settings, given or {})
    seconds = training_time(settings, started)
    beginning = None
    if start is None and (path is None or not path.exists()):
        beginning = begin(solved.problem, solved.choice, solved.guide, settings, seconds, directory, progress, guard)
    fitted = fit(
        solved.guide,
        seed=seed_of(settings),
        steps=settings.steps,
        batch=settings.batch,
        seconds=None if seconds is None else seconds - (0.0 if beginning is None else beginning.seconds),
        path=path,
        fingerprint=model.program.fingerprint,
        progress=progress,
        estimator=settings.estimator,
        learning_rate=settings.learning_rate,
        start=_start(start, beginning, solved.guide),
        spent=0.0 if beginning is None else beginning.seconds,
        guard=guard,
        on_plan=lambda plan: None if directory is None else write_plan(directory, plan),
    )
    run = evaluate(solved, fitted, settings, seed_of(settings), _FRESH, directory, progress)
    if directory is not None:
        progress.stage("saving")
        write_end(directory, run)
    progress.clear()
    return run


def reload(model: Model, settings: SolveSettings, directory: Path, seed: int, samples: int, progress: Progress) -> Run:
    """The run in a directory, estimated again from new samples. Raises VfeError `bad-checkpoint`."""
    settings = with_blocks(settings, model.program)
    solved = solvable(model, settings, progress)
    plan, state, history, seconds, _ = load(solved.guide, directory / write.CHECKPOINT, model.program.fingerprint)
    fitted = Fit(state.params, plan, int(state.step), seconds, history.arrays(), finished(plan, state))
    run = evaluate(solved, fitted, replace(settings, samples=samples), seed, _AGAIN, directory, progress)
    progress.clear()
    return run


@dataclass(frozen=True)
class Start:
    """A trained neighbour to start from: the guide it chose and its parameters."""

    choice: GuideChoice
    params: Any


@dataclass(frozen=True)
class Solvable:
    """A model at its parameters, and the guide it gets. `problem.model` may be compiled for a neighbouring point."""

    model: Model
    problem: Problem
    choice: GuideChoice
    guide: Guide


def solvable(
    model: Model,
    settings: SolveSettings,
    progress: Progress,
    compiled: Model | None = None,
    choice: GuideChoice | None = None,
) -> Solvable:
    """The guide a model gets, at its parameters; `compiled` and `choice` from a neighbouring point of a sweep."""
    progress.stage("choosing a guide")
    program = registry.check_fields(model.program)
    theta = interpret.resolve_parameters(program, {})  # in double precision, as the result reports them
    problem = Problem(program, theta, compiled or model)
    choice = choice or registry.choose(problem, settings.guide)
    return Solvable(model, problem, choice, registry.build(choice, problem))


def _start(neighbour: Start | None, beginning: Beginning | None, guide: Guide) -> Any:
    """Parameters to start from, if there are any of the guide's shape; else None."""
    if beginning is not None:
        return beginning.params
    if neighbour is None:
        return None
    return neighbour.params if same_form(neighbour.params, jax.eval_shape(guide.init, jax.random.key(0))) else None


def fresh_draw(model: Model, guide: Guide, params: Any, theta: dict[str, float], key: jax.Array, n: int) -> Draw:
    """n fresh samples of a guide with their energies and observables, in bounded memory."""
    chunk = int(np.clip(_SAMPLE_BYTES // guide.bytes_per_sample(), 16, min(n, 2048)))
    sample = jax.jit(lambda guide, params, key: guide.sample_and_log_prob(params, key, chunk))
    parts = [jax.device_get(sample(guide, params, k)) for k in jax.random.split(key, -(-n // chunk))]
    x = {name: np.concatenate([part[0][name] for part in parts])[:n] for name in parts[0][0]}
    log_q = np.concatenate([part[1] for part in parts])[:n]  # in its own precision: `rounding` reads it off
    energy, observables = evaluate_samples(model, x, theta)
    return Draw(x, log_q, energy, interpret.temperature(model.program, theta), theta, observables)


def training_time(settings: SolveSettings, started: float) -> float | None:
    """What is left for training: the limit, less the time spent already and a reserve for the estimate."""
    if settings.steps is not None and settings.time_limit is None:
        return None
    limit = settings.time_limit or TIME_LIMIT
    reserve = min(max(0.2 * limit, 8.0), 45.0)
    return max(limit - reserve - (time.monotonic() - started), 0.1 * limit)


def evaluate(
    solved: Solvable,
    fitted: Fit,
    settings: SolveSettings,
    seed: int,
    stream: int,
    directory: Path | None,
    progress: Progress,
) -> Run:
    """Fresh samples, and all that follows from them: estimates, checks, exact values, the result."""
    problem, guide, params = solved.problem, solved.guide, fitted.params
    model, theta, program = problem.model, problem.theta, problem.program
    key, chain_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), stream))
    progress.stage("drawing fresh samples")
    draw = fresh_draw(model, guide, params, theta, key, settings.samples or SAMPLES)
    found = thermodynamics(draw, model)
    chain = independence_chain(draw, seed)
    progress.stage("checking them against an independent Markov chain")
    density = jax.jit(lambda guide, params, x: guide.log_prob(params, x))
    modes = _mode_check(problem, draw, lambda x: density(guide, params, x), chain_key)
    progress.stage("comparing with exact values")
    known, unknown = _known(program, theta)
    sectors = _topology(program, draw, chain.states, modes)
    warnings = fitted.warnings + found.quality.warnings + modes.warnings + (sectors.warnings if sectors else ())

    result = header(program, theta, draw.temperature)
    result["guide"] = {"name": solved.choice.name, "parameters": guide.n_parameters()}
    result |= {name: getattr(found, name).to_json() for name in results.AVERAGES}
    result["observables"] = {name: value.to_json() for name, value in found.observables.items()}
    result["derived"] = {name: value.to_json() for name, value in found.derived.items()}
    if sectors is not None:
        result["topology"] = sectors.to_json() | ({"exact": q} if (q := exact.charge_squared(program, theta)) else {})
    if known:
        result["exact"] = known
    result["quality"] = {
        "ess": found.quality.ess,
        "ess_samples": found.quality.ess_samples,
        "variance": found.quality.variance,
        "acceptance": chain.acceptance,
        "warnings": [f"{w.code}: {w.message}" for w in warnings],
    }
    result["train"] = {
        "steps": fitted.steps,
        "batch": fitted.plan.batch,
        "seconds": fitted.seconds,
        "seed": seed_of(settings),
    }
    result |= results.footer(jax.default_backend())
    diagnostics = {
        "guide": {"name": solved.choice.name, "reason": solved.choice.reason, **solved.choice.description},
        "plan": asdict(fitted.plan),
        "pareto_k": found.quality.pareto_k,
        "autocorrelation": chain.autocorrelation,
        "longest_rejection": chain.longest_rejection,
        "variational_energy": found.variational_energy.to_json(),
        "variational_entropy": found.variational_entropy.to_json(),
        "importance_free_energy": found.importance_free_energy.to_json(),
        "modes": _modes(modes, found.ln_z),
        "no_exact_because": unknown,
        "warnings": [{"code": w.code, "message": w.message, "notes": w.notes, "hints": w.hints} for w in warnings],
    }
    return Run(
        model=solved.model,
        settings=settings,
        choice=solved.choice,
        guide=guide,
        params=params,
        draw=draw,
        thermodynamics=found,
        result=results.strict(result),
        diagnostics=results.strict(diagnostics),
        history=fitted.history,
        warnings=warnings,
        directory=directory,
    )


def _mode_check(
    problem: Problem, draw: Draw, log_q: Callable[[dict[str, jax.Array]], jax.Array], key: jax.Array
) -> ModeCheck:
    if problem.discrete:
        return check_modes(draw, problem.graph, problem.model, log_q, key)
    return check_modes_continuous(draw, problem.model, log_q, key)


def _topology(program: Program, draw: Draw, states: np.ndarray, modes: ModeCheck) -> Topology | None:
    field = charged_field(program)
    if field is None:
        return None
    chains = modes.configurations[field.name] if modes.configurations is not None else None
    return topology(program, draw, states, chains, POPULATIONS, modes.thin)


def _modes(modes: ModeCheck, own: Estimate) -> dict[str, Any]:
    sigma = math.hypot(modes.ln_z_bridge.error, own.error)
    difference = modes.ln_z_bridge.value - own.value
    estimates = {name: getattr(modes, name).to_json() for name in ("ln_z_forward", "ln_z_bridge", "energy")}
    names = ("method", "forward_ess", "autocorrelation", "r_hat", "acceptance", "exchange")
    return (
        estimates
        | {name: getattr(modes, name) for name in names}
        | {
            "difference": difference,
            "deviation": difference / sigma if sigma > 0 else 0.0,
        }
    )


def _known(program: Program, theta: dict[str, float]) -> tuple[dict[str, Any], str]:
    """Exact numbers to stand beside the estimates, or why there are none: only what costs little is worked out."""
    cost = exact.cost(program, theta)
    if not cost.feasible or cost.seconds_estimate > _EXACT_SECONDS or cost.bytes > _EXACT_BYTES:
        return {}, f"{cost.method} would take {cost.seconds_estimate:.1e} s and {cost.bytes:.1e} bytes"
    try:
        return exact.solve(program, theta).beside(), ""
    except VfeError as error:  # an estimate does not fail because there is nothing to compare it with
        return {}, error.diagnostics[0].message


def header(program: Program, theta: Mapping[str, float], temperature: float) -> dict[str, Any]:
    """What the result of a program starts with, at given parameters."""
    params: dict[str, float] = {s.name: s.value for s in program.structure}
    params |= {p.name: float(theta[p.name]) for p in program.parameters}
    sites = 0 if program.lattice is None else program.lattice.n_sites
    return results.header(program.name, program.fingerprint, sites, temperature, params)
