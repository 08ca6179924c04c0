"""Laws that every registered guide obeys, on every kind of small model, against enumeration in float64.

A new guide is one line in the registry and meets all of these at once; a new kind of model is one line in
`small_models.SOURCES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from guides.small_models import OPAQUE, SOURCES, Small, compiled, log_prob, named, random_params, seed_of, small_tables
from vdsl.errors import VfeError
from vdsl.guides.guide import Guide
from vdsl.guides.problem import Problem
from vdsl.guides.registry import DISCRETE
from vdsl.ir.support import stored_states

SAMPLES = 4000
ANNEALED = 0.6

# Sweeps are one wide, so that the default guide of these models has a skeleton; a few have wider blocks instead.
WIDER = {"ising": 3, "spins and links": 2, "plaquettes": 2}
# Each pair costs seconds of compiling: `dense` is the default guide with another skeleton, and `mean_field` knows of no
# lattice, so they meet every kind of letter and symmetry only; the models left out for all differ in theirs alone.
LEFT_OUT = ("ring", "link gauge")
DENSE = ("spin glass", "potts", "clock", "ashkin-teller", "letters of two sizes", "plaquettes", *OPAQUE)


def _meets(form: str, name: str) -> bool:
    if form == "exact":
        return name not in OPAQUE
    return name not in WIDER if form == "autoregressive" else name in DENSE


FORMS = [(form, name, 1) for name in SOURCES if name not in LEFT_OUT for form in DISCRETE if _meets(form, name)]
FORMS += [("autoregressive", name, width) for name, width in WIDER.items()]

every_form = pytest.mark.parametrize(
    ("form", "name", "width"), FORMS, ids=[f"{form} {width}-{name}" for form, name, width in FORMS]
)


@dataclass(frozen=True)
class Evaluated:
    """A guide with random parameters, and everything the laws are about.

    log_q (M,) of every configuration; `latents` (Z, S) distinct, `latent` (M,) which of them each configuration
    has; ln q and energies of the latents, at β and annealed; samples with their ln q as sampled.
    """

    small: Small
    guide: Guide
    latents: np.ndarray
    latent: np.ndarray
    log_q: np.ndarray
    latent_log_q: np.ndarray
    annealed_log_q: np.ndarray
    latent_energy: np.ndarray
    annealed_energy: np.ndarray
    samples: dict[str, np.ndarray]
    sampled_log_q: np.ndarray


@cache
def evaluated(form: str, name: str, width: int) -> Evaluated:
    small = named(name)
    guide = small.guide(form, width)
    params = random_params(guide, seed_of(form, name))
    letters = np.asarray(guide.codec.encode(small.configurations)).T
    latents, latent = np.unique(letters[:, getattr(guide, "skeleton", slice(None))], axis=0, return_inverse=True)

    @jax.jit
    def run(guide: Guide, params, configurations, z, key):
        scales = jnp.asarray([1.0, ANNEALED])
        return (
            guide.log_prob(params, configurations),
            jax.vmap(lambda scale: guide.latent_log_prob(params, z, scale))(scales),
            jax.vmap(lambda scale: guide.latent_energy(z, scale))(scales),
            *guide.sample_and_log_prob(params, key, SAMPLES),
        )

    arguments = guide, params, small.configurations, latents.T.astype(np.int32), jax.random.key(seed_of(name))
    log_q, z_log_q, z_energy, x, sampled_log_q = jax.tree.map(np.asarray, compiled(run, *arguments))
    real = [np.asarray(values, float) for values in (log_q, *z_log_q, *z_energy)]
    return Evaluated(small, guide, latents, latent.reshape(-1), *real, x, sampled_log_q)


@every_form
def test_normalised(form: str, name: str, width: int):
    e = evaluated(form, name, width)
    assert np.exp(e.log_q).sum() == pytest.approx(1, abs=1e-5)
    assert np.exp(e.latent_log_q).sum() == pytest.approx(1, abs=1e-5)
    if e.guide.trainable():
        assert np.exp(e.annealed_log_q).sum() == pytest.approx(1, abs=1e-5)


@every_form
def test_samples_have_the_frequencies_of_q(form: str, name: str, width: int):
    e = evaluated(form, name, width)
    _check_frequencies(e.small.number(e.samples), np.exp(e.log_q))


@pytest.mark.parametrize("name", ["ising in a field", "ashkin-teller", "potts"])
def test_latents_are_sampled_at_the_annealed_temperature(name: str):
    e = evaluated("autoregressive", name, 1)
    params = random_params(e.guide, seed_of("autoregressive", name))

    @jax.jit
    def run(guide: Guide, params, key):
        return guide.sample_latent(params, key, SAMPLES, jnp.asarray(ANNEALED))

    z = np.asarray(compiled(run, e.guide, params, jax.random.key(0)))
    strides = e.small.alphabet.q ** np.arange(len(z))[::-1]
    _check_frequencies(np.searchsorted(e.latents @ strides, strides @ z), np.exp(e.annealed_log_q))


def _check_frequencies(drawn: np.ndarray, q: np.ndarray) -> None:
    """Chi-square on about fifty cells, along the order of configurations and in a shuffled order."""
    counts = np.bincount(drawn, minlength=len(q))
    assert (counts[q == 0] == 0).all()
    for order in (np.arange(len(q)), np.random.default_rng(0).permutation(len(q))):
        cell = np.minimum((np.cumsum(q[order]) * 50).astype(int), 49)
        expected = np.bincount(cell, q[order] * SAMPLES, 50)
        observed = np.bincount(cell, counts[order], 50)
        used = expected > 0
        statistic = ((observed - expected)[used] ** 2 / expected[used]).sum()
        assert statistic <= chi2.isf(1e-5, max(1, used.sum() - 1))


@every_form
def test_samples_come_with_their_log_prob(form: str, name: str, width: int):
    e = evaluated(form, name, width)
    np.testing.assert_allclose(e.sampled_log_q, e.log_q[e.small.number(e.samples)], rtol=0, atol=2e-5)


@every_form
def test_samples_are_configurations_of_the_model(form: str, name: str, width: int):
    e = evaluated(form, name, width)
    model = e.small.model
    own = model.random_configuration(jax.random.key(0), n=1)
    assert set(e.samples) == set(own)
    for field in model.fields:
        drawn = e.samples[field.name]
        assert drawn.shape == (SAMPLES, *own[field.name].shape[1:])
        assert drawn.dtype == own[field.name].dtype == stored_states(field.support).dtype
        assert np.isin(drawn, stored_states(field.support)).all()


@every_form
def test_is_a_distrax_distribution(form: str, name: str, width: int):
    e = evaluated(form, name, width)
    params = random_params(e.guide, seed_of(form, name))
    d = e.guide.distribution(params)
    assert isinstance(d, distrax.Distribution)
    assert d.event_shape == {f: x.shape[1:] for f, x in e.small.configurations.items()}


@every_form
def test_latent_energy_is_the_sum_over_the_rest(form: str, name: str, width: int):
    """u(z) = −ln Σ_{x ∋ z} e^{−βE(x)}, at β and while annealing."""
    e = evaluated(form, name, width)
    np.testing.assert_allclose(e.latent_energy, _summed(e, 1.0), rtol=1e-5, atol=2e-5)
    if e.guide.trainable():
        np.testing.assert_allclose(e.annealed_energy, _summed(e, ANNEALED), rtol=1e-5, atol=2e-5)


def _summed(e: Evaluated, scale: float) -> np.ndarray:
    out = np.full(len(e.latents), -np.inf)
    np.logaddexp.at(out, e.latent, -scale * e.small.reduced)
    return -out


@every_form
def test_the_joint_extends_the_latents(form: str, name: str, width: int):
    """q(z) = Σ_{x ∋ z} q(x), and x given z is Boltzmann's: ln q(x) + βE(x) = ln q(z) + u(z), so F_q is the same."""
    e = evaluated(form, name, width)
    marginal = np.bincount(e.latent, np.exp(e.log_q), len(e.latents))
    np.testing.assert_allclose(marginal, np.exp(e.latent_log_q), rtol=2e-4, atol=1e-9)
    of_latents = e.latent_log_q + e.latent_energy
    np.testing.assert_allclose(e.log_q + e.small.reduced, of_latents[e.latent], rtol=0, atol=5e-5)
    free_energy = np.exp(e.latent_log_q) @ of_latents
    assert np.exp(e.log_q) @ (e.log_q + e.small.reduced) == pytest.approx(free_energy, abs=5e-5)
    assert free_energy >= -e.small.ln_z - 2e-5


