"""A draw and independent Markov chains into a verdict: does the guide cover what the model has?

The ESS of a guide's own samples cannot see a mode that they never visit. With ln w = −E/T − ln q on samples of the
model itself, x ~ p = e^{−E/T}/Z:

    forward ESS   1 / (mean_p(w) · mean_p(1/w))    both means from the chain, so no ln Z is needed; by Cauchy–Schwarz
                                                   in (0, 1]; 1/E_p[w/Z] in the limit, which is what (Σw)²/(nΣw²)
                                                   would be if q's samples went everywhere (Nicoli et al. 2023,
                                                   Phys. Rev. D 108, 114501)
    forward ln Z  −ln mean_p(q e^{E/T})            as q is normalised; right even where q misses modes
    bridge ln Z   both kinds of sample at once, with the least variance there is (Bennett 1976, J. Comput. Phys. 22,
                  245; Meng & Wong 1996): Σ_q σ(u) = Σ_p σ(−u), u = ln w − ln Z + ln(n_p/n_q)

A guide that misses modes of total weight f has an importance ln Z that is low by −ln(1 − f) with any error bar.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from vdsl.errors import Diagnostic, InternalError
from vdsl.estimate.importance import Draw, ln_z, log_weights, rounding
from vdsl.estimate.markov import choose_method, configuration, opaque_energy, sample_markov, sweep_work
from vdsl.estimate.phase_space import spaces_of
from vdsl.estimate.stats import (
    Estimate,
    autocorrelation_time,
    correlated_mean,
    ess,
    jackknife,
    log_mean_exp,
    replicates,
)
from vdsl.ir.interpret import visits

if TYPE_CHECKING:
    from vdsl.ir.factors import FactorGraph
    from vdsl.model import Model

SIGMAS = 3.0  # how far apart two ln Z must lie, in combined standard errors, …
LEAST_DIFFERENCE = 0.01  # … and at least by how much: a hundredth of the weight
FAR_BELOW = 1 / 3  # a forward ESS below this fraction of the guide's own
ENERGY_SIGMAS = 4.0
MIXED = 1.2  # R-hat above this: the chains themselves disagree
MOST_WORK, LEAST_CHAINS = 1.5e9, 16  # table reads, some ten seconds on two cores
MOST_NANOSECONDS = 2e10  # of one core …
POPULATIONS = 16  # of annealed particles
_GRADIENTS = 8_000  # … and about so many gradients for each chain, its share of the annealing included
_CHUNK = 2048


@dataclass(frozen=True)
class ModeCheck:
    """What a chain says about a guide. ln_z_forward, ln_z_bridge and energy (chain average) with their errors.

    r_hat, acceptance, exchange, autocorrelation and method describe the chain, where a check ran it; ln_z_annealed is
    what annealing found on the way to its starts; configurations {field: (chains, kept, …)} are those of continuous
    fields, `thin` trajectories apart, `POPULATIONS` groups of chains one after the other.
    """

    forward_ess: float
    reverse_ess: float
    ln_z: Estimate
    ln_z_forward: Estimate
    ln_z_bridge: Estimate
    energy: Estimate
    autocorrelation: float
    r_hat: float | None = None
    acceptance: float | None = None
    exchange: float | None = None
    method: str = "given"
    ln_z_annealed: Estimate | None = None
    configurations: dict[str, np.ndarray] | None = field(default=None, repr=False)
    thin: int = 1
    warnings: tuple[Diagnostic, ...] = ()


def check_modes(
    draw: Draw,
    graph: FactorGraph,
    model: Model,
    log_q: Callable[[dict[str, jax.Array]], jax.Array],
    key: jax.Array,
    chains: int = 64,
    kept: int = 64,
    thin: int | None = None,
) -> ModeCheck:
    """Runs chains on `graph` at the draw's temperature and compares them with the draw.

    `log_q` maps a batch of configurations {field: (n, elements)} to ln q, shape (n,); `graph` has the draw's θ. Where
    that would be more than `MOST_WORK`, there are fewer chains, then fewer sweeps: the warning `chain-not-mixed` says
    when they are too few. thin: sweeps between kept samples, 8 if None, or 4 where clusters forget within a few.
    """
    method = choose_method(graph, draw.temperature)
    thin = (4 if method == "cluster" else 8) if thin is None else thin
    work = sweep_work(graph, draw.temperature) * kept * thin * 1.25  # of one chain
    chains = int(np.clip(MOST_WORK / max(work, 1.0), min(chains, LEAST_CHAINS), chains))
    thin = int(np.clip(thin * MOST_WORK / (max(work, 1.0) * chains), 1, thin))
    opaque = opaque_energy(graph, model, draw.theta)
    chain = sample_markov(graph, draw.temperature, key, chains, kept * thin, thin, method=method, opaque=opaque)
    flat = jnp.asarray(chain.states.reshape(-1, graph.n))
    batches = [flat[first : first + _CHUNK] for first in range(0, len(flat), _CHUNK)]
    values = [np.asarray(log_q(configuration(graph, model.program, batch)), np.float64) for batch in batches]
    check = compare_with_chain(draw, chain.energies, np.concatenate(values).reshape(chain.energies.shape))
    return replace(
        check,
        r_hat=chain.r_hat,
        acceptance=chain.acceptance,
        exchange=chain.exchange,
        method=chain.method,
        warnings=check.warnings + _mixing(chain.r_hat, chain.autocorrelation, chain.method),
    )


def check_modes_continuous(
    draw: Draw,
    model: Model,
    log_q: Callable[[dict[str, jax.Array]], jax.Array],
    key: jax.Array,
    chains: int = 4,
    kept: int = 32,
    thin: int = 4,
) -> ModeCheck:
    """The same for models with continuous fields, at the draw's θ and temperature.

    `POPULATIONS` annealed from a known density (`smc`) fall into wells and sectors as these weigh; from each start
    `chains` chains of `hmc`. A population counts as one chain in errors, since its particles share ancestors. The work
    is bounded by `MOST_NANOSECONDS`: small models get more particles, large ones fewer chains and moves.
    """
    from vdsl.estimate.hmc import describe_chains, run_chains
    from vdsl.estimate.smc import anneal_starts

    room = MOST_NANOSECONDS / (_gradient_work(model) * _GRADIENTS * POPULATIONS * chains)
    root = min(1.0, float(np.sqrt(room)))
    chains, moves = max(round(chains * root), 1), max(round(thin * root), 1)
    particles = int(np.clip(16 * (room if room > 1 else root), 4, 256))
    start_key, run_key = jax.random.split(key)
    starts = anneal_starts(
        model, draw.theta, draw.temperature, start_key, POPULATIONS, particles, POPULATIONS * chains, moves
    )
    with starts.precision():
        settling = kept // 4
        stored, rates = run_chains(
            starts.target, starts.moves, run_key, starts.x, starts.tuning, settling + kept, moves
        )
    stored = {f: v[:, settling:] for f, v in stored.items()}
    found = describe_chains(model, draw.theta, stored, rates | {"step_size": float(starts.tuning.step)}, "hmc")
    flat = {f: v.reshape(-1, *v.shape[2:]) for f, v in found.x.items()}
    batches = [
        {f: jnp.asarray(v[first : first + _CHUNK]) for f, v in flat.items()}
        for first in range(0, found.energies.size, _CHUNK)
    ]
    values = np.concatenate([np.asarray(log_q(batch), np.float64) for batch in batches])
    check = compare_with_chain(draw, found.energies.reshape(POPULATIONS, -1), values.reshape(POPULATIONS, -1))
    return replace(
        check,
        autocorrelation=found.autocorrelation,
        r_hat=found.r_hat,
        acceptance=found.acceptance,
        method="hmc",
        ln_z_annealed=starts.ln_z,
        configurations=found.x,
        thin=moves,
        warnings=check.warnings + _mixing(found.r_hat, found.autocorrelation, "hmc"),
    )


def _gradient_work(model: Model) -> float:
    """About how many nanoseconds a gradient takes: measured on φ⁴ and XY lattices of 16² and 32² to a factor of two.

    Matrices cost three times as much a number, on SU(2) links of 4⁴ (521 μs measured, 488 estimated).
    """
    each = [
        (150.0 if s.kind == "group" and s.k > 1 else 50.0) * s.elements * max(s.k, 1) for s in spaces_of(model.program)
    ]
    return visits(model.program) + sum(each)


def _mixing(r_hat: float, autocorrelation: float, method: str) -> tuple[Diagnostic, ...]:
    if r_hat < MIXED:
        return ()
    return (
        Diagnostic(
            "chain-not-mixed",
            f"the Markov chains of the mode check disagree among themselves: R-hat of E is {r_hat:.2f}",
            notes=(f"method `{method}`, autocorrelation of {autocorrelation:.0f} kept samples",),
            hints=("the mode check itself is in doubt; run a longer one with `vdsl sample`",),
            severity="warning",
        ),
    )


def compare_with_chain(draw: Draw, energies: np.ndarray, log_q: np.ndarray) -> ModeCheck:
    """The verdict from chain samples: energies and ln q of each, both (chains, kept). ln q may be −inf."""
    energies, log_q = np.asarray(energies, np.float64), np.asarray(log_q, np.float64)
    if energies.ndim != 2 or energies.shape != log_q.shape or len(energies) < 2:
        raise InternalError(f"chain energies of shape {energies.shape} beside log_q of shape {log_q.shape}")
    log_w_q = log_weights(draw)
    log_w_p = -energies / draw.temperature - log_q
    own, forward, bridge = ln_z(draw), ln_z_forward(log_w_p), ln_z_bridge(log_w_q, log_w_p)
    check = ModeCheck(
        forward_ess(log_w_p),
        ess(log_w_q),
        own,
        forward,
        bridge,
        correlated_mean(energies, "markov"),
        autocorrelation_time(energies),
    )
    return replace(check, warnings=_verdict(check, draw, energies, log_w_q))


def forward_ess(log_w: np.ndarray) -> float:
    """1/(mean(w)·mean(1/w)) over samples of the model; 0 if q is 0 at any of them."""
    log_w = np.ravel(log_w)
    if np.isposinf(log_w).any():
        return 0.0
    return float(np.exp(-log_mean_exp(log_w) - log_mean_exp(-log_w)))


def ln_z_forward(log_w: np.ndarray) -> Estimate:
    """−ln mean(1/w) over chains (chains, kept); the jackknife leaves out one chain at a time."""
    chains, kept = log_w.shape
    finite = np.isfinite(log_w).any(1)
    if finite.sum() < 2:
        return Estimate(float("inf"), float("inf"), "markov", 0.0)
    # A chain on which q vanishes weighs nothing; e^{−1e300} says so without −inf − (−inf) inside the blocks.
    r = replicates(np.zeros((chains * kept, 1)), np.maximum(-log_w.ravel(), -1e300), blocks=chains)
    e = jackknife(lambda _, log_mean: -log_mean, r, "markov")
    return replace(e, n_eff=chains * kept / autocorrelation_time(np.exp(-log_w - (-log_w).max())))


def ln_z_bridge(log_w_q: np.ndarray, log_w_p: np.ndarray) -> Estimate:
    """Bennett's acceptance ratio between guide samples (n,) and chains (chains, kept).

    The error is the delta method's on the two means that are set equal; the chain's carries its autocorrelation.
    """
    # Any n_p gives a consistent answer; the least variance comes from the number of independent samples.
    n_q = float(len(log_w_q))
    n_p = log_w_p.size / autocorrelation_time(np.tanh((log_w_p - np.median(log_w_q)) / 2))
    shift = np.log(n_p / n_q)
    finite = np.concatenate([log_w_q, log_w_p[np.isfinite(log_w_p)]])
    low, high = finite.min() - 40 + min(shift, 0), finite.max() + 40 + max(shift, 0)
    for _ in range(80):
        middle = (low + high) / 2
        excess = n_q * _sigmoid(log_w_q - middle + shift).mean() - n_p * _sigmoid(middle - log_w_p - shift).mean()
        low, high = (middle, high) if excess > 0 else (low, middle)
    value = (low + high) / 2
    on_q, on_p = _sigmoid(log_w_q - value + shift), _sigmoid(value - log_w_p - shift)
    slope = n_q * (on_q * (1 - on_q)).mean() + n_p * (on_p * (1 - on_p)).mean()
    spread = np.hypot(n_q * on_q.std(ddof=1) / np.sqrt(n_q), n_p * correlated_mean(on_p).error)
    error = float(spread / slope) if slope > 0 else float("inf")
    return Estimate(float(value), error, "bridge", n_q + n_p)


def _verdict(check: ModeCheck, draw: Draw, energies: np.ndarray, log_w_q: np.ndarray) -> tuple[Diagnostic, ...]:
    own, bridge = check.ln_z, check.ln_z_bridge
    difference = bridge.value - own.value
    sigma = float(np.hypot(np.hypot(bridge.error, own.error), rounding(draw)))
    numbers = (
        f"forward ESS {check.forward_ess:.2g} on chain samples, {check.reverse_ess:.2g} on the guide's own",
        f"ln Z: {own} from the guide's samples, {bridge} with the chain's, {check.ln_z_forward} from the chain's alone",
    )
    low = difference > max(SIGMAS * sigma, LEAST_DIFFERENCE)
    if low or check.forward_ess < FAR_BELOW * check.reverse_ess or not np.isfinite(sigma):
        reason = (
            f"its ln Z is lower by {difference:.3g}, {difference / sigma:.1f} standard errors"
            if low and np.isfinite(sigma)
            else f"its forward ESS is {check.forward_ess:.2g}, not {check.reverse_ess:.2g}"
        )
        return (
            Diagnostic(
                "modes-missing",
                f"the guide misses configurations that an independent Markov chain finds: {reason}",
                notes=numbers,
                hints=(
                    "train longer or with slower annealing from a higher temperature; "
                    "until then trust no average that this guide gives at this temperature",
                ),
                severity="warning",
            ),
        )
    reasons = [f"the guide's ln Z is higher by {-difference:.3g}"] if -difference > max(
        SIGMAS * sigma, LEAST_DIFFERENCE
    ) else []  # fmt: skip
    reasons += _energy_differences(draw, energies, log_w_q)
    if not reasons:
        return ()
    return (
        Diagnostic(
            "chain-disagrees",
            f"an independent Markov chain and the guide disagree: {'; '.join(reasons)}",
            notes=numbers,
            hints=("one of the two has not converged: run `vdsl sample` for longer, or train longer",),
            severity="warning",
        ),
    )


def _energy_differences(draw: Draw, energies: np.ndarray, log_w_q: np.ndarray) -> list[str]:
    """Where the distributions of the energy differ: in their mean, or in the weight below the chain's median."""
    own = np.asarray(draw.energy, np.float64)
    # Discrete levels come out of two programs with different rounding: the cut lies just above a level, not on it.
    median = float(np.median(energies)) + 1e-5 * float(np.abs(energies).max())
    out = []
    for what, of in (("mean energies", lambda e: e), ("weights below the median energy", lambda e: e <= median)):
        chain = correlated_mean(of(energies))
        guide = jackknife(lambda means, _: float(means[0]), replicates(of(own)[:, None], log_w_q))
        sigma = float(np.hypot(chain.error, guide.error))
        scale = max(abs(chain.value), abs(guide.value))
        if abs(chain.value - guide.value) > max(ENERGY_SIGMAS * sigma, 1e-5 * scale):
            out.append(f"{what} are {guide.value:.6g} (guide) and {chain.value:.6g} (chain), σ = {sigma:.2g}")
    return out


def _sigmoid(u: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -u))
