"""The multiscale guide: levels that partition the lattice, layers that share a network, exact densities, symmetry."""

from __future__ import annotations

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import iv, spherical_in

import vdsl
from vdsl.errors import VfeError
from vdsl.guides import registry
from vdsl.guides.amortised import same_form
from vdsl.guides.cavity import cavity_start
from vdsl.guides.levels import thin
from vdsl.guides.monomials import monomials_of
from vdsl.guides.multiscale import build_multiscale, choose_multiscale, transfer
from vdsl.guides.problem import Problem
from vdsl.guides.sequential import choose_sequential
from vdsl.guides.stand_in import build_stand_in
from vdsl.inference.train import plan

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
XY = """
param L : int = 8
param K = 1.0
lattice hypercubic(L, L)
field a : angle
interaction e = -K * sum(<i, j> in nn: cos(a[i] - a[j]))
temperature 1
"""
CHIRAL_XY = XY.replace("cos(a[i] - a[j])", "cos(a[i] - a[j] - 0.3)")
XY_RING = XY.replace("hypercubic(L, L)", "chain(L)")
HEISENBERG = XY.replace("angle", "sphere(3)").replace("cos(a[i] - a[j])", "dot(a[i], a[j])")
HEISENBERG_RING = HEISENBERG.replace("hypercubic(L, L)", "chain(L)")
FREE_CHAIN = """
param h = 0.0
lattice chain(16)
field x : real
interaction e = sum(i in sites: x[i]^2 - h * x[i]) + sum(<i, j> in nn: (x[i] - x[j])^2)
temperature 1
"""


def make(text, scale=0.0, seed=0, **theta):
    """Problem, choice, guide and parameters: fresh ones plus normal noise of the given scale."""
    sizes = {k: theta.pop(k) for k in ("L",) if k in theta}
    program = vdsl.loads(text, **sizes).program
    values = {p.name: float(p.default.value) for p in program.parameters} | theta
    problem = Problem(program, values)
    choice = choose_multiscale(problem)
    guide = build_multiscale(choice, problem)
    return problem, choice, guide, noisy(guide, scale, seed)


@eqx.filter_jit
def noisy(guide, scale, seed):
    leaves, tree = jax.tree.flatten(guide.init(jax.random.key(seed)))
    keys = jax.random.split(jax.random.key(seed + 1), len(leaves))
    return jax.tree.unflatten(
        tree, [v + scale * jax.random.normal(k, v.shape, v.dtype) for v, k in zip(leaves, keys, strict=True)]
    )


@cache
def x64_case():
    with jax.enable_x64(True):
        return make(PHI4, 0.1)


@eqx.filter_jit
def drawn(guide, params, key, n):
    """Samples with their ln q, the same again from the values, and that of −x."""
    x, log_q = guide.sample_and_log_prob(params, key, n)
    return x, log_q, guide.log_prob(params, x), guide.log_prob(params, {k: -v for k, v in x.items()})


@eqx.filter_jit
def log_weights(guide, params, key, n):
    one = jnp.ones(())
    z = guide.sample_latent(params, key, n, one)
    return -guide.latent_energy(z, one) - guide.latent_log_prob(params, z, one)


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


def test_a_layer_is_one_window_moved_about():
    """Every site is drawn once, after its parents; within a layer the parents are the same displacements away."""
    _, choice, guide, _ = x64_case()
    structure, cell = choice.structure, cells(8, 8)
    known: set[int] = set()
    for layer in structure.layers:
        assert not known & set(layer.sites.tolist())
        assert set(layer.parents.ravel().tolist()) - {64} <= known
        if layer.key:
            moves = (cell[layer.parents] - cell[layer.sites][:, None] - np.array(layer.moves)) % 8
            assert not moves.any()
        known |= set(layer.sites.tolist())
    assert known | set(structure.rest.tolist()) == set(range(64))
    of_site, first = (np.asarray(a) for a in guide.learned[0].networks)
    np.testing.assert_array_equal(np.bincount(of_site), [len(layer.sites) for layer in structure.layers])
    np.testing.assert_array_equal(of_site[first], np.arange(len(first)))


