"""Where a guide sums everything exactly it is the Boltzmann distribution: ln q = −βE − ln Z, with nothing to train."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vdsl
from guides.small_models import Small, compiled, log_prob, named, random_params, small
from vdsl.errors import VfeError
from vdsl.guides import registry
from vdsl.guides.problem import Problem
from vdsl.inference.estimators import score_function
from vdsl.ir.interpret import resolve_parameters

ISING = "field s : spin\ninteraction e = -sum(<i, j> in nn: s[i] * s[j])\ntemperature 2.269"
MODELS = {
    "open chain": lambda: small("lattice chain(10, boundary = open)\n" + ISING),
    "ring": lambda: named("ring"),
    "graph": lambda: named("graph"),
    "torus": lambda: small("lattice square(4, 4)\n" + ISING),
    "plaquettes": lambda: named("plaquettes"),
    "clock": lambda: named("clock in a field"),
    "two sizes": lambda: named("letters of two sizes"),
}
WIDE = 8


def check_exact(model: Small, guide, chosen: np.ndarray) -> None:
    x = {f: v[chosen] for f, v in model.configurations.items()}
    params = guide.init(jax.random.key(0))
    found = log_prob(guide, params, x)
    np.testing.assert_allclose(found, -model.reduced[chosen] - model.ln_z, rtol=1e-5, atol=2e-5)
    assert not guide.trainable()
    assert guide.n_parameters() == 0


@pytest.mark.parametrize("name", MODELS)
def test_exact_guide(name: str):
    model = MODELS[name]()
    choice = registry.choose(Problem(model.program, model.theta))
    assert choice.name == "exact"  # also what a model this small gets by default
    guide = registry.build(choice, Problem(model.program, model.theta))
    check_exact(model, guide, np.random.default_rng(0).integers(0, len(model.states), 1000))
    assert float(guide.ln_z) == pytest.approx(model.ln_z, rel=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_autoregressive_guide_without_a_skeleton(name: str):
    model = MODELS[name]()
    guide = model.autoregressive(WIDE)
    assert guide.skeleton.shape == (0,)
    check_exact(model, guide, np.random.default_rng(0).integers(0, len(model.states), 1000))
    nothing = jnp.zeros((0, 1), jnp.int32)
    assert float(guide.latent_energy(nothing, jnp.ones(()))[0]) == pytest.approx(-model.ln_z, rel=1e-6)


@pytest.mark.parametrize("width", [WIDE, 1])
def test_double_precision_is_exact_to_double_precision(width: int):
    model = named("spins and links")
    with jax.enable_x64(True):
        guide = model.autoregressive(width)
        params = jax.tree.map(lambda p: p.astype(jnp.float64), random_params(guide))
        log_q = log_prob(guide, params, model.configurations)
        assert np.exp(log_q).sum() == pytest.approx(1, abs=1e-12)
        problem = Problem(model.program, model.theta)
        exact = registry.build(registry.choose(problem), problem)
        log_p = log_prob(exact, {}, model.configurations)
        np.testing.assert_allclose(log_p, -model.reduced - model.ln_z, rtol=0, atol=1e-11)


def test_no_variance_where_the_guide_is_exact():
    model = named("ring")
    for guide in (model.guide("exact"), model.autoregressive(WIDE)):
        params = guide.init(jax.random.key(0))

        @jax.jit
        def run(guide, params, key):
            return score_function(guide, params, key, 256, jnp.ones(()))[1]

        statistics = compiled(run, guide, params, jax.random.key(1))
        assert float(statistics.reduced_free_energy) == pytest.approx(-model.ln_z, rel=1e-6)
        assert float(statistics.variance) < 1e-10
        assert float(statistics.ess) == pytest.approx(1, abs=1e-5)


# --- the choice ------------------------------------------------------------------------------------------------------


def test_tables_refuse_a_large_torus_and_the_default_takes_it():
    program = vdsl.loads("lattice square(32, 32)\n" + ISING).program
    problem = Problem(program, resolve_parameters(program))
    with pytest.raises(VfeError) as caught:
        registry.choose(problem, "exact")
    assert [d.code for d in caught.value.diagnostics] == ["guide-cannot-serve"]
    choice = registry.choose(problem)
    assert choice.name == "autoregressive"
    assert choice.description["sites"] == 1024
    assert 0 < choice.description["learned"] < 256
    assert choice.description["symmetry built in"] == "global flip"


def test_unknown_guide():
    model = named("ising")
    with pytest.raises(VfeError) as caught:
        registry.choose(Problem(model.program, model.theta), "autoregresive")
    assert caught.value.exit_code == 2
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "unknown-guide"
    assert diagnostic.hints == ("did you mean `autoregressive`?",)


def test_no_guide_for_matrices_that_no_gauge_transformation_leaves_alone():
    program = vdsl.loads(
        "lattice hypercubic(2, 2)\nfield U : SU(2) on links\n"
        "interaction e = -sum(x in sites, mu in axes: re(tr(U[x, mu])))\ntemperature 1"
    ).program
    with pytest.raises(VfeError) as caught:
        registry.choose(Problem(program, {}))
    assert [d.code for d in caught.value.diagnostics] == ["no-guide"]


@pytest.mark.parametrize(
    ("name", "symmetry"),
    [
        ("ising", "global flip"),
        ("ising in a field", "none"),
        ("potts", "permutation of 3 colours"),
        ("chiral potts", "Z3 shift of s"),
        ("clock", "Z4 shift of a"),
        ("clock in a field", "none"),
        ("ashkin-teller", "flip of t; flip of s"),
        ("lattice gas", "none"),
        ("antiperiodic", "global flip"),
    ],
)
def test_symmetries_that_are_built_in(name: str, symmetry: str):
    model = named(name)
    choice = registry.GUIDES["dense"].choose(Problem(model.program, model.theta))
    assert choice.description["symmetry built in"] == symmetry
