"""How good a free energy of a continuous field is after how long: the default guide (or --guide NAME) on known models.

    python benchmarks/continuous.py [--write] [--guide NAME] [--limit SECONDS] [NAME …]

Each case is one `vdsl.solve`, seed 0, within its time, checked against the exact ln Z and averages where they are known
independently (transfer matrices, Fourier modes, characters), elsewhere against Markov chains (`vdsl sample`). With
`--write` the table goes to continuous.md beside this file, with machine and date.
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field

from record import machine, table, write

import vdsl

PHI4 = """
param L : int = 8
param m2 = -4.0
param lam = 8.0
lattice hypercubic(L, L)
field phi : real
interaction kinetic = sum(x in sites, mu in axes: phi[x] * (2 * phi[x] - phi[x + mu] - phi[x - mu]))
interaction potential = sum(x in sites: m2 * phi[x]^2 + lam * phi[x]^4)
temperature 1
observable phi2 = mean(x in sites: phi[x]^2)
derived chi = size(sites) * (expect(mean(x in sites: phi[x])^2))
"""
XY = """
param L : int = 16
param T = 1.0
lattice square(L, L)
field theta : angle
interaction xy = -sum(<i, j> in nn: cos(theta[i] - theta[j]))
temperature T
derived Y = helicity(theta)
"""
HEISENBERG = """
param N : int = 32
param K = 1.5
lattice chain(N, boundary = open)
field S : sphere(3)
interaction e = -K * sum(<i, j> in nn: dot(S[i], S[j]))
temperature 1
"""
DOUBLE_WELL = """
param N : int = 32
lattice chain(N)
field phi : real
interaction e = sum(<i, j> in nn: (phi[i] - phi[j])^2) + sum(i in sites: -2 * phi[i]^2 + phi[i]^4)
temperature 0.5
observable positive = mean(i in sites: if phi[i] > 0 then 1.0 else 0.0)
"""


@dataclass(frozen=True)
class Case:
    """A model, its time limit in seconds, and what is known independently, by the name in the result."""

    source: str
    overrides: dict[str, float]
    limit: float
    known: dict[str, float] = field(default_factory=dict)


LOG_2PI = math.log(2 * math.pi)
CASES: dict[str, Case] = {
    "free field, L = 32": Case(PHI4, {"L": 32, "m2": 1.0, "lam": 0.0}, 60),
    "φ⁴ L = 8, λ = 8": Case(PHI4, {}, 180, {"ln_z": 9.29136, "chi": 0.74413, "phi2": 0.143450}),
    "φ⁴ E1: L = 6, λ = 6.975": Case(PHI4, {"L": 6, "lam": 6.975}, 240),
    "φ⁴ E2: L = 8, λ = 6.008": Case(PHI4, {"L": 8, "lam": 6.008}, 240),
    "φ⁴ E5: L = 14, λ = 5.113": Case(PHI4, {"L": 14, "lam": 5.113}, 900),
    "φ⁴ L = 32, λ = 4.572": Case(PHI4, {"L": 32, "lam": 4.572}, 3600),
    "XY 3×3, K = .5": Case(XY, {"L": 3, "T": 2.0}, 120, {"ln_z": 1.4133763935 + 9 * LOG_2PI}),
    "XY 3×3, K = 1": Case(XY, {"L": 3, "T": 1.0}, 120, {"ln_z": 6.5655204101 + 9 * LOG_2PI}),
    "XY 4×4, K = .5": Case(XY, {"L": 4, "T": 2.0}, 120, {"ln_z": 2.197240206 + 16 * LOG_2PI}),
    "XY 4×4, K = 1": Case(XY, {"L": 4, "T": 1.0}, 120),
    "XY 16×16, T = .9": Case(XY, {"L": 16, "T": 0.9}, 600),
    "XY 16×16, T = 1.2": Case(XY, {"L": 16, "T": 1.2}, 600),
    "Heisenberg chain of 32": Case(
        HEISENBERG, {}, 120, {"ln_z": 32 * math.log(4 * math.pi) + 31 * math.log(math.sinh(1.5) / 1.5)}
    ),
    "double-well ring of 32": Case(DOUBLE_WELL, {}, 120, {"positive": 0.5}),
}


def measure(name: str, guide: str | None, limit: float | None) -> list[str]:
    """One row: guide, ESS, deviations from what is known, seconds of training and in all."""
    case = CASES[name]
    began = time.perf_counter()
    model = vdsl.loads(case.source, **case.overrides)
    run = vdsl.solve(model, seed=0, time_limit=limit or case.limit, guide=guide, quiet=True)
    seconds = time.perf_counter() - began
    known = {"ln_z": run.result["exact"]["ln_z"]} if "exact" in run.result else {}
    known |= case.known
    found = {"ln_z": run.ln_z, **run.observables, **run.derived}
    deviations = [f"{k} {(found[k].value - v) / max(found[k].error, 1e-12):+.1f}σ" for k, v in known.items()]
    quality = run.result["quality"]
    averages = {k: v for k, v in found.items() if k not in known}
    return [
        name,
        run.choice.name,
        f"{quality['ess']:.4f}",
        f"{run.free_energy}",
        f"{run.ln_z}",
        ", ".join(deviations) or "–",
        "; ".join(f"{k} = {v}" for k, v in averages.items()),
        f"{run.result['train']['steps']}",
        f"{run.result['train']['seconds']:.0f}",
        f"{seconds:.0f}",
        "; ".join(w.split(":")[0] for w in quality["warnings"]) or "none",
    ]


HEADER = [
    "model", "guide", "ESS", "F_q", "ln Z", "off by", "averages", "steps", "training, s", "all, s", "warnings",
]  # fmt: skip


def main() -> None:
    """Runs the named cases, or all."""
    arguments = sys.argv[1:]
    options = {"--guide": None, "--limit": None}
    for flag in options:
        if flag in arguments:
            at = arguments.index(flag)
            options[flag] = arguments[at + 1]
            del arguments[at : at + 2]
    names = [a for a in arguments if not a.startswith("--")] or list(CASES)
    limit = None if options["--limit"] is None else float(options["--limit"])
    rows = []
    for name in names:
        rows.append(measure(name, options["--guide"], limit))
        print("  ".join(rows[-1]), flush=True)
    text = table(HEADER, rows)
    print(text)
    if "--write" in sys.argv:
        write(
            "continuous.md",
            f"# Continuous fields\n\n`python benchmarks/continuous.py --write`. {machine()}\n\n{text}\n",
        )


if __name__ == "__main__":
    main()
