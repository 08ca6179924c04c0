"""Quadrature: continuous fields on chains and narrow strips -> ln Z and averages, by elimination over nodes.

    Z = ∫ e^{−E(x)/T} dx ≈ Σ_nodes ∏ w(x_i) e^{−E(x)/T}

Each value of a field is summed over the nodes of a rule, as if it were discrete; the weights are factors of one
variable. The rule is refined until ln Z stands still, and what it moved last is reported. Real components range over an
interval, at first wide enough for the energy of a single value and for that of a uniform configuration, then cut to
where the density is not negligible.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.exact.answer import QUADRATURE, Answer, averages_wanted
from vdsl.exact.averages import Targets, eliminate
from vdsl.exact.cost import MAX_SECONDS, Cost, afford, elimination_cost
from vdsl.exact.elimination import moments, plan
from vdsl.exact.nodes import Box, Nodes, components, coordinate, count, has_nodes, nodes_of, sides
from vdsl.ir import interpret
from vdsl.ir.configurations import random_values
from vdsl.ir.expand import expand_energy
from vdsl.ir.expansion import Block, Expansion, MonomialGroup
from vdsl.ir.factors import FactorGraph, FactorGroup, LocalSum, factorise
from vdsl.ir.graph import Symbolic, adjacency, eliminate_symbolically, minimum_degree
from vdsl.ir.program import Field, Program
from vdsl.ir.support import cardinality, is_discrete

GOAL, WORST = 1e-10, 1e-5  # of ln Z, relative where it is large: where refining stops, and what is still reported
_STEP = 1.35  # between one fineness and the next
_USUAL = 2.0  # the fineness that most models end with
_FALL = 40.0  # e^{−40}: where a density is cut off at first
_TAIL = 1e-14  # of the density per element outside of the final box
_CUTS = (0.85, 0.7, 0.6, 0.5, 0.42, 0.35)
_METHOD = "elimination over quadrature nodes"


def quadrature_cost(program: Program, theta: dict[str, float]) -> Cost:
    """What `solve_quadrature` would take at the fineness that most models need."""
    impossible = Cost(math.inf, math.inf, math.inf, False, "no exact method for these continuous fields")
    if not all(has_nodes(f.support) for f in program.fields):
        return impossible
    try:
        skeleton = _skeleton(program, theta)
    except VfeError:
        return impossible
    if skeleton.opaque:
        return impossible
    graph = _sized(program, skeleton, _USUAL)
    adjacent = adjacency(graph.n, [g.scopes for g in graph.groups])
    order = minimum_degree(adjacent, 300_000)
    symbolic = eliminate_symbolically(adjacent, order, graph.cardinalities, 30.0)
    found = elimination_cost(graph, symbolic, sources=2 + len(averages_wanted(program)))
    if not symbolic.complete:
        return Cost(math.inf, math.inf, math.inf, False, _METHOD)
    pairs = 8.0 * sum(float(graph.cardinalities[g.scopes].astype(float).prod(1).sum()) for g in graph.groups)
    return replace(found, method=_METHOD, bytes=found.bytes + 3 * pairs, seconds_estimate=2 * found.seconds_estimate)


def solve_quadrature(program: Program, theta: dict[str, float], t: float, seed: int, samples: int) -> Answer:
    """The whole answer.

    Raises VfeError `not-discrete`, `not-local`, `too-expensive` (exit code 4) and `not-normalisable` (3).
    """
    unable = [f.name for f in program.fields if not has_nodes(f.support)]
    if unable:
        raise _no_method(unable)
    problem = _Problem(program, theta, t, _skeleton(program, theta))
    boxes = problem.first_boxes()
    boxes = problem.cut(boxes)
    fineness, moved, ln_z = 1.0, math.inf, problem.ln_z(1.0, boxes)
    started = time.monotonic()
    while moved > GOAL * max(1.0, abs(ln_z)):
        finer = fineness * _STEP
        spent = time.monotonic() - started
        if not problem.cost(finer).feasible or spent + 3 * problem.cost(finer).seconds_estimate > MAX_SECONDS:
            break
        found = problem.ln_z(finer, boxes)
        fineness, moved, ln_z = finer, abs(found - ln_z), found
    if moved > WORST * max(1.0, abs(ln_z)):
        afford(problem.cost(fineness * _STEP))
        raise _not_converged(moved)
    nodes = problem.nodes(fineness, boxes)
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

    def nodes(self, fineness: float, boxes: dict[str, Box]) -> dict[str, Nodes]:
        """The rules of all continuous fields."""
        return {f.name: nodes_of(f.support, fineness, boxes.get(f.name, ())) for f in _continuous(self.program)}

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

    def cost(self, fineness: float, sources: int = 0) -> Cost:
        """Of one elimination."""
        graph = _sized(self.program, self.skeleton, fineness)
        return replace(elimination_cost(graph, plan(graph), sources=sources), method=_METHOD)

    def ln_z(self, fineness: float, boxes: dict[str, Box]) -> float:
        """Raises VfeError `too-expensive` before anything large is allocated."""
        afford(self.cost(fineness))
        graph, measure = self.graph(self.nodes(fineness, boxes))
        return moments(replace(graph, groups=graph.groups + measure), self.t, (), (), self.symbolic(graph)).ln_z

    def first_boxes(self) -> dict[str, Box]:
        """Where the energy of a single value or that of a uniform field is within _FALL·T of its least."""
        fields = [f for f in _continuous(self.program) if components(f.support)]
        if not fields:
            return {}
        expansion = expand_energy(self.program, self.theta)
        block = {b.field: b for b in expansion.blocks}
        profile = _Profile(self.program, self.theta, expansion)
        return {
            f.name: tuple(self._interval(profile, block[f.name], c) for c in range(components(f.support)))
            for f in fields
        }

    def _interval(self, profile: _Profile, block: Block, c: int) -> tuple[float, float]:
        ends = [_level(lambda x: profile.single(block, c, x), _FALL * self.t)]
        if ends[0] is None:
            raise _unbounded(block.field)
        ends.append(_level(lambda x: profile.uniform(block, c, x), _FALL * self.t))
        found = [e for e in ends if e is not None]
        return min(e[0] for e in found), max(e[1] for e in found)

    def cut(self, boxes: dict[str, Box]) -> dict[str, Box]:
        """The boxes with every end moved in to where a share _TAIL of the density is left outside."""
        if not boxes:
            return boxes
        nodes = self.nodes(1.0, boxes)
        sums: list[LocalSum] = []
        ends: list[tuple[str, int, int, float]] = []
        for f in _continuous(self.program):
            first = next(start for name, start, _ in self.skeleton.fields if name == f.name)
            elements = self.program.elements(f)
            for c, side in sides(boxes.get(f.name, ())):
                x, (a, b) = coordinate(nodes[f.name], f.support, c), boxes[f.name][c]
                for cut in _CUTS:
                    end = (a + b) / 2 + (cut if side else -cut) * (b - a) / 2
                    outside = (x > end) if side else (x < end)
                    tables = np.tile(outside.astype(float) / elements, (elements, 1))
                    sums.append(LocalSum(0.0, (FactorGroup("", first + np.arange(elements)[:, None], tables),)))
                    ends.append((f.name, c, side, end))
        if not self.cost(1.0, len(sums)).feasible:
            return boxes
        graph, measure = self.graph(nodes)
        whole = replace(graph, groups=graph.groups + measure)
        tails = moments(whole, self.t, sums, (), self.symbolic(graph)).means
        out = {name: [list(interval) for interval in box] for name, box in boxes.items()}
        for (name, c, side, end), tail in zip(ends, tails, strict=True):
            if tail < _TAIL:
                out[name][c][side] = min(end, out[name][c][side]) if side else max(end, out[name][c][side])
        return {name: tuple((a, b) for a, b in box) for name, box in out.items()}


class _Profile:
    """The energy as a function of one real component, the other variables at 0 or averaged, per element."""

    def __init__(self, program: Program, theta: dict[str, float], expansion: Expansion):
        self.program, self.theta, self.expansion = program, theta, expansion
        self.block_of = np.repeat(
            np.arange(len(expansion.blocks)), [b.elements * b.components for b in expansion.blocks]
        )

    def single(self, block: Block, c: int, x: np.ndarray) -> np.ndarray:
        """Of one value, averaged over the elements."""
        total = np.zeros(len(x))
        for g in self.expansion.groups:
            for slot in range(len(g.exponents)):
                rows, weight = self._others(g, [slot], block, c)
                if weight:
                    total += weight * float(g.coefficients[rows].real.sum()) / block.elements * x ** g.exponents[slot]
        return total + self._opaque(block, c, x, 1)

    def uniform(self, block: Block, c: int, x: np.ndarray) -> np.ndarray:
        """Of all values together, per element."""
        total = np.zeros(len(x))
        for g in self.expansion.groups:
            mine = [s for s in range(len(g.exponents)) if self._in(g, s, block, c).all()]
            rows, weight = self._others(g, mine, block, c)
            if mine and weight:
                power = sum(g.exponents[s] for s in mine)
                total += weight * float(g.coefficients[rows].real.sum()) / block.elements * x**power
        return total + self._opaque(block, c, x, block.elements) / block.elements

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
        if not self.expansion.opaque:
            return np.zeros(len(x))
        return np.array([self._interpreted(block, c, float(v), elements) for v in x])

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


def _skeleton(program: Program, theta: dict[str, float]) -> FactorGraph:
    """The factors over three arbitrary nodes for each continuous field: what interacts with what."""
    rng, nodes = np.random.default_rng(0), {}
    for f in _continuous(program):
        values = random_values(f.support, 3, rng)
        nodes[f.name] = (values, -values) if values.ndim == 1 else (tuple(values.T), tuple(-values.T))
    return factorise(program, theta, nodes)


def _sized(program: Program, skeleton: FactorGraph, fineness: float) -> FactorGraph:
    """The skeleton with as many states as there would be nodes; its tables have other sizes and are not to be read."""
    sizes = [
        np.full(program.elements(f), cardinality(f.support) if is_discrete(f.support) else count(f.support, fineness))
        for f in program.fields
    ]
    return replace(skeleton, cardinalities=np.concatenate(sizes))


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
