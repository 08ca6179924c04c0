"""The score-function gradient is unbiased: its mean over many batches is the gradient of F_q by enumeration."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guides.small_models import Small, compiled, named, random_params, small
from vdsl.guides.guide import Guide
from vdsl.inference.estimators import score_function

BATCHES = 8192


def exact_gradient(guide: Guide, params, scale: jax.Array, q: int):
    """∇ Σ_z q(z) (u(z) + ln q(z)) over all latents."""
    size = guide.skeleton.shape[0]
    z = jnp.asarray(np.stack(np.unravel_index(np.arange(q**size), (q,) * size)), jnp.int32)

    def free_energy(params):
        log_q = guide.latent_log_prob(params, z, scale)
        return jnp.sum(jnp.exp(log_q) * (guide.latent_energy(z, scale) + log_q))

    return jax.grad(free_energy)(params)


@pytest.mark.parametrize(
    ("name", "width", "batch", "scale"),
    [("graph", 1, 2, 1.0), ("ising in a field", 3, 5, 0.7), ("clock", 1, 3, 1.0)],
)
def test_unbiased(name: str, width: int, batch: int, scale: float):
    """At n = 2 the factor n/(n − 1) of the leave-one-out baseline is 2: leaving it out would halve the gradient."""
    model: Small = named(name)
    guide = model.autoregressive(width, hidden=2)
    assert 1 < guide.skeleton.shape[0] <= 4
    params = random_params(guide, 1, size=0.5)
    of_beta = jnp.asarray(scale)

    @jax.jit
    def run(guide, params, keys):
        def one(key):
            return jax.grad(lambda p: score_function(guide, p, key, batch, of_beta)[0])(params)

        gradients = jax.vmap(one)(keys)
        exact = exact_gradient(guide, params, of_beta, model.alphabet.q)
        mean = jax.tree.map(lambda g: jnp.mean(g, axis=0), gradients)
        return mean, jax.tree.map(lambda g: jnp.std(g, axis=0), gradients), exact

    found = compiled(run, guide, params, jax.random.split(jax.random.key(2), BATCHES))
    mean, spread, exact = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in found)
    error = spread / np.sqrt(BATCHES)
    assert (np.abs(mean - exact) <= 4 * error + 1e-6).all()
    # The test has power: some components are many errors from zero, and from half or twice the gradient.
    assert (np.abs(exact) > 10 * error).sum() >= 3


def test_the_advantage_is_against_the_other_samples():
    """The surrogate is mean_i (r_i − mean_{j≠i} r_j) ln q_i, written out."""
    model = named("ising in a field")
    guide = model.autoregressive(3, hidden=2)
    params = random_params(guide)
    key, n, one = jax.random.key(5), 7, jnp.ones(())

    @jax.jit
    def run(guide, params, key):
        z = guide.sample_latent(params, key, n, one)
        energy, log_q = guide.latent_energy(z, one), guide.latent_log_prob(params, z, one)
        return *score_function(guide, params, key, n, one), energy, log_q

    surrogate, statistics, energy, log_q = compiled(run, guide, params, key)
    log_q = np.asarray(log_q, float)
    r = np.asarray(energy, float) + log_q
    others = np.array([np.delete(r, k).mean() for k in range(n)])
    assert float(surrogate) == pytest.approx(np.mean((r - others) * log_q), rel=1e-4)
    assert float(statistics.reduced_free_energy) == pytest.approx(r.mean(), rel=1e-5)
    assert float(statistics.variance) == pytest.approx(r.var(), rel=1e-4)
    w = np.exp(-(r - r.min()))
    assert float(statistics.ess) == pytest.approx(w.sum() ** 2 / (n * (w**2).sum()), rel=1e-4)


def test_no_gradient_where_the_guide_is_exact():
    """Spins that only feel a field: the known local field is already everything, r is constant, every batch gives 0."""
    model = small(
        "lattice chain(4)\nfield s : spin\ndata h on sites ~ normal(0, 1) seed 0\n"
        "interaction e = -sum(i in sites: h[i] * s[i])\ntemperature 1"
    )
    guide = model.guide("dense")
    params = guide.init(jax.random.key(0))  # outputs start at zero: only the local field of what is known acts

    @jax.jit
    def run(guide, params):
        return jax.grad(lambda p: score_function(guide, p, jax.random.key(1), 64, jnp.ones(())), has_aux=True)(params)

    gradient, statistics = compiled(run, guide, params)
    assert float(statistics.variance) < 1e-10
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) < 1e-5
