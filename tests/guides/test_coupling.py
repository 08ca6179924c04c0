"""Coupling flows: maps of one variable, Jacobians, symmetries, densities and ln Z against references."""

from __future__ import annotations

from functools import cache

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import iv

import vdsl
from vdsl.errors import VfeError
from vdsl.guides import coupling
from vdsl.guides.bijectors import BOUND, inverse_spline, sinh_arcsinh, spline, spline_parameters, wrap
from vdsl.guides.coupling import build_coupling, choose_coupling, with_structure
from vdsl.guides.flow import Flow
from vdsl.guides.problem import Problem
from vdsl.ir import interpret

pytestmark = pytest.mark.usefixtures("quick_compilation")

KINDS = {"line": (-BOUND, BOUND), "odd line": (-BOUND, BOUND), "circle": (-np.pi, np.pi), "odd circle": (-np.pi, np.pi)}
BINS = 5


@pytest.fixture(autouse=True)
def double_precision():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


# --- maps of one variable ---------------------------------------------------------------------------------------------


def raw_of(kind: str, size: float = 1.5, seed: int = 0) -> np.ndarray:
    return size * np.random.default_rng(seed).standard_normal(spline_parameters(kind, BINS))


def points(kind: str) -> np.ndarray:
    low, high = KINDS[kind]
    inside = np.linspace(low, high, 401)
    return inside if "circle" in kind else np.concatenate([inside, np.linspace(-2 * BOUND, 2 * BOUND, 101)])


@cache
def mapped(kind: str):
    forward = jax.jit(jax.vmap(lambda x, raw: spline(kind, x, raw, BINS), (0, None)))
    back = jax.jit(jax.vmap(lambda x, raw: inverse_spline(kind, x, raw, BINS), (0, None)))
    slope = jax.jit(jax.vmap(jax.grad(lambda x, raw: spline(kind, x, raw, BINS)[0]), (0, None)))
    return forward, back, slope


