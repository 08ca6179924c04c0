"""Solve exactly: a program at fixed parameters -> ln Z, thermodynamics, observables, and what it cost.

The method is the cheapest that applies: variable elimination; Kaufman's formula where elimination is out of reach; all
configurations one by one for small models whose energy is not a sum of local terms. Observables that are polynomials of
degree two in sums of local terms come from the same elimination. Others are averaged over all configurations where
those are few, else over exact samples, and then carry an honest error and say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.exact.answer import BLOCKS, SAMPLED, Answer, ExactResult, ExactValue, averages_wanted, result_of
from vdsl.exact.batch import CHUNK, BatchEvaluator, every_configuration
from vdsl.exact.closed_form import IsingTorus, Thermodynamics, in_range, kaufman, recognise
from vdsl.exact.cost import Cost, afford, elimination_cost
from vdsl.exact.elimination import Moments, conditional_tables, draw, moments, plan
from vdsl.exact.gaussian import gaussian_cost, solve_gaussian
from vdsl.ir.expand import expand_energy
from vdsl.ir.expansion import quadratic_form
from vdsl.ir.expr import Expr
from vdsl.ir.factors import FactorGraph, LocalSum, Polynomial, factorise, polynomial_of
from vdsl.ir.graph import Symbolic
from vdsl.ir.interpret import temperature
from vdsl.ir.program import Program
from vdsl.ir.support import is_discrete
from vdsl.ir.tables import Context, NotLocal

SAMPLES = 65536
MAX_ENUMERATED = 2**20


def cost(program: Program, theta: dict[str, float], graph: FactorGraph | None = None) -> Cost:
    """What `solve` would take; nothing large is allocated, and nothing is raised for what is not feasible."""
    if not all(is_discrete(f.support) for f in program.fields):
        form = quadratic_form(expand_energy(program, theta))
        if form is not None:
            return gaussian_cost(program, form)
        return Cost(math.inf, math.inf, math.inf, False, "no exact method for continuous fields")
    graph = graph or factorise(program, theta)
    torus = _torus(graph, temperature(program, theta))
    measured = _Targets(program, theta)
    if graph.opaque:
        return _enumeration_cost(graph)
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
    targets = _Targets(program, theta)
    torus = _torus(graph, t)
    if graph.opaque and _enumeration_cost(graph).feasible:
        answer = _enumerate(program, targets, graph, t)
    elif torus is not None and _beyond_elimination(torus, targets):
        answer = _by_formula(torus, t, targets, graph)
    else:
        symbolic = plan(graph)
        if torus is not None and not elimination_cost(graph, symbolic, sources=2).feasible:
            answer = _by_formula(torus, t, targets, graph)
        else:
            answer = _eliminate(targets, graph, t, symbolic, seed, samples)
    return result_of(program, theta, t, answer)


# --- what is asked for -----------------------------------------------------------------------------------------------


class _Targets:
    """Every average that observables and derived quantities need, and which of them are polynomials of local sums."""

    def __init__(self, program: Program, theta: dict[str, float]):
        self.program, self.theta = program, theta
        self.context = Context(program, theta)
        self.evaluator = BatchEvaluator(self.context)
        self.names = [o.name for o in program.observables] + [d.name for d in program.derived]
        self.exprs = averages_wanted(program)
        self.polynomials: dict[Expr, Polynomial] = {}
        for expr in self.exprs:
            polynomial = polynomial_of(self.context, self.context.inline(expr))
            if polynomial is not None:
                self.polynomials[expr] = polynomial
        self.others = [e for e in self.exprs if e not in self.polynomials]
        self.sums: list[LocalSum] = []  # distinct, without their constants
        self._number: dict[tuple, int] = {}
        for p in self.polynomials.values():
            self.sums_of(p)

    def index(self, a: LocalSum) -> int:
        """The number of a local sum; equal sums share one."""
        key = tuple((g.scopes.tobytes(), g.tables.tobytes(), g.tables.shape) for g in a.groups)
        if key not in self._number:
            self._number[key] = len(self.sums)
            self.sums.append(LocalSum(0.0, a.groups))
        return self._number[key]

    def sums_of(self, p: Polynomial) -> list[int]:
        """The numbers of the sums in a polynomial that are not constant."""
        every = (p.linear, *(s for _, a, b in p.products for s in (a, b)))
        return [self.index(a) for a in every if a.groups]

    def pairs_of(self, p: Polynomial) -> list[tuple[int, int]]:
        """The pairs of sums whose covariance a polynomial needs, in increasing order."""
        varying = ((self.index(a), self.index(b)) for _, a, b in p.products if a.groups and b.groups)
        return [(min(i, j), max(i, j)) for i, j in varying]

    def average(self, p: Polynomial, mean: Callable[[int], float], covariance: Callable[[int, int], float]) -> float:
        """⟨p⟩ from means and covariances of the numbered sums."""

        def of(a: LocalSum) -> float:
            return a.constant + (mean(self.index(a)) if a.groups else 0.0)

        total = of(p.linear)
        for c, a, b in p.products:
            total += c * of(a) * of(b)
            if a.groups and b.groups:
                total += c * covariance(*sorted((self.index(a), self.index(b))))
        return total


def _continuous(program: Program, theta: dict[str, float], t: float, seed: int, samples: int) -> Answer:
    form = quadratic_form(expand_energy(program, theta))
    if form is not None:
        return solve_gaussian(program, theta, form, t, averages_wanted(program), seed, samples)
    names = ", ".join(f"`{f.name}`" for f in program.fields if not is_discrete(f.support))
    raise VfeError(
        Diagnostic(
            "not-discrete",
            f"no exact method for the continuous field {names}",
            hints=("use `vdsl solve`, or `vdsl sample` for an independent Markov chain",),
        ),
        exit_code=4,
    )


def _torus(graph: FactorGraph, t: float) -> IsingTorus | None:
    torus = recognise(graph)
    return torus if torus is not None and in_range(torus, t) else None


# --- methods ---------------------------------------------------------------------------------------------------------


def _beyond_elimination(torus: IsingTorus, targets: _Targets) -> bool:
    """Whether planning an elimination is pointless: nothing but thermodynamics is asked, or the torus is too wide."""
    return not targets.names or min(torus.shape) > 20


def _by_formula(torus: IsingTorus, t: float, targets: _Targets, graph: FactorGraph) -> Answer:
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


def _eliminate(targets: _Targets, graph: FactorGraph, t: float, symbolic: Symbolic, seed: int, samples: int) -> Answer:
    """Moments from one elimination, or one for each polynomial where all together take too much memory; what is no
    polynomial, or would widen the elimination too much, from samples."""
    base = elimination_cost(graph, symbolic, sources=2)
    afford(base)
    found, averages = base, dict[Expr, ExactValue]()
    polynomials = list(targets.polynomials.items())
    first: Moments | None = None
    for group in (polynomials,) if _fits(targets, polynomials, graph, base) else tuple([p] for p in polynomials):
        if not _fits(targets, group, graph, base):
            continue
        sums, pairs, joined = _sources(targets, group, graph)
        found = elimination_cost(graph, joined, sources=len(sums) + len(pairs))
        m = moments(graph, t, [LocalSum(graph.constant, graph.groups), *(s for _, s in sums)], pairs, joined)
        first = first or m
        place = {number: k + 1 for k, (number, _) in enumerate(sums)}

        def mean(i: int, m: Moments = m, place: dict[int, int] = place) -> float:
            return float(m.means[place[i]])

        def covariance(i: int, j: int, m: Moments = m, place: dict[int, int] = place) -> float:
            return m.covariances[place[i], place[j]]

        averages |= {e: ExactValue(targets.average(p, mean, covariance)) for e, p in group}
    m = first or moments(graph, t, [LocalSum(graph.constant, graph.groups)], [(0, 0)], symbolic)
    rest = [e for e in targets.exprs if e not in averages]
    thermodynamics = Thermodynamics(m.ln_z, float(m.means[0]), m.covariances[0, 0])
    method = "variable elimination"
    blocks: dict[Expr, np.ndarray] = {}
    if rest and math.prod(graph.cardinalities.tolist()) <= MAX_ENUMERATED:
        averages |= _enumerate(targets.program, targets, graph, t, rest).averages
    elif rest:
        sampled, blocks = _sampled(targets, rest, graph, t, symbolic, seed, samples)
        averages |= sampled
        method += f"; {samples} exact samples for what is not a polynomial of local sums"
    return Answer(thermodynamics, averages, blocks, method, found)


def _sources(
    targets: _Targets, polynomials: list[tuple[Expr, Polynomial]], graph: FactorGraph
) -> tuple[list[tuple[int, LocalSum]], list[tuple[int, int]], Symbolic]:
    """The numbered sums of some polynomials, pairs as positions after the energy, and an elimination for them all."""
    numbers = sorted({i for _, p in polynomials for i in targets.sums_of(p)})
    place = {number: k + 1 for k, number in enumerate(numbers)}
    pairs = [(0, 0), *sorted({(place[i], place[j]) for _, p in polynomials for i, j in targets.pairs_of(p)})]
    sums = [(i, targets.sums[i]) for i in numbers]
    return sums, pairs, plan(graph, [s for _, s in sums])


def _fits(targets: _Targets, polynomials: list[tuple[Expr, Polynomial]], graph: FactorGraph, base: Cost) -> bool:
    """Whether polynomials can ride along: affordable, and they do not join so much that sampling is the better deal."""
    sums, pairs, joined = _sources(targets, polynomials, graph)
    found = elimination_cost(graph, joined, sources=1 + len(sums) + len(pairs))
    return found.feasible and found.table_entries <= 64 * base.table_entries + 2**22


def _sampled(
    targets: _Targets, rest: Sequence[Expr], graph: FactorGraph, t: float, symbolic: Symbolic, seed: int, samples: int
) -> tuple[dict[Expr, ExactValue], dict[Expr, np.ndarray]]:
    tables = conditional_tables(graph, t, symbolic)
    rng = np.random.default_rng(seed)
    values: dict[Expr, list[np.ndarray]] = {e: [] for e in rest}
    for start in range(0, samples, CHUNK):
        states = draw(tables, min(CHUNK, samples - start), rng)
        for e in rest:
            values[e].append(_checked(targets, e, states))
    averages, blocks = {}, {}
    for e in rest:
        every = np.concatenate(values[e])
        averages[e] = ExactValue(float(every.mean()), float(every.std(ddof=1) / math.sqrt(len(every))), SAMPLED)
        blocks[e] = np.array([b.mean() for b in np.array_split(every, BLOCKS)])
    return averages, blocks


def _checked(targets: _Targets, expr: Expr, states: np.ndarray) -> np.ndarray:
    try:
        return targets.evaluator(expr, states)
    except NotLocal:
        raise VfeError(
            Diagnostic("not-local", "an observable is too intricate to be evaluated on many configurations at once"),
            exit_code=4,
        ) from None


def _enumeration_cost(graph: FactorGraph) -> Cost:
    states = 2.0 ** min(float(np.log2(graph.cardinalities).sum()), 1000.0)
    terms = sum(len(g.scopes) for g in graph.groups) + graph.n
    return Cost(states, 24 * states, states * terms * 3e-8, states <= MAX_ENUMERATED, "enumeration")


def _enumerate(
    program: Program, targets: _Targets, graph: FactorGraph, t: float, exprs: Sequence[Expr] | None = None
) -> Answer:
    """Averages over all configurations, weighted by e^{−E/T}."""
    estimate = _enumeration_cost(graph)
    afford(estimate)
    exprs = targets.exprs if exprs is None else exprs
    energies: list[np.ndarray] = []
    values: dict[Expr, list[np.ndarray]] = {e: [] for e in exprs}
    for states in every_configuration(graph):
        energies.append(graph.energy(states) + sum(_checked(targets, e, states) for _, e in graph.opaque))
        for e in exprs:
            values[e].append(_checked(targets, e, states))
    energy = np.concatenate(energies)
    log_weights = -energy / t
    top = log_weights.max()
    weights = np.exp(log_weights - top)
    total = weights.sum()
    p = weights / total
    reached = p > 0  # a weight of zero may go with an infinite energy
    mean = float(p[reached] @ energy[reached])
    variance = float(p[reached] @ (energy[reached] - mean) ** 2)
    averages = {e: ExactValue(float(p[reached] @ np.concatenate(v)[reached])) for e, v in values.items()}
    thermodynamics = Thermodynamics(float(top + math.log(total)), mean, variance)
    return Answer(thermodynamics, averages, {}, "enumeration of all configurations", estimate)
