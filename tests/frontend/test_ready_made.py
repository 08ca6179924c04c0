"""Ready-made observables: against NumPy on random configurations, enumeration, and differences of ln Z(twist)."""

import itertools

import jax
import numpy as np
import pytest

import vdsl
from vdsl.compile import compile_source
from vdsl.errors import Source, VfeError
from vdsl.ir import interpret
from vdsl.ir.configurations import random_configuration
from vdsl.ir.expr import Expect, walk
from vdsl.ir.interpret import energy, evaluate, evaluate_derived, observables
from vdsl.ir.program import Program
from vdsl.model import Model

RNG = np.random.default_rng(3)
FIELDS = {
    "spin": lambda x: x[:, None].astype(float),
    "real": lambda x: x[:, None],
    "real[3]": lambda x: x,
    "sphere(3)": lambda x: x,
    "complex": lambda x: np.stack([x.real, x.imag], 1),
    "U(1)": lambda x: np.stack([x.real, x.imag], 1),
    "angle": lambda x: np.stack([np.cos(x), np.sin(x)], 1),
    "clock(5)": lambda x: np.stack([np.cos(2 * np.pi * x / 5), np.sin(2 * np.pi * x / 5)], 1),
    "potts(3)": lambda x: np.sqrt(3 / 2) * ((x[:, None] == np.arange(3)) - 1 / 3),
}
OBSERVABLES = """
observable m = magnetisation(f)
observable near = correlation(f, 1)
observable far = correlation(f, (2, -1))
observable s = structure_factor(f, (1, 2))
derived chi = susceptibility(f)
derived chi_abs = susceptibility_abs(f)
derived u = binder(f)
derived xi = correlation_length(f, 1)
"""
ENERGY = {"spin": "f[i]", "real": "f[i]", "complex": "abs(f[i])", "U(1)": "re(f[i])", "potts(3)": "f[i]"}


def program(text: str, **parameters: object) -> Program:
    return compile_source(Source("test.vfe", text), parameters)[0]


def model(kind: str, lattice: str, more: str) -> Program:
    body = {"real[3]": "f[i, 0]", "sphere(3)": "f[i, 0]"}.get(kind, ENERGY.get(kind, "f[i]"))
    head = f"param T = 1.7\nlattice {lattice}\nfield f : {kind}\n"
    return program(head + f"interaction e = sum(i in sites: {body}^2)\ntemperature T\n" + more)


def averages(p: Program, weights: np.ndarray, configurations: list[dict], theta: dict) -> dict[str, float]:
    """Every derived quantity in the ensemble of weighted configurations, by the interpreter."""
    memory: dict = {}

    def average(e: object) -> float:
        if e not in memory:
            memory[e] = sum(w * evaluate(p, e, theta, x) for w, x in zip(weights, configurations, strict=True))
        return memory[e]

    return {d.name: float(evaluate_derived(p, d.value, average, theta)) for d in p.derived}


