"""Character sums of two-dimensional gauge theories against published values, quadrature and derivatives of ln Z."""

import math

import numpy as np
import pytest
from scipy.special import iv

import vdsl
from references.models import REFERENCES
from vdsl import exact
from vdsl.errors import VfeError
from vdsl.exact.gauge import Moments, charge_squared, gauge_theory
from vdsl.exact.plaquettes import plaquette_holonomies, plaquette_model
from vdsl.ir import interpret
from vdsl.ir.configurations import random_configuration

LN_2PI = math.log(2 * math.pi)
WILSON = {
    "angle": ("cos(circulation(U, p))", 1),
    "U(1)": ("re(loop(U, p))", 1),
    "SU(2)": ("re(tr(loop(U, p)))", 2),
    "SU(3)": ("re(tr(loop(U, p)))", 3),
}


def gauge(group: str, size: str, beta: float, extra: str = "", boundary: str = "periodic") -> vdsl.Model:
    body, n = WILSON[group]
    return vdsl.loads(
        f"""param beta = {beta}
        param T = 1.0 in (0, inf)
        lattice hypercubic({size}, boundary = {boundary})
        field U : {group} on links
        interaction wilson = -beta / {n} * sum(p in plaquettes: {body})
        temperature T
        observable plaq = mean(p in plaquettes: {body}) / {n}
        {extra}"""
    )


def theory_of(model: vdsl.Model):
    return gauge_theory(model.program, interpret.resolve_parameters(model.program))


@pytest.mark.parametrize(
    ("length", "beta", "ln_z", "plaquette", "charge"),
    [
        (4, 1.0, 3.7746347073, 0.446393912, 0.65009779),
        (8, 2.0, 52.7355866551, 0.697774658, 1.23929891),
        (8, 7.0, 328.1735759490, 0.925700364, 0.21711083),
    ],
)
def test_published_values_of_compact_u1(length: int, beta: float, ln_z: float, plaquette: float, charge: float) -> None:
    extra = """observable Q = sum(p in plaquettes: wrap(circulation(U, p))) / (2 * pi)
    derived Q2 = expect(Q^2) - expect(Q)^2"""
    model = gauge("angle", f"{length}, {length}", beta, extra)
    found = model.exact()
    assert found.ln_z.value == pytest.approx(ln_z + 2 * length**2 * LN_2PI, abs=2e-10)
    assert found.observables["plaq"].value == pytest.approx(plaquette, abs=1e-9)
    assert found.derived["Q2"].value == pytest.approx(charge, abs=1e-8)
    assert charge_squared(model.program, interpret.resolve_parameters(model.program)) == pytest.approx(charge, abs=1e-8)


def test_group_elements_have_normalised_haar_measure() -> None:
    assert gauge("U(1)", "4, 4", 2.0).exact().ln_z.value == pytest.approx(13.1901932584, abs=1e-10)
    for group in ("U(1)", "SU(2)", "SU(3)"):
        assert gauge(group, "1, 2", 0.0).exact().ln_z.value == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(("size", "v"), [("2, 2", 4), ("3, 5", 15), ("6, 7", 42), ("40, 50", 2000)])
def test_su2_on_tori_of_any_size(size: str, v: int) -> None:
    """Z = Σ_n (2 I_n(β)/β)^V; the plaquette tends to I₂/I₁."""
    beta, n = 2.2, np.arange(1, 40)
    found = gauge("SU(2)", size, beta).exact()
    ratio = iv(n, beta) / iv(1, beta)
    expected = v * math.log(2 * iv(1, beta) / beta) + math.log((ratio**v).sum())
    assert found.ln_z.value == pytest.approx(expected, rel=1e-12)
    if v > 1000:
        assert found.observables["plaq"].value == pytest.approx(iv(2, beta) / iv(1, beta), rel=1e-11)


def test_su3_is_the_reference() -> None:
    assert gauge("SU(3)", "4, 4", 6.0).exact().ln_z.value == pytest.approx(REFERENCES["su3"](), rel=1e-12)


