"""Stopping and continuing a run equals never stopping, to the last bit; and nothing is lost when something breaks."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import vdsl.files
from vdsl.cli import main
from vdsl.report import write

pytestmark = pytest.mark.usefixtures("quick_compilations")

MODEL = """
model ring "spins in a random field"
param L : int = 6
lattice chain(L)
field s : spin
data h on sites from "fields.csv"
interaction exchange = -sum(<i, j> in nn: s[i] * s[j])
interaction zeeman = -sum(i in sites: h[i] * s[i])
temperature 1.5
observable m = mean(i in sites: s[i])
derived chi = expect(m^2) - expect(m)^2
guide dense { hidden = 3 }
"""
FLAGS = ["--steps", "60", "--batch", "32", "--samples", "256", "--seed", "3"]


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _write_model(tmp_path)
    return tmp_path


def _write_model(directory: Path) -> None:
    (directory / "ring.vfe").write_text(MODEL)
    rows = "".join(f"{i},{0.3 * (-1) ** i + 0.1 * i}\n" for i in range(6))
    (directory / "fields.csv").write_text(rows)


def _numbers(directory: Path) -> dict:
    """All that a run found, bit by bit, except how long things took."""
    result = json.loads((directory / write.RESULT).read_text())
    result["train"].pop("seconds")
    history = write.read_arrays(directory / write.HISTORY)
    history.pop("steps_per_second")
    samples = write.read_arrays(directory / write.SAMPLES)
    arrays = {k: (v.dtype.str, v.shape, v.tobytes()) for k, v in {**history, **samples}.items()}
    diagnostics = json.loads((directory / write.DIAGNOSTICS).read_text())
    return {"result": result, "arrays": arrays, "diagnostics": diagnostics}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, quick_compilations):
    """The directory of a run that was never stopped."""
    directory = tmp_path_factory.mktemp("finished")
    _write_model(directory)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        assert main(["solve", "ring.vfe", *FLAGS, "--out", "reference", "--quiet"]) == 0
    return directory / "reference"


@pytest.fixture(scope="module")
def reference(finished):
    return _numbers(finished)


@pytest.fixture
def every_chunk(monkeypatch):
    """Checkpoints after every chunk of training, not only every few seconds."""
    monkeypatch.setattr("vdsl.fit._SAVE_EVERY", -1.0)


def _crash_at(monkeypatch, call: int, error: BaseException) -> list[str]:
    """Lets the given file replacement fail just before the new file takes its name; returns what was replaced."""
    names: list[str] = []
    replace = os.replace

    def counted(source, target):
        names.append(Path(target).name)
        if len(names) == call:
            raise error
        replace(source, target)

    monkeypatch.setattr(vdsl.files.os, "replace", counted)
    return names


def test_a_crash_at_any_write_loses_nothing(home, reference, every_chunk, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        order = _crash_at(patch, 0, Killed())
        assert main(["solve", "ring.vfe", *FLAGS, "--out", "counted", "--quiet"]) == 0
    checkpoints = [k for k, name in enumerate(order, 1) if name == write.CHECKPOINT]
    assert 5 <= len(checkpoints) <= 8  # at the start, after every chunk of ten steps, and at the end
    assert order[-1] == write.RESULT
    first = order.index(write.MANIFEST) + 1
    for call in (first, first + 1, checkpoints[3], checkpoints[-1], len(order)):
        out = home / f"run{call}"
        with monkeypatch.context() as patch:
            _crash_at(patch, call, Killed())
            with pytest.raises(Killed):
                main(["solve", "ring.vfe", *FLAGS, "--out", str(out), "--quiet"])
        code = main(["resume", str(out), "--quiet"])
        if call <= first:  # nothing had been promised yet: there is no manifest
            assert code == 2
            assert "is not a run" in capsys.readouterr().err
            continue
        assert code == 0
        assert _numbers(out) == reference, f"stopped at write {call} ({order[call - 1]})"


def test_a_full_disk_is_reported_and_the_run_can_go_on(home, reference, every_chunk, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        _crash_at(patch, 9, OSError(errno.ENOSPC, "No space left on device"))
        assert main(["solve", "ring.vfe", *FLAGS, "--out", "full", "--quiet"]) == 4
    err = capsys.readouterr().err
    assert "error[disk-full]" in err
    assert "vdsl resume full" in err
    assert not list((home / "full").glob("*.tmp"))
    assert main(["resume", "full", "--quiet"]) == 0
    assert _numbers(home / "full") == reference


def _interrupted(monkeypatch, out: str) -> None:
    with monkeypatch.context() as patch:
        _crash_at(patch, 9, Killed())
        with pytest.raises(Killed):
            main(["solve", "ring.vfe", *FLAGS, "--out", out, "--quiet"])


def test_a_run_stands_on_its_own(home, reference, every_chunk, monkeypatch):
    _interrupted(monkeypatch, "moved-from")
    (home / "fields.csv").unlink()
    (home / "ring.vfe").unlink()
    os.rename("moved-from", "moved-to")
    assert main(["resume", "moved-to", "--quiet"]) == 0
    assert _numbers(home / "moved-to") == reference


def test_a_finished_run_is_shown_and_not_touched(home, finished, capsys):
    shutil.copytree(finished, home / "reference")
    before = {p.name: p.read_bytes() for p in (home / "reference").iterdir() if p.is_file()}
    capsys.readouterr()
    assert main(["resume", "reference", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == json.loads(before[write.RESULT])
    assert "nothing is left to do" in err
    assert {p.name: p.read_bytes() for p in (home / "reference").iterdir() if p.is_file()} == before


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "foreign", "model"])
def test_what_cannot_be_continued_is_refused_and_kept(home, every_chunk, monkeypatch, capsys, damage):
    _interrupted(monkeypatch, "run")
    path = home / "run" / (write.MODEL if damage == "model" else write.CHECKPOINT)
    content = path.read_bytes()
    match damage:
        case "truncated":
            content = content[: len(content) // 2]
        case "flipped":
            at = content.index(b'"fingerprint"') + 20  # inside what is saved: some bytes of a zip file mean nothing
            content = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        case "empty":
            content = b""
        case "foreign":
            (home / "other.vfe").write_text(MODEL.replace("1.5", "1.6"))
            assert main(["solve", "other.vfe", *FLAGS, "--out", "other", "--quiet"]) == 0
            content = (home / "other" / write.CHECKPOINT).read_bytes()
        case "model":
            content = content.replace(b"1.5", b"1.6")
    path.write_bytes(content)
    capsys.readouterr()
    assert main(["resume", "run", "--quiet"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "error[bad-checkpoint]" in err
    assert "Traceback" not in err
    assert path.read_bytes() == content
    assert not (home / "run" / write.RESULT).exists()


def test_resume_says_what_is_not_a_run(home, capsys):
    for directory in ("nowhere", "."):
        assert main(["resume", directory]) == 2
        assert "error[not-a-run]" in capsys.readouterr().err


def _start(home: Path, *words: str) -> subprocess.Popen:
    """With a copy of the cache of this process: one that is killed may leave half an entry behind."""
    cache = home / "cache"
    if not cache.exists():
        shutil.copytree(os.environ["JAX_COMPILATION_CACHE_DIR"], cache, copy_function=os.symlink)
    environment = {
        **os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "vdsl", *words], cwd=home, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def _wait_for(process: subprocess.Popen, path: Path, changed_since: float = 0.0) -> None:
    until = time.monotonic() + 120
    while time.monotonic() < until and process.poll() is None:
        if path.exists() and path.stat().st_mtime > changed_since:
            return
        time.sleep(0.01)
    raise AssertionError(f"no new {path.name}: {process.communicate()}")


@pytest.mark.slow
def test_interrupt_then_kill_9_then_resume_equals_never_stopping(home, finished):
    flags = [*FLAGS, "--steps", "4000"]
    whole = _start(home, "solve", "ring.vfe", *flags, "--out", "whole")
    _, err = whole.communicate(timeout=200)
    assert whole.returncode == 0, err
    moments = random.Random(0)
    path = home / "run" / write.CHECKPOINT

    process = _start(home, "solve", "ring.vfe", *flags, "--out", "run", "--quiet")
    _wait_for(process, path)
    time.sleep(moments.uniform(0, 0.5))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 130
    assert out == ""
    assert "vdsl resume run" in err
    assert "Traceback" not in err
    assert not (home / "run" / write.RESULT).exists()

    seen = path.stat().st_mtime
    process = _start(home, "resume", "run", "--quiet")
    time.sleep(moments.uniform(3, 5))
    process.kill()
    process.wait()
    assert path.stat().st_mtime >= seen

    process = _start(home, "resume", "run")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert _numbers(home / "run") == _numbers(home / "whole")
