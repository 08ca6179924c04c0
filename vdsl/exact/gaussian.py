"""Gaussian models: a quadratic energy -> ln Z, thermodynamics and moments in closed form.

    E(x) = ½xᵀAx − bᵀx + c,    x ~ N(m, C),  m = A⁻¹b,  C = T A⁻¹
    ln Z = (n/2) ln 2πT − ½ ln det A + bᵀA⁻¹b / 2T − c/T
    ⟨E⟩  = c − ½ bᵀm + nT/2,   Var E = nT²/2

with Lebesgue measure in every variable. Averages of polynomials follow from Wick's theorem, with y = x − m:

    ⟨x_a ∏ rest⟩ = m_a ⟨∏ rest⟩ + Σ_k C_ak ⟨∏ rest without k⟩
    Cov(g·y + yᵀMy, h·y + yᵀNy) = gᵀCh + 2 tr(M C N C)
"""

from __future__ import annotations

import math

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.exact.answer import BLOCKS, Answer, ExactValue, averages_wanted, evaluated, summarise
from vdsl.exact.batch import CHUNK, FlatEvaluator
from vdsl.exact.closed_form import Thermodynamics
from vdsl.exact.cost import MAX_BYTES, MAX_SECONDS, Cost, afford
from vdsl.exact.precision import MAX_DENSE, MAX_INVERTED, Cells, NotPositive, Precision, is_circulant, take_apart
from vdsl.ir.expand import ExpansionSums
from vdsl.ir.expansion import Expansion, QuadraticForm
from vdsl.ir.expr import Expr
from vdsl.ir.factors import Polynomial, polynomial_of
from vdsl.ir.lattice import PERIODIC
from vdsl.ir.program import Program
from vdsl.ir.tables import Context

MOST_FACTORS = 8  # of a monomial: Wick's theorem has 105 pairings then
_MOST_NUMBERS = 2**27  # in all the samples together
_MOST_PAIRS = 2**24  # of entries of two quadratic sums whose covariance is wanted


def gaussian_cost(program: Program, form: QuadraticForm) -> Cost:
    """Memory and time of taking A apart."""
    cells = cells_of(program)
    if is_circulant(form, cells):
        size, seconds = 200.0 * form.n, 1e-6 * form.n
    elif form.n <= MAX_DENSE or len(form.rows) > form.n**2 / 16:
        size, seconds = 24.0 * form.n**2, 1e-10 * form.n**3
    else:  # nested dissection fills in n^{4/3} entries in three dimensions, fewer in two
        size, seconds = 64.0 * form.n ** (4 / 3), 2e-9 * form.n**2
        if averages_wanted(program) and form.n <= MAX_INVERTED:
            size, seconds = size + 24.0 * form.n**2, seconds + 1e-6 * form.n**2
    feasible = size <= MAX_BYTES and seconds <= MAX_SECONDS
    return Cost(float(len(form.rows)), size, seconds + 1e-3, feasible, "Gaussian determinants")


