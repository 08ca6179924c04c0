"""A run against its thresholds: what was found, what is wanted, and for what fails the cause and the remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vdsl.report.summary import verdict
from vdsl.report.table import Heading, Notes, Sheet, Table

ESS, SAMPLES, VARIANCE, ACCEPTANCE, PARETO, REJECTION, AGREEMENT, NEAR, FORWARD = (
    0.5,
    1000,
    1.0,
    0.5,
    0.7,
    0.01,
    3.0,
    0.01,
    0.1,
)


@dataclass(frozen=True)
class Check:
    """One threshold. `cause` and `remedy` are given when it fails."""

    name: str
    found: str
    wanted: str
    passed: bool
    cause: str = ""
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """The check as plain data."""
        return asdict(self)


def checks(
    result: Mapping[str, Any], diagnostics: Mapping[str, Any], history: Mapping[str, np.ndarray]
) -> tuple[Check, ...]:
    """Every check that the run's files allow."""
    return tuple(
        check if not check.passed else Check(check.name, check.found, check.wanted, True)
        for part in (_weights(result, diagnostics), _modes(diagnostics), _training(history), _known(result))
        for check in part
    )


def sheet(result: Mapping[str, Any], found: tuple[Check, ...]) -> Sheet:
    """The checks as a table, then cause and remedy of what failed."""
    rows = tuple((c.name, c.found, c.wanted, "ok" if c.passed else "FAILED") for c in found)
    quality = result.get("quality", {})
    words = verdict(quality.get("ess"), quality.get("warnings", ()))
    blocks: list[Heading | Table | Notes] = [
        Heading(str(result["model"]), words),
        Table(("check", "found", "wanted", ""), rows, left=("",)),
    ]
    failed = [c for c in found if not c.passed]
    lines = []
    for check in failed:
        lines += [(check.name, f"cause: {check.cause}", "bad"), ("", f"remedy: {check.remedy}", "")]
    lines += [("warning", text, "bad") for text in quality.get("warnings", ())]
    blocks.append(Notes(tuple(lines) or (("", "nothing to improve", "good"),)))
    return tuple(blocks)


def _weights(result: Mapping[str, Any], diagnostics: Mapping[str, Any]) -> Iterator[Check]:
    quality = result.get("quality")
    if not quality or quality.get("ess") is None:
        return
    ess, n = quality["ess"], quality["ess_samples"]
    far = "the guide is still far from the model's distribution"
    train = (
        "train longer (`--time-limit`, `--steps`); if it no longer improves, another `--guide` or a larger `--batch`"
    )
    yield Check("ESS", f"{ess:.3f}", f"at least {ESS}", ess >= ESS, far, train)
    yield Check(
        "effective samples", f"{ess * n:,.0f}", f"at least {SAMPLES:,}", ess * n >= SAMPLES,
        "error bars rest on few samples", "draw more (`--samples`), or improve the ESS",
    )  # fmt: skip
    if quality.get("variance") is not None:
        v = quality["variance"]
        yield Check("variance of ln w", f"{v:.3g}", f"at most {VARIANCE:g}", v <= VARIANCE, far, train)
    if quality.get("acceptance") is not None:
        a = quality["acceptance"]
        yield Check("acceptance", f"{a:.3f}", f"at least {ACCEPTANCE}", a >= ACCEPTANCE, far, train)
    if diagnostics.get("pareto_k") is not None:
        k = diagnostics["pareto_k"]
        yield Check(
            "tail of the weights (Pareto k)", f"{k:.2f}", f"at most {PARETO}", k <= PARETO,
            "the guide gives some configurations far too little weight: the averages rest on a few samples",
            "train longer; read the variational free energy, which is a bound in any case",
        )  # fmt: skip
    if diagnostics.get("longest_rejection") is not None:
        steps = diagnostics["longest_rejection"]
        yield Check(
            "longest rejection", f"{steps:,}", f"at most {max(1, round(REJECTION * n)):,}",
            steps <= max(1, round(REJECTION * n)),
            "one sample has a weight that the guide should have given more often", train,
        )  # fmt: skip


def _modes(diagnostics: Mapping[str, Any]) -> Iterator[Check]:
    modes = diagnostics.get("modes")
    if not modes:
        return
    missing = "part of the configurations that matter is out of the guide's reach, which its own samples cannot show"
    remedy = "anneal longer (`--time-limit`), solve at a higher temperature first and compare, or try another `--guide`"
    if modes.get("forward_ess") is not None:
        f = modes["forward_ess"]
        yield Check("ESS on a Markov chain's samples", f"{f:.3g}", f"at least {FORWARD}", f >= FORWARD, missing, remedy)
    if modes.get("deviation") is not None:
        d, apart = abs(modes["deviation"]), abs(modes["difference"])
        yield Check(
            "two ln Z agree", f"{apart:.2g}, {d:.1f} σ", f"within {NEAR}, or {AGREEMENT:g} σ",
            d <= AGREEMENT or apart <= NEAR, missing, remedy,
        )  # fmt: skip
    if modes.get("r_hat") is not None:
        r = modes["r_hat"]
        yield Check(
            "the Markov chains agree (R-hat)", f"{r:.3f}", "at most 1.05", r <= 1.05,
            "the chains of the mode check have not mixed: they cannot vouch for the guide",
            "`vdsl sample` with more sweeps, or tempering",
        )  # fmt: skip


def _training(history: Mapping[str, np.ndarray]) -> Iterator[Check]:
    variance = np.asarray(history.get("variance", ()), float)
    tenth = len(variance) // 10
    if tenth < 2 or not np.isfinite(variance[-4 * tenth :]).all():
        return
    now, before = np.median(variance[-2 * tenth :]), np.median(variance[-4 * tenth : -2 * tenth])
    change = now / before - 1 if before > 0 else 0.0
    settled = change > -0.1 or now < VARIANCE / 10  # every schedule ends with a fall; only a large variance matters
    yield Check(
        "training has settled", f"variance {100 * change:+.0f} % at the end", "falls by less than 10 %, or small",
        bool(settled),
        "training ended while the guide was still improving", "give it more time: `--time-limit` or `--steps`",
    )  # fmt: skip


def _known(result: Mapping[str, Any]) -> Iterator[Check]:
    exact = result.get("exact", {}).get("ln_z")
    found = result["ln_z"]
    if exact is None or found["value"] is None or not found["error"]:
        return
    difference = found["value"] - exact
    sigmas = abs(difference) / found["error"]
    close = sigmas <= 4 or abs(difference) <= 2e-6 * max(abs(exact), 1.0)
    yield Check(
        "ln Z against the exact value", f"{difference / found['error']:+.1f} σ", "within 4 σ", close,
        "the error bar is too small: the weights have tails that the samples have not seen",
        "draw more samples (`--samples`) and train longer",
    )  # fmt: skip
