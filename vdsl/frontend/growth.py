"""Warns where the energy certainly does not hold a real field in some direction: then ln Z does not exist.

The energy as a polynomial in the real variables, everything else fixed, is looked at along rays t·u: uniform,
staggered, single-site and random u, and for a quadratic energy the softest one. A negative leading coefficient, or an
odd degree, lets the energy fall without end; an energy that stays the same under every shift t·u leaves the integral
infinite as well. Other energies are left alone: a warning is always right, and silence proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vdsl.frontend.findings import Findings
from vdsl.frontend.scope import Scope
from vdsl.ir.expand import expand_energy
from vdsl.ir.expansion import Block, Expansion, MonomialGroup
from vdsl.ir.interpret import visits
from vdsl.ir.program import Program

MOST_VARIABLES = 2048
MOST_VISITS = 300_000  # of nodes of the energy's expressions: what is tried then takes a fraction of a second
MOST_DENSE = 256  # variables of a matrix whose eigenvalues are worked out
_ROUNDING = 1e-9
_FAR = 1e3


def warn_unbound_directions(program: Program, theta: dict[str, float], scope: Scope, findings: Findings) -> None:
    """One warning at most, at the field that the direction moves most."""
    if sum(program.elements(f) for f in program.fields) > MOST_VARIABLES or visits(program) > MOST_VISITS:
        return
    expansion = expand_energy(program, theta)
    real = np.concatenate([np.full(b.elements * b.components, b.kind == "real") for b in expansion.blocks])
    if expansion.opaque or not real.any() or len(real) > MOST_VARIABLES:
        return
    if not all(np.isfinite(g.coefficients).all() for g in expansion.groups):
        return
    rng = np.random.default_rng(0)
    rest = _reference(expansion, rng)
    directions = list(_directions(expansion, program, real, rng))
    for u in directions:
        powers = _along(expansion, u, rest)
        degree = max(powers, default=0)
        if degree and (degree % 2 == 1 or powers[degree] < 0):
            fall = f"along some direction of configurations it falls like t^{degree}, so that ln Z is infinite"
            _warn(
                "the energy has no lower bound in", fall, "add a term that grows faster", u, expansion, scope, findings
            )
            return
    for u in directions:
        if _flat(expansion, u, rest, rng):
            same = "it stays the same under a shift along some direction of configurations, so that ln Z is infinite"
            hint = "add a mass term, or hold some of its values"
            _warn("the energy does not hold", same, hint, u, expansion, scope, findings)
            return


def _warn(
    message: str, note: str, hint: str, u: np.ndarray, expansion: Expansion, scope: Scope, findings: Findings
) -> None:
    moved = {b.field: float(np.abs(u[_variables(b)]).max()) for b in expansion.blocks if b.kind == "real"}
    field = max(moved, key=lambda name: moved[name])
    at = scope.values[field].name.span
    findings.warning("unbounded-energy", f"{message} `{field}`", at, notes=[note], hints=[hint])


def _variables(b: Block) -> slice:
    return slice(b.first, b.first + b.elements * b.components)


def _reference(expansion: Expansion, rng: np.random.Generator) -> np.ndarray:
    """Values of everything that is not real: state numbers, angles, spins, unit vectors; zero for what is real."""
    x = np.zeros(expansion.n)
    for b in expansion.blocks:
        n = b.elements * b.components
        match b.kind:
            case "spin":
                x[_variables(b)] = rng.choice([-1.0, 1.0], n)
            case "states":
                x[_variables(b)] = rng.integers(b.states, size=n)
            case "angle":
                x[_variables(b)] = rng.uniform(-np.pi, np.pi, n)
            case "unit":
                v = rng.standard_normal((b.elements, b.components))
                x[_variables(b)] = (v / np.linalg.norm(v, axis=1, keepdims=True)).reshape(-1)
    return x


def _directions(
    expansion: Expansion, program: Program, real: np.ndarray, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    lattice = program.lattice
    for b in expansion.blocks:
        if b.kind != "real":
            continue
        patterns = [np.ones(b.elements), np.eye(b.elements)[0]]
        if lattice is not None and not lattice.is_graph and program.field(b.field).on == "sites":
            cells = np.array(np.unravel_index(np.arange(lattice.n_cells), lattice.shape))
            for axes in (slice(0, 1), slice(0, None)):
                patterns.append(np.repeat((-1.0) ** cells[axes].sum(0), lattice.n_basis))
        for pattern in patterns:
            for component in range(b.components):
                u = np.zeros(expansion.n)
                u[b.first + component : b.first + b.elements * b.components : b.components] = pattern
                yield u
    for _ in range(4):
        yield np.where(real, rng.standard_normal(expansion.n), 0.0)
    soft = _softest(expansion, real)
    if soft is not None:
        yield soft


def _softest(expansion: Expansion, real: np.ndarray) -> np.ndarray | None:
    """The eigenvector of the lowest curvature of a quadratic energy of real variables only."""
    n = expansion.n
    if not real.all() or n > MOST_DENSE or any(sum(g.exponents) > 2 for g in expansion.groups):
        return None
    a = np.zeros((n, n))
    for g in expansion.groups:
        match g.exponents:
            case (2,):
                np.add.at(a, (g.scopes[:, 0], g.scopes[:, 0]), 2 * g.coefficients.real)
            case (1, 1):
                np.add.at(a, (g.scopes[:, 0], g.scopes[:, 1]), g.coefficients.real)
                np.add.at(a, (g.scopes[:, 1], g.scopes[:, 0]), g.coefficients.real)
    return np.linalg.eigh(a)[1][:, 0]


def _along(expansion: Expansion, u: np.ndarray, rest: np.ndarray) -> dict[int, float]:
    """The coefficients of E(t·u) by power of t that are not rounding, the constant left out."""
    total: dict[int, float] = {}
    scale: dict[int, float] = {}
    for g in expansion.groups:
        degree = sum(p for p, kind in zip(g.exponents, _kinds(expansion, g), strict=True) if kind == "real")
        values = (g.coefficients * _product(expansion, g, u, rest)).real
        total[degree] = total.get(degree, 0.0) + float(values.sum())
        scale[degree] = scale.get(degree, 0.0) + float(np.abs(values).sum())
    return {k: c for k, c in total.items() if k and abs(c) > _ROUNDING * scale[k]}


def _flat(expansion: Expansion, u: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether E(x + t·u) = E(x) from random x, to rounding, for steps small and large."""
    for _ in range(2):
        x = np.where(rest == 0, rng.standard_normal(expansion.n), 0.0)
        here, scale = _energy(expansion, x, rest)
        for t in (1.0, -_FAR, _FAR):
            there, far = _energy(expansion, x + t * u, rest)
            if abs(there - here) > _ROUNDING * scale + 1e-13 * far:
                return False
    return bool(np.any(u))