def test_sites_of_a_layer_answer_to_one_network():
    """What is changed in a layer's network changes the conditionals of that layer and of no other."""
    with jax.enable_x64(True):
        _, choice, guide, params = x64_case()
        part, one = guide.learned[0], jnp.ones(())
        z = guide.sample_latent(params, jax.random.key(0), 3, one)

        @eqx.filter_jit
        def each(guide, own):
            part = guide.learned[0]
            features = jnp.concatenate([part.species.encode(z[:, None]).reshape(-1, 3), jnp.ones((1, 3)), 0 * z[:1]])
            return part.family.log_prob(part.eta(part.of_units(own), features, guide.beta), z[part.variables])

        number = len(choice.structure.layers) - 2
        changed = {**params[0], "odd_out": params[0]["odd_out"].at[number].add(0.3)}
        difference = jnp.abs(each(guide, changed) - each(guide, params[0])).max(1)
        np.testing.assert_array_equal(difference > 0, np.asarray(part.networks[0]) == number)


def test_log_prob_is_that_of_the_samples_and_even():
    with jax.enable_x64(True):
        _, choice, guide, params = x64_case()
        _, log_q, again, mirrored = drawn(guide, params, jax.random.key(1), 20)
        np.testing.assert_allclose(again, log_q, atol=1e-9)
        assert choice.structure.odd
        np.testing.assert_allclose(mirrored, log_q, atol=1e-9)
        _, choice, guide, params = make(PHI4, 0.1, L=4, h=0.3)
        _, log_q, again, mirrored = drawn(guide, params, jax.random.key(1), 20)
        np.testing.assert_allclose(again, log_q, atol=1e-9)
        assert not choice.structure.odd
        assert float(jnp.abs(mirrored - log_q).min()) > 1e-3


@pytest.mark.parametrize("h", [0.0, 0.7])
def test_a_free_chain_is_exact_at_the_start(h):
    """Its nearest coarse sites screen all others: ½ ln det of 2 + 4(1 − cos k) over 16 momenta, and h²/4m² a site."""
    exact = 8 * np.log(2 * np.pi) - 0.5 * np.log(6 - 4 * np.cos(np.pi * np.arange(16) / 8)).sum() + 16 * h**2 / 4
    with jax.enable_x64(True):
        _, _, guide, params = make(FREE_CHAIN, h=h)
        np.testing.assert_allclose(log_weights(guide, params, jax.random.key(0), 64), exact, atol=1e-7)


def test_a_free_field_is_nearly_exact_at_the_start():
    """Windows screen what lies beyond them nearly, and layers are independent nearly."""
    with jax.enable_x64(True):
        _, _, guide, params = make(PHI4, L=8, m2=1.0, lam=0.0)
        log_w = np.asarray(log_weights(guide, params, jax.random.key(0), 512))
    assert log_w.var() < 3e-3
    assert np.log(np.exp(log_w + 11.6228852573).mean()) == pytest.approx(0, abs=5 * (3e-3 / 512) ** 0.5)


def ring_of_angles(k, n):
    """ln Z = n ln 2π + ln Σ_m I_m(K)ⁿ."""
    return n * np.log(2 * np.pi) + np.log((iv(np.arange(-40, 41), k) ** n).sum())


def ring_of_vectors(k, n):
    """ln Z = n ln 4π + ln Σ_l (2l + 1) i_l(K)ⁿ with modified spherical Bessel functions."""
    order = np.arange(40)
    return n * np.log(4 * np.pi) + np.log(((2 * order + 1) * spherical_in(order, k) ** n).sum())


@pytest.mark.parametrize(("text", "exact"), [(XY_RING, ring_of_angles), (HEISENBERG_RING, ring_of_vectors)])
@pytest.mark.parametrize("scale", [0.0, 0.15])
def test_rings_of_angles_and_vectors_are_normalised(text, exact, scale):
    """E_q[e^{−βE}/q] = Z, whatever the networks say; a ring is nearly exact to begin with."""
    with jax.enable_x64(True):
        _, choice, guide, params = make(text, scale, K=1.4, L=16)
        assert choice.description["symmetry built in"].startswith("global rotation")
        log_w = np.asarray(log_weights(guide, params, jax.random.key(0), 4096)) - exact(1.4, 16)
    w = np.exp(log_w)
    assert w.mean() == pytest.approx(1, abs=4 * w.std() / 64)
    assert scale > 0 or log_w.var() < 0.2


