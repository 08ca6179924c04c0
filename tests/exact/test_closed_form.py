"""Kaufman's formula against the reference values and against elimination."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vdsl.exact.closed_form import IsingTorus, in_range, kaufman, recognise
from vdsl.exact.elimination import moments
from vdsl.ir.factors import FactorGraph, FactorGroup, LocalSum
from vdsl.ir.lattice import named_lattice

T_C = 2.269185314213022
SPINS = np.outer([-1.0, 1.0], [-1.0, 1.0])


def torus(shape: tuple[int, int], j0: float, j1: float, table: np.ndarray = SPINS) -> FactorGraph:
    lattice = named_lattice("square", shape, ("periodic", "periodic"))
    bonds = lattice.bonds("nn")
    along_first = np.array([c.displacement[0] for c in lattice.bond_classes("nn")])[bonds.cls] == 1
    tables = -np.multiply.outer(np.where(along_first, j0, j1), table)
    rows = np.stack([np.minimum(bonds.i, bonds.j), np.maximum(bonds.i, bonds.j)], 1)
    cells = np.stack(np.unravel_index(np.arange(lattice.n_sites), shape), 1)
    n = lattice.n_sites
    return FactorGraph(np.full(n, 2), (("s", 0, n),), (FactorGroup("t", rows, tables),), 1.25, (), cells)


@pytest.mark.parametrize(
    ("length", "ln_z"),
    [(4, 15.52191545875528), (8, 60.14178078906915), (16, 238.6422566351329), (64, 3808.672283419809)],
)
def test_critical_point(length: int, ln_z: float):
    assert kaufman(IsingTorus((length, length), (1.0, 1.0)), T_C).ln_z == pytest.approx(ln_z, rel=3e-15)


@pytest.mark.parametrize(("beta", "per_site"), [(0.2, -3.67265406164), (0.4, -2.19950045660), (1.0, -2.00305588987)])
def test_free_energies(beta: float, per_site: float):
    found = kaufman(IsingTorus((16, 16), (1.0, 1.0)), 1 / beta)
    assert -found.ln_z / beta / 256 == pytest.approx(per_site, abs=6e-12)


def test_energy_and_entropy():
    found = kaufman(IsingTorus((16, 16), (1.0, 1.0)), 2.5)
    assert found.energy / 256 == pytest.approx(-1.131317984, abs=6e-10)
    assert (found.ln_z + found.energy / 2.5) / 256 == pytest.approx(0.4272729889, abs=6e-11)


def test_thermodynamic_limit():
    found = kaufman(IsingTorus((2000, 2000), (1.0, 1.0)), T_C)
    assert found.ln_z / 2000**2 == pytest.approx(0.92969539834161, abs=5e-7)
    assert found.energy / 2000**2 == pytest.approx(-math.sqrt(2), abs=5e-4)


CASES = [
    ((3, 3), 1.0, 1.0),
    ((4, 4), 1.0, 1.0),
    ((6, 6), 1.0, 1.0),
    ((3, 5), 1.0, 0.6),
    ((5, 3), 0.3, 1.7),
    ((5, 4), 0.9, 0.4),
    ((4, 6), -1.0, 0.5),
    ((3, 4), 0.8, -0.2),
]


@pytest.mark.parametrize(("shape", "j0", "j1"), CASES)
@pytest.mark.parametrize("t", [0.5, 1.0, T_C, 6.0])
def test_agrees_with_elimination(shape: tuple[int, int], j0: float, j1: float, t: float):
    graph = torus(shape, j0, j1)
    found = recognise(graph)
    assert found is not None
    formula = kaufman(found, t)
    exact = moments(graph, t, [LocalSum(graph.constant, graph.groups)], [(0, 0)])
    assert formula.ln_z == pytest.approx(exact.ln_z, rel=1e-13)
    assert formula.energy == pytest.approx(exact.means[0], rel=1e-11)
    assert formula.energy_variance == pytest.approx(exact.covariances[0, 0], rel=1e-8, abs=1e-9)


def test_the_two_axes_are_interchangeable():
    for t in (0.7, 2.0, 9.0):
        a, b = kaufman(IsingTorus((7, 12), (1.0, 0.3)), t), kaufman(IsingTorus((12, 7), (0.3, 1.0)), t)
        assert (a.ln_z, a.energy, a.energy_variance) == pytest.approx((b.ln_z, b.energy, b.energy_variance), rel=1e-11)


def test_derivatives_are_those_of_ln_z():
    shape, beta, h = (9, 14), 0.44, 1e-4
    ln_z = [kaufman(IsingTorus(shape, (1.0, 1.0)), 1 / b).ln_z for b in (beta - h, beta, beta + h)]
    found = kaufman(IsingTorus(shape, (1.0, 1.0)), 1 / beta)
    assert found.energy == pytest.approx(-(ln_z[2] - ln_z[0]) / (2 * h), rel=1e-6)
    assert found.energy_variance == pytest.approx((ln_z[2] - 2 * ln_z[1] + ln_z[0]) / h**2, rel=1e-4)


def test_low_temperature_is_the_ground_state():
    torus_at = IsingTorus((64, 64), (1.0, 1.0))
    assert in_range(torus_at, 0.01)
    assert kaufman(torus_at, 0.01).ln_z == pytest.approx(math.log(2) + 2 * 64**2 / 0.01, rel=1e-15)
    assert not in_range(torus_at, 1e-3)


def test_two_potts_colours_are_spins():
    """−K Σ δ is the Ising torus with J = K/2 and a constant −K/2 for every bond."""
    found = recognise(torus((4, 5), 1.0, 1.0, np.eye(2)))
    assert found == IsingTorus((4, 5), (0.5, 0.5), 1.25 - 20.0)


def test_other_models_are_not_recognised():
    graph = torus((4, 4), 1.0, 1.0)
    bent = graph.groups[0].tables.copy()
    bent[3] *= -1
    field = FactorGroup("h", np.array([[0]]), np.array([[0.0, 1.0]]))
    uneven = graph.groups[0].tables.copy()
    uneven[:, 0, 0] += 1
    pair = graph.groups[0]
    for groups in (
        (FactorGroup("t", pair.scopes, bent),),
        (pair, field),
        (FactorGroup("t", pair.scopes, uneven),),
        (FactorGroup("t", pair.scopes[:-1], pair.tables[:-1]),),
        (pair, FactorGroup("n", np.array([[0, 5]]), SPINS[None])),
    ):
        assert recognise(FactorGraph(graph.cardinalities, graph.fields, groups, 0.0, (), graph.coordinates)) is None
    assert recognise(torus((3, 4), -1.0, 1.0)) is None  # an odd ring of antiferromagnetic bonds
    assert recognise(FactorGraph(graph.cardinalities, graph.fields, graph.groups, 0.0)) is None
