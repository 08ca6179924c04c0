"""Factors against the interpreter: the energy of random configurations is the same number."""

from __future__ import annotations

import time

import numpy as np
import pytest

from vdsl.ir.expr import (
    Binary,
    Binder,
    Call,
    Const,
    DataRead,
    Expr,
    IndexVar,
    Param,
    Place,
    Read,
    Reduce,
    Ref,
    Select,
    SetOf,
    Unary,
)
from vdsl.ir.factors import FactorGraph, factorise, factorise_observable, states_of
from vdsl.ir.interpret import energy, evaluate, random_configuration
from vdsl.ir.lattice import Lattice, complete_graph, graph_lattice, named_lattice
from vdsl.ir.program import Data, Definition, Field, FrozenArray, Observable, Parameter, Program, Term
from vdsl.ir.support import Clock, Occupation, Potts, Spin

I, J, X, Y = Place("i"), Place("j"), Place("x"), Place("y")
NN = Binder(("i", "j"), SetOf("bonds", "nn"))
SITES = Binder(("x",), SetOf("sites"))
AXES = Binder(("mu",), SetOf("axes"))


def s(place: Place, name: str = "s") -> Read:
    return Read(name, place)


def add(*terms: Expr) -> Expr:
    return terms[0] if len(terms) == 1 else Binary("+", add(*terms[:-1]), terms[-1])


def mul(*terms: Expr) -> Expr:
    return terms[0] if len(terms) == 1 else Binary("*", mul(*terms[:-1]), terms[-1])


def sub(a: Expr, b: Expr) -> Expr:
    return Binary("-", a, b)


def total(body: Expr, *binders: Binder, where: Expr | None = None, op: str = "sum") -> Reduce:
    return Reduce(op, binders or (NN,), body, where)


def step(base: str, axis: int | str, amount: int = 1) -> Place:
    return Place(base, ((axis, Const(amount)),))


def delta(a: Expr, b: Expr) -> Call:
    return Call("delta", (a, b))


def lattice(
    kind: str = "square", shape: tuple[int, ...] = (3, 4), boundary: str | tuple[str, ...] = "periodic"
) -> Lattice:
    return named_lattice(kind, shape, (boundary,) * len(shape) if isinstance(boundary, str) else boundary)


def program(where: Lattice, fields: tuple[Field, ...], *terms: Expr, **more) -> Program:
    named = tuple(Term(f"t{k}", value) for k, value in enumerate(terms))
    return Program("m", where, fields, named, Const(1.0), **more)


SPIN = (Field("s", Spin()),)
POTTS = (Field("s", Potts(3)),)
CLOCK = (Field("s", Clock(5)),)
OCCUPIED = (Field("s", Occupation()),)
TWO = (Field("s", Spin()), Field("t", Spin()))
MIXED = (Field("s", Spin()), Field("t", Potts(3)), Field("u", Clock(4), "links"))
ISING = Unary("-", total(mul(Param("J"), s(I), s(J))))
FIELD = mul(Unary("-", Param("h")), total(s(X), SITES))
LAPLACE = total(mul(s(X), sub(sub(mul(Const(2), s(X)), s(step("x", "mu"))), s(step("x", "mu", -1)))), SITES, AXES)
MEAN = total(s(X), SITES, op="mean")
PLAQUETTE = Binder(("x", "mu", "nu"), SetOf("plaquettes"))
FLUX = sub(
    sub(add(Read("u", X, "mu"), Read("u", step("x", "mu"), "nu")), Read("u", step("x", "nu"), "mu")), Read("u", X, "nu")
)
THETA = {"J": 0.7, "h": -0.3}
RNG = np.random.default_rng(5)


def with_data(name: str, on: str | None, values: np.ndarray) -> dict:
    return {"data": (Data(name, on, FrozenArray(values)),)}


