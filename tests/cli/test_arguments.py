"""The command line as such: help, usage errors with suggestions, exit codes, and what happens when things go wrong."""

import argparse
import os
import subprocess
import sys

import pytest

import vdsl.cli
from vdsl.cli.arguments import COMMANDS, assignment, literal, natural, parser, positive, seconds
from vdsl.errors import Diagnostic, InternalError, VfeError


def test_version(vdsl):
    from importlib.metadata import version

    assert vdsl("--version") == (0, f"vdsl {version('vdsl')}\n", "")


@pytest.mark.parametrize("words", [("--help",), ("-h",), ("help",)])
def test_help_lists_every_command(vdsl, words):
    code, out, err = vdsl(*words)
    assert (code, err) == (0, "")
    assert all(f"\n  {name} " in out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(vdsl, name):
    code, out, err = vdsl(name, "--help")
    assert (code, err) == (0, "")
    assert f"example: vdsl {COMMANDS[name].example}" in out
    assert vdsl("help", name).out == out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_is_explained(name):
    for action in parser(COMMANDS[name])._actions:
        assert action.help, action


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "a command is missing"),
        (("slove", "x.vfe"), "did you mean `vdsl solve`?"),
        (("xyzzy",), "`vdsl --help` lists the commands"),
        (("ising.vfe",), "did you mean `vdsl solve ising.vfe`?"),
        (("--json", "solve"), "no flag `--json` before a command"),
        (("solve",), "FILE"),
        (("solve", "x.vfe", "--sed", "1"), "did you mean `--seed`?"),
        (("solve", "x.vfe", "--tim", "1"), "did you mean `--time-limit`?"),
        (("solve", "x.vfe", "--seed", "-1"), "is not an integer from 0"),
        (("solve", "x.vfe", "--seed", "99999999999999999999"), "is not an integer from 0"),
        (("solve", "x.vfe", "--steps", "0"), "is not a positive integer"),
        (("solve", "x.vfe", "--time-limit", "5 parsecs"), "write 60s, 5m or 1h"),
        (("solve", "x.vfe", "--time-limit", "0s"), "is not a time"),
        (("solve", "x.vfe", "--set", "L"), "is not NAME=VALUE"),
        (("solve", "x.vfe", "--set", "=3"), "is not NAME=VALUE"),
        (("models", "extra"), "does not know what to do with `extra`"),
        (("tex", "no_such_file.vfe"), "there is no file `no_such_file.vfe`"),
        (("tex", "a\0b.vfe"), "NUL"),
    ],
)
def test_usage_errors_say_what_to_do_and_exit_2(vdsl, words, expected):
    code, out, err = vdsl(*words)
    assert (code, out) == (2, "")
    assert expected in err
    assert "Traceback" not in err


def test_a_misspelt_file_gets_a_suggestion(vdsl, tmp_path):
    (tmp_path / "ising.vfe").write_text("")
    assert "did you mean `ising.vfe`?" in vdsl("tex", "isnig.vfe").err
    assert "did you mean `ising.vfe`?" in vdsl("tex", "ising").err


def test_numbers_on_the_command_line_are_what_they_look_like():
    assert [literal(t) for t in ("8", "-8", "1.5", "1e3", "inf", "x", "1_000", " 2 ")] == [
        8, -8, 1.5, 1000.0, float("inf"), "x", "1_000", 2,
    ]  # fmt: skip
    assert isinstance(literal("8"), int)
    assert isinstance(literal("8.0"), float)
    assert assignment("T = 2.5") == ("T", 2.5)
    assert assignment("name=a=b") == ("name", "a=b")
    assert (natural("0"), positive("512")) == (0, 512)
    assert [seconds(t) for t in ("60", "60s", "1.5m", "2min", "1h")] == [60, 60, 90, 120, 3600]
    for bad in ("", "s", "-1s", "1d", "nan", "inf"):
        with pytest.raises(argparse.ArgumentTypeError):
            seconds(bad)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (VfeError(Diagnostic("syntax", "no")), 1, "error[syntax]: no"),
        (VfeError(Diagnostic("non-finite", "no"), exit_code=3), 3, "error[non-finite]: no"),
        (MemoryError(), 4, "error[resource-limit]: out of memory"),
        (RecursionError(), 4, "error[resource-limit]"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes"),
            4,
            "error[resource-limit]: out of memory",
        ),
        (OSError(28, "No space left on device", "x.npz"), 4, "error[disk-full]: cannot write `x.npz`"),
        (PermissionError(13, "Permission denied", "x"), 2, "error[unwritable]: cannot use `x`: permission denied"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (BrokenPipeError(), 0, ""),
        (InternalError("lost"), 3, "this is a bug in vdsl, not in your model (InternalError: lost)"),
        (ZeroDivisionError("x" * 500), 3, "this is a bug in vdsl"),
    ],
)
def test_whatever_happens_becomes_words_and_an_exit_code(vdsl, monkeypatch, error, code, words):
    def fail(_):
        raise error

    monkeypatch.setattr(vdsl_cli(), "_run", fail)
    monkeypatch.setattr(vdsl_cli(), "_silence_stdout", lambda: None)
    outcome = vdsl("models")
    assert (outcome.code, outcome.out) == (code, "")
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert len(outcome.err) < 500


def vdsl_cli():
    return vdsl.cli


def test_debug_shows_the_traceback_of_a_bug(vdsl, monkeypatch):
    def fail(_):
        raise InternalError("lost")

    monkeypatch.setattr(vdsl_cli(), "_run", fail)
    assert "Traceback (most recent call last)" in vdsl("models", "--debug").err


def _shell(command: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["bash", "-c", command.replace("vdsl ", f"{sys.executable} -m vdsl ")],
        capture_output=True, text=True, timeout=60, env={**os.environ, **environment},
    )  # fmt: skip


def test_a_reader_that_leaves_is_no_error():
    done = _shell("set -o pipefail; vdsl models | true; echo $?; vdsl --help | head -1")
    assert done.stdout.splitlines() == ["0", "usage: vdsl COMMAND …"]
    assert done.stderr.replace("`vdsl new NAME --template MODEL` copies one into a file of your own", "").strip() == ""


def test_a_full_standard_output_is_reported():
    done = _shell("vdsl --version > /dev/full; echo $?")
    assert done.stdout == "4\n"
    assert done.stderr.startswith("error[disk-full]: cannot write `standard output`")


def test_an_ascii_locale_is_no_obstacle():
    done = _shell("vdsl --help", LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: vdsl COMMAND …")
