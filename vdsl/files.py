"""Files that are either the old ones or the new ones, never half written; and what a disk does wrong, said plainly."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vdsl.errors import Diagnostic, VfeError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def replace_file(path: Path, data: bytes) -> None:
    """Writes a file so that at any moment its name stands for the old content or for all of the new one.

    A temporary file beside it is written, flushed to the disk and renamed over it; the directory is flushed too, so the
    new name survives a power cut. On failure the temporary file is removed and the old content stays.
    Raises VfeError `disk-full` (exit 4) or `unwritable` (exit 2).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with explained(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _flush_directory(path.parent)


def remove_leftovers(directory: Path) -> None:
    """Removes the temporary files of writers that were killed half way."""
    for left in directory.glob(".*.tmp"):
        left.unlink(missing_ok=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns an OSError about `path` into a diagnostic: `disk-full` (exit 4), `unwritable` or `unreadable` (exit 2)."""
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, path) from error


def explain_os_error(error: OSError, path: Path | str) -> VfeError:
    """The diagnostic of an OSError about `path`."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        hint = "free some space and try again; what was saved before is intact"
        return VfeError(Diagnostic("disk-full", f"cannot write `{path}`: {reason.lower()}", hints=(hint,)), exit_code=4)
    if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
        return VfeError(Diagnostic("resource-limit", f"`{path}`: {reason.lower()}"), exit_code=4)
    return VfeError(Diagnostic("unwritable", f"cannot use `{path}`: {reason.lower()}"), exit_code=2)


def _flush_directory(directory: Path) -> None:
    try:
        handle = os.open(directory, os.O_RDONLY)
    except OSError:  # not every system lets a directory be opened; the rename itself is still atomic
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
