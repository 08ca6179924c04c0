"""Model files in: a path or standard input to a Source, a Source to a checked Program. Nothing here imports JAX."""

from __future__ import annotations

import sys
from pathlib import Path

from vdsl.cli.arguments import usage
from vdsl.errors import Source, VfeError
from vdsl.files import explain_os_error
from vdsl.frontend.lexer import MAX_CHARACTERS, decode

STDIN = "-"
_MOST = 4 * MAX_CHARACTERS + 1  # one byte more than `decode` accepts, so that it can refuse what is larger


def read_bytes(file: str) -> bytes:
    """The bytes of a model file, no more than the language allows. Raises VfeError `no-such-file` or `unwritable`."""
    if file == STDIN:
        return sys.stdin.buffer.read(_MOST)
    if "\0" in file:
        raise usage("a file name cannot hold a NUL character")
    try:
        with open(file, "rb") as stream:
            return stream.read(_MOST)
    except FileNotFoundError:
        raise _no_such_file(file) from None
    except IsADirectoryError:
        raise _directory(file) from None
    except OSError as error:
        raise explain_os_error(error, file) from error


def read_source(file: str) -> tuple[Source, Path]:
    """A model file and the directory its data files are relative to."""
    name, base = ("<stdin>", Path.cwd()) if file == STDIN else (file, Path(file).resolve().parent)
    return decode(read_bytes(file), name), base


def _no_such_file(file: str) -> VfeError:
    import difflib

    folder = Path(file).parent
    stem = Path(file).name
    near = [p.name for p in sorted(folder.glob("*.vfe"))] if folder.is_dir() else []
    close = difflib.get_close_matches(stem, near, 1, 0.5)
    if (folder / f"{stem}.vfe").is_file():
        close = [f"{stem}.vfe"]
    hint = (
        f"did you mean `{folder / close[0]}`?"
        if close
        else "`vdsl models` lists models to start from, `vdsl new` copies one"
    )
    return usage(f"there is no file `{file}`", hint)


def _directory(file: str) -> VfeError:
    if (Path(file) / "manifest.json").is_file():
        return usage(f"`{file}` is a run, not a model file", f"did you mean `vdsl report {file}`?")
    return usage(f"`{file}` is a directory, not a model file")
