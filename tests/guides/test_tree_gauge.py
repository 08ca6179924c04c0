"""The tree gauge: weights that are all Z where the guide is exact, normalised densities, links on the group."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vdsl
from guides.small_models import compiled
from vdsl.errors import VfeError
from vdsl.estimate.stats import ess, log_mean_exp
from vdsl.guides import registry
from vdsl.guides.gauge.algebra import Matrices, Quaternions, Turns
from vdsl.guides.gauge.cells import Cells
from vdsl.guides.gauge.colours import character_ratios, coupling_of
from vdsl.guides.gauge.steps import walker
from vdsl.guides.gauge.tree import TreeGauge
from vdsl.guides.guide import Guide
from vdsl.guides.problem import Problem
from vdsl.ir.actions import act, random_element
from vdsl.ir.interpret import resolve_parameters
from vdsl.ir.symmetry import Symmetry

LOOP = "U[x, mu] * U[x + mu, nu] * U[x + nu, mu]' * U[x, nu]'"
SAMPLES = 1024


def source(shape: str, support: str, of_plaquette: str) -> str:
    """`of_plaquette` is a function of P, a flux or a loop."""
    loop = "circulation(U, p)" if support == "angle" else LOOP
    over = "p in plaquettes" if support == "angle" else "x in sites, <mu, nu> in planes"
    body = of_plaquette.replace("P", loop)
    return (
        f"lattice hypercubic({shape})\nfield U : {support} on links\ninteraction e = sum({over}: {body})\ntemperature 1"
    )


def circle_ln_z(weight: np.ndarray, plaquettes: int, closed: bool) -> float:
    """ln Σ_n c_n^V for U(1) with Haar measure, e^{−f} on a grid of the circle."""
    c = np.fft.fft(weight) / len(weight)
    return plaquettes * np.log(c[0].real) + (np.log(((c / c[0]) ** plaquettes).sum().real) if closed else 0.0)


def spin_ln_z(f: np.ndarray, plaquettes: int) -> float:
    """ln Σ_n (c_n/n)^V for SU(2), f on a grid of α in [0, π], by Simpson's rule."""
    alpha = np.linspace(0, np.pi, len(f))
    simpson = np.full(len(f), 2.0)
    simpson[1::2], simpson[[0, -1]] = 4.0, 1.0
    w = simpson * np.exp(-f) * np.sin(alpha) * (2 / np.pi) * (alpha[1] / 3)
    u = np.array([(w * np.sin(n * alpha)).sum() / n for n in range(1, 40)])
    return float(plaquettes * np.log(u[0]) + np.log(((u / u[0]) ** plaquettes).sum()))


PHI = 2 * np.pi * np.arange(4096) / 4096
ALPHA = np.linspace(0, np.pi, 2001)
ODD = 2.0 * np.cos(PHI - 0.5) + 0.7 * np.sin(2 * PHI)
MIXED = -1.2 * np.cos(ALPHA) + 0.4 * np.cos(ALPHA) ** 2
# The model, ln Z, and the least ESS.
MODELS: dict[str, tuple[str, float, float]] = {
    "angle 4×4": (source("4, 4", "angle", "-2 * cos(P)"), 13.1901932584 + 32 * np.log(2 * np.pi), 0.9999),
    "U(1) 8×8": (source("8, 8", "U(1)", "-2 * re(P)"), 52.7355866551, 0.9999),
    "odd": (
        source("3, 2", "angle", "-2 * cos(P - 0.5) - 0.7 * sin(2 * P)"),
        circle_ln_z(np.exp(ODD), 6, True) + 12 * np.log(2 * np.pi),
        0.9999,
    ),
    "cylinder": (
        source("3, 3, boundary = (open, periodic)", "angle", "-2 * cos(P - 0.5) - 0.7 * sin(2 * P)"),
        circle_ln_z(np.exp(ODD), 6, False) + 15 * np.log(2 * np.pi),
        0.9999,
    ),
    "SU(2), mixed": (source("4, 5", "SU(2)", "-0.6 * re(tr(P)) + 0.1 * re(tr(P))^2"), spin_ln_z(MIXED, 20), 0.9999),
    "SU(2), open": (
        source("3, 3, boundary = (periodic, open)", "SU(2)", "-8 * re(tr(P))"),
        6 * spin_ln_z(-16 * np.cos(ALPHA), 1000) / 1000,
        0.999,
    ),
    "SU(3)": (source("2, 2", "SU(3)", "-5 / 3 * re(tr(P))"), 0.0, 0.97),
}  # fmt: skip
SU3 = ("SU(3)",)


@dataclass(frozen=True)
class Drawn:
    problem: Problem
    guide: TreeGauge
    x: dict[str, np.ndarray]
    log_q: np.ndarray
    again: np.ndarray
    elsewhere: np.ndarray
    moved: np.ndarray


