"""Statistics against closed forms and against the spread of repeated experiments."""

import numpy as np
import pytest

from vdsl.errors import InternalError
from vdsl.estimate import stats


def autoregressive(rng: np.random.Generator, rho: float, chains: int, n: int) -> np.ndarray:
    """x' = ρx + √(1−ρ²)ε, stationary: variance 1, τ = (1+ρ)/(1−ρ)."""
    x = np.empty((chains, n))
    x[:, 0] = rng.standard_normal(chains)
    noise = np.sqrt(1 - rho**2) * rng.standard_normal((chains, n))
    for t in range(1, n):
        x[:, t] = rho * x[:, t - 1] + noise[:, t]
    return x


def test_mean_and_standard_error():
    e = stats.mean(np.array([1.0, 2.0, 3.0, 4.0]), "variational")
    assert e.value == 2.5
    assert e.error == pytest.approx(np.sqrt(5 / 3 / 4))
    assert e.to_json() == {"value": 2.5, "error": e.error, "method": "variational"}


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_autocorrelation_time(rho):
    x = autoregressive(np.random.default_rng(1), rho, 16, 20000)
    assert stats.autocorrelation_time(x) == pytest.approx((1 + rho) / (1 - rho), rel=0.06)
    assert stats.autocorrelation_time(x[0]) == pytest.approx((1 + rho) / (1 - rho), rel=0.2)


def test_autocorrelation_of_a_constant_is_one():
    assert stats.autocorrelation_time(np.full(100, 3.7)) == 1.0


def test_chains_that_never_meet_count_as_one_sample_each():
    x = np.repeat(np.array([[-1.0], [1.0]] * 4), 1000, axis=1) + 1e-3 * autoregressive(
        np.random.default_rng(0), 0.0, 8, 1000
    )
    assert stats.correlated_mean(x).n_eff < 30
    assert stats.r_hat(x) > 10


@pytest.mark.parametrize("rho", [0.0, 0.8])
def test_blocking_and_correlated_mean_give_the_true_error(rho):
    n = 2**14
    x = autoregressive(np.random.default_rng(2), rho, 40, n)
    exact = np.sqrt((1 + rho) / (1 - rho) / n)
    assert np.mean([stats.blocking_error(row) for row in x]) == pytest.approx(exact, rel=0.08)
    assert np.mean([stats.correlated_mean(row).error for row in x]) == pytest.approx(exact, rel=0.08)


def test_r_hat_of_stationary_chains_is_one():
    assert stats.r_hat(autoregressive(np.random.default_rng(3), 0.5, 8, 4000)) == pytest.approx(1, abs=0.01)
    assert stats.r_hat(np.ones((4, 10))) == 1.0
    assert stats.r_hat(np.array([[0.0] * 10, [1.0] * 10])) == np.inf


def test_ess_extremes():
    assert stats.ess(np.full(10, 1234.5)) == pytest.approx(1)
    assert stats.ess(np.array([0.0, -1e4, -1e4, -1e4])) == pytest.approx(0.25)
    assert stats.ess(np.log([1.0, 2.0, 3.0])) == pytest.approx(36 / 42)


def test_log_mean_exp_far_from_zero():
    assert stats.log_mean_exp(np.array([-5000.0, -5000.0 + np.log(3)])) == pytest.approx(-5000 + np.log(2), abs=1e-12)


def test_replicates_equal_direct_averages():
    rng = np.random.default_rng(4)
    a, log_w = rng.standard_normal((13, 2)), 3 * rng.standard_normal(13)
    r = stats.replicates(a, log_w, blocks=5)
    w = np.exp(log_w)
    np.testing.assert_allclose(r.means, w @ a / w.sum(), rtol=1e-13)
    assert r.log_mean_weight == pytest.approx(np.log(w.mean()))
    starts = np.append(np.arange(5) * 13 // 5, 13)
    for b in range(5):
        keep = np.r_[0 : starts[b], starts[b + 1] : 13]
        np.testing.assert_allclose(r.left_out[b], w[keep] @ a[keep] / w[keep].sum(), rtol=1e-13)
        assert r.left_out_log_mean_weight[b] == pytest.approx(np.log(w[keep].mean()))


def test_replicates_survive_one_overwhelming_weight():
    a = np.arange(4.0)[:, None]
    r = stats.replicates(a, np.array([0.0, 2000.0, 0.0, 0.0]))
    np.testing.assert_allclose(r.means, [1.0])
    np.testing.assert_allclose(r.left_out[:, 0], [1.0, 5 / 3, 1.0, 1.0])


def test_jackknife_of_a_mean_is_the_standard_error():
    x = np.random.default_rng(5).standard_normal(50)
    e = stats.jackknife(lambda a, _: a[0], stats.replicates(x[:, None], blocks=50))
    assert e.error == pytest.approx(stats.mean(x).error, rel=1e-12)


def test_jackknife_of_a_ratio_matches_the_spread_of_repeated_experiments():
    rng = np.random.default_rng(6)
    estimates = []
    for _ in range(400):
        x = rng.exponential(size=1000)
        y = 2 * x + rng.standard_normal(1000)
        log_w = 0.5 * rng.standard_normal(1000)
        estimates.append(stats.jackknife(lambda a, _: a[1] / a[0], stats.replicates(np.stack([x, y], 1), log_w)))
    spread = np.std([e.value for e in estimates])
    assert np.mean([e.error for e in estimates]) == pytest.approx(spread, rel=0.1)


def test_too_few_samples_are_a_bug():
    with pytest.raises(InternalError):
        stats.mean(np.array([1.0]))
    with pytest.raises(InternalError):
        stats.replicates(np.ones((1, 1)))
