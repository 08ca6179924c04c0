"""Source text to tokens, cut into statements: limits, soft keywords, and everything wrong with single characters.

No tree is built here and nothing recurses, so size and nesting are known to be sane before the parser starts.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from vdsl.errors import Diagnostic, Related, Source, Span, VfeError
from vdsl.frontend.ast import Comment

MAX_CHARACTERS = 2**20
MAX_TOKENS = 40_000
MAX_NESTING = 100  # brackets and signs open at once
MAX_NUMBER = 60  # characters in one number: more than a double can hold several times over
MAX_NAME = 100  # characters in one name
MAX_ERRORS = 20

HEADS = (
    "model", "param", "let", "fn", "data", "lattice", "particles", "units", "field", "interaction", "temperature",
    "observable", "derived", "symmetry", "scan", "guide", "train",
)  # fmt: skip
CELL_HEADS = ("vectors", "site", "bond", "group")
HARD_WORDS = frozenset({"in", "and", "or", "not", "if", "then", "else"})
_AFTER_OPERAND = frozenset({"on", "from", "seed", "at", "where"})
_OPENING = {"(": ")", "[": "]", "{": "}"}
_CLOSING = frozenset(")]}")
_OPERAND_ENDS = frozenset({"NAME", "NUMBER", "STRING", ")", "]", "}", "'"})


class Token(NamedTuple):
    """`type` is NAME, NUMBER, STRING, NEWLINE, or the text itself for keywords and punctuation."""

    type: str
    text: str
    start: int
    end: int
    source: Source

    @property
    def span(self) -> Span:
        """Where it stands."""
        return Span(self.source, self.start, self.end)


@dataclass
class Statement:
    """The tokens of one statement; `broken` when something is already known to be wrong with it."""

    tokens: list[Token]
    broken: bool = False


@dataclass
class Lexed:
    """A whole file: its statements, its comments, and what was wrong on the way."""

    statements: list[Statement] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    problems: list[Diagnostic] = field(default_factory=list)


def decode(content: bytes, name: str) -> Source:
    """Bytes of a file to a Source. A UTF-8 byte order mark is dropped. Raises `too-large` and `bad-encoding`."""
    if len(content) > 4 * MAX_CHARACTERS:
        raise _too_large(f"this file has {len(content):,} bytes", None)
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise VfeError(
            Diagnostic(
                "bad-encoding",
                f"`{name}` is not UTF-8 text",
                notes=("it starts like UTF-16",),
                hints=("save it again with the encoding UTF-8",),
            )
        )
    try:
        return Source(name, content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        # What was readable, with the bad byte replaced, so that the caret can stand under it.
        start = 3 if content.startswith(b"\xef\xbb\xbf") else 0
        before = content[start : start + error.start].decode("utf-8", "replace")
        line_end = content.find(b"\n", start + error.start)
        rest = content[start + error.start : line_end if line_end >= 0 else None].decode("utf-8", "replace")
        source = Source(name, before + rest)
        raise VfeError(
            Diagnostic(
                "bad-encoding",
                f"byte 0x{content[start + error.start]:02x} is not UTF-8 text",
                Span(source, len(before), len(before) + 1),
                "not UTF-8",
                hints=("save the file again with the encoding UTF-8",),
            )
        ) from None


def lex(source: Source) -> Lexed:
    """Cuts a source into statements. Raises VfeError (exit code 4) when it is too large or too deeply nested."""
    if len(source.text) > MAX_CHARACTERS:
        raise _too_large(f"this text has {len(source.text):,} characters", Span(source, 0, 1))
    out = Lexed()
    tokens, bad = _scan(source, out)
    for statement in _statements(source, tokens, out.problems):
        if not statement.tokens:
            continue
        if bad:
            first, last = statement.tokens[0].start, statement.tokens[-1].end
            statement.broken = statement.broken or any(first <= offset <= last for offset in bad)
        out.statements.append(statement)
    return out


# --- Characters to tokens ---------------------------------------------------------------------------------------------

_LOOKALIKES = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "‒": "-", "﹣": "-", "-": "-",
    "×": "*", "·": "*", "⋅": "*", "∗": "*", "•": "*", "∙": "*", "÷": "/", "∕": "/", "⁄": "/",
    "≤": "<=", "⩽": "<=", "≥": ">=", "⩾": ">=", "≠": "!=", "⟨": "<", "⟩": ">", "〈": "<", "〉": ">", "‹": "<", "›": ">",
    "’": "'", "‘": "'", "′": "'", "†": "'", "＝": "=", "：": ":", "，": ",", "；": ";", "（": "(", "）": ")",
    "∞": "inf", "∑": "sum", "∏": "prod", "√": "sqrt", "∈": "in", "→": "->", "∧": "and", "∨": "or", "¬": "not",
    "²": "^2", "³": "^3", "⁴": "^4", "µ": "μ",
}  # fmt: skip
_BLANK_LOOKALIKES = "\u00a0\u2000-\u200b\u202f\u205f\u2060\u3000\ufeff"
_SAID = {"&": "and", "&&": "and", "|": "or", "||": "or", "!": "not"}

# Names are ASCII and Greek letters (not the micro sign, nor accented letters, which have several spellings).
_LETTER = "A-Za-z_\u0391-\u03a9\u03b1-\u03c9\u03d1\u03d5\u03d6\u03f0\u03f1\u03f5"
_TOKEN = re.compile(
    rf"""
      (?P<blank>[ \t]+)
    | (?P<NEWLINE>(?:\r?\n[ \t]*)+)
    | (?P<NAME>[{_LETTER}][{_LETTER}0-9]*)
    | (?P<NUMBER>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    | (?P<comment>\#[^\n]*)
    | (?P<STRING>"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*")
    | (?P<op>->|\*\*|//|==|!=|<=|>=|[-+*/%^'()\[\]{{}},:=~<>;])
    | (?P<open_string>"[^\n]*)
    | (?P<curly>[“”„‟«»][^“”„‟«»"\n]*[“”„‟«»"])
    | (?P<space>[{_BLANK_LOOKALIKES}]+)
    | (?P<said>&&?|\|\|?|!)
    | (?P<other>.)(?P=other)*
    """,
    re.VERBOSE | re.DOTALL,
)


def _scan(source: Source, out: Lexed) -> tuple[list[Token], list[int]]:
    """Tokens of the whole file (newlines included), and the offsets where a character was wrong."""
    text = source.text
    tokens: list[Token] = []
    bad: list[int] = []
    begin = 1 if text.startswith("\ufeff") else 0
    for match in _TOKEN.finditer(text, begin):
        kind = match.lastgroup or ""
        if kind == "blank":
            continue
        start, end = match.span()
        if kind == "NAME":
            word = match.group()
            tokens.append(Token(word if word in HARD_WORDS else "NAME", word, start, end, source))
            if len(word) > MAX_NAME:
                bad.append(start)
                out.problems.append(_long_name(tokens[-1]))
        elif kind == "op":
            word = match.group()
            tokens.append(Token(word, word, start, end, source))
        elif kind == "NUMBER" or kind == "STRING":
            token = Token(kind, match.group(), start, end, source)
            tokens.append(token)
            problem = _bad_number(token) if kind == "NUMBER" else _bad_string(token)
            if problem is not None:
                bad.append(start)
                out.problems.append(problem)
        elif kind == "NEWLINE":
            tokens.append(Token("NEWLINE", "\n", start, end, source))
        elif kind == "comment":
            comment = match.group().rstrip()
            span = Span(source, start, start + len(comment))
            own_line = not tokens or tokens[-1].type == "NEWLINE"
            out.comments.append(Comment(comment, span, own_line))
            if len(out.comments) + len(tokens) > MAX_TOKENS:
                raise _too_many_tokens(source, tokens, start)
            stray = _CONTROL.search(comment)
            if stray:
                bad.append(start + stray.start())
                out.problems.append(_character(source, start + stray.start(), start + stray.end()))
            continue
        else:
            _misread(source, kind, match.group(), start, end, tokens, bad, out.problems)
        if len(tokens) + len(out.comments) > MAX_TOKENS:
            raise _too_many_tokens(source, tokens, start)
        if len(out.problems) >= MAX_ERRORS:
            raise VfeError(out.problems)
    return tokens, bad


def _long_name(token: Token) -> Diagnostic:
    return Diagnostic(
        "bad-name", f"a name of {len(token.text):,} characters", token.span, f"at most {MAX_NAME} characters"
    )


def _bad_number(token: Token) -> Diagnostic | None:
    """A literal that no double (or, for integers, no 64-bit integer) can hold."""
    if len(token.text) > MAX_NUMBER:
        return Diagnostic(
            "bad-number",
            f"a number of {len(token.text):,} characters",
            token.span,
            f"at most {MAX_NUMBER} characters",
            hints=("a double holds 17 significant digits",),
        )
    if float(token.text) == float("inf"):
        return Diagnostic(
            "bad-number", "this number is too large", token.span, "beyond 1.8e308", hints=("infinity is written `inf`",)
        )
    return None


_ESCAPES = {"\\": "\\", '"': '"', "n": "\n", "t": "\t"}


def unescape(text: str) -> str:
    """The value of a string literal, quotes included in `text`."""
    return re.sub(r"\\(.)", lambda m: _ESCAPES[m.group(1)], text[1:-1])


def _bad_string(token: Token) -> Diagnostic | None:
    for match in re.finditer(r"\\(.)", token.text):
        if match.group(1) not in _ESCAPES:
            start = token.start + match.start()
            return Diagnostic(
                "bad-string",
                f"`{match.group()}` has no meaning inside a string",
                Span(token.source, start, start + 2),
                'expected `\\\\`, `\\"`, `\\n` or `\\t`',
                hints=("write `\\\\` for a backslash; paths may be written with `/`",),
            )
    control = _CONTROL.search(token.text)
    return _character(token.source, token.start + control.start(), token.start + control.end()) if control else None


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def _misread(
    source: Source,
    kind: str,
    text: str,
    start: int,
    end: int,
    tokens: list[Token],
    bad: list[int],
    problems: list[Diagnostic],
) -> None:
    """Reports something that is no token, and puts in its place what was meant, where that is known."""
    bad.append(start)
    span = Span(source, start, end)
    if kind == "open_string":
        problems.append(Diagnostic("bad-string", "this string does not end on its line", span, 'no closing `"`'))
        tokens.append(Token("STRING", '""', start, end, source))
    elif kind == "curly":
        problems.append(
            Diagnostic(
                "lookalike-character",
                f"typographic quotes `{text[0]}{text[-1]}` do not make a string",
                span,
                "not a string",
                hints=(f'write "{text[1:-1]}" with straight quotes',),
            )
        )
        tokens.append(Token("STRING", f'"{text[1:-1]}"', start, end, source))
    elif kind == "space":
        problems.append(
            Diagnostic(
                "lookalike-character",
                f"{_name(text[0])} is not a blank",
                span,
                "looks like a blank",
                hints=("type an ordinary space; this one often comes from a PDF or a web page",),
            )
        )
    elif kind == "said":
        problems.append(
            Diagnostic("bad-character", f"`{text}` means nothing here", span, hints=(f"write `{_SAID[text]}`",))
        )
        tokens.append(Token(_SAID[text], text, start, end, source))
    elif text[0] == "\r":
        problems.append(
            Diagnostic(
                "bad-line-ending",
                "a carriage return without a newline",
                Span(source, start, start + 1),
                "a line cannot end like this",
                hints=("save the file with Unix (\\n) or Windows (\\r\\n) line endings",),
            )
        )
        tokens.append(Token("NEWLINE", "\n", start, end, source))
    elif text[0] in _LOOKALIKES:
        meant = _LOOKALIKES[text[0]]
        problems.append(
            Diagnostic(
                "lookalike-character",
                f"`{text[0]}` ({_name(text[0])}) is not part of the language",
                Span(source, start, start + 1),
                f"looks like `{meant}`",
                hints=(f"write `{meant}`" + ("; text copied from a PDF often has these" if meant == "-" else ""),),
            )
        )
        tokens.append(Token(meant, meant, start, end, source))
    else:
        problems.append(_character(source, start, end))


def _character(source: Source, start: int, end: int) -> Diagnostic:
    character = source.text[start]
    shown = f"`{character}` ({_name(character)})" if character.isprintable() else _name(character)
    times = f", {end - start} times" if end - start > 1 else ""
    hints: tuple[str, ...] = ()
    if unicodedata.category(character).startswith("L"):
        plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
        hints = ("names are made of the letters a-z, A-Z, Greek letters, digits and `_`",)
        if plain.isalpha():
            hints = (f"write `{plain}`", *hints)
    elif character == ".":
        hints = ("a point belongs to a number; file names stand in quotes, and ranges are written `[a, b]`",)
    elif character == "\0":
        hints = ("this does not look like a text file",)
    return Diagnostic(
        "bad-character", f"{shown} is not part of the language{times}", Span(source, start, end), hints=hints
    )


def _name(character: str) -> str:
    return f"U+{ord(character):04X} {unicodedata.name(character, 'control character')}"


# --- Tokens to statements ---------------------------------------------------------------------------------------------


def _statements(source: Source, tokens: list[Token], problems: list[Diagnostic]) -> Iterator[Statement]:
    """Cuts at newlines and `;` outside brackets; matches brackets; settles the soft keywords."""
    at, count = 0, len(tokens)
    while at < count:
        statement, at = _one_statement(source, tokens, at, problems)
        yield statement
        if len(problems) >= MAX_ERRORS:
            return


def _one_statement(source: Source, tokens: list[Token], at: int, problems: list[Diagnostic]) -> tuple[Statement, int]:
    out: list[Token] = []
    open_brackets: list[Token] = []
    signs = 0
    broken = False
    begin = at
    while at < len(tokens):
        token = tokens[at]
        at += 1
        kind = token.type
        if kind == "NEWLINE" or kind == ";":
            if not open_brackets:
                return Statement(out, broken), at
            if open_brackets[-1].type == "{":
                # A newline ends an item where one can end; empty items are dropped.
                if out[-1].type in _OPERAND_ENDS or (kind == ";" and out[-1].type not in ("{", ";")):
                    out.append(token._replace(type=";"))
                continue
            if kind == "NEWLINE":
                continue
            problems.append(
                Diagnostic(
                    "unclosed-bracket",
                    f"`;` ends a statement, but `{open_brackets[-1].text}` is still open",
                    token.span,
                    f"expected `{_OPENING[open_brackets[-1].text]}` before this",
                    related=(Related(open_brackets[-1].span, "opened here"),),
                )
            )
            return Statement(out, True), at
        if kind in _OPENING:
            open_brackets.append(token)
        elif kind in _CLOSING:
            if not open_brackets:
                problems.append(
                    Diagnostic(
                        "unmatched-bracket",
                        f"`{kind}` closes nothing",
                        token.span,
                        f"no `{ {v: k for k, v in _OPENING.items()}[kind] }` is open",
                    )
                )
                broken = True
                continue
            opening = open_brackets.pop()
            if _OPENING[opening.type] != kind and not (kind in ")]" and _starts_range(out, opening)):
                problems.append(
                    Diagnostic(
                        "unmatched-bracket",
                        f"`{kind}` does not close `{opening.text}`",
                        token.span,
                        f"expected `{_OPENING[opening.type]}`",
                        related=(Related(opening.span, "opened here"),),
                    )
                )
                broken = True
            while kind == "}" and out and out[-1].type == ";":
                out.pop()
        signs = signs + 1 if kind in ("-", "+", "not") and not _is_operand_end(out) else 0
        if len(open_brackets) + signs > MAX_NESTING:
            raise _too_deep(source, token)
        if kind == "NAME":
            token = _settle(token, out, tokens, at, open_brackets)
        out.append(token)
    if open_brackets:
        return _unclosed(source, tokens, begin, out, open_brackets, problems)
    return Statement(out, broken), at


def _is_operand_end(out: list[Token]) -> bool:
    return bool(out) and out[-1].type in _OPERAND_ENDS


def _starts_range(out: list[Token], opening: Token) -> bool:
    """Whether a bracket opened right after the `in` of a `param`, where `[0, 1)` is a range."""
    if out[0].type != "param":
        return False
    for i in range(len(out) - 1, 0, -1):
        if out[i] is opening:
            return out[i - 1].type == "in"
    return False


def _settle(token: Token, out: list[Token], tokens: list[Token], at: int, open_brackets: list[Token]) -> Token:
    """A word as the keyword it is in this place, or as the name it is everywhere else."""
    word = token.text
    following = tokens[at] if at < len(tokens) else None
    if not out:
        keyword = word in HEADS
    elif word in _AFTER_OPERAND and (_is_operand_end(out) or _names_a_file(word, out, following)):
        keyword = True
    elif word == "let":
        second = tokens[at + 1] if at + 1 < len(tokens) else None
        keyword = following is not None and following.type == "NAME" and second is not None and second.type == "="
    elif word in CELL_HEADS:
        keyword = (
            bool(open_brackets)
            and open_brackets[-1].type == "{"
            and out[-1].type in ("{", ";")
            and not (following is not None and following.type == "=")
        )
    else:
        keyword = False
    return token._replace(type=word) if keyword else token


def _names_a_file(word: str, out: list[Token], following: Token | None) -> bool:
    """`graph(from "edges.csv")`."""
    return word == "from" and out[-1].type == "(" and following is not None and following.type == "STRING"


def _unclosed(
    source: Source,
    tokens: list[Token],
    begin: int,
    out: list[Token],
    open_brackets: list[Token],
    problems: list[Diagnostic],
) -> tuple[Statement, int]:
    """A bracket still open at the end of the file. Its statement is taken to end before the next line that starts
    like one."""
    opening = open_brackets[-1]
    seen_opening = False
    for at in range(begin, len(tokens) - 1):
        seen_opening = seen_opening or tokens[at] is opening or tokens[at].start >= open_brackets[0].start
        if seen_opening and tokens[at].type == "NEWLINE" and _looks_like_statement(source, tokens, at + 1):
            stop = at + 1
            break
    else:
        stop = len(tokens)
    # The innermost bracket still open where the statement ends.
    depth: list[Token] = []
    for token in tokens[begin:stop]:
        if token.type in _OPENING:
            depth.append(token)
        elif token.type in _CLOSING and depth:
            depth.pop()
    opening = depth[-1] if depth else opening
    problems.append(
        Diagnostic(
            "unclosed-bracket",
            f"`{opening.text}` is never closed",
            opening.span,
            f"no matching `{_OPENING[opening.text]}`",
            related=((Related(tokens[stop].span, "the next statement starts here"),) if stop < len(tokens) else ()),
        )
    )
    return Statement([t for t in out if t.start < tokens[stop - 1].end], True), stop


def _looks_like_statement(source: Source, tokens: list[Token], at: int) -> bool:
    if tokens[at].type != "NAME" or tokens[at].text not in HEADS or at + 1 >= len(tokens):
        return False
    first_column = source.text[tokens[at].start - 1 : tokens[at].start] in ("", "\n")
    return first_column and tokens[at + 1].type in ("NAME", "NUMBER", "(")


# --- Limits -----------------------------------------------------------------------------------------------------------


def _too_large(found: str, span: Span | None) -> VfeError:
    return VfeError(
        Diagnostic(
            "too-large",
            f"{found}; the limit is {MAX_CHARACTERS:,} characters",
            span,
            hints=("put numbers into a data file and read them with `data … from`",),
        ),
        exit_code=4,
    )


def _too_many_tokens(source: Source, tokens: list[Token], offset: int) -> VfeError:
    for _ in _statements(source, tokens, []):  # too many brackets are too deep before they are too many
        pass
    return VfeError(
        Diagnostic(
            "too-large",
            f"more than {MAX_TOKENS:,} words and symbols",
            Span(source, offset, offset + 1),
            "the limit is reached here",
            hints=("put numbers into a data file and read them with `data … from`",),
        ),
        exit_code=4,
    )


def _too_deep(source: Source, token: Token) -> VfeError:
    return VfeError(
        Diagnostic(
            "too-deep",
            f"more than {MAX_NESTING} brackets and signs inside each other",
            token.span,
            "nested too deeply",
            hints=("name a part of it with `let` or `fn`",),
        ),
        exit_code=4,
    )
