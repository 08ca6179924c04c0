"""Running commands inside the test process, with streams captured and a directory of their own."""

import io
import sys
from typing import NamedTuple

import pytest

from vdsl.cli import main


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def vdsl(capsys, monkeypatch, tmp_path):
    """`vdsl("solve", "x.vfe", stdin="…")` -> Outcome; the working directory is a fresh one."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object, stdin: str | bytes = b"") -> Outcome:
        content = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8"))
        capsys.readouterr()
        code = main([str(word) for word in words])
        return Outcome(code, *capsys.readouterr())

    return run
