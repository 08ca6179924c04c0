"""Quadrature: continuous fields on chains and narrow strips -> ln Z and averages, by elimination over nodes.

    Z = ∫ e^{−E(x)/T} dx ≈ Σ_nodes ∏ w(x_i) e^{−E(x)/T}

Each value of a field is summed over the nodes of a rule, as if it were discrete; the weights are factors of one
variable. The rule is refined until ln Z stands still, and what it moved last is reported.

A real component gets Gauss nodes for a density between two that are known: that of a single value with the others at
rest, e^{−V₁/T}, and that of a uniform configuration, e^{−V_u/T} per element. Couplings that align make the first too
narrow and the second too wide; the blend whose variance is the one found with a coarse rule is taken. On a chain with a
double well it needed 22 nodes where an equispaced rule needed 44.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.exact.answer import QUADRATURE, SAMPLES, Answer
from vdsl.exact.averages import Targets, eliminate
from vdsl.exact.cost import MAX_BYTES, MAX_SECONDS, Cost, afford, elimination_cost
from vdsl.exact.elimination import moments, plan
from vdsl.exact.nodes import Densities, Nodes, components, coordinate, count, has_nodes, nodes_of
from vdsl.exact.profiles import Profile
from vdsl.ir.configurations import random_values
from vdsl.ir.expand import expand_energy
from vdsl.ir.factors import FactorGraph, FactorGroup, LocalSum, factorise
from vdsl.ir.graph import Symbolic, adjacency, eliminate_symbolically, minimum_degree
from vdsl.ir.program import Field, Program
from vdsl.ir.support import cardinality, is_discrete
from vdsl.ir.tables import NodeValues

GOAL, WORST = 1e-10, 1e-5  # of ln Z, relative where it is large: where refining stops, and what is still reported
_STEP = 1.35  # between one fineness and the next
_USUAL = (2.0, 1.35, 1.0, 0.75)  # finenesses that models end with: on chains, and what small tori allow
_COARSE_SECONDS = 20.0  # for the variance that the nodes are chosen by
_METHOD = "elimination over quadrature nodes"


def quadrature_cost(program: Program, theta: dict[str, float]) -> Cost:
    """What `solve_quadrature` would take at the fineness that most models need."""
    impossible = Cost(math.inf, math.inf, math.inf, False, "no exact method for these continuous fields")
    if not all(has_nodes(f.support) for f in program.fields):
        return impossible
    try:
        nodes = _three_nodes(program)
        skeleton = factorise(program, theta, nodes)
        measured = Targets(program, theta, nodes)
    except VfeError:
        return impossible
    if skeleton.opaque:
        return impossible
    pairs = {pair for p in measured.polynomials.values() for pair in measured.pairs_of(p)}
    sources = 2 + len(measured.sums) + len(pairs)
    adjacent = adjacency(skeleton.n, [g.scopes for g in skeleton.groups])
    order = minimum_degree(adjacent, 300_000)
    found = impossible
    for fineness in _USUAL:
        graph = _sized(program, skeleton, fineness)
        symbolic = eliminate_symbolically(adjacent, order, graph.cardinalities, 32.0)
        found = _with_tables(graph, elimination_cost(graph, symbolic, sources=sources))
        if found.feasible:
            break
    sampling = SAMPLES * skeleton.n * 4e-7 if measured.others else 0.0
    return replace(found, seconds_estimate=3 * found.seconds_estimate + sampling)


def solve_quadrature(program: Program, theta: dict[str, float], t: float, seed: int, samples: int) -> Answer:
    """The whole answer.

    Raises VfeError `not-discrete`, `not-local`, `too-expensive` (exit code 4) and `not-normalisable` (3).
    """
    unable = [f.name for f in program.fields if not has_nodes(f.support)]
    if unable:
        raise _no_method(unable)
    problem = _Problem(program, theta, t, factorise(program, theta, _three_nodes(program)))
    rules = problem.densities()
    levels = problem.levels(rules)
    fineness, moved, ln_z = levels[0], math.inf, problem.ln_z(levels[0], rules)
    for finer in levels[1:]:
        found = problem.ln_z(finer, rules)
        fineness, moved, ln_z = finer, abs(found - ln_z), found
        if moved < GOAL * max(1.0, abs(ln_z)):
            break
    if moved > WORST * max(1.0, abs(ln_z)):
        afford(problem.cost(fineness * _STEP, rules))
        raise _not_converged(moved)
    nodes = problem.nodes(fineness, rules)
    graph, measure = problem.graph(nodes)
    targets = Targets(program, theta, {name: rule.values for name, rule in nodes.items()})
    answer = eliminate(targets, graph, t, problem.symbolic(graph), seed, samples, measure, QUADRATURE)
    sizes = ", ".join(f"{len(rule)} (`{name}`)" for name, rule in nodes.items())
    method = f"quadrature on {sizes} nodes, ln Z moved by {moved:.1g} when they were refined last; {answer.method}"
    return replace(answer, method=method)


@dataclass(frozen=True)
class _Problem:
    """A model and its interaction graph."""

    program: Program
    theta: dict[str, float]
    t: float
    skeleton: FactorGraph

    def nodes(self, fineness: float, rules: dict[str, Densities]) -> dict[str, Nodes]:
        """The rules of all continuous fields."""
        return {f.name: nodes_of(f.support, fineness, rules.get(f.name, ())) for f in _continuous(self.program)}

    def levels(self, rules: dict[str, Densities]) -> list[float]:
        """Rising finenesses that are affordable together; narrower steps below the first where that is needed."""
        levels = self._affordable([_STEP**k for k in range(9)], rules)
        if len(levels) < 3:
            top = levels[-1] if levels else 1.0
            levels = self._affordable([top * s for s in (0.6, 0.7, 0.75, 0.8, 0.9, 1.0, 1.1, 1.2)], rules)
        if len(levels) < 2:
            afford(self.cost(0.7, rules, 2))
            raise _not_converged(math.inf)
        return levels

    def _affordable(self, rising: list[float], rules: dict[str, Densities]) -> list[float]:
        levels, seconds = [], 0.0
        for fineness in rising:
            cost = self.cost(fineness, rules, 2)
            seconds += cost.seconds_estimate
            if not cost.feasible or seconds > MAX_SECONDS:
                break
            levels.append(fineness)
        return levels

    def graph(self, nodes: dict[str, Nodes]) -> tuple[FactorGraph, tuple[FactorGroup, ...]]:
        """The energy over nodes, and −T ln of the weights as factors."""
        graph = factorise(self.program, self.theta, {name: rule.values for name, rule in nodes.items()})
        if graph.opaque:
            raise _not_local(graph)
        measure = []
        for name, first, elements in graph.fields:
            if name in nodes:
                tables = np.tile(-self.t * nodes[name].log_weights, (elements, 1))
                measure.append(FactorGroup("measure", first + np.arange(elements)[:, None], tables))
        return graph, tuple(measure)

    def symbolic(self, graph: FactorGraph) -> Symbolic:
        return plan(graph)

    def cost(self, fineness: float, rules: dict[str, Densities], sources: int = 0) -> Cost:
        """Of one elimination."""
        graph = _sized(self.program, self.skeleton, fineness, rules)
        return _with_tables(graph, elimination_cost(graph, plan(graph), sources=sources))

    def ln_z(self, fineness: float, rules: dict[str, Densities]) -> float:
        """Raises VfeError `too-expensive` before anything large is allocated."""
        afford(self.cost(fineness, rules))
        graph, measure = self.graph(self.nodes(fineness, rules))
        return moments(replace(graph, groups=graph.groups + measure), self.t, (), (), self.symbolic(graph)).ln_z

    def densities(self) -> dict[str, Densities]:
        """What the real components are distributed like, roughly."""
        fields = [f for f in _continuous(self.program) if components(f.support)]
        if not fields:
            return {}
        expansion = expand_energy(self.program, self.theta)
        profile = Profile(self.program, self.theta, expansion, self.t)
        block = {b.field: b for b in expansion.blocks}
        rules = {
            f.name: tuple(profile.density(block[f.name], c, 0.5) for c in range(components(f.support))) for f in fields
        }
        spreads = self.spreads(rules)
        return {
            name: tuple(
                profile.matched(block[name], c, spreads[name, c]) if (name, c) in spreads else density
                for c, density in enumerate(densities)
            )
            for name, densities in rules.items()
        }

    def spreads(self, rules: dict[str, Densities]) -> dict[tuple[str, int], float]:
        """⟨x²⟩ of every real component, averaged over the elements, by a coarse rule, if one is affordable."""
        coarse = ((s, self.cost(s, rules, 4)) for s in (1.35, 1.0, 0.8, 0.65, 0.5))
        fineness = next((s for s, cost in coarse if cost.feasible and cost.seconds_estimate < _COARSE_SECONDS), None)
        if fineness is None:
            return {}
        nodes = self.nodes(fineness, rules)
        sums, names = [], []
        for f in _continuous(self.program):
            first = next(start for name, start, _ in self.skeleton.fields if name == f.name)
            elements = self.program.elements(f)
            for c in range(components(f.support)):
                x = coordinate(nodes[f.name], f.support, c)
                scopes = first + np.arange(elements)[:, None]
                sums.append(LocalSum(0.0, (FactorGroup("", scopes, np.tile(x**2 / elements, (elements, 1))),)))
                names.append((f.name, c))
        graph, measure = self.graph(nodes)
        whole = replace(graph, groups=graph.groups + measure)
        means = moments(whole, self.t, sums, (), self.symbolic(graph)).means
        return dict(zip(names, means.tolist(), strict=True))


def _continuous(program: Program) -> list[Field]:
    return [f for f in program.fields if not is_discrete(f.support)]


def _three_nodes(program: Program) -> dict[str, NodeValues]:
    """Three arbitrary values of each continuous field: enough to see what interacts with what."""
    rng, nodes = np.random.default_rng(0), {}
    for f in _continuous(program):
        values = random_values(f.support, 3, rng)
        nodes[f.name] = (values, -values) if values.ndim == 1 else (tuple(values.T), tuple(-values.T))
    return nodes


def _sized(
    program: Program, skeleton: FactorGraph, fineness: float, rules: dict[str, Densities] | None = None
) -> FactorGraph:
    """The skeleton with as many states as there would be nodes; its tables have other sizes and are not to be read."""
    rules = rules or {}

    def size(f: Field) -> int:
        if is_discrete(f.support):
            return cardinality(f.support)
        return count(f.support, fineness, rules.get(f.name, ()))

    sizes = [np.full(program.elements(f), size(f)) for f in program.fields]
    return replace(skeleton, cardinalities=np.concatenate(sizes))


def _with_tables(graph: FactorGraph, cost: Cost) -> Cost:
    """The cost with the tables of the factors themselves, which large rules make large."""
    entries = sum(float(graph.cardinalities[g.scopes].astype(float).prod(1).sum()) for g in graph.groups)
    size = cost.bytes + 24 * entries
    return replace(cost, bytes=size, feasible=cost.feasible and size <= MAX_BYTES, method=_METHOD)


def _no_method(names: list[str]) -> VfeError:
    listed = ", ".join(f"`{name}`" for name in names)
    return VfeError(
        Diagnostic(
            "not-discrete",
            f"no exact method for the continuous field {listed}",
            notes=("there are quadratures for real, complex, angle, U(1), sphere(2) and sphere(3)",),
            hints=("use `vdsl solve`, or `vdsl sample` for an independent Markov chain",),
        ),
        exit_code=4,
    )


def _not_local(graph: FactorGraph) -> VfeError:
    names = ", ".join(f"`{name}`" for name in dict.fromkeys(name for name, _ in graph.opaque))
    message = f"the interaction {names} is not a sum of terms of a few variables each, as elimination needs"
    return VfeError(Diagnostic("not-local", message, hints=("use `vdsl solve`",)), exit_code=4)


def _not_converged(moved: float) -> VfeError:
    message = f"the quadrature has not converged: ln Z still moved by {moved:.1g} when it was refined last"
    hints = ("use `vdsl solve`",)
    return VfeError(Diagnostic("too-expensive", message, hints=hints), exit_code=4)
