"""Fit: a guide into trained parameters, with progress, checkpoints and a way to stop, so that a run can be continued.

A checkpoint holds the plan, the state of the training and its history: everything that the next step reads. The plan
is made once, from the clock if it must be, and never again: a run that is continued ends with the same bits as one
that was never stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.guides.guide import Guide
from vdsl.inference import checkpoint, train
from vdsl.report.progress import Progress
from vdsl.report.result import strict

TIME_LIMIT = 60.0
_SAVE_EVERY = 2.0  # seconds between checkpoints: what a sudden stop can lose
_ENOUGH = 0.5  # of the steps planned: fewer are worth a warning
_OVERTIME = 1.1  # times the time planned for training; beyond it the machine has become slower than the plan assumed

Guard = Callable[[], AbstractContextManager[Callable[[], bool]]]


def never_stop() -> AbstractContextManager[Callable[[], bool]]:
    """A guard for callers that leave Ctrl-C to Python."""
    return nullcontext(lambda: False)


class Interrupted(Exception):
    """Training was asked to stop; what it had reached is saved if there is a checkpoint file."""

    def __init__(self, step: int, steps: int):
        self.step, self.steps = step, steps
        super().__init__(f"stopped at step {step} of {steps}")


@dataclass(frozen=True)
class Fit:
    """Trained parameters, how they came about, and the log, one row for each chunk of steps.

    complete: whether the plan has nothing left to do.
    """

    params: Any
    plan: train.Plan
    steps: int
    seconds: float
    history: dict[str, np.ndarray]
    complete: bool

    @property
    def warnings(self) -> tuple[Diagnostic, ...]:
        """`cut-short`, where the clock stopped a training before half its steps."""
        if self.complete or self.steps >= _ENOUGH * self.plan.steps:
            return ()
        done = "before its first step" if self.steps == 0 else f"after {self.steps} of {self.plan.steps} steps"
        return (
            Diagnostic(
                "cut-short",
                f"the time limit ended training {done}",
                notes=(f"compiling counts: {self.seconds:.0f} s went by in all",),
                hints=("give it a longer `--time-limit`, or say how many `--steps`",),
                severity="warning",
            ),
        )


class History:
    """The log of a training, column by column."""

    COLUMNS = ("step", "free_energy", "ess", "variance", "steps_per_second", "scale")

    def __init__(self, columns: dict[str, list[float | None]] | None = None):
        self.columns = {name: list((columns or {}).get(name, [])) for name in self.COLUMNS}

    def add(self, chunk: train.ChunkLog) -> None:
        """Appends a row."""
        for name, column in self.columns.items():
            column.append(float(getattr(chunk, name)))

    def arrays(self) -> dict[str, np.ndarray]:
        """The columns as arrays."""
        numbers = {k: np.array([np.nan if v is None else v for v in c], float) for k, c in self.columns.items()}
        return numbers | {"step": numbers["step"].astype(int)}


def fit(
    guide: Guide,
    *,
    seed: int,
    steps: int | None,
    batch: int | None,
    seconds: float | None,
    path: Path | None,
    fingerprint: str,
    progress: Progress,
    estimator: str | None = None,
    learning_rate: float | None = None,
    start: Any = None,
    spent: float = 0.0,
    guard: Guard = never_stop,
    on_plan: Callable[[train.Plan], None] = lambda plan: None,
) -> Fit:
    """Trains to the end of the plan, saving on the way; continues from the checkpoint at `path` if there is one.

    `seconds` is the time for training if `steps` does not say how much there is to do. `start`: trained parameters of a
    neighbouring point to begin with, unannealed, in place of fresh ones; `spent`: the seconds that they took.
    `guard` is entered while training; what it gives is asked after every chunk whether to stop. `on_plan` is told the
    plan before anything is trained. Raises Interrupted when asked to stop, VfeError `bad-checkpoint` if the file at
    `path` belongs to something else.
    """
    saved = path if path is not None and path.exists() else None
    fresh = saved is None
    began = time.monotonic()
    if saved is None:
        progress.stage("compiling the first training step")
        plan = train.plan(
            guide,
            time_limit=seconds,
            steps=steps,
            batch=batch,
            seed=seed,
            estimator=estimator,
            learning_rate=learning_rate,
        )
        if start is not None:
            plan = replace(plan, anneal=0.0, anneal_from=1.0)
        state, history, before, ended = train.initial_state(guide, plan), History(), spent, False
        if start is not None:
            state = state._replace(params=start)
    else:
        plan, state, history, before, ended = load(guide, saved, fingerprint)
    keeper = _Keeper(path, fingerprint, plan, history, before, began)
    on_plan(plan)
    if fresh:
        keeper.save(state, ended=not guide.trainable())
    if guide.trainable() and not ended:
        deadline = None if seconds is None or not fresh else began + _OVERTIME * seconds
        state = _loop(guide, plan, state, history, keeper, progress, guard, deadline)
    return Fit(state.params, plan, int(state.step), keeper.seconds(), history.arrays(), train.finished(plan, state))


def load(guide: Guide, path: Path, fingerprint: str) -> tuple[train.Plan, train.TrainState, History, float, bool]:
    """What a checkpoint of a guide's training holds: plan, state, history, seconds spent, and whether it has ended.

    Raises VfeError `bad-checkpoint`.
    """
    saved = checkpoint.read(path, fingerprint)
    try:
        plan = train.Plan(**saved.metadata["plan"])
        history, seconds, ended = (saved.metadata[k] for k in ("history", "seconds", "ended"))
    except (KeyError, TypeError) as error:
        what = f"`{path}` was written by another version of vdsl: its plan is of another kind"
        raise VfeError(Diagnostic("bad-checkpoint", what), exit_code=2) from error
    state = checkpoint.restore(saved, train.initial_state(guide, plan))
    return plan, state, History(history), seconds, ended


@dataclass
class _Keeper:
    """Saves the state of a training, no more often than is useful."""

    path: Path | None
    fingerprint: str
    plan: train.Plan
    history: History
    before: float
    began: float
    last: float = 0.0

    def seconds(self) -> float:
        """Time spent on this training, earlier sessions included."""
        return self.before + time.monotonic() - self.began

    def due(self) -> bool:
        return time.monotonic() - self.last > _SAVE_EVERY

    def save(self, state: train.TrainState, ended: bool) -> None:
        self.last = time.monotonic()
        if self.path is None:
            return
        metadata = {
            "plan": asdict(self.plan),
            "history": self.history.columns,
            "seconds": self.seconds(),
            "ended": ended,
        }
        checkpoint.save(self.path, state, self.fingerprint, strict(metadata))


def _loop(
    guide: Guide,
    plan: train.Plan,
    state: train.TrainState,
    history: History,
    keeper: _Keeper,
    progress: Progress,
    guard: Guard,
    deadline: float | None,
) -> train.TrainState:
    stopped = False
    with guard() as asked:

        def on_chunk(state: train.TrainState, chunk: train.ChunkLog) -> bool:
            nonlocal stopped
            history.add(chunk)
            left = (plan.steps - chunk.step) / max(chunk.steps_per_second, 1e-9)
            progress.step(chunk.step, plan.steps, chunk.free_energy, chunk.ess, chunk.steps_per_second, left)
            stopped = asked() and not train.finished(plan, state)
            if stopped or keeper.due():
                keeper.save(state, ended=False)
            return not stopped

        state = train.train(guide, plan, state, on_chunk, deadline)
        if stopped:
            raise Interrupted(int(state.step), plan.steps)
        keeper.save(state, ended=True)
    return state