@pytest.mark.parametrize("kind", FIELDS)
def test_definitions_on_random_ensembles(kind: str) -> None:
    """Three configurations with weights stand for an ensemble; every formula written out with NumPy."""
    p = model(kind, "square(3, 4)", OBSERVABLES)
    theta, w = {"T": 1.7}, np.array([0.5, 0.2, 0.3])
    xs = [random_configuration(p, RNG) for _ in w]
    vs = [FIELDS[kind](x["f"]).reshape(3, 4, -1) for x in xs]
    for x, v in zip(xs, vs, strict=True):
        found = observables(p, x, theta)
        m = v.mean((0, 1))
        assert found["m"] == pytest.approx(np.linalg.norm(m))
        axes = [(v * np.roll(v, -1, a)).sum(-1).mean() for a in (0, 1)]
        assert found["near"] == pytest.approx(np.mean(axes))
        assert found["far"] == pytest.approx((v * np.roll(v, (-2, 1), (0, 1))).sum(-1).mean())
        assert found["s"] == pytest.approx((np.abs(np.fft.fft2(v, axes=(0, 1))[1, 2]) ** 2).sum() / 12)
    ms = np.array([v.mean((0, 1)) for v in vs])
    m2, m1 = (ms**2).sum(1), np.linalg.norm(ms, axis=1)
    k2 = [(np.abs(np.fft.fft2(v, axes=(0, 1))[0, 1] / 12) ** 2).sum() for v in vs]
    connected = w @ m2 - ((w @ ms) ** 2).sum()
    found = averages(p, w, xs, theta)
    assert found["chi"] == pytest.approx(12 / 1.7 * connected)
    assert found["chi_abs"] == pytest.approx(12 / 1.7 * (w @ m2 - (w @ m1) ** 2))
    assert found["u"] == pytest.approx(1 - (w @ m2**2) / (3 * (w @ m2) ** 2))
    expected = np.sqrt(max(0, connected / (w @ k2) - 1)) / (2 * np.sin(np.pi / 4))
    assert found["xi"] == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize("kind", ["spin", "sphere(3)", "complex", "angle", "potts(3)"])
