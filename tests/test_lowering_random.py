"""Random models: the JAX lowering, the factor graph and the printed text against the interpreter."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from programs import DISCRETE, sources
from vdsl.compile import compile_source
from vdsl.errors import Source, VfeError
from vdsl.frontend.format import format_module
from vdsl.frontend.parse import parse
from vdsl.ir import interpret
from vdsl.ir.factors import factorise, states_of
from vdsl.ir.program import Program
from vdsl.model import Model

pytestmark = pytest.mark.usefixtures("quick_compilations")

CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]


def compiled(text: str) -> Program:
    """The program of a generated text. A mean over a set that happens to be empty is the one error it may have."""
    try:
        return compile_source(Source("<random>", text))[0]
    except VfeError as error:
        assume({d.code for d in error.diagnostics} != {"empty-set"})
        raise


@settings(max_examples=60, suppress_health_check=CHECKS)
@given(sources())
def test_lowering_agrees_with_the_interpreter(text):
    """Every term and observable, jitted, in float64, to rounding; also where a value is infinite or not a number."""
    program = compiled(text)
    theta = interpret.resolve_parameters(program, {"a": 0.9})
    x = interpret.random_configuration(program, np.random.default_rng(0))
    expected = interpret.energy_terms(program, x, theta) | interpret.observables(program, x, theta)
    with jax.enable_x64(True):
        model = Model(program)
        found = jax.jit(lambda x, theta: model.energy_terms(x, theta) | model.observables(x, theta))(x, theta)
        found = {name: float(value) for name, value in found.items()}
        temperature = float(model.temperature(theta))
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(temperature, 1 + 0.9**2, rtol=1e-14)


@settings(max_examples=60, suppress_health_check=CHECKS)
@given(sources(DISCRETE))
def test_factors_agree_with_the_interpreter(text):
    """The tables and what is left opaque add up to the energy."""
    program = compiled(text)
    theta = interpret.resolve_parameters(program)
    graph = factorise(program, theta)
    rng = np.random.default_rng(0)
    for _ in range(2):
        x = interpret.random_configuration(program, rng)
        expected = interpret.energy(program, x, theta)
        opaque = sum(float(interpret.evaluate(program, e, theta, x)) for _, e in graph.opaque)
        found = float(np.squeeze(graph.energy(states_of(program, x)))) + opaque
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-8)


@settings(max_examples=40, suppress_health_check=CHECKS)
@given(sources())
def test_formatting_keeps_the_program(text):
    """Formatting is idempotent, and neither the tree nor the program changes."""
    module = parse(Source("<random>", text))
    printed = format_module(module)
    again = parse(Source("<random>", printed))
    assert again == module
    assert format_module(again) == printed
    assert compiled(printed).fingerprint == compiled(text).fingerprint