@pytest.mark.parametrize(
    ("group", "size"), [("angle", "3, 3"), ("angle", "6, 5"), ("SU(2)", "3, 3"), ("SU(3)", "6, 5")]
)
def test_energy_and_heat_capacity_are_derivatives_of_ln_z(group: str, size: str) -> None:
    h = 1e-3
    model = gauge(group, size, 2.5)
    found = model.exact({"T": 1.3})
    f = [model.exact({"T": 1 / (1 / 1.3 + k * h)}).ln_z.value for k in (-1, 0, 1)]
    assert found.energy.value == pytest.approx(-(f[2] - f[0]) / (2 * h), rel=1e-5)
    assert found.heat_capacity.value == pytest.approx((f[2] - 2 * f[1] + f[0]) / h**2 / 1.3**2, rel=1e-4)
    assert found.observables["plaq"].value * -2.5 * model.program.lattice.n_plaquettes == pytest.approx(
        found.energy.value, rel=1e-12
    )


def test_commutator_on_a_torus_of_one_plaquette() -> None:
    """½ tr U V U† V† = 1 − 2 sin²α sin²γ sin²θ for two SU(2) links, θ between their axes."""
    x, w = np.polynomial.legendre.leggauss(60)
    angle, measure = (x + 1) * math.pi / 2, w * np.sin((x + 1) * math.pi / 2) ** 2
    a, c, z = np.meshgrid(angle, angle, x, indexing="ij")
    half_trace = 1 - 2 * np.sin(a) ** 2 * np.sin(c) ** 2 * (1 - z**2)
    weight = measure[:, None, None] * measure[None, :, None] * w[None, None, :] / 2
    expected = math.log((weight * np.exp(1.7 * half_trace)).sum())
    assert gauge("SU(2)", "1, 1", 1.7).exact().ln_z.value == pytest.approx(expected, abs=1e-12)


def test_brute_force_on_a_torus_of_four_plaquettes() -> None:
    """Every gauge-invariant number of a 2 × 2 torus with a two-term action and a source of Q, on a grid of angles."""
    model = vdsl.loads(
        """lattice hypercubic(2, 2)
        field U : U(1) on links
        interaction fundamental = -0.5 * sum(x in sites, <mu, nu> in planes:
            re(U[x, mu] * U[x + mu, nu] * U[x + nu, mu]' * U[x, nu]'))
        interaction charge_two = 0.15 * sum(p in plaquettes: re(loop(U, p)^2)) + 1.5
        interaction odd = 0.2 * sum(p in plaquettes: im(loop(U, p)))
        temperature 0.8
        observable plaq = mean(p in plaquettes: re(loop(U, p)))
        observable both = mean(p in plaquettes: re(loop(U, p))) * sum(p in plaquettes: im(loop(U, p)))
        observable line = mean(x in sites: re(U[x, 0] * U[x + (1, 0), 0]))"""
    )
    lattice, n = model.program.lattice, 16
    grid = 2 * math.pi * np.arange(n) / n
    free = [0, 1, 2, 3, 5]  # links (0,0)·, what is left when a tree of three links is 1
    links = np.zeros((n**5, 8))
    links[:, free] = np.stack(np.meshgrid(*(grid,) * 5), -1).reshape(-1, 5)
    tree = {4, 6, 7}
    site, axis = lattice.links
    joined = {0}
    for _ in range(4):  # the links that are 1 reach every site: the gauge is fixed and nothing else
        for k in tree:
            ends = {int(site[k]), int(lattice.move(site[[k]], lattice.axis_step(int(axis[k])))[0][0])}
            joined |= ends if ends & joined else set()
    assert joined == {0, 1, 2, 3}
    p = np.stack([plaquette_holonomies(lattice, row) for row in links[:: n**3]])  # slow: only to check the fast one
    fast = _plaquettes(lattice, links)
    assert np.allclose(np.exp(1j * p), np.exp(1j * fast[:: n**3]))
    energy = (-0.5 * np.cos(fast) + 0.15 * np.cos(2 * fast) + 0.2 * np.sin(fast)).sum(1) + 1.5
    w = np.exp(-energy / 0.8)
    found = model.exact()
    assert found.ln_z.value == pytest.approx(math.log(w.mean()), abs=1e-9)
    mean = lambda values: float((w * values).sum() / w.sum())  # noqa: E731
    assert found.energy.value == pytest.approx(mean(energy), rel=1e-9)
    assert found.heat_capacity.value == pytest.approx((mean(energy**2) - mean(energy) ** 2) / 0.64, rel=1e-8)
    assert found.observables["plaq"].value == pytest.approx(mean(np.cos(fast).mean(1)), rel=1e-9)
    expected = mean(np.cos(fast).mean(1) * np.sin(fast).sum(1))
    assert found.observables["both"].value == pytest.approx(expected, rel=1e-8)
    assert set(found.left_out) == {"line"}  # a loop around the torus


