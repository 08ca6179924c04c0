"""Diagnostics: what went wrong, where, and what to do; and the only renderer of them.

Call sites build a `Diagnostic` out of meaning (code, span, what was found, what was expected); `render` lays it out.
`VfeError` carries every diagnostic of one phase. `InternalError` is for bugs of vdsl itself, never for user input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Source:
    """A text and the name it is reported under (a path, or `<stdin>`, or `<string>`)."""

    name: str
    text: str = field(repr=False)

    def position(self, offset: int) -> tuple[int, int]:
        """The 1-based line and column of a character offset; lines end at \\n only."""
        offset = max(0, min(offset, len(self.text)))
        line = self.text.count("\n", 0, offset) + 1
        return line, offset - (self.text.rfind("\n", 0, offset) + 1) + 1

    def line_at(self, offset: int) -> str:
        """The text of the line that holds a character offset, without its line end."""
        offset = max(0, min(offset, len(self.text)))
        start, end = self.text.rfind("\n", 0, offset) + 1, self.text.find("\n", offset)
        return self.text[start : end if end >= 0 else len(self.text)].rstrip("\r")


@dataclass(frozen=True)
class Span:
    """Characters [start, end) of a source."""

    source: Source
    start: int
    end: int


@dataclass(frozen=True)
class Related:
    """Another place that matters to a diagnostic, e.g. "declared here"."""

    span: Span
    message: str


@dataclass(frozen=True)
class Diagnostic:
    """One finding about a model.

    `code` is stable and documented by `vdsl explain CODE`; `label` stands under the caret; `notes` say what was
    expected; `hints` say what to do.
    """

    code: str
    message: str
    span: Span | None = None
    label: str = ""
    related: tuple[Related, ...] = ()
    notes: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    severity: str = "error"  # or "warning"


class VfeError(Exception):
    """A model, or the way it is used, is invalid. Carries all the errors of a phase.

    `exit_code` is what the command line returns: 1 invalid model, 2 usage, 3 numerical failure, 4 resource limit.
    """

    def __init__(self, diagnostics: Sequence[Diagnostic] | Diagnostic, exit_code: int = 1):
        self.diagnostics = (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        self.exit_code = exit_code
        super().__init__(self.diagnostics)

    def __str__(self) -> str:
        return "\n\n".join(render(d) for d in self.diagnostics)


class InternalError(Exception):
    """A bug in vdsl. Never raised for anything a user can write."""


def render(diagnostic: Diagnostic) -> str:
    """Lays a diagnostic out as text: header, place, source line with a caret, notes, hints."""
    d = diagnostic
    out = [f"{d.severity}[{d.code}]: {d.message}"]
    if d.span is None:
        out += [f"   = {note}" for note in d.notes] + [f"   = hint: {hint}" for hint in d.hints]
        return "\n".join(out)
    width = len(str(_line_of(d.span)))
    out += _excerpt(d.span, d.label, width, arrow="-->")
    for related in d.related:
        out += _excerpt(related.span, related.message, width, arrow=":::")
    margin = " " * width
    out += [f"{margin} = {note}" for note in d.notes]
    out += [f"{margin} = hint: {hint}" for hint in d.hints]
    return "\n".join(out)


_WIDEST_EXCERPT = 160


def _line_of(span: Span) -> int:
    return span.source.position(span.start)[0]


def _excerpt(span: Span, label: str, width: int, arrow: str) -> list[str]:
    line, column = span.source.position(span.start)
    text = span.source.line_at(span.start)
    length = max(1, min(span.end, span.start + len(text) - column + 1) - span.start)
    offset = column - 1
    if len(text) > _WIDEST_EXCERPT:  # a window around the span, so that a one-line megabyte stays readable
        left = max(0, offset - _WIDEST_EXCERPT // 2)
        text = ("…" if left else "") + text[left : left + _WIDEST_EXCERPT] + "…"
        offset = offset - left + (1 if left else 0)
        length = min(length, max(1, len(text) - offset - 1))
    text = "".join(" " if c == "\t" else c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    margin = " " * width
    return [
        f"{margin}{arrow} {span.source.name}:{line}:{column}",
        f"{margin} |",
        f"{line:>{width}} | {text}",
        f"{margin} | {' ' * offset}{'^' * length}{' ' + label if label else ''}",
    ]