def _energy(expansion: Expansion, x: np.ndarray, rest: np.ndarray) -> tuple[float, float]:
    """The energy without its constant, and the sum of the sizes of its parts."""
    parts = [(g.coefficients * _product(expansion, g, x, rest)).real for g in expansion.groups]
    every = np.concatenate([*parts, np.zeros(1)])
    return float(every.sum()), float(np.abs(every).sum())


def _product(expansion: Expansion, g: MonomialGroup, x: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """The generators of every monomial of a group multiplied: real variables at x, the others at `rest`."""
    out = np.ones(len(g.scopes), complex)
    for slot, (p, kind) in enumerate(zip(g.exponents, _kinds(expansion, g), strict=True)):
        at = g.scopes[:, slot]
        match kind:
            case "real":
                out *= x[at] ** p
            case "angle":
                out *= np.exp(1j * p * rest[at])
            case "states":
                out *= rest[at] == p
            case _:
                out *= rest[at] ** p
    return out


def _kinds(expansion: Expansion, g: MonomialGroup) -> list[str]:
    """The kind of each slot, the same in every row."""
    if not len(g.scopes):
        return ["real"] * len(g.exponents)
    return [
        next(b.kind for b in expansion.blocks if b.first <= v < b.first + b.elements * b.components)
        for v in g.scopes[0]
    ]
