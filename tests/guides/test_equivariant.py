"""Gauge-equivariant flows: every layer commutes with gauge transformations, is a bijection, and knows its Jacobian.

A new layer is one line of LAYERS; a lattice that the turns must divide into staples is one line of LATTICES.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ive

import vdsl
from vdsl.errors import VfeError
from vdsl.estimate.stats import ess, log_mean_exp
from vdsl.guides.equivariant import LinkFlow, build_gauge_flow, choose_gauge_continuous, choose_gauge_coupling
from vdsl.guides.equivariant_spectrum import eigen
from vdsl.guides.links import plaquette_links, turns
from vdsl.guides.links_algebra import Matrices, Phases, Phasors, Quaternions
from vdsl.guides.problem import Problem
from vdsl.ir.gauge import link_ends
from vdsl.ir.interpret import resolve_parameters
from vdsl.ir.lattice import named_lattice

CHOOSE = {"gauge_continuous": choose_gauge_continuous, "gauge_coupling": choose_gauge_coupling}
LAYERS = {
    "phases, all staples": ("gauge_continuous", "angle", {}),
    "phases, spline": ("gauge_coupling", "U(1)", {"regions": False}),
    "phases, large loops first": ("gauge_coupling", "U(1)", {}),
    "quaternions, all staples": ("gauge_continuous", "SU(2)", {}),
    "quaternions, spline": ("gauge_coupling", "SU(2)", {}),
    "matrices, spline": ("gauge_coupling", "SU(3)", {}),
}
LATTICES = {
    "2×2": ("2, 2", ""),
    "4×6": ("4, 6", ""),
    "odd": ("3, 5", ""),
    "open": ("3, 4", ", boundary = (open, periodic)"),
    "odd and open": ("2, 3, 4", ", boundary = (periodic, periodic, open)"),
    "four dimensions": ("2, 2, 2, 4", ", boundary = (periodic, open, periodic, periodic)"),
}
BETA = 1.3
SAMPLES = 2**11


def source(group: str, sides: str = "2, 2", more: str = "", beta: float = BETA) -> str:
    n = {"SU(2)": 2, "SU(3)": 3}.get(group, 1)
    loop = "U[x, mu] * U[x + mu, nu] * U[x + nu, mu]' * U[x, nu]'"
    each = f"re(tr({loop}))" if n > 1 else f"re({loop})"
    wilson = f"sum(x in sites, <mu, nu> in planes: {each})"
    if group == "angle":
        wilson = "sum(p in plaquettes: cos(circulation(U, p)))"
    return (
        f"lattice hypercubic({sides}{more})\nfield U : {group} on links\n"
        f"interaction wilson = -{beta} / {n} * {wilson}\ntemperature 1\n"
    )


def problem_of(text: str) -> Problem:
    model = vdsl.loads(text)
    return Problem(model.program, resolve_parameters(model.program, {}), model)


def flow_of(name: str, problem: Problem, **changes) -> LinkFlow:
    choice = CHOOSE[name](problem)
    return build_gauge_flow(replace(choice, structure=replace(choice.structure, **changes)), problem)


def perturbed(flow: LinkFlow, size: float):
    rng = np.random.default_rng(1)
    noisy = lambda a: np.asarray(a) + (size * rng.standard_normal(a.shape)).astype(a.dtype)  # noqa: E731
    return jax.tree.map(noisy, flow.init(jax.random.key(0)))


forward = eqx.filter_jit(lambda flow, params, z: flow.flow.forward(params, z))
inverse = eqx.filter_jit(lambda flow, params, x: flow.flow.inverse(params, x))


@dataclass(frozen=True)
class Case:
    """One sweep on the 2×2 torus, in float64, with random numbers from its net."""

    flow: LinkFlow
    params: dict
    z: jax.Array
    x: jax.Array
    log_det: jax.Array


@cache
def case(layer: str) -> Case:
    name, group, changes = LAYERS[layer]
    flow = flow_of(name, problem_of(source(group)), sweeps=1, reach=1, **changes)
    params = perturbed(flow, 0.03)
    z = haar(flow.group, jax.random.key(2), flow.links, SAMPLES)
    return Case(flow, params, z, *forward(flow, params, z))


@pytest.fixture(autouse=True)
def double(quick_compilation):
    with jax.enable_x64(True):
        yield


haar = partial(jax.jit, static_argnums=(0, 2, 3))(lambda group, key, links, b: group.haar(key, links, b))
decode, encode = (partial(jax.jit, static_argnums=0)(f) for f in (lambda g, x: g.decode(x), lambda g, x: g.encode(x)))


def phases(group, x):
    """Links as numbers that can be compared."""
    return np.exp(1j * np.asarray(x)) if isinstance(group, Phases) else np.asarray(x)


def gauged(group, lattice, x, g):
    return _gauged(group, x, g, *link_ends(lattice))


@partial(jax.jit, static_argnums=0)
def _gauged(group, x, g, start, end):
    return group.multiply(group.take(g, start), group.multiply(x, group.adjoint(group.take(g, end))))


@pytest.mark.parametrize("layer", LAYERS)
def test_commutes_with_gauge_transformations(layer):
    c = case(layer)
    group, lattice = c.flow.group, c.flow.model.program.lattice
    g = haar(group, jax.random.key(3), lattice.n_sites, SAMPLES)
    moved, log_det = forward(c.flow, c.params, gauged(group, lattice, c.z, g))
    np.testing.assert_allclose(phases(group, moved), phases(group, gauged(group, lattice, c.x, g)), atol=1e-9)
    np.testing.assert_allclose(log_det, c.log_det, atol=1e-8)


@pytest.mark.parametrize("layer", LAYERS)
def test_is_a_bijection(layer):
    c = case(layer)
    assert np.abs(phases(c.flow.group, c.x) - phases(c.flow.group, c.z)).max() > 0.1  # it does something
    back, log_det = inverse(c.flow, c.params, c.x)
    np.testing.assert_allclose(phases(c.flow.group, back), phases(c.flow.group, c.z), atol=1e-6)
    np.testing.assert_allclose(log_det, -c.log_det, atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_log_det_is_that_of_the_jacobian(layer):
    """In coordinates of the Lie algebra on both sides: e^{iδ·T} U ↦ coordinates of f(…) f(U)†."""
    c = case(layer)
    found = _jacobian(c.flow, c.params, c.z[..., :1], c.x[..., :1])
    np.testing.assert_allclose(found, c.log_det[0], atol=1e-5)


@pytest.mark.parametrize("layer", LAYERS)
def test_absolute_normalisation(layer):
    """E_q[e^{−βE}/q] = Z = Σ_r (c_r/d_r)^V; ln q of given configurations is that of the samples."""
    c = case(layer)
    x = {"U": np.asarray(decode(c.flow.group, c.x))}
    log_q = np.asarray(-c.flow.log_volume - c.log_det)
    log_w = -np.asarray(c.flow.model.energies(x)) - log_q
    fraction = ess(log_w)
    assert fraction > 0.05
    assert abs(log_mean_exp(log_w) - _ln_z(LAYERS[layer][1])) < 4.5 * np.sqrt((1 / fraction - 1) / SAMPLES)
    np.testing.assert_allclose(eqx.filter_jit(c.flow.log_prob)(c.params, x), log_q, atol=1e-5)


@pytest.mark.parametrize("layer", ["quaternions, spline", "matrices, spline"])
def test_links_stay_in_the_group(layer):
    name, kind, changes = LAYERS[layer]
    with jax.enable_x64(False):
        flow = flow_of(name, problem_of(source(kind)), sweeps=16, **changes)
        params = perturbed(flow, 0.02)
        u = np.asarray(flow.group.decode(forward(flow, params, haar(flow.group, jax.random.key(4), flow.links, 64))[0]))
    unit = u @ u.conj().swapaxes(-1, -2) - np.eye(u.shape[-1])
    assert np.abs(unit).max() < 1e-5
    assert np.abs(np.linalg.det(u) - 1).max() < 1e-5


@pytest.mark.parametrize("where", LATTICES)
def test_turns_move_every_link_once_along_staples_that_stand_still(where):
    sides, more = LATTICES[where]
    lattice = vdsl.loads(source("angle", sides, more)).program.lattice
    table, loops = turns(lattice, 1), plaquette_links(lattice)
    real = [a[a < lattice.n_links] for a in table.active]
    np.testing.assert_array_equal(np.sort(np.concatenate(real)), np.arange(lattice.n_links))
    assert all(np.isin(loops, a).sum(0).max() <= 1 for a in real)
    # Each plaquette is closed by one staple of each of its links: by the sets of their links.
    closed = []
    for active, staples, exists in zip(table.active, table.staples, table.exists, strict=True):
        s, a = np.nonzero(exists)
        closed += [tuple(sorted((active[k], *staples[:, i, k]))) for i, k in zip(s, a, strict=True)]
    wanted = [tuple(sorted(loop)) for loop in loops.T for _ in range(4)]
    assert sorted(closed) == sorted(wanted)


@pytest.mark.parametrize("kind", ["SU(2)", "angle"])
@pytest.mark.slow
def test_above_two_dimensions(kind):
    """Padding, missing staples, bent paths: equivariant, a bijection, and ln|det| that of the Jacobian."""
    flow = flow_of("gauge_continuous", problem_of(source(kind, "2, 2, 3", ", boundary = (periodic, periodic, open)")))
    params, group, lattice = perturbed(flow, 0.03), flow.group, flow.model.program.lattice
    z, g = (haar(group, jax.random.key(k), n, 3) for k, n in ((6, flow.links), (7, lattice.n_sites)))
    x, log_det = forward(flow, params, z)
    moved, same = forward(flow, params, gauged(group, lattice, z, g))
    np.testing.assert_allclose(moved, gauged(group, lattice, x, g), atol=1e-9)
    np.testing.assert_allclose(same, log_det, atol=1e-8)
    back, log_back = inverse(flow, params, x)
    np.testing.assert_allclose(back, z, atol=1e-9)
    np.testing.assert_allclose(log_back, -log_det, atol=1e-8)
    np.testing.assert_allclose(_jacobian(flow, params, z[..., :1], x[..., :1]), log_det[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["SU(2)", "angle"])
def test_starts_at_the_trivializing_map_to_second_order(kind):
    """Var ln w at first is that of the 1×2 loops that are left: two for each of 192 links, of weight β²/4(m + 1).

    Of all terms of second order it is 1/8 on U(1), where those of first order alone leave 24 β⁴.
    """
    beta, m = 0.1, {"angle": 1, "SU(2)": 3}[kind]
    flow = flow_of("gauge_continuous", problem_of(source(kind, "4, 4, 4", beta=beta)))
    z, log_q = eqx.filter_jit(lambda q, p, k: q.draw_latent(p, k, 512, jnp.ones(())))(
        flow, flow.init(jax.random.key(0)), jax.random.key(1)
    )
    variance = np.var(np.asarray(flow.latent_energy(z, jnp.ones(())) + log_q))
    left = 384 * (beta**2 / (4 * (m + 1))) ** 2 / (m + 1)
    assert 0.8 * left < variance < 1.5 * left


@pytest.mark.parametrize(
    "group", [Phases(True), Phases(False), Phasors(True), Phasors(False), Quaternions(), Matrices()], ids=str
)
def test_products_of_arrays_are_those_of_matrices(group):
    x, y = (haar(group, jax.random.key(k), 3, 2) for k in (8, 9))
    matrix = lambda u: np.asarray(decode(group, u))  # noqa: E731
    a, b = matrix(x), matrix(y)
    if group.n > 1:
        product, trace = a @ b.conj().swapaxes(-1, -2), lambda m: np.trace(m, axis1=-2, axis2=-1) / group.n
    else:
        a, b = (np.exp(1j * m) if group.stored_angle else m for m in (a, b))
        product, trace = a * b.conj(), lambda m: m
    found = matrix(jax.jit(lambda x, y: group.multiply(x, group.adjoint(y)))(x, y))
    np.testing.assert_allclose(
        np.exp(1j * found) if getattr(group, "stored_angle", False) else found, product, atol=1e-12
    )
    real, imaginary = group.pair(x, y)
    np.testing.assert_allclose((real + 1j * imaginary).T, trace(product), atol=1e-12)
    np.testing.assert_allclose(phases(group, encode(group, decode(group, x))), phases(group, x), atol=1e-12)


def test_spectra_of_matrices_with_close_and_opposite_eigenvalues():
    angles = np.array(
        [[2.0, 0.5, -2.5], [0.7, np.pi - 0.7, -np.pi], [1.0, 1.0, -2.0], [1e-9, 0, -1e-9], [0, np.pi, -np.pi]]
    )
    v = haar(Matrices(), jax.random.key(10), len(angles), 1)[..., 0]
    group = Matrices()
    u = group.multiply(v * np.exp(1j * angles.T)[None], group.adjoint(v))[..., None]
    found, vectors = jax.jit(eigen)(u)
    again = group.multiply(
        np.asarray(vectors) * np.exp(1j * np.asarray(found))[None], np.asarray(group.adjoint(vectors))
    )
    np.testing.assert_allclose(again, u, atol=1e-12)
    close = lambda a: np.sort(np.exp(1j * np.asarray(a)).imag + 2 * np.exp(1j * np.asarray(a)).real, axis=0)  # noqa: E731
    np.testing.assert_allclose(close(found[..., 0]), close(angles.T), atol=1e-12)


REFUSED = {
    "no links": "lattice square(3, 3)\nfield a : angle\ninteraction e = sum(i in sites: cos(a[i]))\ntemperature 1",
    "matter": source("angle", "3, 3").replace("temperature", "field a : angle\ninteraction m = -sum(x in sites, mu in "
    "axes: cos(a[x] + U[x, mu] - a[x + mu]))\ntemperature"),
    "gauge transformation": source("angle", "3, 3") + "interaction m = sum(<x, mu> in links: cos(U[x, mu]))\n",
    "antiperiodic": source("angle", "3, 4", ", boundary = (antiperiodic, periodic)"),
    "one site": source("angle", "3, 1"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSED)
def test_refuses_what_it_cannot_serve(why):
    with pytest.raises(VfeError) as caught:
        choose_gauge_continuous(problem_of(REFUSED[why]))
    assert caught.value.diagnostics[0].code == "guide-cannot-serve"
    assert why in caught.value.diagnostics[0].message or why in ("no links", "matter")


def test_u1_on_a_torus_needs_no_training():
    """Wilson's action: the layers from large loops to small are the answer, up to the grid they are drawn on."""
    problem = problem_of(source("angle", "4, 6", beta=2.0))
    flow = build_gauge_flow(choose_gauge_coupling(problem), problem)
    assert not flow.trainable()
    x, log_q = eqx.filter_jit(lambda q: q.sample_and_log_prob({}, jax.random.key(11), 256))(flow)
    log_w = -np.asarray(problem.model.energies(x)) - np.asarray(log_q)
    assert ess(log_w) > 0.9999
    exact = np.log((ive(np.arange(-40, 41), 2.0) ** 24).sum()) + 48 + 48 * np.log(2 * np.pi)
    assert abs(log_mean_exp(log_w) - exact) < 1e-3