@pytest.mark.parametrize("name", SOURCES)
def test_the_reference_energies_are_the_interpreters(name: str):
    small = named(name)
    for k in np.random.default_rng(0).integers(0, len(small.states), 3):
        assert small.energies[k] == pytest.approx(small.interpreted(k), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", OPAQUE)
def test_tables_refuse_what_does_not_factorise(name: str):
    small = named(name)
    assert small.graph.opaque
    with small_tables(True), pytest.raises(VfeError) as caught:
        DISCRETE["exact"].choose(Problem(small.program, small.theta))
    assert caught.value.diagnostics[0].code == "guide-cannot-serve"


def test_distrax_methods():
    """sample, log_prob and sample_and_log_prob through distrax, batched and not."""
    small = named("spin and potts")
    guide = small.autoregressive(1)
    params = random_params(guide)

    @jax.jit
    def run(guide: Guide, params, key):
        d = guide.distribution(params)
        x, log_q = d.sample_and_log_prob(seed=key, sample_shape=(3, 4))
        again = d.sample(seed=key, sample_shape=(3, 4))
        one = d.sample(seed=key)
        return x, log_q, d.log_prob(x), again, one, d.log_prob(one)

    found = compiled(run, guide, params, jax.random.key(1))
    x, log_q, evaluated_log_q, again, one, log_q_of_one = found
    assert {f: v.shape for f, v in x.items()} == {"s": (3, 4, 4), "p": (3, 4, 4)}
    np.testing.assert_allclose(evaluated_log_q, log_q, atol=2e-5)
    assert all((again[f] == x[f]).all() for f in x)
    assert {f: v.shape for f, v in one.items()} == guide.distribution(params).event_shape
    assert log_q_of_one.shape == ()
    batched = log_prob(guide, params, {f: v[None] for f, v in one.items()})[0]
    assert float(log_q_of_one) == pytest.approx(batched, abs=1e-5)
