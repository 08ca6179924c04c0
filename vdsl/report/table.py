"""Sheets: what a command shows, as data (headings, tables, notes); laid out as plain text or by rich.

Numbers are rounded here and nowhere else: a value is shown to two significant digits of its error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Single precision rounds totals at about this relative size; a smaller difference from an exact value says nothing.
ROUNDING = 2e-6


@dataclass(frozen=True)
class Heading:
    """A title, and a quieter line of detail under it."""

    title: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells under column names. The first column is left-aligned; the others only if `left` names them."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: tuple[str, ...] = ()


@dataclass(frozen=True)
class Notes:
    """Labelled lines: (label, text, tone); tone is "", "good" or "bad"."""

    lines: tuple[tuple[str, str, str], ...]


Sheet = tuple[Heading | Table | Notes, ...]


def estimate(value: float | None, error: float | None) -> str:
    """`value ± error` to two significant digits of the error; no error means an exact number."""
    if value is None or not math.isfinite(value):
        return "not finite" if value is None else str(value)
    if error is None or not math.isfinite(error):
        return f"{value:.8g} ± ?"
    if error == 0:
        return number(value)
    digits = 1 - int(f"{error:.1e}".partition("e")[2])  # decimal places that two significant digits of the error need
    if digits > 9 or digits < -5:
        shift = int(f"{max(abs(value), error):.15e}".partition("e")[2])
        places = max(0, digits + shift)
        return f"({value / 10**shift:.{places}f} ± {error / 10**shift:.{places}f})e{shift:+03d}"
    places = max(0, digits)
    return f"{round(value, digits) + 0.0:.{places}f} ± {round(error, digits):.{places}f}"


def number(value: float | None) -> str:
    """A number known exactly, to ten significant digits."""
    if value is None:
        return "not finite"
    return str(value) if isinstance(value, int) else f"{value + 0.0:.10g}"


def deviation(value: float, error: float | None, exact: float, bound: str = "") -> str:
    """How far an estimate lies from the exact value: in σ, or for a bound by how much it lies above or below."""
    difference = value - exact
    scale = max(abs(exact), abs(value), 1e-300)
    if abs(difference) <= ROUNDING * scale or abs(difference) < 1e-9:
        return f"equal to {max(abs(difference) / scale, 1e-16):.0e}"
    if bound:
        return f"{'above' if difference > 0 else 'below'} by {abs(difference):.1e}"
    if not error:
        return f"differs by {difference:+.1e}"
    return f"{difference / error:+.1f} σ"


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.8 s, 12 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def amount(size: float) -> str:
    """Bytes as people say them."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def plain(sheet: Sheet) -> str:
    """A sheet as aligned text without colours: for files, pipes and terminals that want none."""
    parts = []
    for block in sheet:
        match block:
            case Heading(title, detail):
                parts.append("\n".join(line for line in (title, detail) if line))
            case Table():
                parts.append(_plain_table(block))
            case Notes(lines):
                parts.append(_plain_notes(lines))
    return "\n\n".join(part for part in parts if part)


def print_pretty(sheet: Sheet, console: Any) -> None:
    """Prints a sheet on a rich console."""
    from rich.markup import escape
    from rich.table import Table as RichTable

    for position, block in enumerate(sheet):
        if position:
            console.print()
        match block:
            case Heading(title, detail):
                console.print(f"[bold]{escape(title)}[/]")
                if detail:
                    console.print(f"[dim]{escape(detail)}[/]")
            case Table(columns, rows):
                table = RichTable(box=None, pad_edge=False, header_style="dim", padding=(0, 3, 0, 0))
                for name in columns:
                    left = name == columns[0] or name in block.left
                    table.add_column(escape(name), justify="left" if left else "right", no_wrap=not left)
                for row in rows:
                    table.add_row(*(escape(cell) for cell in row))
                console.print(table)
            case Notes(lines):
                grid = RichTable.grid(padding=(0, 2, 0, 0))
                grid.add_column(style="dim", no_wrap=True)
                grid.add_column()
                for label, text, tone in lines:
                    style = {"good": "green", "bad": "yellow"}.get(tone, "")
                    grid.add_row(escape(label), f"[{style}]{escape(text)}[/]" if style else escape(text))
                console.print(grid)


def _plain_table(table: Table) -> str:
    cells = [table.columns, *table.rows]
    widths = [max(len(row[k]) for row in cells) for k in range(len(table.columns))]
    lines = []
    for row in cells:
        padded = [
            cell.ljust(width) if k == 0 or table.columns[k] in table.left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("   ".join(padded).rstrip())
    return "\n".join(lines)


def _plain_notes(lines: Sequence[tuple[str, str, str]]) -> str:
    width = max((len(label) for label, _, _ in lines), default=0)
    return "\n".join(f"{label:<{width}}  {text}".rstrip() for label, text, _ in lines)
