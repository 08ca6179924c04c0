"""`solve`: a model into a `Run`: choose a guide, train it, estimate from fresh samples, compare with what is exact.

    model -> guide -> plan -> trained parameters -> Draw -> Thermodynamics, checks -> result

With a directory every step is saved, so that `resume` continues after any kind of stop and ends with the same bits:
what training reads next lies in the checkpoint, and all that follows is a function of the seed and the trained
parameters.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vdsl import exact
from vdsl.errors import VfeError
from vdsl.estimate.chain import independence_chain
from vdsl.estimate.importance import Draw
from vdsl.estimate.modes import ModeCheck, check_modes
from vdsl.estimate.thermo import evaluate_samples, thermodynamics
from vdsl.guides import registry
from vdsl.guides.guide import Guide, GuideChoice
from vdsl.inference import checkpoint, train
from vdsl.ir import interpret
from vdsl.ir.factors import factorise
from vdsl.report import result as results
from vdsl.report import write
from vdsl.report.progress import Progress
from vdsl.run import Run, SolveSettings, write_end, write_start

if TYPE_CHECKING:
    from vdsl.ir.program import Program
    from vdsl.model import Model

SAMPLES = 16384
_EXACT_SECONDS, _EXACT_BYTES = 10.0, 2**30  # what a comparison may cost
TIME_LIMIT = 60.0
_SAVE_EVERY = 2.0  # seconds between checkpoints: what a sudden stop can lose
_FRESH, _CHAIN = 0x5A, 0x5B  # folded into the seed: fresh samples share no random numbers with training


Guard = Callable[[], AbstractContextManager[Callable[[], bool]]]


def never_stop() -> AbstractContextManager[Callable[[], bool]]:
    """A guard for callers that leave Ctrl-C to Python."""
    return nullcontext(lambda: False)


class Interrupted(Exception):
    """Training was asked to stop; what it had reached is saved if there is a directory."""

    def __init__(self, step: int, steps: int, directory: Path | None):
        self.step, self.steps, self.directory = step, steps, directory
        super().__init__(f"stopped at step {step} of {steps}")


def solve(
    model: Model,
    *,
    seed: int = 0,
    time_limit: float | None = None,
    steps: int | None = None,
    batch: int | None = None,
    guide: str | None = None,
    samples: int | None = None,
    out: str | Path | None = None,
    force: bool = False,
    quiet: bool = False,
) -> Run:
    """Solves a model: trains its guide by variational free energy, then estimates everything from fresh samples.

    `time_limit` in seconds (60 unless `steps` is given) holds for all of it. Files are written only if `out` is given.
    Raises VfeError for settings and models that cannot be solved, `non-finite` (exit 3) for numerical failure.
    """
    settings = SolveSettings(seed, time_limit, steps, batch, guide, samples)
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
    compare: bool = True,
) -> Run:
    """Solves a model, or continues in `directory` where a checkpoint lies there (whose lock the caller holds).

    `given` is what only the caller knows about the model, see `write_start`. `guard` is entered around training and
    gives a function that is asked between chunks whether to stop. Raises Interrupted when it says so.
    """
    progress = progress or Progress(sys.stderr, quiet=True)
    started = time.monotonic()
    program = model.program
    progress.stage("choosing a guide")
    theta = interpret.resolve_parameters(program, {})  # in double precision, as the result reports them
    graph = factorise(program, theta)
    choice = registry.choose(program, graph, settings.guide)
    guide = registry.build(choice, program, theta)
    if directory is not None and not (directory / write.CHECKPOINT).exists():
        write_start(directory, model, settings, given or {})
    trained = _train(guide, settings, directory, program.fingerprint, progress, guard, started)
    progress.stage("drawing fresh samples")
    draw = fresh_draw(model, guide, trained.params, theta, settings.seed, settings.samples or SAMPLES)
    progress.stage("checking them against an independent Markov chain")
    key = jax.random.fold_in(jax.random.key(settings.seed), _CHAIN)
    density = jax.jit(lambda guide, params, x: guide.log_prob(params, x))
    modes = check_modes(draw, graph, model, lambda x: density(guide, trained.params, x), key)
    progress.stage("comparing with exact values")
    known, why = _known(program, theta) if compare else ({}, "")
    run = _evaluate(model, choice, guide, trained, draw, modes, known, settings, directory)
    if why:
        run.diagnostics["exact"] = why
    if directory is not None:
        write_end(directory, run)
    progress.clear()
    return run


@dataclass(frozen=True)
class Trained:
    """The end of training: parameters, how many steps of how many samples in how many seconds, and the log."""

    params: Any
    steps: int
    batch: int
    seconds: float
    history: dict[str, np.ndarray]


def fresh_draw(model: Model, guide: Guide, params: Any, theta: dict[str, float], seed: int, n: int) -> Draw:
    """n fresh samples of a guide with their energies and observables, in bounded memory."""
    chunk = min(n, 2048)
    sample = jax.jit(lambda guide, params, key: guide.sample_and_log_prob(params, key, chunk))
    key = jax.random.fold_in(jax.random.key(seed), _FRESH)
    parts = [jax.device_get(sample(guide, params, k)) for k in jax.random.split(key, -(-n // chunk))]
    x = {name: np.concatenate([part[0][name] for part in parts])[:n] for name in parts[0][0]}
    log_q = np.concatenate([part[1] for part in parts])[:n].astype(np.float64)
    energy, observables = evaluate_samples(model, x, theta)
    return Draw(x, log_q, energy, interpret.temperature(model.program, theta), theta, observables)


def _train(
    guide: Guide,
    settings: SolveSettings,
    directory: Path | None,
    fingerprint: str,
    progress: Progress,
    guard: Guard,
    started: float,
) -> Trained:
    """Trains to the end of the plan, saving on the way; continues from the directory's checkpoint if there is one."""
    path = None if directory is None else directory / write.CHECKPOINT
    saved = checkpoint.read(path, fingerprint) if path is not None and path.exists() else None
    if saved is None:
        progress.stage("compiling the first training step")
        plan = train.plan(
            guide, time_limit=_training_time(settings, started), steps=settings.steps, batch=settings.batch,
            seed=settings.seed,
        )  # fmt: skip
        state, log, before = train.initial_state(guide, plan), _Log(), 0.0
    else:
        plan = train.Plan(**saved.metadata["plan"])
        state = checkpoint.restore(saved, train.initial_state(guide, plan))
        log, before = _Log(saved.metadata["history"]), saved.metadata["seconds"]
    began = last_saved = time.monotonic()
    stopped = False

    def save(state: train.TrainState) -> None:
        if path is not None:
            seconds = before + time.monotonic() - began
            metadata = {"plan": asdict(plan), "history": log.columns, "seconds": seconds}
            checkpoint.save(path, state, fingerprint, results.strict(metadata))

    def on_chunk(state: train.TrainState, chunk: train.ChunkLog, asked: Callable[[], bool]) -> bool:
        nonlocal stopped, last_saved
        log.add(chunk)
        done = train.finished(plan, state)
        left = (plan.steps - chunk.step) / max(chunk.steps_per_second, 1e-9)
        progress.step(chunk.step, plan.steps, chunk.free_energy, chunk.ess, chunk.steps_per_second, left)
        stopped = not done and asked()
        if done or stopped or time.monotonic() - last_saved > _SAVE_EVERY:
            save(state)
            last_saved = time.monotonic()
        return not stopped

    if saved is None:
        save(state)
    if guide.trainable():
        with guard() as asked:
            state = train.train(guide, plan, state, lambda s, c: on_chunk(s, c, asked))
    if stopped:
        raise Interrupted(log.last_step, plan.steps, directory)
    steps = log.last_step if guide.trainable() else 0
    return Trained(state.params, steps, plan.batch, before + time.monotonic() - began, log.arrays())


