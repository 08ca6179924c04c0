"""The symmetries of a program: inferred from the form of its terms, or claimed and checked on random configurations.

`infer` finds only what holds for certain (gauge invariance: on random configurations of small lattices of the same
kind, which a random transformation moves); it may miss symmetries. With `theta` it counts a term whose coupling is
exactly 0 there as absent (an Ising model with h = 0 has its flip), without it symmetries hold for all parameters.
`verify` compares, term by term, the energies of random configurations before and after random elements of the claims.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import gcd, isfinite, isnan, lcm
from typing import Any

import numpy as np

from vdsl.errors import Diagnostic, Span, VfeError
from vdsl.ir import interpret
from vdsl.ir.actions import Symmetry, act, random_element
from vdsl.ir.claims import claimed, couples
from vdsl.ir.configurations import random_configuration
from vdsl.ir.expr import Expr
from vdsl.ir.gauge import gauge_group_of
from vdsl.ir.invariance import (
    compared_together,
    is_homogeneous,
    parities,
    phase_constraints,
    rotated_together,
    shift_constraints,
    terms,
)
from vdsl.ir.lattice import ANTIPERIODIC, PERIODIC
from vdsl.ir.program import Program
from vdsl.ir.support import (
    Angle,
    Clock,
    Complex,
    Group,
    Occupation,
    Potts,
    Real,
    Sphere,
    Spin,
    Support,
    cardinality,
    event_shape,
    has_negation,
)

__all__ = [
    "Symmetry",
    "Violation",
    "act",
    "claimed",
    "infer",
    "permutation_fields",
    "random_element",
    "shift_fields",
    "spin_flip_generators",
    "verify",
    "verify_claims",
]

Theta = Mapping[str, float]
EnergyTerms = Callable[[dict[str, np.ndarray]], Mapping[str, float]]


# Inference


def infer(program: Program, theta: Theta | None = None) -> tuple[Symmetry, ...]:
    """The symmetries that are plain from the terms."""
    exprs = terms(program, theta)
    flips = tuple(Symmetry("z2", names, "Z2") for names in _flips(program, exprs, Spin, Real, Sphere, Group))
    return (
        *flips,
        *_permutations(program, exprs),
        *_shifts(program, exprs),
        *_phases(program, exprs),
        *_rotations(program, exprs),
        *_translations(program, exprs),
        *(() if theta is None else _gauges(program, exprs, theta)),
    )


def spin_flip_generators(program: Program, theta: Theta | None = None) -> tuple[tuple[str, ...], ...]:
    """Sets of spin fields whose joint flip leaves every term alone: independent generators of the group of them all."""
    return _flips(program, terms(program, theta), Spin)


def permutation_fields(program: Program, theta: Theta | None = None) -> tuple[tuple[str, ...], ...]:
    """Classes of discrete fields whose colours may be permuted, all fields of a class by the same permutation."""
    return tuple(s.fields for s in _permutations(program, terms(program, theta)))


def shift_fields(program: Program, theta: Theta | None = None) -> tuple[str, ...]:
    """The clock and angle fields that any one common angle (of the clock) may be added to."""
    return tuple(
        s.fields[0]
        for s in _shifts(program, terms(program, theta))
        if len(s.fields) == 1 and s.order in (0, getattr(program.field(s.fields[0]).support, "q", 0))
    )


def _flips(program: Program, exprs: Iterable[Expr], *supports: type) -> tuple[tuple[str, ...], ...]:
    names = [f.name for f in program.fields if isinstance(f.support, supports) and _flippable(f.support)]
    masks = set().union(*(parities(e, {name: 1 << k for k, name in enumerate(names)}) for e in exprs), {0})
    rows: list[int] = []  # reduced: the leading (lowest) bit of each row stands in no other row
    for mask in sorted(masks):
        for row in rows:
            if mask & row & -row:
                mask ^= row
        if mask:
            rows = [row ^ mask if row & mask & -mask else row for row in rows] + [mask]
    leading = {row & -row: row for row in rows}
    generators = []
    for k in range(len(names)):
        if 1 << k not in leading:
            flipped = {k} | {low.bit_length() - 1 for low, row in leading.items() if row >> k & 1}
            generators.append(tuple(names[m] for m in sorted(flipped)))
    return tuple(generators)


def _flippable(support: Support) -> bool:
    return has_negation(support) and support != Group("U1")


def _permutations(program: Program, exprs: Iterable[Expr]) -> Iterator[Symmetry]:
    colours: list[str] = []
    for field in program.fields:
        reflects = isinstance(field.support, Clock) and _reflects(program)
        if isinstance(field.support, Potts | Occupation | Clock) and not reflects:
            colours.append(field.name)
    for names in compared_together(exprs, colours):
        supports = {program.field(name).support for name in names}
        if len(supports) == 1:
            yield Symmetry("permutation", names, f"S{cardinality(supports.pop())}")


def _shifts(program: Program, exprs: Iterable[Expr]) -> Iterator[Symmetry]:
    names = [f.name for f in program.fields if isinstance(f.support, Angle | Clock)]
    if not _reflects(program):
        yield from _cyclic(program, names, [shift_constraints(e, _numbered(names)) for e in exprs])


def _phases(program: Program, exprs: Iterable[Expr]) -> Iterator[Symmetry]:
    names = [f.name for f in program.fields if f.support in (Complex(), Group("U1"))]
    yield from _cyclic(program, names, [phase_constraints(e, _numbered(names)) for e in exprs])


def _reflects(program: Program) -> bool:
    """Whether angles are reflected at a boundary, so that they cannot be shifted."""
    return program.lattice is not None and ANTIPERIODIC in program.lattice.boundary


def _numbered(names: list[str]) -> dict[str, int]:
    return {name: k for k, name in enumerate(names)}


def _cyclic(program: Program, names: list[str], found: list[set[tuple[int, ...]]]) -> Iterator[Symmetry]:
    """The c with v·c = 0 (mod 2π) for all constraints v: of each field by itself, and continuous ones of several."""
    constraints = sorted(set().union(*found)) if found else []
    for k, name in enumerate(names):
        support = program.field(name).support
        order = gcd(*(v[k] for v in constraints), support.q if isinstance(support, Clock) else 0)
        if order != 1:
            yield Symmetry("shift", (name,), f"Z{order}" if order else "U(1)", weights=(1,), order=order)
    for weights in _null_space(constraints, len(names)):
        moving = [k for k, w in enumerate(weights) if w]
        supports = [program.field(names[k]).support for k in moving]
        order = gcd(*(s.q for s in supports if isinstance(s, Clock)))
        if len(moving) > 1 and order != 1:
            group = f"Z{order}" if order else "U(1)"
            chosen = tuple(weights[k] for k in moving)
            yield Symmetry("shift", tuple(names[k] for k in moving), group, weights=chosen, order=order)


def _null_space(rows: list[tuple[int, ...]], n: int) -> list[tuple[int, ...]]:
    """A basis of the integer vectors orthogonal to all rows (over the rationals, scaled to coprime integers)."""
    reduced: dict[int, list[Fraction]] = {}  # by pivot column
    for row in rows:
        v = [Fraction(a) for a in row]
        for p, other in reduced.items():
            v = [a - v[p] * b for a, b in zip(v, other, strict=True)]
        pivot = next((k for k, a in enumerate(v) if a), None)
        if pivot is None:
            continue
        v = [a / v[pivot] for a in v]
        for p, other in reduced.items():
            reduced[p] = [a - other[pivot] * b for a, b in zip(other, v, strict=True)]
        reduced[pivot] = v
    basis = []
    for free in (k for k in range(n) if k not in reduced):
        w = [-reduced[k][free] if k in reduced else Fraction(int(k == free)) for k in range(n)]
        scale = lcm(*(a.denominator for a in w))
        integers = [int(a * scale) for a in w]
        sign = 1 if next(a for a in integers if a) > 0 else -1
        basis.append(tuple(sign * a // gcd(*integers) for a in integers))
    return basis


def _rotations(program: Program, exprs: Iterable[Expr]) -> Iterator[Symmetry]:
    names = [f.name for f in program.fields if isinstance(f.support, Sphere | Real) and event_shape(f.support) > (1,)]
    classes, proper = rotated_together(exprs, names)
    for members in classes:
        sizes = {event_shape(program.field(name).support) for name in members}
        if len(sizes) == 1:
            ((n,),) = sizes
            yield Symmetry("rotation", members, f"{'SO' if proper & set(members) else 'O'}({n})")


def _translations(program: Program, exprs: Iterable[Expr]) -> Iterator[Symmetry]:
    lattice = program.lattice
    if lattice is None or lattice.is_graph or not all(is_homogeneous(e) for e in exprs):
        return
    axes = tuple(
        a for a, (n, b) in enumerate(zip(lattice.shape, lattice.boundary, strict=True)) if b == PERIODIC and n > 1
    )
    if axes:
        yield Symmetry("translation", axes=axes)


_MOST_MATTER = 2  # fields whose charges are tried, five each
_SMALL_SIDES = (2, 3)  # what closes on both, closes on any lattice, but for straight lines of six links and more
_MOST_VISITS = 50_000  # of the interpreter for one energy: a quarter of a second


def _gauges(program: Program, exprs: Iterable[Expr], theta: Theta) -> Iterator[Symmetry]:
    """Gauge transformations of all link fields of one group, with the charges of the matter that they act on.

    Continuous groups only: terms of discrete links may stay the same by chance.
    """
    lattice = program.lattice
    if lattice is None or lattice.is_graph:
        return
    supports = dict.fromkeys(f.support for f in program.fields if gauge_group_of(f) is not None)
    homogeneous = all(is_homogeneous(e) for e in exprs)
    sides = _SMALL_SIDES if homogeneous else (max(lattice.shape),)
    for support in supports:
        links = tuple(f.name for f in program.fields if f.on == "links" and f.support == support)
        matter = tuple(f.name for f in program.fields if f.on == "sites" and couples(support, f.support))
        if len(matter) > _MOST_MATTER:
            continue
        readings = list(_readings(Symmetry("gauge", (*links, *matter)), program))
        for side in sides:
            cut = replace(lattice, shape=tuple(min(n, side) for n in lattice.shape))
            small = replace(program, lattice=cut)
            if interpret.visits(small) > _MOST_VISITS:
                readings = []
            readings = [r for r in readings if _holds(r, small, theta)]
        if readings:
            acting = [(f, w) for f, w in zip(readings[0].fields, readings[0].weights, strict=True) if w]
            yield Symmetry("gauge", tuple(f for f, _ in acting), weights=tuple(w for _, w in acting))


def _holds(symmetry: Symmetry, program: Program, theta: Theta) -> bool:
    """Whether a random element leaves every term of a random configuration alone; the random numbers are fixed."""
    trial = _trial(symmetry, program, np.random.default_rng(0), 2, lambda x: interpret.energy_terms(program, x, theta))
    return _first_change(symmetry, program, trial, 1e-9) is None


# Verification


@dataclass(frozen=True)
class Violation:
    """A symmetry, the first term it changes, the energies of that term before and after, and where it is claimed."""

    symmetry: Symmetry
    term: str
    before: float
    after: float
    span: Span | None = None

    def diagnostic(self) -> Diagnostic:
        """The finding as an error about the model."""
        return Diagnostic(
            "symmetry-violated",
            f"the claimed symmetry `{self.symmetry.kind}` does not hold: it changes `{self.term}`",
            self.span,
            "claimed here" if self.span else "",
            notes=(
                f"claimed: {self.symmetry}",
                f"energy of `{self.term}` on a random configuration: {self.before:.12g}",
                f"energy of `{self.term}` after the transformation: {self.after:.12g}",
            ),
            hints=(f"remove the claim, or correct `{self.term}`",),
        )


def verify(
    program: Program,
    theta: Theta,
    rng: np.random.Generator,
    trials: int = 3,
    energy_terms: EnergyTerms | None = None,
    tolerance: float = 1e-9,
    symmetries: Iterable[Symmetry] | None = None,
) -> list[Violation]:
    """The claims (or the given symmetries) that change a term of some random configuration.

    `energy_terms` may be a faster evaluator than the interpreter. `tolerance` is relative to the largest energy that
    the term had in any trial; raise it for an evaluator in single precision.
    """
    evaluate = energy_terms or (lambda x: interpret.energy_terms(program, x, theta))
    spans = [claim.span for claim in program.claims]
    chosen = list(zip(claimed(program), spans, strict=True)) if symmetries is None else [(s, None) for s in symmetries]
    found = [(_violation(s, program, rng, trials, evaluate, tolerance), span) for s, span in chosen]
    return [replace(violation, span=span) for violation, span in found if violation is not None]


def verify_claims(program: Program, theta: Theta, rng: np.random.Generator, **options: Any) -> None:
    """Raises `symmetry-violated` for every claim that `verify` finds broken."""
    violations = verify(program, theta, rng, **options)
    if violations:
        raise VfeError([v.diagnostic() for v in violations])


def _violation(
    symmetry: Symmetry,
    program: Program,
    rng: np.random.Generator,
    trials: int,
    evaluate: EnergyTerms,
    tolerance: float,
) -> Violation | None:
    """The first violation of a symmetry, if all ways to read it are violated (see `_readings`)."""
    trial = _trial(symmetry, program, rng, trials, evaluate)
    found = [_first_change(reading, program, trial, tolerance) for reading in _readings(symmetry, program)]
    return None if None in found else found[0]


@dataclass(frozen=True)
class _Trial:
    """Random configurations with random elements, and the terms of their energies; `evaluate` gives them."""

    drawn: list[tuple[dict[str, np.ndarray], object]]
    before: list[dict[str, float]]
    evaluate: EnergyTerms


def _trial(
    symmetry: Symmetry, program: Program, rng: np.random.Generator, trials: int, evaluate: EnergyTerms
) -> _Trial:
    drawn = [(random_configuration(program, rng), random_element(symmetry, program, rng)) for _ in range(trials)]
    return _Trial(drawn, [{term: float(e) for term, e in evaluate(x).items()} for x, _ in drawn], evaluate)


def _first_change(reading: Symmetry, program: Program, trial: _Trial, tolerance: float) -> Violation | None:
    """The first term that an element changes."""
    before = trial.before
    scales = {t.name: max((abs(e[t.name]) for e in before if isfinite(e[t.name])), default=0.0) for t in program.terms}
    floor = 1e-4 * max(scales.values(), default=0.0)  # a term that cancels to rounding is as uncertain as the others
    margins = {term: tolerance * max(scale, floor) for term, scale in scales.items()}
    for (x, element), energies in zip(trial.drawn, before, strict=True):
        after = trial.evaluate(act(reading, element, x, program))
        for term, energy in energies.items():
            if _differ(energy, float(after[term]), margins[term]):
                return Violation(reading, term, energy, float(after[term]))
    return None


def _differ(a: float, b: float, margin: float) -> bool:
    if a == b or (isnan(a) and isnan(b)):
        return False
    return not abs(a - b) <= margin


def _readings(symmetry: Symmetry, program: Program) -> Iterator[Symmetry]:
    """A gauge claim does not say the charges of the matter fields: ±1, ±2, and 0 are tried."""
    if symmetry.kind != "gauge":
        yield symmetry
        return
    choices = [(1,) if program.field(n).on == "links" else (1, -1, 2, -2, 0) for n in symmetry.fields]
    for weights in itertools.product(*choices):
        yield Symmetry("gauge", symmetry.fields, symmetry.group, weights=weights, source=symmetry.source)
