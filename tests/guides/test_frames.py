"""Global phases taken out exactly: normalised (quadrature), invariant, sampled as they say, right in ln Z."""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import iv

import vdsl
from guides.small_models import compiled, random_params
from vdsl.guides.problem import Problem
from vdsl.guides.sequential import Sequential, build_sequential, choose_sequential
from vdsl.ir import interpret

SAMPLES, SOME = 4000, 200
MODELS = {
    "complex": """lattice chain(2, boundary = open)
field psi : complex
interaction e = sum(<i, j> in nn: abs(psi[i] - psi[j])^2) + sum(i in sites: 0.5 * abs(psi[i])^4 - abs(psi[i])^2)
temperature 1""",
    "plane": """lattice chain(2, boundary = open)
field phi : real[2]
interaction e = -sum(<i, j> in nn: dot(phi[i], phi[j])) + sum(i in sites: dot(phi[i], phi[i]) * dot(phi[i], phi[i]))
temperature 1""",
    "mixed": """lattice chain(3)
field s : spin
field a : angle
interaction e = -sum(<i, j> in nn: (1 + 0.6 * s[i] * s[j]) * cos(a[i] - a[j])) - 0.3 * sum(i in sites: s[i])
temperature 0.9""",
}


@cache
def built(name: str) -> tuple[Problem, Sequential]:
    model = vdsl.loads(MODELS[name])
    problem = Problem(model.program, interpret.resolve_parameters(model.program), model)
    return problem, build_sequential(choose_sequential(problem), problem)


@cache
def found(name: str) -> tuple[dict, np.ndarray, dict, np.ndarray, np.ndarray, np.ndarray]:
    """At random parameters: samples with ln q as drawn; a grid of orbits; ln q of all, and of what is turned."""
    problem, guide = built(name)
    params = random_params(guide, size=0.1)
    grid, measure = orbits(name)
    dynamic, static = eqx.partition(guide, eqx.is_array)

    def run(dynamic, params, grid, key):
        guide = eqx.combine(dynamic, static)
        x, log_q = guide.sample_and_log_prob(params, key, SAMPLES)
        some = {f: v[:SOME] for f, v in x.items()}
        every = jax.tree.map(lambda *v: jnp.concatenate(v), some, turned(some), grid)
        again, after, on_grid = jnp.split(guide.log_prob(params, every), [SOME, 2 * SOME])
        return x, log_q, on_grid, again, after

    parts = compiled(jax.jit(run), dynamic, params, grid, jax.random.key(3))
    x, log_q, on_grid, again, after = jax.tree.map(np.asarray, parts)
    return x, log_q, {**grid, "measure": measure, "log_q": on_grid}, again, after, problem.model.energies(x)


def turned(x: dict) -> dict:
    """All phases by the same angle."""
    out = dict(x)
    if "psi" in x:
        out["psi"] = x["psi"] * jnp.exp(0.7j)
    if "phi" in x:
        c, s = np.cos(0.7), np.sin(0.7)
        out["phi"] = x["phi"] @ jnp.array([[c, s], [-s, c]])
    if "a" in x:
        out["a"] = (x["a"] + 0.7 + jnp.pi) % (2 * jnp.pi) - jnp.pi
    return out


def orbits(name: str) -> tuple[dict, np.ndarray]:
    """One configuration of each orbit, on a grid, and its measure, the volume of the orbit included."""
    if name == "mixed":
        angles = np.stack(np.meshgrid(*[np.arange(45) * 2 * np.pi / 45 - np.pi] * 2, indexing="ij"), -1).reshape(-1, 2)
        spins = np.array(np.meshgrid(*[[-1, 1]] * 3)).reshape(3, -1).T
        a = np.repeat(np.concatenate([np.zeros((len(angles), 1)), angles], 1), len(spins), 0)
        measure = np.full(len(a), 2 * np.pi * (2 * np.pi / 45) ** 2)
        return {"s": np.tile(spins, (len(angles), 1)).astype(np.int8), "a": a.astype(np.float32)}, measure
    h = 0.16
    r, side = np.arange(h / 2, 3.4, h), np.arange(-3.4, 3.4, h)
    first, x, y = (v.reshape(-1) for v in np.meshgrid(r, side, side, indexing="ij"))
    psi = np.stack([first + 0j, x + 1j * y], 1).astype(np.complex64)
    measure = 2 * np.pi * first * h**3
    return ({"psi": psi} if name == "complex" else {"phi": np.stack([psi.real, psi.imag], -1)}), measure


@pytest.mark.parametrize("name", MODELS)
def test_normalised(name: str) -> None:
    grid = found(name)[2]
    assert (np.exp(np.asarray(grid["log_q"], float)) * grid["measure"]).sum() == pytest.approx(1, abs=3e-3)


