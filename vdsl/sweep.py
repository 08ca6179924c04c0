"""`sweep`: a model solved at every value of one of its real parameters.

One compilation serves all points, because parameters are traced. Either every point is solved by itself, started from
the guide of the point before; or one guide is trained for all of them at once (guides/amortised.py) and only the
estimates are made point by point.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vdsl.errors import Diagnostic, VfeError
from vdsl.fit import Fit, Guard, fit, load, never_stop
from vdsl.guides.amortised import build_amortised
from vdsl.inference import checkpoint, train
from vdsl.ir.expr import Const
from vdsl.ir.interpret import resolve_parameters
from vdsl.report import write
from vdsl.report.progress import Progress
from vdsl.report.result import strict
from vdsl.run import Run, SolveSettings, seed_of, with_blocks, write_end, write_start
from vdsl.solver import Solvable, Start, evaluate, execute, solvable, training_time

if TYPE_CHECKING:
    from vdsl.ir.program import Program
    from vdsl.model import Model

_FRESH = 0x5C  # folded into the seed of the estimates


@dataclass(frozen=True)
class Point:
    """One value of the sweep: its model, and where its files go with what only the caller knows (see `write_start`)."""

    value: float
    model: Model
    directory: Path | None = None
    given: dict[str, Any] | None = None

    @property
    def done(self) -> bool:
        """Whether its result is there already."""
        return self.directory is not None and (self.directory / write.RESULT).exists()


def sweep(
    model: Model,
    name: str,
    values: Sequence[float],
    *,
    amortise: bool = False,
    cold: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> list[Run]:
    """The runs of a model at each value of a real parameter; `settings` as for `solve`.

    amortise: one guide for all values, trained once. cold: every point from fresh parameters instead of its
    neighbour's. Raises VfeError `unknown-parameter`, `out-of-range`, `cannot-amortise`.
    """
    points = [Point(float(v), type(model)(with_value(model.program, name, float(v)))) for v in values]
    chosen, progress = SolveSettings(**settings), Progress(sys.stderr, quiet)
    return execute_sweep(points, chosen, amortise=amortise, cold=cold, progress=progress)


def with_value(program: Program, name: str, value: float) -> Program:
    """The program with another value for a real parameter. Raises VfeError."""
    resolve_parameters(program, {name: value})
    changed = tuple(replace(p, default=Const(value)) if p.name == name else p for p in program.parameters)
    return replace(program, parameters=changed)


def execute_sweep(
    points: Sequence[Point],
    settings: SolveSettings,
    *,
    amortise: bool,
    cold: bool,
    progress: Progress,
    shared: Path | None = None,
    guard: Guard = never_stop,
    on_point: Callable[[Point], None] = lambda point: None,
) -> list[Run]:
    """Solves the points that are not done yet and returns their runs.

    `shared`: where the checkpoint of an amortised guide goes. `on_point` is told each point before its turn.
    `Interrupted` passes through; called again with the same directories, a sweep goes on where it stopped.
    """
    compiled = points[0].model
    if amortise and len(points) > 1:
        return _amortised(points, settings, progress, shared, guard, on_point)
    runs: list[Run] = []
    start: Start | None = None
    for point in points:
        on_point(point)
        same = same_but_for_values(compiled.program, point.model.program)
        if point.done:
            start = _trained(point, settings, progress, compiled if same else None)
            continue
        run = execute(
            point.model,
            settings,
            point.directory,
            given=point.given,
            progress=progress,
            guard=guard,
            compiled=compiled if same else None,
            start=start if same and not cold else None,
        )
        start = Start(run.choice, run.params)
        runs.append(run)
    return runs


def same_but_for_values(a: Program, b: Program) -> bool:
    """Whether two programs compile to the same functions of θ."""

    def form(p: Program) -> tuple[Any, ...]:
        names = tuple(q.name for q in p.parameters)
        return (
            p.lattice, p.fields, p.terms, p.temperature, p.structure, names, p.data, p.definitions, p.observables,
            p.derived,
        )  # fmt: skip

    return form(a) == form(b)


def _amortised(
    points: Sequence[Point],
    settings: SolveSettings,
    progress: Progress,
    shared: Path | None,
    guard: Guard,
    on_point: Callable[[Point], None],
) -> list[Run]:
    """One training for all points, then each point's estimates from the guide there."""
    started = time.monotonic()
    settings = with_blocks(settings, points[0].model.program)
    compiled = points[0].model
    for point in points:
        if not same_but_for_values(compiled.program, point.model.program):
            message = "one guide for a whole sweep needs a real parameter: this one sizes the model"
            raise VfeError(Diagnostic("cannot-amortise", message), exit_code=2)
    all_solved = [solvable(points[0].model, settings, progress)]
    for point in points[1:]:
        all_solved.append(solvable(point.model, settings, progress, compiled, all_solved[0].choice))
    guide = build_amortised([s.guide for s in all_solved], [p.value for p in points])
    fingerprint = hashlib.sha256("".join(p.model.program.fingerprint for p in points).encode()).hexdigest()
    fitted = fit(
        guide,
        seed=seed_of(settings),
        steps=settings.steps,
        batch=settings.batch,
        seconds=training_time(settings, started),
        path=None if shared is None else shared / write.CHECKPOINT,
        fingerprint=fingerprint,
        progress=progress,
        estimator=settings.estimator,
        learning_rate=settings.learning_rate,
        guard=guard,
    )
    runs = []
    for k, (point, solved) in enumerate(zip(points, all_solved, strict=True)):
        on_point(point)
        if point.done:
            continue
        here = replace(fitted, params=guide.at(fitted.params, k)[1])
        if point.directory is not None:
            write_start(point.directory, point.model, settings, point.given or {})
            _save_point(point.directory, solved, here)
        run = evaluate(solved, here, settings, seed_of(settings), _FRESH + k, point.directory, progress)
        if point.directory is not None:
            write_end(point.directory, run)
        runs.append(run)
    progress.clear()
    return runs


def _trained(point: Point, settings: SolveSettings, progress: Progress, compiled: Model | None) -> Start | None:
    """The guide of a point that was solved earlier, from its checkpoint."""
    settings = with_blocks(settings, point.model.program)
    solved = solvable(point.model, settings, progress, compiled)
    path = None if point.directory is None else point.directory / write.CHECKPOINT
    if path is None or not path.exists():
        return None
    return Start(solved.choice, load(solved.guide, path, point.model.program.fingerprint)[1].params)


def _save_point(directory: Path, solved: Solvable, fitted: Fit) -> None:
    """A checkpoint as a run of its own would have left it, so that fresh samples can be drawn later."""
    state = train.initial_state(solved.guide, fitted.plan)._replace(params=fitted.params)
    history = {name: column.tolist() for name, column in fitted.history.items()}
    metadata = {"plan": vars(fitted.plan), "history": history, "seconds": fitted.seconds, "ended": True}
    checkpoint.save(directory / write.CHECKPOINT, state, solved.model.program.fingerprint, strict(metadata))
