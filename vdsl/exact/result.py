"""Solve exactly: a program at fixed parameters -> ln Z, thermodynamics, observables, and what it cost.

The method is the cheapest that applies. Discrete fields: variable elimination; Kaufman's formula where elimination is
out of reach; all configurations one by one for small models whose energy is not a sum of local terms. Continuous ones:
determinants for a quadratic energy, else elimination over the nodes of a quadrature. Observables that are polynomials
of degree two in sums of local terms come from the same elimination. Others are averaged over all configurations where
those are few, else over exact samples, and then carry an honest error and say so. A two-dimensional gauge field whose
action is a sum over plaquettes has its character sum.
"""

from __future__ import annotations

from dataclasses import replace

from vdsl.exact.answer import SAMPLES, Answer, ExactResult, ExactValue, averages_wanted, result_of
from vdsl.exact.averages import Targets, eliminate, enumerate_all, enumeration_cost
from vdsl.exact.closed_form import IsingTorus, in_range, kaufman, recognise
from vdsl.exact.cost import Cost, elimination_cost
from vdsl.exact.elimination import plan
from vdsl.exact.gauge import gauge_cost, gauge_theory, solve_gauge
from vdsl.exact.gaussian import gaussian_cost, solve_gaussian
from vdsl.exact.quadrature import quadrature_cost, solve_quadrature
from vdsl.ir.expand import expand_energy
from vdsl.ir.expansion import quadratic_form
from vdsl.ir.factors import FactorGraph, factorise
from vdsl.ir.interpret import temperature
from vdsl.ir.program import Program
from vdsl.ir.support import is_discrete


def cost(program: Program, theta: dict[str, float], graph: FactorGraph | None = None) -> Cost:
    """What `solve` would take; nothing large is allocated, and nothing is raised for what is not feasible."""
    if not all(is_discrete(f.support) for f in program.fields):
        theory = gauge_theory(program, theta)
        if theory is not None:
            return gauge_cost(theory)
        form = quadratic_form(expand_energy(program, theta))
        if form is not None:
            return gaussian_cost(program, form)
        return quadrature_cost(program, theta)
    graph = graph or factorise(program, theta)
    torus = _torus(graph, temperature(program, theta))
    measured = Targets(program, theta)
    if graph.opaque:
        return enumeration_cost(graph)
    if torus is not None and _beyond_elimination(torus, measured):
        return _formula_cost(graph)
    symbolic = plan(graph)
    pairs = {pair for p in measured.polynomials.values() for pair in measured.pairs_of(p)}
    sources = 2 + len(measured.sums) + len(pairs)
    found = elimination_cost(graph, symbolic, sources=sources)
    if not found.feasible:  # each observable in an elimination of its own
        alone = elimination_cost(graph, symbolic, sources=3)
        seconds = alone.seconds_estimate * max(len(measured.polynomials), 1)
        found = replace(alone, seconds_estimate=seconds)
    if torus is not None and not (found.feasible and measured.names):
        return _formula_cost(graph)
    if measured.others and found.feasible:  # sampling: every variable of every sample looks up a row
        extra = SAMPLES * graph.n * 2e-7
        return Cost(found.table_entries, found.bytes, found.seconds_estimate + extra, True, found.method)
    return found


def solve(program: Program, theta: dict[str, float], *, seed: int = 0, samples: int = SAMPLES) -> ExactResult:
    """The exact solution at parameters theta.

    Raises VfeError `not-discrete`, `not-local`, `too-expensive` (all exit code 4) and `not-a-number` (3).
    """
    t = temperature(program, theta)
    if not all(is_discrete(f.support) for f in program.fields):
        return result_of(program, theta, t, _continuous(program, theta, t, seed, samples))
    graph = factorise(program, theta)
    targets = Targets(program, theta)
    torus = _torus(graph, t)
    if graph.opaque and enumeration_cost(graph).feasible:
        answer = enumerate_all(program, targets, graph, t)
    elif torus is not None and _beyond_elimination(torus, targets):
        answer = _by_formula(torus, t, targets, graph)
    else:
        symbolic = plan(graph)
        if torus is not None and not elimination_cost(graph, symbolic, sources=2).feasible:
            answer = _by_formula(torus, t, targets, graph)
        else:
            answer = eliminate(targets, graph, t, symbolic, seed, samples)
    return result_of(program, theta, t, answer)


# --- methods ---------------------------------------------------------------------------------------------------------


def _beyond_elimination(torus: IsingTorus, targets: Targets) -> bool:
    """Whether planning an elimination is pointless: nothing but thermodynamics is asked, or the torus is too wide."""
    return not targets.names or min(torus.shape) > 20


def _by_formula(torus: IsingTorus, t: float, targets: Targets, graph: FactorGraph) -> Answer:
    """Without a field both states of a site are equally likely, which settles averages of single sites as well."""
    averages = {
        e: ExactValue(p.linear.constant + sum(float(g.tables.mean(1).sum()) for g in p.linear.groups))
        for e, p in targets.polynomials.items()
        if not p.products and all(g.tables.ndim == 2 for g in p.linear.groups)
    }
    missing = f"it needs variable elimination, with tables of about 2^{2 * min(torus.shape)} entries"
    method = "Kaufman's formula for the Ising torus"
    return Answer(kaufman(torus, t), averages, {}, method, _formula_cost(graph), missing)


def _formula_cost(graph: FactorGraph) -> Cost:
    return Cost(float(graph.n), 64.0 * graph.n, 1e-3, True, "Kaufman's formula")


def _continuous(program: Program, theta: dict[str, float], t: float, seed: int, samples: int) -> Answer:
    theory = gauge_theory(program, theta)
    if theory is not None:
        return solve_gauge(theory)
    form = quadratic_form(expand_energy(program, theta))
    if form is not None:
        return solve_gaussian(program, theta, form, t, averages_wanted(program), seed, samples)
    return solve_quadrature(program, theta, t, seed, samples)


def _torus(graph: FactorGraph, t: float) -> IsingTorus | None:
    torus = recognise(graph)
    return torus if torus is not None and in_range(torus, t) else None
