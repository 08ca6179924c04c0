"""A `Draw` into thermodynamics: energy, entropy, heat capacity, observables and derived quantities, reweighted.

All averages are self-normalised, ⟨a⟩ = Σwa/Σw, with w = e^{−E/T}/q; all errors come from one block jackknife, so
that quantities made of several averages carry their correlations. Extensive totals; entropy in units of k_B.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.estimate.expectation import derived_function, expect_arguments, per_sample
from vdsl.estimate.importance import Draw, Quality, ln_z, log_weights, quality, variational_free_energy
from vdsl.estimate.stats import Estimate, jackknife, mean, replicates
from vdsl.ir.interpret import resolve_parameters
from vdsl.ir.interpret import temperature as model_temperature

if TYPE_CHECKING:
    from vdsl.model import Model

_CHUNK = 1024  # configurations evaluated at once: bounds the memory of a reweighting


@dataclass(frozen=True)
class Thermodynamics:
    """All that a draw says about the model.

    free_energy is variational (an upper bound); variational_energy and variational_entropy belong to the guide itself,
    F_q = E_q − T S_q; everything else is importance-weighted.
    """

    free_energy: Estimate
    variational_energy: Estimate
    variational_entropy: Estimate
    ln_z: Estimate
    importance_free_energy: Estimate
    energy: Estimate
    entropy: Estimate
    heat_capacity: Estimate
    observables: dict[str, Estimate]
    derived: dict[str, Estimate]
    quality: Quality


def thermodynamics(draw: Draw, model: Model) -> Thermodynamics:
    """Every estimate of the draw. Raises VfeError `non-finite` if a weight, an observable or a derived value is not.

    S = E/T + ln Z; C = (⟨E²⟩ − ⟨E⟩²)/T², the response at fixed energy function (couplings that themselves depend on
    the temperature do not enter). An observable that is non-finite on a sample is an error, as an energy is.
    """
    log_w, T = log_weights(draw), draw.temperature
    program = model.program
    arguments = expect_arguments(program)
    columns = {"energy": np.asarray(draw.energy, np.float64)}
    # About the mean: ⟨E²⟩ − ⟨E⟩² of large energies would lose all its digits.
    energy_shift = columns["energy"].mean()
    centred = columns["energy"] - energy_shift
    observables = {name: _finite(values, f"observable `{name}`") for name, values in draw.observables.items()}
    expected = [_finite(per_sample(a, draw, model), "the argument of an `expect`") for a in arguments]
    table = np.stack([centred, centred**2, *observables.values(), *expected], axis=1)
    averages = replicates(table, log_w)
    first_expected = 2 + len(observables)

    f_importance = _scaled(ln_z(draw), -T)
    derived = {}
    for quantity in program.derived:
        function = derived_function(quantity, program, draw.theta, arguments)
        derived[quantity.name] = _checked(
            jackknife(_of_columns(function, first_expected), averages), f"derived `{quantity.name}`"
        )
    return Thermodynamics(
        free_energy=variational_free_energy(draw),
        variational_energy=mean(columns["energy"], "variational"),
        variational_entropy=mean(-np.asarray(draw.log_q, np.float64), "variational"),
        ln_z=ln_z(draw),
        importance_free_energy=f_importance,
        energy=jackknife(lambda a, _: a[0] + energy_shift, averages),
        entropy=jackknife(lambda a, log_z: (a[0] + energy_shift) / T + log_z, averages),
        heat_capacity=jackknife(lambda a, _: (a[1] - a[0] ** 2) / T**2, averages),
        observables={name: jackknife(_column(k), averages) for k, name in enumerate(observables, start=2)},
        derived=derived,
        quality=quality(draw),
    )


def reweight(draw: Draw, model: Model, **changes: float) -> Draw:
    """The same samples as a draw for nearby parameters, or for another temperature.

    A change is a dynamic parameter of the model by name; `T` is the temperature itself where no parameter has that
    name. ln q stays what it was, so every estimate of the new draw is importance-weighted by the right ratio, and its
    ESS (warning `low-ess`) says how far the reweighting carries. Raises VfeError for names and values out of range.
    """
    names = {p.name for p in model.program.parameters}
    temperature = changes.pop("T") if "T" in changes and "T" not in names else None
    # Everything else stays as it was drawn, also parameters whose defaults follow a changed one.
    before = _dynamic(draw.theta, names)
    theta = resolve_parameters(model.program, {**before, **changes})
    T = model_temperature(model.program, theta) if temperature is None else float(temperature)
    if not 0 < T < np.inf:
        raise VfeError(
            Diagnostic("bad-temperature", f"the temperature is {T:g}", notes=("expected a positive, finite number",)),
            exit_code=2,
        )
    if temperature is None and model_temperature(model.program, resolve_parameters(model.program, before)) == T:
        T = draw.temperature  # a draw that was moved to another temperature stays there
    energy, observables = evaluate_samples(model, draw.x, theta)
    return replace(draw, energy=energy, temperature=T, theta=theta, observables=observables)


def evaluate_samples(
    model: Model, x: Mapping[str, np.ndarray], theta: Mapping[str, float]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Energies (n,) and observables {name: (n,)} of configurations {field: (n, elements, …)}, in bounded memory.

    In double precision whatever training used: one pass costs nothing, and the sum over a large lattice would
    otherwise lose more digits of ln w than the statistics do.
    """

    with jax.enable_x64(True):
        energy, observables = _every(model, jax.tree.map(jnp.asarray, dict(x)), jax.tree.map(jnp.asarray, dict(theta)))
        return np.asarray(energy), {name: np.asarray(v) for name, v in observables.items()}


@partial(jax.jit, static_argnums=0)  # once for each model, so that a sweep of reweightings does not compile again
def _every(
    model: Model, x: dict[str, jax.Array], theta: dict[str, jax.Array]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    one = lambda c: (model.energy(c, theta), model.observables(c, theta))  # noqa: E731
    return jax.lax.map(one, x, batch_size=min(_CHUNK, model.chunk_size))


def _column(k: int) -> Callable[[np.ndarray, float], float]:
    return lambda means, _: float(means[k])


def _of_columns(function: Callable[[np.ndarray], float], first: int) -> Callable[[np.ndarray, float], float]:
    return lambda means, _: function(means[first:])


def _dynamic(theta: Mapping[str, float], names: set[str]) -> dict[str, float]:
    return {name: float(value) for name, value in theta.items() if name in names}


def _scaled(estimate: Estimate, factor: float) -> Estimate:
    return replace(estimate, value=factor * estimate.value, error=abs(factor) * estimate.error)


def _finite(values: np.ndarray, what: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise VfeError(Diagnostic("non-finite", f"{what} is {values[bad[0]]} for sample {bad[0]}"), exit_code=3)
    return values


def _checked(estimate: Estimate, what: str) -> Estimate:
    if not (np.isfinite(estimate.value) and np.isfinite(estimate.error)):
        raise VfeError(
            Diagnostic("non-finite", f"{what} is {estimate.value} with an error of {estimate.error}"), exit_code=3
        )
    return estimate
