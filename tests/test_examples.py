"""Each example against the reference value in its own header, and each guide it gets against the exact answer."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest

import vdsl
from references.headers import EXAMPLES, reference
from references.models import REFERENCES
from vdsl import solver
from vdsl.errors import VfeError
from vdsl.estimate.thermo import Thermodynamics, thermodynamics
from vdsl.fit import fit
from vdsl.ir import interpret
from vdsl.ir.configurations import random_configuration
from vdsl.ir.interpret import resolve_parameters
from vdsl.ir.support import is_discrete
from vdsl.report.progress import Progress
from vdsl.run import SolveSettings

pytestmark = pytest.mark.usefixtures("quick_compilations")

MODELS = {path.stem: path for path in sorted(EXAMPLES.glob("*.vfe"))}
CONTINUOUS = (
    "complex_scalar", "compressible_ising", "double_well_chain", "free_field", "heisenberg", "heisenberg_chain",
    "higgs", "higgs_complex", "kitaev_heisenberg", "o2", "phi4", "random_springs", "ring_polymer", "su2", "su2_4d",
    "su2_mixed", "su3", "u1", "u1_4d", "u1_improved", "xy",
)  # fmt: skip
DISCRETE = tuple(name for name in MODELS if name not in CONTINUOUS)

# The guide that is chosen by itself for what is narrow, and the one that learns, for each thing it is derived from:
# three dimensions, frustration, several fields, more than two states, a dense graph. Small, so that seconds are enough.
SOLVED = {
    "ising_chain": ({"N": 12}, None),
    "ising_tree": ({}, None),
    "random_graph": ({}, None),
    "lattice_gas": ({"L": 4}, None),
    "ising_3d": ({"L": 3}, "autoregressive"),
    "triangular_antiferromagnet": ({"L": 4, "T": 0.5}, "autoregressive"),
    "ashkin_teller": ({"L": 3}, "autoregressive"),
    "potts_square": ({"L": 3}, "autoregressive"),
    "hopfield": ({"T": 1.0}, "autoregressive"),
}
LONG = ("ising_3d", "hopfield")  # training takes longer than compiling it well

# ln Z by an independent calculation at these parameters, by a guide (None: the default), and the ESS to reach.
SOLVED_CONTINUOUS = {
    "heisenberg_chain": ({"N": 4}, None, 0.95),
    "free_field": ({"L": 4}, None, 0.9999),
    "compressible_ising": ({"L": 3}, None, 0.6),
}
# Averages that are known otherwise, by the same runs.
AVERAGES = {
    "heisenberg_chain": {"C1": lambda: 1 / np.tanh(1.0) - 1},
    "free_field": {"chi": lambda: 4.0, "xi": lambda: 2.0},
}
EXACT_CONTINUOUS = {
    "free_field": {},
    "random_springs": {},
    "ring_polymer": {},
    "heisenberg_chain": {"N": 6},
    "double_well_chain": {"N": 6},
    "u1": {"L": 4, "beta": 2.0},
    "su2": {},
    "su2_mixed": {"L": 3},
}


def load(name: str, **parameters: float) -> "vdsl.Model":
    return vdsl.load(MODELS[name], **parameters)


@pytest.mark.parametrize("name", DISCRETE)
def test_exact_answer_is_the_reference(name: str) -> None:
    header = reference(MODELS[name])
    exact = load(name, **header.parameters).exact()
    assert float(exact.ln_z) == pytest.approx(header.ln_z, abs=1e-10 * max(1, abs(header.ln_z)))
    assert float(exact.free_energy) == pytest.approx(-exact.temperature * header.ln_z, rel=1e-10)
    entropy = float(exact.energy) / exact.temperature + float(exact.ln_z)
    assert float(exact.entropy) == pytest.approx(entropy, abs=1e-9 * max(1, abs(entropy)))


@pytest.mark.parametrize("name", EXACT_CONTINUOUS)
def test_exact_answer_of_a_continuous_field_is_the_reference(name: str) -> None:
    parameters = EXACT_CONTINUOUS[name]
    ln_z = REFERENCES[name](**{**reference(MODELS[name]).parameters, **parameters})
    assert float(load(name, **parameters).exact().ln_z) == pytest.approx(ln_z, rel=1e-10)


def test_exact_averages_of_solved_models() -> None:
    """ξ₂ of a free field is 1/m exactly and χ is 1/m²; ⟨S·S'⟩ of neighbours is coth K − 1/K on an open chain."""
    free = load("free_field", L=8, m2=0.25).exact()
    assert free.derived["xi"].value == pytest.approx(2.0, rel=1e-9)
    assert free.derived["chi"].value == pytest.approx(4.0, rel=1e-9)
    chain = load("heisenberg_chain", N=5, T=0.5).exact()
    assert chain.observables["C1"].value == pytest.approx(1 / np.tanh(2.0) - 0.5, rel=1e-9)


