"""Text that means harm, or comes from a broken editor: a diagnostic within a second, never a traceback."""

from __future__ import annotations

import gc
import math
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from vdsl.errors import Source, VfeError
from vdsl.frontend.format import format_module
from vdsl.frontend.lexer import MAX_CHARACTERS, MAX_ERRORS, MAX_TOKENS, decode
from vdsl.frontend.parse import parse

MEBI = 2**20
# name: text, the code of the first diagnostic, the exit code
REFUSED = {
    "brackets": ("(" * MEBI, "too-deep", 4),
    "brackets in a let": ("let a = " + "([" * 10**5, "too-deep", 4),
    "blocks": ("guide a {" * 1000, "too-deep", 4),
    "closing brackets": (")" * 10**4, "unmatched-bracket", 1),
    "minuses": ("let a = " + "-" * 10**5 + "1", "too-deep", 4),
    "nots": ("let a = " + "not " * 10**5 + "b", "too-deep", 4),
    "powers": ("let a = " + "9**" * 2000 + "9", "too-deep", 4),
    "adjoints": ("let a = b" + "'" * 10**4, "too-deep", 4),
    "indices": ("let a = b" + "[0]" * 10**4, "too-deep", 4),
    "ifs": ("let a = " + "if b then 1 else " * 5000 + "1", "too-deep", 4),
    "lets": ("let a = " + "let b = 1 in " * 5000 + "1", "too-deep", 4),
    "a sum without an end": ("let a = " + "1 + " * 10**4, "syntax", 1),
    "one character too many": (" " * (MAX_CHARACTERS + 1), "too-large", 4),
    "numbers": ("let a = [" + "1," * MAX_TOKENS + "]", "too-large", 4),
    "comments": ("#\n" * MAX_TOKENS, "too-large", 4),
    "statements": ("param a\n" * MAX_TOKENS, "too-large", 4),
    "a name": ("let " + "a" * 10**6 + " = 1", "bad-name", 1),
    "an integer": ("let a = " + "9" * 10**5, "bad-number", 1),
    "an exponent": ("let a = 1e" + "9" * 50, "bad-number", 1),
    "NUL bytes": ("\0" * 10**6, "bad-character", 1),
    "a NUL byte in each line": ("param a\0 = 1\n" * 10**4, "bad-character", 1),
    "control characters": ("\a\b\x1b" * 10**5, "bad-character", 1),
    "surrogates": ('let a = "\ud800"', "bad-character", 1),
    "carriage returns": ("param a = 1\r" * 10**4, "bad-line-ending", 1),
    "bad lines": ("x\n" * 10**4, "unknown-statement", 1),
    "bad lines after empty ones": ("\n" * (10**6 - 100) + "x\n" * 50, "unknown-statement", 1),
    "unclosed brackets": ("let a = (1\n" * 50, "unclosed-bracket", 1),
    "quotes": ("'" * 10**4, "unknown-statement", 1),
    "open strings": ('"\n' * 10**4, "bad-string", 1),
    "escapes": ('let a = "' + "\\" * 10**6, "bad-string", 1),
    "a letter with marks": ("let a" + "\u0301" * 10**5, "bad-character", 1),
    "other letters": ("é" * 10**5, "bad-character", 1),
    "dots": ("." * 10**5, "bad-character", 1),
    "binders without a body": ("let a = sum(" + "i in s," * 5000 + ")", "syntax", 1),
    "comparisons": ("let a = " + "1 < " * 10**4 + "1", "chained-comparison", 1),
    "a minus from a PDF": ("param J = −1", "lookalike-character", 1),
    "a blank from a PDF": ("param J =\u00a01", "lookalike-character", 1),
    "typographic quotes": ("model a “b”", "lookalike-character", 1),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def nothing_else_to_collect() -> Iterator[None]:
    """What earlier tests of the process left on the heap is not walked through again while the parser is timed."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.parametrize("name", REFUSED)
def test_refused_within_a_second(name: str) -> None:
    """The best of five: a busy machine slows some of them down, a parser that takes quadratic time all."""
    text, code, exit_code = REFUSED[name]
    seconds = math.inf
    for _ in range(5):
        start = time.thread_time()  # other threads of the process are not the parser's work
        with pytest.raises(VfeError) as caught:
            parse(Source("hostile.vfe", text))
        message = str(caught.value)
        seconds = min(seconds, time.thread_time() - start)
        if seconds < 1.0:
            break
    assert seconds < 1.0
    assert caught.value.diagnostics[0].code == code
    assert caught.value.exit_code == exit_code
    assert len(caught.value.diagnostics) <= MAX_ERRORS
    assert len(message) < 1000 * MAX_ERRORS
    message.encode()  # can be printed


ACCEPTED = {
    "a million empty lines": "\n" * 10**6,
    "blanks": " " * 10**6,
    "a tower": "let a = 9**9**9",
    "a long name": "let " + "a" * 100 + " = 1",
    "a long comment": "#" + "x" * 10**6,
    "a long string": 'model a "' + "x" * 10**6 + '"',
    "semicolons": ";" * (MAX_TOKENS - 1),
    "many statements": "param a\n" * 5000,
    "many numbers": "let a = [" + "1," * 5000 + "]",
    "the longest sum": "let a = " + " + ".join(["b"] * 10**4),
    "a hundred calls inside each other": "let a = " + "f(" * 99 + "b" + ")" * 99,
    "operations in brackets": "let a = " + "(1 + 2^-f(" * 40 + "b" + "))" * 40,
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_odd_but_valid_text_parses_and_formats(name: str) -> None:
    module = parse(Source("odd.vfe", ACCEPTED[name]))
    text = format_module(module)
    assert format_module(parse(Source("again.vfe", text))) == text


def test_memory_is_bounded_by_the_limits() -> None:
    """A mebibyte of brackets, and a tenth of the largest list, stay within some tens of mebibytes."""
    for text in ("let a = [" + "1," * 5000 + "]", "(" * MEBI):
        tracemalloc.start()
        try:
            parse(Source("big.vfe", text))
        except VfeError as error:
            str(error)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40 * MEBI


def test_at_most_so_many_errors_are_reported_in_order() -> None:
    with pytest.raises(VfeError) as caught:
        parse(Source("bad.vfe", "let a =\nx\n\0\n" * 100))
    found = caught.value.diagnostics
    assert len(found) == MAX_ERRORS
    starts = [d.span.start for d in found if d.span]
    assert starts == sorted(starts)


@pytest.mark.parametrize("content", [b"\xff" * MEBI, b"\xfe\xff" + b"\0a" * 1000, b"\x80", b"\x00" * 5 * MEBI])
def test_bytes_that_are_no_text(content: bytes) -> None:
    with pytest.raises(VfeError) as caught:
        parse(decode(content, "bytes.vfe"))
    assert caught.value.diagnostics[0].code in ("bad-encoding", "too-large", "bad-character")
    assert len(str(caught.value)) < 1000
