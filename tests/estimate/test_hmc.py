"""Hamiltonian Monte Carlo against exact densities, moments and enumeration; the pieces against their laws."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import iv, spherical_in

import vdsl
from vdsl.estimate.global_moves import global_moves, move_globally
from vdsl.estimate.hmc import potential, sample_hmc
from vdsl.estimate.phase_space import decode, drift, encode, kick, kinetic, make_target, moving
from vdsl.estimate.stats import correlated_mean

MIXED = """
lattice chain(4)
field s : spin
field u : real
interaction a = -sum(<i, j> in nn: s[i] * s[j] * (1 + 0.5 * (u[i] - u[j])))
interaction b = sum(i in sites: u[i]^2)
temperature 1
"""
# Fields of every kind that do not feel each other, each with an exact answer: one compiled program for all.
EVERYTHING = (
    MIXED
    + """
field x : real
field z : complex
field Y : SU(3)
field t : angle
field S : sphere(3)
interaction ex = sum(i in sites: x[i]^4 - 2 * x[i]^2 + 0.3 * x[i])
interaction ez = sum(i in sites: abs(z[i])^2 + 0.5 * re(z[i])^2)
interaction eY = -sum(i in sites: re(tr(Y[i])))
interaction et = -2 * sum(<i, j> in nn: cos(t[i] - t[j]))
interaction eS = -2 * sum(<i, j> in nn: dot(S[i], S[j]))
"""
)
SYMMETRIC = """
lattice chain(4)
field a : real
field b : angle
field c : clock(6)
field d : sphere(3)
field e : complex
interaction ea = -sum(<i, j> in nn: a[i] * a[j]) + sum(i in sites: a[i]^4)
interaction eb = -sum(<i, j> in nn: cos(b[i] - b[j]))
interaction ec = -sum(<i, j> in nn: cos(c[i] - c[j]))
interaction ed = -sum(<i, j> in nn: dot(d[i], d[j]))
interaction ee = -sum(<i, j> in nn: re(e[i] * e[j]')) + sum(i in sites: abs(e[i])^4)
temperature 1
"""


@pytest.fixture(scope="module", autouse=True)
def quick_compiles():
    """Compiling takes nearly all of the time here, and half of it goes into speed that short runs do not need."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@cache
def everything():
    model = vdsl.loads(EVERYTHING)
    return model, sample_hmc(model, {}, jax.random.key(0), chains=32, kept=64, thin=4)


def agrees(values, exact, most):
    """Chains (32, 64) beside a number: within four standard errors, none of which is above `most`."""
    found = correlated_mean(values)
    assert abs(found.value - exact) < 4 * found.error
    assert found.error < most


@pytest.mark.slow
def test_single_values_have_their_densities():
    """Histograms in 20 bins of equal probability: χ² of independent values with 19 degrees of freedom."""
    _, chains = everything()
    assert 0.7 < chains.acceptance < 0.9
    line = np.linspace(-3.5, 3.5, 20001)
    x = chains.x
    cases = {
        "x": (x["x"], line, np.exp(-(line**4) + 2 * line**2 - 0.3 * line)),
        "re z": (x["z"].real, line, np.exp(-1.5 * line**2)),
        "im z": (x["z"].imag, line, np.exp(-(line**2))),
    }
    for name, (values, points, density) in cases.items():
        cumulative = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
        place = np.interp(values[:, ::4].reshape(-1), points, cumulative / cumulative[-1])
        counts = np.histogram(place, 20, (0, 1))[0]
        expected = place.size / 20
        assert ((counts - expected) ** 2 / expected).sum() < 45, name  # 1 in 1500


@pytest.mark.slow
def test_su3():
    """⟨Re tr Y⟩ by the Weyl integral over two phases."""
    _, chains = everything()
    a = np.linspace(-np.pi, np.pi, 200, endpoint=False)
    phases = np.stack([a[:, None] + 0 * a, a + 0 * a[:, None], -a[:, None] - a])
    e = np.exp(1j * phases)
    measure = np.abs((e[0] - e[1]) * (e[0] - e[2]) * (e[1] - e[2])) ** 2
    trace = e.sum(0).real
    weight = measure * np.exp(trace)
    exact = (weight * trace).sum() / weight.sum()
    agrees(np.trace(chains.x["Y"], axis1=-2, axis2=-1).real.mean(-1), exact, 0.03)
    y = chains.x["Y"].reshape(-1, 3, 3)
    np.testing.assert_allclose(y @ y.conj().swapaxes(1, 2), np.broadcast_to(np.eye(3), y.shape), atol=1e-5)


def test_rings_of_vectors():
    """Ring energies −K d/dK ln Z at K = 2 of angles, Z = Σ I_m(K)⁴, and of vectors, Z = Σ (2l + 1) i_l(K)⁴."""
    _, chains = everything()
    m, l = np.arange(-40, 41), np.arange(40)
    i_m, slope = iv(m, 2.0), (iv(m - 1, 2.0) + iv(m + 1, 2.0)) / 2
    angles = -2 * 4 * (i_m**3 * slope).sum() / (i_m**4).sum()
    i_l = spherical_in(l, 2.0)
    vectors = -2 * 4 * ((2 * l + 1) * i_l**3 * spherical_in(l, 2.0, True)).sum() / ((2 * l + 1) * i_l**4).sum()
    t, spins = chains.x["t"], chains.x["S"]
    agrees(-2 * np.cos(t - np.roll(t, 1, 2)).sum(2), angles, 0.1)
    agrees(-2 * (spins * np.roll(spins, 1, 2)).sum((2, 3)), vectors, 0.15)


def mixed_exact():
    """ln Z, ⟨E⟩, ⟨s_0 s_1⟩ and ⟨u²⟩ of `MIXED`: displacements are Gaussian given the spins."""
    s = 2.0 * ((np.arange(16)[:, None] >> np.arange(4)) & 1) - 1
    bond = s * np.roll(s, -1, 1)
    force = 0.5 * (bond - np.roll(bond, 1, 1))
    log_w = bond.sum(1) + (force**2).sum(1) / 4 + 2 * np.log(np.pi)
    p = np.exp(log_w - np.logaddexp.reduce(log_w))
    u2 = 0.5 + (force**2).mean(1) / 4
    energy = -bond.sum(1) - (force**2).sum(1) / 2 + 4 * u2
    return np.logaddexp.reduce(log_w), p @ energy, p @ bond[:, 0], p @ u2


def test_spins_coupled_to_displacements():
    _, chains = everything()
    _, energy, bond, u2 = mixed_exact()
    s, u = chains.x["s"].astype(float), chains.x["u"]
    bonds = s * np.roll(s, -1, 2)
    agrees((-bonds * (1 + 0.5 * (u - np.roll(u, -1, 2))) + u**2).sum(2), energy, 0.1)
    agrees(bonds[..., 0], bond, 0.05)
    agrees((u**2).mean(2), u2, 0.02)
    assert 0.02 < chains.discrete < 0.5


def hot(n):
    """n random configurations of `EVERYTHING` in double precision, without compiling anything."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, n, 4, 3, 3))
    q, _ = np.linalg.qr(a + 1j * b)
    S = rng.normal(size=(n, 4, 3))
    return {
        "s": rng.choice([-1, 1], (n, 4)),
        "u": rng.normal(size=(n, 4)),
        "x": rng.normal(size=(n, 4)),
        "z": rng.normal(size=(n, 4)) + 1j * rng.normal(size=(n, 4)),
        "Y": q / np.linalg.det(q)[..., None, None] ** (1 / 3),
        "t": rng.uniform(-np.pi, np.pi, (n, 4)),
        "S": S / np.linalg.norm(S, axis=-1, keepdims=True),
    }


def test_motion_is_reversible_and_keeps_the_energy():
    """A trajectory run backwards returns; halving the step divides the energy error by four."""
    model, _ = everything()
    with jax.enable_x64(True):
        target = make_target(model, {}, 1.0)
        stored = hot(8)
        x = encode(target.spaces, stored)
        mass = {s.field: jnp.full(s.elements, 1.7) for s in moving(target.spaces)}
        rng = np.random.default_rng(1)
        v = {s.field: jnp.asarray(rng.normal(size=(8, s.elements, s.k))) for s in moving(target.spaces)}
        v["S"] -= (v["S"] * x["S"]).sum(-1, keepdims=True) * x["S"]

        @jax.jit
        def path(x, v, step, count):
            def leap(_, state):
                x, v, gradient = state
                x, v = drift(target.spaces, x, kick(v, gradient, mass, step / 2), step)
                _, gradient = potential(target, x, jnp.asarray(1.0))
                return x, kick(v, gradient, mass, step / 2), gradient

            u, gradient = potential(target, x, jnp.asarray(1.0))
            new, speed, _ = jax.lax.fori_loop(0, count, leap, (x, v, gradient))
            after, _ = potential(target, new, jnp.asarray(1.0))
            return new, speed, after + kinetic(speed, mass) - u - kinetic(v, mass)

        there, speed, _ = path(x, v, 0.05, 8)
        back, _, _ = path(there, {f: -a for f, a in speed.items()}, 0.05, 8)
        for f in x:
            np.testing.assert_allclose(back[f], x[f], atol=1e-10)
            assert f == "s" or np.abs(there[f] - x[f]).max() > 0.1
        errors = [np.abs(path(x, v, 0.4 / n, n)[2]).mean() for n in (8, 16)]
        assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)
        again = decode(target.spaces, x)
        for f in x:
            np.testing.assert_allclose(again[f], stored[f], atol=1e-12)


def test_global_moves_leave_the_energy():
    """Sign, common angle (of angles, clocks and phases) and common rotation: each field moves, E does not."""
    model = vdsl.loads(SYMMETRIC)
    with jax.enable_x64(True):
        target = make_target(model, {}, 1.0)
        moves = global_moves(model.program, {})
        assert {m.kind for m in moves} >= {"z2", "shift", "rotation"}

        @jax.jit
        def before_and_after(key):
            x = target.draw_reference(key, 16)
            moved = move_globally(moves, target.spaces, jax.random.key(1), x)
            return x, moved, target.energy(x), target.energy(moved)

        x, moved, energy, energy_moved = before_and_after(jax.random.key(0))
        np.testing.assert_allclose(energy_moved, energy, atol=1e-10)
        assert np.std(energy) > 0.5
        for f in x:
            assert np.abs(np.asarray(moved[f] - x[f])).max() > 0.1
