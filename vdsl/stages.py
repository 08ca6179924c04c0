"""Stages: the beginning of a large lattice's guide, learned on half the side, and on half of that before.

Where the weights of a guide belong to displacements they mean the same on a lattice of any size. A step on half the
side costs a fraction of one on the whole; a guide that starts from there has what is local already and learns what is
not. (φ⁴, L = 8 to 16, λ = 5.113: ESS .27 at the start, where a fresh flow has .001.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from vdsl.errors import VfeError
from vdsl.fit import Guard, fit
from vdsl.guides import registry
from vdsl.guides.guide import Guide, GuideChoice
from vdsl.guides.problem import Problem
from vdsl.ir.halved import halved
from vdsl.report import write
from vdsl.report.progress import Progress
from vdsl.run import SolveSettings, seed_of

_SHARE = 0.2  # of the time for training, for everything before the last stage


@dataclass(frozen=True)
class Beginning:
    """Parameters to start from, and the seconds that all stages took."""

    params: Any
    seconds: float


@dataclass(frozen=True)
class Half:
    """The problem on half the side, its guide, and how its parameters carry over."""

    problem: Problem
    choice: GuideChoice
    guide: Guide
    carry: Callable[[Any, Any], Any]
    shape: tuple[int, ...]


def begin(
    problem: Problem,
    choice: GuideChoice,
    guide: Guide,
    settings: SolveSettings,
    seconds: float | None,
    directory: Path | None,
    progress: Progress,
    guard: Guard,
) -> Beginning | None:
    """What half the side teaches; None where the guide's weights do not carry over or there is no such lattice.

    `seconds` is the time for all of training; where the settings count steps instead, every stage takes as many. With
    a directory every stage has its checkpoint there and a run that is continued goes on in the stage where it stopped.
    """
    half = half_of(problem, choice, guide)
    if half is None:
        return None
    began = time.monotonic()
    share = None if seconds is None else _SHARE * seconds
    before = begin(half.problem, half.choice, half.guide, settings, share, directory, progress, guard)
    sides = "x".join(map(str, half.shape))
    path = None if directory is None else directory / write.STAGES / f"{sides}.npz"
    if path is not None:
        path.parent.mkdir(exist_ok=True)
    progress.stage(f"training on {sides} first")
    fitted = fit(
        half.guide,
        seed=seed_of(settings),
        steps=settings.steps,
        batch=settings.batch,
        seconds=None if share is None else max(share - (time.monotonic() - began), 0.0),
        path=path,
        fingerprint=half.problem.program.fingerprint,
        progress=progress,
        estimator=settings.estimator,
        learning_rate=settings.learning_rate,
        start=None if before is None else before.params,
        guard=guard,
    )
    fresh = guide.init(jax.random.key(seed_of(settings)))
    return Beginning(half.carry(fitted.params, fresh), time.monotonic() - began)


def describe(problem: Problem, choice: GuideChoice) -> str:
    """The lattices that come first, the smallest first: "8×8, 16×16"; "" where there are none."""
    if registry.GUIDES[choice.name].transfer is None:
        return ""
    half = half_of(problem, choice, registry.build(choice, problem))
    if half is None:
        return ""
    before = describe(half.problem, half.choice)
    return (f"{before}, " if before else "") + "×".join(map(str, half.shape))


def half_of(problem: Problem, choice: GuideChoice, guide: Guide) -> Half | None:
    """The same problem on half the side, where there is one that the guide can learn from."""
    grow = registry.GUIDES[choice.name].transfer
    program = halved(problem.program)
    if grow is None or program is None or program.lattice is None:
        return None
    small = Problem(program, problem.theta)
    try:
        small_choice = registry.choose(small, choice.name)
    except VfeError as refused:
        if refused.diagnostics[0].code != "guide-cannot-serve":
            raise
        return None  # what serves a lattice need not serve its half; then there is no stage, and nothing is lost
    small_guide = registry.build(small_choice, small)

    def carry(params: Any, fresh: Any) -> Any:
        return grow(params, fresh, small_choice, choice)

    try:
        jax.eval_shape(lambda key: carry(small_guide.init(key), guide.init(key)), jax.random.key(0))
    except ValueError:
        return None  # the two are not built alike: see `transfer` of the guide
    return Half(small, small_choice, small_guide, carry, program.lattice.shape)
