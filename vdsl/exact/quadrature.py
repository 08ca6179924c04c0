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
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.exact.answer import QUADRATURE, SAMPLES, Answer
from vdsl.exact.averages import Targets, eliminate
from vdsl.exact.cost import MAX_BYTES, MAX_SECONDS, Cost, afford, elimination_cost
from vdsl.exact.elimination import moments, plan
from vdsl.exact.nodes import Densities, Density, Nodes, components, coordinate, count, has_nodes, nodes_of
from vdsl.ir import interpret
from vdsl.ir.configurations import random_values
from vdsl.ir.expand import expand_energy
from vdsl.ir.expansion import Block, Expansion, MonomialGroup
from vdsl.ir.factors import FactorGraph, FactorGroup, LocalSum, factorise
from vdsl.ir.graph import Symbolic, adjacency, eliminate_symbolically, minimum_degree
from vdsl.ir.program import Field, Program
from vdsl.ir.support import cardinality, is_discrete
from vdsl.ir.tables import NodeValues

GOAL, WORST = 1e-10, 1e-5  # of ln Z, relative where it is large: where refining stops, and what is still reported
_STEP = 1.35  # between one fineness and the next
_USUAL = (2.0, 1.35, 1.0, 0.75)  # finenesses that models end with: on chains, and what small tori allow
_FALL = 40.0  # e^{−40}: where a density is cut off at first
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
        rising = [_STEP**k for k in range(9)]
        levels, seconds = [], 0.0
        for fineness in rising:
            cost = self.cost(fineness, rules, 2)
            seconds += cost.seconds_estimate
            if not cost.feasible or seconds > MAX_SECONDS:
                break
            levels.append(fineness)
        if len(levels) < 3:
            top = levels[-1] if levels else 1.0
            fine = [top * s for s in (0.6, 0.7, 0.75, 0.8, 0.9, 1.0, 1.1, 1.2)]
            levels = [s for s in fine if self.cost(s, rules, 2).feasible]
        if len(levels) < 2:
            afford(self.cost(0.7, rules, 2))
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
        profile = _Profile(self.program, self.theta, expansion, self.t)
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
        fineness = next((s for s in (1.35, 1.0, 0.8, 0.65, 0.5) if self.cost(s, rules, 4).feasible), None)
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


