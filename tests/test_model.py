"""The compiled model: the examples of the language, batches, derivatives, traces, checks and doors to NumPyro."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer.util import log_density as numpyro_log_density

from lowering import programs as p
from vdsl import compile as pipeline
from vdsl.errors import VfeError
from vdsl.ir import interpret
from vdsl.ir.lattice import named_lattice
from vdsl.ir.support import Angle, Group, Potts, Real, Sphere, Spin
from vdsl.lowering.strategy import Strategy
from vdsl.model import Model

pytestmark = pytest.mark.usefixtures("quick_compilations")

EXAMPLES = Path(__file__).parent / "frontend" / "language_examples"
SMALL = {
    "ising": {"L": 4},
    "edwards_anderson": {"L": 3},
    "phi4": {"L": 4},
    "u1_gauge": {"L": 4},
    "kitaev_heisenberg": {"L": 3},
}
STRATEGIES = {
    "ising": ["roll", "elementwise", "elementwise"],
    "edwards_anderson": ["roll"],
    "sherrington_kirkpatrick": ["matmul"],
    "potts": ["slice"],
    "phi4": ["roll", "elementwise", "elementwise"],
    "xy": ["roll"],
    "u1_gauge": ["roll", "roll", "roll"],
    "su3_wilson": ["roll"],
    "kitaev_heisenberg": ["roll", "roll", "roll", "roll"],
}


@pytest.fixture
def example(tmp_path):
    """An example of the language by name, at small size, with the couplings it reads."""

    def load(name: str) -> Model:
        text = (EXAMPLES / f"{name}.vfe").read_text()
        rng = np.random.default_rng(0)
        rows = [f"{i},{j},{rng.normal()}" for i in range(20) for j in range(i + 1, 20)]
        (tmp_path / "sk20.csv").write_text("\n".join(rows) + "\n")
        return pipeline.loads(text, f"{name}.vfe", base_dir=tmp_path, **SMALL.get(name, {}))

    return load


@pytest.fixture
def ising() -> Model:
    return Model(p.observed(named_lattice("square", (4, 4), ("periodic", "periodic"))))


@pytest.mark.parametrize("name", STRATEGIES)
def test_examples_agree_with_the_interpreter(example, name):
    model = example(name)
    assert [d.strategy.kind for d in model.decisions] == STRATEGIES[name]
    x = interpret.random_configuration(model.program, np.random.default_rng(1))
    theta = interpret.resolve_parameters(model.program)
    terms = interpret.energy_terms(model.program, x, theta)
    with jax.enable_x64(True):
        assert {k: float(v) for k, v in model.energy_terms(x).items()} == pytest.approx(terms, rel=1e-11, abs=1e-11)
        observed = interpret.observables(model.program, x, theta)
        assert {k: float(v) for k, v in model.observables(x).items()} == pytest.approx(observed, rel=1e-11, abs=1e-11)
        assert float(model.log_density(x)) == pytest.approx(
            -sum(terms.values()) / interpret.temperature(model.program, theta), rel=1e-11
        )
    assert float(model.energy(x)) == pytest.approx(sum(terms.values()), rel=1e-4, abs=1e-4)


def test_ground_state_energies(ising):
    up = np.ones(16, np.int8)
    assert float(ising.energy(up, {"h": 0.0})) == -32.0
    assert float(ising.energy(up)) == pytest.approx(-32 - 1.6)
    assert {k: float(v) for k, v in ising.energy_terms({"f": up}).items()} == pytest.approx(
        {"exchange": -32.0, "zeeman": -1.6}
    )
    assert float(ising.reduced_energy(up, {"h": 0.0, "T": 4.0})) == -8.0
    assert {k: float(v) for k, v in ising.observables(-up).items()} == {"m": -1.0, "absm": 1.0}


def test_a_sweep_is_traced_once(ising, monkeypatch):
    import vdsl.model

    traces = []
    original = vdsl.model.prepare
    monkeypatch.setattr(vdsl.model, "prepare", lambda *a: traces.append(1) or original(*a))
    x = ising.random_configuration(jax.random.key(0))
    energies = [float(ising.energy(x, {"J": J, "T": T, "h": 0.0})) for J in (0.5, 1, 2.0) for T in (1.0, 2, 3.5)]
    densities = [float(ising.log_density(x, {"J": J, "T": T})) for J in (0.5, 1.0) for T in (1.0, np.float64(2.5))]
    assert len(traces) == 1
    assert energies[3] == 2 * energies[0]
    assert densities[0] == pytest.approx(2.5 * densities[1], rel=1e-6)

    traces.clear()
    sweep = jax.jit(jax.vmap(lambda J: ising.log_density(x, {"J": J, "T": 1.0})))
    sweep(jnp.linspace(0.1, 1, 5))
    sweep(jnp.linspace(2.1, 3, 5))
    assert len(traces) <= 1


def test_derivatives_with_respect_to_parameters(ising):
    x = ising.random_configuration(jax.random.key(1))
    terms = ising.energy_terms(x, {"J": 1.0, "h": 1.0})
    slope = jax.grad(lambda theta: ising.energy(x, theta))(ising.parameters({"J": 0.3, "h": 0.2}))
    assert {k: float(v) for k, v in slope.items()} == pytest.approx(
        {"J": float(terms["exchange"]), "h": float(terms["zeeman"]), "T": 0.0}
    )
    # The default h = 0.1 J follows J.
    total = jax.grad(lambda J: ising.energy(x, {"J": J}))(0.3)
    assert float(total) == pytest.approx(float(terms["exchange"] + 0.1 * terms["zeeman"]), rel=1e-6)


@pytest.mark.parametrize(
    ("support", "value", "on"),
    [
        (Real(), p.lattice_terms()["axes"], "sites"),
        (Angle(), p.link_terms()["plaquettes"], "links"),
        (Sphere(3), p.total(p.call("dot", p.f(p.I), p.f(p.J)), p.BONDS), "sites"),
    ],
)
@pytest.mark.parametrize("boundary", ["periodic", "open", "antiperiodic"])
def test_forces_are_differences_of_energies(support, value, on, boundary):
    program = p.program(named_lattice("square", (3, 4), (boundary, "periodic")), support, value, on)
    x = interpret.random_configuration(program, np.random.default_rng(2))["f"]
    with jax.enable_x64(True):
        force = np.asarray(jax.grad(Model(program).energy)(jnp.asarray(x)))
    for at in [(0,), (5,), (len(x) - 1,)]:
        at = at + (1,) * (x.ndim - 1)
        step = np.zeros_like(x)
        step[at] = 1e-5
        up, down = (interpret.energy(program, {"f": x + s}, {}) for s in (step, -step))
        assert force[at] == pytest.approx((up - down) / 2e-5, abs=1e-6)


def test_wilson_force_along_a_group_direction():
    """dE/dt of U -> e^{itλ} U on one link, from the gradient with respect to the matrix entries."""
    program = p.program(p.LATTICES["square"], Group("SU3"), p.wilson(), on="links")
    u = interpret.random_configuration(program, np.random.default_rng(4))["f"]
    generator = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    values, vectors = np.linalg.eigh(generator)

    def turned(t):
        out = u.copy()
        out[5] = (vectors * np.exp(1j * t * values)) @ vectors.conj().T @ u[5]
        return {"f": out}

    with jax.enable_x64(True):
        gradient = np.asarray(jax.grad(Model(program).energy)(jnp.asarray(u)))[5]
    slope = np.real(np.sum(gradient * (1j * generator @ u[5])))
    up, down = (interpret.energy(program, turned(t), {}) for t in (1e-5, -1e-5))
    assert slope == pytest.approx((up - down) / 2e-5, abs=1e-7)


def test_batches_and_chunks(ising):
    xs = ising.random_configuration(jax.random.key(2), 10)
    one_by_one = [float(ising.energy(xs["f"][k])) for k in range(10)]
    for found in (ising.energies(xs), ising.energies(xs["f"], chunk=3), jax.vmap(ising.energy)(xs)):
        np.testing.assert_allclose(found, one_by_one, rtol=1e-6)


def test_random_configurations_lie_in_their_supports():
    for support, size in ((Spin(), 2), (Potts(3), 3)):
        model = Model(p.pair_program(p.LATTICES["square"], support))
        x = np.asarray(model.random_configuration(jax.random.key(0), 200)["f"])
        assert x.shape == (200, 12)
        assert x.dtype == np.int8
        values, counts = np.unique(x, return_counts=True)
        assert len(values) == size
        assert abs(counts / x.size - 1 / size).max() < 4 * np.sqrt(0.25 / x.size)
    model = Model(p.pair_program(p.LATTICES["square"], Group("SU3")))
    u = np.asarray(model.random_configuration(jax.random.key(0), 50)["f"])
    np.testing.assert_allclose(u @ u.conj().swapaxes(-1, -2), np.broadcast_to(np.eye(3), u.shape), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(u), 1, atol=1e-5)
    assert abs(np.trace(u, axis1=-2, axis2=-1).mean()) < 5 / np.sqrt(600)  # Haar: <tr U> = 0, <|tr U|²> = 1
    angles = np.asarray(
        Model(p.pair_program(p.LATTICES["square"], Angle())).random_configuration(jax.random.key(0), 99)["f"]
    )
    assert angles.max() <= np.pi
    assert abs(np.exp(1j * angles).mean()) < 5 / np.sqrt(angles.size)


@pytest.mark.parametrize(
    ("x", "params", "code"),
    [
        (np.ones(15, np.int8), None, "shape-mismatch"),
        (np.ones((2, 16), np.int8), None, "shape-mismatch"),
        ({"s": np.ones(16, np.int8)}, None, "shape-mismatch"),
        (np.ones(16, np.int8), {"K": 1.0}, "unknown-parameter"),
        (np.ones(16, np.int8), {"T": -1.0}, "out-of-range"),
        (np.ones(16, np.int8), {"J": "one"}, "bad-override"),
    ],
)
def test_wrong_arguments(ising, x, params, code):
    with pytest.raises(VfeError) as error:
        ising.energy(x, params)
    assert [d.code for d in error.value.diagnostics] == [code]
    assert error.value.exit_code == 2


def test_unknown_parameters_are_found_inside_jit_too(ising):
    x = np.ones(16, np.int8)
    with pytest.raises(VfeError, match="unknown-parameter"):
        jax.grad(lambda J: ising.energy(x, {"Jay": J}))(1.0)
    with pytest.raises(VfeError, match="out-of-range"):
        jax.grad(lambda J: ising.energy(x, {"J": J, "T": -2.0}))(1.0)


def test_strategies_say_why():
    kitaev = Model(p.observed(p.LATTICES["square mixed"])).decisions
    assert kitaev[0].where == "interaction exchange"
    assert kitaev[0].reduction == "sum(<i, j> in nn)"
    assert kitaev[0].strategy == Strategy("slice", "constant displacements, open boundary")
    square = p.LATTICES["square"]
    found = {name: Model(p.program(square, Real(), value)).decisions for name, value in p.graph_terms().items()}
    kinds = {name: [d.strategy.kind for d in decisions] for name, decisions in found.items()}
    assert kinds["neighbours"] == ["gather", "segment"]
    assert kinds["filter"] == ["gather"]
    assert kinds["mean inside"] == ["elementwise", "elementwise"]
    assert kinds["field"] == ["elementwise"]
    assert kinds["bond data"] == ["roll"]
    inner = Model(p.program(p.LATTICES["square"], Real(), p.lattice_terms()["inner axes"])).decisions
    assert [d.strategy.kind for d in inner] == ["roll", "unroll"]


@pytest.mark.parametrize("support", ["spin", "potts", "real", "angle", "sphere", "complex", "U1", "SU2"])
def test_numpyro_density_is_that_of_the_model(support):
    """Differences of log densities between two configurations, given the sites' own densities."""
    model = Model(p.pair_program(p.LATTICES["square"], p.SITE_SUPPORTS[support]))
    sampled = model.to_numpyro()

    def density(seed: int) -> tuple[float, dict]:
        sites = numpyro.handlers.trace(
            numpyro.handlers.seed(numpyro.handlers.substitute(sampled, substitute_fn=_start(seed)), seed)
        ).get_trace()
        values = {k: s["value"] for k, s in sites.items() if s["type"] == "sample" and not s["is_observed"]}
        log_joint, trace = numpyro_log_density(sampled, (), {}, values)
        base = sum(
            float(jnp.sum(s["fn"].log_prob(s["value"]))) for k, s in trace.items() if k in values and "factor" not in k
        )
        x = {"f": trace["f"]["value"]}
        return float(log_joint) - base, x

    for seed in (0, 1):
        found, x = density(seed)
        assert found == pytest.approx(float(model.log_density(x)), rel=1e-4)


def _start(seed: int):
    def values(site):
        if site["type"] == "sample" and isinstance(site["fn"], numpyro.distributions.ImproperUniform):
            return jax.random.normal(jax.random.key(seed), site["fn"].event_shape)
        return None

    return values


def test_numpyro_refuses_su3():
    with pytest.raises(VfeError, match="unsupported-support"):
        Model(p.program(p.LATTICES["square"], Group("SU3"), p.wilson(), on="links")).to_numpyro()
