"""How good a free energy is after how long: the default guide on models of known difficulty.

    python benchmarks/solve.py [--write] [NAME …]

Each case is one `vdsl.solve` with its time limit, seed 0, checked against the exact ln Z where there is one. With
`--write` the table goes to solve.md beside this file, with machine and date.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from record import machine, table, write

import vdsl

EXAMPLES = Path(__file__).parent.parent / "examples"
TRIANGULAR = """
param L : int = 6
lattice triangular(L, L)
field s : spin
interaction e = sum(<i, j> in nn: s[i] * s[j])
temperature 0.2
"""
POTTS = """
param L : int = 6
lattice square(L, L)
field s : potts(3)
interaction e = -sum(<i, j> in nn: delta(s[i], s[j]))
temperature 1 / log(1 + sqrt(3))
"""
GLASS = """
param L : int = 16
lattice square(L, L, boundary = open)
field s : spin
data J on nn ~ uniform(-1, 1) seed 1
interaction e = -sum(<i, j> in nn: J[i, j] * s[i] * s[j])
temperature 0.5
"""
CLOCK_RING = """
lattice chain(100)
field s : clock(5)
interaction e = -sum(<i, j> in nn: cos(s[i] - s[j]))
temperature 0.7
"""


@dataclass(frozen=True)
class Case:
    """A model, its time limit in seconds, and ln Z where it is known independently."""

    source: str
    overrides: dict[str, float]
    limit: float
    ln_z: float | None = None


def ising(size: int) -> str:
    return f"""
lattice square({size}, {size})
field s : spin
param T = 2.269185314213022
interaction e = -sum(<i, j> in nn: s[i] * s[j])
temperature T
"""


SK = """
lattice complete(20)
field s : spin
data J on nn from "sk20.csv"
param T = 1.0
interaction e = -sum(<i, j> in nn: J[i, j] * s[i] * s[j])
temperature T
"""
EA = """
lattice square(10, 10, boundary = open)
field s : spin
data J on nn from "edwards_anderson_10x10.csv"
interaction e = -sum(<i, j> in nn: J[i, j] * s[i] * s[j])
temperature 1
"""
CASES: dict[str, Case] = {
    "Ising 16×16, T_c": Case(ising(16), {}, 120, 238.6422566351329),
    "Ising 8×8, T_c": Case(ising(8), {}, 60, 60.14178078906915),
    "Ising 32×32, T_c": Case(ising(32), {}, 300),
    "clock(5) ring of 100": Case(CLOCK_RING, {}, 60),
    "triangular antiferromagnet 6×6, T = .2": Case(TRIANGULAR, {}, 60),
    "triangular antiferromagnet 12×12, T = .2": Case(TRIANGULAR, {"L": 12}, 90),
    "SK N=20, β = 1": Case(SK, {}, 60, 20 * 0.94075453),
    "SK N=20, β = 5": Case(SK, {"T": 0.2}, 60, 20 * 3.45268323),
    "Potts q=3 6×6, K_c": Case(POTTS, {}, 60, 75.571951800165),
    "Potts q=3 12×12, K_c": Case(POTTS, {"L": 12}, 90),
    "Edwards–Anderson 10×10 open, β = 1": Case(EA, {}, 60, 100.245673),
    "spin glass 16×16 open, β = 2": Case(GLASS, {}, 90),
}


def measure(name: str) -> list[str]:
    """One row: guide, ESS, relative error of F_q, deviation of ln Z in σ, σ, seconds of training and in all."""
    case = CASES[name]
    began = time.perf_counter()
    model = vdsl.loads(case.source, base_dir=EXAMPLES, **case.overrides)
    run = vdsl.solve(model, seed=0, time_limit=case.limit, quiet=True)
    seconds = time.perf_counter() - began
    exact = case.ln_z or run.result.get("exact", {}).get("ln_z")
    bound = -run.free_energy.value / run.result["temperature"]
    sigma = run.ln_z.error
    quality = run.result["quality"]
    # reference values are given to eight digits per site: what is beyond them is not a deviation
    known = exact is not None and math.isfinite(exact)
    rounding = 5e-9 * model.program.lattice.n_sites
    deviation = max(0.0, abs(run.ln_z.value - exact) - rounding) / sigma if known else math.nan
    return [
        name,
        f"{run.choice.name}, {run.choice.description.get('learned', 0)} learned",
        f"{quality['ess']:.4f}",
        f"{abs(bound - exact) / exact:.1e}" if known else "–",
        f"{deviation:.1f}" if known else "–",
        f"{sigma:.1e}",
        f"{run.result['train']['steps']}",
        f"{run.result['train']['seconds']:.0f}",
        f"{seconds:.0f}",
        "; ".join(w.split(":")[0] for w in quality["warnings"]) or "none",
    ]


HEADER = [
    "model",
    "guide",
    "ESS",
    "rel. error of F_q",
    "ln Z off by, σ",
    "σ of ln Z",
    "steps",
    "training, s",
    "all, s",
    "warnings",
]


def main() -> None:
    """Runs the named cases, or all."""
    names = [a for a in sys.argv[1:] if not a.startswith("--")] or list(CASES)
    rows = []
    for name in names:
        rows.append(measure(name))
        print("  ".join(rows[-1]), flush=True)
    text = table(HEADER, rows)
    print(text)
    if "--write" in sys.argv:
        write("solve.md", f"# Solving\n\n`python benchmarks/solve.py --write`. {machine()}\n\n{text}\n")


if __name__ == "__main__":
    main()
