"""Sums over plaquettes: an expression of one two-dimensional link field -> Σ_p f(P_p) + b, if that is what it is.

f is read off one plaquette with open ends, where one link is P and the others are 1; that the expression on the lattice
is such a sum is then checked on random configurations. Nothing is asked of how it is written, so circulations, loops
and products of links written out are alike. Large periodic lattices are checked on two small ones of the same kind: a
homogeneous expression is there the same up to powers of the number of plaquettes, which the two sizes show.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from vdsl.ir.configurations import random_configuration
from vdsl.ir.expr import Binder, Expr, Place, Read, Ref, walk
from vdsl.ir.gauge import gauge_group_of, plaquette_links
from vdsl.ir.interpret import evaluate, visits
from vdsl.ir.invariance import is_homogeneous
from vdsl.ir.lattice import ANTIPERIODIC, OPEN, PERIODIC, Lattice
from vdsl.ir.program import Program, Term
from vdsl.ir.support import Angle, Group

SMALL = 24  # plaquettes: lattices up to this size are checked as they are
MOST_VISITS = 400_000  # of the interpreter for one value: two seconds
_TOLERANCE = 1e-9
_TRIALS = 3


@dataclass(frozen=True)
class PlaquetteSum:
    """Σ_k a_k Σ_p f_k(P_p) + b: `parts` are (the expression f_k is read off, a_k), with f_k(1) = 0; `constant` is b."""

    parts: tuple[tuple[Expr, float], ...]
    constant: float


class PlaquetteModel:
    """A program whose only field lives on the links of a two-dimensional lattice, and what can be read off it.

    group: "U1", "SU2" or "SU3", with n × n matrices; an `angle` field counts as U1, its holonomies being angles.
    closed: whether the lattice is a torus.
    """

    def __init__(self, program: Program, theta: Mapping[str, float], lattice: Lattice):
        self.program, self.theta, self.lattice = program, dict(theta), lattice
        self.field = program.fields[0]
        self.group = gauge_group_of(self.field) or "U1"
        self.n = {"U1": 1, "SU2": 2, "SU3": 3}[self.group]
        self.closed = all(b == PERIODIC for b in lattice.boundary)
        self.plaquettes = lattice.n_plaquettes
        self._series: dict[int, tuple[Expr, np.ndarray | None]] = {}

    @property
    def log_measure(self) -> float:
        """ln of the volume of all links: 2π each for angles, 1 for groups."""
        return self.lattice.n_links * math.log(2 * math.pi) if isinstance(self.field.support, Angle) else 0.0

    def values(self, form: PlaquetteSum, holonomies: np.ndarray) -> np.ndarray:
        """Σ_k a_k f_k(P) for angles (k,) or matrices (k, n, n)."""
        at = np.concatenate([self._one[None], holonomies])
        total = np.zeros(len(holonomies))
        for expr, scale in form.parts:
            read = self._class_function(expr, at)
            total += scale * (read[1:] - read[0])
        return total

    def energy(self) -> PlaquetteSum | None:
        """The energy as a plaquette sum: all terms together."""
        forms = [self.read_off(t.value) for t in self.program.terms]
        known = [f for f in forms if f is not None]
        if len(known) < len(forms):
            return None
        return PlaquetteSum(sum((f.parts for f in known), ()), sum(f.constant for f in known))

    def read_off(self, expr: Expr) -> PlaquetteSum | None:
        """The plaquette sum that an expression is, or None."""
        written = inlined(self.program, expr)  # where its variables may collide: to be looked at, not evaluated
        if not any(isinstance(node, Read) for node in walk(written)):
            return PlaquetteSum((), float(np.real(evaluate(self.program, expr, self.theta))))
        if self.plaquettes <= SMALL:
            found = self._fitted(expr, self.lattice)
            return None if found is None else _sum(expr, *found)
        if not is_homogeneous(written):
            return None
        small, larger = _smaller(self.lattice)
        one, two = self._fitted(expr, small), self._fitted(expr, larger)
        if one is None or two is None:
            return None
        n, m = small.n_plaquettes, larger.n_plaquettes
        if math.isclose(one[0], two[0], rel_tol=1e-7, abs_tol=1e-300):
            scale = one[0]
        elif math.isclose(one[0] * n, two[0] * m, rel_tol=1e-7):  # a mean
            scale = one[0] * n / self.plaquettes
        else:
            return None
        if self.closed:
            return _sum(expr, scale, one[1] + (two[1] - one[1]) / (m - n) * (self.plaquettes - n))
        if self.visits(expr) > MOST_VISITS:
            return None
        return _sum(expr, scale, self.value(expr, self._cold(self.lattice)))

    def value(self, expr: Expr, links: np.ndarray) -> float:
        """A real expression on stored links."""
        return self._value(expr, links, self.lattice)

    def visits(self, expr: Expr) -> float:
        """How many nodes the interpreter visits for one value."""
        return visits(replace(self.program, terms=(Term("", inlined(self.program, expr)),)))

    def _fitted(self, expr: Expr, lattice: Lattice) -> tuple[float, float] | None:
        """(a, b) on a lattice, or None where some random configuration disagrees."""
        rng, program = np.random.default_rng(20), replace(self.program, lattice=lattice)
        constant = self._value(expr, self._cold(lattice), lattice)
        form, sums, found = PlaquetteSum(((expr, 1.0),), 0.0), [], []
        for _ in range(_TRIALS):
            links = random_configuration(program, rng)[self.field.name]
            sums.append(float(self.values(form, plaquette_holonomies(lattice, links)).sum()))
            found.append(self._value(expr, links, lattice) - constant)
        if not np.isfinite([constant, *sums, *found]).all():
            return None
        margin = _TOLERANCE * (abs(constant) + max(map(abs, found)))
        largest = int(np.argmax(np.abs(sums)))
        scale = 0.0 if abs(sums[largest]) <= margin else found[largest] / sums[largest]
        if any(abs(f - scale * s) > margin for f, s in zip(found, sums, strict=True)):
            return None
        return scale, constant

    # One plaquette

    @cached_property
    def _one(self) -> np.ndarray:
        return np.eye(self.n, dtype=complex) if self.n > 1 else np.zeros(())

    def _stored(self, holonomy: np.ndarray) -> np.ndarray:
        return np.exp(1j * holonomy) if self.field.support == Group("U1") else holonomy

    def _cold(self, lattice: Lattice) -> np.ndarray:
        unit = self._stored(self._one)
        return np.array(np.broadcast_to(unit, (lattice.n_links, *unit.shape)))

    def _class_function(self, expr: Expr, holonomies: np.ndarray) -> np.ndarray:
        """f at holonomies; by its Fourier series on the maximal torus where that is short, which most are."""
        if id(expr) not in self._series:
            self._series[id(expr)] = (expr, self._expanded(expr))
        series = self._series[id(expr)][1]
        if series is None:
            return self._on_plaquette(expr, holonomies)
        phases = self._phases(holonomies)
        wave = np.exp(1j * np.multiply.outer(phases, np.fft.fftfreq(len(series), 1 / len(series))))
        if self.n < 3:
            return (wave[:, 0] @ series).real
        return np.einsum("ka,kb,ab->k", wave[:, 0], wave[:, 1], series).real

    def _expanded(self, expr: Expr) -> np.ndarray | None:
        """Fourier coefficients of f, or None where some other angles disagree with them."""
        n = {1: 32, 2: 32, 3: 12}[self.n]
        rng = np.random.default_rng(22)
        tried = self._torus(rng.uniform(-np.pi, np.pi, (4, max(self.n - 1, 1))))
        if self.n < 3:
            values = self._on_plaquette(expr, self._torus(2 * np.pi * np.arange(n)[:, None] / n))
        else:
            i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
            triple = np.sort(np.stack([i, j, (-i - j) % n], -1).reshape(-1, 3), axis=1)
            classes, where = np.unique(triple, axis=0, return_inverse=True)
            found = self._on_plaquette(expr, self._torus(2 * np.pi * classes[:, :2] / n))
            values = found[where.reshape(-1)].reshape(n, n)
        if not np.isfinite(values).all():
            return None
        series = np.fft.fftn(values) / values.size
        self._series[id(expr)] = (expr, series)
        error = np.abs(self._class_function(expr, tried) - self._on_plaquette(expr, tried)).max()
        return series if error <= 1e-12 * max(np.abs(values).max(), 1e-300) else None

    def _torus(self, phases: np.ndarray) -> np.ndarray:
        """Group elements of phases (k, 1) or, for SU(3), (k, 2): angles, or diagonal matrices of determinant 1."""
        if self.n == 1:
            return phases[:, 0]
        every = np.concatenate([phases, -phases.sum(1, keepdims=True)], axis=1)
        return np.exp(1j * every)[:, :, None] * np.eye(self.n)

    def _phases(self, holonomies: np.ndarray) -> np.ndarray:
        match self.n:
            case 1:
                return holonomies[:, None]
            case 2:
                trace = np.trace(holonomies, axis1=1, axis2=2).real
                return np.arccos(np.clip(trace / 2, -1, 1))[:, None]
        return np.angle(np.linalg.eigvals(holonomies))[:, :2]

    def _on_plaquette(self, expr: Expr, holonomies: np.ndarray) -> np.ndarray:
        lattice = replace(self.lattice, shape=(2, 2), boundary=(OPEN, OPEN))
        links, out = self._cold(lattice), np.empty(len(holonomies))
        for k, p in enumerate(holonomies):
            links[lattice.link_number[0, 0]] = self._stored(p)
            out[k] = self._value(expr, links, lattice)
        return out

    def _value(self, expr: Expr, links: np.ndarray, lattice: Lattice) -> float:
        program = replace(self.program, lattice=lattice)
        return float(np.real(evaluate(program, expr, self.theta, {self.field.name: links})))


def plaquette_model(program: Program, theta: Mapping[str, float]) -> PlaquetteModel | None:
    """The view of a program that has the form asked for; None for any other."""
    lattice = program.lattice
    if lattice is None or lattice.is_graph or lattice.n_axes != 2 or lattice.n_basis != 1:
        return None
    if ANTIPERIODIC in lattice.boundary or not lattice.n_plaquettes or len(program.fields) != 1:
        return None
    if gauge_group_of(program.fields[0]) is None:
        return None
    return PlaquetteModel(program, theta, lattice)


def plaquette_holonomies(lattice: Lattice, links: np.ndarray) -> np.ndarray:
    """U_μ(x) U_ν(x+μ) U_μ(x+ν)† U_ν(x)† of every plaquette: angles in (−π, π] of angles or U(1), or matrices."""
    numbers, _ = plaquette_links(lattice)
    one, two, three, four = (links[numbers[:, k]] for k in range(4))
    if links.ndim == 3:
        dagger = lambda u: u.conj().swapaxes(1, 2)  # noqa: E731
        return one @ two @ dagger(three) @ dagger(four)
    if np.iscomplexobj(links):
        return np.angle(one * two * three.conj() * four.conj())
    total = one + two - three - four
    return np.pi - np.mod(np.pi - total, 2 * np.pi)


def inlined(program: Program, expr: Expr) -> Expr:
    """An expression with definitions and observables written out."""
    named = {d.name: d.value for d in program.definitions} | {o.name: o.value for o in program.observables}

    def rebuilt(node: Any) -> Any:
        if isinstance(node, Ref) and node.name in named:
            return rebuilt(named[node.name])
        if isinstance(node, tuple):
            return tuple(rebuilt(part) for part in node)
        if not isinstance(node, Expr | Place | Binder):
            return node
        return type(node)(**{f.name: rebuilt(getattr(node, f.name)) for f in fields(node)})

    return rebuilt(expr)


def _sum(expr: Expr, scale: float, constant: float) -> PlaquetteSum:
    return PlaquetteSum(((expr, scale),) if scale else (), constant)


def _smaller(lattice: Lattice) -> Iterator[Lattice]:
    """Two lattices of the same kind, of at most 3 × 4 cells along its long axes; the second is larger."""
    shape = [min(length, 3) for length in lattice.shape]
    yield replace(lattice, shape=tuple(shape))
    shape[int(np.argmax(lattice.shape))] += 1
    yield replace(lattice, shape=tuple(shape))
