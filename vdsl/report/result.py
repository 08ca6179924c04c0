"""The result of a run: the one JSON object that `--json` prints and `result.json` holds.

Extensive totals in the model's own energy units, entropies in units of k_B, one standard error each. The JSON is
strict: a number that is not finite becomes `null`, never `NaN` or `Infinity`.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from vdsl.errors import Diagnostic, VfeError

SCHEMA = 1
AVERAGES = ("free_energy", "ln_z", "energy", "entropy", "heat_capacity")
_PACKAGES = ("vdsl", "jax", "jaxlib", "numpy", "distrax", "optax", "equinox")


def header(name: str, fingerprint: str, sites: int, temperature: float, params: Mapping[str, float]) -> dict[str, Any]:
    """What every result starts with."""
    return {
        "schema": SCHEMA,
        "model": name,
        "fingerprint": fingerprint,
        "sites": int(sites),
        "temperature": float(temperature),
        "params": {k: v if isinstance(v, int) else float(v) for k, v in params.items()},
    }


def footer(device: str) -> dict[str, Any]:
    """What every result ends with: versions and the device."""
    return {"versions": versions(), "device": device}


def versions() -> dict[str, str]:
    """The versions that the numbers depend on, from package metadata: nothing is imported."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def strict(value: Any) -> Any:
    """The same structure in what JSON has: numbers of NumPy and JAX become Python's, non-finite ones None."""
    if isinstance(value, Mapping):
        return {str(k): strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [strict(v) for v in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    if hasattr(value, "tolist"):
        return strict(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise TypeError(f"a result cannot hold {type(value).__name__}")


def to_json(result: Mapping[str, Any], indent: int | None = 2) -> str:
    """A result as strict JSON text."""
    return json.dumps(strict(result), indent=indent, allow_nan=False, ensure_ascii=False)


def read_result(path: Path) -> dict[str, Any]:
    """Reads a `result.json`. Raises VfeError `bad-result` if there is none or it is not one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _bad(path, "there is no such file", "the run may not have ended: `vdsl resume` finishes it") from None
    except (OSError, ValueError) as error:
        raise _bad(path, f"it cannot be read ({type(error).__name__})") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or not all(k in found for k in ("model", "ln_z")):
        raise _bad(path, "it is not a result of this version of vdsl")
    return found


def _bad(path: Path, reason: str, *hints: str) -> VfeError:
    return VfeError(Diagnostic("bad-result", f"cannot use `{path}`: {reason}", hints=hints), exit_code=2)
