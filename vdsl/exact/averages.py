"""Averages: what a model's observables need, from one elimination, from exact samples, or from all configurations."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from vdsl.exact.answer import EXACT, Answer, ExactValue, averages_wanted, evaluated, summarise
from vdsl.exact.batch import CHUNK, BatchEvaluator, every_configuration
from vdsl.exact.closed_form import Thermodynamics
from vdsl.exact.cost import Cost, afford, elimination_cost
from vdsl.exact.elimination import Moments, conditional_tables, draw, moments, plan
from vdsl.ir.expr import Expr
from vdsl.ir.factors import FactorGraph, FactorGroup, LocalSum, Polynomial, polynomial_of
from vdsl.ir.graph import Symbolic
from vdsl.ir.program import Program
from vdsl.ir.tables import Context, NodeValues

MAX_ENUMERATED = 2**20


class Targets:
    """Every average that observables and derived quantities need, and which of them are polynomials of local sums."""

    def __init__(self, program: Program, theta: dict[str, float], nodes: Mapping[str, NodeValues] | None = None):
        self.program, self.theta = program, theta
        self.context = Context(program, theta, nodes)
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


def eliminate(
    targets: Targets,
    energy: FactorGraph,
    t: float,
    symbolic: Symbolic,
    seed: int,
    samples: int,
    measure: tuple[FactorGroup, ...] = (),
    kind: str = EXACT,
) -> Answer:
    """Moments from one elimination, or one for each polynomial where all together take too much memory; what is no
    polynomial, or would widen the elimination too much, from samples.

    measure: −T ln of the weight of every state, as factors that are no part of the energy.
    """
    graph = replace(energy, groups=energy.groups + measure)
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
        m = moments(graph, t, [LocalSum(energy.constant, energy.groups), *(s for _, s in sums)], pairs, joined)
        first = first or m
        place = {number: k + 1 for k, (number, _) in enumerate(sums)}

        def mean(i: int, m: Moments = m, place: dict[int, int] = place) -> float:
            return float(m.means[place[i]])

        def covariance(i: int, j: int, m: Moments = m, place: dict[int, int] = place) -> float:
            return m.covariances[place[i], place[j]]

        averages |= {e: ExactValue(targets.average(p, mean, covariance), method=kind) for e, p in group}
    m = first or moments(graph, t, [LocalSum(energy.constant, energy.groups)], [(0, 0)], symbolic)
    rest = [e for e in targets.exprs if e not in averages]
    thermodynamics = Thermodynamics(m.ln_z, float(m.means[0]), m.covariances[0, 0])
    method = "variable elimination"
    blocks: dict[Expr, np.ndarray] = {}
    if rest and not measure and math.prod(graph.cardinalities.tolist()) <= MAX_ENUMERATED:
        averages |= enumerate_all(targets.program, targets, graph, t, rest).averages
    elif rest:
        sampled, blocks = _sampled(targets, rest, graph, t, symbolic, seed, samples)
        averages |= sampled
        method += f"; {samples} exact samples for what is not a polynomial of local sums"
    return Answer(thermodynamics, averages, blocks, method, found, kind=kind)


def _sources(
    targets: Targets, polynomials: list[tuple[Expr, Polynomial]], graph: FactorGraph
) -> tuple[list[tuple[int, LocalSum]], list[tuple[int, int]], Symbolic]:
    """The numbered sums of some polynomials, pairs as positions after the energy, and an elimination for them all."""
    numbers = sorted({i for _, p in polynomials for i in targets.sums_of(p)})
    place = {number: k + 1 for k, number in enumerate(numbers)}
    pairs = [(0, 0), *sorted({(place[i], place[j]) for _, p in polynomials for i, j in targets.pairs_of(p)})]
    sums = [(i, targets.sums[i]) for i in numbers]
    return sums, pairs, plan(graph, [s for _, s in sums])


def _fits(targets: Targets, polynomials: list[tuple[Expr, Polynomial]], graph: FactorGraph, base: Cost) -> bool:
    """Whether polynomials can ride along: affordable, and they do not join so much that sampling is the better deal."""
    sums, pairs, joined = _sources(targets, polynomials, graph)
    found = elimination_cost(graph, joined, sources=1 + len(sums) + len(pairs))
    return found.feasible and found.table_entries <= 64 * base.table_entries + 2**22


def _sampled(
    targets: Targets, rest: Sequence[Expr], graph: FactorGraph, t: float, symbolic: Symbolic, seed: int, samples: int
) -> tuple[dict[Expr, ExactValue], dict[Expr, np.ndarray]]:
    tables = conditional_tables(graph, t, symbolic)
    rng = np.random.default_rng(seed)
    values: dict[Expr, list[np.ndarray]] = {e: [] for e in rest}
    for start in range(0, samples, CHUNK):
        states = draw(tables, min(CHUNK, samples - start), rng)
        for e in rest:
            values[e].append(evaluated(targets.evaluator, e, states))
    return summarise({e: np.concatenate(v) for e, v in values.items()})


def enumeration_cost(graph: FactorGraph) -> Cost:
    states = 2.0 ** min(float(np.log2(graph.cardinalities).sum()), 1000.0)
    terms = sum(len(g.scopes) for g in graph.groups) + graph.n
    return Cost(states, 24 * states, states * terms * 3e-8, states <= MAX_ENUMERATED, "enumeration")


def enumerate_all(
    program: Program, targets: Targets, graph: FactorGraph, t: float, exprs: Sequence[Expr] | None = None
) -> Answer:
    """Averages over all configurations, weighted by e^{−E/T}."""
    estimate = enumeration_cost(graph)
    afford(estimate)
    exprs = targets.exprs if exprs is None else exprs
    energies: list[np.ndarray] = []
    values: dict[Expr, list[np.ndarray]] = {e: [] for e in exprs}
    for states in every_configuration(graph):
        energies.append(graph.energy(states) + sum(evaluated(targets.evaluator, e, states) for _, e in graph.opaque))
        for e in exprs:
            values[e].append(evaluated(targets.evaluator, e, states))
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
