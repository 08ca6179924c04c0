"""Free energies of draws from known guides for models whose ln Z is known."""

import numpy as np
import pytest

from vdsl.errors import VfeError
from vdsl.estimate.importance import Draw, ln_z, log_weights, pareto_k, quality, variational_free_energy


def gaussian_draw(rng: np.random.Generator, n: int, width: float, T: float = 1.0) -> Draw:
    """q = N(0, width²) for E = T x²/2: ln Z = ½ ln 2π."""
    x = width * rng.standard_normal(n)
    return Draw({"x": x[:, None]}, -0.5 * (x / width) ** 2 - np.log(width) - 0.5 * np.log(2 * np.pi), T * x**2 / 2, T)


LN_Z = 0.5 * np.log(2 * np.pi)


def test_perfect_guide_is_exact():
    draw = gaussian_draw(np.random.default_rng(0), 100, 1.0, T=2.5)
    for estimate, exact in ((variational_free_energy(draw), -2.5 * LN_Z), (ln_z(draw), LN_Z)):
        assert estimate.value == pytest.approx(exact, abs=1e-14)
        assert estimate.error < 1e-14
    q = quality(draw)
    assert q.ess == pytest.approx(1)
    assert q.pareto_k == 0
    assert q.variance < 1e-28


def test_variational_free_energy_is_the_known_bound():
    width = 1.3
    exact = -LN_Z + 0.5 * (width**2 - 1) - np.log(width)  # KL(q‖p) − ln Z
    e = variational_free_energy(gaussian_draw(np.random.default_rng(1), 40000, width))
    assert abs(e.value - exact) < 4 * e.error
    assert e.bound == "upper"
    assert e.error == pytest.approx((width**2 - 1) / np.sqrt(2 * 40000), rel=0.05)


@pytest.mark.parametrize("width", [0.85, 1.4])
def test_ln_z_error_is_honest(width):
    """|ln Ẑ − ln Z|/σ has unit spread over repeated experiments."""
    rng = np.random.default_rng(2)
    pulls = []
    for _ in range(300):
        e = ln_z(gaussian_draw(rng, 2000, width))
        pulls.append((e.value - LN_Z) / e.error)
    assert np.std(pulls) == pytest.approx(1, abs=0.12)
    assert abs(np.mean(pulls)) < 4 / np.sqrt(300)


def test_an_exact_guide_in_single_precision_has_the_error_of_its_arithmetic():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((50, 1000)).astype(np.float32)
    energy = (0.5 * x**2).sum(1, dtype=np.float32)
    log_q = (-0.5 * x**2 - np.float32(LN_Z)).sum(1, dtype=np.float32)
    for e, exact in (
        (ln_z(Draw({}, log_q, energy, 1.0)), 1000 * LN_Z),
        (variational_free_energy(Draw({}, log_q, energy, 1.0)), -1000 * LN_Z),
    ):
        assert abs(e.value - exact) < 3 * e.error
        assert e.error < 1e-3


def test_ln_z_error_with_one_dominating_weight_is_large_and_finite():
    e = ln_z(Draw({}, np.zeros(1000), -np.r_[900.0, np.zeros(999)], 1.0))
    assert e.value == pytest.approx(900 - np.log(1000))
    assert 100 < e.error < 1000


@pytest.mark.parametrize(("width", "k"), [(0.5, 0.75), (0.7, 0.51), (0.9, 0.19)])
def test_pareto_k_of_a_gaussian_that_is_too_narrow(width, k):
    """w = c e^{−x²(1−1/s²)/2} has P(w > t) ~ t^{−1/k} up to logarithms, k = 1 − s²."""
    draw = gaussian_draw(np.random.default_rng(3), 100_000, width)
    assert pareto_k(log_weights(draw)) == pytest.approx(k, abs=0.15)


def test_pareto_k_of_pareto_weights():
    log_w = 0.4 * np.random.default_rng(4).exponential(size=200_000)  # P(w > t) = t^{-1/0.4}
    assert pareto_k(log_w) == pytest.approx(0.4, abs=0.08)
    assert pareto_k(2 * log_w) == pytest.approx(0.8, abs=0.1)


def test_few_distinct_weights_have_no_tail():
    rng = np.random.default_rng(5)
    assert pareto_k(np.log(rng.choice([1.0, 2.0, 5.0], 5000))) == 0.0


def test_warnings():
    rng = np.random.default_rng(6)
    assert quality(gaussian_draw(rng, 4000, 1.1)).warnings == ()
    assert "heavy-tails" in [w.code for w in quality(gaussian_draw(rng, 10_000, 0.3)).warnings]
    q = quality(Draw({}, np.zeros(100), np.zeros(100), 1.0))
    assert [w.code for w in q.warnings] == ["low-ess"]  # 100 perfect samples are still only 100


@pytest.mark.parametrize(("column", "value"), [("energy", np.nan), ("energy", np.inf), ("log_q", -np.inf)])
def test_non_finite_weights_are_errors(column, value):
    arrays = {"energy": np.zeros(5), "log_q": np.zeros(5)}
    arrays[column][3] = value
    with pytest.raises(VfeError) as raised:
        log_weights(Draw({}, temperature=1.0, **arrays))
    assert raised.value.exit_code == 3
    assert raised.value.diagnostics[0].code == "non-finite"
    assert "sample 3" in str(raised.value)


def test_the_interaction_to_blame_is_named():
    energy = np.array([0.0, np.nan])
    with pytest.raises(VfeError, match=r"interaction `wall` is nan for sample 1"):
        log_weights(Draw({}, np.zeros(2), energy, 1.0), {"bulk": np.zeros(2), "wall": energy})
