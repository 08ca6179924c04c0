"""Gaussian guides: exact for quadratic energies in every form, the best Gaussian elsewhere, marginals, densities."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vdsl
from vdsl.errors import VfeError
from vdsl.guides.banded import BandedGeometry, band_of, build_banded
from vdsl.guides.gaussian import (
    GaussianStructure,
    base_of,
    build_gaussian,
    choose_gaussian,
    gaussian_base,
    solve,
    structure_of,
)
from vdsl.guides.hartree import best_gaussian
from vdsl.guides.problem import Problem
from vdsl.guides.spectral import build_spectral
from vdsl.ir import interpret
from vdsl.ir.graph import adjacency

pytestmark = pytest.mark.usefixtures("quick_compilation")

PHI4 = """
param L : int = 4
param m2 = 1.0
param lam = 0.0
lattice hypercubic(L, L)
field phi : real
interaction kinetic = sum(x in sites, mu in axes: phi[x] * (2 * phi[x] - phi[x + mu] - phi[x - mu]))
interaction potential = sum(x in sites: m2 * phi[x]^2 + lam * phi[x]^4)
temperature 1
"""
QUADRATIC = {
    "two channels": """
lattice hypercubic(4, 5)
field a : real
field b : real
interaction e = sum(<i, j> in nn: (a[i] - a[j])^2 + 0.5 * (b[i] - b[j])^2)
interaction m = sum(x in sites: a[x]^2 + b[x]^2 + 0.3 * b[x])
interaction c = 0.7 * sum(x in sites: a[x] * b[x + (1, 0)] - 0.4 * a[x] * b[x + (0, 2)])
temperature 0.7
""",
    "vectors": """
lattice chain(6)
field u : real[3]
interaction e = sum(<i, j> in nn: dot(u[i] - u[j], u[i] - u[j])) + sum(x in sites: dot(u[x], u[x]) + u[x, 0] * u[x, 2])
temperature 2
""",
    "complex": """
lattice triangular(4, 3)
field z : complex
interaction e = sum(<i, j> in nn: re(conj(z[i]) * z[j]) + 0.3 * im(conj(z[i]) * z[j]))
interaction m = 5 * sum(x in sites: re(conj(z[x]) * z[x]))
temperature 1
""",
    "data couplings": """
lattice square(5, 4)
field x : real
data J on nn ~ normal(1, 0.3) seed 1
data h on sites ~ normal(0, 1) seed 2
interaction e = sum(<i, j> in nn: J[i, j]^2 * (x[i] - x[j])^2) + sum(i in sites: 0.3 * x[i]^2 - h[i] * x[i])
temperature 0.5
""",
    "open": PHI4.replace("(L, L)", "(L, L, boundary = open)").replace("= 4", "= 5"),
    "antiperiodic": PHI4.replace("(L, L)", "(L, L, boundary = antiperiodic)"),
    "three dimensions": PHI4.replace("(L, L)", "(3, 2, 4)"),
    "honeycomb": """
lattice honeycomb(3, 4)
field x : real
interaction e = sum(<i, j> in nn: 2 * (x[i] - x[j])^2) + 0.4 * sum(i in sites: x[i]^2)
temperature 1
""",
    "graph": """
