"""Findings: what the checker has to say, collected phase by phase, with spelling suggestions."""

from __future__ import annotations

from collections.abc import Iterable

from vdsl.errors import Diagnostic, Related, Span, VfeError

MOST_ERRORS = 50  # more of one phase help nobody
_LONGEST_NAME = 60


class Findings:
    """Errors and warnings so far. Every finding is kept once; `stop_if_any` ends a phase."""

    def __init__(self) -> None:
        self.errors: list[Diagnostic] = []
        self.warnings: dict[Diagnostic, None] = {}  # in order, each once
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
        """Records an error; the largest exit code of a phase wins (a resource limit over an invalid model).

        Raises VfeError with what was found so far when that is MOST_ERRORS.
        """
        found = Diagnostic(code, message, span, label, tuple(related), tuple(notes), tuple(hints))
        if found not in self.errors:
            self.errors.append(found)
            self.exit_code = max(self.exit_code, exit_code)
            if len(self.errors) >= MOST_ERRORS:
                self.stop_if_any()

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
        self.warnings[found] = None

    def stop_if_any(self) -> None:
        """Raises VfeError with all the errors so far, in the order of the text."""
        if self.errors:
            raise VfeError(sorted(self.errors, key=lambda d: d.span.start if d.span else -1), self.exit_code)


def declared(name: str, span: Span) -> Related:
    """The place that declares a name."""
    return Related(span, f"`{name}` is declared here")


def suggest(name: str, candidates: Iterable[str]) -> tuple[str, ...]:
    """The hint `did you mean …?`, when some candidate is within a few slips of the keyboard."""
    ranked = sorted((_slips(name.lower(), c.lower()), k, c) for k, c in enumerate(dict.fromkeys(candidates)))
    if not ranked or len(name) > _LONGEST_NAME or ranked[0][0] > min(len(name) - 1, max(1, len(name) // 3)):
        return ()
    return (f"did you mean `{ranked[0][2]}`?",)


def _slips(a: str, b: str) -> int:
    """Insertions, deletions, substitutions and swaps of neighbours that turn a into b (optimal string alignment)."""
    if len(a) > _LONGEST_NAME or len(b) > _LONGEST_NAME:
        return _LONGEST_NAME
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before, above, row = row, before, [i]
        for j, y in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, above[j - 2] + 1)
            row.append(cost)
    return row[-1]


def several(names: Iterable[str]) -> str:
    """A list for a sentence: a, b, c."""
    return ", ".join(names) or "none"


def count(n: int, noun: str) -> str:
    """`1 site`, `2 sites`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
