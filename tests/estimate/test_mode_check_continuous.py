"""The mode check of continuous fields: silent for good guides, loud for one that covers one well of two."""

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

import vdsl
from vdsl.estimate.importance import Draw
from vdsl.estimate.modes import check_modes_continuous

# e^{−E} is a mixture of two normal densities in eight dimensions, far apart, with weights 1 : ½.
WELLS = """
lattice chain(8)
field x : real
interaction e = -log(exp(-2 * sum(i in sites: (x[i] - 1.5)^2)) + 0.5 * exp(-2 * sum(i in sites: (x[i] + 1.5)^2)))
temperature 1
"""
NORM = 4 * np.log(np.pi / 2)
FREE = """
lattice chain(6)
field x : real
interaction e = sum(i in sites: x[i]^2)
temperature 1
"""


def log_parts(x):
    x = np.asarray(x, float)
    return np.stack([-2 * ((x - 1.5) ** 2).sum(1), np.log(0.5) - 2 * ((x + 1.5) ** 2).sum(1)])


def guide(p):
    """ln q of the mixture with weight p in the first well."""

    def log_q(c):
        first, second = log_parts(c["x"]) - NORM
        with np.errstate(divide="ignore"):
            return np.logaddexp(np.log(p) + first, np.log(1 - p) + second - np.log(0.5))

    return log_q


@pytest.mark.parametrize(("p", "alarm"), [(1.0, True), (1 - 1e-9, True), (2 / 3, False), (0.6, False)])
def test_two_wells(p, alarm):
    rng = np.random.default_rng(0)
    x = np.where(rng.random(4000) < p, 1.5, -1.5)[:, None] + 0.5 * rng.normal(size=(4000, 8))
    draw = Draw({"x": x}, guide(p)({"x": x}), -logsumexp(log_parts(x), axis=0), 1.0, {})
    check = check_modes_continuous(draw, vdsl.loads(WELLS), guide(p), jax.random.key(0))
    assert [w.code for w in check.warnings] == (["modes-missing"] if alarm else [])
    assert (check.forward_ess < 1e-6) == alarm
    assert abs(check.ln_z_bridge.value - NORM - np.log(1.5)) < max(4 * check.ln_z_bridge.error, 1e-6)
    assert check.ln_z_annealed is not None
    assert abs(check.ln_z_annealed.value - NORM - np.log(1.5)) < 5 * check.ln_z_annealed.error
    assert check.reverse_ess > 0.9


@pytest.mark.parametrize("width", [1.0, 1.15])
def test_a_good_guide_is_not_accused(width):
    """Normal densities beside a normal density: exact, and a little too wide."""
    rng = np.random.default_rng(1)
    scale = width / np.sqrt(2)
    log_q = lambda c: (-0.5 * (np.asarray(c["x"], float) / scale) ** 2 - np.log(scale * np.sqrt(2 * np.pi))).sum(1)  # noqa: E731
    x = scale * rng.normal(size=(4000, 6))
    draw = Draw({"x": x}, log_q({"x": x}), (x**2).sum(1), 1.0, {})
    check = check_modes_continuous(draw, vdsl.loads(FREE), log_q, jax.random.key(2))
    assert check.warnings == ()
    assert check.ln_z_bridge.value == pytest.approx(3 * np.log(np.pi), abs=max(4 * check.ln_z_bridge.error, 1e-4))
    assert check.r_hat < 1.1
