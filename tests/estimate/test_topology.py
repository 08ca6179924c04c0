"""Topological charges by hand, their averages on synthetic draws, and what is said about sectors that are missing."""

import math

import jax
import numpy as np
import pytest
from scipy.special import iv

import vdsl
from vdsl.estimate.chain import independence_chain
from vdsl.estimate.importance import Draw
from vdsl.estimate.topology import charged_field, charges, topology
from vdsl.ir.interpret import observables

TEXT = """lattice hypercubic({size}, boundary = {boundary})
field U : {group} on links
interaction s = -{beta} * sum(p in plaquettes: {body})
temperature 1
observable Q = sum(p in plaquettes: wrap({flux})) / (2 * pi)"""
FORMS = {"angle": ("cos(circulation(U, p))", "circulation(U, p)"), "U(1)": ("re(loop(U, p))", "arg(loop(U, p))")}


pytestmark = pytest.mark.usefixtures("quick_compilations")


def model(group: str = "angle", size: str = "4, 4", beta: float = 1.0, boundary: str = "periodic") -> vdsl.Model:
    body, flux = FORMS[group]
    return vdsl.loads(TEXT.format(group=group, size=size, beta=beta, boundary=boundary, body=body, flux=flux))


def instanton(program, charge: int) -> np.ndarray:
    """Angles with the same flux 2πQ/V through every plaquette: θ_1 grows along axis 0, θ_0 jumps at its end."""
    lattice = program.lattice
    rows, columns = lattice.shape
    site, axis = lattice.links
    x, y = np.unravel_index(site, lattice.shape)
    flux = 2 * np.pi * charge / (rows * columns)
    along = np.where(axis == 1, flux * x, np.where(x == rows - 1, -flux * rows * y, 0.0))
    return np.pi - np.mod(np.pi - along, 2 * np.pi)


@pytest.mark.parametrize("group", ["angle", "U(1)"])
@pytest.mark.parametrize("charge", [-3, 0, 1, 5])
def test_uniform_flux_has_its_charge(group: str, charge: int) -> None:
    program = model(group, "4, 5").program
    theta = instanton(program, charge)
    x = np.exp(1j * theta) if group == "U(1)" else theta
    assert charges(program, charged_field(program), x) == charge


@pytest.mark.parametrize("group", ["angle", "U(1)"])
def test_charges_are_the_observable(group: str) -> None:
    found = model(group, "3, 4")
    x = found.random_configuration(jax.random.key(1), 20)
    values = [observables(found.program, {"U": np.asarray(u)}, {})["Q"] for u in x["U"]]
    ours = charges(found.program, charged_field(found.program), np.asarray(x["U"]))
    assert len(set(ours.tolist())) > 1
    assert np.allclose(ours, values, atol=1e-5)


def test_other_models_have_no_sectors() -> None:
    assert charged_field(model(boundary="open").program) is None
    assert charged_field(model(size="3, 3, 3").program) is None
    matter = "lattice square(3, 3)\nfield s : angle\ninteraction e = sum(i in sites: cos(s[i]))\ntemperature 1"
    assert charged_field(vdsl.loads(matter).program) is None


# Draws of known sectors: configurations of uniform flux, with weights as given


def draw_of(program, q: np.ndarray, log_w: np.ndarray | None = None) -> Draw:
    table = {int(c): instanton(program, int(c)) for c in np.unique(q)}
    log_w = np.zeros(len(q)) if log_w is None else log_w
    return Draw({"U": np.stack([table[int(c)] for c in q])}, -log_w, np.zeros(len(q)), 1.0)


def found_of(program, q: np.ndarray, visited: np.ndarray | None, log_w: np.ndarray | None = None):
    draw = draw_of(program, q, log_w)
    chains = None
    if visited is not None:
        chains = np.stack([[instanton(program, int(c)) for c in row] for row in visited])
    return topology(program, draw, independence_chain(draw).states, chains, 16, 4)


@pytest.fixture(scope="module")
def program():
    return model().program


def test_charge_squared_is_reweighted(program) -> None:
    """Samples half and half from Q = 0 and Q = 1, of weights 1 and 3."""
    q = np.random.default_rng(1).integers(0, 2, 4000)
    found = found_of(program, q, None, math.log(3) * q)
    assert found.charge_squared.value == pytest.approx(0.75, abs=4 * found.charge_squared.error)
    assert found.charge_squared.error == pytest.approx(math.sqrt(0.75 * 0.25 / 4000 * (1 + 1 / 3)), rel=0.3)
    assert found.sectors == pytest.approx({0: 0.25, 1: 0.75}, abs=0.03)
    assert (found.chain, found.chain_changes, found.chain_sectors) == (None, None, {})


