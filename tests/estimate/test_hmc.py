"""Hamiltonian Monte Carlo against exact densities, moments and enumeration; the pieces against their laws."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import iv

import vdsl
from vdsl.errors import VfeError
from vdsl.estimate.global_moves import global_moves, move_globally
from vdsl.estimate.hmc import potential, sample_hmc
from vdsl.estimate.phase_space import (
    decode,
    draw_velocity,
    drift,
    encode,
    kick,
    kinetic,
    make_target,
    moving,
)
from vdsl.estimate.stats import correlated_mean

# One field of every kind, each value by itself: exact one-dimensional densities.
ONE_BY_ONE = """
lattice chain(8)
field x : real
field z : complex
field t : angle
field g : U(1)
field S : sphere(3)
field W : SU(2)
field Y : SU(3)
field s : spin
interaction ex = sum(i in sites: x[i]^4 - 2 * x[i]^2 + 0.3 * x[i])
interaction ez = sum(i in sites: abs(z[i])^2 + 0.5 * re(z[i])^2)
interaction et = -sum(i in sites: cos(t[i]) + cos(2 * t[i]))
interaction eg = -sum(i in sites: 2 * re(g[i]))
interaction eS = -1.5 * sum(i in sites: S[i, 2])
interaction eW = -sum(i in sites: re(tr(W[i])))
interaction eY = -sum(i in sites: re(tr(Y[i])))
interaction es = -0.4 * sum(i in sites: s[i])
temperature 1
"""
FREE = """
lattice hypercubic(6, 6)
field phi : real
interaction e = sum(x in sites, mu in axes: phi[x] * (2 * phi[x] - phi[x + mu] - phi[x - mu]))
interaction m = 0.5 * sum(x in sites: phi[x]^2)
temperature 1
"""
HEISENBERG = """
lattice chain(12, boundary = open)
field S : sphere(3)
interaction e = -2 * sum(<i, j> in nn: dot(S[i], S[j]))
temperature 1
"""
XY_RING = """
lattice chain(12)
field t : angle
interaction e = -2 * sum(<i, j> in nn: cos(t[i] - t[j]))
temperature 1
"""
MIXED = """
lattice chain(4)
field s : spin
field u : real
interaction a = -sum(<i, j> in nn: s[i] * s[j] * (1 + 0.5 * (u[i] - u[j])))
interaction b = sum(i in sites: u[i]^2)
temperature 1
"""
GAUGE = """
lattice hypercubic(4, 4)
field U : SU(2) on links
interaction wilson = -sum(x in sites, <mu, nu> in planes:
    re(tr(U[x, mu] * U[x + mu, nu] * U[x + nu, mu]' * U[x, nu]')))
