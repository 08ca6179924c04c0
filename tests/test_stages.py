"""Training on half the side first: where it happens, what carries over, and that a stopped run goes on in its stage."""

import sys
from contextlib import contextmanager
from functools import partial

import jax
import numpy as np
import pytest

import vdsl
from vdsl import stages
from vdsl.fit import Interrupted, never_stop
from vdsl.guides import continuous, registry
from vdsl.guides.problem import Problem
from vdsl.ir.halved import halved
from vdsl.report import write
from vdsl.report.progress import Progress
from vdsl.run import SolveSettings

pytestmark = pytest.mark.usefixtures("quick_compilations")

PHI4 = """
param L : int = 16
param lam = 4.96
lattice hypercubic(L, L{boundary})
field phi : real
interaction kinetic = sum(<i, j> in nn: (phi[i] - phi[j])^2)
interaction potential = sum(i in sites: -4 * phi[i]^2 + lam * phi[i]^4)
temperature 1
observable m2 = mean(i in sites: phi[i])^2
"""

RANDOM_FIELD = """
data h on sites ~ normal(0, 1) seed 1
interaction field = sum(i in sites: h[i] * phi[i])
"""


def problem(source: str = PHI4, boundary: str = "", **overrides: float) -> Problem:
    program = vdsl.loads(source.format(boundary=boundary), **overrides).program
    return Problem(program, {"lam": 4.96})


def test_the_half_is_the_model_on_half_the_side():
    """Same energy function as the model written for L = 8."""
    small = vdsl.Model(halved(problem().program))
    written = vdsl.loads(PHI4.format(boundary=""), L=8)
    x = written.random_configuration(jax.random.key(0), 5)
    np.testing.assert_allclose(small.energies(x), written.energies(x), rtol=1e-6)
    assert small.program.lattice.shape == (8, 8)
    assert not small.program.observables


@pytest.mark.parametrize(
    ("boundary", "overrides", "source"),
    [
        (", boundary = open", {}, PHI4),
        ("", {"L": 10}, PHI4),  # 5 is too short
        ("", {"L": 17}, PHI4),
        ("", {}, PHI4 + RANDOM_FIELD),
    ],
)
def test_no_half(boundary: str, overrides: dict, source: str):
    """Boundaries, sides and data that have no half."""
    assert halved(problem(source, boundary, **overrides).program) is None


def test_stages_are_described():
    """What `vdsl explain` prints, for guides whose weights carry over and for others."""
    large = problem(L=32)
    assert stages.describe(large, registry.choose(large, "continuous")) == "8×8, 16×16"
    assert stages.describe(problem(), registry.choose(problem(), "autoregressive")) == ""


@pytest.fixture(scope="module")
def staged(quick_compilations):
    """What `begin` takes and, for a run of few steps of a small flow, what it gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(continuous, "_STEPS", 1)
        p = problem()
        choice = registry.choose(p, "continuous")
        begin = partial(
            stages.begin, p, choice, registry.build(choice, p), SolveSettings(seed=0, steps=30, batch=32), None,
            progress=Progress(sys.stderr, True),
        )  # fmt: skip
        yield p, choice, begin, begin(directory=None, guard=never_stop)


@pytest.mark.slow
def test_a_stage_is_a_better_start(staged):
    """The variance of ln w at L = 16 after 30 steps at L = 8 alone."""
    p, choice, _, beginning = staged
    guide = registry.build(choice, p)
    variance = {}
    draw = jax.jit(lambda params: guide.sample_and_log_prob(params, jax.random.key(1), 256))
    for name, params in (("staged", beginning.params), ("fresh", guide.init(jax.random.key(0)))):
        x, log_q = draw(params)
        variance[name] = float(np.var(-np.asarray(p.model.energies(x)) - np.asarray(log_q)))
    assert variance["staged"] < 0.5 * variance["fresh"]
    assert beginning.seconds > 0


@pytest.mark.slow
def test_a_stopped_stage_goes_on(staged, tmp_path):
    """Stopped in its stage and continued, it ends with the bits of one that was never stopped."""
    _, _, begin, whole = staged
    answers = iter([True])

    @contextmanager
    def stop_at_once():
        yield lambda: next(answers, False)

    with pytest.raises(Interrupted):
        begin(directory=tmp_path, guard=stop_at_once)
    assert (tmp_path / write.STAGES / "8x8.npz").exists()
    continued = begin(directory=tmp_path, guard=never_stop)
    for a, b in zip(jax.tree.leaves(whole.params), jax.tree.leaves(continued.params), strict=True):
        np.testing.assert_array_equal(a, b)