@jax.jit
def observed(guide: Guide, key: jax.Array, elsewhere: dict, moved: dict) -> tuple:
    x, log_q = guide.sample_and_log_prob({}, key, SAMPLES)
    every = jnp.concatenate([x["U"], elsewhere["U"], moved["U"]])
    return x, log_q, *jnp.split(guide.log_prob({}, {"U": every}), [SAMPLES, 2 * SAMPLES])


@cache
def drawn(name: str) -> Drawn:
    """Samples with their ln q, ln q of Haar configurations, and of some of these after gauge transformations."""
    model = vdsl.loads(MODELS[name][0])
    problem = Problem(model.program, resolve_parameters(model.program), model)
    guide = registry.build(registry.choose(problem), problem)
    elsewhere = model.random_configuration(jax.random.key(3), SAMPLES)
    gauge, rng = Symmetry("gauge", ("U",)), np.random.default_rng(4)
    moved = [
        act(gauge, random_element(gauge, model.program, rng), {"U": np.asarray(elsewhere["U"][k])}, model.program)["U"]
        for k in range(32)
    ]
    dtype = elsewhere["U"].dtype
    found = compiled(observed, guide, jax.random.key(5), elsewhere, {"U": jnp.asarray(np.stack(moved), dtype)})
    return Drawn(problem, guide, *jax.tree.map(np.asarray, found))


def log_weights(name: str) -> np.ndarray:
    d = drawn(name)
    return -np.asarray(d.problem.model.energies(d.x), float) - d.log_q.astype(float)


@pytest.mark.parametrize("name", [n for n in MODELS if n not in SU3])
def test_every_weight_is_the_partition_function(name: str):
    """ln w = ln Z for every single configuration, in the model's own measure: q is the Boltzmann distribution."""
    _, ln_z, least = MODELS[name]
    log_w = log_weights(name)
    assert ess(log_w) > least
    assert log_mean_exp(log_w) == pytest.approx(ln_z, abs=4 * log_w.std() / np.sqrt(SAMPLES) + 2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", SU3)
def test_su3_is_nearly_exact(name: str):
    """Against the sum over representations of (c_r/d_r)^V."""
    log_w = log_weights(name)
    angles = 2 * np.pi * np.arange(96) / 96
    trace = np.cos(angles[:, None]) + np.cos(angles) + np.cos(angles[:, None] + angles)
    sizes, ratios = character_ratios(np.exp(5 / 3 * trace))
    a, b = angles[:, None], angles[None]
    haar = 64 * (np.sin((a - b) / 2) * np.sin((2 * a + b) / 2) * np.sin((a + 2 * b) / 2)) ** 2 / 6
    ln_z = 4 * np.log((haar * np.exp(5 / 3 * trace)).mean()) + np.log((ratios**4).sum())
    assert sizes[0] == 1
    assert ratios[0] == pytest.approx(1)
    assert ess(log_w) > MODELS[name][2]
    assert log_mean_exp(log_w) == pytest.approx(ln_z, abs=4 * log_w.std() / np.sqrt(SAMPLES))


@pytest.mark.parametrize("name", MODELS)
def test_samples_come_with_their_density(name: str):
    d = drawn(name)
    np.testing.assert_allclose(d.again, d.log_q, atol=2e-3)


@pytest.mark.parametrize("name", ["angle 4×4", "odd", "cylinder", "SU(2), mixed", "SU(3)"])
def test_density_of_any_configuration(name: str):
    """At configurations drawn from the base measure, q is e^{−E}/Z up to the guide's accuracy, seen or not."""
    d, (_, ln_z, _) = drawn(name), MODELS[name]
    x = d.problem.model.random_configuration(jax.random.key(3), SAMPLES)
    log_w = -np.asarray(d.problem.model.energies(x), float) - d.elsewhere
    if name in SU3:
        assert np.median(np.abs(log_w - np.median(log_w))) < 0.1
    else:
        np.testing.assert_allclose(np.quantile(log_w, [0.05, 0.5, 0.95]), ln_z, atol=0.05)


@pytest.mark.parametrize("name", MODELS)
def test_density_is_gauge_invariant(name: str):
    d = drawn(name)
    np.testing.assert_allclose(d.moved, d.elsewhere[:32], atol=0.02)


@pytest.mark.parametrize("name", ["SU(2), mixed", "SU(3)"])
def test_links_stay_on_the_group(name: str):
    u = drawn(name).x["U"]
    assert np.abs(u @ u.conj().swapaxes(-1, -2) - np.eye(u.shape[-1])).max() < 2e-6
    assert np.abs(np.linalg.det(u) - 1).max() < 2e-6


@pytest.mark.parametrize("name", ["U(1) 8×8", "SU(2), mixed"])
def test_most_plaquettes_need_not_know_the_rest(name: str):
    """Both ways to draw a plaquette take part in these models."""
    plaquettes = drawn(name).guide.plaquettes
    conditionals = getattr(plaquettes, "circle", plaquettes)
    assert 0 < conditionals.blind < drawn(name).guide.cells.n_plaquettes


def test_averages_of_the_abelian_theory():
    """Charge and plaquette of U(1), 8×8, β = 2, against their character sums."""
    u = drawn("U(1) 8×8").x["U"].reshape(SAMPLES, 8, 8, 2)
    p = u[..., 0] * np.roll(u[..., 1], -1, 1) * np.roll(u[..., 0], -1, 2).conj() * u[..., 1].conj()
    charge = np.angle(p).sum((1, 2)) / (2 * np.pi)
    np.testing.assert_allclose(charge, np.round(charge), atol=1e-4)
    assert p.real.mean() == pytest.approx(0.697774658, abs=4 * p.real.mean((1, 2)).std() / np.sqrt(SAMPLES))
    assert (charge**2).mean() == pytest.approx(1.23929891, abs=4 * (charge**2).std() / np.sqrt(SAMPLES))


# --- parts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algebra", "periodic"),
    [
        *[(Turns(0, True), (a, b)) for a in (True, False) for b in (True, False)],
        (Quaternions(1), (True, True)),
        (Matrices(2), (True, True)),
        (Matrices(2), (True, False)),
    ],
)
def test_links_and_fluxes(algebra, periodic: tuple[bool, bool], quick_compilation):
    """links → fluxes → links; on a torus the plaquettes multiply to the commutator of the holonomies."""
    cells = Cells((3, 4), periodic)

    @jax.jit
    def run(key):
        links = algebra.uniform(key, (8, cells.n_links))
        fluxes = cells.fluxes(algebra, links)
        product, commutator = algebra.total(fluxes.plaquettes), algebra.commutator(fluxes.a, fluxes.b)
        stored = algebra.stored(links)
        return links, fluxes, cells.links(algebra, fluxes), product, commutator, stored, algebra.read(stored)

    links, fluxes, again, product, commutator, stored, read = run(jax.random.key(0))
    assert fluxes.plaquettes.shape[1] == cells.n_plaquettes
    np.testing.assert_allclose(algebra.stored(again), stored, atol=3e-6)
    np.testing.assert_allclose(algebra.stored(read), stored, atol=1e-6)
    if cells.closed:
        np.testing.assert_allclose(algebra.stored(product), algebra.stored(commutator), atol=3e-6)
    if isinstance(algebra, Turns):
        np.testing.assert_array_equal(again, links)


