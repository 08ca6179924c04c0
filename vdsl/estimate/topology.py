"""Topological sectors of U(1) fields on a two-dimensional torus: ⟨Q²⟩, how fast Q moves, and sectors that are missing.

    Q = Σ_p arg P / 2π, an integer on a torus

⟨Q²⟩ is the guide's importance average. Q of the independence-Metropolis chain over the same samples and Q of the
Hamiltonian chains of the mode check say how many steps of each a new sector takes. The Hamiltonian chains start from
annealed populations, which fall into sectors as these weigh: the two sets of sectors should be one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from vdsl.errors import Diagnostic
from vdsl.estimate.importance import Draw, log_weights
from vdsl.estimate.stats import Estimate, autocorrelation_time, jackknife, replicates
from vdsl.ir.gauge import gauge_group_of, plaquette_links
from vdsl.ir.lattice import PERIODIC
from vdsl.ir.program import Field, Program

SIGMAS = 4.0
_CHANCE = 1e-4  # of a false alarm about a sector that chains do not visit
_SPREAD = 0.1  # the weight of other sectors from which a chain that never leaves its own is worth a warning


@dataclass(frozen=True)
class Topology:
    """Q of one field. sectors and chain_sectors: {Q: weight} of the guide and of the chains.

    independence, chain: autocorrelation times of Q in steps of the independence chain and in trajectories;
    chain_changes: the fraction of kept samples whose Q differs from the one before. The chain's numbers are None
    without chains.
    """

    field: str
    charge: Estimate
    charge_squared: Estimate
    independence: float
    chain: float | None
    chain_changes: float | None
    sectors: dict[int, float]
    chain_sectors: dict[int, float]
    warnings: tuple[Diagnostic, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What `result.json` holds of it."""
        return {
            "field": self.field,
            "charge": self.charge.to_json(),
            "charge_squared": self.charge_squared.to_json(),
            "autocorrelation": {"independence": self.independence, "hmc": self.chain},
            "hmc_changes": self.chain_changes,
            "sectors": {str(q): w for q, w in self.sectors.items()},
            "hmc_sectors": {str(q): w for q, w in self.chain_sectors.items()},
        }


def charged_field(program: Program) -> Field | None:
    """The first U(1) or angle field on the links of a two-dimensional torus, which has sectors; None without one."""
    lattice = program.lattice
    if lattice is None or lattice.is_graph or lattice.n_axes != 2 or lattice.n_basis != 1:
        return None
    if any(b != PERIODIC for b in lattice.boundary):
        return None
    return next((f for f in program.fields if gauge_group_of(f) == "U1"), None)


def charges(program: Program, field: Field, values: np.ndarray) -> np.ndarray:
    """Q of stored configurations (…, links) of a field, (…,): integers."""
    if program.lattice is None:
        raise ValueError("a program without a lattice has no charges")
    links, orientation = plaquette_links(program.lattice)
    angles = np.angle(values) if np.iscomplexobj(values) else np.asarray(values, np.float64)
    flux = (angles[..., links] * orientation).sum(-1)
    wrapped = np.pi - np.mod(np.pi - flux, 2 * np.pi)
    return np.rint(wrapped.sum(-1) / (2 * np.pi)).astype(int)


def topology(
    program: Program, draw: Draw, states: np.ndarray, chains: np.ndarray | None, populations: int, every: int
) -> Topology | None:
    """The topology of a draw; None for models without sectors.

    states (n,): the rows of the draw that the independence chain visits. chains: (chains, kept, links) of the field
    from Hamiltonian chains, one sample after every `every` trajectories, chains of one population next to each other.
    """
    field = charged_field(program)
    if field is None:
        return None
    own = charges(program, field, draw.x[field.name])
    log_w = log_weights(draw)
    averages = replicates(np.stack([own, own**2], 1).astype(float), log_w)
    charge, squared = (jackknife(partial(_column, k), averages) for k in (0, 1))
    sectors = _weights(own, np.exp(log_w - log_w.max()))
    independence = autocorrelation_time(own[states].astype(float))
    if chains is None:
        return Topology(field.name, charge, squared, independence, None, None, sectors, {})
    visited = charges(program, field, chains)
    changes = float((visited[:, 1:] != visited[:, :-1]).mean()) if visited.shape[1] > 1 else 0.0
    tau = autocorrelation_time(visited.astype(float)) * every
    found = _weights(visited.ravel(), np.ones(visited.size))
    # Chains that never move are worth their starts, whatever their autocorrelation seems to be.
    independent = max(populations, visited.size / tau * every if changes > 0 else 0.0)
    warnings = (*_missing(own, sectors, visited.reshape(populations, -1), independent), *_frozen(sectors, visited))
    return Topology(field.name, charge, squared, independence, tau, changes, sectors, found, warnings)


def _column(k: int, means: np.ndarray, _: float) -> float:
    return float(means[k])


def _weights(q: np.ndarray, w: np.ndarray) -> dict[int, float]:
    return {int(sector): float(w[q == sector].sum() / w.sum()) for sector in np.unique(q)}


def _missing(own: np.ndarray, sectors: dict[int, float], visited: np.ndarray, independent: float) -> list[Diagnostic]:
    """Sectors that populations (populations, samples) visit and the guide hardly has, and the other way round."""
    out = []
    lacking = []
    for sector in np.unique(visited):
        share = (visited == sector).mean(1)
        if (share > 0).sum() < 3:
            continue
        p, error = float(share.mean()), float(share.std(ddof=1) / math.sqrt(len(share)))
        q = sectors.get(int(sector), 0.0)
        drawn = float((own == sector).mean())
        if p - SIGMAS * error > 3 * q and p / 3 > drawn:
            lacking.append((int(sector), p, q))
    if lacking:
        out.append(_lack("the guide", "Hamiltonian chains", lacking))
    absent = [
        (sector, weight, 0.0)
        for sector, weight in sectors.items()
        if not (visited == sector).any() and (own == sector).sum() >= 10 and independent * weight > -math.log(_CHANCE)
    ]
    if absent:
        out.append(_lack("the Hamiltonian chains", "the guide", absent))
    return out


def _lack(what: str, other: str, rows: list[tuple[int, float, float]]) -> Diagnostic:
    sectors = ", ".join(f"Q = {q}" for q, _, _ in rows[:5])
    weights = "; ".join(f"Q = {q}: weight {p:.3g} in {other}, {w:.2g} in {what}" for q, p, w in rows[:5])
    return Diagnostic(
        "sectors-missing",
        f"topological sectors are missing in {what}: {sectors}",
        notes=(weights,),
        hints=("`--guide tree` draws the flux of every plaquette, sectors included",) if what == "the guide" else (),
        severity="warning",
    )


def _frozen(sectors: dict[int, float], visited: np.ndarray) -> list[Diagnostic]:
    others = 1 - max(sectors.values())
    if others < _SPREAD or visited.shape[1] < 8 or (visited[:, 1:] != visited[:, :-1]).any():
        return []
    return [
        Diagnostic(
            "topology-frozen",
            f"Q never changes along the {len(visited)} Hamiltonian chains of the mode check",
            notes=(
                f"{100 * others:.0f} % of the weight lies outside one sector",
                "the chains keep the sectors they start in: how these weigh rests on the annealing before",
            ),
            hints=("averages of the guide do not rest on those chains; `vdsl sample --method hmc` would be stuck",),
            severity="warning",
        )
    ]
