"""Laws that every registered guide of continuous fields obeys, on every small model that it serves.

Absolute normalisation first: E_q[e^{−βE}/q] = Z against brute-force quadrature, at fresh and at perturbed parameters.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vdsl
from vdsl.errors import VfeError
from vdsl.estimate.stats import ess, log_mean_exp
from vdsl.guides.guide import Guide
from vdsl.guides.problem import Problem
from vdsl.guides.registry import CONTINUOUS, build
from vdsl.ir.interpret import resolve_parameters
from vdsl.model import Model

pytestmark = pytest.mark.usefixtures("quick_compilations")

SOURCES = {
    "phi4 ring": """
lattice chain(4)
field phi : real
interaction e = sum(<i, j> in nn: (phi[i] - phi[j])^2) + sum(i in sites: -phi[i]^2 + phi[i]^4)
temperature 1.5
""",
    "phi4 ring in a field": """
lattice chain(4)
field phi : real
interaction e = sum(<i, j> in nn: (phi[i] - phi[j])^2) + sum(i in sites: -phi[i]^2 + phi[i]^4 - 0.6 * phi[i])
temperature 1
""",
    "open chain with random couplings": """
lattice chain(4, boundary = open)
field phi : real
data J on nn ~ normal(0, 1) seed 2
interaction e = sum(<i, j> in nn: J[i, j] * phi[i] * phi[j]) + sum(i in sites: phi[i]^2 + 0.5 * phi[i]^4)
temperature 1
""",
    "gaussian chain": """
lattice chain(4, boundary = open)
field phi : real
data k on nn ~ uniform(0.5, 2) seed 1
interaction e = sum(<i, j> in nn: k[i, j] * (phi[i] - phi[j])^2) + sum(i in sites: phi[i]^2 - 0.3 * phi[i])
temperature 0.7
""",
    "two components": """
lattice chain(2, boundary = open)
field v : real[2]
interaction e = -0.7 * sum(<i, j> in nn: dot(v[i], v[j])) + sum(i in sites: dot(v[i], v[i])^2 - dot(v[i], v[i]))
temperature 1
""",
    "complex": """
lattice chain(2, boundary = open)
field c : complex
interaction e = sum(<i, j> in nn: abs(c[i] - c[j])^2) + sum(i in sites: abs(c[i])^4)
temperature 1
""",
    "xy ring": """
lattice chain(4)
field a : angle
interaction e = -sum(<i, j> in nn: cos(a[i] - a[j]))
temperature 0.8
""",
    "xy ring in a field": """
lattice chain(4)
field a : angle
interaction e = -sum(<i, j> in nn: cos(a[i] - a[j])) - sum(i in sites: 0.5 * cos(a[i]) + 0.4 * sin(2 * a[i]))
temperature 1
""",
    "spins and displacements": """
lattice chain(3)
field s : spin
field u : real
interaction e = -sum(<i, j> in nn: (1 + 0.4 * (u[i] - u[j])) * s[i] * s[j]) + sum(i in sites: u[i]^2)
temperature 1
""",
    "angles and amplitudes": """
lattice chain(2, boundary = open)
field a : angle
field r : real
interaction e = -sum(<i, j> in nn: r[i] * r[j] * cos(a[i] - a[j])) + sum(i in sites: r[i]^4 - r[i]^2)
temperature 1
""",
    "phi4 torus": """
lattice hypercubic(4, 4)
field phi : real
interaction kinetic = sum(x in sites, mu in axes: phi[x] * (2 * phi[x] - phi[x + mu] - phi[x - mu]))
interaction potential = sum(x in sites: phi[x]^2 + phi[x]^4)
temperature 1
""",
    "spheres": """
