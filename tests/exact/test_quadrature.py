"""Quadrature against closed forms, Bessel and Legendre expansions, and transfer operators written out in the test."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import iv, spherical_in

from vdsl import exact
from vdsl.compile import compile_source
from vdsl.errors import Source, VfeError
from vdsl.exact.nodes import Density, coordinate, nodes_of
from vdsl.ir.interpret import resolve_parameters
from vdsl.ir.support import Angle, Real, Sphere

XY = """
param K = 0.5
lattice {lattice}
field theta : angle
interaction xy = -K * sum(<i, j> in nn: cos(theta[i] - theta[j]))
temperature 1
observable c = sum(<i, j> in nn: cos(theta[i] - theta[j]))
observable m2 = mean(i in sites: cos(theta[i]))^2
"""
PHI4 = """
param L : int = 3
param lam = 1.0
param m2 = 1.0
lattice hypercubic(L, L)
field phi : real
interaction kinetic = sum(x in sites, mu in axes: phi[x] * (2*phi[x] - phi[x + mu] - phi[x - mu]))
interaction potential = sum(x in sites: m2 * phi[x]^2 + lam * phi[x]^4)
temperature 1
"""
WELL = """
lattice chain(12)
field phi : real
interaction k = sum(<i, j> in nn: (phi[i] - phi[j])^2)
interaction v = sum(i in sites: -4 * phi[i]^2 + 2 * phi[i]^4)
temperature 0.8
observable phi2 = mean(i in sites: phi[i]^2)
observable m2 = mean(i in sites: phi[i])^2
observable absm = abs(mean(i in sites: phi[i]))
"""
TWO_PI = math.log(2 * math.pi)


def solved(text: str, **overrides: object):
    program = compile_source(Source("<test>", text), overrides)[0]
    return exact.solve(program, resolve_parameters(program))


def cost_of(text: str, **overrides: object):
    program = compile_source(Source("<test>", text), overrides)[0]
    return exact.cost(program, resolve_parameters(program))


def test_rules_integrate_their_measures():
    """Totals of the base measures; a Gauss rule is exact for polynomials of degree 2n − 1 in its density."""
    assert math.isclose(np.exp(nodes_of(Angle(), 1.0, ()).log_weights).sum(), 2 * math.pi, rel_tol=1e-14)
    sphere = nodes_of(Sphere(3), 1.0, ())
    w = np.exp(sphere.log_weights)
    assert math.isclose(w.sum(), 4 * math.pi, rel_tol=1e-14)
    x, y, z = sphere.values[0]
    assert math.isclose(w @ (x**2 * y**2 * z**4), 4 * math.pi * 3 / 945, rel_tol=1e-12)
    density = Density(-5.0, 5.0, (0.0, 0.2, -1.0, 0.0, 1.0))
    rule = nodes_of(Real(), 1.0, (density,))
    x, w = coordinate(rule, Real(), 0), np.exp(rule.log_weights)
    assert len(x) == 9
    for p in (0, 1, 2, 9, 17):
        expected = quad(lambda u, p=p: u**p * math.exp(-0.2 * u + u**2 - u**4), -5, 5, epsabs=1e-13)[0]
        found = w @ (x**p * np.exp(-0.2 * x + x**2 - x**4))
        assert math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-10)


@pytest.mark.parametrize(("n", "coupling"), [(3, 0.5), (8, 1.4), (20, 3.0), (6, -2.0)])
def test_xy_ring(n, coupling):
    """Z = Σ_m (2π I_m(K))^N; E and Var E its derivatives."""
    result = solved(XY.format(lattice=f"chain({n})"), K=coupling)
    m = np.arange(-60, 61)
    i, d1 = iv(m, coupling), (iv(m - 1, coupling) + iv(m + 1, coupling)) / 2
    d2 = (iv(m - 2, coupling) + 2 * i + iv(m + 2, coupling)) / 4
    z, first = (i**n).sum(), (n * i ** (n - 1) * d1).sum()
    second = (n * (n - 1) * i ** (n - 2) * d1**2 + n * i ** (n - 1) * d2).sum()
    assert result.ln_z.value == pytest.approx(n * TWO_PI + math.log(z), rel=1e-10)
    assert result.ln_z.method == "quadrature"
    assert result.energy.value == pytest.approx(-coupling * first / z, rel=1e-8)
    assert result.heat_capacity.value == pytest.approx(coupling**2 * (second / z - (first / z) ** 2), rel=1e-7)
    assert result.observables["c"].value == pytest.approx(first / z, rel=1e-8)


@pytest.mark.parametrize("support", ["angle", "U(1)", "sphere(2)"])
def test_three_spellings_of_a_circle(support):
    body = {"angle": "cos(s[i] - s[j])", "U(1)": "re(s[i]' * s[j])", "sphere(2)": "dot(s[i], s[j])"}[support]
    text = f"""lattice chain(5, boundary = antiperiodic)
    field s : {support}
    interaction xy = -0.9 * sum(<i, j> in nn: {body})
    temperature 1"""
    m = np.arange(-30, 31)
    # −x across the boundary turns a vector by π; it reflects an angle, which pairs e^{imθ} with e^{−imθ}
    sign = (m == 0) if support == "angle" else (-1.0) ** m
    volume = 1.0 if support == "U(1)" else 2 * math.pi  # groups have normalised Haar measure
    expected = ((volume * iv(m, 0.9)) ** 5 * sign).sum()
    assert solved(text).ln_z.value == pytest.approx(math.log(expected), rel=1e-11)


@pytest.mark.parametrize(("coupling", "expected"), [(0.5, 1.4133763935)])
def test_xy_torus(coupling, expected):
    result = solved(XY.format(lattice="square(3, 3)").split("observable")[0], K=coupling)
    assert result.ln_z.value == pytest.approx(expected + 9 * TWO_PI, abs=2e-9)


@pytest.mark.parametrize(("length", "m2", "lam", "expected"), [(3, 1.0, 1.0, -1.91218715), (4, -4.0, 8.0, 2.40513896)])
def test_phi4_torus(length, m2, lam, expected):
    assert solved(PHI4, L=length, m2=m2, lam=lam).ln_z.value == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(("m2", "lam", "z"), [(1.0, 1.0, 1.36842685574), (-4.0, 8.0, 2.08287403447)])
def test_decoupled_sites(m2, lam, z):
    text = f"""lattice chain(7)
    field phi : real
    interaction v = sum(i in sites: {m2} * phi[i]^2 + {lam} * phi[i]^4)
    temperature 1
    observable phi2 = mean(i in sites: phi[i]^2)"""
    result = solved(text)
    second = quad(lambda x: x**2 * math.exp(-m2 * x**2 - lam * x**4), -np.inf, np.inf, epsabs=1e-13)[0]
    assert result.ln_z.value == pytest.approx(7 * math.log(z), rel=1e-10)
    assert result.observables["phi2"].value == pytest.approx(second / z, rel=1e-8)


def test_double_well_chain():
    """The transfer operator on a fine grid, with insertions for averages; |m| from samples of nodes."""
    result = solved(WELL)
    x, n, beta = np.linspace(-3.5, 3.5, 501), 12, 1 / 0.8
    v, d2 = -4 * x**2 + 2 * x**4, (x[:, None] - x[None]) ** 2
    k = np.exp(-beta * (v[:, None] / 2 + v[None] / 2 + d2)) * (x[1] - x[0])
    power = [np.linalg.matrix_power(k, p) for p in range(n + 1)]
    z = np.trace(power[n])
    assert result.ln_z.value == pytest.approx(math.log(z), rel=1e-11)
    energy = n * (np.trace((k * (v[:, None] + d2)) @ power[n - 1])) / z
    assert result.energy.value == pytest.approx(energy, rel=1e-9)
    assert result.observables["phi2"].value == pytest.approx(np.diagonal(power[n]) @ x**2 / z, rel=1e-9)
    pairs = sum(x @ (power[p] * power[n - p].T) @ x for p in range(1, n)) + x**2 @ np.diagonal(power[n])
    assert result.observables["m2"].value == pytest.approx(pairs / z / n, rel=1e-9)
    absolute = result.observables["absm"]
    assert absolute.method == "exact samples"
    assert math.sqrt(result.observables["m2"].value) > absolute.value > 0.5
    assert "nodes" in result.method


@pytest.mark.parametrize(("n", "k"), [(2, 0.7), (10, 2.0)])
def test_heisenberg_chain(n, k):
    """ln Z = N ln 4π + (N − 1) ln(sinh K / K)."""
    text = f"""lattice chain({n}, boundary = open)
    field S : sphere(3)
    interaction e = -{k} * sum(<i, j> in nn: dot(S[i], S[j]))
    temperature 1"""
    expected = n * math.log(4 * math.pi) + (n - 1) * math.log(math.sinh(k) / k)
    result = solved(text)
    assert result.ln_z.value == pytest.approx(expected, rel=1e-11)
    assert result.energy.value == pytest.approx(-(n - 1) * (k / math.tanh(k) - 1), rel=1e-8)


def test_heisenberg_ring():
    """Z = Σ_l (2l + 1) (4π i_l(K))^N."""
    text = """lattice chain(4)
    field S : sphere(3)
    interaction e = -1.2 * sum(<i, j> in nn: dot(S[i], S[j]))
    temperature 1"""
    order = np.arange(25)
    expected = ((2 * order + 1) * (4 * math.pi * spherical_in(order, 1.2)) ** 4).sum()
    assert solved(text).ln_z.value == pytest.approx(math.log(expected), rel=1e-9)


def test_complex_chain():
    """Angles integrated by hand, ∫dφ e^{2rr' cos φ} = 2π I₀(2rr'), radii by Gauss–Legendre."""
    text = """lattice chain(4, boundary = open)
    field z : complex
    interaction hop = sum(<i, j> in nn: abs(z[i] - z[j])^2)
    interaction potential = sum(i in sites: -abs(z[i])^2 + 0.5 * abs(z[i])^4)
    temperature 1
    observable r2 = mean(i in sites: abs(z[i])^2)"""
    r, h = np.polynomial.legendre.leggauss(90)
    r, h = 2.5 * (r + 1), 2.5 * h
    v = -(r**2) + r**4 / 2
    kernel = 2 * math.pi * iv(0, 2 * np.outer(r, r)) * np.exp(-np.add.outer(r**2, r**2)) * (r * h)[None]
    site = np.exp(-v)
    right = [np.ones_like(r)]
    for _ in range(3):
        right.append(kernel @ (site * right[-1]))
    z = 2 * math.pi * (h * r * site) @ right[3]
    result = solved(text)
    assert result.ln_z.value == pytest.approx(math.log(z), rel=1e-8)
    moment = sum((2 * math.pi * h * r * site * right[k]) @ (r**2 * right[3 - k]) for k in range(4)) / 4 / z
    assert result.observables["r2"].value == pytest.approx(moment, rel=1e-6)


def test_spins_and_displacements():
    """Quartic displacements coupled to spins: spins enumerated, displacements by a transfer operator."""
    text = """lattice chain(4, boundary = open)
    field s : spin
    field u : real
    interaction ising = -sum(<i, j> in nn: (1 + 0.4 * (u[i] - u[j])) * s[i] * s[j])
    interaction elastic = sum(<i, j> in nn: (u[i] - u[j])^2) + sum(i in sites: (u[i] - 0.2 * s[i])^2 + u[i]^4)
    temperature 0.9
    observable corr = mean(i in sites: s[i] * u[i])"""
    x, h = np.linspace(-4, 4, 401, retstep=True)
    z = moment = 0.0
    d = x[:, None] - x[None]
    for s in itertools.product((-1, 1), repeat=4):
        site = [np.exp(-((x - 0.2 * k) ** 2 + x**4) / 0.9) * h for k in s]
        bond = [np.exp(-(d**2 - (1 + 0.4 * d) * a * b) / 0.9) for a, b in itertools.pairwise(s)]
        left = [site[0]]
        for k in range(3):
            left.append((left[-1] @ bond[k]) * site[k + 1])
        right = [np.ones_like(x)]
        for k in (2, 1, 0):
            right.insert(0, bond[k] @ (site[k + 1] * right[0]))
        z += left[3].sum()
        moment += sum(s[k] * (left[k] * right[k]) @ x for k in range(4)) / 4
    result = solved(text)
    assert result.ln_z.value == pytest.approx(math.log(z), rel=1e-10)
    assert result.observables["corr"].value == pytest.approx(moment / z, rel=1e-8)


def test_clock_becomes_angle():
    """q states and dθ → 2π/q: the elimination of a clock model and the quadrature of angles."""
    fine = XY.format(lattice="square(4, 2, boundary = open)").replace("angle", "clock(32)").split("observable")[0]
    angles = XY.format(lattice="square(4, 2, boundary = open)").split("observable")[0]
    assert solved(fine, K=1.1).ln_z.value + 8 * (TWO_PI - math.log(32)) == pytest.approx(
        solved(angles, K=1.1).ln_z.value, rel=1e-10
    )


def test_plaquettes_on_an_open_lattice():
    """Independent plaquettes: Z = (2π)^{links} I₀(β)^{plaquettes}, with four-body tables."""
    text = """lattice hypercubic(3, 2, boundary = open)
    field t : angle on links
    interaction e = -2 * sum(p in plaquettes: cos(circulation(t, p)))
    temperature 1"""
    assert solved(text).ln_z.value == pytest.approx(7 * TWO_PI + 2 * math.log(iv(0, 2)), rel=1e-11)


def test_what_is_no_polynomial():
    """A Toda chain: the energy is tabulated on equispaced nodes."""
    text = """lattice chain(5, boundary = open)
    field u : real
    interaction e = sum(<i, j> in nn: exp(u[i] - u[j]) + u[j] - u[i]) + sum(i in sites: u[i]^2 / 2)
    temperature 1"""
    x, h = np.linspace(-12, 12, 601, retstep=True)
    d = x[:, None] - x[None]
    bond, site = np.exp(-(np.exp(np.minimum(d, 50)) - d)), np.exp(-(x**2) / 2) * h
    left = site
    for _ in range(4):
        left = (left @ bond) * site
    assert solved(text).ln_z.value == pytest.approx(math.log(left.sum()), rel=1e-10)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("lattice chain(4)\nfield U : SU(2)\ninteraction e = sum(i in sites: re(tr(U[i])))", "not-discrete"),
        ("lattice chain(4)\nfield u : real\ninteraction e = -sum(i in sites: u[i]^4)", "not-normalisable"),
        ("lattice square(9, 9)\nfield t : angle\ninteraction e = sum(<i, j> in nn: cos(t[i] - t[j]))", "too-expensive"),
        ("lattice square(9, 9)\nfield t : angle\ninteraction e = abs(sum(i in sites: cos(t[i])))", "not-local"),
    ],
)
def test_what_cannot_be_done_says_so(text, code):
    with pytest.raises(VfeError) as caught:
        solved(text + "\ntemperature 1")
    assert caught.value.diagnostics[0].code == code
    assert code == "not-normalisable" or not cost_of(text + "\ntemperature 1").feasible


def test_cost_is_quick_for_large_lattices():
    assert not cost_of(XY.format(lattice="square(64, 64)")).feasible
    assert cost_of(XY.format(lattice="chain(256)")).feasible
    assert cost_of(PHI4).feasible
    assert not cost_of(PHI4, L=16).feasible