SQUARE, SMALL, OPEN = lattice(), lattice(shape=(2, 2)), lattice(boundary="open")
TWISTED = lattice(shape=(3, 3), boundary=("antiperiodic", "periodic"))
COMPLETE = complete_graph(6)
CASES: dict[str, Program] = {
    "ising": program(SQUARE, SPIN, ISING, FIELD),
    "ising-2x2": program(SMALL, SPIN, ISING, FIELD),
    "ising-1": program(lattice(shape=(1, 3)), SPIN, ISING),
    "ising-open": program(OPEN, SPIN, ISING, FIELD),
    "ising-antiperiodic": program(TWISTED, SPIN, ISING, FIELD),
    "clock-antiperiodic": program(
        TWISTED, CLOCK, total(Call("cos", (sub(s(I), s(J)),))), total(Call("cos", (s(X),)), SITES)
    ),
    "laplace": program(SQUARE, SPIN, LAPLACE),
    "laplace-potts-open": program(OPEN, POTTS, LAPLACE),
    "potts-triangular": program(lattice("triangular", (3, 3)), POTTS, Unary("-", total(delta(s(I), s(J))))),
    "occupation-kagome": program(
        lattice("kagome", (2, 2)), OCCUPIED, total(mul(s(I), s(J))), mul(Const(-2), total(s(X), SITES))
    ),
    "nested": program(SQUARE, SPIN, total(mul(s(X), total(s(step("x", "mu")), AXES)), SITES)),
    "power-of-nested": program(SQUARE, SPIN, total(Binary("^", total(s(step("x", "mu")), AXES), Const(3)), SITES)),
    "select": program(
        SQUARE,
        SPIN,
        total(Select(Binary("<", IndexVar("x"), Const(5)), s(X), mul(Const(3), s(X), s(step("x", 0)))), SITES),
    ),
    "dynamic-where": program(SQUARE, POTTS, total(mul(s(I), s(J)), where=Binary("<", s(I), s(J)))),
    "static-where": program(SQUARE, SPIN, total(s(X), SITES, where=Binary(">", IndexVar("x"), Const(6)))),
    "mean": program(SQUARE, SPIN, mul(Const(4.0), MEAN), Binary("/", total(mul(s(I), s(J)), op="mean"), Const(3))),
    "square-of-mean": program(SQUARE, SPIN, mul(Param("J"), Binary("^", add(MEAN, Const(0.5)), Const(2)))),
    "product-of-sums": program(SQUARE, SPIN, mul(MEAN, sub(total(mul(s(I), s(J))), Const(1.0)))),
    "hopfield": program(
        COMPLETE,
        SPIN,
        mul(
            Const(-0.5),
            total(
                Binary("^", total(mul(DataRead("xi", "site", (X,), index=(IndexVar("a"),)), s(X)), SITES), Const(2)),
                Binder(("a",), SetOf("range", bounds=(0, 3, 1))),
            ),
        ),
        **with_data("xi", "sites", RNG.choice([-1, 1], (6, 3))),
    ),
    "sk": program(
        COMPLETE,
        SPIN,
        total(mul(DataRead("K", "bond", (I, J)), s(I), s(J))),
        **with_data("K", "nn", RNG.normal(size=15)),
    ),
    "bond-data-by-step-2x2": program(
        SMALL,
        SPIN,
        total(mul(DataRead("K", "bond", (X, step("x", "mu"))), s(X), s(step("x", "mu"))), SITES, AXES),
        total(mul(DataRead("K", "bond", (X, step("x", "mu", -1))), s(X)), SITES, AXES),
        **with_data("K", "nn", RNG.normal(size=8)),
    ),
    "link-data-open": program(
        OPEN,
        SPIN,
        total(mul(DataRead("K", "link", (X,), "mu"), s(X), s(step("x", "mu"))), SITES, AXES),
        **with_data("K", "links", RNG.normal(size=17)),
    ),
    "state-subscript": program(
        SQUARE,
        POTTS,
        total(DataRead("M", "index", index=(s(I), s(J)))),
        **with_data("M", None, RNG.normal(size=(3, 3))),
    ),
    "ashkin-teller": program(SQUARE, TWO, total(mul(s(I), s(J))), total(mul(s(I), s(J), s(I, "t"), s(J, "t")))),
    "mixed-fields": program(
        OPEN,
        MIXED,
        total(mul(s(X), s(X, "t")), SITES),
        total(Call("cos", (FLUX,)), PLAQUETTE),
        total(mul(s(X), Call("sin", (Read("u", X, "mu"),))), SITES, AXES),
    ),
    "definition": program(
        SQUARE, SPIN, mul(Ref("g"), MEAN), definitions=(Definition("g", mul(Param("J"), total(IndexVar("x"), SITES))),)
    ),
    "constant": program(SQUARE, SPIN, add(ISING, total(mul(Const(2), Param("h")), SITES)), Const(1.5)),
}


@pytest.mark.parametrize("name", CASES)
def test_energy_is_the_interpreters(name: str):
    p = CASES[name]
    graph = factorise(p, THETA)
    assert not graph.opaque
    rng = np.random.default_rng(0)
    for _ in range(4):
        x = random_configuration(p, rng)
        assert graph.energy(states_of(p, x)) == pytest.approx(energy(p, x, THETA), rel=1e-12, abs=1e-11)
    check_canonical(graph)


def check_canonical(graph: FactorGraph) -> None:
    for g in graph.groups:
        assert g.tables.shape == (len(g.scopes), *graph.cardinalities[g.scopes[0]])
        assert (graph.cardinalities[g.scopes] == g.tables.shape[1:]).all()
        assert (np.diff(g.scopes, axis=1) > 0).all()
        assert len(np.unique(g.scopes, axis=0)) == len(g.scopes)