def _plaquettes(lattice, links: np.ndarray) -> np.ndarray:
    site, _, _ = lattice.plaquettes
    step = lambda at: lattice.move(site, lattice.axis_step(at))[0]  # noqa: E731
    number = lattice.link_number
    return (
        links[:, number[site, 0]]
        + links[:, number[step(0), 1]]
        - links[:, number[step(1), 0]]
        - links[:, number[site, 1]]
    )


@pytest.mark.parametrize("boundary", ["open", "(periodic, open)"])
@pytest.mark.parametrize("group", ["angle", "SU(2)"])
def test_plaquettes_are_independent_where_a_boundary_is_open(group: str, boundary: str) -> None:
    n, beta = (1, 1.4) if group == "angle" else (2, 1.4)
    loop = {
        "angle": "cos(U[x, 0] + U[x + (1, 0), 1] + U[x + (1, 1), 1] - U[x + (0, 2), 0] - U[x + (0, 1), 1] - U[x, 1])",
        "SU(2)": """re(tr(U[x, 0] * U[x + (1, 0), 1] * U[x + (1, 1), 1]
                    * U[x + (0, 2), 0]' * U[x + (0, 1), 1]' * U[x, 1]')) / 2""",
    }[group]
    model = gauge(group, "3, 4", beta, f"observable w = mean(x in sites: {loop})", boundary)
    found, v = model.exact(), model.program.lattice.n_plaquettes
    one = math.log(iv(0, beta)) if group == "angle" else math.log(2 * iv(1, beta) / beta)
    measure = model.program.lattice.n_links * LN_2PI if group == "angle" else 0.0
    assert found.ln_z.value == pytest.approx(v * one + measure, rel=1e-12)
    ratio = iv(n, beta) / iv(n - 1, beta)
    assert found.observables["plaq"].value == pytest.approx(ratio, rel=1e-11)
    assert found.observables["w"].value == pytest.approx(ratio**2, rel=1e-9)


def test_wilson_loops_of_u1() -> None:
    """Σ I_n^{V−A} I_{n+1}^A / Z."""
    loop = "cos(U[x, 0] + U[x + (1, 0), 1] + U[x + (1, 1), 1] - U[x + (0, 2), 0] - U[x + (0, 1), 1] - U[x, 1])"
    found = gauge("angle", "4, 4", 1.0, f"observable w = 1 - 2 * mean(x in sites: {loop})").exact()
    n = np.arange(-30, 31)
    expected = (iv(n, 1.0) ** 14 * iv(n + 1, 1.0) ** 2).sum() / (iv(n, 1.0) ** 16).sum()
    assert found.observables["w"].value == pytest.approx(1 - 2 * expected, rel=1e-10)


@pytest.mark.parametrize("group", ["SU(2)", "SU(3)"])
def test_a_loop_of_area_one_is_a_plaquette(group: str) -> None:
    """Two formulas for one number: the insertion of χ_f/N into one plaquette, and the fusion of representations."""
    model = gauge(group, "2, 3", 2.0)
    moments = Moments(theory_of(model), [])
    assert moments.average(((1, 1),)) == pytest.approx(model.exact().observables["plaq"].value, rel=1e-10)


def test_wilson_loops_of_su2() -> None:
    """Σ_d [(d+1)/2d λ_{d+1}^A + (d−1)/2d λ_{d−1}^A] λ_d^{V−A} / Z: d ⊗ 2 = (d+1) ⊕ (d−1)."""
    moments = Moments(theory_of(gauge("SU(2)", "2, 3", 1.1)), [])
    lam = 2 * iv(np.arange(1, 60), 1.1) / 1.1
    z = (lam**6).sum()
    for area in (1, 2, 3):
        up = sum((d + 1) / (2 * d) * lam[d] ** area * lam[d - 1] ** (6 - area) for d in range(1, 50))
        down = sum((d - 1) / (2 * d) * lam[d - 2] ** area * lam[d - 1] ** (6 - area) for d in range(2, 50))
        assert moments.average(((1, area),)) == pytest.approx((up + down) / z, rel=1e-11)


