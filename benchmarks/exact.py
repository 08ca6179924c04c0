"""Time and memory of exact solutions: each case in a process of its own. `python benchmarks/exact.py [--write]`."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
MEASURED = """
observable m = mean(i in sites: s[i])
observable m2 = m^2
"""
SPINS = "field s : spin\ninteraction e = -sum(<i, j> in nn: {coupling}s[i] * s[j])\n"
CASES = {
    "SK, 20 spins": "lattice complete(20)\ndata J on nn ~ normal(0, 1) seed 0\n"
    + SPINS.format(coupling="J[i, j] / sqrt(20) * ")
    + "temperature 1\n"
    + MEASURED,
    "Edwards–Anderson 10×10, open": "lattice square(10, 10, boundary = open)\ndata J on nn ~ uniform(-1, 1) seed 1\n"
    + SPINS.format(coupling="J[i, j] * ")
    + "temperature 1\n"
    + MEASURED,
    "Potts q=3, 6×6 torus": "lattice square(6, 6)\nfield s : potts(3)\n"
    "interaction e = -sum(<i, j> in nn: delta(s[i], s[j]))\ntemperature 1 / log(1 + sqrt(3))\n"
    "observable first = mean(i in sites: delta(s[i], 0))\nobservable square = first^2\n",
    "Ising 8×8 torus": "lattice square(8, 8)\n"
    + SPINS.format(coupling="")
    + "temperature 2.269185314213022\n"
    + MEASURED,
    "triangular antiferromagnet 6×6": "lattice triangular(6, 6)\n"
    + SPINS.format(coupling="-1 * ")
    + "temperature 0.2\n"
    + MEASURED,
    "Ising 4×4×4 torus": "lattice cubic(4, 4, 4)\n" + SPINS.format(coupling="") + "temperature 4.5\n" + MEASURED,
    "Ising 256×256 torus (Kaufman)": "lattice square(256, 256)\n"
    + SPINS.format(coupling="")
    + "temperature 2.269185314213022\n",
    "Ising 64×64 torus in a field": "lattice square(64, 64)\n"
    + SPINS.format(coupling="")
    + "interaction h = -0.1 * sum(i in sites: s[i])\ntemperature 2\n",
    "Ising chain of 4096": "lattice chain(4096)\n" + SPINS.format(coupling="") + "temperature 1\n" + MEASURED,
}


def measure(name: str) -> dict[str, float | str]:
    """Seconds by phase and peak memory of one case, in this process."""
    from vdsl import exact
    from vdsl.compile import compile_source
    from vdsl.errors import Source
    from vdsl.ir.interpret import resolve_parameters

    program = compile_source(Source(name, CASES[name]), {}, HERE)[0]
    theta = resolve_parameters(program)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    cost = exact.cost(program, theta)
    planned = time.perf_counter()
    found = exact.solve(program, theta) if cost.feasible else None
    done = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "case": name,
        "ln_z": found.ln_z.value if found else "",
        "plan": planned - start,
        "estimate": cost.seconds_estimate,
        "solve": done - planned,
        "mebibytes": (peak - before) / 1024,
        "estimate_mebibytes": cost.bytes / 2**20,
    }


def table(rows: list[dict]) -> str:
    """The measurements as a Markdown table."""
    lines = [
        "| case | ln Z | plan (s) | solve (s) | estimated (s) | added memory (MiB) | estimated (MiB) |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        solved = r["ln_z"] != ""
        seconds = [f"{r[k]:.2f}" if solved else "too expensive" for k in ("solve", "estimate")]
        memory = [f"{r[k]:.0f}" if solved else "–" for k in ("mebibytes", "estimate_mebibytes")]
        ln_z = f"{r['ln_z']:.13}" if solved else "–"
        lines.append(f"| {r['case']} | {ln_z} | {r['plan']:.2f} | {' | '.join(seconds + memory)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs every case; with `--write`, also writes the table beside this file."""
    if len(sys.argv) > 2 and sys.argv[1] == "--case":
        print(json.dumps(measure(sys.argv[2])))
        return
    rows = []
    for name in CASES:
        out = subprocess.run([sys.executable, __file__, "--case", name], capture_output=True, text=True, check=True)
        rows.append(json.loads(out.stdout))
    text = table(rows)
    print(text)
    if "--write" in sys.argv:
        (HERE / "exact.md").write_text(INTRODUCTION + text + "\n", encoding="utf-8")


INTRODUCTION = """# Exact solutions: time and memory

`python benchmarks/exact.py --write`. Each case runs in a process of its own: ln Z, energy, heat capacity and the
observables of the model (⟨m⟩ and ⟨m²⟩ or their like) in one variable elimination. Memory is what the solution adds to
the peak of the process. Two shared CPU cores.

"""

if __name__ == "__main__":
    main()