@pytest.mark.parametrize("lattice", ["square(3, 4)", "honeycomb(2, 3)"])
def test_compiled_observables_are_the_interpreters(kind: str, lattice: str) -> None:
    """Also the arguments of `expect`, a twist's data on bonds among them."""
    text = OBSERVABLES
    if kind in ("sphere(3)", "complex", "angle"):
        coupling = {"sphere(3)": "dot(f[i], f[j])", "complex": "re(conj(f[i]) * f[j])", "angle": "cos(f[i] - f[j])"}
        text += f"interaction bonds = -sum(<i, j> in nn: {coupling[kind]})\nderived y = helicity(f)\n"
        p = program(f"param T = 1.7\nlattice {lattice}\nfield f : {kind}\ntemperature T\n" + text)
    else:
        p = model(kind, lattice, text)
    compiled, theta = Model(p), {"T": 1.7}
    x = random_configuration(p, RNG)
    with jax.enable_x64(True):
        found = compiled.observables(x, theta)
        for o in p.observables:
            assert float(found[o.name]) == pytest.approx(observables(p, x, theta)[o.name], rel=1e-9, abs=1e-9)
        for d in p.derived:
            for node in walk(d.value):
                if isinstance(node, Expect):
                    expected = evaluate(p, node.value, theta, x)
                    assert float(compiled.evaluate(node.value, x, theta)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_ising_ring_against_its_transfer_matrix() -> None:
    """A ring of N: G(r) = (t^r + t^(N−r))/(1 + t^N), t = tanh K; χ = βΣG; ξ from the Fourier transform of G."""
    n, t = 8, np.tanh(0.6)
    head = f"param T = 1 / 0.6\nlattice chain({n})\nfield s : spin\ninteraction e = -sum(<i, j> in nn: s[i] * s[j])\n"
    text = head + (
        "temperature T\nobservable c = correlation(s, 3)\nderived chi = susceptibility(s)\nderived u = binder(s)\n"
        "derived xi = correlation_length(s)\n"
    )
    exact = vdsl.loads(text).exact()
    r = np.arange(n)
    g = (t**r + t ** (n - r)) / (1 + t**n)
    assert exact.observables["c"].value == pytest.approx(g[3], rel=1e-9)
    assert exact.derived["chi"].value == pytest.approx(0.6 * g.sum(), rel=1e-9)
    wave = (g * np.cos(2 * np.pi * r / n)).sum()
    assert exact.derived["xi"].value == pytest.approx(np.sqrt(g.sum() / wave - 1) / (2 * np.sin(np.pi / n)), rel=1e-9)
    states = np.array(list(itertools.product((-1, 1), repeat=n)))
    weight = np.exp(0.6 * (states * np.roll(states, 1, 1)).sum(1))
    m = states.mean(1)
    binder = 1 - (weight @ m**4) * weight.sum() / (3 * (weight @ m**2) ** 2)
    assert exact.derived["u"].value == pytest.approx(binder, rel=1e-9)


def test_correlation_length_is_the_inverse_mass_of_a_free_field() -> None:
    """G(k) = 1/(m² + 4 Σ sin²(k_μ/2)) makes ξ₂ exactly 1/m: the definition with 2 sin(π/L) is the one for which it is.

    The average ⟨|m(k)|²⟩ = Tr(C W_k) needs the quadratic form of the expression only, read off on unit vectors.
    """
    lattice, mass2 = (3, 4), 0.7
    text = (
        "lattice square(3, 4)\nfield f : real\ninteraction e = sum(i in sites: f[i]^2)\ntemperature 1\n"
        "derived x0 = correlation_length(f, 0)\nderived x1 = correlation_length(f, 1)\n"
    )
    p = program(text)
    k = [2 * np.pi * np.fft.fftfreq(n) for n in lattice]
    spectrum = 1 / (mass2 + 4 * np.sin(k[0] / 2)[:, None] ** 2 + 4 * np.sin(k[1] / 2)[None, :] ** 2)
    g = np.fft.ifft2(spectrum).real
    x, y = np.unravel_index(np.arange(12), lattice)
    covariance = g[(x[:, None] - x) % 3, (y[:, None] - y) % 4]
    values, vectors = np.linalg.eigh(covariance)

    def average(e: object) -> float:
        """Quadratic expressions only; a linear one is odd, and its average 0."""
        at = lambda f: float(evaluate(p, e, {}, {"f": f}))  # noqa: E731
        even = [(at(v) + at(-v)) / 2 for v in vectors.T]
        return float(np.dot(values, even))

    for d in p.derived:
        assert float(evaluate_derived(p, d.value, average, {})) == pytest.approx(1 / np.sqrt(mass2), rel=1e-9)


def test_several_sites_a_cell_and_slanted_axes() -> None:
    """Phases use positions: moving the honeycomb's B sites by a phase of their own changes S(k)."""
    p = model("real", "honeycomb(3, 4)", "observable s = structure_factor(f, (1, 0))\nobservable c = correlation(f, 2)")
    x = random_configuration(p, RNG)
    lattice = p.lattice
    assert lattice is not None
    reciprocal = 2 * np.pi * np.linalg.inv(np.array(lattice.vectors)).T
    phase = np.exp(1j * lattice.positions() @ (reciprocal[0] / 3))
    found = observables(p, x, {"T": 1.7})
    assert found["s"] == pytest.approx(abs(phase @ x["f"]) ** 2 / 24)
    grid = x["f"].reshape(3, 4, 2)
    assert found["c"] == pytest.approx(np.mean([(grid * np.roll(grid, -2, a)).mean() for a in (0, 1)]))


def test_open_boundaries_leave_out_pairs_that_do_not_exist() -> None:
    p = model("real", "square(3, 4, boundary = (periodic, open))", "observable c = correlation(f, (0, 2))")
    x = random_configuration(p, RNG)
    grid = x["f"].reshape(3, 4)
    assert observables(p, x, {"T": 1.7})["c"] == pytest.approx((grid[:, :2] * grid[:, 2:]).mean())


# Twists

TERMS = {
    "bonds": ("angle", "square(3, 4)", "-sum(<i, j> in nn: cos(f[i] - f[j]))"),
    "axes": ("angle", "square(3, 4)", "sum(x in sites, mu in axes: (1 - cos(f[x + 2*mu] - f[x - mu]))^2)"),
    "diagonal": ("angle", "triangular(3, 4)", "-sum(<i, j> in nn: exp(cos(f[j] - f[i] - A[i, j])))"),
    "honeycomb": ("angle", "honeycomb(2, 3)", "-sum(<i, j> in nn: cos(f[i] - f[j])) + sum(<i, j> in nnn: "
                  "tanh(sin(f[i] - f[j])))"),
    "three body": ("angle", "square(4, 3)", "sum(x in sites: cos(2*f[x] - f[x + (1, 0)] - f[x + (0, -1)]))"),
    "complex": ("complex", "square(3, 4)", "sum(x in sites, mu in axes: abs(f[x] - f[x + mu])^2) + "
                "sum(x in sites: abs(f[x])^4)"),
    "adjoint": ("U(1)", "square(3, 4)", "-sum(<i, j> in nn: re(f[i]' * f[j]))"),
    "vector": ("sphere(3)", "square(3, 4)", "-sum(<i, j> in nn: dot(f[i], f[j]) + 0.3 * f[i, 2] * f[j, 2])"),
    "distance": ("real[2]", "square(3, 4)", "sum(<i, j> in nn: norm(f[i] - f[j])^4) + "
                 "sum(<i, j> in nn: log(1 + dist(f[i], f[j])^2))"),
    "by component": ("sphere(3)", "square(3, 4)", "-sum(<i, j> in nn, k in range(3): f[i, k] * f[j, k])"),
    "inner sum": ("angle", "square(3, 4)", "-sum(x in sites: sum(mu in axes: cos(f[x + mu] - f[x]))^2)"),
    "nonlinear": ("angle", "square(3, 4)", "-sum(<i, j> in nn: cos(f[i] - f[j]))^2 / 10"),
    "half open": ("angle", "square(3, 4, boundary = (periodic, open))",
                  "-sum(x in sites: cos(f[x] - f[x + (1, 0)]) * f[x + (0, 1)]^0 + cos(f[x] - f[x + (0, 1)]))"),
}  # fmt: skip


def turn(p: Program, x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    match p.fields[0].support.__class__.__name__:
        case "Angle":
            return x + angle
        case "Complex" | "Group":
            return x * np.exp(1j * angle)
    out = x.copy()
    out[:, 0] = x[:, 0] * np.cos(angle) - x[:, 1] * np.sin(angle)
    out[:, 1] = x[:, 0] * np.sin(angle) + x[:, 1] * np.cos(angle)
    return out


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("axis", [0, 1])
def test_twist_derivatives_are_those_of_the_twisted_energy(name: str, axis: int) -> None:
    """H(a) from an interpreter that turns every value by a times its cell, and by a·L more across the boundary."""
    kind, lattice, term = TERMS[name]
    data = "data A on nn ~ normal(0, 1) seed 4\n" if "A[" in term else ""
    text = f"lattice {lattice}\nfield f : {kind}\n{data}interaction e = {term}\ntemperature 1\n"
    if "open" in lattice and axis == 1:
        with pytest.raises(VfeError):
            program(text + "derived y = helicity(f, 1)")
        return
    p = program(text + f"derived y = helicity(f, {axis})")
    x = random_configuration(p, RNG)["f"]
    curvature, square, slope = [e.value for e in _expects(p)]
    first, second = (float(evaluate(p, e, {}, {"f": x})) for e in (slope, curvature))
    assert float(evaluate(p, square, {}, {"f": x})) == pytest.approx(first**2)
    h = 3e-4
    below, here, above = (twisted_energy(p, x, axis, a) for a in (-h, 0.0, h))
    assert first == pytest.approx((above - below) / (2 * h), rel=1e-5, abs=1e-5)
    assert second == pytest.approx((above - 2 * here + below) / h**2, rel=1e-4, abs=1e-4)


def _expects(p: Program) -> list[Expect]:
    (y,) = p.derived
    return [node for node in walk(y.value) if isinstance(node, Expect)]


def twisted_energy(p: Program, x: np.ndarray, axis: int, a: float) -> float:
    """H of values turned by a times their cell along an axis; read across the boundary they turn by a·L more."""

    class Twisted(interpret._Evaluation):
        """Knows how far around the torus each read has gone."""

        def read(self, node: object) -> object:
            base = self.number[node.place.base]
            site = self.site(node.place)[0]
            cells = [np.unravel_index(s // self.lattice.n_basis, self.lattice.shape)[axis] for s in (base, site)]
            bond = self.bond_of(node.place.base)
            moved = self.displacement(node.place)[axis] if node.place.steps else 0
            if bond is not None:
                moved += bond[axis]
                cells[0] = self.origin(node.place.base, axis)
            wraps = (cells[0] + moved - cells[1]) // self.lattice.shape[axis]
            angle = a * (cells[1] + wraps * self.lattice.shape[axis])
            value = turn(p, np.array([self.x[node.field][site]]), np.array([angle]))[0]
            return value[tuple(int(self(c)) for c in node.component)] if node.component else value

        def bond_of(self, variable: str) -> tuple[int, ...] | None:
            for (_, j), (name, number) in self.bond.items():
                if j == variable:
                    bonds = self.lattice.bonds(name)
                    return self.lattice.bond_classes(name)[bonds.cls[number]].displacement
            return None

        def origin(self, variable: str, axis: int) -> int:
            for i, j in self.bond:
                if j == variable:
                    return int(np.unravel_index(self.number[i] // self.lattice.n_basis, self.lattice.shape)[axis])
            raise KeyError(variable)

    return sum(float(np.real(Twisted(p, {}, {"f": x}).top(t.value))) for t in p.terms)


@pytest.mark.parametrize("size", [2, 3])
def test_helicity_is_the_curvature_of_the_free_energy(size: int) -> None:
    """XY on a torus, −T ln Z(a) by quadrature: Υ = (1/N) ∂²F/∂a², with all of the twist a·L put on one row of bonds.

    Four angles with 16 points each, one of them fixed; at size 3 four points, where the twist must be spread evenly
    for the sum to stand for the same ensemble.
    """
    points = {2: 16, 3: 4}[size]
    text = (
        f"param T = 0.8\nlattice square({size}, {size})\nfield f : angle\n"
        "interaction e = -sum(<i, j> in nn: cos(f[i] - f[j]))\ntemperature T\nderived y = helicity(f, 0)\n"
        "derived both = helicity(f)\n"
    )
    n = size * size
    grid = 2 * np.pi * np.array(list(itertools.product(range(points), repeat=n - 1))) / points
    f = np.concatenate([np.zeros((len(grid), 1)), grid], 1).reshape(-1, size, size)

    def reduced(a: float) -> np.ndarray:
        twist = np.full(size, a) if size == 3 else np.array([0.0] * (size - 1) + [a * size])
        along = np.cos(np.roll(f, -1, 1) - f + twist[:, None]).sum((1, 2))
        return -(along + np.cos(np.roll(f, -1, 2) - f).sum((1, 2))) / 0.8

    def free_energy(a: float) -> float:
        return -0.8 * float(jax.scipy.special.logsumexp(-reduced(a)))

    with jax.enable_x64(True):
        m = vdsl.loads(text)
        weight = np.exp(-reduced(0.0))
        weight /= weight.sum()
        memory: dict = {}

        def average(e: object) -> float:
            if e not in memory:
                one = lambda x: m.evaluate(e, {"f": x}, {"T": 0.8})  # noqa: E731
                memory[e] = float(weight @ np.asarray(jax.lax.map(one, f.reshape(-1, n), batch_size=4096)))
            return memory[e]

        found = {d.name: float(evaluate_derived(m.program, d.value, average, {"T": 0.8})) for d in m.program.derived}
        h = 1e-3
        curvature = (free_energy(h) - 2 * free_energy(0.0) + free_energy(-h)) / h**2
    assert found["y"] == pytest.approx(curvature / n, rel=2e-5)
    assert found["both"] == pytest.approx(found["y"], rel=1e-6)


REFUSED = [
    ("angle", "-sum(<i, j> in nn: cos(f[i] - f[j])) - sum(i in sites: cos(f[i]))", "helicity(f)", "not-a-twist"),
    ("angle", "sum(<i, j> in nn: wrap(f[i] - f[j])^2)", "helicity(f)", "not-a-twist"),
    ("angle", "-sum(<i, j> in pairs(sites): cos(f[i] - f[j]))", "helicity(f)", "not-a-twist"),
    ("angle", "-cos(f[0] - f[1])", "helicity(f)", "not-a-twist"),
    ("angle", "-sum(<i, j> in nn: cos(f[i] + f[j]))", "helicity(f)", "not-a-twist"),
    ("sphere(3)", "-sum(<i, j> in nn: f[i, 0] * f[j, 0])", "helicity(f)", "not-a-twist"),
    ("sphere(3)", "-sum(i in sites: f[i, 0])", "helicity(f)", "not-a-twist"),
    ("clock(6)", "-sum(<i, j> in nn: cos(f[i] - f[j]))", "helicity(f)", "kind-mismatch"),
    ("real", "sum(i in sites: f[i]^2)", "helicity(f)", "kind-mismatch"),
    ("occupation", "sum(i in sites: f[i])", "binder(f)", "kind-mismatch"),
    ("SU(2)", "sum(i in sites: re(tr(f[i])))", "binder(f)", "kind-mismatch"),
    ("real", "sum(i in sites: f[i]^2)", "expect(binder(f))", "wrong-place"),
    ("real", "sum(i in sites: f[i]^2)", "correlation(f, 1)", "wrong-place"),
    ("real", "sum(i in sites: f[i]^2)", "expect(correlation(f, 0.5))", "kind-mismatch"),
    ("real", "sum(i in sites: f[i]^2)", "binder(f, 1)", "wrong-arguments"),
    ("real", "sum(i in sites: f[i]^2)", "binder(T)", "kind-mismatch"),
    ("real", "sum(i in sites: f[i]^2)", "correlation_length(f)", "wrong-arguments"),
    ("real", "sum(i in sites: f[i]^2)", "correlation_length(f, 2)", "kind-mismatch"),
]


@pytest.mark.parametrize(("kind", "term", "derived", "code"), REFUSED)
def test_what_has_no_such_observable_is_refused(kind: str, term: str, derived: str, code: str) -> None:
    text = f"param T = 1.0\nlattice square(3, 4)\nfield f : {kind}\ninteraction e = {term}\ntemperature T\n"
    with pytest.raises(VfeError) as found:
        program(text + f"derived y = {derived}")
    assert [d.code for d in found.value.diagnostics] == [code]


@pytest.mark.parametrize("call", ["correlation_length(f)", "helicity(f)", "expect(structure_factor(f, (1, 0)))"])
def test_wave_vectors_need_a_periodic_axis(call: str) -> None:
    for lattice, code in (("square(3, 3, boundary = open)", "bad-boundary"), ("complete(4)", "bad-set")):
        text = f"lattice {lattice}\nfield f : angle\ninteraction e = -sum(<i, j> in nn: cos(f[i] - f[j]))\n"
        with pytest.raises(VfeError) as found:
            program(text + f"temperature 1\nderived y = {call}")
        assert [d.code for d in found.value.diagnostics] == [code]


def test_energy_is_unchanged_by_what_is_measured() -> None:
    """Cells that bonds span are data of the program, and no part of its energy."""
    kind, lattice, term = TERMS["bonds"]
    text = f"lattice {lattice}\nfield f : {kind}\ninteraction e = {term}\ntemperature 1\n"
    plain, measured = program(text), program(text + "derived y = helicity(f)")
    assert plain.terms == measured.terms
    x = random_configuration(plain, RNG)
    assert energy(plain, x, {}) == energy(measured, x, {})
