"""ESS against training time for every guide of a real field, and the cost of a sample against the volume: φ⁴.

    python benchmarks/flows.py [--write] [--sizes 8,16,32] [--guides coupling,multiscale] [SECONDS]

m² = −4 on the line where the correlation length is about a quarter of the side: λ = 6.008, 4.96, 4.572 for L = 8, 16,
32 (published for 8 and 32, between the published neighbours for 16). One run for each guide and size, seed 0, SECONDS
(default 60) of training at L = 8, twice and three times as many at 16 and 32. On the way the ESS is that of batches,
averaged over the tenth of the run that ends there; at the end it is of 16,384 fresh samples.
"""

from __future__ import annotations

import statistics
import sys
import time

import jax
import numpy as np
from continuous import PHI4
from record import machine, table, write

import vdsl
from vdsl.errors import VfeError
from vdsl.guides import registry
from vdsl.guides.problem import Problem

SIZES = {8: 6.008, 16: 4.96, 32: 4.572}
GUIDES = ("gaussian", "coupling", "continuous", "multiscale", "autoregressive")
BATCH = 256


def training(guide: str, size: int, seconds: float) -> list[str]:
    """One row: ESS after an eighth, a quarter and a half of the time, at the end, and how it got there."""
    model = vdsl.loads(PHI4, L=size, lam=SIZES[size])
    run = vdsl.solve(model, seed=0, time_limit=seconds + 30, guide=guide, quiet=True)
    chunks = len(run.history["ess"])

    def so_far(share: float) -> str:
        end = max(1, round(share * chunks))
        window = run.history["ess"][max(0, end - max(1, chunks // 10)) : end]
        return f"{np.mean(window):.3f}" if len(window) else "–"

    return [
        guide,
        str(size),
        *(so_far(share) for share in (1 / 8, 1 / 4, 1 / 2)),
        f"{run.quality['ess']:.4f}",
        f"{run.quality['variance']:.3f}",
        f"{run.result['guide']['parameters']:,}",
        str(run.result["train"]["steps"]),
        f"{run.result['train']['seconds']:.0f}",
    ]


def sampling(guide: str, size: int) -> float:
    """Median milliseconds for a sample with its ln q, in batches."""
    program = vdsl.loads(PHI4, L=size, lam=4.5).program
    problem = Problem(program, {"m2": -4.0, "lam": 4.5})
    made = registry.build(registry.choose(problem, guide), problem)
    params = made.init(jax.random.key(0))
    draw = jax.jit(lambda p, k: made.sample_and_log_prob(p, k, BATCH))
    jax.block_until_ready(draw(params, jax.random.key(0)))
    times = []
    for k in range(5):
        began = time.perf_counter()
        jax.block_until_ready(draw(params, jax.random.key(k)))
        times.append((time.perf_counter() - began) / BATCH * 1e3)
    return statistics.median(times)


def main() -> None:
    """Both tables."""
    arguments, chosen = sys.argv[1:], {"--sizes": ",".join(map(str, SIZES)), "--guides": ",".join(GUIDES)}
    for name in chosen:
        if name in arguments:
            at = arguments.index(name)
            chosen[name] = arguments[at + 1]
            del arguments[at : at + 2]
    sizes, guides = [int(size) for size in chosen["--sizes"].split(",")], chosen["--guides"].split(",")
    seconds = float(next((a for a in arguments if not a.startswith("--")), 60))
    rows, costs = [], []
    for factor, size in enumerate(SIZES, start=1):
        if size not in sizes:
            continue
        for guide in guides:
            rows.append(training(guide, size, factor * seconds))
            print("  ".join(rows[-1]), flush=True)
    for guide in guides:
        row = [guide]
        for size in (8, 16, 32, 64):
            try:
                row.append(f"{sampling(guide, size):.3g}")
            except VfeError as refused:
                row.append(f"refused: {refused.diagnostics[0].code}")
        costs.append(row)
        print("  ".join(row), flush=True)
    header = ["guide", "L", "ESS at 1/8", "1/4", "1/2", "at the end", "Var ln w", "parameters", "steps", "training, s"]
    first = table(header, rows)
    second = table(["guide", "L = 8", "16", "32", "64"], costs)
    if "--write" in sys.argv:
        asked = " ".join(f"{name} {value}" for name, value in chosen.items())
        title = f"# Flows\n\n`python benchmarks/flows.py --write {asked} {seconds:g}`. {machine()}"
        between = f"Milliseconds for a sample with its ln q, batches of {BATCH}:"
        write("flows.md", f"{title}\n\n{first}\n\n{between}\n\n{second}\n")


if __name__ == "__main__":
    main()
