"""Answer: what an exact method found -> the result that `vdsl exact` prints."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.exact.closed_form import Thermodynamics
from vdsl.exact.cost import Cost
from vdsl.ir.expr import Expect, Expr, walk
from vdsl.ir.interpret import evaluate_derived
from vdsl.ir.program import Program
from vdsl.ir.tables import NotLocal

BLOCKS = 64
SAMPLES = 65536
EXACT, SAMPLED, QUADRATURE = "exact", "exact samples", "quadrature"


@dataclass(frozen=True)
class ExactValue:
    """A number with its standard error (0 if exact) and the method that gave it."""

    value: float
    error: float = 0.0
    method: str = EXACT

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return f"{self.value:.10g}" if self.error == 0 else f"{self.value:.8g} ± {self.error:.2g}"

    def to_json(self) -> dict[str, Any]:
        """`value`, `error`, `method`."""
        return {"value": self.value, "error": self.error, "method": self.method}


@dataclass(frozen=True)
class ExactResult:
    """What `vdsl exact` prints. Extensive totals in the model's energy units; entropy in units of k_B.

    method: in words. left_out: observables and derived quantities that could not be had, with the reason.
    """

    model: str
    fingerprint: str
    sites: int
    temperature: float
    params: dict[str, float]
    ln_z: ExactValue
    free_energy: ExactValue
    energy: ExactValue
    entropy: ExactValue
    heat_capacity: ExactValue
    observables: dict[str, ExactValue]
    derived: dict[str, ExactValue]
    method: str
    cost: Cost
    left_out: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The result object of the language, without versions and device."""
        head = {
            "schema": 1,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "sites": self.sites,
            "temperature": self.temperature,
            "params": dict(self.params),
        }
        return head | {
            **{name: getattr(self, name).to_json() for name in _TOTALS},
            "observables": {name: v.to_json() for name, v in self.observables.items()},
            "derived": {name: v.to_json() for name, v in self.derived.items()},
            "method": self.method,
        }

    def beside(self) -> dict[str, Any]:
        """Plain numbers to stand beside an estimate; what was only sampled is left out."""

        def plain(values: dict[str, ExactValue]) -> dict[str, float]:
            return {name: v.value for name, v in values.items() if v.method != SAMPLED}

        totals = {name: getattr(self, name).value for name in _TOTALS}
        return totals | {"observables": plain(self.observables), "derived": plain(self.derived)}


_TOTALS = ("free_energy", "ln_z", "energy", "entropy", "heat_capacity")


@dataclass(frozen=True)
class Answer:
    """Thermodynamics, averages by expression, and block means of the sampled ones, shape (blocks,).

    missing: why other averages are left out. kind: the method of every value that was not sampled.
    """

    thermodynamics: Thermodynamics
    averages: dict[Expr, ExactValue]
    blocks: dict[Expr, np.ndarray]
    method: str
    cost: Cost
    missing: str = ""
    kind: str = EXACT


def averages_wanted(program: Program) -> list[Expr]:
    """Every expression whose average the observables and derived quantities need, each once."""
    exprs = [o.value for o in program.observables]
    for d in program.derived:
        exprs += [node.value for node in walk(d.value) if isinstance(node, Expect)]
    return list(dict.fromkeys(exprs))


def summarise(
    values: dict[Expr, np.ndarray],
) -> tuple[dict[Expr, ExactValue], dict[Expr, np.ndarray]]:
    """Averages with their errors, and block means, of independent samples."""
    averages, blocks = {}, {}
    for e, every in values.items():
        averages[e] = ExactValue(float(every.mean()), float(every.std(ddof=1) / math.sqrt(len(every))), SAMPLED)
        blocks[e] = np.array([b.mean() for b in np.array_split(every, BLOCKS)])
    return averages, blocks


def evaluated(evaluator: Callable[[Expr, np.ndarray], np.ndarray], expr: Expr, x: np.ndarray) -> np.ndarray:
    """An observable in many configurations. Raises VfeError `not-local` where it has no batched evaluation."""
    try:
        return evaluator(expr, x)
    except NotLocal:
        raise VfeError(
            Diagnostic("not-local", "an observable is too intricate to be evaluated on many configurations at once"),
            exit_code=4,
        ) from None


def result_of(program: Program, theta: dict[str, float], t: float, answer: Answer) -> ExactResult:
    """The thermodynamics, the observables and the derived quantities of an answer."""
    th = answer.thermodynamics
    observables: dict[str, ExactValue] = {}
    derived: dict[str, ExactValue] = {}
    left_out: dict[str, str] = {}
    for o in program.observables:
        if o.value in answer.averages:
            observables[o.name] = answer.averages[o.value]
        else:
            left_out[o.name] = answer.missing
    for d in program.derived:
        needed = [node.value for node in walk(d.value) if isinstance(node, Expect)]
        if all(e in answer.averages for e in needed):
            derived[d.name] = _derived(program, theta, d.value, needed, answer)
        else:
            left_out[d.name] = answer.missing

    def value(x: float) -> ExactValue:
        return ExactValue(x, method=answer.kind)

    params: dict[str, float] = {s.name: s.value for s in program.structure}
    return ExactResult(
        model=program.name,
        fingerprint=program.fingerprint,
        sites=0 if program.lattice is None else program.lattice.n_sites,
        temperature=t,
        params=params | {p.name: theta[p.name] for p in program.parameters},
        ln_z=value(th.ln_z),
        free_energy=value(-t * th.ln_z),
        energy=value(th.energy),
        entropy=value(th.ln_z + th.energy / t),
        heat_capacity=value(th.energy_variance / t**2),
        observables=observables,
        derived=derived,
        method=answer.method,
        cost=answer.cost,
        left_out=left_out,
    )


def _derived(
    program: Program, theta: dict[str, float], expr: Expr, needed: Sequence[Expr], answer: Answer
) -> ExactValue:
    """A derived quantity; if samples entered, with the jackknife error over blocks and its bias removed."""

    def value(averages: Callable[[Expr], float]) -> float:
        return float(evaluate_derived(program, expr, averages, theta))

    whole = value(lambda e: answer.averages[e].value)
    sampled = [e for e in needed if e in answer.blocks]
    if not sampled:
        return ExactValue(whole, method=answer.kind)

    def left_out(k: int) -> Callable[[Expr], float]:
        return lambda e: float(np.delete(answer.blocks[e], k).mean()) if e in sampled else answer.averages[e].value

    without = np.array([value(left_out(k)) for k in range(BLOCKS)])
    error = math.sqrt((BLOCKS - 1) * float(((without - without.mean()) ** 2).mean()))
    return ExactValue(BLOCKS * whole - (BLOCKS - 1) * float(without.mean()), error, SAMPLED)
