"""The continuous flow: closed forms against the equations they solve, exact densities, symmetries, exact ln Z."""

from __future__ import annotations

from functools import cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import gamma

import vdsl
from vdsl.errors import VfeError
from vdsl.guides.continuous import build_continuous, choose_continuous, transfer
from vdsl.guides.guide import log_ess
from vdsl.guides.integrate import rotor_flow
from vdsl.guides.pairs import grid_coordinates
from vdsl.guides.problem import Problem
from vdsl.guides.splitting import hats

pytestmark = pytest.mark.usefixtures("quick_compilation")

PHI4 = """
param L : int = 4
param m2 = -4.0
param lam = 6.975
param h = 0.0
lattice hypercubic(L, L)
field phi : real
interaction kinetic   = sum(x in sites, mu in axes: phi[x] * (2*phi[x] - phi[x + mu] - phi[x - mu]))
interaction potential = sum(x in sites: m2 * phi[x]^2 + lam * phi[x]^4 - h * phi[x])
temperature 1
"""
XY = """
param L : int = 3
param K = 0.5
param h = 0.0
lattice square(L, L)
field theta : angle
interaction xy = -K * sum(<i, j> in nn: cos(theta[i] - theta[j])) - h * sum(i in sites: cos(theta[i]))
temperature 1
"""


COMPLEX_CHAIN = """
lattice chain(4)
field z : complex
interaction e = sum(<i, j> in nn: abs(z[i] - z[j])^2) + sum(i in sites: abs(z[i])^2)
temperature 1
"""
DECOUPLED = "lattice chain(4)\nfield x : real\ninteraction e = sum(i in sites: x[i]^4)\ntemperature 1\n"


def make(text, scale=0.0, seed=0, **theta):
    """Problem, choice, guide and parameters: fresh ones plus normal noise of the given scale on the flow's kernels."""
    sizes = {k: theta.pop(k) for k in ("L",) if k in theta}
    program = vdsl.loads(text, **sizes).program
    values = {p.name: float(p.default.value) for p in program.parameters} | theta
    problem = Problem(program, values)
    choice = choose_continuous(problem)
    guide = build_continuous(choice, problem)
    params = guide.init(jax.random.key(seed))
    leaves, tree = jax.tree.flatten(params["flow"]["kernels"])
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    noisy = [v + scale * jax.random.normal(k, v.shape, v.dtype) for v, k in zip(leaves, keys, strict=True)]
    params["flow"]["kernels"] = jax.tree.unflatten(tree, noisy)
    return problem, choice, guide, params


@eqx.filter_jit
def forward(guide, flow, z):
    return guide.bijection.forward(flow, z)


@partial(jax.jit, static_argnums=3)
def log_weights(guide, params, key, n):
    x, log_q = guide.sample_and_log_prob(params, key, n)
    return -guide.beta * guide.energy(guide.chart.encode(x)) - log_q


@cache
def x64_case(text, L):
    with jax.enable_x64(True):
        return make(text, 0.3, L=L)


def points(guide, n, seed=3):
    return guide.kept * jax.random.normal(jax.random.key(seed), (n, guide.chart.size), guide.kept.dtype)


def test_rotor_flow_solves_its_equation():
    with jax.enable_x64(True):
        u0, a, b = jax.random.normal(jax.random.key(0), (3, 200)) * jnp.array([[3.0], [1.5], [1.5]])

        def slope(u, step):
            del step
            k1 = a * jnp.sin(u) + b * jnp.cos(u)
            k2 = a * jnp.sin(u + k1 / 1000) + b * jnp.cos(u + k1 / 1000)
            return u + k2 / 500, None  # midpoint rule, 500 steps

        reference, _ = jax.lax.scan(slope, u0, None, length=500)
        moved, log_slope = jax.jit(rotor_flow)(u0, a, b)
        np.testing.assert_allclose(moved, reference, atol=2e-5)
        exact = jax.vmap(jax.grad(lambda u, a, b: rotor_flow(u, a, b)[0]))(u0, a, b)
        np.testing.assert_allclose(log_slope, jnp.log(exact), atol=1e-9)
        back, back_slope = rotor_flow(moved, -a, -b)
        np.testing.assert_allclose(back, u0, atol=1e-9)
        np.testing.assert_allclose(back_slope, -log_slope, atol=1e-9)


def test_rotor_flow_is_smooth_at_rest():
    gradient = jax.grad(lambda a, b: rotor_flow(jnp.float32(0.7), a, b)[0], (0, 1))(jnp.float32(0), jnp.float32(0))
    np.testing.assert_allclose(gradient, (np.sin(0.7), np.cos(0.7)), rtol=1e-6)


