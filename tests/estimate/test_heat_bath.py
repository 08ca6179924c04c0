"""Local updates of continuous fields against exact conditionals, character sums and quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import iv

import vdsl
from vdsl.errors import VfeError
from vdsl.estimate.colours import colour_masks
from vdsl.estimate.heat_baths import draw_special_unitary, draw_von_mises
from vdsl.estimate.local import sample_local, staples
from vdsl.estimate.phase_space import make_target
from vdsl.estimate.stats import correlated_mean
from vdsl.exact.characters import coefficients
from vdsl.ir.interpret import resolve_parameters

DRAWS = 20000
von_mises, special_unitary = jax.jit(draw_von_mises), jax.jit(draw_special_unitary)
FREE = """lattice chain(3, boundary = open)
field U : {group} on links
interaction s = 0.0 * sum(l in links: re(tr(U[l])))
temperature 1"""


pytestmark = pytest.mark.usefixtures("quick_compilations")


# Conditionals of one element


@pytest.mark.parametrize(("a", "b"), [(0.0, 0.0), (0.02, -0.01), (-1.2, 0.9), (30.0, 40.0)])
def test_von_mises(a: float, b: float) -> None:
    """⟨cos(θ − μ)⟩ = I₁/I₀, ⟨cos 2(θ − μ)⟩ = I₂/I₀ about the minimum μ of a cos θ + b sin θ."""
    ones = jnp.ones(DRAWS)
    theta = np.asarray(von_mises(jax.random.key(1), a * ones, b * ones, 0 * ones), float)
    kappa, mu = np.hypot(a, b), np.arctan2(-b, -a)
    for n in (1, 2):
        values, ratio = np.cos(n * (theta - mu)), iv(n, kappa) / iv(0, kappa)
        assert values.mean() == pytest.approx(ratio, abs=4 * values.std() / np.sqrt(DRAWS) + 1e-6)
    sine = np.sin(theta - mu)
    assert sine.mean() == pytest.approx(0.0, abs=4 * sine.std() / np.sqrt(DRAWS))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 3.0, 60.0])
def test_su2_heat_bath_is_independent_of_the_start(alpha: float) -> None:
    """⟨½ tr UV⟩ = I₂/I₁ with weight e^{α ½tr(UV)}, from one update; the rest of UV has no direction."""
    start = FREE.format(group="SU(2)")
    start = vdsl.loads(start).random_configuration(jax.random.key(3), 2)["U"][0]
    v, u = start[0], start[1]
    shape = (DRAWS, 2, 2)
    staple = jnp.broadcast_to(alpha / 2 * v, shape)
    x = special_unitary(jax.random.key(2), jnp.broadcast_to(u, shape), staple, jnp.ones(DRAWS, bool))
    assert np.allclose(np.asarray(x @ x.conj().swapaxes(1, 2)), np.eye(2), atol=1e-5)
    w = np.asarray(x @ v)
    half = np.trace(w, axis1=1, axis2=2).real / 2
    ratio = iv(2, alpha) / iv(1, alpha) if alpha else 0.0
    assert half.mean() == pytest.approx(ratio, abs=4 * half.std() / np.sqrt(DRAWS))
    for part in (w[:, 0, 0].imag, w[:, 0, 1].real, w[:, 0, 1].imag):
        assert part.mean() == pytest.approx(0.0, abs=4 * part.std() / np.sqrt(DRAWS))
        assert (part**2).mean() == pytest.approx((1 - (half**2).mean()) / 3, abs=0.02 * (1 - ratio**2) + 1e-3)


def test_su3_subgroups_reach_the_conditional() -> None:
    """Eight updates from 1 of e^{Re tr(UA)}, A = ½V: ⟨Re tr UV⟩ from the characters, ⟨|tr UV|²⟩ likewise."""
    key = jax.random.key(4)
    n = 6000
    model = vdsl.loads(FREE.format(group="SU(3)"))
    v = model.random_configuration(key, 1)["U"][0, 0]
    x = jnp.broadcast_to(jnp.eye(3, dtype=v.dtype), (n, 3, 3))
    staple, everywhere = jnp.broadcast_to(v / 2, x.shape), jnp.ones(n, bool)
    for number in range(8):
        x = special_unitary(jax.random.fold_in(key, number), x, staple, everywhere)
    trace = np.trace(np.asarray(x @ v), axis1=1, axis2=2)

    def functions(m: np.ndarray) -> np.ndarray:
        t = np.trace(m, axis1=1, axis2=2)
        w = np.exp(t.real / 2)
        return np.stack([w, w * t.real, w * np.abs(t) ** 2])

    z, first, second = coefficients("SU3", functions).values[:, 0].real
    assert trace.real.mean() == pytest.approx(first / z, abs=4 * trace.real.std() / np.sqrt(n))
    squares = np.abs(trace) ** 2
    assert squares.mean() == pytest.approx(second / z, abs=4 * squares.std() / np.sqrt(n))
    assert np.allclose(np.asarray(jnp.linalg.det(x)), 1, atol=1e-4)


# Chains


WILSON = """lattice hypercubic({size})
field U : {group} on links
interaction s = -{beta} * sum(p in plaquettes: {body}) + {more}
temperature 1
observable plaq = mean(p in plaquettes: {body})"""


def chains_of(model: vdsl.Model, kept: int = 96, thin: int = 2):
    theta = resolve_parameters(model.program)
    return sample_local(model, theta, jax.random.key(7), 32, kept, thin, burn_in=60)


@pytest.mark.slow
def test_gauge_fields_agree_with_character_sums() -> None:
    model = vdsl.loads(WILSON.format(size="2, 2", group="SU(2)", beta=1.1, body="re(tr(loop(U, p)))", more=0))
    chains, baths = chains_of(model, kept=64)
    assert baths == ("U",)
    assert chains.acceptance == 1.0
    exact = model.exact()
    plaquette = correlated_mean(chains.observables["plaq"])
    assert plaquette.value == pytest.approx(exact.observables["plaq"].value, abs=4 * plaquette.error)
    assert plaquette.error < 0.03
    energy = correlated_mean(chains.energies)
    assert energy.value == pytest.approx(exact.energy.value, abs=4 * energy.error)


def test_an_action_that_is_not_linear_gets_metropolis_steps() -> None:
    more = "0.9 * sum(p in plaquettes: cos(2 * circulation(U, p)))"
    model = vdsl.loads(WILSON.format(size="2, 2", group="angle", beta=0.7, body="cos(circulation(U, p))", more=more))
    chains, baths = chains_of(model, kept=128)
    assert baths == ()
    assert 0.3 < chains.acceptance < 0.7
    plaquette = correlated_mean(chains.observables["plaq"])
    assert plaquette.value == pytest.approx(model.exact().observables["plaq"].value, abs=4 * plaquette.error)
    assert plaquette.error < 0.03


def test_staple_of_su3_is_what_a_link_feels() -> None:
    """−β(E(U') − E(U)) = Re tr((U' − U) A) for any other value of one link."""
    body = "re(tr(loop(U, p)))"
    model = vdsl.loads(WILSON.format(size="2, 3", group="SU(3)", beta=1.1, body=body, more=0))
    target = make_target(model, {}, 1.0)
    x, y = (target.draw_reference(jax.random.key(k), 2) for k in (1, 2))
    a = staples(target, target.spaces[0], x)
    for link in (0, 5, 11):
        new = x["U"].at[:, link].set(y["U"][:, link])
        change = target.energy({"U": new}) - target.energy(x)
        felt = jnp.trace((new - x["U"])[:, link] @ a[:, link], axis1=1, axis2=2).real
        assert np.allclose(-change, felt, atol=2e-4)


def test_fields_of_several_kinds_on_an_uneven_open_chain() -> None:
    """Angles with a heat bath, numbers and a sphere with Metropolis steps; couplings differ from bond to bond."""
    model = vdsl.loads(
        """lattice chain(3, boundary = open)
        field theta : angle
        field u : real
        field S : sphere(3)
        data J on nn ~ uniform(0.5, 1.5) seed 1
        interaction a = -sum(<i, j> in nn: J[i, j] * cos(theta[i] - theta[j]))
        interaction b = sum(i in sites: u[i]^4 - 0.5 * u[i] + 0.7 * u[i] * S[i, 2])
        temperature 1
        observable c = mean(<i, j> in nn: cos(theta[i] - theta[j]))
        observable m = mean(i in sites: u[i])
        observable z = mean(i in sites: S[i, 2])"""
    )
    chains, baths = chains_of(model, kept=160, thin=3)
    assert baths == ("theta",)
    couplings = np.asarray(model.program.data[0].values.values)
    c = np.mean(iv(1, couplings) / iv(0, couplings))
    u, z = np.meshgrid(np.linspace(-4, 4, 2001), np.linspace(-1, 1, 801), indexing="ij")
    w = np.exp(-(u**4) + 0.5 * u - 0.7 * u * z)
    for name, value in (("c", c), ("m", (w * u).sum() / w.sum()), ("z", (w * z).sum() / w.sum())):
        mean = correlated_mean(chains.observables[name])
        assert mean.value == pytest.approx(value, abs=4 * mean.error + 1e-3), name
        assert mean.error < 0.02


def test_energies_with_kinks_are_refused() -> None:
    model = vdsl.loads(
        """lattice hypercubic(3, 3)
        field U : angle on links
        interaction villain = sum(p in plaquettes: wrap(circulation(U, p))^2)
        temperature 1"""
    )
    with pytest.raises(VfeError) as found:
        chains_of(model)
    assert found.value.diagnostics[0].code == "method-cannot-serve"


@pytest.mark.parametrize(("lattice", "most"), [("hypercubic(2, 2, 4)", 6), ("hypercubic(3, 4, boundary = open)", 4)])
def test_elements_of_a_colour_do_not_share_a_plaquette(lattice: str, most: int) -> None:
    model = vdsl.loads(
        f"""lattice {lattice}
        field U : U(1) on links
        interaction s = -sum(p in plaquettes: re(loop(U, p)))
        temperature 1"""
    )
    masks = colour_masks(make_target(model, {}, 1.0), jax.random.key(0))["U"]
    assert (masks.sum(0) == 1).all()
    assert len(masks) <= most
    at = model.program.lattice
    site, mu, nu = at.plaquettes
    for x, m, n in zip(site, mu, nu, strict=True):
        ends = [at.move(np.array(x), at.axis_step(int(a)))[0] for a in (m, n)]
        links = [at.link_number[x, m], at.link_number[ends[0], n], at.link_number[ends[1], m], at.link_number[x, n]]
        for colour in masks:
            assert colour[sorted(set(map(int, links)))].sum() <= 1