@pytest.mark.parametrize("text", [XY, HEISENBERG])
def test_angles_and_vectors_turn_with_what_is_known(text):
    """ln q of samples is what was reported, and that of turned ones; angles turn by steps of their tables."""
    with jax.enable_x64(True):
        _, _, guide, params = make(text, 0.1, K=0.8)
        x, log_q = eqx.filter_jit(guide.sample_and_log_prob)(params, jax.random.key(1), 8)
        (name, values), log_prob = next(iter(x.items())), eqx.filter_jit(guide.log_prob)
        np.testing.assert_allclose(log_prob(params, x), log_q, atol=1e-9)
        q = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
        turned = values @ q.T if values.ndim == 3 else (values + 1.5 * np.pi) % (2 * np.pi) - np.pi
        np.testing.assert_allclose(log_prob(params, {name: turned}), log_q, atol=1e-9)


@pytest.mark.parametrize("choose", [choose_multiscale, choose_sequential])
@pytest.mark.parametrize("twist", [0.0, 0.4])
def test_angles_change_sign_together_where_the_model_lets_them(choose, twist):
    """Cosines of differences: ln q is even in all angles, whatever the parameters; shifts tell left from right."""
    text = XY.replace("cos(a[i] - a[j])", "cos(a[i] - a[j] - D)").replace("param K", "param D = 0.0\nparam K")
    with jax.enable_x64(True):
        problem = Problem(vdsl.loads(text, L=4).program, {"K": 0.8, "D": twist})
        choice = choose(problem)
        guide = registry.build(choice, problem)
        params = noisy(guide, 0.3, 0)
        x, log_q = eqx.filter_jit(guide.sample_and_log_prob)(params, jax.random.key(1), 8)
        other = eqx.filter_jit(guide.log_prob)(params, {"a": -x["a"]})
    difference = np.abs(np.asarray(other - log_q))
    assert difference.max() < 1e-9 if twist == 0 else difference.min() > 1e-3
    assert ("sign" in choice.description["symmetry built in"]) == (twist == 0)


@pytest.mark.parametrize("coupling", [1.2, 0.5])
def test_the_stand_in_of_angles_is_that_of_the_cavity(coupling):
    """By momenta what cavity.py finds with matrices: spin waves where stiff, a spherical model where soft."""
    problem, choice, _, _ = make(XY, K=coupling)
    monomials = monomials_of(problem.expansion)
    found = build_stand_in(monomials, cells(8, 8), (8, 8), 1.0)
    order = np.concatenate([choice.structure.rest, *[layer.sites for layer in choice.structure.layers[::-1]]])[::-1]
    start = cavity_start(monomials, 1.0, order, np.zeros(0, int))
    site, before = order[20], order[:20]
    _, field, precision = found.regression(site, before)
    np.testing.assert_allclose(field, start.weights[site, before], rtol=2e-3, atol=1e-4)
    assert precision == pytest.approx(start.precision[site] + found.curvature, rel=2e-3)
    assert (found.boost.max() > 1) == (coupling > 1)


@pytest.mark.parametrize(
    "text",
    [
        PHI4.replace("hypercubic(L, L)", "hypercubic(5, 5)"),
        PHI4.replace("hypercubic(L, L)", "hypercubic(L, L, boundary = open)"),
        PHI4.replace("h * phi[x]", "exp(-phi[x]^2)"),
        "field phi : real[2]\ninteraction e = sum(i in sites: dot(phi[i], phi[i])^2)",
        XY.replace("hypercubic(L, L)", "kagome(4, 4)"),
        "data J on nn ~ normal(1, 1) seed 2\nfield a : angle\n"
        "interaction e = sum(<i, j> in nn: J[i, j] * cos(a[i] - a[j]))",
        "field s : spin\ninteraction e = -sum(<i, j> in nn: s[i] * s[j])",
    ],
)
def test_what_it_cannot_serve_is_refused(text):
    with pytest.raises(VfeError) as raised:
        make(text if "lattice" in text else f"lattice hypercubic(8, 8)\n{text}\ntemperature 1\n")
    assert raised.value.diagnostics[0].code == "guide-cannot-serve"


def test_transfer_keeps_what_belongs_to_a_distance():
    """The finest networks, parent by parent; layers that the small lattice lacks start afresh."""
    _, few, _, params = make(PHI4, 0.3)
    _, more, _, fresh = make(PHI4, L=16)
    moved = transfer(params, fresh, few, more)
    assert same_form(moved, fresh)
    (old,), (new,), (start,) = params, moved, fresh
    a, b = few.structure.layers, more.structure.layers
    for own in a:
        if own.key:
            k = next(k for k, layer in enumerate(b) if layer.key == own.key)
            np.testing.assert_array_equal(new["square"][k], old["square"][a.index(own)])
            both = [(own.moves.index(m), n) for n, m in enumerate(b[k].moves) if m in own.moves]
            assert len(both) >= 3
            for name in ("skip", "odd"):
                taken = new[name][k][..., [n for _, n in both]]
                np.testing.assert_array_equal(taken, old[name][a.index(own)][..., [m for m, _ in both]])
    keys = {layer.key for layer in a} - {()}
    for k in (k for k, layer in enumerate(b) if layer.key not in keys):
        np.testing.assert_array_equal(new["square"][k], start["square"][k])


