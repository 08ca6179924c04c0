"""Numbers into estimates: means, blocking, autocorrelation, block jackknife, effective sample size.

Everything is float64 NumPy on the host. Weights enter as logarithms and are only ever exponentiated relative to their
largest, so that weights that differ by e^1000 neither overflow nor turn into 0/0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vdsl.errors import InternalError

BLOCKS = 200  # jackknife blocks: the error of an error is then 1/sqrt(2·200) = 5 %


@dataclass(frozen=True)
class Estimate:
    """A value with one standard error and the method that gave it.

    `n_eff` is the number of independent samples it is worth; `bound` is "upper" or "lower" when the expectation of
    `value` bounds the exact number from that side.
    """

    value: float
    error: float
    method: str
    n_eff: float | None = None
    bound: str | None = None

    def __str__(self) -> str:
        return f"{self.value:.8g} ± {self.error:.2g}"

    def to_json(self) -> dict[str, float | str]:
        """The estimate as `result.json` holds it."""
        out: dict[str, float | str] = {"value": self.value, "error": self.error, "method": self.method}
        return out | ({"bound": self.bound} if self.bound is not None else {})


def mean(x: np.ndarray, method: str = "mean") -> Estimate:
    """The average of n independent numbers, shape (n,), and its standard error s/√n."""
    x = _vector(x)
    return Estimate(float(x.mean()), float(x.std(ddof=1) / np.sqrt(len(x))), method, float(len(x)))


def log_mean_exp(log_x: np.ndarray) -> float:
    """ln of the mean of e^{log_x}, shape (n,)."""
    log_x = np.asarray(log_x, np.float64)
    return _log_sum_exp(log_x) - float(np.log(len(log_x)))


def ess(log_weights: np.ndarray) -> float:
    """The normalised effective sample size (Σw)²/(nΣw²), in [1/n, 1] (Kish 1965)."""
    log_weights = np.asarray(log_weights, np.float64)
    w = np.exp(log_weights - log_weights.max())
    return float(min(w.sum() ** 2 / (len(w) * (w**2).sum()), 1.0))  # equal weights may round to a little more


def correlated_mean(x: np.ndarray, method: str = "chain") -> Estimate:
    """The average of chains, shape (n,) or (chains, n), with the error that autocorrelation leaves: √(τ s²/N)."""
    chains = _chains(x)
    tau = autocorrelation_time(chains)
    n_eff = chains.size / tau
    # The spread about the common mean, so that chains which sit in different places widen the error.
    return Estimate(float(chains.mean()), float(chains.std() / np.sqrt(max(n_eff - 1, 1))), method, float(n_eff))


def autocorrelation_time(x: np.ndarray) -> float:
    """The integrated autocorrelation time τ = 1 + 2Σ_t ρ(t) ≥ 1 of chains, shape (n,) or (chains, n).

    τ is the number of steps that one independent sample costs. The sum is cut by Geyer's initial positive and monotone
    sequence of pair sums ρ(2t) + ρ(2t+1) (Geyer 1992, Statist. Sci. 7, 473); correlations are averaged over chains
    about the common mean. A constant chain has τ = 1.
    """
    chains = _chains(x)
    m, n = chains.shape
    centred = chains - chains.mean()
    variance = float((centred**2).mean())
    if variance <= 1e-28 * max(1.0, float((chains**2).mean())):
        return 1.0
    spectrum = np.fft.rfft(centred, 2 * n, axis=1)
    products = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :n].sum(0)
    rho = products / (m * np.arange(n, 0, -1)) / variance
    pairs = rho[: n - n % 2].reshape(-1, 2).sum(1)
    negative = np.flatnonzero(pairs <= 0)
    pairs = np.minimum.accumulate(pairs[: negative[0] if len(negative) else len(pairs)])
    return float(min(max(1.0, 2 * pairs.sum() - 1), m * n))


def blocking_error(x: np.ndarray) -> float:
    """The standard error of the mean of a correlated series, shape (n,), by blocking.

    Neighbours are averaged in pairs, level by level (Flyvbjerg & Petersen 1989, J. Chem. Phys. 91, 461). The level
    taken is the first with B³ > 2n(σ_B/σ_1)⁴, B the block size, where bias and noise of the error balance (Lee et al.
    2011, Phys. Rev. E 83, 066706, eq. 9); the last level with four blocks if there is none.
    """
    x = _vector(x)
    n, first, block, error = len(x), None, 1, 0.0
    while len(x) >= 4 or first is None:
        error = float(x.std(ddof=1) / np.sqrt(len(x)))
        if first is None:
            first = error
        if first == 0 or block**3 > 2 * n * (error / first) ** 4:
            break
        x = x[: len(x) - len(x) % 2].reshape(-1, 2).mean(1)
        block *= 2
    return error


def r_hat(x: np.ndarray) -> float:
    """Split-R̂ of chains, shape (chains, n): 1 when halves of all chains agree (Gelman et al. 2013, eq. 11.4).

    Constant chains that agree give 1, constant chains that differ give infinity.
    """
    chains = _chains(x)
    half = chains.shape[1] // 2
    if half < 2:
        raise InternalError("R-hat needs four samples in each chain")
    halves = np.concatenate([chains[:, :half], chains[:, -half:]])
    within = float(halves.var(axis=1, ddof=1).mean())
    between = float(halves.mean(1).var(ddof=1))
    if within <= 1e-28 * max(1.0, float((chains**2).mean())):
        return 1.0 if between <= 1e-28 * max(1.0, float((chains**2).mean())) else float("inf")
    return float(np.sqrt((half - 1) / half + between / within))


@dataclass(frozen=True)
class Replicates:
    """Weighted averages of k columns and ln of the mean weight: over everything, and with each block left out.

    means (k,); log_mean_weight (); left_out (blocks, k); left_out_log_mean_weight (blocks,).
    """

    means: np.ndarray
    log_mean_weight: float
    left_out: np.ndarray
    left_out_log_mean_weight: np.ndarray
    n_eff: float


def replicates(columns: np.ndarray, log_weights: np.ndarray | None = None, blocks: int = BLOCKS) -> Replicates:
    """Averages Σwa/Σw of the columns a, shape (n, k), with weights e^{log_weights}, shape (n,); equal ones if None.

    Blocks are runs of neighbours whose sizes differ by one at most, no more than there are samples; pass fewer blocks
    than n/τ for correlated samples.
    """
    columns = np.asarray(columns, np.float64)
    n = len(columns)
    log_w = np.zeros(n) if log_weights is None else np.asarray(log_weights, np.float64)
    if n < 2 or log_w.shape != (n,):
        raise InternalError(f"a jackknife of {n} samples with weights of shape {log_w.shape}")
    count = min(blocks, n)
    starts = np.arange(count) * n // count
    sizes = np.diff(np.append(starts, n))
    # Each block relative to its own largest weight: a block may be left out without any cancellation or underflow.
    peaks = np.maximum.reduceat(log_w, starts)
    w = np.exp(log_w - np.repeat(peaks, sizes))
    block_weight = np.add.reduceat(w, starts)
    block_mean = np.add.reduceat(w[:, None] * columns, starts, axis=0) / block_weight[:, None]
    block_log_weight = peaks + np.log(block_weight)

    every = np.repeat(block_log_weight[None], count, axis=0)
    np.fill_diagonal(every, -np.inf)
    top = every.max(1)
    share = np.exp(every - top[:, None])
    left_out = share @ block_mean / share.sum(1)[:, None]
    left_out_log = top + np.log(share.sum(1)) - np.log(n - sizes)

    total = _log_sum_exp(block_log_weight)
    means = np.exp(block_log_weight - total) @ block_mean
    return Replicates(means, total - float(np.log(n)), left_out, left_out_log, n * ess(log_w))


def jackknife(
    function: Callable[[np.ndarray, float], float], averages: Replicates, method: str = "importance"
) -> Estimate:
    """The value of a function of (means, ln of the mean weight), and its block-jackknife error.

    error² = (B−1)/B Σ_b (f_b − f̄)² (Efron 1982). The value is the plug-in one: its bias is of order 1/n_eff and the
    jackknife's correction of it would cost more in variance.
    """
    value = float(function(averages.means, averages.log_mean_weight))
    parts = zip(averages.left_out, averages.left_out_log_mean_weight, strict=True)
    left_out = np.array([float(function(means, float(log_w))) for means, log_w in parts])
    b = len(left_out)
    error = float(np.sqrt((b - 1) / b * ((left_out - left_out.mean()) ** 2).sum()))
    return Estimate(value, error, method, averages.n_eff)


def _log_sum_exp(log_x: np.ndarray) -> float:
    top = float(log_x.max())
    return top + float(np.log(np.exp(log_x - top).sum()))


def _vector(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    if x.ndim != 1 or len(x) < 2:
        raise InternalError(f"an error bar needs a vector of two numbers or more, not shape {x.shape}")
    return x


def _chains(x: np.ndarray) -> np.ndarray:
    x = np.atleast_2d(np.asarray(x, np.float64))
    if x.ndim != 2 or x.shape[1] < 2:
        raise InternalError(f"chains have shape (chains, n) with n > 1, not {x.shape}")
    return x