def solve_gaussian(
    program: Program, theta: dict[str, float], form: QuadraticForm, t: float, exprs: list[Expr], seed: int, samples: int
) -> Answer:
    """The whole answer. Raises VfeError `not-normalisable` (exit code 3) and `too-expensive` (4)."""
    cost = gaussian_cost(program, form)
    afford(cost)
    try:
        precision = take_apart(form, cells_of(program))
    except NotPositive as found:
        raise VfeError(_unbounded(program, found), exit_code=3) from None
    normal = Normal(precision, precision.solve(form.linear), t)
    bound = float(form.linear @ normal.mean) / 2
    ln_z = form.n / 2 * math.log(2 * math.pi * t) - precision.log_det / 2 + (bound - form.constant) / t
    thermodynamics = Thermodynamics(ln_z, form.constant - bound + form.n * t / 2, form.n * t * t / 2)
    context = Context(program, theta)
    sums = ExpansionSums(program)
    averages: dict[Expr, ExactValue] = {}
    for e in exprs:
        polynomial = polynomial_of(context, context.inline(e), sums)
        value = None if polynomial is None else normal.average(polynomial)
        if value is not None:
            averages[e] = ExactValue(value)
    rest = [e for e in exprs if e not in averages]
    samples = max(min(samples, _MOST_NUMBERS // form.n), 2 * BLOCKS)
    sampled, blocks = _sampled(context, normal, rest, seed, samples) if rest else ({}, {})
    method = f"Gaussian determinant by {precision.method}"
    method += f"; {samples} exact samples for what is no polynomial of low degree" if rest else ""
    return Answer(thermodynamics, averages | sampled, blocks, method, cost)


class Normal:
    """x ~ N(mean, T A⁻¹)."""

    def __init__(self, precision: Precision, mean: np.ndarray, t: float):
        self.precision, self.mean, self.t = precision, mean, t

    def covariance(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """C_ij."""
        return self.t * self.precision.inverse(i, j)

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Independent samples (count, n)."""
        return self.mean + math.sqrt(self.t) * self.precision.sample(count, rng)

    def average(self, p: Polynomial) -> float | None:
        """⟨p⟩, or None beyond the degrees that are worked out."""
        total = self.of_sum(p.linear)
        for c, a, b in p.products:
            mean_a, mean_b, joint = self.of_sum(a), self.of_sum(b), self.joint(a, b)
            if total is None or mean_a is None or mean_b is None or joint is None:
                return None
            total += c * (mean_a * mean_b + joint)
        return total

    def of_sum(self, a: Expansion) -> float | None:
        """⟨a⟩ of an expansion in real variables."""
        total = a.constant
        for g in a.groups:
            if sum(g.exponents) > MOST_FACTORS:
                return None
            factors = [g.scopes[:, k] for k, p in enumerate(g.exponents) for _ in range(p)]
            total += float(g.coefficients @ self.moment(factors))
        return total

    def moment(self, factors: list[np.ndarray]) -> np.ndarray:
        """⟨∏ x⟩ for many lists of variables at once, by Wick's theorem."""
        if not factors:
            return np.ones(1)
        first, rest = factors[0], factors[1:]
        total = self.mean[first] * self.moment(rest)
        for k, other in enumerate(rest):
            total = total + self.covariance(first, other) * self.moment(rest[:k] + rest[k + 1 :])
        return total

    def joint(self, a: Expansion, b: Expansion) -> float | None:
        """Cov(a, b) of two expansions of degree at most 2."""
        one, two = self._expanded(a), self._expanded(b)
        if one is None or two is None:
            return None
        (g, i, j, m), (h, k, l, n) = one, two
        total = self.t * float(g @ self.precision.solve(h))
        if not len(i) or not len(k):
            return total
        forms = (QuadraticForm(len(g), *entries, np.zeros(0), 0.0) for entries in ((i, j, m), (k, l, n)))
        trace = self.precision.trace(*forms)
        if trace is not None:
            return total + 2 * self.t**2 * trace
        if len(i) * len(k) > _MOST_PAIRS:
            return None
        step = max(1, 2**20 // max(len(k), 1))
        for start in range(0, len(i), step):
            rows = slice(start, start + step)
            jk = self.covariance(*np.broadcast_arrays(j[rows, None], k[None]))
            li = self.covariance(*np.broadcast_arrays(l[None], i[rows, None]))
            total += 2 * float(m[rows] @ (jk * li) @ n)
        return total

    def _expanded(self, a: Expansion) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
        """(gradient at the mean, i, j, M_ij) with a = a(m) + g·y + yᵀMy; None beyond degree 2."""
        gradient = np.zeros(len(self.mean))
        entries = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
        for group in a.groups:
            c, scope = group.coefficients, group.scopes
            match group.exponents:
                case (1,):
                    np.add.at(gradient, scope[:, 0], c)
                case (2,):
                    np.add.at(gradient, scope[:, 0], 2 * c * self.mean[scope[:, 0]])
                    entries.append((scope[:, 0], scope[:, 0], c))
                case (1, 1):
                    np.add.at(gradient, scope[:, 0], c * self.mean[scope[:, 1]])
                    np.add.at(gradient, scope[:, 1], c * self.mean[scope[:, 0]])
                    entries += [(scope[:, 0], scope[:, 1], c / 2), (scope[:, 1], scope[:, 0], c / 2)]
                case _:
                    return None
        i, j, m = (np.concatenate(parts) for parts in zip(*entries, strict=True))
        return gradient, i, j, m


def cells_of(program: Program) -> Cells | None:
    """The variables of real and complex fields by cell, on a lattice that is periodic along every axis."""
    lattice = program.lattice
    if lattice is None or lattice.is_graph or any(b != PERIODIC for b in lattice.boundary):
        return None
    cell, columns = np.arange(lattice.n_cells), []
    for f, b in zip(program.fields, ExpansionSums(program).blocks, strict=True):
        sites = [cell * lattice.n_basis + s for s in range(lattice.n_basis)]
        if f.on != "sites":
            if (lattice.link_number < 0).any():
                return None
            sites = [lattice.link_number[s, axis] for s in sites for axis in range(lattice.n_axes)]
        columns += [b.first + element * b.components + c for element in sites for c in range(b.components)]
    return Cells(tuple(lattice.shape), np.stack(columns, 1))


def _sampled(
    context: Context, normal: Normal, rest: list[Expr], seed: int, samples: int
) -> tuple[dict[Expr, ExactValue], dict[Expr, np.ndarray]]:
    evaluator, rng = FlatEvaluator(context), np.random.default_rng(seed)
    values: dict[Expr, list[np.ndarray]] = {e: [] for e in rest}
    chunk = max(1, min(CHUNK, 2**24 // len(normal.mean)))
    for start in range(0, samples, chunk):
        x = normal.sample(min(chunk, samples - start), rng)
        for e in rest:
            values[e].append(evaluated(evaluator, e, x))
    return summarise({e: np.concatenate(v) for e, v in values.items()})


def _unbounded(program: Program, found: NotPositive) -> Diagnostic:
    blocks = ExpansionSums(program).blocks
    block = next(b for b in blocks if b.first <= found.variable < b.first + b.elements * b.components)
    element = (found.variable - block.first) // block.components
    flat = abs(found.eigenvalue) < 1e-9
    return Diagnostic(
        "not-normalisable",
        "ln Z is infinite: the quadratic energy does not grow in every direction",
        notes=(
            f"its matrix has the eigenvalue {0.0 if flat else found.eigenvalue:.6g} {found.mode}",
            f"largest there: `{block.field}`, element {element}",
        ),
        hints=(
            ("a term that holds the mean in place, such as a mass, would make it finite",)
            if flat
            else ("a positive power of fourth or higher degree would bound it",)
        ),
    )
