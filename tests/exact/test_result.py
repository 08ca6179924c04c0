"""Exact solutions of programs: reference values, every method against enumeration, and the layout of the result."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from vdsl import exact
from vdsl.compile import compile_source
from vdsl.errors import Source, VfeError
from vdsl.exact import averages as exact_averages
from vdsl.exact.answer import ExactResult
from vdsl.exact.batch import BatchEvaluator, every_configuration
from vdsl.ir.factors import factorise, states_of
from vdsl.ir.interpret import energy, observables, random_configuration, resolve_parameters
from vdsl.ir.program import Program
from vdsl.ir.support import stored_states
from vdsl.ir.tables import Context

T_C = 2.269185314213022
ISING = """
param L : int = 4
param J = 1.0
param h = 0.0
param T = 2.269185314213022 in (0, inf)
lattice square(L, L)
field s : spin
interaction exchange = -J * sum(<i, j> in nn: s[i] * s[j])
interaction zeeman = -h * sum(i in sites: s[i])
temperature T
observable m = mean(i in sites: s[i])
observable m2 = m^2
derived chi = size(sites) / T * (expect(m^2) - expect(m)^2)
"""
ABSOLUTE = ISING + "observable absm = abs(m)\nderived spread = sqrt(expect(m^2) - expect(abs(m))^2)\n"


def compiled(text: str, **overrides: object) -> Program:
    return compile_source(Source("test.vfe", text), overrides, Path.cwd())[0]


def solved(text: str, theta: dict[str, float] | None = None, **overrides: object) -> ExactResult:
    program = compiled(text, **overrides)
    return exact.solve(program, resolve_parameters(program, theta))


def by_interpreter(program: Program, theta: dict[str, float], t: float) -> dict[str, float]:
    """ln Z, E, C and all averages, every number from the interpreter, over every configuration."""
    graph = factorise(program, theta)
    states = np.concatenate(list(every_configuration(graph)))
    configurations = []
    for row in states:
        x, start = {}, 0
        for f in program.fields:
            n = program.elements(f)
            x[f.name] = stored_states(f.support)[row[start : start + n]]
            start += n
        configurations.append(x)
    e = np.array([energy(program, x, theta) for x in configurations])
    p = np.exp(-e / t - np.logaddexp.reduce(-e / t))
    out = {"ln_z": float(np.logaddexp.reduce(-e / t)), "energy": float(p @ e)}
    out["heat_capacity"] = float(p @ (e - p @ e) ** 2) / t**2
    values = [observables(program, x, theta) for x in configurations]
    return out | {o.name: float(p @ np.array([v[o.name] for v in values], float)) for o in program.observables}


@pytest.mark.parametrize(
    ("length", "ln_z"),
    [(4, 15.52191545875528), (8, 60.14178078906915), (16, 238.6422566351329), (64, 3808.672283419809)],
)
def test_ising_at_the_critical_point(length: int, ln_z: float):
    found = solved(ISING, L=length)
    assert found.ln_z.value == pytest.approx(ln_z, rel=1e-14)
    assert found.free_energy.value == pytest.approx(-T_C * ln_z, rel=1e-14)
    assert found.observables["m"].value == pytest.approx(0, abs=1e-13)
    if length == 8:
        assert found.observables["m2"].value == pytest.approx(0.6469115750, abs=6e-11)
        assert found.derived["chi"].value == pytest.approx(64 / T_C * 0.6469115750, rel=1e-10)
    if length > 8:
        assert "Kaufman" in found.method
        assert set(found.left_out) == {"m2", "chi"}
        assert "elimination" in found.left_out["m2"]


def test_the_two_methods_agree(monkeypatch: pytest.MonkeyPatch):
    eliminated = solved(ISING, {"T": 1.7, "J": 0.8}, L=6)
    assert "elimination" in eliminated.method
    bare = "\n".join(line for line in ISING.splitlines() if not line.startswith(("observable", "derived")))
    formula = solved(bare, {"T": 1.7, "J": 0.8}, L=6)
    assert "Kaufman" in formula.method
    for name in ("ln_z", "free_energy", "energy", "entropy", "heat_capacity"):
        assert getattr(formula, name).value == pytest.approx(getattr(eliminated, name).value, rel=1e-10)


MODELS = {
    "ising-in-a-field": ABSOLUTE.replace("L : int = 4", "L : int = 3").replace("h = 0.0", "h = 0.3"),
    "clock-antiperiodic": """
        lattice square(3, 2, boundary = (antiperiodic, open))
        field s : clock(4)
        interaction xy = -sum(<i, j> in nn: cos(s[i] - s[j]))
        temperature 0.8
        observable x = mean(i in sites: cos(s[i]))
        observable length = norm((mean(i in sites: cos(s[i])), mean(i in sites: sin(s[i]))))
        observable largest = max(i in sites: cos(s[i]))
        observable all = prod(i in sites: 1 + cos(s[i]))
    """,
    "global-penalty": """
        lattice triangular(3, 3)
        field n : occupation
        interaction repulsion = sum(<i, j> in nn: n[i] * n[j])
        interaction penalty = 0.5 * abs(sum(i in sites: n[i]) - 3)
        temperature 1.5
        observable density = mean(i in sites: n[i])
        observable alike = mean(<i, j> in nn: n[i] * n[j])
    """,
    "two-fields": """
        lattice square(2, 2, boundary = open)
        field a : spin
        field b : potts(3)
        interaction ab = sum(i in sites: a[i] * delta(b[i], 1))
        interaction bb = -sum(<i, j> in nn: delta(b[i], b[j]))
        interaction aa = 0.7 * sum(<i, j> in nn: a[i] * a[j])
        temperature 0.9
        observable together = mean(i in sites: a[i] * b[i])
        observable product = mean(i in sites: a[i]) * mean(i in sites: b[i])
    """,
}


@pytest.mark.parametrize("name", MODELS)
def test_small_models_agree_with_the_interpreter(name: str):
    program = compiled(MODELS[name])
    theta = resolve_parameters(program)
    found = exact.solve(program, theta)
    expected = by_interpreter(program, theta, found.temperature)
    for key in ("ln_z", "energy", "heat_capacity"):
        assert getattr(found, key).value == pytest.approx(expected[key], rel=1e-10)
    assert not found.left_out
    for o in program.observables:
        assert found.observables[o.name].method == "exact"
        assert found.observables[o.name].value == pytest.approx(expected[o.name], rel=1e-10, abs=1e-12)


def test_derived_quantities_are_functions_of_averages():
    program = compiled(MODELS["ising-in-a-field"])
    theta = resolve_parameters(program)
    found = exact.solve(program, theta)
    m, m2, absm = (found.observables[name].value for name in ("m", "m2", "absm"))
    assert found.derived["chi"].value == pytest.approx(9 / T_C * (m2 - m**2), rel=1e-12)
    assert found.derived["spread"].value == pytest.approx(math.sqrt(m2 - absm**2), rel=1e-12)


def test_what_is_no_polynomial_is_sampled_with_an_honest_error(monkeypatch: pytest.MonkeyPatch):
    program = compiled(ABSOLUTE.replace("square(L, L)", "square(3, 6)"))
    theta = resolve_parameters(program)
    enumerated = exact.solve(program, theta)
    assert enumerated.observables["absm"].method == "exact"
    monkeypatch.setattr(exact_averages, "MAX_ENUMERATED", 2)
    pulls = []
    for seed in range(12):
        sampled = exact.solve(program, theta, seed=seed, samples=4096)
        absm, spread = sampled.observables["absm"], sampled.derived["spread"]
        assert absm.method == spread.method == "exact samples"
        assert sampled.observables["m2"].error == 0
        pulls += [
            (absm.value - enumerated.observables["absm"].value) / absm.error,
            (spread.value - enumerated.derived["spread"].value) / spread.error,
        ]
    assert max(map(abs, pulls)) < 4
    assert 0.4 < float(np.sqrt(np.mean(np.square(pulls)))) < 1.6


def test_batches_agree_with_the_interpreter():
    for text in MODELS.values():
        program = compiled(text)
        theta = resolve_parameters(program)
        rng = np.random.default_rng(0)
        configurations = [random_configuration(program, rng) for _ in range(7)]
        states = np.stack([states_of(program, x) for x in configurations])
        evaluator = BatchEvaluator(Context(program, theta))
        for o in program.observables:
            expected = [observables(program, x, theta)[o.name] for x in configurations]
            assert evaluator(o.value, states) == pytest.approx(expected, abs=1e-12)


def test_the_result_is_the_languages_object():
    found = solved(ISING, {"T": 2.0})
    text = json.dumps(found.to_json(), allow_nan=False)
    read = json.loads(text)
    assert read["schema"] == 1
    assert (read["sites"], read["temperature"]) == (16, 2.0)
    assert read["params"] == {"L": 4, "J": 1.0, "h": 0.0, "T": 2.0}
    assert read["free_energy"] == {"value": found.free_energy.value, "error": 0.0, "method": "exact"}
    assert set(read["observables"]) == {"m", "m2"}
    assert read["entropy"]["value"] == pytest.approx((read["energy"]["value"] - read["free_energy"]["value"]) / 2.0)
    assert found.beside()["ln_z"] == found.ln_z.value
    assert found.beside()["derived"] == {"chi": found.derived["chi"].value}


def test_costs_are_known_before():
    assert exact.cost(compiled(ISING, L=4), {"J": 1.0, "h": 0.0, "T": 2.0}).feasible
    in_field = exact.cost(compiled(ISING, L=24), {"J": 1.0, "h": 0.1, "T": 2.0})
    assert not in_field.feasible
    assert in_field.table_entries > 2**45
    with pytest.raises(VfeError) as caught:
        solved(ISING, {"h": 0.1}, L=24)
    assert caught.value.exit_code == 4
    assert caught.value.diagnostics[0].code == "too-expensive"


def test_what_cannot_be_solved_says_so():
    continuous = "lattice chain(4)\nfield U : SU(2)\ninteraction e = sum(i in sites: re(tr(U[i])))\ntemperature 1\n"
    wide = "lattice square(6, 6)\nfield s : spin\ninteraction e = abs(sum(i in sites: s[i]))\ntemperature 1\n"
    for text, code in ((continuous, "not-discrete"), (wide, "not-local")):
        with pytest.raises(VfeError) as caught:
            solved(text)
        assert (caught.value.diagnostics[0].code, caught.value.exit_code) == (code, 4)
    assert not exact.cost(compiled(continuous), {}).feasible
    assert not exact.cost(compiled(wide), {}).feasible