lattice complete(7)
field x : real
data J on nn ~ normal(0, 1) seed 5
interaction e = sum(<i, j> in nn: J[i, j] * x[i] * x[j]) + 6 * sum(i in sites: x[i]^2)
temperature 1.3
""",
}


@pytest.fixture(autouse=True)
def double_precision():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def problem(text: str, **overrides: float) -> Problem:
    model = vdsl.loads(text, **overrides)
    return Problem(model.program, interpret.resolve_parameters(model.program), model)


def dense_form(p: Problem) -> tuple[np.ndarray, np.ndarray, float]:
    """A, b, c of βE = ½xᵀAx − bᵀx + c, by differentiating the compiled energy."""
    energy, n = p.flat_energy(), p.chart.size
    reduced = jax.jit(lambda x: energy(x[None])[0] / p.temperature)
    zero = jnp.zeros(n)
    return np.asarray(jax.hessian(reduced)(zero)), -np.asarray(jax.grad(reduced)(zero)), float(reduced(zero))


def exact_ln_z(p: Problem) -> float:
    a, b, c = dense_form(p)
    return 0.5 * (len(b) * np.log(2 * np.pi) - np.linalg.slogdet(a)[1] + b @ np.linalg.solve(a, b)) - c


def guide_of(p: Problem):
    return build_gaussian(choose_gaussian(p), p)


def log_weights(guide, n: int = 64) -> np.ndarray:
    params = guide.init(jax.random.key(0))

    @jax.jit
    def run(guide, key):
        z, log_q = guide.draw_latent(params, key, n, jnp.ones(()))
        return -guide.latent_energy(z, jnp.ones(())) - log_q

    return np.asarray(run(guide, jax.random.key(1)))


@pytest.mark.parametrize("name", QUADRATIC)
def test_quadratic_energies_are_exact(name: str):
    p = problem(QUADRATIC[name])
    guide = guide_of(p)
    found = log_weights(guide)
    np.testing.assert_allclose(found, exact_ln_z(p), rtol=1e-9, atol=1e-9)
    assert not guide.trainable()


def test_free_field():
    p = problem(PHI4)
    assert structure_of(p).band is None
    np.testing.assert_allclose(log_weights(guide_of(p)), -2.8581318146, rtol=1e-9)


def test_a_large_lattice_by_modes():
    p = problem(PHI4, L=32)
    k = 4 * np.sin(np.pi * np.arange(32) / 32) ** 2
    ln_z = 512 * np.log(np.pi) - 0.5 * np.log(k[:, None] + k + 1).sum()
    np.testing.assert_allclose(log_weights(guide_of(p)), ln_z, rtol=1e-10)


def test_a_large_open_lattice_is_banded_and_exact():
    p = problem(PHI4.replace("(L, L)", "(L, L, boundary = open)"), L=24)
    assert structure_of(p).band.blocks > 4
    # The graph Laplacian of an open path has the eigenvalues of half-integer momenta; axes add. phi x (2 phi) at an
    # open end is absent when either neighbour is.
    np.testing.assert_allclose(log_weights(guide_of(p)), exact_ln_z(p), rtol=1e-9)


def test_the_stored_weights_of_configurations():
    """log_prob of a configuration against the definition."""
    p = problem(QUADRATIC["complex"])
    guide = guide_of(p)
    x, log_q = guide.sample_and_log_prob({"base": {}, "flow": {}}, jax.random.key(0), 5)
    np.testing.assert_allclose(guide.log_prob({"base": {}, "flow": {}}, x), log_q, rtol=1e-10)
    reduced = -jax.vmap(p.model.log_density)(x)
    np.testing.assert_allclose(-reduced - log_q, exact_ln_z(p), rtol=1e-9)


def test_not_bounded_below_is_refused():
    p = problem(PHI4, m2=-1.0)
    with pytest.raises(VfeError) as caught:
        guide_of(p)
    assert caught.value.diagnostics[0].code == "unbounded-energy"
    massless = problem(PHI4, m2=0.0)
    with pytest.raises(VfeError):
        guide_of(massless)


def test_angles_are_refused():
    p = problem(
        "lattice chain(4)\nfield t : angle\ninteraction e = -sum(<i, j> in nn: cos(t[i] - t[j]))\ntemperature 1"
    )
    with pytest.raises(VfeError) as caught:
        choose_gaussian(p)
    assert caught.value.diagnostics[0].code == "guide-cannot-serve"


# --- the best Gaussian ------------------------------------------------------------------------------------------------

BEST = [(4, -4.0, 8.0, -1.21921047), (8, -4.0, 8.0, -4.76933918)]


@pytest.mark.parametrize(("length", "m2", "lam", "free_energy"), BEST)
def test_best_variational_free_energy(length: int, m2: float, lam: float, free_energy: float):
    p = problem(PHI4, L=length, m2=m2, lam=lam)
    optimum = solve(p, structure_of(p))
    assert optimum.stationary
    assert optimum.reduced_free_energy == pytest.approx(free_energy, abs=2e-8)
    band = band_of(adjacency(p.expansion.n, [g.scopes for g in p.expansion.groups]))
    again = solve(p, GaussianStructure(band))
    assert again.reduced_free_energy == pytest.approx(free_energy, abs=2e-8)


def test_its_samples_have_that_free_energy():
    p = problem(PHI4, m2=-4.0, lam=8.0)
    r = -log_weights(guide_of(p), 20000)
    assert r.mean() == pytest.approx(-1.21921047, abs=5 * r.std() / np.sqrt(len(r)))


def trained(base, p: Problem, steps: int, rate: float, key: int = 0):
    """The base after reparameterised gradient steps; and F/T of it from fresh samples, with its error."""
    energy = p.flat_energy()
    optimiser = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def loss(params, key, n):
        z = base.sample(params, key, n)
        r = energy(z) / p.temperature + base.log_prob(params, z)
        return r.mean(), r

    @jax.jit
    def run(params, key):
        def step(carry, key):
            params, state = carry
            grads = jax.grad(lambda q: loss(q, key, 512)[0])(params)
            updates, state = optimiser.update(grads, state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, optimiser.init(params)), jax.random.split(key, steps))
        return params, loss(params, jax.random.fold_in(key, 1), 20000)[1]

    return run(base.init(jax.random.key(0)), jax.random.key(key))


@pytest.mark.slow
def test_training_a_spectrum_reaches_the_best_gaussian():
    """From the spectrum of another mass: the same optimum as self-consistency, to the noise of the last steps."""
    p = problem(PHI4, m2=-4.0, lam=8.0)
    optimum = solve(p, structure_of(p))
    start = replace(optimum, precision=optimum.precision + 7.0)
    base = base_of(p, structure_of(p), start, np.ones(16), trained=True)
    assert base.weight.shape == (6,)  # momenta of a square lattice of 4×4 that its symmetries do not relate
    params, _ = trained(base, p, 2000, 0.01)
    moved = optimum.precision[..., 0, 0].real + 7.0
    moved = moved[:, :3] * np.exp(-2 * np.asarray(params["log_scale"])[np.asarray(base.orbit), 0])
    energy_free = _gaussian_free_energy(p, moved)
    assert energy_free == pytest.approx(-1.21921047, abs=1e-4)


def _gaussian_free_energy(p: Problem, half: np.ndarray) -> float:
    """F/T of a translation-invariant Gaussian of 4×4, by ⟨φ²⟩ alone: ⟨φ⁴⟩ = 3⟨φ²⟩²."""
    full = np.concatenate([half, half[(-np.arange(4)) % 4][:, [1]]], axis=1)
    k = 4 * np.sin(np.pi * np.arange(4) / 4) ** 2
    variance = np.mean(1 / full)
    kinetic = np.sum((k[:, None] + k - 4.0) / full)
    return kinetic + 16 * 8.0 * 3 * variance**2 + 0.5 * np.log(full).sum() - 8 * (1 + np.log(2 * np.pi))


def test_a_mean_is_found_where_no_symmetry_forbids_it():
    """One site: the best Gaussian by scanning its two parameters."""
    p = problem(
        "lattice chain(1)\nfield x : real\ninteraction e = sum(i in sites: x[i]^4 + 0.5 * x[i]^2 - 2 * x[i])\n"
        "temperature 1"
    )
    optimum = solve(p, structure_of(p))
    m, v = np.meshgrid(np.linspace(0, 1.5, 601), np.linspace(0.02, 0.5, 481), indexing="ij")
    f = m**4 + 6 * m**2 * v + 3 * v**2 + 0.5 * (m**2 + v) - 2 * m - 0.5 * np.log(2 * np.pi * np.e * v)
    assert optimum.reduced_free_energy == pytest.approx(f.min(), abs=1e-5)
    assert optimum.mean[0] == pytest.approx(m.flat[f.argmin()], abs=5e-3)


def test_monomials_of_several_variables():
    """⟨E⟩ of a Gaussian through Wick's theorem, against samples of it."""
    p = problem(
        "lattice chain(3)\nfield x : real\nfield y : real\ninteraction e = sum(<i, j> in nn: x[i]^2 * x[j]^2 + "
        "x[i] * y[j]^3 * x[j]) + sum(i in sites: y[i]^4 + x[i]^4 + x[i]^2 + y[i]^2 + x[i] * y[i])\ntemperature 1"
    )
    optimum = solve(p, structure_of(p))
    assert optimum.stationary
    r = -log_weights(guide_of(p), 40000)
    assert r.mean() == pytest.approx(optimum.reduced_free_energy, abs=4 * r.std() / np.sqrt(len(r)))