temperature 1
"""


@cache
def all_kinds():
    model = vdsl.loads(ONE_BY_ONE)
    return model, sample_hmc(model, {}, jax.random.key(0), chains=128, kept=64, thin=4)


def test_every_single_value_has_its_density():
    """Histograms in 20 bins of equal probability: χ² of independent values with 19 degrees of freedom."""
    _, chains = all_kinds()
    assert 0.6 < chains.acceptance < 0.95
    grid = np.linspace(-np.pi, np.pi, 20001)
    line = np.linspace(-3.5, 3.5, 20001)
    unit = np.linspace(-1, 1, 20001)
    x = chains.x
    cases = {
        "x": (x["x"], line, np.exp(-(line**4) + 2 * line**2 - 0.3 * line)),
        "re z": (x["z"].real, line, np.exp(-1.5 * line**2)),
        "im z": (x["z"].imag, line, np.exp(-(line**2))),
        "t": (x["t"], grid, np.exp(np.cos(grid) + np.cos(2 * grid))),
        "g": (np.angle(x["g"]), grid, np.exp(2 * np.cos(grid))),
        "S z": (x["S"][..., 2], unit, np.exp(1.5 * unit)),
        "S x": (np.arctan2(x["S"][..., 1], x["S"][..., 0]), grid, np.ones_like(grid)),
        "W": (np.trace(x["W"], axis1=-2, axis2=-1).real / 2, unit, np.sqrt(1 - unit**2) * np.exp(2 * unit)),
    }
    for name, (values, points, density) in cases.items():
        cumulative = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
        place = np.interp(values[:, ::4].reshape(-1), points, cumulative / cumulative[-1])
        counts = np.histogram(place, 20, (0, 1))[0]
        expected = place.size / 20
        assert ((counts - expected) ** 2 / expected).sum() < 45, name  # 1 in 1500


def test_su3_and_the_spins():
    """⟨Re tr Y⟩ by the Weyl integral over two phases, ⟨s⟩ = tanh 0.4."""
    _, chains = all_kinds()
    a = np.linspace(-np.pi, np.pi, 200, endpoint=False)
    phases = np.stack([a[:, None] + 0 * a, a + 0 * a[:, None], -a[:, None] - a])
    e = np.exp(1j * phases)
    measure = np.abs((e[0] - e[1]) * (e[0] - e[2]) * (e[1] - e[2])) ** 2
    trace = e.sum(0).real
    weight = measure * np.exp(trace)
    found = correlated_mean(np.trace(chains.x["Y"], axis1=-2, axis2=-1).real.mean(-1))
    assert abs(found.value - (weight * trace).sum() / weight.sum()) < 4 * found.error
    assert found.error < 0.02
    up = correlated_mean(chains.x["s"].mean(-1))
    assert abs(up.value - np.tanh(0.4)) < 4 * up.error
    y = chains.x["Y"].reshape(-1, 3, 3)
    np.testing.assert_allclose(y @ y.conj().swapaxes(1, 2), np.broadcast_to(np.eye(3), y.shape), atol=1e-5)


def test_free_field_mode_by_mode():
    """⟨|φ_k|²⟩ = 1/(2(k̂² + m²)): 36 modes, from 0.5 to 8.5."""
    model = vdsl.loads(FREE)
    chains = sample_hmc(model, {}, jax.random.key(1), chains=64, kept=128, thin=4)
    power = np.abs(np.fft.fft2(chains.x["phi"].reshape(64, 128, 6, 6), norm="ortho")) ** 2
    k2 = 4 * np.sin(np.pi * np.arange(6) / 6) ** 2
    exact = 1 / (2 * (k2[:, None] + k2 + 0.5))
    pulls = []
    for i in range(6):
        for j in range(6):
            found = correlated_mean(power[:, :, i, j])
            pulls.append((found.value - exact[i, j]) / found.error)
            assert found.error < 0.1 * exact[i, j]
    assert np.abs(pulls).max() < 4.5
    assert 0.6 < np.std(pulls) < 1.5


def ring_energy():
    """−K d/dK ln Σ_m I_m(K)^12 at K = 2."""
    m = np.arange(-60, 61)
    slope = (iv(m - 1, 2.0) + iv(m + 1, 2.0)) / 2
    return -2 * 12 * (iv(m, 2.0) ** 11 * slope).sum() / (iv(m, 2.0) ** 12).sum()


@pytest.mark.parametrize(("text", "energy"), [(HEISENBERG, -22 * (1 / np.tanh(2) - 1 / 2)), (XY_RING, ring_energy())])
def test_chains_of_vectors(text, energy):
    """Open Heisenberg chain, ⟨S·S'⟩ = coth K − 1/K; XY ring by its characters."""
    chains = sample_hmc(vdsl.loads(text), {}, jax.random.key(2), chains=32, kept=128, thin=4)
    found = correlated_mean(chains.energies)
    assert abs(found.value - energy) < 4 * found.error
    assert found.error < 0.01 * abs(energy)
    assert chains.r_hat < 1.05


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
    _, energy, bond, u2 = mixed_exact()
    chains = sample_hmc(vdsl.loads(MIXED), {}, jax.random.key(3), chains=64, kept=128, thin=4)
    s, u = chains.x["s"].astype(float), chains.x["u"]
    for values, exact in ((chains.energies, energy), (s[..., 0] * s[..., 1], bond), ((u**2).mean(-1), u2)):
        found = correlated_mean(values)
        assert abs(found.value - exact) < 4 * found.error
        assert found.error < 0.05
    assert 0.02 < chains.discrete < 0.5


