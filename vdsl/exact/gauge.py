"""Gauge fields in two dimensions by character sums: any action that is a sum of class functions of plaquettes.

With w(P) = e^{−s(P)/T} = Σ_r d_r λ_r χ_r(P) (see `characters`) and V plaquettes (Migdal 1975, Sov. Phys. JETP 42, 413;
Drouffe & Zuber 1983, Phys. Rep. 102, 1):

    torus              Z = Σ_r λ_r^V
    an open boundary   Z = λ_0^V: plaquettes are independent
    F = Σ_p f(P_p)     Z ⟨F⟩   = Σ_r V λ_r^{V−1} μ_r[f],                 μ_r[f] = (1/d_r) ∫ dP w f χ_r*
                       Z ⟨FG⟩  = Σ_r V(V−1) λ_r^{V−2} μ_r[f] μ_r[g] + V λ_r^{V−1} μ_r[fg]
    a loop of area A   Z ⟨tr W/N⟩ = Σ_{r,r'} N_{r' f}^r (d_{r'}/d_r N) λ_{r'}^A λ_r^{V−A}

on the torus; only r = 0 stands in the sums where a boundary is open. ⟨E⟩ and Var E are moments of the action itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vdsl.exact.answer import Answer, ExactValue, averages_wanted
from vdsl.exact.characters import Coefficients, coefficients
from vdsl.exact.closed_form import Thermodynamics
from vdsl.exact.cost import Cost
from vdsl.exact.plaquettes import MOST_VISITS, PlaquetteModel, PlaquetteSum, inlined, plaquette_model
from vdsl.ir.configurations import random_configuration
from vdsl.ir.expr import Binary, Call, Const, Expr, Read, Ref, Unary, walk
from vdsl.ir.interpret import evaluate, temperature
from vdsl.ir.loops import mean_loops
from vdsl.ir.program import Program

Function = Callable[[np.ndarray], np.ndarray]  # holonomies (k, …) -> values (k,)
Loop = tuple[int, int]  # sides along the two axes
Monomial = tuple[int | Loop, ...]  # numbers of functions, or one loop
Sum = dict[Monomial, float]  # Σ coefficient · product of plaquette sums


@dataclass(frozen=True)
class GaugeTheory:
    """A program that character sums solve: its plaquettes, its action s(P) as `action`, and what is asked of it."""

    model: PlaquetteModel
    action: PlaquetteSum
    t: float


def gauge_theory(program: Program, theta: Mapping[str, float]) -> GaugeTheory | None:
    """The two-dimensional gauge theory that a program is, or None."""
    model = plaquette_model(program, theta)
    action = None if model is None else model.energy()
    if model is None or action is None:
        return None
    return GaugeTheory(model, action, temperature(program, theta))


def gauge_cost(theory: GaugeTheory) -> Cost:
    """The nodes of the group are few at any volume."""
    nodes = {"U1": 1024, "SU2": 768, "SU3": 1600}[theory.model.group]
    return Cost(float(nodes), 1e3 * nodes, 1.0, True, "character sums")


def solve_gauge(theory: GaugeTheory) -> Answer:
    """The whole answer; averages of other things than plaquette sums, their products and loops are left out."""
    reader = _Reader(theory.model)
    wanted = {e: reader.read(e) for e in averages_wanted(theory.model.program)}
    moments = Moments(theory, reader.functions)
    averages = {
        e: ExactValue(_clean([c * moments.average(m) for m, c in total.items()], theory.model.plaquettes))
        for e, total in wanted.items()
        if total is not None
    }
    where = "torus" if theory.model.closed else "independent plaquettes"
    method = f"character sum of {len(moments.found.labels)} representations ({where})"
    missing = "it is no sum over plaquettes, no product of two and no rectangular loop"
    return Answer(moments.thermodynamics(), averages, {}, method, gauge_cost(theory), missing)


def charge_squared(program: Program, theta: Mapping[str, float]) -> float | None:
    """⟨Q²⟩ of Q = Σ arg P/2π, for U(1) and angles whose action is a plaquette sum; None for other models."""
    theory = gauge_theory(program, theta)
    if theory is None or theory.model.group != "U1":
        return None
    return Moments(theory, [lambda p: (np.pi - np.mod(np.pi - p, 2 * np.pi)) / (2 * np.pi)]).average((0, 0))


class Moments:
    """Z and the first two moments of sums of class functions; function −1 is the action."""

    def __init__(self, theory: GaugeTheory, functions: Sequence[Function]):
        self.theory, model = theory, theory.model
        self.area = model.plaquettes
        self.functions = (*functions, lambda p: model.values(theory.action, p))
        k = len(self.functions)
        self.pairs = {pair: 1 + k + n for n, pair in enumerate(itertools.combinations_with_replacement(range(k), 2))}
        self._shift: float | None = None  # of the action, so that weights are of order one
        self.found: Coefficients = coefficients(model.group, self._rows)
        values = self.found.values if model.closed else self.found.values[:, self._trivial]
        self.rows = values / values[0, 0]
        self.log_scale = math.log(values[0, 0].real)
        self.z = self._total(self.rows[0] ** self.area)

    def thermodynamics(self) -> Thermodynamics:
        """ln Z, ⟨E⟩, Var E."""
        theory, last = self.theory, len(self.functions) - 1
        constant = theory.action.constant + self.area * (self._shift or 0.0)
        ln_z = self.area * self.log_scale + math.log(self.z) - constant / theory.t + theory.model.log_measure
        mean = self.average((last,))
        return Thermodynamics(ln_z, mean + theory.action.constant, max(self.average((last, last)) - mean**2, 0.0))

    def average(self, monomial: Monomial) -> float:
        """⟨∏ F_k⟩ of at most two functions, or the mean of a loop."""
        rows, v = self.rows, self.area
        match monomial:
            case ():
                return 1.0
            case ((int(), int()) as loop,):
                return self._loop(loop[0] * loop[1])
            case (int(a),):
                return self._total(v * rows[0] ** (v - 1) * rows[1 + a]) / self.z
            case (int(a), int(b)):
                both = rows[self.pairs[min(a, b), max(a, b)]]
                total = v * rows[0] ** (v - 1) * both
                if v > 1:
                    total = total + v * (v - 1) * rows[0] ** (v - 2) * rows[1 + a] * rows[1 + b]
                return self._total(total) / self.z
        raise ValueError(f"no moment {monomial}")

    def _loop(self, area: int) -> float:
        group, n = self.theory.model.group, self.theory.model.n
        joined, d = self.found.neighbours(group), self.found.dimensions
        inside = self.found.values[0] / self.found.values[0, 0]
        outside = self.rows[0] if self.theory.model.closed else np.where(self._trivial, inside, 0.0)
        terms = joined * np.outer(d * inside**area, outside ** (self.area - area) / d) / n
        if not self.theory.model.closed:
            terms = terms * self._trivial
        return self._total(terms) / self.z

    @property
    def _trivial(self) -> np.ndarray:
        return np.arange(len(self.found.labels)) == 0  # every list begins with it

    def _rows(self, holonomies: np.ndarray) -> np.ndarray:
        values = np.stack([f(holonomies) for f in self.functions])
        if self._shift is None:
            self._shift = float(values[-1].min())
        weight = np.exp(-(values[-1] - self._shift) / self.theory.t)
        pairs = [values[a] * values[b] * weight for a, b in self.pairs]
        return np.concatenate([weight[None], values * weight, np.stack(pairs)])

    @staticmethod
    def _total(terms: np.ndarray) -> float:
        return float(np.sum(terms).real)


class _Reader:
    """Expressions as polynomials of degree two in plaquette sums, and loops."""

    def __init__(self, model: PlaquetteModel):
        self.model = model
        self.functions: list[Function] = []

    def read(self, expr: Expr) -> Sum | None:
        """The polynomial that an expression is, or None."""
        program = self.model.program
        if not any(isinstance(node, Read) for node in walk(inlined(program, expr))):
            return {(): float(np.real(evaluate(program, expr, self.model.theta)))}
        form = self.model.read_off(expr)
        if form is not None:
            return self._linear(form)
        match expr:
            case Ref(name):
                named = {o.name: o.value for o in program.observables} | {d.name: d.value for d in program.definitions}
                return self.read(named[name])
            case Call("re", (value,)):
                return self.read(value)
            case Unary("-", value):
                return _times(self.read(value), {(): -1.0})
            case Binary("+" | "-" as op, left, right):
                return _plus(self.read(left), _times(self.read(right), {(): 1.0 if op == "+" else -1.0}))
            case Binary("*", left, right):
                return _times(self.read(left), self.read(right))
            case Binary("/", left, right):
                below = self.read(right)
                return _times(self.read(left), {(): 1 / below[()]}) if below and set(below) == {()} else None
            case Binary("^", base, Const(2)):
                found = self.read(base)
                return _times(found, found)
        return self._loop(expr)

    def _linear(self, form: PlaquetteSum) -> Sum:
        if not form.parts:
            return {(): form.constant}
        self.functions.append(lambda p: self.model.values(form, p))
        return {(): form.constant, (len(self.functions) - 1,): 1.0}

    def _loop(self, expr: Expr) -> Sum | None:
        """a times the mean rectangular loop of some size, plus b: found by trying them all on random configurations."""
        model = self.model
        if model.visits(expr) > MOST_VISITS:
            return None
        rng = np.random.default_rng(21)
        tried = [random_configuration(model.program, rng)[model.field.name] for _ in range(3)]
        values = np.array([model.value(expr, links) for links in tried])
        if not np.isfinite(values).all():
            return None
        means = [mean_loops(model.lattice, links) for links in tried]
        for loops, monomials in _candidates(means):
            slope = (values[1] - values[0]) / (loops[1] - loops[0]) if loops[1] != loops[0] else math.nan
            constant = values[0] - slope * loops[0]
            if abs(constant + slope * loops[2] - values[2]) <= 1e-9 * (np.abs(values).max() + abs(constant)):
                share = slope / len(monomials)
                return _plus({(): constant}, dict.fromkeys(monomials, share)) if np.isfinite(slope) else None
        return None


def _clean(terms: list[float], plaquettes: int) -> float:
    """Their sum; 0 where it is the rounding of a sum over so many plaquettes."""
    total = math.fsum(terms)
    return 0.0 if abs(total) <= 1e-15 * plaquettes * max(1.0, *(abs(x) for x in terms)) else total


def _candidates(means: list[dict[Loop, float]]) -> Iterator[tuple[np.ndarray, list[Monomial]]]:
    """(values in every configuration, monomials): loops of R × T, and the mean of R × T and T × R."""
    for r, t in means[0]:
        yield np.array([m[r, t] for m in means]), [((r, t),)]
    for r, t in means[0]:
        if r < t and (t, r) in means[0]:
            yield np.array([(m[r, t] + m[t, r]) / 2 for m in means]), [((r, t),), ((t, r),)]


def _plus(a: Sum | None, b: Sum | None) -> Sum | None:
    if a is None or b is None:
        return None
    return {m: a.get(m, 0.0) + b.get(m, 0.0) for m in dict.fromkeys((*a, *b))}


def _times(a: Sum | None, b: Sum | None) -> Sum | None:
    if a is None or b is None:
        return None
    out: Sum = {}
    for (m, x), (n, y) in itertools.product(a.items(), b.items()):
        both = m + n
        if len(both) > 2 or (len(both) == 2 and any(isinstance(k, tuple) for k in both)):
            return None
        out[both] = out.get(both, 0.0) + x * y
    return out
