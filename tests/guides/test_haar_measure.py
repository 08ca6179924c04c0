"""Guides of U(1) fields are densities in the normalised Haar measure: absolute ln Z."""

import math

import jax
import numpy as np
import pytest
from scipy.special import iv

import vdsl
from vdsl.estimate.thermo import thermodynamics
from vdsl.guides import registry
from vdsl.guides.problem import Problem
from vdsl.ir.interpret import resolve_parameters
from vdsl.solver import fresh_draw

pytestmark = pytest.mark.usefixtures("quick_compilations")


@pytest.mark.parametrize("guide", ["autoregressive", "coupling", "continuous"])
@pytest.mark.slow
def test_ln_z_of_a_ring(guide: str) -> None:
    """Z = Σ_m I_m(K)³, (2π)³ less than in Lebesgue measure; the weights of untrained guides show it."""
    model = vdsl.loads(
        """lattice chain(3)
        field U : U(1)
        interaction s = -0.6 * sum(<i, j> in nn: re(U[i]' * U[j]))
        temperature 1"""
    )
    problem = Problem(model.program, resolve_parameters(model.program), model)
    built = registry.build(registry.GUIDES[guide].choose(problem), problem)
    params = built.init(jax.random.key(0))
    draw = fresh_draw(model, built, params, problem.theta, jax.random.key(1), 4096)
    found = thermodynamics(draw, model)
    exact = math.log((iv(np.arange(-20, 21), 0.6) ** 3).sum())
    assert found.ln_z.value == pytest.approx(exact, abs=4 * found.ln_z.error + 1e-5)
    assert found.ln_z.error < 0.05
    again = np.asarray(built.log_prob(params, {k: v[:64] for k, v in draw.x.items()}))
    assert np.allclose(again, draw.log_q[:64], atol=1e-4)
