"""Cost: what an exact answer would take in memory and time, before anything is allocated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.ir.factors import FactorGraph
from vdsl.ir.graph import Symbolic

MAX_BYTES = 4 * 2**30
MAX_SECONDS = 600.0
_WORKING_COPIES = 5  # weights, conditionals, probabilities and temporaries of the bucket at hand
_SECONDS_PER_ENTRY = 4e-8  # measured on one core of 2024's servers; good to a factor of two
_SECONDS_PER_VARIABLE = 1e-4


@dataclass(frozen=True)
class Cost:
    """An estimate: entries of all tables, peak bytes, seconds; `feasible` within the limits; `method` in words."""

    table_entries: float
    bytes: float
    seconds_estimate: float
    feasible: bool
    method: str

    def in_words(self) -> str:
        """Memory and time for people: `3.2 GiB of memory and 12 seconds`."""
        return f"{_bytes(self.bytes)} of memory and {_seconds(self.seconds_estimate)}"


def elimination_cost(
    graph: FactorGraph,
    symbolic: Symbolic,
    sources: int = 0,
    keep_tables: bool = False,
) -> Cost:
    """The cost of an elimination that carries `sources` means and covariances, and keeps all conditionals or not."""
    log2 = np.minimum(symbolic.log2_tables, 1000.0)
    entries = np.exp2(log2)
    messages = entries / graph.cardinalities
    live = kept = peak = 0.0
    pending = np.zeros(graph.n)  # entries of the messages that wait at each variable
    for v in symbolic.order.tolist():
        peak = max(peak, kept + live * (1 + sources) + entries[v] * (_WORKING_COPIES + 3 * sources))
        live -= pending[v]
        above = symbolic.parents[v]
        if len(above):
            pending[above[-1]] += messages[v]
            live += messages[v]
        kept += entries[v] if keep_tables else 0.0
    total = float(entries.sum())
    seconds = total * _SECONDS_PER_ENTRY * (1 + 0.6 * sources) + graph.n * (1 + sources) * _SECONDS_PER_VARIABLE
    size = 8 * float(max(peak, kept))
    if not symbolic.complete:
        return Cost(math.inf, math.inf, math.inf, False, "variable elimination")
    return Cost(total, size, seconds, bool(size <= MAX_BYTES and seconds <= MAX_SECONDS), "variable elimination")


def afford(cost: Cost) -> None:
    """Raises `too-expensive` (exit code 4) with the cost in words if it is not feasible."""
    if cost.feasible:
        return
    limits = f"the limits are {_bytes(MAX_BYTES)} and {_seconds(MAX_SECONDS)}"
    raise VfeError(
        Diagnostic(
            "too-expensive",
            f"an exact answer by {cost.method} would need {cost.in_words()}",
            notes=(f"{cost.table_entries:.2g} table entries; {limits}" if cost.bytes < math.inf else limits,),
            hints=("make the lattice smaller or open along one axis, or use `vdsl solve`",),
        ),
        exit_code=4,
    )


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    if size == math.inf:
        return "an astronomical amount"
    return f"{size:.3g} PiB" if size < 1e6 else f"{size * 2.0**50:.0e} B"


def _seconds(seconds: float) -> str:
    for name, length in (("years", 3.156e7), ("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.4e10 * 3.156e7:
            break
        if seconds >= 2 * length:
            return f"{seconds / length:.3g} {name}"
    return f"{seconds:.2g} seconds" if seconds < 1e9 else "longer than the age of the universe"
