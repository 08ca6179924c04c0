"""A `Draw` into an independence-Metropolis chain: a cross-check of the reweighted averages.

The guide's samples are proposals, in order; each is accepted with min(1, w'/w). The chain is exact in the limit, and a
long run of rejections is a sample whose weight the guide should have given more often.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vdsl.estimate.importance import Draw, log_weights
from vdsl.estimate.stats import Estimate, autocorrelation_time, correlated_mean


@dataclass(frozen=True)
class IndependenceChain:
    """acceptance: fraction of proposals taken; autocorrelation: τ of the energy, in steps; longest_rejection: steps.

    states: (n,) the row of the draw that the chain is at after each step.
    """

    acceptance: float
    autocorrelation: float
    longest_rejection: int
    energy: Estimate
    observables: dict[str, Estimate]
    states: np.ndarray


def independence_chain(draw: Draw, seed: int = 0) -> IndependenceChain:
    """The chain over a draw, started at its first sample (Liu 1996, Statistics and Computing 6, 113)."""
    log_w = log_weights(draw)
    # A stream of its own: with the bare seed, a draw made by the same generator would meet its own random numbers.
    rng = np.random.default_rng([seed, 1996])
    log_u = np.log1p(-rng.random(len(log_w)))  # of numbers in (0, 1]
    states = np.zeros(len(log_w), int)
    current = accepted = rejected = longest = 0
    for k in range(1, len(log_w)):
        if log_u[k] <= log_w[k] - log_w[current]:
            current, accepted, rejected = k, accepted + 1, 0
        else:
            rejected += 1
            longest = max(longest, rejected)
        states[k] = current
    energy = np.asarray(draw.energy, np.float64)[states]
    return IndependenceChain(
        acceptance=accepted / max(len(log_w) - 1, 1),
        autocorrelation=autocorrelation_time(energy),
        longest_rejection=longest,
        energy=correlated_mean(energy, "metropolis"),
        observables={
            name: correlated_mean(np.asarray(values, np.float64)[states], "metropolis")
            for name, values in draw.observables.items()
        },
        states=states,
    )
