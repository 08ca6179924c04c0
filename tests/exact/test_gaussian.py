"""Gaussian models: closed forms, dense linear algebra in the test itself, and every way of taking the matrix apart."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vdsl import exact
from vdsl.compile import compile_source
from vdsl.errors import Source, VfeError
from vdsl.exact.gaussian import Normal, cells_of
from vdsl.exact.precision import Dense, NotPositive, Sparse, Spectral, is_circulant, take_apart
from vdsl.ir.expand import expand_energy, expand_expression
from vdsl.ir.expansion import quadratic_form
from vdsl.ir.interpret import energy, resolve_parameters
from vdsl.ir.program import Program

FREE = """
param L : int = 4
param m2 = 1.0
param T = 1.0
lattice hypercubic(L, L)
field phi : real
interaction kinetic = sum(x in sites, mu in axes: (phi[x] - phi[x + mu])^2)
interaction mass = m2 * sum(x in sites: phi[x]^2)
temperature T
observable phi2 = mean(x in sites: phi[x]^2)
observable phi4 = mean(x in sites: phi[x]^4)
observable m = mean(x in sites: phi[x])
observable m2nd = m^2
observable square = phi2^2
observable absm = abs(m)
derived chi = L^2 * (expect(m^2) - expect(m)^2)
derived spread = expect(m^2) - expect(abs(m))^2
"""
CHAIN = """
param n : int = 12
lattice chain(n, boundary = open)
field u : real
field z : complex
data k on nn ~ uniform(0.5, 2) seed 1
data f on sites ~ normal(0, 1) seed 2
interaction springs = sum(<i, j> in nn: k[i, j] * (u[i] - u[j] - 0.3)^2 + abs(z[i] - z[j])^2)
interaction pin = sum(i in sites: 0.3 * u[i]^2 - f[i] * u[i] + abs(z[i])^2 - im(z[i])) + u[0] * re(z[1])
temperature 0.7
observable end = u[0]
observable e2 = sum(i in sites: u[i]^2 * re(z[i]))
observable product = sum(i in sites: u[i]) * sum(i in sites: im(z[i])^2 + u[i]^2)
"""


def program_of(text: str, **overrides: object) -> Program:
    return compile_source(Source("<test>", text), overrides)[0]


def solved(text: str, samples: int = 65536, **overrides: object):
    program = program_of(text, **overrides)
    return exact.solve(program, resolve_parameters(program), samples=samples)


def form_of(program: Program):
    return quadratic_form(expand_energy(program, resolve_parameters(program)))


def free_field(length: int, m2: float, d: int) -> float:
    """(V/2) ln π − ½ Σ_k ln(k̂² + m²)."""
    k = 4 * np.sin(np.pi * np.arange(length) / length) ** 2
    hat = sum(np.meshgrid(*[k] * d)) if d > 1 else k
    return length**d / 2 * math.log(math.pi) - 0.5 * float(np.log(hat + m2).sum())


@pytest.mark.parametrize(("length", "ln_z"), [(4, -2.8581318146), (8, -11.6228852573)])
def test_free_field(length, ln_z):
    result = solved(FREE, 128, L=length)
    assert result.ln_z.value == pytest.approx(ln_z, abs=1e-9)
    assert result.ln_z.value == pytest.approx(free_field(length, 1.0, 2), rel=1e-13)
    assert result.energy.value == pytest.approx(length**2 / 2, rel=1e-13)  # equipartition
    assert result.heat_capacity.value == pytest.approx(length**2 / 2, rel=1e-13)
    assert result.entropy.value == pytest.approx(result.ln_z.value + length**2 / 2, rel=1e-13)
    assert "Fourier" in result.method


def test_free_field_moments():
    """⟨φ²⟩, ⟨φ⁴⟩ = 3⟨φ²⟩², Var of the mean, and what is only sampled."""
    result = solved(FREE)
    k = 4 * np.sin(np.pi * np.arange(4) / 4) ** 2
    g = 1 / (2 * (k[:, None] + k[None] + 1))
    o = {name: v.value for name, v in result.observables.items()}
    assert o["phi2"] == pytest.approx(g.mean(), rel=1e-12)
    assert o["phi4"] == pytest.approx(3 * g.mean() ** 2, rel=1e-12)
    assert o["m2nd"] == pytest.approx(0.5 / 16, rel=1e-12)
    assert o["square"] == pytest.approx(g.mean() ** 2 + 2 * (g**2).sum() / 16**2, rel=1e-12)
    assert result.derived["chi"].value == pytest.approx(0.5, rel=1e-12)
    absolute = result.observables["absm"]
    assert absolute.method == "exact samples"
    assert abs(absolute.value - math.sqrt(2 / math.pi * 0.5 / 16)) < 4 * absolute.error < 0.01
    spread = result.derived["spread"]
    assert abs(spread.value - 0.5 / 16 * (1 - 2 / math.pi)) < 4 * spread.error
    assert "absm" not in result.beside()["observables"]
    assert "phi2" in result.beside()["observables"]


def test_ring_polymer():
    """P beads of a harmonic oscillator: ln Z = −ln[2 sinh(Pα/2)], sinh(α/2) = βħω/2P, with its measure."""
    for beads, expected in ((4, -0.84124253), (16, -0.85373305)):
        text = f"""lattice chain({beads})
        field q : real
        interaction kinetic = {beads} / 4 * sum(<i, j> in nn: (q[i] - q[j])^2)
        interaction potential = 2 / {beads} * sum(i in sites: q[i]^2 / 2)
        temperature 1"""
        # βħω = 2: e^{−(P/2τ)(Δq)² − (τ/P) q²/2}, τ = 2 with unit mass and frequency, (P/2πτ)^{P/2} the measure
        ln_z = solved(text).ln_z.value + beads / 2 * math.log(beads / (4 * math.pi))
        alpha = 2 * math.asinh(1 / beads)
        assert ln_z == pytest.approx(-math.log(2 * math.sinh(beads * alpha / 2)), rel=1e-12)
        assert ln_z == pytest.approx(expected, abs=5e-9)


@pytest.mark.parametrize(("n", "with_momenta"), [(8, 13.604404), (32, 57.063812)])
def test_coupled_chain(n, with_momenta):
    """n masses between walls: −½ ln det of positions; momenta add (n/2) ln 2π; both in physical units of ω_k."""
    text = f"""lattice chain({n}, boundary = open)
    field u : real
    interaction inner = sum(<i, j> in nn: (u[i] - u[j])^2 / 2)
    interaction walls = u[0]^2 / 2 + u[{n - 1}]^2 / 2
    temperature 1"""
    found = solved(text).ln_z.value + n / 2 * math.log(2 * math.pi)
    omega = 2 * np.sin(np.arange(1, n + 1) * math.pi / (2 * n + 2))
    assert found == pytest.approx(n * math.log(2 * math.pi) - np.log(omega).sum(), rel=1e-13)
    assert found == pytest.approx(with_momenta, abs=1e-6)


@pytest.mark.parametrize("boundary", ["periodic", "open", "antiperiodic"])
@pytest.mark.parametrize("lattice", ["square(4, 3", "honeycomb(3, 2", "cubic(3, 2, 2"])
def test_every_way_agrees(lattice, boundary):
    """Fourier, sparse and dense: determinants, means, covariances."""
    text = f"""lattice {lattice}, boundary = {boundary})
    field u : real
    field v : real[2]
    interaction a = sum(<i, j> in nn: (u[i] - u[j])^2 + norm(v[i] - v[j])^2 / 3 + 0.2 * u[i] * v[j, 1])
    interaction b = sum(i in sites: u[i]^2 + norm(v[i])^2 + 0.5 * u[i] * v[i, 0] - 0.4 * u[i] + v[i, 1])
    temperature 1"""
    program = program_of(text)
    form, cells = form_of(program), cells_of(program)
    assert is_circulant(form, cells) == (boundary == "periodic")
    a = np.zeros((form.n, form.n))
    a[form.rows, form.columns] = form.values
    inverse = np.linalg.inv(a)
    i, j = np.random.default_rng(0).integers(form.n, size=(2, 200))
    for one in (Dense(form), Sparse(form), take_apart(form, cells)):
        assert one.log_det == pytest.approx(np.linalg.slogdet(a)[1], rel=1e-12)
        np.testing.assert_allclose(one.solve(form.linear), inverse @ form.linear, rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(one.inverse(i, j), inverse[i, j], rtol=1e-10, atol=1e-13)
        x = one.sample(8000, np.random.default_rng(1))
        sigma = np.sqrt((inverse**2 + np.outer(np.diag(inverse), np.diag(inverse))) / 8000)
        assert np.abs((x.T @ x / 8000 - inverse) / sigma).max() < 5.5
    assert isinstance(take_apart(form, cells), Spectral) == (boundary == "periodic")


def test_disordered_chain_against_linear_algebra():
    """ln Z, E and moments with data couplings, linear terms and a complex field."""
    program = program_of(CHAIN)
    theta = resolve_parameters(program)
    result = exact.solve(program, theta)
    n, zero = 12, np.zeros(12)

    def e(x: np.ndarray) -> float:
        return energy(program, {"u": x[:n], "z": x[n::2] + 1j * x[n + 1 :: 2]}, theta)

    # the Hessian by differences, exact for a quadratic form
    unit = np.eye(3 * n)
    origin = e(np.concatenate([zero] * 3))
    along = np.array([e(v) for v in unit])
    both = np.array([[e(v + w) for w in unit] for v in unit])
    a = both - along[:, None] - along[None] + origin
    b = -(along - origin - np.diag(a) / 2)
    m, c = np.linalg.solve(a, b), 0.7 * np.linalg.inv(a)
    ln_z = 1.5 * n * math.log(2 * math.pi * 0.7) - np.linalg.slogdet(a)[1] / 2 + (b @ m / 2 - origin) / 0.7
    assert result.ln_z.value == pytest.approx(ln_z, rel=1e-11)
    assert result.energy.value == pytest.approx(origin - b @ m / 2 + 1.5 * n * 0.7, rel=1e-11)
    assert result.observables["end"].value == pytest.approx(m[0], rel=1e-10)
    u, re = np.arange(n), n + 2 * np.arange(n)
    expected = ((m[u] ** 2 + c[u, u]) * m[re] + 2 * c[u, re] * m[u]).sum()
    assert result.observables["e2"].value == pytest.approx(expected, rel=1e-10)
    ones, quadratic = np.r_[np.ones(n), np.zeros(2 * n)], np.diag(np.r_[np.ones(n), np.tile([0.0, 1.0], n)])
    mean = ones @ m * (m @ quadratic @ m + np.trace(quadratic @ c)) + 2 * ones @ c @ quadratic @ m
    assert result.observables["product"].value == pytest.approx(mean, rel=1e-10)


def test_wick_to_the_eighth():
    """Moments of one variable with a mean, against Gauss–Hermite quadrature."""
    program = program_of("""lattice chain(2)
    field u : real
    interaction e = sum(i in sites: 0.8 * u[i]^2 - 0.5 * u[i])
    temperature 0.6""")
    form = form_of(program)
    normal = Normal(Dense(form), Dense(form).solve(form.linear), 0.6)
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    x = 0.5 / 1.6 + math.sqrt(0.6 / 1.6) * nodes
    for p in range(9):
        found = normal.moment([np.zeros(1, int)] * p)
        assert found[0] == pytest.approx((weights @ x**p) / weights.sum(), rel=1e-12)


def test_large_free_field_is_quick_and_right():
    """L = 32 with every observable that is a polynomial; 3-dimensional 16³."""
    result = solved(FREE, 128, L=32)
    assert result.ln_z.value == pytest.approx(free_field(32, 1.0, 2), rel=1e-13)
    cubic = FREE.replace("hypercubic(L, L)", "cubic(L, L, L)").split("observable")[0]
    assert solved(cubic, L=16).ln_z.value == pytest.approx(free_field(16, 1.0, 3), rel=1e-13)


def test_large_open_lattice_is_sparse():
    text = FREE.replace("(L, L)", "(L, L, boundary = open)").split("observable")[0]
    program = program_of(text.replace("hypercubic", "square"), L=60)
    result = exact.solve(program, resolve_parameters(program))
    k = 4 * np.sin(np.pi * np.arange(60) / 120) ** 2  # free ends
    expected = 1800 * math.log(math.pi) - 0.5 * np.log(k[:, None] + k[None] + 1).sum()
    assert result.ln_z.value == pytest.approx(expected, rel=1e-12)
    assert "sparse" in result.method


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"m2": 0.0}, "eigenvalue 0 of wave vector (2π·0/4, 2π·0/4)"),
        ({"m2": -0.5}, "eigenvalue -1 of wave vector (2π·0/4, 2π·0/4)"),
    ],
)
def test_unstable_modes_are_named(change, words):
    with pytest.raises(VfeError) as caught:
        solved(FREE, **change)
    assert caught.value.exit_code == 3
    assert caught.value.diagnostics[0].code == "not-normalisable"
    assert words in caught.value.diagnostics[0].notes[0]


def test_zero_modes_of_dense_and_sparse():
    form = form_of(program_of(FREE.replace("(L, L)", "(L, L, boundary = open)"), m2=0.0))
    for way in (Dense, Sparse):
        with pytest.raises(NotPositive) as caught:
            way(form)
        assert abs(caught.value.eigenvalue) < 1e-12


def test_cost_is_asked_first():
    program = program_of(FREE)
    found = exact.cost(program, resolve_parameters(program))
    assert found.feasible
    assert found.seconds_estimate < 0.1
    assert expand_expression(program, program.observables[0].value, {"m2": 1.0, "T": 1.0}) is not None
