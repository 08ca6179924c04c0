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


def compare(program: Program, seed: int = 0, tolerance: float = 1e-12) -> None:
    """Energy of a random configuration in float64 and float32."""
    x = interpret.random_configuration(program, np.random.default_rng(seed))
    theta = interpret.resolve_parameters(program)
    expected = interpret.energy(program, x, theta)
    scale = max(1.0, abs(expected)) if np.isfinite(expected) else 1.0
    with jax.enable_x64(True):
        found = float(Model(program).energy(x))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale * 10)
    np.testing.assert_allclose(float(Model(program).energy(x)), expected, rtol=0, atol=3e-4 * scale)


def data(lattice):
    return (p.bond_data(lattice), p.site_data(lattice))


@pytest.mark.parametrize("support", p.SITE_SUPPORTS)
@pytest.mark.parametrize("lattice", ["square", "square mixed", "honeycomb", "complete"])
def test_pairs_of_every_support(lattice, support):
    compare(p.pair_program(p.LATTICES[lattice], p.SITE_SUPPORTS[support]))


@pytest.mark.parametrize("lattice", p.LATTICES)
def test_pairs_on_every_lattice(lattice):
    compare(p.pair_program(p.LATTICES[lattice], Real()))


@pytest.mark.parametrize("lattice", ["square mixed", "kagome", "complete", "graph", "square of two"])
@pytest.mark.parametrize("term", p.graph_terms(p.LATTICES["square"]))
def test_reductions(lattice, term):
    found = p.LATTICES[lattice]
    compare(p.program(found, Real(), p.graph_terms(found)[term], data=data(found)))


@pytest.mark.parametrize("lattice", ["chain antiperiodic", "square", "square mixed", "honeycomb open", "cubic"])
@pytest.mark.parametrize("term", p.lattice_terms())
def test_displacements(lattice, term):
    found = p.LATTICES[lattice]
    compare(p.program(found, Real(), p.lattice_terms()[term], data=data(found)))


@pytest.mark.parametrize("lattice", ["square", "square mixed", "square half open", "cubic", "honeycomb open"])
@pytest.mark.parametrize("term", p.link_terms())
def test_links(lattice, term):
    found = p.LATTICES[lattice]
    compare(p.program(found, Angle(), p.link_terms()[term], on="links", data=(p.link_data(found),)))


@pytest.mark.parametrize("group", ["SU2", "SU3"])
@pytest.mark.parametrize("lattice", ["square", "square half open", "hypercubic"])
def test_wilson_action(lattice, group):
    compare(p.program(p.LATTICES[lattice], Group(group), p.wilson(), on="links"))


def test_polyakov_loop_multiplies_in_order():
    compare(p.program(p.LATTICES["square"], Group("SU3"), p.polyakov(4), on="links"))


@pytest.mark.parametrize("term", p.matrix_terms())
def test_matrices(term):
    compare(p.program(p.LATTICES["square"], Group("SU3"), p.matrix_terms()[term]))


@pytest.mark.parametrize("term", p.function_terms())
def test_functions(term):
    compare(p.program(p.LATTICES["chain"], Real(), p.function_terms()[term]))


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
