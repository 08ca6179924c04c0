"""The compiled energy against the interpreter: every reduction, support, lattice and boundary."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from lowering import programs as p
from vdsl.errors import VfeError
from vdsl.ir import interpret
from vdsl.ir.expr import Binary, Const, IndexVar
from vdsl.ir.lattice import named_lattice
from vdsl.ir.program import Program
from vdsl.ir.support import Angle, Group, Potts, Real, Spin
from vdsl.model import Model


def compare(program: Program, single: bool = False) -> None:
    """Every term of a random configuration against the interpreter: float64 to rounding, float32 to its own."""
    x = interpret.random_configuration(program, np.random.default_rng(0))
    expected = interpret.energy_terms(program, x, interpret.resolve_parameters(program))
    with jax.enable_x64(True):
        found = {name: float(v) for name, v in Model(program).energy_terms(x).items()}
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-11, atol=1e-11, err_msg=name)
    if single:
        for name, value in Model(program).energy_terms(x).items():
            np.testing.assert_allclose(float(value), expected[name], rtol=2e-5, atol=2e-4, err_msg=name)


def data(lattice):
    return (p.bond_data(lattice), p.site_data(lattice))


@pytest.mark.parametrize("lattice", ["square", "square mixed", "honeycomb", "complete"])
def test_pairs_of_every_support(lattice):
    for support in p.SITE_SUPPORTS.values():
        compare(p.pair_program(p.LATTICES[lattice], support), single=lattice == "square")


@pytest.mark.parametrize("lattice", p.LATTICES)
def test_pairs_on_every_lattice(lattice):
    compare(p.pair_program(p.LATTICES[lattice], Real()), single=True)


@pytest.mark.parametrize("lattice", ["square mixed", "kagome", "complete", "graph", "square of two"])
def test_reductions(lattice):
    found = p.LATTICES[lattice]
    compare(p.many(found, Real(), p.graph_terms(), data=data(found)))


@pytest.mark.parametrize("lattice", ["chain antiperiodic", "square", "square mixed", "honeycomb open", "cubic"])
def test_displacements(lattice):
    found = p.LATTICES[lattice]
    compare(p.many(found, Real(), p.lattice_terms(), data=data(found)))


@pytest.mark.parametrize("lattice", ["square", "square mixed", "square half open", "cubic", "honeycomb open"])
def test_links(lattice):
    found = p.LATTICES[lattice]
    compare(p.many(found, Angle(), p.link_terms(), on="links", data=(p.link_data(found),)))


@pytest.mark.parametrize(("lattice", "group"), [("square half open", "SU3"), ("square", "SU2"), ("hypercubic", "SU3")])
def test_wilson_action(lattice, group):
    compare(p.program(p.LATTICES[lattice], Group(group), p.wilson(), on="links"), single=True)


def test_polyakov_loop_multiplies_in_order():
    compare(p.program(p.LATTICES["square"], Group("SU3"), p.polyakov(4), on="links"))


def test_matrices():
    compare(p.many(p.LATTICES["square"], Group("SU3"), p.matrix_terms()))


def test_functions():
    compare(p.many(p.LATTICES["chain"], Real(), p.function_terms()))


def test_colours_do_not_overflow():
    square = p.times(p.f(p.X), p.f(p.X), p.f(p.X))
    compare(p.program(p.LATTICES["square"], Potts(100), p.total(square, p.SITES)))


def test_spins_of_a_long_range_reach_by_rows():
    """A filter over a product of sites too large to hold at once is tried in pieces."""
    lattice = named_lattice("chain", (3000,), ("periodic",))
    both = p.total(
        p.times(p.f("x"), p.f("y")),
        p.over("sites", "x"),
        p.over("sites", "y"),
        where=Binary("==", p.plus(IndexVar("x"), Const(5)), IndexVar("y")),
    )
    x = np.random.default_rng(0).choice([-1, 1], 3000).astype(np.int8)
    assert float(Model(p.program(lattice, Spin(), both)).energy(x)) == float(np.sum(x[:-5] * x[5:], dtype=int))


def test_refuses_what_is_too_large_before_allocating():
    lattice = named_lattice("square", (1000, 1000), ("periodic",) * 2)
    every = p.total(p.times(p.f("x"), p.f("y")), p.over("pairs", "x", "y"))
    with pytest.raises(VfeError) as error:
        Model(p.program(lattice, Spin(), every)).energy(np.ones(10**6, np.int8))
    assert error.value.diagnostics[0].code == "too-large"
    assert error.value.exit_code == 4