def test_models_without_a_guide_say_so() -> None:
    links = "lattice hypercubic(2, 2)\nfield U : SU(3) on links\n"
    with pytest.raises(VfeError) as found:
        vdsl.solve(
            vdsl.loads(links + "interaction e = sum(<x, mu> in links: re(tr(U[x, mu])))\ntemperature 1"), steps=1
        )
    assert [d.code for d in found.value.diagnostics] == ["no-guide"]


@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous_examples_compile_to_the_energy_of_the_interpreter(name: str) -> None:
    model = load(name, **({size: 4} if (size := _size(name)) else {}))
    assert not all(is_discrete(field.support) for field in model.fields)
    x = random_configuration(model.program, np.random.default_rng(1))
    theta = resolve_parameters(model.program)
    expected = interpret.energy(model.program, x, theta)
    assert float(model.energy(x)) == pytest.approx(expected, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize(
    ("name", "energy"),
    # At the reference configuration (zero field, unit matrices, spins along z) with L = 3: counted by hand.
    [("phi4", 0.0), ("xy", -18.0), ("u1", -6.0 * 9), ("su3", -6.0 * 9), ("kitaev_heisenberg", 1.2 * 27 - 5.0 * 9)],
)
def test_continuous_energies_by_hand(name: str, energy: float) -> None:
    model = load(name, L=3)
    assert float(model.energy(_origin(name, model))) == pytest.approx(energy, rel=1e-6, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVED_CONTINUOUS)
def test_solving_reaches_the_reference(name: str) -> None:
    """ln Z of a continuous model within 3σ (and rounding) of an independent calculation, F_q above F."""
    parameters, guide, least_ess = SOLVED_CONTINUOUS[name]
    model = load(name, **parameters)
    ln_z = REFERENCES[name](**{**reference(MODELS[name]).parameters, **parameters})
    found, temperature = _solved(model, guide, steps=20)
    rounding = 1e-6 * max(1.0, abs(ln_z))
    assert abs(found.ln_z.value - ln_z) < 3 * found.ln_z.error + rounding
    assert found.ln_z.error < 0.03
    bound = -temperature * (ln_z + rounding)
    assert found.free_energy.value > bound - 3 * found.free_energy.error
    assert found.quality.ess > least_ess
    for key, value in AVERAGES.get(name, {}).items():
        estimate = (found.observables | found.derived)[key]
        assert abs(estimate.value - value()) < 4 * estimate.error


@pytest.fixture
def fast_code(name: str, quick_compilations: None) -> Iterator[None]:
    jax.config.update("jax_disable_most_optimizations", name not in LONG)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVED)
def test_solving_reaches_the_exact_answer(name: str, fast_code: None) -> None:
    """ln Z within 3σ (and rounding), and F_q above F by no less than its error allows."""
    parameters, guide = SOLVED[name]
    model = load(name, **parameters)
    exact = model.exact()
    found, _ = _solved(model, guide, steps=60)
    ln_z, rounding = float(exact.ln_z), 2e-6 * abs(float(exact.ln_z))
    assert abs(found.ln_z.value - ln_z) < 3 * found.ln_z.error + rounding
    assert found.ln_z.error < 0.01
    assert (
        found.free_energy.value > float(exact.free_energy) - 3 * found.free_energy.error - rounding * exact.temperature
    )
    assert found.free_energy.value == pytest.approx(float(exact.free_energy), rel=1e-3)
    assert found.quality.ess > 0.9


def _solved(model: "vdsl.Model", guide: str | None, steps: int) -> tuple[Thermodynamics, float]:
    """What `solve` finds, and the temperature: without its Markov chains and reports, which have tests of their own and
    take longer to compile."""
    quiet = Progress(sys.stderr, quiet=True)
    solved = solver.solvable(model, SolveSettings(seed=1, steps=steps, guide=guide), quiet)
    fitted = fit(
        solved.guide, seed=1, steps=steps, batch=128, seconds=None, path=None, fingerprint="", progress=quiet
    )  # fmt: skip
    draw = solver.fresh_draw(model, solved.guide, fitted.params, solved.problem.theta, jax.random.key(7), 4096)
    return thermodynamics(draw, model), draw.temperature


def test_examples_are_in_canonical_layout() -> None:
    command = [sys.executable, "-m", "vdsl", "fmt", "--check", *map(str, MODELS.values())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr + done.stdout


def test_examples_check_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "vdsl", "check", *map(str, MODELS.values())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr + done.stdout


def _size(name: str) -> str:
    """The parameter that sizes an example."""
    return next((n for n in ("L", "N", "P") if n in {s.name for s in load(name).program.structure}), "")


def _origin(name: str, model: "vdsl.Model") -> np.ndarray:
    (field,) = model.fields
    elements = model.program.elements(field)
    match name:
        case "su3":
            return np.broadcast_to(np.eye(3, dtype=complex), (elements, 3, 3))
        case "kitaev_heisenberg":
            return np.broadcast_to([0.0, 0.0, 1.0], (elements, 3))
    return np.zeros(elements)
