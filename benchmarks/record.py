"""Record: how a benchmark writes down what it measured, where, and when."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import jax


def machine() -> str:
    """One sentence about the machine, the versions, the date and the load."""
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores ({platform.machine()}), {jax.default_backend()}, Python {platform.python_version()}, "
        f"JAX {jax.__version__}, {datetime.date.today().isoformat()}, load average {load:.1f}."
    )


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def write(name: str, text: str) -> None:
    """Writes a file beside the benchmarks."""
    (Path(__file__).parent / name).write_text(text, encoding="utf-8")
