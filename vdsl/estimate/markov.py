"""A factor graph into independent Markov chains: coloured heat bath, clusters, parallel tempering.

An answer that shares nothing with the guide. States are state indices; arrays inside are (variables, batch) so that
reading a neighbour is one contiguous row. `opaque` is the energy of the terms that have no factors, a JAX function of
the state indices (n,); a graph with such terms is updated one variable at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from vdsl.errors import InternalError
from vdsl.estimate.cluster import cluster_sweep, find_clusters
from vdsl.estimate.heat_bath import OpaqueEnergy, device_energy, heat_bath, plan_heat_bath
from vdsl.estimate.stats import autocorrelation_time, r_hat
from vdsl.ir.program import Program
from vdsl.ir.support import stored_states

if TYPE_CHECKING:
    from vdsl.ir.factors import FactorGraph
    from vdsl.model import Model

METHODS = ("local", "cluster", "tempering")
MOST_RUNGS = 24


@dataclass(frozen=True)
class MarkovResult:
    """states: (chains, kept, n) state indices; energies: (chains, kept), float64, not divided by T.

    method: what was run; acceptance: fraction of variables that change in a sweep; exchange: fraction of swaps of
    neighbouring temperatures taken (None without tempering); autocorrelation: τ of the energy in kept samples;
    r_hat: split-R̂ of the energy between chains.
    """

    states: np.ndarray
    energies: np.ndarray
    method: str
    acceptance: float
    exchange: float | None
    autocorrelation: float
    r_hat: float


def sample_markov(
    graph: FactorGraph,
    temperature: float,
    key: jax.Array,
    chains: int = 32,
    sweeps: int = 500,
    thin: int = 1,
    method: str = "auto",
    burn_in: int | None = None,
    opaque: OpaqueEnergy | None = None,
) -> MarkovResult:
    """Chains started from independent uniformly random states, one sample kept after every `thin` sweeps.

    burn_in: sweeps thrown away first, sweeps/4 if None, rounded up to whole `thin`s. method "cluster" alternates
    cluster updates with heat-bath sweeps; "auto" takes it if it applies without frustration, else "tempering", which
    is "local" where T is hot.
    """
    if graph.opaque and opaque is None:
        raise InternalError(f"the terms {[name for name, _ in graph.opaque]} need their energy as a function")
    if method not in (*METHODS, "auto"):
        raise InternalError(f"no Markov chain method {method!r}")
    method = choose_method(graph, temperature) if method == "auto" else method
    clusters = find_clusters(graph) if method == "cluster" else None
    if method == "cluster" and clusters is None:
        raise InternalError("cluster updates do not apply to this graph")
    ladder = temperature_ladder(graph, temperature) if method == "tempering" else np.array([temperature])
    method = "local" if len(ladder) == 1 and method == "tempering" else method
    count, dropped = sweeps // thin, -(-(sweeps // 4 if burn_in is None else burn_in) // thin)

    start_key, run_key = jax.random.split(key)
    q = np.asarray(graph.cardinalities)
    rungs = len(ladder)
    uniform = jax.random.uniform(start_key, (len(q), chains * rungs))
    start = jnp.minimum((uniform * q[:, None]).astype(jnp.int32), q[:, None].astype(np.int32) - 1)
    # Batch order: the first `chains` columns are at the target temperature, the next `chains` one rung up, …
    temperatures = jnp.asarray(np.repeat(ladder, chains), jnp.float32)
    local = heat_bath(plan_heat_bath(graph, single=opaque is not None), opaque)
    energy_of = device_energy(graph, opaque)

    def sweep(states: jax.Array, key_and_number: tuple) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        (local_key, cluster_key, swap_key), number = jax.random.split(key_and_number[0], 3), key_and_number[1]
        new = local(local_key, states, temperatures)
        if clusters is not None:
            new = cluster_sweep(clusters, cluster_key, new, temperatures)
        changed = (new != states)[:, :chains].mean()
        if rungs == 1:
            return new, (changed, jnp.zeros(()))
        new, taken = _exchange(swap_key, new, energy_of(new), jnp.asarray(ladder, jnp.float32), number % 2)
        return new, (changed, taken)

    @jax.jit
    def run(states: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        def keep(states: jax.Array, key_and_number: tuple) -> tuple[jax.Array, tuple[jax.Array, ...]]:
            keys, number = jax.random.split(key_and_number[0], thin), key_and_number[1]
            states, rates = jax.lax.scan(sweep, states, (keys, number * thin + jnp.arange(thin)))
            return states, (states[:, :chains].astype(jnp.int16), *rates)

        # Burning in is the same loop, so that it is compiled once; what it keeps is dropped.
        _, outputs = jax.lax.scan(keep, states, (jax.random.split(key, dropped + count), jnp.arange(dropped + count)))
        kept, changed, taken = (a[dropped:] for a in outputs)
        return kept, changed.mean(), taken.mean()

    kept, changed, taken = run(start, run_key)
    states = np.asarray(kept).transpose(2, 0, 1)
    energies = graph_energy(graph, states, opaque)
    long_enough = energies.shape[1] >= 4
    return MarkovResult(
        states,
        energies,
        method,
        acceptance=float(changed),
        exchange=float(taken) if rungs > 1 else None,
        autocorrelation=autocorrelation_time(energies) if long_enough else float(energies.shape[1]),
        r_hat=r_hat(energies) if long_enough else float("nan"),
    )


def choose_method(graph: FactorGraph, temperature: float) -> str:
    """ "cluster" where clusters apply without frustration, else "tempering", or "local" where T is hot."""
    clusters = find_clusters(graph)
    if clusters is not None and not clusters.frustrated:
        return "cluster"
    return "tempering" if len(temperature_ladder(graph, temperature)) > 1 else "local"


def sweep_work(graph: FactorGraph, temperature: float) -> float:
    """Table entries that a sweep of one chain reads, all rungs of its ladder: about 4 ns each on a core."""
    q = np.asarray(graph.cardinalities)
    reads = float(sum(q[np.asarray(g.scopes)].sum() for g in graph.groups))
    if graph.opaque:  # the whole configuration, for every state of every variable
        reads += float(len(graph.opaque) * len(q) * q.sum())
    cluster = choose_method(graph, temperature) == "cluster"
    return 4 * reads if cluster else reads * len(temperature_ladder(graph, temperature))


def temperature_ladder(graph: FactorGraph, temperature: float) -> np.ndarray:
    """Temperatures from T up to where the heat bath moves freely, geometric, at most `MOST_RUNGS`.

    The top is the r.m.s. over variables of √Σ(spread of each factor)², about twice the mean-field transition. The
    number of rungs follows √(heat capacity) with half a unit per variable, which gives exchange rates near one half.
    """
    squares = np.zeros(len(graph.cardinalities))
    for group in graph.groups:
        tables = np.asarray(group.tables, np.float64).reshape(len(group.tables), -1)
        finite = np.where(np.isfinite(tables), tables, np.nan)
        spread = np.nan_to_num(np.nanmax(finite, 1) - np.nanmin(finite, 1)) if tables.size else np.zeros(0)
        for column in np.asarray(group.scopes).T:
            np.add.at(squares, column, spread**2)
    top = float(np.sqrt(squares.mean()))
    if top <= temperature:
        return np.array([temperature])
    rungs = 2 + int(np.log(top / temperature) * np.sqrt(len(squares) / 2))
    return np.geomspace(temperature, top, min(rungs, MOST_RUNGS))


def graph_energy(graph: FactorGraph, states: np.ndarray, opaque: OpaqueEnergy | None = None) -> np.ndarray:
    """The energy of states (…, n) of state indices, shape (…), float64, opaque terms included."""
    flat = np.asarray(states).reshape(-1, np.shape(states)[-1])
    chunk = max(1, 2_000_000 // max(1, sum(np.size(g.scopes) for g in graph.groups)))
    parts = [graph.energy(flat[first : first + chunk]) for first in range(0, len(flat), chunk)]
    total = np.concatenate(parts)
    if opaque is not None:
        total += np.asarray(jax.jit(lambda s: jax.lax.map(opaque, s, batch_size=1024))(jnp.asarray(flat)), np.float64)
    return total.reshape(np.shape(states)[:-1])


def opaque_energy(graph: FactorGraph, model: Model, theta: Mapping[str, float]) -> OpaqueEnergy | None:
    """The energy of a graph's opaque terms as a function of state indices (n,); None if it has none."""
    if not graph.opaque:
        return None
    parameters = {name: jnp.asarray(value) for name, value in theta.items()}

    def energy(states: jax.Array) -> jax.Array:
        x = configuration(graph, model.program, states)
        parts = [jnp.asarray(model.evaluate(expr, x, parameters)).real for _, expr in graph.opaque]
        return jnp.stack(parts).sum()

    return energy


