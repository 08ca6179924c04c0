"""Findings: what the checker has to say, collected phase by phase, with spelling suggestions."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from vdsl.errors import Diagnostic, Related, Span, VfeError


class Findings:
    """Errors and warnings so far. Every finding is kept once; `stop_if_any` ends a phase."""

    def __init__(self) -> None:
        self.errors: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self.exit_code = 1

    def error(
        self,
        code: str,
        message: str,
        span: Span | None,
        label: str = "",
        *,
        related: Iterable[Related] = (),
        notes: Iterable[str] = (),
        hints: Iterable[str] = (),
        exit_code: int = 1,
    ) -> None:
        """Records an error; the largest exit code of a phase wins (a resource limit over an invalid model)."""
        found = Diagnostic(code, message, span, label, tuple(related), tuple(notes), tuple(hints))
        if found not in self.errors:
            self.errors.append(found)
            self.exit_code = max(self.exit_code, exit_code)

    def warning(
        self,
        code: str,
        message: str,
        span: Span | None,
        label: str = "",
        *,
        related: Iterable[Related] = (),
        notes: Iterable[str] = (),
        hints: Iterable[str] = (),
    ) -> None:
        """Records a warning."""
        found = Diagnostic(code, message, span, label, tuple(related), tuple(notes), tuple(hints), "warning")
        if found not in self.warnings:
            self.warnings.append(found)

    def stop_if_any(self) -> None:
        """Raises VfeError with all the errors so far, in the order of the text."""
        if self.errors:
            raise VfeError(sorted(self.errors, key=lambda d: d.span.start if d.span else -1), self.exit_code)


def declared(name: str, span: Span) -> Related:
    """The place that declares a name."""
    return Related(span, f"`{name}` is declared here")


def suggest(name: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """ "did you mean …?", when some candidate is close."""
    pool = list(dict.fromkeys(candidates))
    close = get_close_matches(name, pool, n=1, cutoff=0.6)
    if not close:
        same = [c for c in pool if c.lower() == name.lower()]
        close = same[:1]
    return (f"did you mean `{close[0]}`?",) if close else ()


def several(names: Iterable[str]) -> str:
    """A list for a sentence: a, b, c."""
    return ", ".join(names) or "none"


def count(n: int, noun: str) -> str:
    """`1 site`, `2 sites`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
