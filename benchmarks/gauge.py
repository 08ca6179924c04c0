"""Lattice gauge fields: the ESS of every guide against β and volume, beside what needs no training at all.

    python benchmarks/gauge.py [--write] [--only WORD] [--limit SECONDS]

One `vdsl.solve` for each row, seed 0, 16,384 fresh samples. `blind` is the ESS of V − 1 independent plaquettes with the
last forced: I₀(β)²/I₀(2β) for U(1), c₁(β)²/∫w² in general, at any volume. Deviations are from character sums where the
action is a sum over plaquettes in two dimensions, else from `vdsl sample --method heatbath` (4,096 samples).
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from record import machine, table, write
from scipy.special import ive

import vdsl

U1 = """
param L : int = 8
param beta = 2.0
lattice hypercubic({sides})
field U : angle on links
interaction wilson = -beta * sum(p in plaquettes: cos(circulation(U, p)))
temperature 1
observable plaq = mean(p in plaquettes: cos(circulation(U, p)))
"""
MATRICES = """
param L : int = 8
param beta = 2.2
lattice hypercubic({sides})
field U : SU({n}) on links
interaction wilson = -beta / {n} * sum(p in plaquettes: re(tr(loop(U, p))))
temperature 1
observable plaq = mean(p in plaquettes: re(tr(loop(U, p)))) / {n}
"""


@dataclass(frozen=True)
class Case:
    """A group, its lattice and coupling; the guide, None for the default; the time limit in seconds."""

    group: str
    dimensions: int
    side: int
    beta: float
    limit: float
    guide: str | None = None

    def source(self) -> str:
        """The model."""
        sides = ", ".join(["L"] * self.dimensions)
        return U1.format(sides=sides) if self.group == "U(1)" else MATRICES.format(sides=sides, n=self.group[3])

    def blind(self) -> str:
        """The ESS of independent plaquettes; in two dimensions, where one formula says it."""
        if self.dimensions != 2 or self.group == "SU(3)":
            return "–"
        if self.group == "U(1)":
            return f"{ive(0, self.beta) ** 2 / ive(0, 2 * self.beta):.3f}"
        one, two = (2 * ive(1, b) / b for b in (self.beta, 2 * self.beta))
        return f"{one**2 / two:.3f}"


CASES = [
    *(Case("U(1)", 2, 8, beta, 120) for beta in (1, 2, 4, 7)),
    *(Case("U(1)", 2, 16, beta, 300) for beta in (1, 2, 3, 4, 5, 6, 7)),
    Case("U(1)", 2, 64, 7, 600),
    Case("SU(2)", 2, 8, 2.2, 600),
    Case("SU(3)", 2, 4, 5, 900),
    Case("U(1)", 2, 8, 2, 150, "gauge_continuous"),
    Case("U(1)", 2, 8, 2, 150, "gauge_coupling"),
    Case("SU(2)", 2, 8, 2.2, 150, "gauge_continuous"),
    Case("U(1)", 4, 4, 0.5, 600),
    Case("SU(2)", 4, 4, 1.0, 600),
]


def measure(case: Case, limit: float | None) -> list[str]:
    """One row."""
    began = time.perf_counter()
    model = vdsl.loads(case.source(), L=case.side, beta=case.beta)
    run = vdsl.solve(model, seed=0, time_limit=limit or case.limit, guide=case.guide, quiet=True)
    seconds = time.perf_counter() - began
    exact = run.result.get("exact", {})
    known = {
        "ln Z": (run.ln_z, exact.get("ln_z")),
        "plaq": (run.observables["plaq"], exact.get("observables", {}).get("plaq")),
    }
    deviations = [
        f"{name} {(found.value - value) / max(found.error, 1e-12):+.1f}σ"
        for name, (found, value) in known.items()
        if value is not None
    ]
    if "exact" not in run.result:
        plaq, error = heat_bath(case)
        difference = run.observables["plaq"].value - plaq
        deviations.append(f"plaq {difference / math.hypot(run.observables['plaq'].error, error):+.1f}σ of heat bath")
    if run.topology is not None:
        q2 = run.topology["charge_squared"]
        deviations.append(
            f"⟨Q²⟩ {q2['value']:.4f} ± {q2['error']:.4f}, exact {run.topology.get('exact', math.nan):.4f}"
        )
    quality = run.result["quality"]
    return [
        f"{case.group} {'×'.join([str(case.side)] * case.dimensions)}",
        f"{case.beta:g}",
        run.choice.name,
        f"{quality['ess']:.4f}",
        case.blind(),
        f"{run.ln_z}",
        f"{run.observables['plaq']}",
        ", ".join(deviations),
        str(run.result["train"]["steps"]),
        f"{run.result['train']['seconds']:.0f}",
        f"{seconds:.0f}",
        "; ".join(w.split(":")[0] for w in quality["warnings"]) or "none",
    ]


def heat_bath(case: Case) -> tuple[float, float]:
    """The mean plaquette by local updates, with its error."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.vfe"
        path.write_text(case.source(), encoding="utf-8")
        asked = ["--set", f"L={case.side}", "--set", f"beta={case.beta}", "--samples", "4096", "--seed", "1"]
        command = [
            sys.executable,
            "-m",
            "vdsl",
            "sample",
            str(path),
            *asked,
            "--method",
            "heatbath",
            "--json",
            "--quiet",
        ]
        plaq = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["observables"]["plaq"]
    return plaq["value"], plaq["error"]


HEADER = [
    "model",
    "β",
    "guide",
    "ESS",
    "blind",
    "ln Z",
    "plaquette",
    "off by",
    "steps",
    "training, s",
    "all, s",
    "warnings",
]


def main() -> None:
    """The table."""
    arguments = sys.argv[1:]
    only = arguments[arguments.index("--only") + 1] if "--only" in arguments else ""
    limit = float(arguments[arguments.index("--limit") + 1]) if "--limit" in arguments else None
    rows = []
    for case in CASES:
        if only in f"{case.group} {case.dimensions}D {case.guide or 'default'}":
            rows.append(measure(case, limit))
            print("  ".join(rows[-1]), flush=True)
    text = table(HEADER, rows)
    if "--write" in arguments:
        asked = " ".join(a for a in arguments if a != "--write")
        title = f"# Gauge fields\n\n`python benchmarks/gauge.py --write {asked}`. {machine()}".replace(" `.", "`.")
        write("gauge.md", f"{title}\n\n{text}\n")
    else:
        print(text)


if __name__ == "__main__":
    main()