def test_su2_gauge_theory():
    """⟨½ Tr P⟩ on the 4 × 4 torus: the derivative of ln Σ_n (2 I_n(β)/β)^16, β = 2."""
    n = np.arange(1, 60)
    z = lambda b: np.log(((2 * iv(n, b) / b) ** 16).sum())  # noqa: E731
    exact = (z(2.001) - z(1.999)) / 0.002
    chains = sample_hmc(vdsl.loads(GAUGE), {}, jax.random.key(4), chains=32, kept=64, thin=4)
    found = correlated_mean(-chains.energies / 2)  # E = −(β/2) Σ Tr P with β = 2, and ½ Tr P is half of it
    assert abs(found.value - exact) < 4 * found.error
    assert found.error < 0.01 * exact


def test_motion_is_reversible_and_keeps_the_energy():
    """A trajectory run backwards returns; halving the step divides the energy error by four."""
    model = vdsl.loads(ONE_BY_ONE)
    with jax.enable_x64(True):
        target = make_target(model, {}, 1.0)
        x = target.draw_reference(jax.random.key(0), 8)
        mass = {s.field: jnp.full(s.elements, 1.7) for s in moving(target.spaces)}
        v = draw_velocity(jax.random.key(1), target.spaces, x, mass)

        @jax.jit
        def path(x, v, step, count):
            def leap(_, state):
                x, v = state
                v = kick(v, potential(target, x, jnp.asarray(1.0))[1], mass, step / 2)
                x, v = drift(target.spaces, x, v, step)
                return x, kick(v, potential(target, x, jnp.asarray(1.0))[1], mass, step / 2)

            return jax.lax.fori_loop(0, count, leap, (x, v))

        total = lambda x, v: np.asarray(target.energy(x) + kinetic(v, mass))  # noqa: E731
        there, speed = path(x, v, 0.05, 8)
        back, _ = path(there, {f: -a for f, a in speed.items()}, 0.05, 8)
        for f in x:
            np.testing.assert_allclose(back[f], x[f], atol=1e-10)
        errors = [np.abs(total(*path(x, v, 0.4 / n, n)) - total(x, v)).mean() for n in (8, 16)]
        assert errors[0] / errors[1] == pytest.approx(4, rel=0.15)
        for f, stored in decode(target.spaces, x).items():
            np.testing.assert_allclose(encode(target.spaces, decode(target.spaces, x))[f], x[f], atol=1e-12)
            assert stored.shape[:2] == (8, 8)


@pytest.mark.parametrize(
    ("declaration", "energy", "kind"),
    [
        ("field a : real", "-sum(<i, j> in nn: a[i] * a[j]) + sum(i in sites: a[i]^4)", "z2"),
        ("field a : angle", "-sum(<i, j> in nn: cos(a[i] - a[j]))", "shift"),
        ("field a : clock(6)", "-sum(<i, j> in nn: cos(a[i] - a[j]))", "shift"),
        ("field a : sphere(3)", "-sum(<i, j> in nn: dot(a[i], a[j]))", "rotation"),
        ("field a : complex", "-sum(<i, j> in nn: re(a[i] * a[j]')) + sum(i in sites: abs(a[i])^4)", "shift"),
    ],
)
def test_global_moves_leave_the_energy(declaration, energy, kind):
    model = vdsl.loads(f"lattice chain(6)\n{declaration}\ninteraction e = {energy}\ntemperature 1\n")
    with jax.enable_x64(True):
        target = make_target(model, {}, 1.0)
        moves = global_moves(model.program, {})
        assert kind in {m.kind for m in moves}
        x = target.draw_reference(jax.random.key(0), 16)
        moved = move_globally(moves, target.spaces, jax.random.key(1), x)
        np.testing.assert_allclose(target.energy(moved), target.energy(x), atol=1e-10)
        assert np.abs(np.asarray(moved["a"] - x["a"])).max() > 0.1


def test_an_energy_without_a_bottom_is_refused():
    model = vdsl.loads("lattice chain(4)\nfield x : real\ninteraction e = sum(i in sites: -x[i]^2)\ntemperature 1\n")
    with pytest.raises(VfeError, match="non-finite"):
        sample_hmc(model, {}, jax.random.key(0), chains=4, kept=8)