def test_a_tree_gauge_transformation_is_one(quick_compilation):
    """fluxes of transformed links: the same plaquettes up to the transformation at the first site."""
    algebra, cells = Quaternions(1), Cells((2, 3), (True, True))

    @jax.jit
    def run(key):
        links = algebra.uniform(key, (5, 12))
        fluxes = cells.fluxes(algebra, links)
        gauge = jnp.concatenate([algebra.identity((5, 1)), algebra.uniform(key, (5, 5))], 1).reshape(5, 2, 3, 4)
        fluxes = fluxes._replace(gauge=gauge)
        return fluxes, cells.fluxes(algebra, cells.links(algebra, fluxes))

    for one, two in zip(*run(jax.random.key(1)), strict=True):
        np.testing.assert_allclose(one, two, atol=2e-6)


def test_walkers_tables_are_exact():
    masses = np.random.default_rng(0).exponential(size=37) ** 3
    accept, alias = walker(masses)
    found = accept / len(masses)
    np.add.at(found, alias, (1 - accept) / len(masses))
    np.testing.assert_allclose(found, masses / masses.sum(), rtol=1e-12)


@pytest.mark.parametrize("coupling", [-1.5, 0.3, 5 / 3, 6.0])
def test_coupling_of_a_character(coupling: float):
    angles = 2 * np.pi * np.arange(256) / 256
    trace = np.cos(angles[:, None]) + np.cos(angles) + np.cos(angles[:, None] + angles)
    assert coupling_of(character_ratios(np.exp(coupling * trace))[1][1]) == pytest.approx(coupling, rel=1e-9)


# --- what it serves --------------------------------------------------------------------------------------------------


def test_it_is_the_default_and_is_not_trained():
    d = drawn("angle 4×4")
    choice = registry.choose(d.problem)
    assert choice.name == "tree"
    assert "gauge freedom is removed" in choice.reason
    assert not d.guide.trainable()
    assert d.guide.n_parameters() == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (source("2, 2, 2", "SU(2)", "-re(tr(P))"), "not two-dimensional"),
        (source("2, 2", "angle", "-cos(P)").replace("\ntemp", " - 0.1 * cos(U[0, 0])\ntemp"), "not a sum"),
        ("lattice chain(3)\nfield U : angle\ninteraction e = sum(i in sites: cos(U[i]))\ntemperature 1", "no field"),
    ],
)
def test_what_it_refuses(text: str, why: str):
    model = vdsl.loads(text)
    with pytest.raises(VfeError) as caught:
        registry.choose(Problem(model.program, resolve_parameters(model.program), model), "tree")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "guide-cannot-serve"
    assert why in diagnostic.message
