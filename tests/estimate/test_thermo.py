"""Thermodynamics of draws of a four-spin ring, against enumeration."""

import numpy as np
import pytest

from vdsl.errors import VfeError
from vdsl.estimate.chain import independence_chain
from vdsl.estimate.importance import Draw
from vdsl.estimate.thermo import reweight, thermodynamics
from vdsl.ir.expr import Binary, Binder, Call, Const, Expect, Param, Place, Read, Reduce, Ref, SetOf
from vdsl.ir.lattice import named_lattice
from vdsl.ir.program import Field, Observable, Parameter, Program, Term
from vdsl.ir.support import Spin
from vdsl.model import Model

N = 4
STATES = 2 * ((np.arange(2**N)[:, None] >> np.arange(N)) & 1) - 1


def spin(variable: str) -> Read:
    return Read("s", Place(variable))


def over_sites(op: str, body: Read) -> Reduce:
    return Reduce(op, (Binder(("i",), SetOf("sites")),), body)


BONDS = Reduce("sum", (Binder(("i", "j"), SetOf("bonds", "nn")),), Binary("*", spin("i"), spin("j")))
M2 = Binary("^", Ref("m"), Const(2))
CHI = Binary(
    "*",
    Binary("/", Const(N), Param("T")),
    Binary("-", Expect(M2), Binary("^", Expect(Ref("absm")), Const(2))),
)
PROGRAM = Program(
    "ring",
    named_lattice("chain", (N,), ("periodic",)),
    (Field("s", Spin()),),
    (Term("exchange", Binary("*", Binary("*", Const(-1.0), Param("J")), BONDS)),),
    Param("T"),
    parameters=(Parameter("J", Const(1.0)), Parameter("T", Const(2.0))),
    observables=(Observable("m", over_sites("mean", spin("i"))), Observable("absm", Call("abs", (Ref("m"),)))),
    derived=(
        Observable("chi", CHI),
        Observable("corner", Expect(over_sites("prod", spin("i")))),
        Observable("shifted", Binary("+", Ref("chi"), Const(1.0))),
    ),
)


MODEL = Model(PROGRAM)


def exact(J: float, T: float) -> dict[str, float]:
    energy = -J * (STATES * np.roll(STATES, 1, 1)).sum(1)
    z = np.exp(-energy / T).sum()
    p = np.exp(-energy / T) / z
    m = STATES.mean(1)
    mean = p @ energy
    return {
        "ln_z": np.log(z),
        "free_energy": -T * np.log(z),
        "energy": mean,
        "entropy": -(p * np.log(p)).sum(),
        "heat_capacity": (p @ energy**2 - mean**2) / T**2,
        "m": p @ m,
        "absm": p @ abs(m),
        "chi": N / T * (p @ m**2 - (p @ abs(m)) ** 2),
        "corner": p @ STATES.prod(1),
    }


def draw(q: np.ndarray, n: int, J: float = 1.0, T: float = 2.0, seed: int = 0) -> Draw:
    rows = np.random.default_rng(seed).choice(2**N, n, p=q)
    s = STATES[rows].astype(np.int8)
    m = s.mean(1)
    energy = -J * (s * np.roll(s, 1, 1)).sum(1)
    return Draw({"s": s}, np.log(q[rows]), energy, T, {"J": J, "T": T}, {"m": m, "absm": abs(m)})


def boltzmann(J: float, T: float) -> np.ndarray:
    energy = -J * (STATES * np.roll(STATES, 1, 1)).sum(1)
    p = np.exp(-energy / T)
    return p / p.sum()


def named(t) -> dict:
    return {
        "ln_z": t.ln_z,
        "energy": t.energy,
        "entropy": t.entropy,
        "heat_capacity": t.heat_capacity,
        **t.observables,
        **{k: v for k, v in t.derived.items() if k != "shifted"},
    }


def test_every_estimate_agrees_with_enumeration_and_its_error_is_honest():
    """Pulls over repeated draws from a wrong guide have mean 0 and spread 1."""
    q, reference = boltzmann(0.6, 2.0), exact(1.0, 2.0)
    pulls = {}
    for seed in range(60):
        t = thermodynamics(draw(q, 2000, seed=seed), MODEL)
        for name, e in named(t).items():
            pulls.setdefault(name, []).append((e.value - reference[name]) / e.error)
            assert e.method == "importance"
    assert set(pulls) == set(reference) - {"free_energy"}
    for name, values in pulls.items():
        assert abs(np.mean(values)) < 4 / np.sqrt(60), name
        assert np.std(values) == pytest.approx(1, abs=0.4), name


