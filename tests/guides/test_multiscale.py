"""The multiscale guide: levels that partition the lattice, exact densities, symmetry."""

from __future__ import annotations

from functools import cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vdsl
from vdsl.errors import VfeError
from vdsl.guides.amortised import same_form
from vdsl.guides.levels import regression, thin, window
from vdsl.guides.multiscale import build_multiscale, choose_multiscale, transfer
from vdsl.guides.problem import Problem

pytestmark = pytest.mark.usefixtures("quick_compilation")

PHI4 = """
param L : int = 8
param m2 = -4.0
param lam = 8.0
param h = 0.0
lattice hypercubic(L, L)
field phi : real
interaction kinetic   = sum(x in sites, mu in axes: phi[x] * (2*phi[x] - phi[x + mu] - phi[x - mu]))
interaction potential = sum(x in sites: m2 * phi[x]^2 + lam * phi[x]^4 - h * phi[x])
temperature 1
"""
FREE_CHAIN = """
lattice chain(16)
field x : real
interaction e = sum(i in sites: x[i]^2) + sum(<i, j> in nn: (x[i] - x[j])^2)
temperature 1
"""


def make(text, scale=0.0, seed=0, **theta):
    """Problem, choice, guide and parameters: fresh ones plus normal noise of the given scale on all kernels."""
    sizes = {k: theta.pop(k) for k in ("L",) if k in theta}
    program = vdsl.loads(text, **sizes).program
    values = {p.name: float(p.default.value) for p in program.parameters} | theta
    problem = Problem(program, values)
    choice = choose_multiscale(problem)
    guide = build_multiscale(choice, problem)
    params = guide.init(jax.random.key(seed))
    for part in (params["flow"]["top"], *params["flow"]["levels"]):
        leaves, tree = jax.tree.flatten(part["kernels"])
        keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
        noisy = [v + scale * jax.random.normal(k, v.shape, v.dtype) for v, k in zip(leaves, keys, strict=True)]
        part["kernels"] = jax.tree.unflatten(tree, noisy)
    return problem, choice, guide, params


@cache
def x64_case():
    with jax.enable_x64(True):
        return make(PHI4, 0.3)


@eqx.filter_jit
def forward(guide, flow, z):
    return guide.bijection.forward(flow, z)


@partial(jax.jit, static_argnums=3)
def log_weights(guide, params, key, n):
    x, log_q = guide.sample_and_log_prob(params, key, n)
    return -guide.beta * guide.energy(guide.chart.encode(x)) - log_q


def cells(*sides):
    return np.stack(np.unravel_index(np.arange(int(np.prod(sides))), sides), 1)


@pytest.mark.parametrize(("sides", "odd"), [((8, 8), 0), ((8, 8), 1), ((16, 8), 0), ((4, 4, 4), 1), ((32,), None)])
def test_levels_partition_the_sites(sides, odd):
    """Coarse and new sites of each level are disjoint and make up the next; nearest new sites differ in colour."""
    cell = cells(*sides)
    kept = np.arange(len(cell)) if odd is None else np.flatnonzero(cell.sum(1) % 2 == odd)
    sites, refinements = thin(cell, sides, kept, 4)
    assert len(refinements) >= 2
    for r in refinements:
        np.testing.assert_array_equal(np.sort(r.coarse), np.sort(sites))
        assert not set(r.coarse.tolist()) & set(r.new.tolist())
        sites = np.concatenate([r.coarse, r.new])
        apart = (cell[sites][:, None] - cell[sites][None] + np.array(sides) // 2) % np.array(sides) - np.array(
            sides
        ) // 2
        length = np.sqrt((apart**2).sum(-1))
        assert r.spacing == pytest.approx(length[length > 0].min())
        apart = (cell[r.new][:, None] - cell[r.new][None] + np.array(sides) // 2) % np.array(sides) - np.array(
            sides
        ) // 2
        length = np.sqrt((apart**2).sum(-1))
        nearest = (length > 0) & (length < 1.01 * length[length > 0].min())
        assert (r.colour[:, None] != r.colour[None])[nearest].all() or len(r.new) <= 8
    np.testing.assert_array_equal(np.sort(sites), np.sort(kept))


def test_thinning_halves():
    sizes = [len(r.new) for r in thin(cells(16, 16), (16, 16), np.arange(256), 16)[1]]
    assert sizes == [16, 32, 64, 128]


