"""Every diagnostic, as a person sees it: golden/NAME.vfe goes in, golden/NAME.txt must come out.

`VDSL_GOLDEN=1 pytest tests/frontend/test_golden.py` writes the .txt files anew; read the difference before keeping it.
A first line `# set NAME=VALUE, …` gives parameters.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from vdsl.codes import CODES
from vdsl.compile import compile_source
from vdsl.errors import VfeError, render
from vdsl.frontend.parse import decode, parse

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for path in GOLDEN.glob("*.vfe"))


def diagnose(path: Path) -> str:
    """All diagnostics of a file, errors or warnings, with the exit code in the last line."""
    try:
        source = decode(path.read_bytes(), path.name)
        _, warnings = compile_source(source, overrides_of(source.text), path.parent)
    except VfeError as error:
        return f"{error}\n\nexit {error.exit_code}\n"
    return "\n\n".join([*(render(w) for w in warnings), "exit 0"]) + "\n"


def overrides_of(text: str) -> dict[str, object]:
    """The `# set L=4, T=1.5` of a case's first line."""
    found = re.match(r"# set (.*)", text)
    if found is None:
        return {}
    pairs = (item.split("=") for item in found.group(1).split(","))
    return {name.strip(): (int(value) if value.strip().isdigit() else float(value)) for name, value in pairs}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    found = diagnose(GOLDEN / f"{name}.vfe")
    expected = GOLDEN / f"{name}.txt"
    if os.environ.get("VDSL_GOLDEN") == "1":
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")


def shown_codes() -> set[str]:
    """Every code that some golden pins."""
    texts = [(GOLDEN / f"{name}.txt").read_text(encoding="utf-8") for name in CASES]
    return {code for text in texts for code in re.findall(r"^\w+\[([\w-]+)\]", text, re.M)}


def test_every_code_is_explained() -> None:
    shown = shown_codes()
    assert shown <= set(CODES)


def test_every_code_of_the_syntax_has_a_golden() -> None:
    sources = [Path(parse.__code__.co_filename).parent / f"{name}.py" for name in ("lexer", "syntax", "parse")]
    codes = {c for path in sources for c in re.findall(r'"([a-z]+(?:-[a-z]+)+|syntax)"', path.read_text())} & set(CODES)
    shown = shown_codes()
    assert len(codes) >= 14
    assert codes - shown <= {"too-large"}  # a file that is too large is not kept in the repository
