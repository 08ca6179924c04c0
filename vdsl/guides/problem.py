"""Problem: what guides look at when they are chosen and built. Every view of the model is worked out when asked for.

The views: factors (discrete fields only), the expansion into products of one-variable functions, a flat chart of
continuous fields, the symmetries that are plain from the terms, and the compiled energy.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
from jax import Array

from vdsl.errors import Diagnostic, VfeError
from vdsl.guides.arrays import reals
from vdsl.guides.chart import Chart, chart_of
from vdsl.ir import interpret
from vdsl.ir.expand import expand_energy
from vdsl.ir.expansion import Expansion
from vdsl.ir.factors import FactorGraph, factorise
from vdsl.ir.program import Program
from vdsl.ir.support import is_discrete
from vdsl.ir.symmetry import Symmetry, infer
from vdsl.model import Model


class Problem:
    """A program at parameters θ (float64)."""

    def __init__(self, program: Program, theta: Mapping[str, float], model: Model | None = None):
        self.program = program
        self.theta = {name: float(value) for name, value in theta.items()}
        self.model = model or Model(program)

    @cached_property
    def temperature(self) -> float:
        """T. Raises VfeError `bad-temperature`."""
        return float(interpret.temperature(self.program, self.theta))

    @property
    def discrete(self) -> bool:
        """Whether all fields are discrete."""
        return all(is_discrete(f.support) for f in self.program.fields)

    @cached_property
    def graph(self) -> FactorGraph:
        """The factors; for discrete fields only."""
        return factorise(self.program, self.theta)

    @cached_property
    def expansion(self) -> Expansion:
        """The energy as a sum of products of functions of one variable, as far as it is one."""
        return expand_energy(self.program, self.theta)

    @cached_property
    def chart(self) -> Chart | None:
        """Flat coordinates, if all fields are real, complex or angles."""
        return chart_of(self.program)

    @cached_property
    def symmetries(self) -> tuple[Symmetry, ...]:
        """What is plain from the terms at θ."""
        return infer(self.program, self.theta)

    def options(self, guide: str) -> dict[str, Any]:
        """The options of the model's `guide` block, if it is about this guide; checked when the model was compiled."""
        said = self.program.guide
        return dict(said.options) if said is not None and said.name == guide else {}

    def flat_energy(self) -> FlatEnergy:
        """The compiled energy as a function of flat coordinates."""
        if self.chart is None:
            raise cannot_serve("flow", "not all of its fields are real, complex or angles", "leave the choice to vdsl")
        return FlatEnergy({k: reals(v) for k, v in self.theta.items()}, self.model, self.chart)


class FlatEnergy(eqx.Module):
    """E(x) for x (b, D) in the chart, through the compiled model; not divided by T. θ is traced."""

    theta: dict[str, Array]
    model: Model = eqx.field(static=True)
    chart: Chart = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        """(b, D) -> (b,)."""
        return jax.vmap(lambda c: self.model.energy(c, self.theta))(self.chart.decode(x))


def cannot_serve(name: str, why: str, hint: str) -> VfeError:
    """`guide-cannot-serve`, for a guide that was asked for by name."""
    return VfeError(Diagnostic("guide-cannot-serve", f"guide `{name}` cannot serve this model: {why}", hints=(hint,)))