def test_the_weight_of_plaquettes_is_read_off_the_energy():
    choice = choose_gauge_continuous(problem_of(source("SU(2)", "2, 3", beta=2.5)))
    assert choice.structure.pull == pytest.approx(-2.5)


def _jacobian(flow, params, z, x):
    """ln|det ∂x/∂z|."""
    group = flow.group

    def coordinates(delta):
        moved = flow.flow.forward(params, _displaced(group, z, delta.reshape(group.dimension, flow.links, 1)))[0]
        return _components(group, moved, x).ravel()

    return np.linalg.slogdet(jax.jit(jax.jacrev(coordinates))(jnp.zeros(group.dimension * flow.links)))[1]


def _displaced(group, u, delta):
    """(1 + iδ·T) u, to first order in δ."""
    match group:
        case Phases():
            return u + delta[0]
        case Phasors():
            return u + delta * jnp.stack([-u[1], u[0]])
        case Quaternions():
            return u + group.multiply(jnp.concatenate([jnp.zeros_like(delta[:1]), delta]), u)
        case Matrices():
            return u + group.multiply(jnp.einsum("aij,alb->ijlb", 1j * _GENERATORS, delta), u)


def _components(group, u, at):
    """δ (dimension, links, b) with u = (1 + iδ·T) at, to first order."""
    match group:
        case Phases():
            return (u - at)[None]
        case Phasors():
            return group.multiply(u, group.adjoint(at))[1:]
        case Quaternions():
            return group.multiply(u, group.adjoint(at))[1:]
        case Matrices():
            return 2 * jnp.einsum("aij,jilb->alb", _GENERATORS, group.multiply(u, group.adjoint(at))).imag


