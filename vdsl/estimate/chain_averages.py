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
from vdsl.estimate.stats import (
    BLOCKS,
    Estimate,
    Replicates,
    autocorrelation_time,
    correlated_mean,
    jackknife,
    r_hat,
    replicates,
)
from vdsl.estimate.thermo import evaluate_samples

if TYPE_CHECKING:
    from vdsl.estimate.hmc import FieldChains
    from vdsl.estimate.smc import Populations
    from vdsl.ir.expr import Expr
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
    """All averages of chains of discrete fields; see `series_averages`."""
    flat = chain.states.reshape(-1, chain.states.shape[-1])
    x = {k: np.asarray(v) for k, v in configuration(graph, model.program, jnp.asarray(flat)).items()}
    _, observables = evaluate_samples(model, x, dict(theta))
    return series_averages(x, chain.energies, observables, model, theta, temperature, f"markov {chain.method}")


def field_averages(chains: FieldChains, model: Model, theta: Mapping[str, float], temperature: float) -> ChainAverages:
    """All averages of chains of any fields; see `series_averages`."""
    x = {k: v.reshape(-1, *v.shape[2:]) for k, v in chains.x.items()}
    observables = {k: v.reshape(-1) for k, v in chains.observables.items()}
    return series_averages(x, chains.energies, observables, model, theta, temperature, f"markov {chains.method}")


def series_averages(
    x: Mapping[str, np.ndarray],
    energies: np.ndarray,
    observables: Mapping[str, np.ndarray],
    model: Model,
    theta: Mapping[str, float],
    temperature: float,
    method: str,
) -> ChainAverages:
    """All averages of chains, energies (chains, kept); x and the observables have both axes in one.

    Errors of means by the autocorrelation time, of functions of means by a jackknife over blocks longer than it;
    warning `chain-not-mixed` where R-hat of a quantity is above 1.05.
    """
    shape, energy = energies.shape, energies.reshape(-1)
    draw = Draw(dict(x), np.zeros(len(energy)), energy, temperature, dict(theta), dict(observables))
    series = {"energy": energies, **{name: values.reshape(shape) for name, values in observables.items()}}
    memory = {name: autocorrelation_time(values) for name, values in series.items()}
    agreement = {name: r_hat(values) for name, values in series.items()}

    arguments, table = _columns(draw, model)
    blocks = int(np.clip(len(energy) / (4 * max(memory.values())), 8, BLOCKS))
    averages = replicates(table, blocks=blocks)
    return ChainAverages(
        energy=correlated_mean(energies, method),
        heat_capacity=jackknife(lambda a, _: (a[1] - a[0] ** 2) / temperature**2, averages, method),
        observables={name: correlated_mean(series[name], method) for name in observables},
        derived=_derived(averages, arguments, model, theta, method),
        autocorrelation=memory,
        r_hat=agreement,
        draw=draw,
        warnings=_warnings(agreement),
    )


def population_averages(
    found: Populations, model: Model, theta: Mapping[str, float], temperature: float
) -> tuple[ChainAverages, dict[str, Estimate]]:
    """All averages of annealed populations, each weighted with its Ẑ, and ln Z, F = −T ln Z, S = E/T + ln Z.

    Errors by a jackknife over whole populations: only they are independent. There are no chains to compare.
    """
    count, particles = found.energies.shape
    x = {k: v.reshape(-1, *v.shape[2:]) for k, v in found.x.items()}
    observables = {k: v.reshape(-1) for k, v in found.observables.items()}
    energy = found.energies.reshape(-1)
    draw = Draw(x, np.zeros(len(energy)), energy, temperature, dict(theta), observables)
    arguments, table = _columns(draw, model)
    shift = float(energy.mean())
    of_observables = np.stack([*observables.values()], axis=1) if observables else np.zeros((len(energy), 0))
    log_w = np.repeat(found.log_z, particles)
    averages = replicates(table, log_w, blocks=count)
    plain = replicates(of_observables, log_w, blocks=count)

    def estimate(function: Callable[[np.ndarray, float], float], of: Replicates = averages) -> Estimate:
        return jackknife(function, of, "smc")

    averaged = ChainAverages(
        energy=estimate(lambda a, _: a[0] + shift),
        heat_capacity=estimate(lambda a, _: (a[1] - a[0] ** 2) / temperature**2),
        observables={name: estimate(partial(_column, k), plain) for k, name in enumerate(observables)},
        derived=_derived(averages, arguments, model, theta, "smc"),
        autocorrelation={},
        r_hat={},
        draw=draw,
        warnings=found.warnings,
    )
    totals = {
        "free_energy": estimate(lambda _, log_z: -temperature * log_z),
        "ln_z": estimate(lambda _, log_z: log_z),
        "entropy": estimate(lambda a, log_z: (a[0] + shift) / temperature + log_z),
    }
    return averaged, totals


def _column(k: int, means: np.ndarray, _: float) -> float:
    return float(means[k])


def _columns(draw: Draw, model: Model) -> tuple[tuple[Expr, ...], np.ndarray]:
    """What derived quantities take expectations of, and the table (n, …): energy about its mean, its square, those."""
    arguments = expect_arguments(model.program)
    centred = draw.energy - draw.energy.mean()
    return arguments, np.stack([centred, centred**2, *(per_sample(a, draw, model) for a in arguments)], axis=1)


def _derived(
    averages: Replicates, arguments: tuple[Expr, ...], model: Model, theta: Mapping[str, float], method: str
) -> dict[str, Estimate]:
    out = {}
    for quantity in model.program.derived:
        function = derived_function(quantity, model.program, theta, arguments)
        out[quantity.name] = jackknife(partial(_of_tail, function), averages, method)
    return out


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