@pytest.mark.parametrize("text", [XY, CHIRAL_XY, HEISENBERG])
def test_transfer_of_turning_networks(text):
    """Runs of entries for every parent move with their parents, the others stay in place."""
    _, few, _, params = make(text, 0.3)
    _, more, _, fresh = make(text, L=16)
    (old,), (new,) = params, transfer(params, fresh, few, more)
    assert same_form([new], fresh)
    a, b = few.structure, more.structure
    for source, own in enumerate(layer for layer in a.layers if layer.key):
        source += sum(not layer.key for layer in a.layers)
        k = next(k for k, layer in enumerate(b.layers) if layer.key == own.key)
        both = [(own.moves.index(m), n) for n, m in enumerate(b.layers[k].moves) if m in own.moves]
        was, now = np.array(both).T
        np.testing.assert_array_equal(new["along"][k][now], old["along"][source][was])
        if text == XY:
            np.testing.assert_array_equal(new["odd"][k][:, now], old["odd"][source][:, was])
            np.testing.assert_array_equal(new["even"][k][:, now], old["even"][source][:, was])
            np.testing.assert_array_equal(new["even"][k][:, b.width], old["even"][source][:, a.width])
            np.testing.assert_array_equal(new["odd_out"][k], old["odd_out"][source])
            continue
        np.testing.assert_array_equal(new["W"][k][:, now], old["W"][source][:, was])
        if text == CHIRAL_XY:
            np.testing.assert_array_equal(new["W"][k][:, b.width + now], old["W"][source][:, a.width + was])
            np.testing.assert_array_equal(new["W"][k][:, 2 * b.width], old["W"][source][:, 2 * a.width])
            np.testing.assert_array_equal(new["out"][k], old["out"][source])
        else:
            np.testing.assert_array_equal(new["W"][k][:, b.width], old["W"][source][:, a.width])
            np.testing.assert_array_equal(new["out"][k][2 + now], old["out"][source][2 + was])
            np.testing.assert_array_equal(new["out"][k][:2], old["out"][source][:2])


def test_transfer_is_refused_between_different_guides():
    (_, odd, _, params), (_, uneven, _, fresh) = make(PHI4), make(PHI4, L=16, h=0.1)
    with pytest.raises(ValueError, match="differ"):
        transfer(params, fresh, odd, uneven)


@pytest.mark.parametrize(
    ("lattice", "name"),
    [
        ("hypercubic(14, 14)", "autoregressive"),
        ("hypercubic(16, 16)", "multiscale"),
        ("hypercubic(15, 15)", "autoregressive"),
        ("hypercubic(16, 16, boundary = open)", "autoregressive"),
        ("hypercubic(24, 24, boundary = open)", "continuous"),
    ],
)
def test_which_lattices_get_it(lattice, name):
    program = vdsl.loads(PHI4.replace("hypercubic(L, L)", lattice).replace("param L : int = 8\n", "")).program
    problem = Problem(program, {"m2": -4.0, "lam": 5.0, "h": 0.0})
    assert registry.choose(problem).name == name


@pytest.mark.parametrize(
    ("text", "side", "name"), [(XY, 16, "multiscale"), (XY, 8, "autoregressive"), (HEISENBERG, 16, "autoregressive")]
)
def test_which_angles_and_vectors_get_it(text, side, name):
    assert registry.choose(Problem(vdsl.loads(text, L=side).program, {"K": 1.0})).name == name


def test_long_runs_learn_more_slowly():
    """The recipe's rate for up to its number of steps, then by the power −0.6; a rate that was asked for stays."""
    guide = make(PHI4)[2]
    recipe = guide.recipe()
    for factor in (0.5, 1, 16):
        found = plan(guide, steps=round(factor * recipe.steps)).learning_rate
        assert found == pytest.approx(recipe.learning_rate * min(1, factor**-0.6))
    assert plan(guide, steps=16 * recipe.steps, learning_rate=0.01).learning_rate == 0.01