def _gell_mann():
    out = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        for entry in (0.5, -0.5j):
            t = np.zeros((3, 3), complex)
            t[a, b], t[b, a] = entry, np.conj(entry)
            out.append(t)
    out += [np.diag([0.5, -0.5, 0]), np.diag([1, 1, -2]) / np.sqrt(12)]
    return np.stack(out)


_GENERATORS = _gell_mann()


def _ln_z(group: str, v: int = 4) -> float:
    """ln Σ_r (c_r/d_r)^V on the torus of V plaquettes at BETA; 2V ln 2π more for Lebesgue measure."""
    if group in ("angle", "U(1)"):
        terms = ive(np.arange(-40, 41), BETA)
        lebesgue = 2 * v * np.log(2 * np.pi) if group == "angle" else 0.0
        return float(np.log((terms**v).sum()) + v * BETA + lebesgue)
    if group == "SU(2)":
        return float(np.log(((2 * ive(np.arange(1, 40), BETA) / BETA) ** v).sum()) + v * BETA)
    return float(np.log((_su3_characters() ** v).sum()))


def _su3_characters() -> np.ndarray:
    """c_r/d_r of e^{β Re tr U /3} for r = (p, q), by quadrature over the maximal torus."""
    phi = 2 * np.pi * np.arange(48) / 48
    a, b = np.meshgrid(phi, phi, indexing="ij")
    z = np.exp(1j * np.stack([a, b, -a - b]))
    power = lambda l: np.stack([z**k for k in l])  # noqa: E731
    determinant = lambda m: np.linalg.det(np.moveaxis(m, (0, 1), (-2, -1)))  # noqa: E731
    vandermonde = determinant(power((2, 1, 0)))
    weight = np.exp(BETA * z.real.sum(0) / 3)
    out = []
    for p in range(12):
        for q in range(12):
            character = determinant(power((p + q + 2, q + 1, 0))) * vandermonde.conj()
            size = (p + 1) * (q + 1) * (p + q + 2) / 2
            out.append((character * weight).mean().real / 6 / size)
    return np.array(out)


def test_lattices_of_other_shapes_have_their_colours():
    """Two colours where a checkerboard closes, three where a ring is odd."""
    assert turns(named_lattice("hypercubic", (4, 4), ("periodic",) * 2), 1).active.shape == (4, 8)
    assert turns(named_lattice("hypercubic", (3, 4), ("periodic",) * 2), 1).active.shape[0] == 6