class _Log:
    """The training history, column by column, as a checkpoint's metadata holds it."""

    COLUMNS = ("step", "free_energy", "ess", "variance", "steps_per_second", "scale")

    def __init__(self, columns: dict[str, list[float]] | None = None):
        self.columns = {name: list((columns or {}).get(name, [])) for name in self.COLUMNS}

    @property
    def last_step(self) -> int:
        return int(self.columns["step"][-1]) if self.columns["step"] else 0

    def add(self, chunk: train.ChunkLog) -> None:
        for name, column in self.columns.items():
            column.append(float(getattr(chunk, name)))

    def arrays(self) -> dict[str, np.ndarray]:
        columns = {k: np.array([np.nan if v is None else v for v in c], float) for k, c in self.columns.items()}
        return columns | {"step": columns["step"].astype(int)}


def _training_time(settings: SolveSettings, started: float) -> float | None:
    """What is left for training: the limit, less the time spent already and a reserve for the estimate."""
    if settings.steps is not None and settings.time_limit is None:
        return None
    limit = settings.time_limit or TIME_LIMIT
    reserve = min(max(0.15 * limit, 4.0), 30.0)
    return max(limit - reserve - (time.monotonic() - started), 0.1 * limit)


def _evaluate(
    model: Model,
    choice: GuideChoice,
    guide: Guide,
    trained: Trained,
    draw: Draw,
    modes: ModeCheck,
    known: dict[str, Any],
    settings: SolveSettings,
    directory: Path | None,
) -> Run:
    """The estimates of a draw, and everything known about their quality, as a run."""
    program = model.program
    found = thermodynamics(draw, model)
    chain = independence_chain(draw, settings.seed)
    warnings = found.quality.warnings + modes.warnings
    result = header(program, draw.theta, draw.temperature)
    result["guide"] = {"name": choice.name, "parameters": guide.n_parameters()}
    result |= {name: getattr(found, name).to_json() for name in results.AVERAGES}
    result["observables"] = {name: value.to_json() for name, value in found.observables.items()}
    result["derived"] = {name: value.to_json() for name, value in found.derived.items()}
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
        "steps": trained.steps, "batch": trained.batch, "seconds": trained.seconds, "seed": settings.seed,
    }  # fmt: skip
    result |= results.footer(jax.default_backend())
    diagnostics = {
        "guide": {"name": choice.name, "reason": choice.reason, **choice.description},
        "pareto_k": found.quality.pareto_k,
        "autocorrelation": chain.autocorrelation,
        "longest_rejection": chain.longest_rejection,
        "variational_energy": found.variational_energy.to_json(),
        "variational_entropy": found.variational_entropy.to_json(),
        "importance_free_energy": found.importance_free_energy.to_json(),
        "modes": {
            "method": modes.method,
            "forward_ess": modes.forward_ess,
            "ln_z_forward": modes.ln_z_forward.to_json(),
            "ln_z_bridge": modes.ln_z_bridge.to_json(),
            "energy": modes.energy.to_json(),
            "autocorrelation": modes.autocorrelation,
            "r_hat": modes.r_hat,
            "acceptance": modes.acceptance,
            "exchange": modes.exchange,
        },
        "warnings": [{"code": w.code, "message": w.message, "notes": w.notes, "hints": w.hints} for w in warnings],
    }
    return Run(
        model=model,
        settings=settings,
        choice=choice,
        guide=guide,
        params=trained.params,
        draw=draw,
        thermodynamics=found,
        result=results.strict(result),
        diagnostics=results.strict(diagnostics),
        history=trained.history,
        warnings=warnings,
        directory=directory,
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
    params = {s.name: s.value for s in program.structure}
    params |= {p.name: float(theta[p.name]) for p in program.parameters}
    sites = 0 if program.lattice is None else program.lattice.n_sites
    return results.header(program.name, program.fingerprint, sites, temperature, params)
