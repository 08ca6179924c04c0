"""The three gradient estimators against the gradient of the free energy itself, by quadrature."""

from __future__ import annotations

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import vdsl
from vdsl.errors import VfeError
from vdsl.guides.guide import Guide, Recipe
from vdsl.guides.problem import FlatEnergy, Problem
from vdsl.inference.estimators import ESTIMATORS
from vdsl.inference.train import initial_state, one_step, plan, schedule
from vdsl.ir.interpret import resolve_parameters

SITES = "lattice chain(2, boundary = open)\nfield x : real\n"
QUARTIC = SITES + (
    "interaction e = sum(i in sites: -x[i]^2 + x[i]^4 + 0.3 * x[i]) - 0.5 * sum(<i, j> in nn: x[i] * x[j])\n"
    "temperature 1.5"
)


class Factorised(Guide):
    """x_i = m_i + e^{s_i} ε_i: everything about it is known in closed form or by quadrature."""

    beta: Array
    energy: FlatEnergy

    def recipe(self) -> Recipe:
        return Recipe("reparameterised", path_from=0.5)

    def init(self, key: Array) -> dict[str, Array]:
        return {"m": jnp.zeros(2), "s": jnp.zeros(2)}

    def draw_latent(self, params: dict[str, Array], key: Array, n: int, scale: Array) -> tuple[Array, Array]:
        z = params["m"] + jnp.exp(params["s"]) * jax.random.normal(key, (n, 2))
        return z, self.latent_log_prob(params, z, scale)

    def sample_latent(self, params: dict[str, Array], key: Array, n: int, scale: Array) -> Array:
        return self.draw_latent(params, key, n, scale)[0]

    def latent_log_prob(self, params: dict[str, Array], z: Array, scale: Array) -> Array:
        t = (z - params["m"]) * jnp.exp(-params["s"])
        return jnp.sum(-0.5 * t**2 - params["s"] - 0.5 * jnp.log(2 * jnp.pi), axis=1)

    def latent_energy(self, z: Array, scale: Array) -> Array:
        return scale * self.beta * self.energy(z)

    def sample_and_log_prob(self, params: dict[str, Array], key: Array, n: int) -> tuple[dict[str, Array], Array]:
        z, log_q = self.draw_latent(params, key, n, jnp.ones(()))
        return {"x": z}, log_q

    def log_prob(self, params: dict[str, Array], x: dict[str, Array]) -> Array:
        return self.latent_log_prob(params, x["x"], jnp.ones(()))


PARAMS = {"m": jnp.array([0.4, -0.2]), "s": jnp.array([-0.6, -0.4])}


def guide() -> Factorised:
    program = vdsl.loads(QUARTIC).program
    problem = Problem(program, resolve_parameters(program, {}))
    return Factorised(jnp.asarray(1 / problem.temperature), problem.flat_energy())


def free_energy(params: dict[str, Array]) -> Array:
    """F̃ = E[βE + ln q] by Gauss–Hermite quadrature: exact for this quartic energy."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    weight = np.outer(weights, weights).ravel() / (2 * np.pi)
    x = params["m"] + jnp.exp(params["s"]) * grid
    energy = jnp.sum(-(x**2) + x**4 + 0.3 * x, 1) - 0.5 * x[:, 0] * x[:, 1]
    return jnp.sum(weight * energy) / 1.5 - jnp.sum(params["s"]) - jnp.log(2 * jnp.pi) - 1


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_every_estimator_is_unbiased(name, scale):
    """2000 batches of 256: the mean gradient within 4.5 standard errors of the exact one, component by component."""
    model, batches = guide(), 2000

    def gradient(key: Array) -> dict[str, Array]:
        return jax.grad(lambda p: ESTIMATORS[name](model, p, key, 256, jnp.asarray(scale))[0])(PARAMS)

    found = jax.jit(jax.vmap(gradient))(jax.random.split(jax.random.key(3), batches))

    def annealed(params: dict[str, Array]) -> Array:
        entropy = -jnp.sum(params["s"]) - jnp.log(2 * jnp.pi) - 1
        return scale * (free_energy(params) - entropy) + entropy

    exact = jax.jit(jax.grad(annealed))(PARAMS)
    for leaf in exact:
        error = np.asarray(found[leaf]).std(0) / np.sqrt(batches)
        assert (error < 0.1).all()
        np.testing.assert_array_less(np.abs(np.asarray(found[leaf]).mean(0) - exact[leaf]), 4.5 * error)


def test_the_path_gradient_is_free_of_noise_where_the_guide_is_exact():
    """On a Gaussian model at its own parameters every sample gives gradient 0; not the plain one."""
    program = vdsl.loads(SITES + "interaction e = sum(i in sites: x[i]^2 / 2)\ntemperature 1").program
    model = Factorised(jnp.ones(()), Problem(program, {}).flat_energy())
    params, key, one = model.init(jax.random.key(0)), jax.random.key(1), jnp.ones(())

    def norm(name: str) -> float:
        gradient = jax.jit(jax.grad(lambda p: ESTIMATORS[name](model, p, key, 64, one)[0]))(params)
        return float(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))

    assert norm("path") < 1e-10
    assert norm("score") < 1e-10
    assert norm("reparameterised") > 1e-4


def test_a_plan_follows_the_recipe_and_the_user_overrules_it():
    model = guide()
    own = plan(model, steps=100)
    assert (own.estimator, own.path_from) == ("reparameterised", 0.5)
    assert [own.estimator_at(step) for step in (0, 49, 50, 99)] == ["reparameterised"] * 2 + ["path"] * 2
    asked = plan(model, steps=100, estimator="score", learning_rate=0.03)
    assert [asked.estimator_at(step) for step in (0, 99)] == ["score"] * 2
    assert asked.learning_rate == 0.03
    with pytest.raises(VfeError) as caught:
        plan(model, steps=100, estimator="pathwise")
    assert caught.value.exit_code == 2
    assert "score, reparameterised, path" in caught.value.diagnostics[0].notes[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", ESTIMATORS)
def test_training_with_every_estimator_lowers_the_free_energy(name):
    """All three come to the same minimum, which one Newton iteration on the exact F̃ confirms."""
    model = guide()
    numbers = plan(model, steps=600, batch=256, estimator=name, learning_rate=0.03)
    state = initial_state(model, numbers)
    step = lambda _, s: one_step(model, s, schedule(numbers), 256, name)[0]  # noqa: E731
    state = jax.jit(lambda s: jax.lax.fori_loop(0, 600, step, s))(state)
    best = {"m": state.params["m"], "s": state.params["s"]}
    flat, unravel = jax.flatten_util.ravel_pytree(best)
    function = lambda v: free_energy(unravel(v))  # noqa: E731
    newton = lambda _, v: v - jnp.linalg.solve(jax.hessian(function)(v), jax.grad(function)(v))  # noqa: E731
    minimum = jax.jit(lambda v: jax.lax.fori_loop(0, 20, newton, v))(flat)
    found, least = (float(jax.jit(function)(v)) for v in (flat, minimum))
    assert found == pytest.approx(least, abs=2e-3)
    assert found >= least - 1e-5
