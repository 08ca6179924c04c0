"""The pipeline on one page: text -> tokens and tree -> checked Program -> Model.

    source  = decode(bytes)            frontend.parse    UTF-8, line endings
    module  = parse(source)            frontend.parse    syntax
    program = check(module, overrides) frontend.check    names, sizes, kinds, values
    model   = Model(program)           model             the energy as a JAX function

Everything up to the program works without JAX; only `load` and `loads` import it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vdsl.errors import Diagnostic, Source, VfeError
from vdsl.ir.program import Program

if TYPE_CHECKING:
    from vdsl.model import Model


_TRIALS = 2  # random configurations that a claimed symmetry is tried on
_MOST_VISITS = 500_000  # of nodes by the interpreter: about two seconds


def load(path: str | Path, allow_path: bool = False, **overrides: object) -> Model:
    """The model in a file, its parameters overridden by name: `load("ising.vfe", L=8)`.

    Data files are looked up beside the model, and nowhere else unless `allow_path`. Raises VfeError.
    """
    from vdsl.model import Model

    program, _ = compile_source(read_source(path), overrides, Path(path).resolve().parent, allow_path)
    return Model(program)


def loads(
    text: str, name: str = "<string>", base_dir: str | Path | None = None, allow_path: bool = False, **overrides: object
) -> Model:
    """The model in a string; data files are looked up in `base_dir`, or the working directory. Raises VfeError."""
    from vdsl.model import Model

    base = Path.cwd() if base_dir is None else Path(base_dir)
    program, _ = compile_source(Source(name, text), overrides, base, allow_path)
    return Model(program)


def read_source(path: str | Path) -> Source:
    """The text of a file. Raises VfeError (`file-not-found`, exit code 2), or as `decode` does."""
    from vdsl.frontend.lexer import MAX_CHARACTERS
    from vdsl.frontend.parse import decode

    try:
        with open(path, "rb") as stream:
            data = stream.read(4 * MAX_CHARACTERS + 1)  # one byte more than `decode` takes, so that it can refuse
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VfeError(Diagnostic("file-not-found", f"cannot read `{path}`: {reason}"), exit_code=2) from None
    return decode(data, str(path))


def compile_source(
    source: Source,
    overrides: dict[str, object] | None = None,
    base_dir: Path | None = None,
    allow_path: bool = False,
) -> tuple[Program, tuple[Diagnostic, ...]]:
    """The program of a source, and warnings about it, without JAX. Raises VfeError with all the errors of a phase."""
    from vdsl.frontend.check import check
    from vdsl.frontend.parse import parse

    program, warnings = check(parse(source), overrides or {}, base_dir, allow_path)
    return program, (*warnings, *_check_claims(program))


def _check_claims(program: Program) -> tuple[Diagnostic, ...]:
    """Nothing, if the claimed symmetries hold on random configurations; a warning if the model is too large for that.

    Raises VfeError (`symmetry-violated`) otherwise. Claims are tried at the default parameters.
    """
    if not program.claims:
        return ()
    import numpy as np

    from vdsl.ir.claims import claimed
    from vdsl.ir.interpret import resolve_parameters, visits
    from vdsl.ir.symmetry import verify_claims

    claimed(program)  # raises where a claim makes no sense, whether it can be tried or not
    if any(p.default is None for p in program.parameters):
        return ()
    if visits(program) * _TRIALS * (1 + len(program.claims)) > _MOST_VISITS:
        return (
            Diagnostic(
                "symmetry-unchecked",
                "the claimed symmetries are not checked: the model is too large",
                hints=("check them at a smaller size, with `--set`",),
                severity="warning",
            ),
        )
    verify_claims(program, resolve_parameters(program), np.random.default_rng(0), trials=_TRIALS)
    return ()
