"""The command line: `vdsl COMMAND …`. Runs a command and turns whatever happens into words and an exit code.

Nothing heavy is imported here: a command's module is imported when the command is run.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

from vdsl.errors import Diagnostic, VfeError

OK, INVALID, USAGE, NUMERICAL, RESOURCE, INTERRUPTED = 0, 1, 2, 3, 4, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code: 0 ok, 1 invalid model or failed threshold, 2 usage, 3 numerical
    failure, 4 resource limit, 130 interrupted."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has gone (`vdsl models | head -1`): there is nobody left to tell
        _silence_stdout()
        return OK
    except OSError as error:
        return _fail(_os_error(error))
    except VfeError as error:
        return _fail(error)
    except KeyboardInterrupt:
        from vdsl.cli.terminal import say

        say("interrupted")
        return INTERRUPTED
    except (MemoryError, RecursionError) as error:
        return _fail(_resource_limit(error))
    except Exception as error:  # the last line of defence: a user never sees a traceback unless they ask for one
        if "RESOURCE_EXHAUSTED" in str(error):
            return _fail(_resource_limit(error))
        return _bug(error, words)


def _run(words: list[str]) -> int:
    from vdsl.cli.arguments import parse

    command, options = parse(words)
    return command.run(options) if command is not None else OK


def _fail(error: VfeError) -> int:
    from vdsl.cli.terminal import say_diagnostics

    say_diagnostics(error.diagnostics)
    return error.exit_code


def _os_error(error: OSError) -> VfeError:
    from vdsl.files import explain_os_error

    return explain_os_error(error, error.filename or "standard output")


def _resource_limit(error: BaseException) -> VfeError:
    if isinstance(error, RecursionError):
        what, hint = "the model is nested too deeply for this machine", "split it with `let` or `fn`"
    else:
        what, hint = "out of memory", "try a smaller lattice, or a smaller `--batch`"
    return VfeError(Diagnostic("resource-limit", what, hints=(hint,)), exit_code=RESOURCE)


def _bug(error: Exception, words: list[str]) -> int:
    from vdsl.cli.terminal import say

    if "--debug" in words:
        import traceback

        say("".join(traceback.format_exception(error)).rstrip())
    from vdsl.cli.arguments import version

    name = type(error).__name__
    say(f"vdsl {version()}: this is a bug in vdsl, not in your model ({name}: {_brief(error)})")
    if "--debug" not in words:
        say("Please report it with the model and what `--debug` shows: vdsl " + " ".join([*words, "--debug"]))
    return NUMERICAL


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:200] + "…"


def _silence_stdout() -> None:
    """Points standard output at nothing, so that the interpreter's own flush at exit is quiet too."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