def test_regression_is_exact_where_the_window_screens():
    """On a chain with nearest-neighbour couplings the two neighbours say all that the coarse sites know."""
    n = 32
    precision = 3.0 * np.eye(n) - np.roll(np.eye(n), 1, 0) - np.roll(np.eye(n), -1, 0)
    covariance = np.linalg.inv(precision)[0]
    near = window(cells(n), (n,), np.arange(1, n, 2), np.arange(0, n, 2), 5.0, 10)
    weights = regression(near, lambda move: covariance[move[..., 0] % n])
    expected = np.where(np.abs(near.moves[:, 0]) == 1, 1 / 3.0, 0.0)
    np.testing.assert_allclose(weights, np.tile(expected, (n // 2, 1)), atol=1e-12)


def test_log_det_is_that_of_the_whole_map():
    with jax.enable_x64(True):
        _, _, guide, params = x64_case()
        flow, places, level = params["flow"], np.flatnonzero(guide.kept), guide.bijection.levels[0]
        z = guide.kept * jax.random.normal(jax.random.key(3), (2, 64))
        x, log_det = forward(guide, flow, z)
        jacobian = eqx.filter_jit(jax.vmap(jax.jacfwd(lambda one: forward(guide, flow, one[None])[0][0])))(z)
        expected = jnp.linalg.slogdet(jacobian[:, places][:, :, places])[1]
        assert float(jnp.abs(expected).max()) > 0.5
        np.testing.assert_allclose(log_det, expected, atol=1e-9)
        back, log_back = eqx.filter_jit(lambda guide, flow, x: guide.bijection.inverse(flow, x))(guide, flow, x)
        np.testing.assert_allclose(back, z, atol=1e-9)
        np.testing.assert_allclose(log_back, -log_det, atol=1e-9)
        np.testing.assert_array_equal(x * (1 - guide.kept), 0.0)
        np.testing.assert_array_equal(jacobian[0][np.ix_(level.coarse, level.new)], 0.0)  # coarse first
        assert float(jnp.abs(jacobian[0][np.ix_(level.new, level.coarse)]).max()) > 0.01


def test_map_commutes_with_translations_of_the_coarsest_level():
    """By twice the width of the coarsest cell, which maps every level and every colour onto itself."""
    with jax.enable_x64(True):
        _, choice, guide, params = x64_case()
        z = guide.kept * jax.random.normal(jax.random.key(3), (2, 64))
        chart = guide.chart

        def moved(x):
            return chart.from_grid(jnp.roll(chart.to_grid(x), (4, 4), (2, 3)))

        x, log_det = forward(guide, params["flow"], z)
        y, same = forward(guide, params["flow"], moved(z))
        np.testing.assert_allclose(y, moved(x), atol=1e-10)
        np.testing.assert_allclose(same, log_det, atol=1e-10)
        mirrored, same = forward(guide, params["flow"], -z)
        assert choice.structure.odd
        np.testing.assert_allclose(mirrored, -x, atol=1e-10)
        np.testing.assert_allclose(same, log_det, atol=1e-10)


@pytest.mark.parametrize(
    ("text", "theta", "exact"),
    [
        (PHI4, {"L": 8, "m2": 1.0, "lam": 0.0}, -11.6228852573),
        # 1/2 ln det of 2 + 4(1 - cos k), over 16 momenta
        (FREE_CHAIN, {}, 8 * np.log(2 * np.pi) - 0.5 * np.log(6 - 4 * np.cos(np.pi * np.arange(16) / 8)).sum()),
    ],
)
def test_free_field_is_exact_at_the_start(text, theta, exact):
    with jax.enable_x64(True):
        _, _, guide, params = make(text, **theta)
        np.testing.assert_allclose(log_weights(guide, params, jax.random.key(0), 64), exact, atol=1e-7)


def test_log_prob_is_that_of_the_samples():
    with jax.enable_x64(True):
        _, _, guide, params = make(PHI4, 0.2, L=4, h=0.3)

        @eqx.filter_jit
        def both(guide, params, key):
            x, log_q = guide.sample_and_log_prob(params, key, 20)
            return log_q, guide.log_prob(params, x)

        log_q, again = both(guide, params, jax.random.key(1))
        np.testing.assert_allclose(again, log_q, atol=1e-7)


@pytest.mark.parametrize(
    "text",
    [
        PHI4.replace("hypercubic(L, L)", "hypercubic(5, 5)"),
        PHI4.replace("hypercubic(L, L)", "hypercubic(L, L, boundary = open)"),
        "lattice chain(8)\nfield a : angle\ninteraction e = -sum(<i, j> in nn: cos(a[i] - a[j]))\ntemperature 1\n",
    ],
)
def test_what_cannot_be_halved_is_refused(text):
    with pytest.raises(VfeError) as raised:
        make(text)
    assert raised.value.diagnostics[0].code == "guide-cannot-serve"


def test_transfer_keeps_what_belongs_to_a_distance():
    """The finest kernels by displacement; levels that the small lattice lacks stand still."""
    _, few, _, params = make(PHI4, 0.3)
    _, more, _, fresh = make(PHI4, L=16)
    moved = {**fresh, **transfer(params, few, more)}
    assert same_form(moved, fresh)
    old, new = params["flow"]["levels"][-1]["kernels"], moved["flow"]["levels"][-1]["kernels"]
    shared = [
        (few.structure.keys[-1].index(k), n)
        for n, k in enumerate(more.structure.keys[-1])
        if k in few.structure.keys[-1]
    ]
    assert len(shared) >= 3
    for name in ("odd", "even"):
        np.testing.assert_allclose(
            new[name][..., [n for _, n in shared]], old[name][..., [k for k, _ in shared]], rtol=1e-6
        )
    assert all(not np.any(v) for v in moved["flow"]["levels"][0]["kernels"].values())


def test_transfer_is_refused_between_different_flows():
    (_, odd, _, params), (_, uneven, _, _) = make(PHI4), make(PHI4, L=16, h=0.1)
    with pytest.raises(ValueError, match="differ"):
        transfer(params, odd, uneven)
