"""Angles integrated out: against the integral itself, and as the start of guides of lattice gauge theory."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import i0e, i1e

import vdsl
from vdsl.guides.lengths import typical_lengths
from vdsl.guides.mesh import Wave, main_waves, mesh_start, serves
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
        for wave in start[u]:
            phase = sum(p * theta[:, v] for v, p in wave.others) - theta[:, u]
            total += (wave.strength * np.exp(1j * phase)).real
    assert np.std(exact) > 0.02
    assert np.std(exact - total) < 0.1 * np.std(exact)


def matter(j: float, quartic: float = 1.0) -> Expansion:
    """Three lengths 0, 1, 2 and three phases 3, 4, 5: J r₀r₁ cos(θ₃ − θ₄) + J r₀r₂ cos(θ₃ − θ₅) − quartic Σ r⁴."""
    groups = (
        MonomialGroup("m", (1, 1, 1, -1), np.array([[0, 1, 3, 4], [0, 2, 3, 5]]), np.array([-j, -j], complex)),
        MonomialGroup("v", (4,), np.arange(3)[:, None], np.full(3, quartic)),
    )
    return Expansion((Block("m", "radius", 0, 3), Block("m", "angle", 3, 3)), groups, 0.0)


def test_lengths_stay_in_what_is_left():
    """ln of the integral over a phase is linear in the waves that it leaves, lengths and all: O(J⁴)."""
    e = matter(0.3, quartic=0.1)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(0.2, 1.2, (200, 3)), rng.uniform(-np.pi, np.pi, (200, 3))], 1)
    every = np.repeat(x[:, None], len(GRID), 1)
    every[..., 3] = GRID
    exact = np.log(np.exp(-e.evaluate(every)).mean(1)) + 0.1 * (x[:, :3] ** 4).sum(1)
    total = np.zeros(len(x))
    for u, field in mesh_start(e, 1.0, np.array([0, 1, 2, 4, 5]), np.array([3])).items():
        for wave in field if u in (1, 2, 5) else ():
            lengths = np.prod([x[:, v] ** p for v, p in wave.others if v < 3], axis=0)
            phase = sum(p * x[:, v] for v, p in wave.others if v > 2)
            own = x[:, u] ** wave.power if u < 3 else np.exp(-1j * x[:, u])
            total += (wave.strength * lengths * np.exp(1j * phase) * own).real
    assert np.std(exact) > 0.02
    assert np.std(exact - total) < 0.1 * np.std(exact)


def test_typical_lengths():
    """Alone: the moments of r e^{−r⁴} dr. Together: drawn out by what they meet, about as brute force says."""
    r = np.linspace(0, 4, 2001)
    alone = np.trapezoid(r**3 * np.exp(-(r**4)), r) / np.trapezoid(r * np.exp(-(r**4)), r)
    assert typical_lengths(matter(0.0), 1.0).mean(1, 2) == pytest.approx(alone, rel=1e-3)
    r = np.linspace(0, 3, 121)
    weight = r * np.exp(-(r**4))
    pairs = i0e(0.8 * np.outer(r, r)) * np.exp(0.8 * np.outer(r, r)) * weight
    exact = (r**2 * weight * (pairs.sum(1) ** 2)).sum() / (weight * pairs.sum(1) ** 2).sum()
    found = typical_lengths(matter(0.8), 1.0)
    assert found.mean(0, 2) == pytest.approx(exact, rel=0.025)
    assert exact > 1.04 * alone
    assert found.mean(3, 2) == pytest.approx(1)


@pytest.mark.parametrize(("j", "k"), [(0.3, 0.5), (3.0, 2.0), (40.0, 10.0)])
def test_two_plaquettes_become_one_loop(j: float, k: float):
    """Two loops of one common link: the effective coupling of the loop around both against its A⁻¹(A(j)A(k))."""
    e = waves(({0: 1, 1: 1, 2: 1}, j), ({0: -1, 3: 1, 4: 1}, k))
    (wave,) = mesh_start(e, 1.0, np.array([1, 2, 3, 4]), np.array([0]))[4]
    assert wave.others == ((1, -1), (2, -1), (3, -1))
    strength = wave.strength
    ratio = i1e(j) / i0e(j) * i1e(k) / i0e(k)
    assert abs(strength.imag) < 1e-12
    assert i1e(strength.real) / i0e(strength.real) == pytest.approx(ratio, rel=0.12)


def test_what_it_serves():
    assert serves(waves(({0: 1, 1: 1, 2: 1}, 1.0)))
    assert not serves(waves(({0: 1, 1: -1}, 1.0)))
    assert serves(matter(0.1))
    assert main_waves({3: [Wave(((2, 1),), 0.2j), Wave(((1, 1),), 0.1)]}) == {3: ((((2, 1),), 1), (((1, 1),), 1))}


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
