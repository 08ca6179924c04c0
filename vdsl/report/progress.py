"""Progress of a long computation on a stream: one line that updates itself on a terminal, sparse lines elsewhere."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from typing import TextIO

from vdsl.report.table import duration

_SPARSE = 10.0  # seconds between lines where they cannot be overwritten
_UPDATE = 0.1  # seconds between updates where they can


def is_live(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can overwrite a line."""
    return stream.isatty() and os.environ.get("TERM", "") not in {"dumb", ""}


@dataclass
class Progress:
    """Shows stages ("compiling the first step") and training steps.

    The stream's errors are the stream's: progress that cannot be shown never stops a computation.
    """

    stream: TextIO
    quiet: bool = False
    _live: bool = field(init=False)
    _shown: bool = field(init=False, default=False)
    _last: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._live = is_live(self.stream)

    def stage(self, text: str) -> None:
        """Announces what happens now; on a terminal the next line replaces it."""
        self._last = 0.0 if self._live else time.monotonic()
        if self._live:
            self._show(text + " …")

    def step(self, step: int, steps: int, free_energy: float, ess: float, rate: float, left: float) -> None:
        """One row of the training log: `left` in seconds, `rate` in steps a second."""
        now = time.monotonic()
        if now - self._last < (_UPDATE if self._live else _SPARSE):
            return
        self._last = now
        self._show(
            f"step {step:>{len(str(steps))}}/{steps}   F {free_energy:.6g}   ESS {ess:.3f}   "
            f"{rate:.3g} steps/s   {duration(max(left, 0.0))} left"
        )

    def message(self, text: str) -> None:
        """A line that stays."""
        if self.quiet:
            return
        self.clear()
        self._write(text + "\n")

    def clear(self) -> None:
        """Removes the line that is being updated."""
        if self._shown:
            self._write("\r\x1b[K")
            self._shown = False

    def _show(self, text: str) -> None:
        if self.quiet:
            return
        if not self._live:
            self._write(text + "\n")
            return
        width = shutil.get_terminal_size().columns - 1
        self._write(f"\r\x1b[K{text[:width]}")
        self._shown = True

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):
            self.quiet = True