def test_ready_made_observables_have_exact_averages() -> None:
    """The mean over both orientations of a loop of area 2; a loop around the torus is left out."""
    more = """observable w = wilson_loop(U, 1, 2)
    observable line = abs(polyakov_loop(U, 0))"""
    found = gauge("SU(2)", "3, 4", 1.3, more).exact()
    lam = 2 * iv(np.arange(1, 60), 1.3) / 1.3
    up = sum((d + 1) / (2 * d) * lam[d] ** 2 * lam[d - 1] ** 10 for d in range(1, 50))
    down = sum((d - 1) / (2 * d) * lam[d - 2] ** 2 * lam[d - 1] ** 10 for d in range(2, 50))
    assert found.observables["w"].value == pytest.approx((up + down) / (lam**12).sum(), rel=1e-10)
    assert set(found.left_out) == {"line"}


NOT_SUMS = {
    "larger loops": "-sum(x in sites: cos(U[x, 0] + U[x + (1, 0), 0] + U[x + (2, 0), 1] - U[x + (1, 1), 0] "
    "- U[x + (0, 1), 0] - U[x, 1]))",
    "gauge variant": "-sum(l in links: cos(U[l]))",
    "not periodic": "sum(p in plaquettes: circulation(U, p)^2)",
    "one plaquette stronger": "-sum(p in plaquettes: cos(circulation(U, p))) - cos(circulation(U, 3, 0, 1))",
    "a square of the sum": "-sum(p in plaquettes: cos(circulation(U, p)))^2 / 10",
}


@pytest.mark.parametrize("action", NOT_SUMS.values(), ids=NOT_SUMS)
@pytest.mark.parametrize("size", ["3, 4", "6, 6"])
def test_other_actions_are_not_taken_for_plaquette_sums(action: str, size: str) -> None:
    model = vdsl.loads(f"lattice hypercubic({size})\nfield U : angle on links\ninteraction s = {action}\ntemperature 1")
    assert theory_of(model) is None


@pytest.mark.parametrize("size", ["3, 4", "6, 6"])
def test_means_and_constants_scale_with_the_lattice(size: str) -> None:
    text = f"""lattice hypercubic({size})
    field U : SU(2) on links
    interaction s = size(plaquettes) * (0.3 - 0.9 * mean(p in plaquettes: re(tr(loop(U, p)))^2))
    interaction c = sum(x in sites: 0.2)
    temperature 0.5
    observable e = s / size(plaquettes)"""
    model = vdsl.loads(text)
    theory = theory_of(model)
    x = random_configuration(model.program, np.random.default_rng(3))
    holonomies = plaquette_holonomies(model.program.lattice, x["U"])
    energy = theory.model.values(theory.action, holonomies).sum() + theory.action.constant
    assert energy == pytest.approx(interpret.energy(model.program, x, {}), rel=1e-10)
    found = model.exact()
    v = model.program.lattice.n_sites
    assert found.observables["e"].value == pytest.approx((found.energy.value - 0.2 * v) / v, rel=1e-11)


def test_models_of_other_fields_have_no_such_view() -> None:
    for text in (
        "lattice hypercubic(3, 3, 3)\nfield U : U(1) on links\ninteraction s = sum(p in plaquettes: re(loop(U, p)))",
        "lattice hypercubic(3, 3)\nfield U : angle\ninteraction s = sum(<i, j> in nn: cos(U[i] - U[j]))",
        "lattice hypercubic(3, 3, boundary = antiperiodic)\nfield U : U(1) on links\n"
        "interaction s = sum(p in plaquettes: re(loop(U, p)))",
    ):
        model = vdsl.loads(text + "\ntemperature 1")
        assert plaquette_model(model.program, {}) is None


def test_exact_values_stand_beside_estimates_at_any_size() -> None:
    model = gauge("angle", "64, 64", 6.0)
    cost = exact.cost(model.program, {"beta": 6.0, "T": 1.0})
    assert cost.feasible
    assert cost.seconds_estimate < 10
    assert cost.method == "character sums"
    with pytest.raises(VfeError):  # without the form, no exact answer at this size
        exact.solve(gauge("SU(2)", "4, 4", 1.0, boundary="antiperiodic").program, {"beta": 1.0, "T": 1.0})
