"""Error bars of the whole path, source to estimate, against enumeration that shares no code with it.

Temperatures and couplings differ from 1, energies have both signs: a factor of T, a sign or a per-site number would
show. A pull is (estimate − exact)/error; over repeated draws pulls have mean 0 and spread 1.
"""

import itertools

import jax
import numpy as np
import pytest

import vdsl
from vdsl.estimate.importance import Draw
from vdsl.estimate.stats import Estimate
from vdsl.estimate.thermo import Thermodynamics, reweight, thermodynamics
from vdsl.guides import registry
from vdsl.guides.guide import Guide
from vdsl.guides.problem import Problem
from vdsl.ir import interpret
from vdsl.solver import fresh_draw

pytestmark = pytest.mark.slow

REPEATS, SAMPLES = 60, 2000
BONDS = np.array(
    [(3 * a + b, c) for a in range(3) for b in range(3) for c in ((3 * a + 3) % 9 + b, 3 * a + (b + 1) % 3)]
)

SOURCES = {
    "antiferromagnet": """
        param J = -0.45
        param T = 2.7
        lattice square(3, 3)
        field s : spin
        interaction exchange = -J * sum(<i, j> in nn: s[i] * s[j])
        interaction zeeman = -0.3 * sum(i in sites: s[i])
        temperature T
        observable m = mean(i in sites: s[i])
        observable absm = abs(m)
        observable e = exchange / size(sites)
        derived chi = size(sites) / T * (expect(m^2) - expect(absm)^2)
        derived cv = (expect(exchange^2) - expect(exchange)^2) / T^2""",
    "potts": """
        param J = 0.35
        param T = 0.65
        lattice square(3, 3)
        field s : potts(3)
        interaction exchange = -J * sum(<i, j> in nn: delta(s[i], s[j]))
        interaction zeeman = 0.3 * sum(i in sites: delta(s[i], 1))
        temperature 2 * T
        observable m = mean(i in sites: delta(s[i], 1))
        observable absm = s[0]
        observable e = exchange / size(sites)
        derived chi = size(sites) / T * (expect(m^2) - expect(absm)^2)
        derived cv = (expect(exchange^2) - expect(exchange)^2) / T^2""",
}


def enumerated(name: str, J: float, T: float) -> dict[str, float]:
    values = (-1, 1) if name == "antiferromagnet" else (0, 1, 2)
    s = np.array(list(itertools.product(values, repeat=9)), float)
    i, j = BONDS.T
    if name == "antiferromagnet":
        exchange, m = -J * (s[:, i] * s[:, j]).sum(1), s.mean(1)
        energy, temperature, absm = exchange - 0.3 * s.sum(1), T, abs(m)
    else:
        exchange, m = -J * (s[:, i] == s[:, j]).sum(1), (s == 1).mean(1)
        energy, temperature, absm = exchange + 0.3 * (s == 1).sum(1), 2 * T, s[:, 0]
    weight = np.exp(-energy / temperature)
    ln_z, p = np.log(weight.sum()), weight / weight.sum()
    mean = p @ energy
    return {
        "ln_z": ln_z,
        "importance_free_energy": -temperature * ln_z,
        "energy": mean,
        "entropy": -(p @ np.log(p)),
        "heat_capacity": p @ (energy - mean) ** 2 / temperature**2,
        "m": p @ m,
        "absm": p @ absm,
        "e": p @ exchange / 9,
        "chi": 9 / T * (p @ m**2 - (p @ absm) ** 2),
        "cv": (p @ exchange**2 - (p @ exchange) ** 2) / T**2,
    }


def estimates(found: Thermodynamics) -> dict[str, Estimate]:
    names = ("ln_z", "importance_free_energy", "energy", "entropy", "heat_capacity")
    return {n: getattr(found, n) for n in names} | found.observables | found.derived


def built_guide(model: vdsl.Model, name: str) -> tuple[Guide, dict[str, float]]:
    theta = interpret.resolve_parameters(model.program, {})
    choice = registry.choose(Problem(model.program, theta), name)
    return registry.build(choice, Problem(model.program, theta)), theta


