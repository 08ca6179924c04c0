"""Data files: refused unless they lie beside the model; sizes are looked at before anything is read; no pickles."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np

from vdsl.frontend import ast
from vdsl.frontend.findings import Findings, suggest

LARGEST_FILE = 256 * 2**20
LARGEST_TABLE = 10**7  # numbers in a csv file
SUFFIXES = (".csv", ".txt", ".npy", ".npz")
Rows = list[tuple[int, list[float]]]


def locate(path: ast.String, base_dir: Path | None, allow_path: bool, findings: Findings) -> Path | None:
    """The file, if the model may read it and it can be; None otherwise (reported)."""
    text = path.value
    outside = (
        PurePosixPath(text).is_absolute()
        or PureWindowsPath(text).drive
        or PureWindowsPath(text).root
        or ".." in PureWindowsPath(text).parts
        or ".." in PurePosixPath(text).parts
    )
    if outside and not allow_path:
        findings.error(
            "path-not-allowed",
            f"the path `{text}` leads out of the model's directory",
            path.span,
            "refused",
            notes=["a model reads files beside itself only, so that running someone else's model is safe"],
            hints=["move the file next to the model, or allow it with `--allow-path`"],
        )
        return None
    if "\0" in text:
        findings.error("file-not-found", "a path cannot hold a NUL byte", path.span)
        return None
    if base_dir is None and not PurePosixPath(text).is_absolute():
        base_dir = Path()
    file = (base_dir or Path()) / text
    try:
        if not allow_path and not file.resolve().is_relative_to((base_dir or Path()).resolve()):
            findings.error(
                "path-not-allowed",
                f"the path `{text}` leads out of the model's directory",
                path.span,
                "refused",
                notes=["it is a link to somewhere else"],
                hints=["move the file next to the model, or allow it with `--allow-path`"],
            )
            return None
        if not file.is_file():
            beside = [p.name for p in file.parent.iterdir()] if file.parent.is_dir() else []
            findings.error(
                "file-not-found",
                f"no file `{text}`",
                path.span,
                notes=["data files are looked up beside the model"],
                hints=suggest(file.name, beside),
            )
            return None
        size = file.stat().st_size
    except OSError as found:
        findings.error("file-not-found", f"`{text}` cannot be read: {found.strerror}", path.span)
        return None
    if size > LARGEST_FILE:
        findings.error(
            "too-large",
            f"the file `{text}` has {size} bytes",
            path.span,
            notes=[f"at most {LARGEST_FILE} bytes are read"],
            exit_code=4,
        )
        return None
    if file.suffix not in SUFFIXES:
        findings.error(
            "bad-data-file",
            f"`{text}` is not a kind of file that is known",
            path.span,
            notes=["data comes as .csv, .npy or .npz"],
        )
        return None
    return file


def read_rows(
    path: ast.String, base_dir: Path | None, allow_path: bool, findings: Findings, most: int | None = None
) -> Rows | None:
    """The rows of a table with their line numbers; a header row is skipped. None when there is a problem (reported).

    More than `most` rows are a problem that is reported without reading on.
    """
    file = locate(path, base_dir, allow_path, findings)
    if file is None:
        return None
    if file.suffix in (".npy", ".npz"):
        array = read_array(path, base_dir, allow_path, findings)
        if array is None:
            return None
        table = array.reshape(len(array), -1) if array.ndim else array.reshape(1, 1)
        return [(k, [float(x) for x in row]) for k, row in enumerate(table, 1)]
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            return _parse_rows(csv.reader(stream), path, findings, most)
    except (OSError, UnicodeDecodeError, csv.Error) as found:
        findings.error("bad-data-file", f"`{path.value}` is not a table: {_reason(found)}", path.span)
        return None


def read_array(
    path: ast.String, base_dir: Path | None, allow_path: bool, findings: Findings, member: str | None = None
) -> np.ndarray | None:
    """The array in an npy file, or (by name, or the only one) in an npz file; numbers only, never pickled objects."""
    file = locate(path, base_dir, allow_path, findings)
    if file is None:
        return None
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                names = list(archive.files)
                name = member or (names[0] if len(names) == 1 else "")
                if name not in names:
                    findings.error(
                        "bad-data-file",
                        f"`{path.value}` holds several arrays: say which"
                        if not member
                        else f"`{path.value}` holds no array `{member}`",
                        path.span,
                        notes=[f"arrays: {', '.join(names)}"],
                        hints=[f'write `{{ array = "{names[0] if names else "J"}" }}`'],
                    )
                    return None
                total = sum(i.file_size for i in archive.zip.infolist() if i.filename.startswith(name))
                if total > LARGEST_FILE:
                    findings.error(
                        "too-large", f"the array in `{path.value}` has {total} bytes", path.span, exit_code=4
                    )
                    return None
                array = archive[name]
        else:
            array = np.load(file, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError, KeyError, SyntaxError) as found:
        known = isinstance(found, ValueError) and _begins_with(file, (b"\x93NUMPY", b"PK"))
        reason = "it holds Python objects" if known and "bject" in str(found) else "it is damaged or of another format"
        findings.error("bad-data-file", f"`{path.value}` cannot be read: {reason}", path.span)
        return None
    if array.dtype.kind not in "biufc":
        findings.error("bad-data-file", f"`{path.value}` holds no numbers, but {array.dtype}", path.span)
        return None
    return np.array(array)


def _parse_rows(reader: Iterable[list[str]], path: ast.String, findings: Findings, most: int | None) -> Rows | None:
    rows: Rows = []
    numbers = 0
    for line, cells in enumerate(reader, 1):
        cells = [c.strip() for c in cells]
        if not any(cells) or cells[0].startswith("#"):
            continue
        if len(cells) == 1 and len(cells[0].split()) > 1:  # columns separated by blanks
            cells = cells[0].split()
        try:
            row = [_number(c) for c in cells]
        except ValueError:
            if not rows and not any(_is_number(c) for c in cells):
                continue  # a header
            findings.error(
                "bad-data-file",
                f"row {line} of `{path.value}` is not made of numbers",
                path.span,
                notes=[f"it reads: {', '.join(cells)[:80]}"],
            )
            return None
        if not all(map(math.isfinite, row)):
            findings.error(
                "data-value",
                f"row {line} of `{path.value}` holds {', '.join(cells)[:80]}",
                path.span,
                notes=["every number must be finite"],
            )
            return None
        rows.append((line, row))
        numbers += len(row)
        if numbers > LARGEST_TABLE:
            findings.error(
                "too-large",
                f"`{path.value}` holds more than {LARGEST_TABLE:,} numbers",
                path.span,
                hints=["larger arrays are read from .npy files"],
                exit_code=4,
            )
            return None
        if most is not None and len(rows) > 2 * most + 100:  # not just a few: what is wrong with those is said later
            findings.error("data-size", f"`{path.value}` has many more than {most} rows", path.span)
            return None
    return rows


def _begins_with(file: Path, marks: tuple[bytes, ...]) -> bool:
    with file.open("rb") as stream:
        return stream.read(8).startswith(marks)


def _reason(found: Exception) -> str:
    return "it is not UTF-8 text" if isinstance(found, UnicodeDecodeError) else str(found)


def _number(text: str) -> float:
    if "_" in text or len(text) > 400:  # float() would accept digit separators, which no other reader of CSV does
        raise ValueError(text)
    return float(text)


def _is_number(text: str) -> bool:
    try:
        _number(text)
    except ValueError:
        return False
    return True
