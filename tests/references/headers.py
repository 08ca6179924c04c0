"""Reads the reference value out of the header of an example.

# Reference: ln Z = 60.14178078906915 at L = 8 (source)
# Reference: ln Z = 18.81509064012 as it stands (source)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
_LINE = re.compile(r"^# Reference: ln Z = (\S+) (?:as it stands|at ([^(]+)) \((.+)\)$", re.MULTILINE)


@dataclass(frozen=True)
class Reference:
    """ln Z, the parameters it holds for, and where it comes from."""

    ln_z: float
    parameters: dict[str, int | float]
    source: str


def reference(path: Path) -> Reference:
    """The reference of an example; raises ValueError if its header has none, or more than one."""
    found = _LINE.findall(path.read_text())
    if len(found) != 1:
        raise ValueError(f"{path.name} has {len(found)} reference lines")
    ln_z, parameters, source = found[0]
    pairs = [part.split("=") for part in parameters.split(",") if part.strip()]
    return Reference(float(ln_z), {name.strip(): _number(value) for name, value in pairs}, source)


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)