def drawn(name: str, guide: str) -> tuple[vdsl.Model, list[Draw]]:
    """Repeated draws of a guide that is not trained but shaken: wrong everywhere, by a known kind of amount."""
    model = vdsl.loads(SOURCES[name])
    built, theta = built_guide(model, guide)
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda p: p + 0.15 * rng.standard_normal(p.shape), built.init(jax.random.key(3)))
    draw = fresh_draw(model, built, params, theta, jax.random.key(7), REPEATS * SAMPLES)
    rows = [slice(k * SAMPLES, (k + 1) * SAMPLES) for k in range(REPEATS)]
    return model, [
        Draw(
            {k: v[r] for k, v in draw.x.items()}, draw.log_q[r], draw.energy[r], draw.temperature, draw.theta,
            {k: v[r] for k, v in draw.observables.items()},
        )
        for r in rows
    ]  # fmt: skip


def check_pulls(found: list[dict[str, Estimate]], reference: dict[str, float], skip: tuple[str, ...] = ()) -> None:
    assert found[0].keys() == reference.keys()
    for name in reference.keys() - set(skip):
        pulls = np.array([(e[name].value - reference[name]) / e[name].error for e in found])
        assert abs(pulls.mean()) < 0.6, name  # 4.6 standard errors; the bias of a ratio is a few tenths at most
        assert 0.7 < pulls.std() < 1.45, name


@pytest.mark.parametrize(("name", "J", "T"), [("antiferromagnet", -0.45, 2.7), ("potts", 0.35, 0.65)])
@pytest.mark.parametrize("guide", ["dense", "exact"])
def test_pulls_have_mean_0_and_spread_1(name, J, T, guide):
    model, draws = drawn(name, guide)
    reference = enumerated(name, J, T)
    found = [estimates(thermodynamics(d, model)) for d in draws]
    if guide == "dense":
        assert 0.2 < thermodynamics(draws[0], model).quality.ess < 0.9
        check_pulls(found, reference)
        return
    check_pulls(found, reference, skip=("ln_z", "importance_free_energy"))
    for e in found:  # nothing fluctuates: what is left is rounding, and the error says so
        assert abs(e["ln_z"].value - reference["ln_z"]) < e["ln_z"].error < 1e-5
        temperature = draws[0].temperature
        assert e["entropy"].error == pytest.approx(e["energy"].error / temperature, rel=1e-3)


def test_pulls_after_reweighting_in_temperature_and_coupling():
    model, draws = drawn("antiferromagnet", "exact")
    moved = [reweight(d, model, J=-0.55, T=2.4) for d in draws]
    assert 0.5 < thermodynamics(moved[0], model).quality.ess < 0.99
    check_pulls([estimates(thermodynamics(d, model)) for d in moved], enumerated("antiferromagnet", -0.55, 2.4))


@pytest.mark.parametrize(("name", "J", "T"), [("antiferromagnet", -0.45, 2.7), ("potts", 0.35, 0.65)])
def test_exact_answers_agree_with_enumeration(name, J, T):
    found, reference = vdsl.loads(SOURCES[name]).exact(), enumerated(name, J, T)
    values = {n: getattr(found, n).value for n in ("ln_z", "energy", "entropy", "heat_capacity")}
    values |= {"importance_free_energy": found.free_energy.value}
    values |= {n: v.value for n, v in (found.observables | found.derived).items()}
    assert values == pytest.approx(reference, rel=1e-11)


def test_ln_z_of_a_long_cold_chain_is_as_good_as_its_error_says():
    """1000 spins, ln Z = 2711: single-precision sums of energies alone would be off by 2e-5."""
    text = """
        lattice chain(1000)
        field s : spin
        data J on nn ~ normal(0, 1) seed 1
        interaction ea = -sum(<i, j> in nn: J[i, j] * s[i] * s[j])
        temperature 0.3"""
    model = vdsl.loads(text)
    guide, theta = built_guide(model, "exact")
    draw = fresh_draw(model, guide, {}, theta, jax.random.key(0), 512)
    found = thermodynamics(draw, model)
    J = np.random.default_rng(1).normal(0, 1, 1000) / 0.3
    ring = 1000 * np.log(2) + np.log(np.cosh(J)).sum() + np.log1p(np.tanh(J).prod())
    assert draw.energy.dtype == np.float64
    assert abs(found.ln_z.value - ring) < 2 * found.ln_z.error < 1e-4
    assert found.free_energy.value == pytest.approx(-0.3 * ring, rel=1e-8)