class _Profile:
    """The energy as a function of one real component, the other variables at 0 or averaged, per element."""

    def __init__(self, program: Program, theta: dict[str, float], expansion: Expansion, t: float):
        self.program, self.theta, self.expansion, self.t = program, theta, expansion, t
        sizes = [b.elements * b.components for b in expansion.blocks]
        self.block_of = np.repeat(np.arange(len(sizes)), sizes)

    def density(self, block: Block, c: int, blend: float) -> Density:
        """e^{−((1 − blend) V₁ + blend V_u)/T}; equispaced nodes where part of the energy is no polynomial."""
        single, uniform = self.single(block, c), self.uniform(block, c)
        if self.expansion.opaque:
            ends = [
                _level(lambda x: _at(single, x) + self._opaque(block, c, x, 1), _FALL * self.t),
                _level(lambda x: _at(uniform, x) + self._opaque(block, c, x, block.elements), _FALL * self.t),
            ]
            if ends[0] is None:
                raise _unbounded(block.field)
            found = [e for e in ends if e is not None]
            return Density(min(e[0] for e in found), max(e[1] for e in found))
        size = max(len(single), len(uniform))
        if _level(lambda x: _at(uniform, x), 2 * _FALL * self.t) is None:
            uniform, blend = np.zeros(1), min(blend, 0.9)
        mixed = np.zeros(size)
        mixed[: len(single)] += (1 - blend) * single / self.t
        mixed[: len(uniform)] += blend * uniform / self.t
        ends = [_level(lambda x: _at(mixed, x), 2 * _FALL)]
        if ends[0] is None:
            raise _unbounded(block.field)
        return Density(*ends[0], tuple(mixed.tolist()))

    def matched(self, block: Block, c: int, spread: float) -> Density:
        """The blend for which ⟨x²⟩ is what it should be, as nearly as blends go."""
        if self.expansion.opaque:
            return self.density(block, c, 0.5)
        blends = np.linspace(0, 0.95, 20)
        densities = [self.density(block, c, float(s)) for s in blends]
        return min(densities, key=lambda d: abs(math.log(_second_moment(d) / spread)))

    def single(self, block: Block, c: int) -> np.ndarray:
        """V₁, averaged over the elements, as coefficients of powers."""
        total = np.zeros(1)
        for g in self.expansion.groups:
            for slot, power in enumerate(g.exponents):
                rows, weight = self._others(g, [slot], block, c)
                if weight:
                    total = _with(total, power, weight * float(g.coefficients[rows].real.sum()) / block.elements)
        return total

    def uniform(self, block: Block, c: int) -> np.ndarray:
        """V_u: the energy per element when all have the same value."""
        total = np.zeros(1)
        for g in self.expansion.groups:
            mine = [s for s in range(len(g.exponents)) if self._in(g, s, block, c).any()]
            rows, weight = self._others(g, mine, block, c)
            if mine and weight:
                power = sum(g.exponents[s] for s in mine)
                total = _with(total, power, weight * float(g.coefficients[rows].real.sum()) / block.elements)
        return total

    def _in(self, g: MonomialGroup, slot: int, block: Block, c: int) -> np.ndarray:
        offset = g.scopes[:, slot] - block.first
        inside = (offset >= 0) & (offset < block.elements * block.components)
        return inside & (offset % block.components == c)

    def _others(self, g: MonomialGroup, mine: list[int], block: Block, c: int) -> tuple[np.ndarray, float]:
        """(rows whose slots `mine` are this component, the average of the other generators)."""
        rows = np.all([self._in(g, s, block, c) for s in mine] or [np.zeros(len(g.scopes), bool)], axis=0)
        weight = 1.0 if rows.any() else 0.0
        for slot, p in enumerate(g.exponents):
            if slot in mine or not weight:
                continue
            other = self.expansion.blocks[self.block_of[g.scopes[rows][0, slot]]]
            match other.kind:
                case "states":
                    weight /= other.states
                case "unit" if p % 2 == 0:
                    weight /= other.components ** (p / 2)
                case _:
                    weight = 0.0
        return rows, weight

    def _opaque(self, block: Block, c: int, x: np.ndarray, elements: int) -> np.ndarray:
        return np.array([self._interpreted(block, c, float(v), elements) for v in x]) / elements

    def _interpreted(self, block: Block, c: int, value: float, elements: int) -> float:
        rng = np.random.default_rng(0)
        x = interpret.random_configuration(self.program, rng)
        for b in self.expansion.blocks:
            if b.kind == "real":
                x[b.field] = np.zeros_like(x[b.field])
        flat = np.zeros((block.elements, block.components))
        flat[:elements, c] = value
        stored = flat[:, 0] + 1j * flat[:, 1] if np.iscomplexobj(x[block.field]) else flat
        x[block.field] = stored.reshape(x[block.field].shape)
        return sum(float(interpret.evaluate(self.program, e, self.theta, x)) for _, e in self.expansion.opaque)


def _with(total: np.ndarray, power: int, coefficient: float) -> np.ndarray:
    out = np.zeros(max(len(total), power + 1))
    out[: len(total)] = total
    out[power] += coefficient
    return out


def _at(potential: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.polynomial.polynomial.polyval(x, potential)


def _second_moment(density: Density) -> float:
    x = np.linspace(density.lower, density.upper, 2001)
    v = _at(np.array(density.potential), x)
    p = np.exp(-(v - v.min()))
    return float(p @ x**2 / p.sum())


def _level(energy: Callable[[np.ndarray], np.ndarray], height: float) -> tuple[float, float] | None:
    """The interval outside of which an energy is more than `height` above its least value; None if there is none."""
    x = np.r_[-np.exp2(np.arange(40, -41, -1) / 4), 0.0, np.exp2(np.arange(-40, 41) / 4)]
    for _ in range(3):
        with np.errstate(all="ignore"):
            e = energy(x)
        e = np.where(np.isnan(e), np.inf, e)
        low = np.flatnonzero(e <= e.min() + height)
        if low[0] == 0 or low[-1] == len(x) - 1:
            return None
        a, b = float(x[low[0] - 1]), float(x[low[-1] + 1])
        margin = 0.02 * (b - a)
        x = np.linspace(a - margin, b + margin, 101)
    return a, b


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


def _unbounded(name: str) -> VfeError:
    return VfeError(
        Diagnostic(
            "not-normalisable",
            f"the energy of a single value of `{name}` does not grow in both directions, so a quadrature has no end",
            hints=("a positive power of it would bound it",),
        ),
        exit_code=3,
    )
