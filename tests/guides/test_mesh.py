"""Angles integrated out: against the integral itself, and as the start of guides of lattice gauge theory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import i0e, i1e

import vdsl
from vdsl.guides.mesh import main_waves, mesh_start, serves
from vdsl.guides.problem import Problem
from vdsl.guides.sequential import build_sequential, choose_sequential
from vdsl.ir.expansion import Block, Expansion, MonomialGroup
from vdsl.ir.interpret import resolve_parameters

GRID = 2 * np.pi * np.arange(256) / 256


def waves(*each: tuple[dict[int, int], complex], n: int = 5) -> Expansion:
    """The expansion of −Re Σ J e^{i m·θ}."""
    groups = tuple(MonomialGroup("e", tuple(m.values()), np.array([list(m)]), np.array([-j], complex)) for m, j in each)
    return Expansion((Block("a", "angle", 0, n),), groups, 0.0)


def test_weak_couplings_are_exact():
    """ln of the integral over θ₀, at random angles of the others, is linear in what the last of them feels: O(J⁴)."""
    e = waves(({0: 1, 1: 1, 2: -1}, 0.2j), ({0: -1, 3: 2}, 0.25 - 0.1j), ({0: 1, 4: -1}, -0.15))
    theta = np.random.default_rng(0).uniform(-np.pi, np.pi, (200, 5))
    every = np.repeat(theta[:, None], len(GRID), 1)
    every[..., 0] = GRID
    exact = np.log(np.exp(-e.evaluate(every)).mean(1))
    start = mesh_start(e, 1.0, np.array([3, 4, 2, 1]), np.array([0]))
    total = np.zeros(len(theta))
    for u in (1, 4):
        for m, strength in start[u]:
            phase = sum(p * theta[:, v] for v, p in m) - theta[:, u]
            total += (strength * np.exp(1j * phase)).real
    assert np.std(exact) > 0.02
    assert np.std(exact - total) < 0.1 * np.std(exact)


@pytest.mark.parametrize(("j", "k"), [(0.3, 0.5), (3.0, 2.0), (40.0, 10.0)])
def test_two_plaquettes_become_one_loop(j: float, k: float):
    """Two loops of one common link: the effective coupling of the loop around both against its A⁻¹(A(j)A(k))."""
    e = waves(({0: 1, 1: 1, 2: 1}, j), ({0: -1, 3: 1, 4: 1}, k))
    ((m, strength),) = mesh_start(e, 1.0, np.array([1, 2, 3, 4]), np.array([0]))[4]
    assert m == ((1, -1), (2, -1), (3, -1))
    ratio = i1e(j) / i0e(j) * i1e(k) / i0e(k)
    assert abs(strength.imag) < 1e-12
    assert i1e(strength.real) / i0e(strength.real) == pytest.approx(ratio, rel=0.12)


def test_what_it_serves():
    assert serves(waves(({0: 1, 1: 1, 2: 1}, 1.0)))
    assert not serves(waves(({0: 1, 1: -1}, 1.0)))
    assert main_waves({3: [(((1, 1),), 0.1), (((2, 1),), 0.2j)]}) == {3: (((2, 1),), ((1, 1),))}


def test_guides_of_one_choice_have_one_shape():
    """At couplings at which other waves are the largest."""
    model = vdsl.loads(
        "param J = 2.0\nlattice hypercubic(3, 3)\nfield a : angle on links\ninteraction e = "
        "-sum(p in plaquettes: J * cos(circulation(a, p))) - sum(l in links: cos(2 * a[l]))\ntemperature 1"
    )
    theta = resolve_parameters(model.program)
    problem = Problem(model.program, theta, model)
    choice = choose_sequential(problem)
    assert choice.structure.waves is not None
    other = build_sequential(choice, Problem(model.program, theta | {"J": 0.3}, model))
    one = build_sequential(choice, problem)
    shapes = [{name: w.shape for name, w in vars(g.learned[0].inputs.waves).items()} for g in (one, other)]
    assert shapes[0] == shapes[1]
    assert float(np.abs(other.learned[0].inputs.waves.weights).max()) < 2
