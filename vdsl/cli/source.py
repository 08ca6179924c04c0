"""Model files in: a path or standard input to a Source, a Source to a checked Program. Nothing here imports JAX."""

from __future__ import annotations

import sys
from pathlib import Path

from vdsl.cli.arguments import usage
from vdsl.errors import Source, VfeError
from vdsl.files import explain_os_error
from vdsl.frontend.lexer import MAX_CHARACTERS, decode

STDIN = "-"
_MOST_COPIED = 2**26  # bytes of data files kept with a run
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
    content = read_bytes(file)
    name, base = ("<stdin>", Path.cwd()) if file == STDIN else (file, Path(file).resolve().parent)
    return decode(content, name), base


def data_files(source: Source, base: Path) -> dict[str, bytes]:
    """The data files a model reads from beside it, by the names it uses: what a run needs to stand on its own.

    Files elsewhere (absolute, or above the model) and files too large to copy are left where they are.
    """
    from vdsl.frontend import ast
    from vdsl.frontend.parse import parse

    names = []
    for statement in parse(source).statements:
        match statement:
            case ast.DataDecl(origin=ast.FromFile(path=ast.String(name))) | ast.LatticeDecl(file=ast.String(name)):
                names.append(name)
    local = [n for n in names if not Path(n).is_absolute() and ".." not in Path(n).parts and (base / n).is_file()]
    if len(local) < len(names) or sum((base / n).stat().st_size for n in local) > _MOST_COPIED:
        return {}
    return {n: (base / n).read_bytes() for n in local}


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
