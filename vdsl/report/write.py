"""The run directory: claimed once, locked while a process works on it, every file in it written atomically.

model.vfe        the source as it was given          manifest.json    settings, overrides, versions, data digests
program.txt      the canonical model and its print   checkpoint.npz   everything the next training step reads
result.json      the result                          diagnostics.json the checks behind its warnings
samples.npz      samples, log_q, energy              history.npz      the training history
    data/            the data files the source reads
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.files import explained, remove_leftovers, replace_file
from vdsl.report.result import read_result, strict

MANIFEST_SCHEMA = 1
MODEL, MANIFEST, PROGRAM, CHECKPOINT = "model.vfe", "manifest.json", "program.txt", "checkpoint.npz"
RESULT, DIAGNOSTICS, SAMPLES, HISTORY = "result.json", "diagnostics.json", "samples.npz", "history.npz"
DATA, STAGES, SCAN, LOCK = "data", "stages", "scan.json", ".lock"
# Removed in this order when a run is overwritten: an old result or checkpoint never stands beside a new model.
FILES = (RESULT, DIAGNOSTICS, SAMPLES, HISTORY, CHECKPOINT, MANIFEST, PROGRAM, MODEL)


def claim(out: Path | None, name: str, force: bool = False) -> Path:
    """The directory of a new run: `out`, or the next free `runs/NAME-N`.

    An existing directory is used if it is empty; with `force` the files of the run in it are removed, and no others.
    Raises VfeError `out-exists`, `unwritable` (exit 2) or `disk-full` (exit 4).
    """
    if out is None:
        return _next_free(Path("runs"), re.sub(r"[^\w.-]", "_", name) or "run")
    with explained(out):
        if out.exists() and not out.is_dir():
            raise _exists(out, "it is a file", "give `--out` a directory that does not exist yet")
        out.mkdir(parents=True, exist_ok=True)
        if any(entry.name != LOCK for entry in out.iterdir()):
            if not force:
                raise _exists(out, "it is not empty", "`--force` replaces the run in it; `vdsl resume` continues it")
            with locked(out):
                for file in FILES:
                    (out / file).unlink(missing_ok=True)
                for folder in (DATA, STAGES):
                    if (out / folder).is_dir():
                        shutil.rmtree(out / folder)
        probe = out / ".probe.tmp"
        probe.write_bytes(b"")
        probe.unlink()
    return out


def discard_if_empty(directory: Path) -> None:
    """Removes the directory of a run that failed before it had written anything."""
    with contextlib.suppress(OSError):
        if {entry.name for entry in directory.iterdir()} <= {LOCK}:
            (directory / LOCK).unlink(missing_ok=True)
            directory.rmdir()


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the directory's lock; the system releases it when the process ends, however it ends.

    Raises VfeError `run-busy` if another process works on the run.
    """
    import fcntl

    with explained(directory):
        handle = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise VfeError(
                Diagnostic("run-busy", f"another process is working on `{directory}`"), exit_code=2
            ) from None
        except OSError:  # a file system without locks: two processes on one run are then the user's own affair
            pass
        remove_leftovers(directory)
        yield
    finally:
        os.close(handle)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes strict, indented JSON."""
    text = json.dumps(strict(value), indent=2, allow_nan=False, ensure_ascii=False)
    replace_file(path, (text + "\n").encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file, and the directories it needs below the run."""
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text, bytes unchanged."""
    replace_file(path, text.encode("utf-8", "surrogateescape"))


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an npz file that loads without pickle."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **{name: np.asarray(a) for name, a in arrays.items()})
    replace_file(path, buffer.getvalue())


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a run. Raises VfeError `not-a-run`."""
    path = directory / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = "a run directory is what `vdsl solve` says it saved to, e.g. runs/ising-1"
        what = f"it has no {MANIFEST}" if directory.is_dir() else "there is no such directory"
        raise _not_a_run(directory, what, hint) from None
    except (OSError, ValueError) as error:
        raise _not_a_run(directory, f"its {MANIFEST} cannot be read ({type(error).__name__})") from None
    if not isinstance(manifest, dict) or not {"schema", "source", "settings", "overrides"} <= manifest.keys():
        raise _not_a_run(directory, f"its {MANIFEST} is incomplete")
    return manifest


def read_source(directory: Path) -> str:
    """The model text of a run. Raises VfeError `not-a-run`."""
    try:
        with open(directory / MODEL, encoding="utf-8", newline="") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise _not_a_run(directory, f"its {MODEL} cannot be read ({type(error).__name__})") from None


def read_scan(directory: Path) -> tuple[str, list[float], list[dict[str, Any]]]:
    """The parameter of a scan, and values and results of the points that have ended. Raises VfeError `not-a-run`."""
    scan = read_scan_plan(directory)
    done = [(v, p) for v, p in zip(scan["values"], scan["points"], strict=True) if (directory / p / RESULT).exists()]
    return scan["name"], [v for v, _ in done], [read_result(directory / p / RESULT) for _, p in done]


def read_scan_plan(directory: Path) -> dict[str, Any]:
    """What a scan was asked for: `name`, `values`, `points` (directories), and how. Raises VfeError `not-a-run`."""
    try:
        scan = json.loads((directory / SCAN).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _not_a_run(directory, f"its {SCAN} cannot be read ({type(error).__name__})") from None
    if not isinstance(scan, dict) or not {"name", "values", "points"} <= scan.keys():
        raise _not_a_run(directory, f"its {SCAN} is incomplete")
    return scan


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All the arrays of an npz file. Raises VfeError `not-a-run`."""
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise _not_a_run(path.parent, f"its {path.name} cannot be read ({type(error).__name__})") from None


def _next_free(parent: Path, name: str) -> Path:
    with explained(parent):
        parent.mkdir(exist_ok=True)
        taken = [int(m[1]) for p in parent.iterdir() if (m := re.fullmatch(re.escape(name) + r"-(\d+)", p.name))]
        number = max(taken, default=0) + 1
        while True:
            try:
                (parent / f"{name}-{number}").mkdir()  # atomic: of two processes one moves on to the next number
                return parent / f"{name}-{number}"
            except FileExistsError:
                number += 1


def _exists(out: Path, what: str, hint: str) -> VfeError:
    return VfeError(Diagnostic("out-exists", f"`{out}` exists: {what}", hints=(hint,)), exit_code=2)


def _not_a_run(directory: Path, reason: str, *hints: str) -> VfeError:
    return VfeError(Diagnostic("not-a-run", f"`{directory}` is not a run: {reason}", hints=hints), exit_code=2)