@pytest.mark.parametrize("name", MODELS)
def test_a_turn_of_everything_changes_nothing(name: str) -> None:
    _, log_q, _, again, after, _ = found(name)
    assert np.ptp(again) > 1
    np.testing.assert_allclose(again, log_q[:SOME], atol=3e-3)
    np.testing.assert_allclose(after, again, atol=3e-3)


@pytest.mark.parametrize("name", MODELS)
def test_absolute_ln_z(name: str) -> None:
    """By importance weights of samples, against quadrature over orbits."""
    problem, _ = built(name)
    _, log_q, grid, _, _, energy = found(name)
    log_w = -np.asarray(energy, float) / problem.temperature - np.asarray(log_q, float)
    w = np.exp(log_w - log_w.max())
    ln_z, error = log_w.max() + np.log(w.mean()), w.std() / w.mean() / len(w) ** 0.5
    on_grid = problem.model.energies({f: grid[f] for f in (field.name for field in problem.program.fields)})
    boltzmann = np.exp(-np.asarray(on_grid, float) / problem.temperature)
    assert error < 0.03
    assert abs(ln_z - np.log((boltzmann * grid["measure"]).sum())) < 4 * error + 1e-3


@pytest.mark.parametrize("name", MODELS)
def test_phases_are_uniform(name: str) -> None:
    x = found(name)[0]
    value = {"complex": "psi", "plane": "phi", "mixed": "a"}[name]
    v = x[value][:, -1]
    phase = np.angle(v) if name == "complex" else np.arctan2(v[..., 1], v[..., 0]) if name == "plane" else v
    for k in (1, 2):
        assert abs(np.exp(1j * k * phase).mean()) < 4.5 / SAMPLES**0.5
    assert np.abs(phase).max() <= np.pi + 1e-5


def test_it_is_said() -> None:
    said = "global rotation of psi, global sign of psi"  # by length and phase
    assert choose_sequential(built("complex")[0]).description["symmetry built in"] == said
    assert choose_sequential(built("plane")[0]).description["symmetry built in"] == "global rotation of phi"
    assert choose_sequential(built("mixed")[0]).description["symmetry built in"] == "global rotation of a"


def test_settled_lengths_are_drawn_as_such() -> None:
    """In a deep ring of minima a complex field is lengths and phases, whose rotation and sign are exact; ln Z is that
    of the transfer integral Σ_n tr T_n³ around three sites, T_n(r, r') = 2π I_n(2rr') with r e^{−V(r)} dr."""
    terms = """lattice chain(3)
field psi : complex
interaction hop = -2 * sum(<i, j> in nn: re(psi[i]' * psi[j]))
interaction v = sum(i in sites: 3 * (abs(psi[i])^2 - 2)^2)
temperature 1"""
    model = vdsl.loads(terms)
    problem = Problem(model.program, interpret.resolve_parameters(model.program), model)
    choice = choose_sequential(problem)
    assert choice.description["symmetry built in"] == "global rotation of psi, global sign of psi"
    guide = build_sequential(choice, problem)
    params = guide.init(jax.random.key(0))
    x, log_q = jax.jit(lambda key: guide.sample_and_log_prob(params, key, SAMPLES))(jax.random.key(1))
    again = jax.jit(lambda x: guide.log_prob(params, x))({"psi": x["psi"] * np.exp(0.7j)})
    np.testing.assert_allclose(again, log_q, atol=2e-3)
    psi = np.asarray(x["psi"], complex)
    energy = (3 * (np.abs(psi) ** 2 - 2) ** 2).sum(1) - 2 * (psi.conj() * np.roll(psi, 1, 1)).real.sum(1)
    w = np.exp(-energy - np.asarray(log_q, float))
    r, weight = np.polynomial.legendre.leggauss(120)
    r, weight = 1.5 * (r + 1), 1.5 * weight
    measure = 2 * np.pi * r * np.exp(-3 * (r**2 - 2) ** 2) * weight
    transfers = [iv(n, 2 * r[:, None] * r) * measure for n in range(-40, 41)]
    exact = sum(np.trace(np.linalg.matrix_power(t, 3)) for t in transfers)
    assert w.std() / w.mean() / SAMPLES**0.5 < 0.02
    assert w.mean() == pytest.approx(exact, abs=4.5 * w.std() / SAMPLES**0.5)


def test_settled_lengths_beside_vectors() -> None:
    """A unit vector is one unit of several variables: lengths are counted by units."""
    terms = """lattice chain(6)
field n : sphere(3)
field psi : complex
field chi : complex
interaction hop = -sum(<i, j> in nn: re(psi[i]' * psi[j]) + dot(n[i], n[j]))
interaction v = sum(i in sites: 5 * (abs(psi[i])^2 - 2)^2 + 0.1 * abs(chi[i])^4 + abs(chi[i])^2)
temperature 1"""
    model = vdsl.loads(terms)
    problem = Problem(model.program, interpret.resolve_parameters(model.program), model)
    assert choose_sequential(problem).structure.polar == ("psi",)