@pytest.mark.parametrize("text", [PHI4, XY])
def test_log_det_is_that_of_the_whole_map(text):
    with jax.enable_x64(True):
        _, _, guide, params = x64_case(text, 4)
        z, flow, places = points(guide, 3), params["flow"], np.flatnonzero(guide.kept)
        x, log_det = forward(guide, flow, z)
        jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda one: forward(guide, flow, one[None])[0][0])))(z)
        expected = jnp.linalg.slogdet(jacobian[:, places][:, :, places])[1]
        assert float(jnp.abs(expected).max()) > 0.5  # the noise does deform
        np.testing.assert_allclose(log_det, expected, atol=1e-9)
        back, log_back = jax.jit(lambda flow, x: guide.bijection.inverse(flow, x))(flow, x)
        np.testing.assert_allclose(back, z, atol=1e-9)
        np.testing.assert_allclose(log_back, -log_det, atol=1e-9)
        np.testing.assert_array_equal(x * (1 - guide.kept), 0.0)


@pytest.mark.parametrize("text", [PHI4, XY])
def test_divergence_is_the_trace(text):
    with jax.enable_x64(True):
        _, _, guide, params = x64_case(text, 4)
        split, flow = guide.bijection.splitting, params["flow"]
        x = points(guide, 3).T[np.flatnonzero(guide.kept)]

        def velocity(x):
            return jax.jvp(lambda h: split.step(flow, x, split.hats[0], h, False), (0.0,), (1.0,))[1]

        v, divergence = jax.jit(velocity)(x)
        jacobian = jax.jit(jax.vmap(jax.jacfwd(lambda y: velocity(y[:, None])[0][:, 0])))(x.T)
        trace = jnp.trace(jacobian, axis1=1, axis2=2)
        assert float(jnp.abs(v).max()) > 0.1
        np.testing.assert_allclose(divergence, trace, atol=1e-9)


def test_splitting_converges_at_first_order():
    with jax.enable_x64(True):
        _, _, guide, params = x64_case(PHI4, 4)
        split, flow = guide.bijection.splitting, params["flow"]
        x = 0.5 * points(guide, 2).T[np.flatnonzero(guide.kept)]
        turns, knots = split.hats.shape[1:]

        @partial(jax.jit, static_argnums=0)
        def solved(steps):
            times = (np.arange(steps * turns) + 0.5) / (steps * turns)
            table = jnp.array(hats(times, knots).reshape(steps, turns, knots))
            h = 1 / (steps * split.partitions)

            def body(carry, hat):
                y, log_det = split.step(flow, carry[0], hat, h, False)
                return (y, carry[1] + log_det), None

            (y, log_det), _ = jax.lax.scan(body, (x, jnp.zeros(2)), table)
            return jnp.concatenate([y, log_det[None]])

        fine = solved(256)
        errors = [float(jnp.abs(solved(n) - fine).max()) for n in (16, 32)]
        assert 1.7 < errors[0] / errors[1] < 2.4


def moved_grid(guide, choice, action):
    """The permutation of the kept variables by an action on cells (D, axes), or None if it leaves the sublattice."""
    chart = guide.chart
    channel, cell = grid_coordinates(chart)
    number = np.empty((chart.channels, *chart.cells), int)
    number[(channel, *cell.T)] = np.arange(chart.size)
    image = number[(channel, *(action(cell) % np.array(chart.cells)).T)]
    places = np.flatnonzero(guide.kept)
    position = np.full(chart.size, -1)
    position[places] = np.arange(len(places))
    return position[image[places]]


@pytest.mark.parametrize("text", [PHI4, XY])
def test_velocity_has_the_symmetries_of_the_lattice(text):
    """Translations of the sublattice and the square's point group, for the velocity (the limit h → 0)."""
    with jax.enable_x64(True):
        _, choice, guide, params = x64_case(text, 4)
        split, flow = guide.bijection.splitting, params["flow"]
        x = points(guide, 2).T[np.flatnonzero(guide.kept)]
        hat = jnp.broadcast_to(split.hats[0, :1], split.hats[0].shape)  # all turns at one time

        @jax.jit
        def velocity(x):
            return jax.jvp(lambda h: split.step(flow, x, hat, h, False)[0], (0.0,), (1.0,))[1]

        v = velocity(x)
        origin = np.unravel_index(int(np.flatnonzero(guide.kept)[0]), (4, 4))
        actions = [
            lambda c: c + np.array([1, 1]),
            lambda c: c + np.array([0, 2]),
            lambda c: (c - origin) * np.array([-1, 1]) + origin,
            lambda c: (c - origin)[:, ::-1] + origin,
        ]
        for action in actions:
            image = moved_grid(guide, choice, action)
            assert sorted(image) == list(range(len(image)))
            np.testing.assert_allclose(velocity(x[image]), v[image], atol=1e-10)


def test_flow_is_odd_where_the_model_is():
    with jax.enable_x64(True):
        _, choice, guide, params = x64_case(PHI4, 4)
        z = points(guide, 3)
        x, log_det = forward(guide, params["flow"], z)
        mirrored, same = forward(guide, params["flow"], -z)
        assert choice.structure.symmetric
        np.testing.assert_allclose(mirrored, -x, atol=1e-10)
        np.testing.assert_allclose(same, log_det, atol=1e-10)


def test_flow_is_not_odd_in_a_field():
    _, choice, guide, params = make(PHI4, 0.3, h=0.5)
    z = points(guide, 5)
    x, mirrored = (forward(guide, params["flow"], s * z)[0] for s in (1, -1))
    assert not choice.structure.symmetric
    assert float(jnp.abs(mirrored + x).max()) > 0.05


