"""How the cost of a sample and of a training step grows with the number of sites: critical Ising squares.

    python benchmarks/scaling.py [--write]

A sample: drawing a configuration with its ln q. A step: a batch of latent samples, their exact block sums, a gradient.
The exact guide of small lattices is passed over, so that all rows are the same kind of guide.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from record import machine, table, write
from solve import ising

import vdsl
from vdsl.guides import registry
from vdsl.guides.problem import Problem
from vdsl.inference import train

SIZES = (8, 16, 24, 32, 48, 64)
BATCH = 256


def measure(size: int) -> tuple[int, int, int, float, float]:
    """(sites, learned, depth, seconds per sample, seconds per step and sample): medians of repeated timings."""
    program = vdsl.loads(ising(size)).program
    choice = registry.choose(Problem(program, {"T": 2.269185314213022}), "autoregressive")
    guide = registry.build(choice, Problem(program, {"T": 2.269185314213022}))
    plan = train.plan(guide, steps=10_000, batch=BATCH)
    state = train.initial_state(guide, plan)
    sample = jax.jit(lambda guide, params, key: guide.sample_and_log_prob(params, key, BATCH))
    step = jax.jit(lambda guide, state: train.one_step(guide, state, train.schedule(plan), BATCH))
    drawn = _median(lambda: sample(guide, state.params, state.key))
    stepped = _median(lambda: step(guide, state))
    return size * size, choice.description["learned"], choice.description["depth"], drawn / BATCH, stepped / BATCH


def _median(call: Callable[[], object], repeats: int = 7) -> float:
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    """All sizes, and the exponents of a straight line through the logarithms."""
    rows = [measure(size) for size in SIZES]
    n = np.log([r[0] for r in rows])
    slopes = [np.polyfit(n, np.log([r[k] for r in rows]), 1)[0] for k in (3, 4)]
    text = table(
        ["sites", "learned", "depth", "ms per sample", "ms per sample of a step", "µs per site of a step"],
        [[str(a), str(b), str(c), f"{1e3 * s:.3f}", f"{1e3 * t:.3f}", f"{1e6 * t / a:.2f}"] for a, b, c, s, t in rows],
    )
    text += f"\n\nCost ∝ sites^x: x = {slopes[0]:.2f} for a sample, {slopes[1]:.2f} for a step (batch {BATCH})."
    print(text)
    if "--write" in sys.argv:
        write("scaling.md", f"# Scaling\n\n`python benchmarks/scaling.py --write`. {machine()}\n\n{text}\n")


if __name__ == "__main__":
    main()
