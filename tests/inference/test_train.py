"""Training: reaches the exact free energy, compiles once, keeps to its plan, resumes to the bit, notices bad values."""

from __future__ import annotations

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from guides.small_models import Small, compiled, small
from vdsl.errors import VfeError
from vdsl.exact.elimination import log_partition
from vdsl.guides.problem import Problem
from vdsl.guides.registry import GUIDES, build, choose
from vdsl.inference import train as training
from vdsl.inference.train import finished, initial_state, plan, train
from vdsl.ir.interpret import resolve_parameters

pytestmark = pytest.mark.usefixtures("quick_compilations")

TORUS = (
    "param J = 1.0\nparam T = 2.269185314213022\nlattice square(6, 6)\nfield s : spin\n"
    "interaction e = -J * sum(<i, j> in nn: s[i] * s[j])\ntemperature T\n"
)


def keep_going(state, log) -> bool:
    return True


def torus() -> Small:
    return small(TORUS)


@pytest.fixture(scope="module")
def trained():
    """A 6 × 6 torus at T_c with blocks three wide: its chunks, its guide and where training ended."""
    guide = torus().autoregressive(3, hidden=8)
    assert guide.skeleton.shape[0] >= 9
    schedule = plan(guide, steps=150, batch=256, seed=1)
    logs = []
    state = train(guide, schedule, initial_state(guide, schedule), lambda _, log: logs.append(log) or True)
    return guide, schedule, state, logs


def test_reaches_the_exact_free_energy(trained):
    guide, _, state, _ = trained
    exact = log_partition(torus().graph, torus().temperature)

    @jax.jit
    def run(guide, params, key):
        return guide.sample_and_log_prob(params, key, 4096)

    x, log_q = compiled(run, guide, state.params, jax.random.key(7))
    r = torus().graph.energy((np.asarray(x["s"]) + 1) // 2) / torus().temperature + np.asarray(log_q, float)
    error = r.std() / math.sqrt(len(r))
    assert -exact - 4 * error <= r.mean() <= -exact + 0.05
    w = np.exp(-(r - r.min()))
    assert w.sum() ** 2 / (len(w) * (w**2).sum()) > 0.9
    assert math.log(np.exp(-r - exact).mean()) == pytest.approx(0, abs=0.02)


def test_the_log(trained):
    guide, schedule, state, logs = trained
    assert [log.step for log in logs] == list(range(10, 151, 10))
    assert int(state.step) == 150
    # Annealing starts where local fields are of order one and ends after its share of the steps.
    assert schedule.anneal_from == pytest.approx(2 / float(guide.typical_field))
    assert 0 < schedule.anneal_from < 1
    ends = [log.scale for log in logs]
    assert schedule.anneal_from < ends[0] < 1
    assert ends == sorted(ends)
    assert all(log.scale == 1 for log in logs if log.step > schedule.anneal * 150)
    # F_q = T/scale · E[u + ln q] bounds the exact free energy from above.
    exact = -torus().temperature * log_partition(torus().graph, torus().temperature)
    assert exact - 0.1 < logs[-1].free_energy < exact + 0.2
    assert logs[-1].ess > 0.9
    assert all(log.steps_per_second > 0 for log in logs)


def test_annealing_starts_where_local_fields_are_of_order_one():
    """Four bonds of spread 2J/T each: the typical field is 8J/T, so β starts at 2/(8J/T) of its value, at most at 1."""
    cold = small(TORUS.replace("2.269185314213022", "1.0")).autoregressive(3)
    hot = small(TORUS.replace("2.269185314213022", "8.0")).autoregressive(3)
    assert cold.anneal_from() == pytest.approx(0.25)
    assert hot.anneal_from() == 1.0


def test_one_compilation_for_a_run_and_for_a_sweep(monkeypatch):
    """New values of T and J are new arrays in the same program."""
    model = torus()
    choice = GUIDES["autoregressive"].choose(Problem(model.program, model.theta))
    traces = []
    original = training.one_step
    monkeypatch.setattr(training, "one_step", lambda *a, **k: traces.append(1) or original(*a, **k))
    for number, (t, j) in enumerate([(2.3, 1.0), (2.0, 1.0), (3.0, 0.7), (2.5, -1.0)]):
        theta = resolve_parameters(model.program, {"T": t, "J": j})
        guide = build(_narrow(model, choice), Problem(model.program, theta))
        schedule = plan(guide, steps=20 + 5 * number, batch=17, seed=number)  # 17: nobody else has compiled this
        train(guide, schedule, initial_state(guide, schedule), keep_going)
        assert len(traces) == 1


def _narrow(model: Small, choice):
    """The default guide's choice with a skeleton forced on it, small enough to compile fast."""
    return replace(choice, structure=replace(choice.structure, dissection=model.dissected(2), hidden=4))


def test_stopping_and_resuming_equals_never_stopping():
    guide = torus().autoregressive(3, hidden=4)
    schedule = plan(guide, steps=20, batch=16, seed=5)
    whole = train(guide, schedule, initial_state(guide, schedule), keep_going)
    half = train(guide, schedule, initial_state(guide, schedule), lambda state, _: int(state.step) < 10)
    assert int(half.step) == 10
    assert not finished(schedule, half)
    resumed = train(guide, schedule, half, keep_going)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert int(whole.step) == 20
    assert finished(schedule, whole)


def test_chunks_never_run_past_the_plan():
    guide = torus().autoregressive(3, hidden=4)
    schedule = plan(guide, steps=13, batch=16)
    assert int(train(guide, schedule, initial_state(guide, schedule), keep_going).step) == 13


def test_the_deadline_stops():
    guide = torus().autoregressive(3, hidden=4)
    schedule = plan(guide, steps=50, batch=16)
    assert int(train(guide, schedule, initial_state(guide, schedule), keep_going, deadline=0.0).step) == 0


# --- the plan --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "limit", "steps"), [(0.01, 10.0, 1000), (5.0, 10.0, 20), (1e-6, 10.0, 20_000), (0.5, 100.0, 200)]
)
def test_the_number_of_steps_fits_the_time(monkeypatch, seconds: float, limit: float, steps: int):
    """limit/seconds, but at least 20 and at most 20000."""
    monkeypatch.setattr(training, "_seconds_per_step", lambda guide, plan: seconds)
    found = plan(torus().autoregressive(3, hidden=4), time_limit=limit).steps
    assert 0.98 * steps - 1 <= found <= steps


