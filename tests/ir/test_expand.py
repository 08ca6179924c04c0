"""Expansions against the interpreter: the energy of random configurations is the same number."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from programs import sources
from vdsl.compile import compile_source
from vdsl.errors import Source, VfeError
from vdsl.ir import interpret
from vdsl.ir.expand import expand_energy, expand_expression
from vdsl.ir.expansion import Expansion, interacting_elements, quadratic_form, variables_of
from vdsl.ir.program import Program

# name -> (model, the exponents that its monomials have)
WHOLE = {
    "phi4, no-½ convention": (
        """lattice hypercubic(4, 3)
        field phi : real
        param m2 = -4.0
        interaction kinetic = sum(x in sites, mu in axes: phi[x] * (2*phi[x] - phi[x + mu] - phi[x - mu]))
        interaction potential = sum(x in sites: m2 * phi[x]^2 + 6.008 * phi[x]^4)
        temperature 1""",
        {(1, 1), (2,), (4,)},
    ),
    "phi4, with ½ and 4!": (
        """lattice chain(7, boundary = open)
        field phi : real
        interaction kinetic = sum(<i, j> in nn: (phi[i] - phi[j])^2 / 2)
        interaction potential = sum(x in sites: 0.35 * phi[x]^2 + 1.2 * phi[x]^4 / 24 - 0.1 * phi[x])
        temperature 0.7""",
        {(1,), (1, 1), (2,), (4,)},
    ),
    "hopping form": (
        """lattice hypercubic(2, 2)
        field phi : real
        interaction hop = -2 * 0.3 * sum(x in sites, mu in axes: phi[x] * phi[x + mu])
        interaction site = sum(x in sites: phi[x]^2 + 0.02 * (phi[x]^2 - 1)^2)
        temperature 1""",
        {(1, 1), (2,), (4,)},
    ),
    "free field": (
        """lattice cubic(2, 3, 2, boundary = (periodic, antiperiodic, open))
        field phi : real
        interaction free = sum(x in sites: phi[x]^2) + sum(<i, j> in nn: (phi[i] - phi[j])^2)
        temperature 1""",
        {(1, 1), (2,)},
    ),
    "chain with data": (
        """lattice chain(9)
        field u : real
        data k on nn ~ uniform(0.5, 2) seed 3
        data f on sites ~ normal(0, 1) seed 4
        interaction springs = sum(<i, j> in nn: k[i, j] / 2 * (u[i] - u[j] - 0.3)^2)
        interaction force = -sum(i in sites: f[i] * u[i])
        interaction pin = sum(i in sites where i % 3 == 0: u[i]^2)
        temperature 2""",
        {(1,), (1, 1), (2,)},
    ),
    "mean to the second": (
        """lattice square(3, 3)
        field u : real
        interaction mass = sum(i in sites: u[i]^2)
        interaction all = 2 * mean(i in sites: u[i])^2 + (sum(i in sites: u[i]) - 1)^2
        temperature 1""",
        {(1,), (1, 1), (2,)},
    ),
    "XY": (
        """lattice square(4, 4)
        field theta : angle
        interaction xy = -1.3 * sum(<i, j> in nn: cos(theta[i] - theta[j]))
        temperature 0.9""",
        {(1, -1)},
    ),
    "XY with fields": (
        """lattice triangular(3, 3, boundary = (antiperiodic, open))
        field theta : angle
        data a on nn ~ uniform(-pi, pi) seed 5
        interaction xy = -sum(<i, j> in nn: cos(theta[i] - theta[j] - a[i, j]))
        interaction fields = -sum(i in sites, k in range(1, 4): cos(k * theta[i] + 0.2) / k)
        interaction square = sum(i in sites: sin(theta[i])^2)
        temperature 1""",
        {(1, -1), (1, 1), (1,), (2,), (3,)},
    ),
    "clock and angle": (
        """lattice chain(5)
        field theta : angle
        field c : clock(3)
        interaction mix = -sum(i in sites: cos(theta[i] - c[i])) - sum(<i, j> in nn: cos(c[i] - c[j]))
        interaction xy = -sum(<i, j> in nn: cos(theta[i] - theta[j]))
        temperature 1""",
        {(1, -1), *((1, p) for p in range(3)), *((p, r) for p in range(3) for r in range(3))},
    ),
    "potts and angle": (
        """lattice square(3, 3)
        field theta : angle
        field q : potts(3)
        interaction mix = -sum(<i, j> in nn: delta(q[i], q[j]) * (1 + cos(theta[i] - theta[j])))
        interaction field = -sum(i in sites: if q[i] == 2 then cos(2*theta[i]) else 0.3)
        temperature 1""",
        {(0,), (1,), *((p, p) for p in range(3)), *((1, -1, p, p) for p in range(3))},
    ),
    "Heisenberg": (
        """lattice honeycomb(2, 3)
        field S : sphere(3)
        interaction exchange = -sum(<i, j> in nn: dot(S[i], S[j]))
        interaction dm = 0.4 * sum(<i, j> in nn: cross(S[i], S[j])[2])
        interaction anisotropy = -0.3 * sum(i in sites: S[i, 2]^2) - 0.1 * sum(i in sites: S[i, 0])
        temperature 1""",
        {(1, 1), (2,), (1,)},
    ),
    "Kitaev": (
        """lattice chain(6, boundary = antiperiodic)
        field S : sphere(3)
        interaction k = sum(<i, j> in nn, a in range(3): (a - 0.5) * S[i, a] * S[j, a])
        temperature 1""",
        {(1, 1)},
    ),
    "O(2)": (
        """lattice square(3, 2)
        field v : real[2]
        interaction kinetic = sum(<i, j> in nn: norm(v[i] - v[j])^2 / 2)
        interaction potential = sum(i in sites: 0.5 * (dot(v[i], v[i]) - 1)^2) + sum(i in sites: norm(v[i])^4)
        temperature 1""",
        {(1, 1), (2,), (4,), (2, 2)},
    ),
    "complex scalar": (
        """lattice square(3, 3, boundary = (periodic, antiperiodic))
        field z : complex
        interaction hop = -sum(<i, j> in nn: re(z[i]' * z[j]))
        interaction turn = 0.2 * sum(<i, j> in nn: im(conj(z[i]) * z[j]))
        interaction potential = sum(i in sites: abs(z[i])^2 + 0.5 * abs(z[i])^4)
        temperature 1""",
        {(1, 1), (2,), (4,), (2, 2)},
    ),
    "Ising and displacements": (
        """lattice square(3, 3)
        field s : spin
        field u : real
        param g = 0.4
        interaction ising = -sum(<i, j> in nn: (1 + g * (u[i] - u[j])) * s[i] * s[j])
        interaction elastic = sum(<i, j> in nn: (u[i] - u[j])^2) + sum(i in sites: (u[i] - 0.2 * s[i])^2)
        temperature 2""",
        {(1, 1), (1, 1, 1), (2,)},
    ),
    "U(1) as angles": (
        """lattice hypercubic(3, 3)
        field theta : angle on links
        interaction wilson = -2.0 * sum(p in plaquettes: cos(circulation(theta, p)))
        interaction wrapped = 0.1 * sum(p in plaquettes: cos(2 * wrap(circulation(theta, p))))
        temperature 1""",
        {(1, 1, -1, -1), (1, -1, 1, -1), (1, -1, -1, 1), (2, 2, -2, -2), (2, -2, 2, -2), (2, -2, -2, 2)},
    ),
    "U(1) as group": (
        """lattice hypercubic(3, 3, boundary = (periodic, open))
        field U : U(1) on links
        interaction wilson = -2.0 * sum(p in plaquettes: re(loop(U, p)))
        temperature 1""",
        {(1, 1, -1, -1), (1, -1, -1, 1)},
    ),
    "complete graph": (
        """lattice complete(6)
        field u : real
        field t : angle
        data J on nn ~ normal(0, 1) seed 1
        interaction pairs = sum(<i, j> in nn: J[i, j] * u[i] * u[j] * cos(t[i] - t[j]))
        interaction site = sum(i in sites: u[i]^6)
        temperature 1""",
        {(1, 1, 1, -1), (6,)},
    ),
    "nested reductions": (
        """lattice square(3, 3, boundary = (open, periodic))
        field u : real
        interaction laplace = sum(x in sites: (sum(mu in axes: u[x + mu] - u[x]))^2)
        interaction wick = sum(x in sites: prod(mu in axes: u[x + mu] + 1)) + sum(x in sites: u[x]^2)
        interaction average = sum(x in sites: mean(mu in axes: u[x + mu] * u[x]))
        temperature 1""",
        {(1,), (2,), (1, 1)},
    ),
}

OPAQUE = {
    "exponential": "sum(i in sites: exp(u[i]))",
    "modulus": "sum(i in sites: abs(u[i]))",
    "odd power of a modulus": "sum(i in sites: abs(u[i])^3)",
    "half an angle": "sum(i in sites: cos(t[i] / 2))",
    "angle itself": "sum(i in sites: t[i]^2)",
    "wrapped difference": "sum(<i, j> in nn: wrap(t[i] - t[j])^2)",
    "quotient": "sum(i in sites: 1 / (1 + u[i]^2))",
    "maximum": "max(i in sites: u[i])",
    "product of sites": "prod(i in sites: cos(t[i]) + u[i])",
}


def program_of(text: str, **overrides: object) -> Program:
    return compile_source(Source("<test>", text), overrides)[0]


def agrees(program: Program, expansion: Expansion, trials: int = 3, rtol: float = 1e-10) -> None:
    """The expansion and what is opaque add up to the energy."""
    theta, rng = interpret.resolve_parameters(program), np.random.default_rng(0)
    for _ in range(trials):
        x = interpret.random_configuration(program, rng)
        opaque = sum(float(interpret.evaluate(program, e, theta, x)) for _, e in expansion.opaque)
        found = float(expansion.evaluate(variables_of(program, x))) + opaque
        expected = interpret.energy(program, x, theta)
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", WHOLE)
def test_whole_energy(name):
    """Nothing is opaque, the monomials are the ones written on paper, and the energy is the interpreter's."""
    text, exponents = WHOLE[name]
    program = program_of(text)
    expansion = expand_energy(program, interpret.resolve_parameters(program))
    assert expansion.opaque == ()
    assert {g.exponents for g in expansion.groups} == exponents
    for g in expansion.groups:
        assert (np.diff(g.scopes, axis=1) > 0).all()
        assert len(np.unique(g.scopes, axis=0)) == len(g.scopes)
    agrees(program, expansion)


@pytest.mark.parametrize("name", OPAQUE)
def test_what_is_no_product_is_opaque(name):
    """One summand that does not fit leaves the others alone."""
    program = program_of(f"""lattice square(3, 3)
        field u : real
        field t : angle
        interaction odd = {OPAQUE[name]} + 0.5 * sum(i in sites: u[i]^2)
        interaction even = sum(<i, j> in nn: u[i] * u[j] * cos(t[i] + t[j]))
        temperature 1""")
    expansion = expand_energy(program, interpret.resolve_parameters(program))
    assert [term for term, _ in expansion.opaque] == ["odd"]
    assert {g.exponents for g in expansion.groups} == {(2,), (1, 1, 1, 1)}
    agrees(program, expansion)


@settings(
    max_examples=40,
    suppress_health_check=[
        HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example,
    ],
)  # fmt: skip
@given(sources())
def test_random_models(text):
    """Whatever the model, the parts add up to the energy."""
    try:
        program = program_of(text)
    except VfeError as error:
        assume({d.code for d in error.diagnostics} != {"empty-set"})
        raise
    agrees(program, expand_energy(program, interpret.resolve_parameters(program)), 2, 1e-8)


def test_batches_and_variables():
    """Leading axes are kept; components lie fastest."""
    program = program_of("""lattice chain(3)
        field s : spin
        field z : complex
        field v : real[2]
        field U : U(1)
        interaction e = sum(i in sites: s[i] * re(z[i] * U[i]) * v[i, 1])
        temperature 1""")
    x = {
        "s": np.array([[1, -1, 1], [1, 1, -1]], np.int8),
        "z": np.arange(6).reshape(2, 3) * (1 + 2j),
        "v": np.arange(12.0).reshape(2, 3, 2),
        "U": np.exp(1j * np.arange(6).reshape(2, 3) / 4),
    }
    flat = variables_of(program, x)
    assert flat.shape == (2, 3 + 6 + 6 + 3)
    np.testing.assert_allclose(flat[1, :3], [1, 1, -1])
    np.testing.assert_allclose(flat[1, 3:9], [3, 6, 4, 8, 5, 10])
    np.testing.assert_allclose(flat[1, 9:15], range(6, 12))
    np.testing.assert_allclose(flat[1, 15:], [0.75, 1.0, 1.25])
    expansion = expand_energy(program, {})
    expected = [interpret.energy(program, {k: v[n] for k, v in x.items()}, {}) for n in range(2)]
    np.testing.assert_allclose(expansion.evaluate(flat), expected, rtol=1e-12)


def test_quadratic_form_is_the_energy():
    """½xᵀAx − bᵀx + c, symmetric; none for a quartic or an angle."""
    program = program_of(WHOLE["chain with data"][0])
    theta = interpret.resolve_parameters(program)
    form = quadratic_form(expand_energy(program, theta))
    a = np.zeros((form.n, form.n))
    a[form.rows, form.columns] = form.values
    np.testing.assert_array_equal(a, a.T)
    assert len(np.unique(np.stack([form.rows, form.columns]), axis=1).T) == len(form.rows)
    x = np.random.default_rng(1).standard_normal(form.n)
    expected = interpret.energy(program, {"u": x}, theta)
    np.testing.assert_allclose(x @ a @ x / 2 - form.linear @ x + form.constant, expected, rtol=1e-12)
    for name in ("phi4, no-½ convention", "XY"):
        other = program_of(WHOLE[name][0])
        assert quadratic_form(expand_energy(other, interpret.resolve_parameters(other))) is None


def test_interacting_elements_of_a_mixed_model():
    """Sites are joined by bonds, spin and displacement of a site by their coupling; components are one element."""
    program = program_of("""lattice chain(4, boundary = open)
        field S : sphere(3)
        field u : real
        interaction e = -sum(<i, j> in nn: dot(S[i], S[j])) + sum(i in sites: u[i]^2 + u[i] * S[i, 2])
        temperature 1""")
    edges, element = interacting_elements(expand_energy(program, {}))
    assert element.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4, 5, 6, 7]
    assert edges.tolist() == [[0, 1], [0, 4], [1, 2], [1, 5], [2, 3], [2, 6], [3, 7]]


def test_observables():
    """Sums of products expand, others are None."""
    program = program_of(WHOLE["XY"][0])
    theta, x = {}, interpret.random_configuration(program, np.random.default_rng(3))
    text = WHOLE["XY"][0] + "\nobservable c = mean(<i, j> in nn: cos(theta[i] - theta[j]))"
    text += "\nobservable a = sqrt(mean(i in sites: cos(theta[i]))^2)"
    program = program_of(text)
    c, a = program.observables
    found = expand_expression(program, c.value, theta).evaluate(variables_of(program, x))
    np.testing.assert_allclose(found, interpret.evaluate(program, c.value, theta, x), rtol=1e-12)
    assert expand_expression(program, a.value, theta) is None


@pytest.mark.parametrize(("name", "size", "monomials"), [("phi4", 32, 5 * 1024), ("xy", 64, 2 * 4096)])
def test_large_lattices_take_about_a_second(name, size, monomials):
    text = {
        "phi4": WHOLE["phi4, no-½ convention"][0].replace("4, 3", f"{size}, {size}"),
        "xy": WHOLE["XY"][0].replace("4, 4", f"{size}, {size}"),
    }[name]
    program = program_of(text)
    theta = interpret.resolve_parameters(program)
    start = time.process_time()
    expansion = expand_energy(program, theta)
    assert time.process_time() - start < 3
    assert sum(len(g.scopes) for g in expansion.groups) == monomials
    assert math.isclose(expansion.constant, 0, abs_tol=1e-12)
    assert expansion.coordinates.shape == (size**2, 2)
