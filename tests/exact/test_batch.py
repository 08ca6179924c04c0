"""Random models: observables of many configurations at once, and tables over nodes, against the interpreter."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, assume, given, settings

from programs import DISCRETE, sources
from vdsl.compile import compile_source
from vdsl.errors import Source, VfeError
from vdsl.exact.batch import FlatEvaluator
from vdsl.ir import interpret
from vdsl.ir.configurations import random_values
from vdsl.ir.expansion import variables_of
from vdsl.ir.factors import factorise
from vdsl.ir.program import Program
from vdsl.ir.support import is_discrete, stored_states
from vdsl.ir.tables import Context, NotLocal

CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much, HealthCheck.large_base_example]
FLAT = (*DISCRETE, "real", "real[2]", "real[3]", "complex", "angle", "sphere(2)", "sphere(3)", "U(1)")


def compiled(text: str) -> Program:
    try:
        return compile_source(Source("<random>", text))[0]
    except VfeError as error:
        assume({d.code for d in error.diagnostics} != {"empty-set"})
        raise


@settings(max_examples=30, suppress_health_check=CHECKS)
@given(sources(FLAT))
def test_observables_of_many_configurations(text):
    """What has a batched evaluation has the interpreter's value."""
    program = compiled(text)
    theta, rng = interpret.resolve_parameters(program), np.random.default_rng(0)
    drawn = [interpret.random_configuration(program, rng) for _ in range(3)]
    flat = variables_of(program, {f.name: np.stack([x[f.name] for x in drawn]) for f in program.fields})
    evaluator = FlatEvaluator(Context(program, theta))
    for o in program.observables:
        try:
            found = evaluator(o.value, flat)
        except NotLocal:
            assume(False)
        expected = [float(np.real(interpret.observables(program, x, theta)[o.name])) for x in drawn]
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8, err_msg=o.name)


@settings(max_examples=30, suppress_health_check=CHECKS)
@given(sources(FLAT))
def test_tables_over_nodes(text):
    """Three arbitrary values of each continuous field as its states: the energy of any choice of them."""
    program = compiled(text)
    theta, rng = interpret.resolve_parameters(program), np.random.default_rng(0)
    stored = {f.name: random_values(f.support, 3, rng) for f in program.fields if not is_discrete(f.support)}
    nodes = {name: (v, -v) if v.ndim == 1 else (tuple(v.T), tuple(-v.T)) for name, v in stored.items()}
    graph = factorise(program, theta, nodes)
    for _ in range(2):
        states = rng.integers(graph.cardinalities)
        x = {
            f.name: (stored[f.name] if f.name in stored else stored_states(f.support))[states[first : first + count]]
            for f, (_, first, count) in zip(program.fields, graph.fields, strict=True)
        }
        opaque = sum(float(interpret.evaluate(program, e, theta, x)) for _, e in graph.opaque)
        found = float(np.squeeze(graph.energy(states))) + opaque
        np.testing.assert_allclose(found, interpret.energy(program, x, theta), rtol=1e-9, atol=1e-8)
