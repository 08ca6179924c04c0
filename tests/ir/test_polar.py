"""Complex fields by length and phase: the same energy at the same configuration, term by term."""

from __future__ import annotations

import numpy as np
import pytest

import vdsl
from vdsl.ir.expand import expand_energy
from vdsl.ir.expansion import Expansion, variables_of
from vdsl.ir.interpret import resolve_parameters
from vdsl.ir.polar import harmonics, polar_expansion

MIXED = """
lattice chain(4)
field a : U(1)
field z : complex
field s : spin
field w : complex
field x : real
interaction hop = -sum(<i, j> in nn: re(z[i]' * z[j] * a[i]) * (1 + x[i] * s[j]))
interaction odd = sum(i in sites: re(z[i])^3 * im(z[i]) + re(w[i]) * im(z[i])^2 + abs(w[i])^4 * x[i])
interaction other = sum(i in sites: x[i]^4 + 0.3 * s[i] * re(a[i]^2))
temperature 1
"""


@pytest.fixture(scope="module")
def mixed() -> tuple[vdsl.Model, Expansion]:
    model = vdsl.loads(MIXED)
    return model, expand_energy(model.program, resolve_parameters(model.program, {}))


def test_harmonics() -> None:
    alpha = np.linspace(0, 6, 50)
    for a, b in [(1, 0), (0, 1), (2, 1), (3, 2), (0, 4)]:
        series = sum(c * np.exp(1j * m * alpha) for m, c in harmonics(a, b).items())
        np.testing.assert_allclose(series, np.cos(alpha) ** a * np.sin(alpha) ** b, atol=1e-12)


@pytest.mark.parametrize("fields", [("z",), ("z", "w"), ()])
def test_same_energy(mixed: tuple[vdsl.Model, Expansion], fields: tuple[str, ...]) -> None:
    model, expansion = mixed
    polar = polar_expansion(expansion, fields)
    rng = np.random.default_rng(0)
    x = {
        "a": np.exp(1j * rng.uniform(-3, 3, (20, 4))),
        "z": rng.standard_normal((20, 4)) + 1j * rng.standard_normal((20, 4)),
        "s": rng.choice([-1, 1], (20, 4)),
        "w": rng.standard_normal((20, 4)) + 1j * rng.standard_normal((20, 4)),
        "x": rng.standard_normal((20, 4)),
    }
    cartesian = {f: variables_of(model.program, x)[:, b.first : b.first + b.elements * b.components]
                 for b in expansion.blocks for f in [b.field]}  # fmt: skip
    polar_parts = {f: np.concatenate([np.abs(x[f]), np.angle(x[f])], 1) for f in fields}
    values = np.concatenate([polar_parts.get(f, cartesian[f]) for f in cartesian], 1)
    np.testing.assert_allclose(polar.evaluate(values), expansion.evaluate(variables_of(model.program, x)), rtol=1e-10)
    for g in polar.groups:
        assert (np.diff(g.scopes, axis=1) > 0).all()
        assert len({tuple(polar.kinds()[row]) for row in g.scopes}) == 1
    by_field = {(b.field, b.kind): b.first for b in polar.blocks}
    for f in fields:
        assert by_field[f, "angle"] == by_field[f, "radius"] + 4


def test_what_cancels_is_gone() -> None:
    """|z|⁴ has no phase, and coordinates go along with their element."""
    model = vdsl.loads(
        "lattice hypercubic(2, 3)\nfield z : complex\ninteraction v = sum(i in sites: abs(z[i])^4)\ntemperature 1"
    )
    expansion = expand_energy(model.program, resolve_parameters(model.program, {}))
    polar = polar_expansion(expansion, ("z",))
    (group,) = polar.groups
    assert group.exponents == (4,)
    np.testing.assert_allclose(group.coefficients, 1)
    np.testing.assert_array_equal(polar.coordinates[:6], expansion.coordinates[::2])
    np.testing.assert_array_equal(polar.coordinates[6:], expansion.coordinates[::2])
