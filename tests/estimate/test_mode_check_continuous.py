"""The mode check of continuous fields: silent for good guides, loud for one that covers one well of two."""

from functools import cache

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


@cache
def wells():
    """One model object for all checks: they share their compiled programs."""
    return vdsl.loads(WELLS)


@pytest.mark.parametrize(("p", "alarm"), [(1.0, True), (1 - 1e-9, True), (2 / 3, False), (0.6, False)])
@pytest.mark.slow
def test_two_wells(p, alarm):
    rng = np.random.default_rng(0)
    x = np.where(rng.random(4000) < p, 1.5, -1.5)[:, None] + 0.5 * rng.normal(size=(4000, 8))
    draw = Draw({"x": x}, guide(p)({"x": x}), -logsumexp(log_parts(x), axis=0), 1.0, {})
    check = check_modes_continuous(draw, wells(), guide(p), jax.random.key(0))
    assert [w.code for w in check.warnings] == (["modes-missing"] if alarm else [])
    assert (check.forward_ess < 1e-6) == alarm
    assert abs(check.ln_z_bridge.value - NORM - np.log(1.5)) < max(4 * check.ln_z_bridge.error, 1e-6)
    assert check.ln_z_annealed is not None
    assert abs(check.ln_z_annealed.value - NORM - np.log(1.5)) < 5 * check.ln_z_annealed.error
    assert check.reverse_ess > 0.9