@pytest.mark.parametrize("kind", KINDS)
def test_splines_start_as_the_identity(kind: str):
    x = points(kind)
    y, log_slope = mapped(kind)[0](x, np.zeros(spline_parameters(kind, BINS)))
    np.testing.assert_allclose(y, x, atol=1e-12)
    np.testing.assert_allclose(log_slope, 0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_splines_and_their_inverses(kind: str):
    forward, back, slope = mapped(kind)
    x, raw = points(kind), raw_of(kind)
    y, log_slope = forward(x, raw)
    again, log_back = back(y, raw)
    assert np.abs(y - x).max() > 0.3
    np.testing.assert_allclose(again, x, atol=1e-9)
    np.testing.assert_allclose(log_back, -log_slope, atol=1e-7)
    away = x[(np.abs(x) < BOUND) & (np.abs(x) > 1e-9) & (np.abs(np.abs(x) - np.pi) > 1e-9)]
    np.testing.assert_allclose(np.log(slope(away, raw)), forward(away, raw)[1], atol=1e-9)
    order = np.argsort(x)
    assert (np.diff(np.asarray(y)[order]) >= -1e-12).all()


@pytest.mark.parametrize("kind", KINDS)
def test_slopes_are_continuous_everywhere(kind: str):
    """Across knots, ends, the mirror and the seam of the circle: the derivative has no jump, and is that of the map."""
    forward, _, _ = mapped(kind)
    raw, (low, high) = raw_of(kind, 0.7), KINDS[kind]
    x = np.linspace(low, high, 20001)
    log_slope = np.asarray(forward(x, raw)[1])
    assert np.abs(np.diff(log_slope)).max() < 0.01 * np.ptp(log_slope)
    if "circle" in kind:
        assert log_slope[0] == pytest.approx(log_slope[-1], abs=1e-9)
        np.testing.assert_allclose(forward(np.array([low, high]), raw)[0], [low, high], atol=1e-12)
    else:
        edge = np.array([low, high])
        np.testing.assert_allclose(forward(edge * (1 - 1e-9), raw)[1], 0, atol=1e-6)
    y = np.asarray(forward(x, raw)[0])
    numerical = (y[2:] - y[:-2]) / (x[2:] - x[:-2])
    np.testing.assert_allclose(np.exp(log_slope[1:-1]), numerical, rtol=2e-2)


@pytest.mark.parametrize("kind", ["odd line", "odd circle"])
def test_odd_splines_are_odd(kind: str):
    forward, _, _ = mapped(kind)
    x, raw = points(kind), raw_of(kind)
    np.testing.assert_allclose(forward(-x, raw)[0], -forward(x, raw)[0], atol=1e-12)
    np.testing.assert_allclose(forward(-x, raw)[1], forward(x, raw)[1], atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_the_parameters(kind: str):
    """Of y and of ln dy/dx, at ordinary places, at the ends, at 0 and beyond: against finite differences."""
    places = np.array([-5.0, -BOUND, -np.pi, -1.3, 0.0, 1e-9, 0.7, 2.0, np.pi, BOUND, 7.0])
    if "circle" in kind:
        places = places[np.abs(places) <= np.pi]
    raw, step = raw_of(kind, 0.7), 1e-6
    direction = np.random.default_rng(1).standard_normal(raw.shape)
    forward = mapped(kind)[0]
    rates = jax.jit(jax.vmap(jax.jacrev(lambda raw, x: jnp.stack(spline(kind, x, raw, BINS))), (None, 0)))(raw, places)
    up, down = forward(places, raw + step * direction), forward(places, raw - step * direction)
    for part in (0, 1):
        assert np.isfinite(rates[:, part]).all()
        np.testing.assert_allclose(rates[:, part] @ direction, (up[part] - down[part]) / (2 * step), atol=1e-6)


def test_splines_are_those_of_distrax():
    """The same knots and slopes through another implementation; its parameters have another normalisation."""
    x, raw = np.linspace(-3.9, 3.9, 200), raw_of("circle", 1.0)
    theirs = distrax.RationalQuadraticSpline(
        jnp.concatenate([raw, raw[-1:]]),
        -np.pi,
        np.pi,
        boundary_slopes="circular",
        min_bin_size=2e-3 * np.pi,
        min_knot_slope=1e-3,
    )
    inside = x[np.abs(x) < np.pi]
    y, log_slope = theirs.forward_and_log_det(inside)
    ours, ours_slope = mapped("circle")[0](inside, raw)
    # distrax ties the last slope to the first; so do we.
    np.testing.assert_allclose(ours, y, atol=2e-3)
    np.testing.assert_allclose(ours_slope, log_slope, atol=2e-2)


def test_sinh_arcsinh():
    x = np.linspace(-30, 30, 301)
    y, log_slope = sinh_arcsinh(x, -0.3)
    np.testing.assert_allclose(y, np.sinh(np.exp(-0.3) * np.arcsinh(x)), rtol=1e-12)
    slope = jax.vmap(jax.grad(lambda x: sinh_arcsinh(x, -0.3)[0]))(x)
    np.testing.assert_allclose(np.log(slope), log_slope, atol=1e-10)
    np.testing.assert_allclose(sinh_arcsinh(y, 0.3)[0], x, atol=1e-10)
    np.testing.assert_allclose(sinh_arcsinh(y, 0.3)[1], -log_slope, atol=1e-10)


def test_wrap():
    x = np.array([-9.0, -3.5, -1.0, 0.0, 3.0, 3.5, 20.0])
    np.testing.assert_allclose(wrap(x), np.angle(np.exp(1j * x)), atol=1e-12)
    np.testing.assert_array_equal(jax.vmap(jax.grad(wrap))(x), 1.0)


# --- flows ------------------------------------------------------------------------------------------------------------

PHI4 = """
param m2 = -4.0
param lam = 8.0
lattice hypercubic(4, 4)
field phi : real
interaction k = sum(x in sites, mu in axes: phi[x] * (2 * phi[x] - phi[x + mu] - phi[x - mu]))
interaction v = sum(x in sites: m2 * phi[x]^2 + lam * phi[x]^4)
temperature 1
"""
XY = """
lattice square(4, 4)
field t : angle
interaction e = -sum(<i, j> in nn: cos(t[i] - t[j]))
temperature 1
"""
SOURCES = {
    "phi4": PHI4,
    "open phi4 in a field": PHI4.replace("(4, 4)", "(4, 3, boundary = open)")
    + "interaction h = 0.4 * sum(x in sites: phi[x])\n",
    "two fields on a graph": """
lattice complete(3)
field a : real
field z : complex
data J on nn ~ normal(0, 1) seed 1
interaction e = sum(<i, j> in nn: J[i, j] * a[i] * a[j] + re(conj(z[i]) * z[j]))
interaction v = sum(i in sites: a[i]^4 + 2 * re(conj(z[i]) * z[i]) + re(conj(z[i]) * z[i])^2)
interaction c = sum(i in sites: a[i]^2 * re(conj(z[i]) * z[i]))
temperature 0.7
""",
    "xy": XY,
    "chiral xy": XY.replace("cos(t[i] - t[j])", "cos(t[i] - t[j] - 0.4)").replace("(4, 4)", "(2, 4)"),
    "xy in a field": XY.replace("square(4, 4)", "chain(5)") + "interaction h = -0.3 * sum(i in sites: cos(t[i]))\n",
}
EVEN = ("phi4", "two fields on a graph")
ROWS = 16  # of every batch, so that each flow is compiled once


def problem(text: str, **overrides: float) -> Problem:
    model = vdsl.loads(text, **overrides)
    return Problem(model.program, interpret.resolve_parameters(model.program), model)


def flow_of(p: Problem, **options) -> Flow:
    return build_coupling(with_structure(choose_coupling(p), **options), p)


def random_params(guide: Flow, size: float = 0.3, seed: int = 0):
    """Every parameter moved at random, so that no layer is the identity."""
    params = guide.init(jax.random.key(seed))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    moved = [a + size * jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, moved)


class Case:
    """A flow with random parameters, starting points z and where they go."""

    def __init__(self, name: str):
        self.problem = problem(SOURCES[name])
        self.guide = flow_of(self.problem, layers=2, features=3, hidden=4, bins=3)
        self.params = random_params(self.guide)
        self._run = jax.jit(
            lambda guide, flow, z: (*guide.bijection.forward(flow, z), *guide.bijection.inverse(flow, z))
        )
        self.kept = np.asarray(self.guide.kept)
        self.z = np.asarray(self.guide.base.sample(self.params["base"], jax.random.key(5), ROWS))
        self.x, self.log_det = self.forward(self.z)

    def forward(self, z, flow=None) -> tuple[np.ndarray, np.ndarray]:
        y, log_det, _, _ = self._run(self.guide, self.params["flow"] if flow is None else flow, z)
        return np.asarray(y), np.asarray(log_det)

    def inverse(self, x) -> tuple[np.ndarray, np.ndarray]:
        _, _, y, log_det = self._run(self.guide, self.params["flow"], x)
        return np.asarray(y), np.asarray(log_det)

    def circular(self, x) -> np.ndarray:
        return np.where(self.guide.chart.periodic(), np.angle(np.exp(1j * np.asarray(x))), x)

    def commutes(self, before, after) -> bool:
        """Whether f(before(z)) = after(f(z)), ln|det| and all."""
        there, log_det = self.forward(before(self.z))
        error = np.abs(self.circular(there - after(self.x))).max()
        return error < 1e-8 and np.abs(log_det - self.log_det).max() < 1e-8


case = cache(Case)


@pytest.mark.parametrize("name", SOURCES)
def test_fresh_flows_are_the_identity(name: str):
    c = case(name)
    x, log_det = c.forward(c.z, c.guide.bijection.init(jax.random.key(3)))
    np.testing.assert_allclose(c.circular(x - c.z), 0, atol=1e-9)
    np.testing.assert_allclose(log_det, 0, atol=1e-9)


@pytest.mark.parametrize("name", SOURCES)
def test_inverse(name: str):
    c = case(name)
    back, log_back = c.inverse(c.x)
    assert np.abs(c.x - c.z).max() > 0.1
    np.testing.assert_allclose(c.circular(back - c.z), 0, atol=1e-7)
    np.testing.assert_allclose(log_back, -c.log_det, atol=1e-6)
    np.testing.assert_array_equal(c.x[:, c.kept == 0], 0)


@pytest.mark.parametrize("name", SOURCES)
def test_log_det(name: str):
    """Against the determinant of finite differences, one-sided errors cancelled: good to 1e-6 in double precision."""
    c, step = case(name), 1e-5
    index = np.flatnonzero(c.kept)
    columns = []
    for chunk in np.array_split(index, -(-len(index) // (ROWS // 2))):
        points = np.repeat(c.z[:1], ROWS, axis=0)
        points[np.arange(len(chunk)), chunk] += step
        points[ROWS // 2 + np.arange(len(chunk)), chunk] -= step
        y, _ = c.forward(points)
        difference = c.circular(y[: len(chunk)] - y[ROWS // 2 : ROWS // 2 + len(chunk)])
        columns.append(difference[:, index] / (2 * step))
    assert np.linalg.slogdet(np.concatenate(columns))[1] == pytest.approx(c.log_det[0], abs=2e-5)


def test_log_det_by_automatic_differentiation():
    c = case("phi4")
    index = np.flatnonzero(c.kept)

    def one(guide, flow, y):
        return guide.bijection.forward(flow, jnp.zeros(len(c.kept)).at[index].set(y)[None])[0][0, index]

    jacobian = jax.jit(jax.jacfwd(one, 2))(c.guide, c.params["flow"], c.z[0, index])
    assert np.linalg.slogdet(jacobian)[1] == pytest.approx(c.log_det[0], abs=1e-9)


@pytest.mark.parametrize("name", EVEN)
def test_a_change_of_sign_is_built_in(name: str):
    c = case(name)
    assert c.commutes(np.negative, np.negative)
    assert c.guide.bijection.conditioner.symmetric


def test_no_sign_is_imposed_where_the_model_has_none():
    assert not case("open phi4 in a field").commutes(np.negative, np.negative)


@pytest.mark.parametrize("name", ["phi4", "xy"])
def test_lattice_symmetries(name: str):
    """Translations that keep the colours, exchange of the axes, reflections; of two by two steps of one axis too."""

    def on_grid(move):
        return lambda a: move(a.reshape(-1, 4, 4)).reshape(a.shape)

    c = case(name)
    turned = 1 - int(c.kept[0])  # about a site of the sublattice that is kept, so that each of its colours stays
    for move in (
        lambda a: np.roll(a, (2, 2), (1, 2)),
        lambda a: np.roll(a, 2, 1),
        lambda a: np.roll(a.transpose(0, 2, 1), (turned, turned), (1, 2)),
        lambda a: np.roll(a[:, ::-1], 1, 1),
    ):
        assert c.commutes(on_grid(move), on_grid(move))


def test_a_stencil_of_near_variables_is_shared_by_translations(monkeypatch: pytest.MonkeyPatch):
    """On a lattice too large for kernels that see everything: shells are taken whole or not at all."""
    monkeypatch.setattr(coupling, "_WHOLE", 2)
    monkeypatch.setattr(coupling, "_NEAREST", 6)
    monkeypatch.setitem(SOURCES, "near", PHI4.replace("(4, 4)", "(6, 6)"))
    c = Case("near")
    assert c.guide.bijection.stencil.near.shape == (2, 9, 6)
    assert c.guide.bijection.conditioner.pairs == 1  # the four nearest of a rotated square lattice

    def move(a):
        return np.roll(a.reshape(-1, 6, 6), (2, 4), (1, 2)).reshape(a.shape)

    assert c.commutes(move, move)
    back, log_back = c.inverse(c.x)
    np.testing.assert_allclose(back, c.z, atol=1e-7)
    np.testing.assert_allclose(log_back, -c.log_det, atol=1e-6)


@pytest.mark.parametrize("name", ["xy", "chiral xy", "xy in a field"])
def test_rotations_and_reflections_of_angles(name: str):
    """Each holds exactly where the model has it, and is not imposed where it has not."""
    c = case(name)

    def turn(a):
        return a + 2.1 * c.kept

    assert c.commutes(turn, turn) == (name != "xy in a field")
    assert c.commutes(np.negative, np.negative) == (name != "chiral xy")


FIELD = "interaction h = 0.4 * sum(i in sites: phi[i])\n"


@pytest.mark.parametrize(("transform", "field"), [("spline", ""), ("sinh", FIELD)])
def test_densities_of_two_real_variables_integrate_to_one(transform: str, field: str):
    text = "lattice chain(2, boundary = open)\nfield phi : real\ninteraction e = sum(<i, j> in nn: (phi[i] - phi[j])^2)"
    p = problem(text + " + sum(i in sites: phi[i]^4)\ntemperature 1\n" + field)
    guide = flow_of(p, decimate=False, layers=2, features=3, hidden=4, bins=3, transform=transform)
    params = random_params(guide, 0.25)
    if transform == "sinh":  # its tails are long
        line = 60 * np.sinh(np.linspace(-6, 6, 901)) / np.sinh(6)
    else:
        line = np.linspace(-16, 16, 1101)
    grid = np.stack([a.ravel() for a in np.meshgrid(line, line, indexing="ij")], 1)
    log_q = jax.jit(lambda guide, params, z: guide.latent_log_prob(params, z, 1.0))(guide, params, grid)
    area = np.outer(np.gradient(line), np.gradient(line)).ravel()
    assert np.exp(log_q) @ area == pytest.approx(1, abs=2e-3)


TILTED = XY.replace("- t[j]", "- t[j] - 0.4") + "interaction h = -0.3 * sum(i in sites: cos(t[i]))\n"


def test_densities_of_two_angles_integrate_to_one():
    p = problem(TILTED.replace("square(4, 4)", "chain(2, boundary = open)"))
    guide = flow_of(p, decimate=False, layers=2, features=3, hidden=4, bins=3)
    params = random_params(guide, 0.4)
    line = (np.arange(600) + 0.5) / 600 * 2 * np.pi - np.pi
    grid = np.stack([a.ravel() for a in np.meshgrid(line, line, indexing="ij")], 1)
    log_q = jax.jit(lambda guide, params, z: guide.latent_log_prob(params, z, 1.0))(guide, params, grid)
    assert np.ptp(log_q) > 0.3
    assert np.exp(log_q).mean() * 4 * np.pi**2 == pytest.approx(1, abs=1e-3)


def log_weights(guide: Flow, params, n: int) -> np.ndarray:
    @jax.jit
    def run(guide, params, key):
        z, log_q = guide.draw_latent(params, key, n, jnp.ones(()))
        return -guide.latent_energy(z, jnp.ones(())) - log_q

    return np.asarray(run(guide, params, jax.random.key(11)), float)


def ln_z(log_w: np.ndarray) -> tuple[float, float]:
    top = log_w.max()
    w = np.exp(log_w - top)
    return top + np.log(w.mean()), w.std() / w.mean() / np.sqrt(len(w))


def two_site_ln_z() -> float:
    line = np.linspace(-4, 4, 1601)
    a, b = np.meshgrid(line, line, indexing="ij")
    reduced = (2 * (a - b) ** 2 + a**4 + b**4 + 0.3 * (a + b)) / 0.8
    return float(np.log(np.exp(-reduced).sum() * (line[1] - line[0]) ** 2))


def test_ln_z_of_two_sites_is_unbiased():
    """An untrained flow with random parameters, against quadrature."""
    p = problem(
        "lattice chain(2, boundary = open)\nfield x : real\ninteraction e = 2 * sum(<i, j> in nn: (x[i] - x[j])^2) + "
        "sum(i in sites: x[i]^4 + 0.3 * x[i])\ntemperature 0.8"
    )
    guide = flow_of(p, decimate=False, layers=2, features=3, hidden=4, bins=3)
    found, error = ln_z(log_weights(guide, random_params(guide, 0.15), 100_000))
    assert error < 0.02
    assert found == pytest.approx(two_site_ln_z(), abs=4 * error)


def test_ln_z_of_a_ring_of_angles_is_unbiased():
    p = problem(XY.replace("square(4, 4)", "chain(4)"))
    guide = flow_of(p, layers=2, features=3, hidden=4, bins=3)
    found, error = ln_z(log_weights(guide, random_params(guide, 0.2), 100_000))
    m = np.arange(-30, 31)
    assert error < 0.02
    assert found == pytest.approx(np.log(((2 * np.pi * iv(m, 1.0)) ** 4).sum()), abs=4 * error)


# --- choice -----------------------------------------------------------------------------------------------------------


def test_what_is_explained():
    choice = choose_coupling(problem(PHI4))
    assert choice.description["learned"] == 8
    assert "global change of sign" in choice.description["symmetry built in"]
    assert "8 of 16" in choice.reason


def test_discrete_fields_are_refused():
    p = problem("lattice chain(4)\nfield s : spin\ninteraction e = -sum(<i, j> in nn: s[i] * s[j])\ntemperature 1")
    with pytest.raises(VfeError) as caught:
        choose_coupling(p)
    assert caught.value.diagnostics[0].code == "guide-cannot-serve"
