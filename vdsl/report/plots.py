"""Results into PNG files. The only place that imports matplotlib, which is an optional dependency."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.files import replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WORDS = {
    "free_energy": "F / site",
    "energy": "E / site",
    "entropy": "S / site",
    "heat_capacity": "C / site",
}


def available() -> bool:
    """Whether matplotlib is installed."""
    from importlib.util import find_spec

    return find_spec("matplotlib") is not None


def plot_scan(name: str, values: Sequence[float], results: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Every quantity of a sweep against the swept parameter: points with error bars, exact values as a line."""
    observables = list(results[0].get("observables", {})) + list(results[0].get("derived", {}))
    panels = [*_WORDS, *observables]
    figure, axes = _panels(len(panels))
    for axis, key in zip(axes, panels, strict=False):
        found = [_number(result, key) for result in results]
        axis.errorbar(values, [v for v, _ in found], [e for _, e in found], fmt="o", ms=4, capsize=2)
        known = [_known(result, key) for result in results]
        if any(v is not None for v in known):
            axis.plot(values, [np.nan if v is None else v for v in known], "-", lw=1, color="0.5", zorder=0)
        axis.set_xlabel(name)
        axis.set_ylabel(_WORDS.get(key, key))
    _write(figure, path)


def plot_history(histories: Mapping[str, Mapping[str, np.ndarray]], sites: Mapping[str, int], path: Path) -> None:
    """Free energy per site, ESS and variance of ln w of the training batches against the step, for each run."""
    figure, axes = _panels(3)
    columns = (("free_energy", "F / site"), ("ess", "ESS of the batch"), ("variance", "variance of ln w"))
    for axis, (column, words) in zip(axes, columns, strict=False):
        for name, history in histories.items():
            scale = max(sites[name], 1) if column == "free_energy" else 1
            axis.plot(history["step"], np.asarray(history[column]) / scale, label=name)
        axis.set_xlabel("step")
        axis.set_ylabel(words)
        if not any(len(history["step"]) for history in histories.values()):
            axis.text(0.5, 0.5, "no steps of training", ha="center", transform=axis.transAxes)
    axes[2].set_yscale("symlog", linthresh=1e-3)
    if len(histories) > 1:
        axes[0].legend(fontsize="small")
    _write(figure, path)


def _number(result: Mapping[str, Any], key: str) -> tuple[float, float]:
    per_site = max(result["sites"], 1) if key in _WORDS else 1
    found = result.get(key) or result.get("observables", {}).get(key) or result.get("derived", {}).get(key) or {}
    value, error = found.get("value"), found.get("error")
    return (np.nan if value is None else value / per_site, 0.0 if error is None else error / per_site)


def _known(result: Mapping[str, Any], key: str) -> float | None:
    exact = result.get("exact", {})
    if key in _WORDS:
        return None if exact.get(key) is None else exact[key] / max(result["sites"], 1)
    return exact.get("observables", {}).get(key, exact.get("derived", {}).get(key))


def _panels(count: int) -> tuple[Figure, list[Any]]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise VfeError(
            Diagnostic(
                "no-matplotlib", "plots need matplotlib, which is not installed", hints=("pip install 'vdsl[plot]'",)
            ),
            exit_code=2,
        ) from None
    columns = min(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(4.0 * columns, 3.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, k + 1) for k in range(count)]
    return figure, axes


def _write(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    replace_file(path, buffer.getvalue())
