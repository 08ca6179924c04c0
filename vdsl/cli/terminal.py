"""Where words go: results to standard output, messages to standard error; colour only on a terminal that wants it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from vdsl.errors import Diagnostic, render

if TYPE_CHECKING:
    from vdsl.report.table import Sheet

_STYLES = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "bold": "\x1b[1m", "caret": "\x1b[31m"}
_RESET = "\x1b[0m"


def wants_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours, and nobody asked for none (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "") not in {"", "dumb"}


def say(text: str) -> None:
    """A message on standard error. If nobody can read it, that is no reason to stop."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def say_diagnostics(diagnostics: Iterable[Diagnostic]) -> None:
    """Diagnostics on standard error, a blank line between them."""
    diagnostics = tuple(diagnostics)
    if not diagnostics:
        return
    colour = wants_colour(sys.stderr)
    say("\n\n".join(_coloured(render(d), d.severity) if colour else render(d) for d in diagnostics))


def show(sheet: Sheet) -> None:
    """A sheet on standard output: laid out by rich on a colour terminal, plain otherwise."""
    if wants_colour(sys.stdout):
        from rich.console import Console

        from vdsl.report.table import print_pretty

        print_pretty(sheet, Console(highlight=False))
    else:
        from vdsl.report.table import plain

        print(plain(sheet))


def show_text(text: str) -> None:
    """Text on standard output."""
    print(text)


def use_utf8() -> None:
    """Makes both streams UTF-8 whatever the locale says: results hold ±, σ and names people chose."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(encoding="utf-8", errors="backslashreplace")


def _coloured(text: str, severity: str) -> str:
    lines = text.split("\n")
    head, separator, rest = lines[0].partition(": ")
    style = _STYLES["warning" if severity == "warning" else "error"]
    lines[0] = f"{style}{head}{_RESET}{separator}{_STYLES['bold']}{rest}{_RESET}"
    for k in range(1, len(lines)):
        margin, bar, caret = lines[k].partition(" | ")
        if bar and not margin.strip() and caret.lstrip().startswith("^"):
            lines[k] = f"{margin}{bar}{_STYLES['caret']}{caret}{_RESET}"
    return "\n".join(lines)