def test_compiling_and_timing_count_against_the_limit(monkeypatch):
    clock = iter([100.0, 104.0])
    monkeypatch.setattr(training, "_seconds_per_step", lambda guide, plan: 0.01)
    guide = torus().autoregressive(3, hidden=4)
    monkeypatch.setattr(training.time, "monotonic", lambda: next(clock))
    assert plan(guide, time_limit=10).steps == 600


def test_steps_overrule_the_time(monkeypatch):
    monkeypatch.setattr(training, "_seconds_per_step", lambda guide, plan: pytest.fail("nothing to time"))
    guide = torus().autoregressive(3, hidden=4)
    assert plan(guide, time_limit=10, steps=77).steps == 77
    assert plan(guide).steps == 2000


def test_nothing_to_train():
    guide = torus().guide("exact")
    schedule = plan(guide, time_limit=10)
    assert schedule.steps == 0
    state = initial_state(guide, schedule)
    assert finished(schedule, state)
    assert train(guide, schedule, state, lambda *_: pytest.fail("no chunk")) is state


@pytest.mark.parametrize("wrong", [{"batch": 1}, {"steps": 0}, {"steps": -3}])
def test_settings_that_cannot_be(wrong: dict):
    with pytest.raises(VfeError) as caught:
        plan(torus().autoregressive(3, hidden=4), **wrong)
    assert caught.value.exit_code == 2
    assert [d.code for d in caught.value.diagnostics] == ["bad-setting"]


def test_finished():
    guide = torus().autoregressive(3, hidden=4)
    schedule = replace(plan(guide, steps=1000), anneal=0.25, enough=1e-4, decay=0.5)
    fresh = initial_state(guide, schedule)
    assert int(fresh.turn) == 500

    def done(**values) -> bool:
        return finished(schedule, fresh._replace(**{k: jnp.asarray(v) for k, v in values.items()}))

    assert not done()
    assert not done(step=999)
    assert done(step=1000)
    # Exact enough: only once annealing is over and the running mean has forgotten it.
    assert not done(step=350, variance=1e-5)
    assert done(step=351, variance=1e-5)
    assert not done(step=351, variance=2e-4)
    # The rate began to fall early, at 300: zero at 600.
    assert not done(step=599, turn=300)
    assert done(step=600, turn=300)


def test_the_learning_rate():
    """Warm-up over 2 %, the peak, half a cosine to zero; an early turn takes as long as it took to get there."""
    found = training.schedule(replace(plan(torus().autoregressive(3, hidden=4), steps=1000), decay=0.5))
    peak = float(found.learning_rate)
    for step, turn, expected in [
        (0, 500, 1 / 20), (9, 500, 0.5), (19, 500, 1), (500, 500, 1), (750, 500, 0.5), (1000, 500, 0),
        (300, 300, 1), (450, 300, 0.5), (600, 300, 0),
    ]:  # fmt: skip
        rate = found.rate(jnp.asarray(step), jnp.asarray(turn))
        assert float(rate) == pytest.approx(peak * expected, rel=1e-4, abs=1e-9)


def test_an_energy_that_is_not_a_number_stops_the_run():
    """ln 0 where all spins cancel: the first chunk meets it."""
    model = small(
        "lattice chain(12)\nfield s : spin\ninteraction e = -sum(<i, j> in nn: s[i] * s[j])"
        " + log(abs(sum(i in sites: s[i])))\ntemperature 1"
    )
    program = model.program
    problem = Problem(program, model.theta)
    guide = build(choose(problem, "mean_field"), problem)
    schedule = plan(guide, steps=20, batch=64)
    with pytest.raises(VfeError) as caught:
        train(guide, schedule, initial_state(guide, schedule), keep_going)
    assert caught.value.exit_code == 3
    assert [d.code for d in caught.value.diagnostics] == ["non-finite"]