# --- densities and marginals ------------------------------------------------------------------------------------------


def random_params(base, size: float = 0.3):
    leaves, tree = jax.tree.flatten(base.init(jax.random.key(0)))
    keys = jax.random.split(jax.random.key(7), len(leaves))
    return jax.tree.unflatten(tree, [size * jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)])


def covariance_of(base, params, kept: np.ndarray) -> np.ndarray:
    """The covariance of a Gaussian ln q on the kept coordinates, from its values at 0, e_i and e_i + e_j.

    Asserts that it is normalised: that its value at the mean is that of a Gaussian of this covariance.
    """
    index = np.flatnonzero(kept)
    n = len(index)
    first, second = np.triu_indices(n)
    points = np.zeros((1 + n + len(first), len(kept)))
    points[1 + np.arange(n), index] = 1.0
    np.add.at(points, (1 + n + np.arange(len(first)), index[first]), 1.0)
    np.add.at(points, (1 + n + np.arange(len(first)), index[second]), 1.0)
    values = np.asarray(jax.jit(lambda base, params, x: base.log_prob(params, x))(base, params, points))
    zero, single, double = values[0], values[1 : 1 + n], values[1 + n :]
    precision = np.zeros((n, n))
    precision[first, second] = -(double - single[first] - single[second] + zero)
    precision = precision + np.triu(precision, 1).T
    gradient = single - zero + 0.5 * np.diag(precision)
    covariance = np.linalg.inv(precision)
    at_mean = zero + 0.5 * gradient @ covariance @ gradient
    normalised = 0.5 * np.linalg.slogdet(precision)[1] - 0.5 * n * np.log(2 * np.pi)
    assert at_mean == pytest.approx(normalised, abs=1e-8)
    return covariance