def configuration(graph: FactorGraph, program: Program, states: jax.Array) -> dict[str, jax.Array]:
    """State indices (…, n) as stored numbers, {field: (…, elements)}."""
    x = {}
    for name, first, count in graph.fields:
        stored = jnp.asarray(stored_states(program.field(name).support))
        x[name] = stored[states[..., first : first + count]]
    return x


def _exchange(
    key: jax.Array, states: jax.Array, energy: jax.Array, ladder: jax.Array, parity: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Swaps of rungs r and r+1, r of the given parity, taken with min(1, e^{(1/T_r − 1/T_{r+1})(E_r − E_{r+1})})."""
    rungs, n = len(ladder), len(states)
    energy = energy.reshape(rungs, -1)
    r = jnp.arange(rungs)
    is_lower, is_upper = (r % 2 == parity) & (r + 1 < rungs), (r % 2 != parity) & (r > 0)
    log_ratio = (1 / ladder[:-1] - 1 / ladder[1:])[:, None] * (energy[:-1] - energy[1:])
    u = jax.random.uniform(key, log_ratio.shape, minval=jnp.finfo(jnp.float32).tiny)
    accepted = jnp.log(u) < log_ratio  # (rungs − 1, chains), by lower rung
    up = is_lower[:-1, None] & accepted
    none = jnp.zeros((1, energy.shape[1]), bool)
    source = r[:, None] + jnp.concatenate([up, none]).astype(int) - jnp.concatenate([none, up]).astype(int)
    swapped = jnp.take_along_axis(states.reshape(n, rungs, -1), source[None], axis=1)
    return swapped.reshape(n, -1), up.sum() / (jnp.maximum(is_upper.sum(), 1) * energy.shape[1])