def test_angles_turn_together():
    with jax.enable_x64(True):
        _, choice, guide, params = x64_case(XY, 4)
        z = points(guide, 3)
        x, log_det = forward(guide, params["flow"], z)
        turned, same = forward(guide, params["flow"], z + 0.8 * guide.kept)
        assert choice.structure.symmetric
        np.testing.assert_allclose(turned, x + 0.8 * guide.kept, atol=1e-10)
        np.testing.assert_allclose(same, log_det, atol=1e-10)
        whole = z.at[:, int(np.flatnonzero(guide.kept)[1])].add(2 * np.pi)
        once_round, same = forward(guide, params["flow"], whole)
        np.testing.assert_allclose(jnp.cos(once_round), jnp.cos(x), atol=1e-10)
        np.testing.assert_allclose(same, log_det, atol=1e-10)


@pytest.mark.parametrize(
    ("text", "theta", "exact"),
    [
        (DECOUPLED, {}, 4 * np.log(2 * gamma(1.25))),
        # 1/2 ln det of the real form, for re and im: A = 2 (1 + k^2) has eigenvalues 2, 6, 6, 10
        (COMPLEX_CHAIN, {}, 4 * np.log(2 * np.pi) - np.log(2 * 6 * 6 * 10)),
        (XY, {"L": 3, "K": 1.0}, 6.5655204101 + 9 * np.log(2 * np.pi)),
    ],
)
def test_absolute_ln_z_from_a_deformed_flow(text, theta, exact):
    """Importance weights of any flow estimate the exact ln Z: measures, Jacobians and the remainder together."""
    _, _, guide, params = make(text, 0.05, **theta)
    log_w = log_weights(guide, params, jax.random.key(7), 2**15)
    error = float(jnp.sqrt((1 / jnp.exp(log_ess(log_w)) - 1) / log_w.size))
    estimate = float(jax.nn.logsumexp(log_w) - jnp.log(log_w.size))
    assert error < 0.08
    assert abs(estimate - exact) < 4 * error


def test_free_field_is_exact_at_the_start():
    with jax.enable_x64(True):
        _, _, guide, params = make(PHI4, L=4, m2=1.0, lam=0.0)
        log_w = log_weights(guide, params, jax.random.key(0), 64)
        np.testing.assert_allclose(log_w, -2.8581318146, atol=1e-8)


def test_transfer_keeps_the_velocity():
    """On configurations periodic with the small lattice, the flow of the large one is that of the small one."""
    with jax.enable_x64(True):
        _, small, guide, params = x64_case(PHI4, 4)
        _, large, bigger, fresh = make(PHI4, L=8)
        moved = transfer(params, fresh, small, large)
        z = points(guide, 3)
        wide = bigger.chart.from_grid(jnp.tile(guide.chart.to_grid(z), (1, 1, 2, 2)))
        x, log_det = forward(guide, params["flow"], z)
        y, wide_log_det = forward(bigger, moved["flow"], wide * bigger.bijection.unit / guide.bijection.unit)
        expected = jnp.tile(guide.chart.to_grid(x / guide.bijection.unit), (1, 1, 2, 2))
        np.testing.assert_allclose(bigger.chart.to_grid(y / bigger.bijection.unit), expected, atol=1e-9)
        np.testing.assert_allclose(wide_log_det, 4 * log_det, atol=1e-8)
    with pytest.raises(ValueError, match="differ"):
        transfer(params, params, small, x64_case(XY, 4)[1])


@pytest.mark.slow
def test_training_reaches_the_interacting_model():
    _, _, guide, params = make(PHI4)
    optimiser = optax.adam(optax.cosine_decay_schedule(1e-2, 100, 0.02))
    one = jnp.ones(())

    def loss(params, key):
        x, log_q = guide.draw_latent(params, key, 128, one)
        return jnp.mean(guide.latent_energy(x, one) + log_q)

    def body(carry, key):
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params, key), state)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda c, keys: jax.lax.scan(body, c, keys)[0])
    before = log_weights(guide, params, jax.random.key(5), 4096)
    params, _ = run((params, optimiser.init(params)), jax.random.split(jax.random.key(2), 100))
    after = log_weights(guide, params, jax.random.key(5), 4096)
    assert float(jnp.exp(log_ess(before))) < 0.9 < float(jnp.exp(log_ess(after)))
    assert abs(float(jax.nn.logsumexp(after)) - np.log(4096) - 3.21832892) < 0.02


def test_mixed_angles_and_reals_are_refused():
    text = "lattice chain(4)\nfield a : angle\nfield x : real\n"
    text += "interaction e = sum(i in sites: x[i]^2 - x[i] * cos(a[i]))\ntemperature 1\n"
    program = vdsl.loads(text).program
    with pytest.raises(VfeError) as raised:
        choose_continuous(Problem(program, {}))
    assert raised.value.diagnostics[0].code == "guide-cannot-serve"