def test_wide_bodies_come_apart_into_pairs():
    for name, largest in (("laplace", 2), ("square-of-mean", 2), ("hopfield", 2), ("nested", 2), ("mean", 2)):
        assert max(g.scopes.shape[1] for g in factorise(CASES[name], THETA).groups) == largest
    pairs = [g for g in factorise(CASES["hopfield"], THETA).groups if g.scopes.shape[1] == 2]
    assert sum(len(g.scopes) for g in pairs) <= 15


def test_squares_of_spins_are_constants():
    p = program(SQUARE, SPIN, total(mul(s(X), s(X)), SITES))
    graph = factorise(p, {})
    assert graph.groups == ()
    assert graph.constant == 12


def test_what_is_not_a_sum_of_factors_is_opaque_and_spoils_nothing_else():
    hard = Call("abs", (total(s(X), SITES),))
    p = program(lattice(shape=(6, 6)), SPIN, add(ISING, mul(Const(2), hard)))
    graph = factorise(p, THETA)
    assert [name for name, _ in graph.opaque] == ["t0"]
    x = random_configuration(p, np.random.default_rng(0))
    rest = evaluate(p, graph.opaque[0][1], THETA, x)
    assert graph.energy(states_of(p, x)) + rest == pytest.approx(energy(p, x, THETA))


def test_a_place_past_an_open_boundary_makes_a_term_vanish():
    p = program(OPEN, SPIN, s(Place(None, ((0, Const(5)),), Const(0))), ISING)
    graph = factorise(p, THETA)
    x = random_configuration(p, np.random.default_rng(0))
    assert graph.energy(states_of(p, x)) == pytest.approx(energy(p, x, THETA))


OBSERVABLES: dict[str, tuple[Expr, int]] = {
    "m": (MEAN, 0),
    "m2": (Binary("^", Ref("m"), Const(2)), 1),
    "m-times-bonds": (mul(Const(3), Ref("m"), total(mul(s(I), s(J)))), 1),
    "spread": (sub(Binary("^", add(Ref("m"), Const(1)), Const(2)), mul(Ref("m"), Const(2.5))), 1),
    "two-sites": (mul(s(Place(None, (), Const(0))), s(Place(None, (), Const(5)))), 1),
    "inner-square": (total(Binary("^", add(s(X), s(step("x", 0))), Const(2)), SITES), 0),
}


@pytest.mark.parametrize("name", OBSERVABLES)
def test_observables_are_polynomials(name: str):
    expr, products = OBSERVABLES[name]
    p = program(SQUARE, SPIN, ISING, observables=(Observable("m", MEAN),))
    polynomial = factorise_observable(p, expr, THETA)
    assert polynomial is not None
    assert len(polynomial.products) == products
    rng = np.random.default_rng(1)
    for _ in range(4):
        x = random_configuration(p, rng)
        assert polynomial.evaluate(states_of(p, x)) == pytest.approx(evaluate(p, expr, THETA, x), abs=1e-12)


def test_other_observables_are_not():
    p = program(lattice(shape=(6, 6)), SPIN, ISING)
    for expr in (Call("abs", (MEAN,)), Binary("^", MEAN, Const(4))):
        assert factorise_observable(p, expr, THETA) is None


def test_large_lattices_are_fast():
    p = program(lattice(shape=(64, 64)), SPIN, ISING, FIELD)
    factorise(p, THETA)  # warms the lattice's own caches
    start = time.process_time()
    graph = factorise(p, THETA)
    assert time.process_time() - start < 1.0
    assert sum(len(g.scopes) for g in graph.groups) == 3 * 64 * 64


def test_graphs_and_multiple_edges():
    p = program(graph_lattice("graph", 4, ((0, 1), (1, 0), (2, 3), (3, 1))), SPIN, ISING)
    graph = factorise(p, THETA)
    assert graph.coordinates is None
    assert sum(len(g.scopes) for g in graph.groups) == 3
    x = random_configuration(p, np.random.default_rng(0))
    assert graph.energy(states_of(p, x)) == pytest.approx(energy(p, x, THETA))


def test_parameters_change_tables_only():
    p = program(SQUARE, SPIN, ISING, parameters=(Parameter("J", Const(1.0)),))
    one, two = factorise(p, {"J": 1.0}), factorise(p, {"J": 2.0})
    np.testing.assert_array_equal(2 * one.groups[0].tables, two.groups[0].tables)
    np.testing.assert_array_equal(one.groups[0].scopes, two.groups[0].scopes)