lattice chain(2, boundary = open)
field S : sphere(3)
interaction e = -1.3 * sum(<i, j> in nn: dot(S[i], S[j])) - 0.5 * sum(i in sites: S[i, 2])
temperature 1
""",
}
REAL = {
    "phi4 ring", "phi4 ring in a field", "open chain with random couplings", "gaussian chain", "two components",
    "complex", "phi4 torus",
}  # fmt: skip
ANGLES = {"xy ring", "xy ring in a field"}
SERVES = {
    "autoregressive": set(SOURCES),
    "gaussian": REAL,
    "coupling": REAL | ANGLES,
    "multiscale": {"phi4 torus"},
    "continuous": REAL | ANGLES,
    "gauge_coupling": set(),
    "gauge_continuous": set(),
    "tree": set(),
}
# Of those, the models whose laws are checked: each kind of field, layer and measure that a guide has code for.
CHECKED = {
    "autoregressive": ("phi4 ring in a field", "angles and amplitudes", "spheres"),
    "gaussian": ("gaussian chain", "open chain with random couplings", "complex"),
    "coupling": ("complex",),
    "multiscale": ("phi4 torus",),
    "continuous": ("phi4 ring in a field", "xy ring in a field"),
    "gauge_coupling": (),
    "gauge_continuous": (),
    "tree": (),
}
PAIRS = [(guide, name) for guide, names in CHECKED.items() for name in names]
# The noise on the parameters. That of a coupling flow's nets moves its tails, and thin tails have rare large weights;
# that of a shared network moves all its sites at once.
NOISE = {"coupling": 0.01, "multiscale": 0.02}
TORUS = -3.49627247  # ln Z of the torus, by transfer matrix
SAMPLES = 2**12


@dataclass(frozen=True)
class Small:
    """A model, its parameters and its ln Z, by quadrature where that is feasible."""

    problem: Problem
    ln_z: float


@cache
def small(name: str) -> Small:
    model = vdsl.loads(SOURCES[name])
    theta = resolve_parameters(model.program, {})
    return Small(Problem(model.program, theta, model), TORUS if name == "phi4 torus" else _ln_z(model))


def _ln_z(model: Model) -> float:
    """Trapezoid rules for angles and reals, every state of spins, Gauss–Legendre × trapezoid on the sphere."""
    axes: list[tuple[np.ndarray, np.ndarray]] = []
    for f in model.fields:
        kind, n = type(f.support).__name__, model.program.elements(f)
        real = np.linspace(-3.6, 3.6, 25)
        rules = {
            "Spin": (np.array([-1.0, 1.0]), np.ones(2)),
            "Real": (real, np.full(25, real[1] - real[0])),
            "Complex": (real, np.full(25, real[1] - real[0])),
            "Angle": (np.linspace(-np.pi, np.pi, 24, endpoint=False), np.full(24, 2 * np.pi / 24)),
            "Sphere": (np.arange(12 * 24.0), np.repeat(np.polynomial.legendre.leggauss(12)[1], 24) * 2 * np.pi / 24),
        }
        components = 2 if kind == "Complex" else getattr(f.support, "n", None) or 1
        axes += [rules[kind]] * (n * (1 if kind == "Sphere" else components))
    grid = np.stack([g.ravel() for g in np.meshgrid(*[a[0] for a in axes], indexing="ij")], -1)
    log_weight = sum(
        np.log(w).reshape([-1 if k == m else 1 for m in range(len(axes))]) for k, (_, w) in enumerate(axes)
    )
    x, first = {}, 0
    for f in model.fields:
        kind, n = type(f.support).__name__, model.program.elements(f)
        size = n * (2 if kind == "Complex" else 1 if kind == "Sphere" else getattr(f.support, "n", None) or 1)
        part = grid[:, first : first + size]
        first += size
        if kind == "Complex":
            x[f.name] = part[:, 0::2] + 1j * part[:, 1::2]
        elif kind == "Sphere":
            z = np.polynomial.legendre.leggauss(12)[0][part.astype(int) // 24]
            a = 2 * np.pi * (part % 24) / 24
            r = np.sqrt(1 - z**2)
            x[f.name] = np.stack([r * np.cos(a), r * np.sin(a), z], -1)
        else:
            x[f.name] = part.reshape(len(part), n, -1) if getattr(f.support, "n", None) else part
    with jax.enable_x64(True):
        reduced = np.asarray(model.energies(x), np.float64) / float(model.temperature())
    return float(np.logaddexp.reduce(-reduced + np.broadcast_to(log_weight, [len(a[0]) for a in axes]).ravel()))


def parameters(guide: Guide, size: float) -> object:
    """Fresh parameters, plus noise of that size."""
    leaves, tree = jax.tree.flatten(guide.init(jax.random.key(1)))
    rng = np.random.default_rng(7)
    return jax.tree.unflatten(tree, [p + (size * rng.standard_normal(p.shape)).astype(p.dtype) for p in leaves])


@eqx.filter_jit
def observed(guide: Guide, params: object, key: jax.Array) -> tuple[jax.Array, ...]:
    """All that the laws compare, in one compilation."""
    one, keys = jnp.ones(()), jax.random.split(key, 3)
    x, log_q = guide.sample_and_log_prob(params, keys[0], SAMPLES)
    z = guide.sample_latent(params, keys[1], SAMPLES, one)
    latent = -guide.latent_energy(z, one) - guide.latent_log_prob(params, z, one)
    same = ()
    if guide.recipe().estimator == "reparameterised":
        drawn, log_drawn = guide.draw_latent(params, keys[2], 256, one)
        same = (log_drawn, guide.latent_log_prob(params, drawn, one))
    return x, log_q, guide.log_prob(params, x), latent, *same


def test_every_guide_serves_what_it_should():
    """Named models are served; all others are refused with a diagnostic, not with a crash."""
    assert set(SERVES) == set(CHECKED) == set(CONTINUOUS)
    for guide, name in itertools.product(CONTINUOUS, SOURCES):
        if name in SERVES[guide]:
            assert CONTINUOUS[guide].choose(small(name).problem).name == guide
        else:
            with pytest.raises(VfeError) as caught:
                CONTINUOUS[guide].choose(small(name).problem)
            assert caught.value.diagnostics[0].code == "guide-cannot-serve"


def assert_mean_weight(log_w: np.ndarray, ln_z: float) -> None:
    """E_q[w] = Z within 4.5 standard errors."""
    fraction = ess(log_w)
    assert fraction > 0.02
    assert abs(log_mean_exp(log_w) - ln_z) < 4.5 * np.sqrt((1 / fraction - 1) / len(log_w)) + 3e-4


@pytest.mark.parametrize(("guide", "name"), PAIRS)
def test_absolute_normalisation(guide: str, name: str):
    """E_q[e^{−βE}/q] = Z, of configurations and of what is left of them where some variables are summed.

    ln q of a sample is what `log_prob` says, and that of a reparameterised draw what `latent_log_prob` says.
    """
    model = small(name)
    problem = model.problem
    q = build(CONTINUOUS[guide].choose(problem), problem)
    for size in (0.0, NOISE.get(guide, 0.05)):
        x, log_q, again, latent, *same = observed(q, parameters(q, size), jax.random.key(11))
        np.testing.assert_allclose(again, log_q, atol=3e-3)
        energy = np.asarray(problem.model.energies(x), float)
        assert_mean_weight(-energy / problem.temperature - np.asarray(log_q, float), model.ln_z)
        assert_mean_weight(np.asarray(latent, float), model.ln_z)
        if same:
            np.testing.assert_allclose(*same, atol=3e-3)