def populations(rng: np.random.Generator, weights: dict[int, float], stay: float) -> np.ndarray:
    """64 chains of 32 samples that keep Q with probability `stay` and draw a new one otherwise."""
    keys, p = list(weights), np.array(list(weights.values()))
    out = rng.choice(keys, (64, 32), p=p / p.sum())
    for t in range(1, 32):
        kept = rng.random(64) < stay
        out[kept, t] = out[kept, t - 1]
    return out


TRUE = {-1: 0.2, 0: 0.6, 1: 0.2}


@pytest.mark.parametrize("stay", [0.0, 0.7, 0.95])
@pytest.mark.parametrize("seed", range(4))
def test_no_false_alarms_where_both_have_all_sectors(program, stay: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    q = rng.choice(list(TRUE), 1000, p=list(TRUE.values()))
    found = found_of(program, q, populations(rng, TRUE | {2: 0.004, -2: 0.004}, stay))
    assert found.warnings == ()
    expected = 4 * (1 + stay) / (1 - stay)  # in trajectories, four for each sample
    assert found.chain == pytest.approx(expected, rel=0.6 if stay else 0.2)


def test_one_sector_is_no_alarm(program) -> None:
    """At weak coupling in a small volume Q is 0, and stays so."""
    found = found_of(program, np.zeros(500, int), np.zeros((64, 32), int))
    assert found.warnings == ()
    assert found.chain_changes == 0


def test_a_guide_without_a_sector_is_told(program) -> None:
    rng = np.random.default_rng(2)
    q = rng.choice([0, 1], 1000, p=[0.75, 0.25])
    (warning,) = found_of(program, q, populations(rng, TRUE, 0.5)).warnings
    assert (warning.code, warning.severity) == ("sectors-missing", "warning")
    assert "missing in the guide: Q = -1" in warning.message


def test_chains_without_a_sector_are_told(program) -> None:
    rng = np.random.default_rng(3)
    q = rng.choice([0, 1], 1000, p=[0.6, 0.4])
    codes = {w.code: w for w in found_of(program, q, np.zeros((64, 32), int)).warnings}
    assert set(codes) == {"topology-frozen"}  # 16 starts miss a sector of weight 0.4 once in 4000 times
    q = rng.choice([0, 1], 1000, p=[0.35, 0.65])
    codes = {w.code: w for w in found_of(program, q, np.zeros((64, 32), int)).warnings}
    assert set(codes) == {"topology-frozen", "sectors-missing"}
    assert "missing in the Hamiltonian chains: Q = 1" in codes["sectors-missing"].message


def test_chains_that_never_change_their_sector_are_told(program) -> None:
    rng = np.random.default_rng(4)
    frozen = np.repeat(rng.choice(list(TRUE), (64, 1), p=list(TRUE.values())), 32, axis=1)
    (warning,) = found_of(program, rng.choice(list(TRUE), 1000, p=list(TRUE.values())), frozen).warnings
    assert warning.code == "topology-frozen"


@pytest.mark.slow
def test_a_solve_reports_the_topology() -> None:
    """An exactly solvable torus: ⟨Q²⟩ with its error beside the exact value, in the result and in the words of it."""
    run = vdsl.solve(model(size="2, 3", beta=0.8), steps=1, samples=2048, quiet=True)
    found = run.result["topology"]
    m = np.arange(-30, 31)[:, None]
    phi = np.linspace(-np.pi, np.pi, 20001)[:-1] + np.pi / 20000
    w = np.exp(0.8 * np.cos(phi))
    lam = (w * np.cos(m * phi)).mean(1)
    first = -(w * phi * np.sin(m * phi)).mean(1) / (2 * np.pi)  # times i: odd
    second = (w * phi**2 * np.cos(m * phi)).mean(1) / (2 * np.pi) ** 2
    z = (lam**6).sum()
    exact = (30 * lam**4 * -(first**2) + 6 * lam**5 * second).sum() / z
    assert np.allclose(lam, iv(np.abs(m[:, 0]), 0.8), atol=1e-10)
    assert found["exact"] == pytest.approx(exact, rel=1e-6)
    squared = found["charge_squared"]
    assert abs(squared["value"] - exact) < 4 * squared["error"]
    assert 1 <= found["autocorrelation"]["independence"] < 4
    assert found["autocorrelation"]["hmc"] >= 1
    assert run.topology == found
    assert not [w for w in run.warnings if w.code in ("topology-frozen", "sectors-missing")]
