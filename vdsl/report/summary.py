"""A result into the sheet people read: quantities per site beside exact values, and the guide's quality in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vdsl.report.table import Heading, Notes, Sheet, Table, deviation, duration, estimate, number

_QUANTITIES = (
    ("free_energy", "F", "free energy"),
    ("energy", "E", "energy"),
    ("entropy", "S", "entropy"),
    ("heat_capacity", "C", "heat capacity"),
)
_VERDICTS = (
    (0.95, "excellent: the guide is nearly exact"),
    (0.80, "very good: samples are nearly independent draws from the model"),
    (0.50, "good: every second sample counts"),
    (0.10, "fair: the averages are sound, with error bars wider than they could be"),
    (0.01, "poor: train longer, or try another guide"),
    (0.00, "unusable: the guide has not found the model's distribution"),
)
# Warnings that say the samples themselves cannot tell how good the guide is.
BLINDING = ("modes-missing", "chain-disagrees", "heavy-tails")


def verdict(ess: float | None, warnings: Sequence[str] = ()) -> str:
    """What an effective sample size means."""
    if ess is None or ess != ess:
        return "unknown"
    if ess >= _VERDICTS[-2][0] and any(w.startswith(BLINDING) for w in warnings):
        return "not to be trusted: see the warning below"
    return next(text for threshold, text in _VERDICTS if ess >= threshold)


def summary(
    result: Mapping[str, Any],
    title: str = "",
    saved: Path | None = None,
    seconds: float | None = None,
    more: Sequence[tuple[str, str, str]] = (),
) -> Sheet:
    """The sheet of `vdsl solve` and `vdsl exact`.

    `saved` is where the run is; `seconds` what all of it took; `more` what else there is to say, as in `Notes`.
    """
    blocks: list[Heading | Table | Notes] = [
        Heading(f"{result['model']}{': ' + title if title else ''}", detail(result)),
        _thermodynamics(result),
    ]
    if result.get("observables") or result.get("derived"):
        blocks.append(_averages(result))
    notes = [*_quality(result), *_topology(result), *more]
    if seconds is not None:
        notes.append(("time", duration(seconds), ""))
    if saved is not None:
        notes.append(("saved", str(saved), ""))
    if notes:
        blocks.append(Notes(tuple(notes)))
    return tuple(blocks)


def comparison(results: Mapping[str, Mapping[str, Any]]) -> Sheet:
    """Several results side by side, one row each."""
    rows = []
    for name, result in results.items():
        n = result["sites"] or 1
        quality, train = result.get("quality", {}), result.get("train", {})
        rows.append(
            (
                name,
                result["model"],
                str(result["sites"]),
                f"{result['temperature']:.6g}",
                *(_per_site(result.get(key), n) for key in ("free_energy", "energy", "entropy")),
                _shown(result["ln_z"]),
                f"{quality['ess']:.3f}" if quality.get("ess") is not None else "",
                result.get("guide", {}).get("name", "exact"),
                duration(train["seconds"]) if "seconds" in train else "",
            )
        )
    columns = ("run", "model", "sites", "T", "F/site", "E/site", "S/site", "ln Z", "ESS", "guide", "training")
    return (Table(columns, tuple(rows), left=("model", "guide")),)


def scan_table(name: str, values: Sequence[float], results: Sequence[Mapping[str, Any]]) -> Sheet:
    """A sweep: one row per value."""
    observables = tuple(results[0].get("observables", {})) + tuple(results[0].get("derived", {})) if results else ()
    with_ess = any("quality" in r for r in results)
    rows = []
    for value, result in zip(values, results, strict=True):
        n = result["sites"] or 1
        averages = {**result.get("observables", {}), **result.get("derived", {})}
        row = [number(value), *(_per_site(result.get(key), n) for key, _, _ in _QUANTITIES)]
        row += [_shown(averages.get(o)) for o in observables]
        if with_ess:
            ess = result.get("quality", {}).get("ess")
            row.append("" if ess is None else f"{ess:.3f}")
        rows.append(tuple(row))
    columns = (name, *(f"{symbol}/site" for _, symbol, _ in _QUANTITIES), *observables)
    return (Table(columns + (("ESS",) if with_ess else ()), tuple(rows)),)


def detail(result: Mapping[str, Any]) -> str:
    """Sites, temperature and parameters in one line."""
    parts = [f"{result['sites']} sites", f"temperature {number(result['temperature'])}"]
    parts += [f"{k} = {number(v)}" for k, v in result["params"].items()]
    return ", ".join(parts)


def _thermodynamics(result: Mapping[str, Any]) -> Table:
    n = result["sites"] or 1
    exact = result.get("exact", {})
    compared = bool(exact)
    rows = []
    for key, symbol, name in _QUANTITIES:
        found = result.get(key)
        if found is None:
            continue
        row = [f"{symbol}  {name}", _per_site(found, n)]
        if compared:
            known = exact.get(key)
            row += ["", ""] if known is None else [f"{known / n:.8g}", _compared(found, known)]
        rows.append((*row, _shown(found)))
    row = ["   ln Z", _per_site(result["ln_z"], n)]
    if compared:
        row += [f"{exact['ln_z'] / n:.8g}", _compared(result["ln_z"], exact["ln_z"])]
    rows.append((*row, _shown(result["ln_z"])))
    columns = ("", "per site", *(("exact", "deviation") if compared else ()), "total")
    return Table(columns, tuple(rows))


def _averages(result: Mapping[str, Any]) -> Table:
    exact = {**result.get("exact", {}).get("observables", {}), **result.get("exact", {}).get("derived", {})}
    rows = []
    for kind in ("observables", "derived"):
        for name, found in result.get(kind, {}).items():
            row = [name, _shown(found)]
            if exact:
                known = exact.get(name)
                row += ["", ""] if known is None else [f"{known:.8g}", _compared(found, known)]
            rows.append(tuple(row))
    return Table(("observable", "average", *(("exact", "deviation") if exact else ())), tuple(rows))


def _quality(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    notes: list[tuple[str, str, str]] = []
    if "guide" in result:
        guide, train = result["guide"], result.get("train", {})
        text = f"{guide['name']}, {guide['parameters']:,} parameters"
        if train.get("steps"):
            text += f"; {train['steps']:,} steps of {train['batch']:,} samples in {duration(train['seconds'])}"
        elif not guide["parameters"]:
            text += ": nothing to train"
        notes.append(("guide", text, ""))
    if "quality" in result:
        quality = result["quality"]
        ess, warnings = quality["ess"], quality["warnings"]
        words = verdict(ess, warnings)
        tone = "good" if ess is not None and ess >= 0.5 and not words.startswith("not") else "bad"
        shown = "?" if ess is None else f"{ess:.4f}" if ess > 0.995 else f"{ess:.3f}"
        notes.append(("ESS", f"{shown} of {quality['ess_samples']:,} fresh samples: {words}", tone))
        details = [f"variance of ln w {_short(quality.get('variance'))}"]
        if quality.get("acceptance") is not None:
            details.insert(0, f"acceptance {quality['acceptance']:.3f}")
        notes.append(("", ", ".join(details), ""))
        notes += [("warning", text, "bad") for text in warnings]
    return notes


def _topology(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    found = result.get("topology")
    if not found:
        return []
    squared = found["charge_squared"]
    text = f"⟨Q²⟩ {_shown(squared)}"
    if found.get("exact") is not None:
        text += f", exact {found['exact']:.6g} ({_compared(squared, found['exact'])})"
    times = found["autocorrelation"]
    moves = f"a new Q takes {times['independence']:.1f} samples of the guide"
    if times["hmc"] is not None:
        stuck = found["hmc_changes"] == 0
        moves += ", and HMC never changes it" if stuck else f", {times['hmc']:.0f} trajectories of HMC"
    return [("topology", text, ""), ("", moves, "")]


def _compared(found: Mapping[str, Any], exact: float) -> str:
    if found["value"] is None:
        return ""
    return deviation(found["value"], found["error"], exact, found.get("bound", ""))


def _shown(found: Mapping[str, Any] | None) -> str:
    return "" if found is None else estimate(found["value"], found["error"])


def _per_site(found: Mapping[str, Any] | None, n: int) -> str:
    if found is None:
        return ""
    value, error = found["value"], found["error"]
    return estimate(None if value is None else value / n, None if error is None else error / n)


def _short(value: float | None) -> str:
    return "?" if value is None else f"{value:.2g}"