@pytest.mark.parametrize("name", ["two channels", "honeycomb", "data couplings"])
def test_deformed_bases_are_normalised_and_sampled(name: str):
    """ln q is a normalised Gaussian for any parameters, and samples have its covariance."""
    p = problem(QUADRATIC[name])
    everything = np.ones(p.chart.size)
    base = gaussian_base(p, everything)
    params = random_params(base)
    covariance = covariance_of(base, params, everything)
    z = drawn(base, params)
    spread = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    assert np.abs((np.cov(z.T) - covariance) / spread).max() < 0.03
    if name not in ("data couplings",):
        a, _, _ = dense_form(p)
        assert np.abs(covariance - np.linalg.inv(a)).max() > 0.01  # the deformation is not nothing


def drawn(base, params) -> np.ndarray:
    return np.asarray(jax.jit(lambda base, params, k: base.sample(params, k, 40000))(base, params, jax.random.key(3)))


def checkerboard(p: Problem) -> np.ndarray:
    cell = np.stack(np.unravel_index(np.arange(np.prod(p.chart.cells)), p.chart.cells), 1)
    kept = np.zeros(p.chart.size)
    kept[np.array(p.chart.grid)] = np.tile(cell.sum(1) % 2 == 0, p.chart.channels)
    return kept


@pytest.mark.parametrize(
    ("text", "parity"),
    [(PHI4, 0), (PHI4.replace("(L, L)", "(L, L, boundary = open)"), 1)],
    ids=["torus", "open"],
)
def test_marginal_on_a_sublattice(text: str, parity: int):
    p = problem(text)
    kept = np.abs(checkerboard(p) - parity)
    base = gaussian_base(p, kept)
    a, _, _ = dense_form(p)
    index = np.flatnonzero(kept)
    expected = np.linalg.inv(a)[np.ix_(index, index)]
    np.testing.assert_allclose(covariance_of(base, base.init(jax.random.key(0)), kept), expected, atol=1e-10)
    covariance = covariance_of(base, random_params(base), kept)
    assert np.abs(covariance - expected).max() > 0.01
    z = drawn(base, base.init(jax.random.key(0)))
    assert (z[:, kept == 0] == 0).all()
    np.testing.assert_allclose(np.cov(z[:, index].T), expected, atol=0.02)


