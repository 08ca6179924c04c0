"""What every diagnostic code means: the text behind `vdsl explain CODE`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Explanation:
    """`summary` is one line; `body` says why it is an error and what to do; `example` is a short file or line."""

    summary: str
    body: str
    example: str = ""


CODES: dict[str, Explanation] = {
    # Syntax
    "too-large": Explanation(
        "the file is larger than any model needs to be",
        "A file may have 1,048,576 characters and 50,000 words and symbols. Numbers belong in a data file, which has "
        'no such limit: `data J on nn from "couplings.csv"`. The exit code is 4.',
    ),
    "too-deep": Explanation(
        "brackets, signs or operations are nested too deeply",
        "At most 100 brackets and signs may be open at once, an expression may be nested 200 deep, and a chain such as "
        "`a + b + c + …` may have 1000 operations. Name parts with `let` or `fn`, or read numbers from a data file and "
        "use `sum`. The exit code is 4.",
    ),
    "bad-encoding": Explanation(
        "the file is not UTF-8 text",
        "Files are read as UTF-8. Editors call it UTF-8 or Unicode (UTF-8); a byte order mark is allowed.",
    ),
    "bad-character": Explanation(
        "a character that no part of the language uses",
        "Outside comments and strings a file holds ASCII letters, Greek letters, digits, `_`, and the signs of the "
        "language. Control characters are refused everywhere.",
        "param L = 8 $",
    ),
    "lookalike-character": Explanation(
        "a character that looks like one of the language, but is another",
        "Text copied from a PDF, a web page or a word processor often has a typographic minus, quotes or blanks. They "
        "look right and are different characters, so they are refused and never guessed at. Type the ASCII one.",
        "param J = −1.0     # U+2212; write -1.0",
    ),
    "bad-line-ending": Explanation(
        "a carriage return that no newline follows",
        "Lines end with \\n or \\r\\n. A lone \\r would make what an editor shows differ from what is read.",
    ),
    "bad-string": Explanation(
        "a string that does not end on its line, or an unknown escape in one",
        'Strings stand in straight double quotes on one line. Inside, `\\\\`, `\\"`, `\\n` and `\\t` are a backslash, '
        "a quote, a newline and a tab. Write paths with `/`.",
        'model ising "no end',
    ),
    "bad-number": Explanation(
        "a number that a double cannot hold",
        "Numbers are doubles: 17 significant digits, up to 1.8e308. A literal may have 60 characters.",
        "param x = 1e999     # infinity is written inf",
    ),
    "unclosed-bracket": Explanation(
        "a bracket is opened and never closed",
        "Inside brackets a statement goes on over line ends, so a missing closing bracket swallows what follows. The "
        "diagnostic points at the bracket that was opened.",
        "interaction a = sum(i in sites: s[i]",
    ),
    "unmatched-bracket": Explanation(
        "a closing bracket without an opening one, or of another kind",
        "`(` is closed by `)`, `[` by `]`, `{` by `}`. Only the range of a parameter mixes them: `in [0, 1)`.",
        "let a = (1 + 2]",
    ),
    "unknown-statement": Explanation(
        "a line that does not start with a statement's first word",
        "Every statement starts with its kind: `param`, `let`, `lattice`, `field`, `interaction`, … One line is one "
        "statement; it goes on in the next line only inside brackets.",
        "J = 1.0     # write: param J = 1.0",
    ),
    "syntax": Explanation(
        "a statement is not written as the language has it",
        "The diagnostic says what was found and what may stand there instead. Every bad statement is reported; the "
        "others are read as usual.",
        "param L : int == 8",
    ),
    "chained-comparison": Explanation(
        "comparisons do not chain",
        "`a < b < c` would mean (a < b) < c in some languages and (a < b) and (b < c) in others. Write what you mean.",
        "interaction a = sum(i in sites where 0 < i < 4: s[i])     # 0 < i and i < 4",
    ),
    "not-a-reduction": Explanation(
        "only sum, prod, mean, max and min run over a set",
        "`NAME(i in SET: …)` is a reduction, and those are its names.",
        "observable m = average(i in sites: s[i])     # mean(i in sites: s[i])",
    ),
    "argument-order": Explanation(
        "an argument without a name after one with a name",
        "Arguments by position come first, arguments by name after them.",
        "lattice square(boundary = open, 8, 8)     # square(8, 8, boundary = open)",
    ),
}
