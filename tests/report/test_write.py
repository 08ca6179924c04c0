"""Run directories: claimed without overwriting, locked, and strict JSON in them."""

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vdsl.errors import VfeError
from vdsl.report import write
from vdsl.report.result import read_result, strict, to_json


def _code(error) -> tuple[str, int]:
    return error.value.diagnostics[0].code, error.value.exit_code


def test_default_names_count_upwards_and_fill_no_gap(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [str(write.claim(None, "ising")) for _ in range(2)]
    (tmp_path / "runs" / "ising-7").mkdir()
    names.append(str(write.claim(None, "ising")))
    assert names == ["runs/ising-1", "runs/ising-2", "runs/ising-8"]
    assert str(write.claim(None, "../evil name")) == "runs/.._evil_name-1"


def test_an_existing_run_is_not_overwritten_without_force_and_strangers_are_never_removed(tmp_path):
    out = tmp_path / "run"
    assert write.claim(out, "m") == out
    assert write.claim(out, "m") == out  # still empty
    for name in (*write.FILES, "notes.txt"):
        (out / name).write_text("old")
    with pytest.raises(VfeError) as error:
        write.claim(out, "m")
    assert _code(error) == ("out-exists", 2)
    assert (out / write.RESULT).read_text() == "old"
    write.claim(out, "m", force=True)
    assert sorted(p.name for p in out.iterdir() if p.name != write.LOCK) == ["notes.txt"]


def test_a_file_in_the_way_is_refused_even_with_force(tmp_path):
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(VfeError) as error:
            write.claim(target, "m", force=True)
        assert error.value.exit_code == 2
    assert (tmp_path / "file").read_text() == "x"


def test_a_run_another_process_works_on_is_left_alone(tmp_path):
    (tmp_path / write.RESULT).write_text("{}")
    script = f"""
import sys
from pathlib import Path
from vdsl.report.write import locked
with locked(Path({str(tmp_path)!r})):
    print("locked", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(VfeError) as error, write.locked(tmp_path):
            pass
        assert _code(error) == ("run-busy", 2)
        with pytest.raises(VfeError):
            write.claim(tmp_path, "m", force=True)
        assert (tmp_path / write.RESULT).exists()
    finally:
        other.kill()  # the lock goes with the process, however it ends
        other.wait()
    with write.locked(tmp_path):
        pass


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    (tmp_path / ".checkpoint.npz.123.tmp").write_text("half")
    with write.locked(tmp_path):
        assert not list(tmp_path.glob("*.tmp"))
        assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(
    ("number", "expected"),
    [(errno.EACCES, ("unwritable", 2)), (errno.EROFS, ("unwritable", 2)), (errno.ENOSPC, ("disk-full", 4))],
)
def test_a_place_that_cannot_be_written_is_said_to_be_so(tmp_path, monkeypatch, number, expected):
    def mkdir(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    for out in (tmp_path / "new", None):
        with pytest.raises(VfeError) as error:
            write.claim(out, "m")
        assert _code(error) == expected


def test_json_is_strict():
    value = {"a": math.nan, "b": [np.float32(1.5), np.int8(3), np.array([1.0, math.inf])], "c": None, 1: True}
    assert strict(value) == {"a": None, "b": [1.5, 3, [1.0, None]], "c": None, "1": True}
    assert json.loads(to_json(value)) == strict(value)
    with pytest.raises(TypeError):
        strict({"f": object()})


def test_floats_survive_json_bit_by_bit():
    values = [0.1, 2.269185314213022, 5e-324, -1.7976931348623157e308, 1 / 3]
    assert json.loads(to_json({"v": values}))["v"] == values


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', "not json"])
def test_what_is_not_a_result_is_refused(tmp_path, text):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(VfeError) as error:
        read_result(tmp_path / "result.json")
    assert _code(error) == ("bad-result", 2)


def test_what_is_not_a_run_is_refused(tmp_path):
    for directory in (tmp_path, tmp_path / "absent"):
        with pytest.raises(VfeError) as error:
            write.read_manifest(directory)
        assert _code(error) == ("not-a-run", 2)
    (tmp_path / write.SAMPLES).write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(VfeError):
        write.read_arrays(tmp_path / write.SAMPLES)


def test_arrays_come_back_as_they_were(tmp_path):
    arrays = {"sample/s": np.array([[1, -1]], np.int8), "log_q": np.array([-0.1])}
    write.write_arrays(tmp_path / "a.npz", arrays)
    back = write.read_arrays(tmp_path / "a.npz")
    assert {k: (v.dtype, v.tolist()) for k, v in back.items()} == {k: (v.dtype, v.tolist()) for k, v in arrays.items()}
