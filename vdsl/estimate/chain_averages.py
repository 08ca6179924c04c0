"""Samples of Markov chains into averages: energy, heat capacity, observables and derived quantities, with R-hat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from vdsl.errors import Diagnostic
from vdsl.estimate.expectation import derived_function, expect_arguments, per_sample
from vdsl.estimate.importance import Draw
from vdsl.estimate.markov import MarkovResult, configuration
from vdsl.estimate.stats import BLOCKS, Estimate, autocorrelation_time, correlated_mean, jackknife, r_hat, replicates
from vdsl.estimate.thermo import evaluate_samples

if TYPE_CHECKING:
    from vdsl.ir.factors import FactorGraph
    from vdsl.model import Model

MIXED = 1.05  # R-hat above this: chains that started apart have not met


@dataclass(frozen=True)
class ChainAverages:
    """Averages over chains, and for every one of them how long it remembers and how far the chains agree."""

    energy: Estimate
    heat_capacity: Estimate
    observables: dict[str, Estimate]
    derived: dict[str, Estimate]
    autocorrelation: dict[str, float]
    r_hat: dict[str, float]
    draw: Draw
    warnings: tuple[Diagnostic, ...]


def chain_averages(
    chain: MarkovResult, graph: FactorGraph, model: Model, theta: Mapping[str, float], temperature: float
) -> ChainAverages:
    """All averages of a chain. Errors of means by the autocorrelation time, of functions of means by a jackknife over
    blocks longer than it; warning `chain-not-mixed` where R-hat of a quantity is above 1.05."""
    shape = chain.energies.shape
    method = f"markov {chain.method}"
    x = {k: np.asarray(v) for k, v in configuration(graph, model.program, jnp.asarray(_flat(chain))).items()}
    _, observables = evaluate_samples(model, x, dict(theta))
    energy = chain.energies.reshape(-1)
    draw = Draw(x, np.zeros(len(energy)), energy, temperature, dict(theta), observables)
    series = {"energy": chain.energies, **{name: values.reshape(shape) for name, values in observables.items()}}
    memory = {name: autocorrelation_time(values) for name, values in series.items()}
    agreement = {name: r_hat(values) for name, values in series.items()}

    arguments = expect_arguments(model.program)
    shift = energy.mean()
    columns = [energy - shift, (energy - shift) ** 2, *(per_sample(a, draw, model) for a in arguments)]
    blocks = int(np.clip(len(energy) / (4 * max(memory.values())), 8, BLOCKS))
    averages = replicates(np.stack(columns, axis=1), blocks=blocks)
    derived = {}
    for quantity in model.program.derived:
        function = derived_function(quantity, model.program, theta, arguments)
        derived[quantity.name] = jackknife(partial(_of_tail, function), averages, method)
    return ChainAverages(
        energy=correlated_mean(chain.energies, method),
        heat_capacity=jackknife(lambda a, _: (a[1] - a[0] ** 2) / temperature**2, averages, method),
        observables={name: correlated_mean(series[name], method) for name in observables},
        derived=derived,
        autocorrelation=memory,
        r_hat=agreement,
        draw=draw,
        warnings=_warnings(agreement),
    )


def _flat(chain: MarkovResult) -> np.ndarray:
    return chain.states.reshape(-1, chain.states.shape[-1])


def _warnings(agreement: Mapping[str, float]) -> tuple[Diagnostic, ...]:
    bad = {name: value for name, value in agreement.items() if not value <= MIXED}
    if not bad:
        return ()
    words = ", ".join(f"{value:.2f} for {name}" for name, value in bad.items())
    return (
        Diagnostic(
            "chain-not-mixed",
            f"the Markov chains disagree among themselves: R-hat is {words}",
            notes=(f"chains from different starts agree when it is below {MIXED}",),
            hints=("more `--samples`, a larger `--thin`, or another `--method`",),
            severity="warning",
        ),
    )


def _of_tail(function: Callable[[np.ndarray], float], means: np.ndarray, _: float) -> float:
    """The function of the averages that follow the energy and its square."""
    return function(means[2:])