def test_exact_guide_gives_exact_free_energy_and_consistent_thermodynamics():
    reference = exact(1.0, 2.0)
    t = thermodynamics(draw(boltzmann(1.0, 2.0), 4000), MODEL)
    assert t.free_energy.value == pytest.approx(reference["free_energy"], abs=1e-12)
    assert t.ln_z.value == pytest.approx(reference["ln_z"], abs=1e-12)
    assert t.importance_free_energy.value == pytest.approx(t.energy.value - 2.0 * t.entropy.value, abs=1e-12)
    assert t.variational_energy.value - 2.0 * t.variational_entropy.value == pytest.approx(t.free_energy.value)
    assert t.quality.ess == pytest.approx(1)
    assert t.quality.warnings == ()


def test_derived_quantities_may_use_each_other():
    t = thermodynamics(draw(boltzmann(1.0, 2.0), 1000), MODEL)
    assert t.derived["shifted"].value == pytest.approx(t.derived["chi"].value + 1)
    assert t.derived["shifted"].error == pytest.approx(t.derived["chi"].error)


@pytest.mark.parametrize(("J", "T"), [(1.0, 2.4), (1.2, 2.0), (0.9, 2.0)])
def test_reweighting_agrees_with_enumeration(J, T):
    moved = reweight(draw(boltzmann(1.0, 2.0), 20000), MODEL, J=J, T=T)
    assert (moved.temperature, moved.theta["J"]) == (T, pytest.approx(J))
    t, reference = thermodynamics(moved, MODEL), exact(J, T)
    for name, e in named(t).items():
        assert abs(e.value - reference[name]) < 4 * e.error, name
    assert 0.5 < t.quality.ess < 1


def test_reweighting_without_changes_changes_nothing():
    original = draw(boltzmann(0.8, 2.0), 500)
    moved = reweight(original, MODEL)
    np.testing.assert_allclose(moved.energy, original.energy, rtol=1e-6)
    assert moved.temperature == original.temperature


def test_reweighting_along_a_line_of_constant_couplings_keeps_every_weight():
    """J/T is all that matters: the weights stay equal to double precision, F scales with T."""
    t = thermodynamics(reweight(draw(boltzmann(1.0, 2.0), 500), MODEL, J=0.9, T=1.8), MODEL)
    assert t.quality.ess == 1.0
    assert t.free_energy.value == pytest.approx(0.9 * exact(1.0, 2.0)["free_energy"], rel=1e-14)


def test_reweighting_too_far_warns():
    t = thermodynamics(reweight(draw(boltzmann(0.05, 2.0), 300), MODEL, T=0.3), MODEL)
    assert "low-ess" in [w.code for w in t.quality.warnings]


def test_reweighting_checks_names_and_values():
    original = draw(boltzmann(1.0, 2.0), 10)
    with pytest.raises(VfeError):
        reweight(original, MODEL, K=1.0)
    with pytest.raises(VfeError):
        reweight(original, MODEL, T=-1.0)


def test_non_finite_observables_are_errors():
    original = draw(boltzmann(1.0, 2.0), 10)
    original.observables["m"][4] = np.nan
    with pytest.raises(VfeError, match="observable `m` is nan for sample 4"):
        thermodynamics(original, MODEL)


def test_independence_chain_agrees_with_enumeration():
    reference = exact(1.0, 2.0)
    chain = independence_chain(draw(boltzmann(0.5, 2.0), 40000))
    assert abs(chain.energy.value - reference["energy"]) < 4 * chain.energy.error
    assert abs(chain.observables["absm"].value - reference["absm"]) < 4 * chain.observables["absm"].error
    assert chain.autocorrelation > 1.2
    p, q = boltzmann(1.0, 2.0), boltzmann(0.5, 2.0)
    w = p / q
    assert chain.acceptance == pytest.approx((p[:, None] * q * np.minimum(1, w / w[:, None])).sum(), abs=0.01)


def test_independence_chain_of_the_exact_guide_accepts_everything():
    chain = independence_chain(draw(boltzmann(1.0, 2.0), 1000))
    assert (chain.acceptance, chain.longest_rejection) == (1.0, 0)
    np.testing.assert_array_equal(chain.states, np.arange(1000))


def test_longest_rejection_counts_a_sticky_sample():
    chain = independence_chain(Draw({}, np.zeros(101), -np.r_[50.0, np.zeros(100)], 1.0))
    assert (chain.acceptance, chain.longest_rejection) == (0.0, 100)
