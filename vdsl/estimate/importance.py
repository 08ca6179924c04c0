"""A `Draw` into free energies: the variational bound, importance-weighted ln Z, and how far to trust them.

ln w = −E/T − ln q, so that E_q[w] = Z exactly for any normalised q that covers the model's support.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from vdsl.errors import Diagnostic, InternalError, VfeError
from vdsl.estimate.stats import Estimate, ess, log_mean_exp, mean

LOW_ESS = 0.05  # below either of these, averages rest on few samples
LOW_N_EFF = 200.0
HEAVY_TAIL = 0.7  # Vehtari et al. 2024, section 3.2.4


@dataclass(frozen=True)
class Draw:
    """Fresh samples of a guide, one row each.

    x: {field: (n, elements, …)}; log_q: (n,) the guide's normalised log-probability; energy: (n,) the model's energy,
    not divided by the temperature; observables: {name: (n,)}. energy and log_q keep the precision they were computed
    in: `rounding` reads it off their dtype.
    """

    x: dict[str, np.ndarray]
    log_q: np.ndarray
    energy: np.ndarray
    temperature: float
    theta: dict[str, float] = field(default_factory=dict)
    observables: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.log_q)


@dataclass(frozen=True)
class Quality:
    """How well a guide covers its own target, seen from its own samples: it cannot see a mode that q never visits.

    ess: (Σw)²/(nΣw²); variance: Var(ln w); pareto_k: tail index of the largest weights.
    """

    ess: float
    ess_samples: int
    variance: float
    pareto_k: float
    warnings: tuple[Diagnostic, ...] = ()


def log_weights(draw: Draw, terms: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
    """ln w = −E/T − ln q, shape (n,), float64.

    `terms` {interaction: (n,)} lets the error say which interaction is to blame. Raises VfeError `non-finite` if any
    energy or ln q is infinite or NaN: such a sample is never dropped, because the rest would be a biased selection.
    """
    energy = np.asarray(draw.energy, np.float64)
    log_q = np.asarray(draw.log_q, np.float64)
    if energy.shape != log_q.shape or energy.ndim != 1:
        raise InternalError(f"energies of shape {energy.shape} beside log_q of shape {log_q.shape}")
    culprits = {f"interaction `{name}`": np.asarray(values) for name, values in (terms or {}).items()}
    for what, values in {**culprits, "the energy": energy, "ln q of the guide": log_q}.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            raise VfeError(
                Diagnostic(
                    "non-finite",
                    f"{what} is {values[bad[0]]} for sample {bad[0]}",
                    notes=(
                        f"{len(bad)} of {len(values)} samples are affected; an estimate must use all of them or none",
                    ),
                    hints=(
                        "an interaction that is infinite or undefined somewhere needs a guide that avoids the place",
                    ),
                ),
                exit_code=3,
            )
    return -energy / draw.temperature - log_q


def variational_free_energy(draw: Draw) -> Estimate:
    """F_q = E_q[E + T ln q] ≥ F, with the standard error of the mean. No weights, no bias, always an upper bound."""
    log_w = log_weights(draw)
    bound = mean(-draw.temperature * log_w, "variational")
    error = float(np.hypot(bound.error, draw.temperature * rounding(draw)))
    return Estimate(bound.value, error, bound.method, bound.n_eff, "upper")


def ln_z(draw: Draw) -> Estimate:
    """ln Ẑ = ln mean(w), and its error.

    The error is the larger of the delta method's √((1/ESS − 1)/(n−1)) and the leave-one-out jackknife's: they agree
    for light tails, and the jackknife is the larger where single weights matter. No bias correction is made: the bias
    is −σ²/2, small against σ wherever σ means anything, and without a correction E[ln Ẑ] ≤ ln Z holds for every n.
    """
    log_w = log_weights(draw)
    n, fraction = len(log_w), ess(log_w)
    delta = float(np.sqrt(max(1 / fraction - 1, 0.0) / max(n - 1, 1)))
    error = float(np.hypot(max(delta, _leave_one_out_error(log_w)), rounding(draw)))
    return Estimate(log_mean_exp(log_w), error, "importance", n * fraction)


def rounding(draw: Draw) -> float:
    """What the arithmetic alone may be off by in ln w: ε(⟨|E|⟩/T + ⟨|ln q|⟩), ε of the precision each came in.

    It matters where the guide is exact: the weights are then constant, their spread says 0, and ln Z is still only as
    good as the sums it is made of, whose errors are partly common to all samples.
    """

    def epsilon(values: np.ndarray) -> float:
        dtype = np.asarray(values).dtype
        return float(np.finfo(dtype).eps) if np.issubdtype(dtype, np.floating) else float(np.finfo(np.float64).eps)

    energy = epsilon(draw.energy) * float(np.abs(np.asarray(draw.energy, np.float64)).mean()) / draw.temperature
    return energy + epsilon(draw.log_q) * float(np.abs(np.asarray(draw.log_q, np.float64)).mean())


def quality(draw: Draw) -> Quality:
    """ESS, Var(ln w) and the tail index, with warnings `low-ess` and `heavy-tails`."""
    log_w = log_weights(draw)
    n, fraction, k = len(log_w), ess(log_w), pareto_k(log_w)
    warnings = []
    # The limit that n samples can bear, 1 − 1/log10 n, is the stricter one below n = 2200 (ibid., eq. 13).
    limit = min(HEAVY_TAIL, 1 - 1 / np.log10(max(n, 11)))
    if k > limit:
        warnings.append(
            Diagnostic(
                "heavy-tails",
                f"the importance weights are heavy-tailed: Pareto k = {k:.2f}, above {limit:.2f}",
                notes=(
                    "ln Z and its error bar rest on the few largest weights; both are too small more often than not",
                ),
                hints=("train longer, or read the variational free energy, which is a bound in any case",),
                severity="warning",
            )
        )
    if fraction < LOW_ESS or n * fraction < LOW_N_EFF:
        warnings.append(
            Diagnostic(
                "low-ess",
                f"the effective sample size is {fraction:.3g}: {n} samples are worth {n * fraction:.0f}",
                notes=(f"reweighted averages want a fraction above {LOW_ESS} and more than {LOW_N_EFF:.0f} in all",),
                hints=("train longer, draw more samples, or stay closer to the point the guide was trained at",),
                severity="warning",
            )
        )
    return Quality(fraction, n, float(log_w.var(ddof=1)), k, tuple(warnings))


def pareto_k(log_w: np.ndarray) -> float:
    """The tail index k̂ of importance weights: moments of w beyond 1/k̂ do not exist.

    A generalised Pareto distribution is fitted to the min(n/5, 3√n) largest weights (Zhang & Stephens 2009,
    Technometrics 51, 316), shrunk towards ½ with the weight of ten observations (Vehtari et al. 2024, JMLR 25(72),
    appendix C). Weights that are equal to rounding, or with fewer than five distinct exceedances, have no tail: 0.
    """
    log_w = np.sort(np.asarray(log_w, np.float64))
    n = len(log_w)
    m = int(np.ceil(min(n / 5, 3 * np.sqrt(n))))
    if n < 25 or log_w[-1] - log_w[0] < 1e-4:
        return 0.0
    tail = np.exp(log_w[-m:] - log_w[-1]) - np.exp(log_w[-m - 1] - log_w[-1])
    tail = tail[tail > 0]
    if len(np.unique(tail)) < 5:
        return 0.0
    m = len(tail)
    return (_generalised_pareto_shape(tail) * m + 0.5 * 10) / (m + 10)


def _generalised_pareto_shape(x: np.ndarray) -> float:
    """The posterior-mean shape of sorted exceedances x > 0 (Zhang & Stephens 2009, section 3)."""
    n = len(x)
    grid = np.arange(1, 30 + int(np.sqrt(n)) + 1)
    quartile = x[max(int(n / 4 + 0.5) - 1, 0)]
    b = (1 - np.sqrt(len(grid) / (grid - 0.5))) / (3 * quartile) + 1 / x[-1]
    b = b[b != 0]
    k = np.log1p(-b[:, None] * x).mean(1)
    log_likelihood = n * (np.log(-b / k) - k - 1)
    weight = np.exp(log_likelihood - log_likelihood.max())
    b_mean = float((b * weight).sum() / weight.sum())
    return float(np.log1p(-b_mean * x).mean())


def _leave_one_out_error(log_w: np.ndarray) -> float:
    n, top = len(log_w), int(log_w.argmax())
    if n < 2:
        raise InternalError("an error bar needs two samples")
    total = log_mean_exp(log_w) + np.log(n)
    share = np.exp(log_w - total)
    share[top] = 0.0  # only the largest can come near 1, where 1 − share cancels: its complement is summed directly
    left_out = total + np.log1p(-share) - np.log(n - 1)
    left_out[top] = log_mean_exp(np.delete(log_w, top))
    return float(np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum()))