def test_marginal_where_the_kept_are_no_sublattice():
    """An odd torus has no checkerboard: a maximal independent set is dropped, the Schur complement is what is left."""
    p = problem(PHI4, L=5)
    kept = np.ones(25)
    kept[[0, 2, 6, 8, 15]] = 0
    base = gaussian_base(p, kept)
    a, _, _ = dense_form(p)
    index = np.flatnonzero(kept)
    expected = np.linalg.inv(a)[np.ix_(index, index)]
    np.testing.assert_allclose(covariance_of(base, base.init(jax.random.key(0)), kept), expected, atol=1e-10)


def test_a_spectrum_keeps_the_symmetries_of_the_lattice():
    p = problem(PHI4, L=6)
    base = gaussian_base(p, np.ones(36))
    covariance = covariance_of(base, random_params(base), np.ones(36)).reshape(6, 6, 6, 6)
    np.testing.assert_allclose(np.roll(covariance, (1, 2, 1, 2), (0, 1, 2, 3)), covariance, atol=1e-12)
    np.testing.assert_allclose(covariance.transpose(1, 0, 3, 2), covariance, atol=1e-12)
    np.testing.assert_allclose(covariance[::-1, :, ::-1], covariance, atol=1e-12)


def test_blocks_of_a_band():
    """A band of several blocks, deformed: normalised; unfilled places are no coordinates."""
    p = problem(PHI4.replace("hypercubic(L, L)", "chain(L, boundary = open)"), L=11)
    band = replace(structure_of(p).band, width=3)
    assert band.blocks == 4
    optimum = best_gaussian(p.expansion, 1.0, BandedGeometry(band))
    base = build_banded(band, optimum.precision, optimum.mean, 11, True, np.ones(11))
    a, _, _ = dense_form(p)
    np.testing.assert_allclose(
        covariance_of(base, base.init(jax.random.key(0)), np.ones(11)), np.linalg.inv(a), atol=1e-12
    )
    params = random_params(base)
    covariance = covariance_of(base, params, np.ones(11))
    z = drawn(base, params)
    assert np.abs((np.cov(z.T) - covariance) / np.sqrt(np.outer(*[np.diag(covariance)] * 2))).max() < 0.03


def test_a_spectral_base_wants_a_sublattice():
    p = problem(PHI4)
    optimum = solve(p, structure_of(p))
    kept = np.ones(16)
    kept[[0, 3, 9]] = 0
    with pytest.raises(ValueError, match="sublattice"):
        build_spectral(p.chart, optimum.precision, optimum.mean, kept, True, np.zeros(16))
