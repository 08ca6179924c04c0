"""Lines of limited width from text that may break inside its brackets, and only there.

piece = str                 text without a break
      | Break(level)        a blank that may become a newline inside brackets, loosest level first
      | Group(open, parts, close)   a bracket and its comma-separated parts
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from vdsl.errors import InternalError

WIDTH = 100
_STEP = "    "
_NARROWEST = 8  # brackets that are narrower gain nothing by a line of their own


@dataclass(frozen=True)
class Break:
    """A blank; lines break at the smallest level first."""

    level: int


@dataclass(frozen=True)
class Group:
    """`open part, part close`; `gap` stands after `open` on one line; `fill` packs parts instead of one on a line."""

    open: str
    parts: Sequence[Sequence[Piece]] = field(default_factory=list)
    close: str = ""
    gap: str = ""
    fill: bool = False

    @cached_property
    def flat(self) -> str:
        """The group on one line."""
        return f"{self.open}{self.gap}{', '.join(flat(p) for p in self.parts)}{self.close}"


Piece = str | Break | Group


def flat(pieces: Sequence[Piece]) -> str:
    """The text on one line."""
    return "".join(p if isinstance(p, str) else " " if isinstance(p, Break) else p.flat for p in pieces)


def lay_out(pieces: Sequence[Piece], indent: str) -> list[str]:
    """Lines no wider than WIDTH where brackets allow; the first starts at `indent`, later ones further in."""
    writer = _Writer([indent])
    _write(writer, pieces, indent, False, 0)
    return [line.rstrip() for line in writer.lines]


@dataclass
class _Writer:
    lines: list[str]

    def fits(self, text: str, after: int) -> bool:
        return len(self.lines[-1]) + len(text) + after <= WIDTH

    def put(self, text: str) -> None:
        self.lines[-1] += text

    def newline(self, indent: str) -> None:
        self.lines.append(indent)


def _write(writer: _Writer, pieces: Sequence[Piece], indent: str, inside: bool, after: int) -> None:
    """Writes pieces; `inside` brackets lines may break at `Break`s; `after` characters follow on the last line."""
    while True:
        text = flat(pieces)
        if writer.fits(text, after):
            writer.put(text)
            return
        levels = [p.level for p in pieces if isinstance(p, Break)]
        if inside and levels:
            _write_chunks(writer, _split(pieces, min(levels)), indent, after)
            return
        widths = [len(p.flat) if isinstance(p, Group) and p.parts else 0 for p in pieces]
        if max(widths, default=0) < _NARROWEST:
            writer.put(text)
            return
        at = widths.index(max(widths))
        group, rest = pieces[at], pieces[at + 1 :]
        if not isinstance(group, Group):
            raise InternalError("only groups have a width")
        writer.put(flat(pieces[:at]))
        _write_group(writer, group, indent, len(flat(rest)) + after)
        pieces = rest


def _write_chunks(writer: _Writer, chunks: Sequence[Sequence[Piece]], indent: str, after: int) -> None:
    for i, chunk in enumerate(chunks):
        last = i == len(chunks) - 1
        if i:
            if writer.fits(" " + flat(chunk), after if last else 0):
                writer.put(" ")
            else:
                writer.newline(indent)
        _write(writer, chunk, indent, True, after if last else 0)


def _write_group(writer: _Writer, group: Group, indent: str, after: int) -> None:
    writer.put(group.open)
    deeper = indent + _STEP
    for i, part in enumerate(group.parts):
        last = i == len(group.parts) - 1
        closing = len(group.close) + after if last else 1
        if i and group.fill and writer.fits(" " + flat(part), closing):
            writer.put(" ")
        else:
            writer.newline(deeper)
        _write(writer, part, deeper, True, closing)
        writer.put(group.close if last else ",")


def _split(pieces: Sequence[Piece], level: int) -> list[list[Piece]]:
    chunks: list[list[Piece]] = [[]]
    for piece in pieces:
        if isinstance(piece, Break) and piece.level == level:
            chunks.append([])
        else:
            chunks[-1].append(piece)
    return chunks
