"""Words into options: the table of commands, the flags they share, and what to say about a wrong one."""

from __future__ import annotations

import argparse
import difflib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from vdsl.errors import Diagnostic, VfeError


@dataclass(frozen=True)
class Command:
    """A command: the module that holds it (`arguments_NAME(parser)` and `run_NAME(options)`), a summary, an example."""

    name: str
    module: str
    summary: str
    example: str

    def run(self, options: argparse.Namespace) -> int:
        """Runs the command; returns the exit code."""
        function: Callable[[argparse.Namespace], int] = getattr(_module(self), f"run_{self.name}")
        return function(options)


COMMANDS = {
    command.name: command
    for command in (
        Command("solve", "solve", "train a guide; report F, E, S, ln Z and averages", "solve ising.vfe --set L=8"),
        Command("check", "text", "parse and check; say everything that is wrong", "check models/*.vfe"),
        Command("explain", "explain", "what the compiler understood, or what a diagnostic means", "explain ising.vfe"),
        Command("exact", "exact", "exact ln Z and averages, where the model allows", "exact ising.vfe --set L=4"),
        Command("sample", "sample", "a Markov chain answer to check against, or a run's samples", "sample ising.vfe"),
        Command("scan", "scan", "solve along a sweep; one table, one plot", "scan ising.vfe --scan T=1.6:3.2:9"),
        Command("resume", "solve", "continue a run that was stopped", "resume runs/ising-1"),
        Command("report", "runs", "show a run again, or compare runs", "report runs/ising-1 runs/ising-2"),
        Command("diagnose", "runs", "what limits a run, and the remedy", "diagnose runs/ising-1"),
        Command("fmt", "text", "canonical layout, comments kept", "fmt --check models/*.vfe"),
        Command("tex", "text", "the Hamiltonian in LaTeX", "tex ising.vfe"),
        Command("new", "models", "start a model from a template", "new mymodel --template ising"),
        Command("models", "models", "list the models that ship", "models"),
    )
}  # fmt: skip


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are diagnostics with suggestions."""

    def error(self, message: str) -> NoReturn:
        """Raises VfeError `usage`."""
        command = self.prog.partition(" ")[2]
        hints = [f"`{self.prog} --help` lists the flags"]
        match = re.match(r"unrecognized arguments: (.*)", message)
        if match:
            word = match[1].split()[0]
            flags = [f for action in self._actions for f in action.option_strings if f.startswith("--")]
            flag = word.partition("=")[0]
            close = [f for f in flags if f.startswith(flag)] or difflib.get_close_matches(flag, flags, 1, 0.5)
            if word.startswith("-"):
                message = f"`vdsl {command}` has no flag `{word.partition('=')[0]}`"
                hints = [f"did you mean `{close[0]}`?"] if close else hints
            else:
                message = f"`vdsl {command}` does not know what to do with `{word}`"
        raise usage(message, *hints)


def usage(message: str, *hints: str) -> VfeError:
    """A wrong use of the command line (exit 2)."""
    return VfeError(Diagnostic("usage", message, hints=tuple(hints)), exit_code=2)


def version() -> str:
    """The version of vdsl."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    try:
        return installed("vdsl")
    except PackageNotFoundError:
        return "unknown"


def parse(words: Sequence[str]) -> tuple[Command | None, argparse.Namespace]:
    """The command and its options; None when the answer (help, the version) has been printed already.

    Raises VfeError `usage`.
    """
    from vdsl.cli.terminal import use_utf8

    use_utf8()
    rest = [w for w in words if w != "--debug"]
    if not rest:
        raise usage(f"a command is missing\n\n{overview()}")
    name, *rest = rest
    if name in {"-h", "--help", "help"}:
        if name == "help" and rest and rest[0] in COMMANDS:
            print(parser(COMMANDS[rest[0]]).format_help(), end="")
        else:
            print(overview())
        return None, argparse.Namespace()
    if name in {"-V", "--version"}:
        print(f"vdsl {version()}")
        return None, argparse.Namespace()
    if name not in COMMANDS:
        raise _unknown_command(name)
    command = COMMANDS[name]
    try:
        return command, parser(command).parse_args(rest)
    except SystemExit:  # argparse has printed the help text
        return None, argparse.Namespace()


def parser(command: Command) -> Parser:
    """The parser of one command."""
    made = Parser(
        prog=f"vdsl {command.name}",
        description=command.summary[0].upper() + command.summary[1:] + ".",
        epilog=f"example: vdsl {command.example}",
        allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=100),
    )
    getattr(_module(command), f"arguments_{command.name}")(made)
    return made


def overview() -> str:
    """The text of `vdsl --help`."""
    width = max(len(name) for name in COMMANDS)
    lines = [
        "usage: vdsl COMMAND …",
        "",
        "From a description of the physics to a free energy with error bars.",
        "",
        "commands:",
    ]
    lines += [f"  {c.name:<{width}}  {c.summary}" for c in COMMANDS.values()]
    lines += [
        "",
        "`vdsl COMMAND --help` says more; `vdsl --version` the version. `-` reads a model from standard input.",
        "exit codes: 0 ok, 1 the model is invalid, 2 usage, 3 numerical failure, 4 resource limit, 130 interrupted",
        "",
        "start here: vdsl new ising && vdsl solve ising.vfe",
    ]
    return "\n".join(lines)


def add_model(to: Parser, nargs: str | None = None) -> None:
    """FILE, `--set` and `--allow-path`."""
    to.add_argument("file", metavar="FILE", nargs=nargs, help="a .vfe file, or - for standard input")
    add_overrides(to)


def add_overrides(to: Parser) -> None:
    """`--set` and `--allow-path`."""
    to.add_argument(
        "--set", dest="overrides", metavar="NAME=VALUE", action="append", default=[], type=assignment,
        help="override a parameter; may be repeated",
    )  # fmt: skip
    to.add_argument("--allow-path", action="store_true", help="let data files lie anywhere, not only beside the model")


def add_run(to: Parser) -> None:
    """The flags of a command that trains."""
    to.add_argument("--seed", type=natural, metavar="N", help="random seed (default 0)")
    to.add_argument("--out", type=Path, metavar="DIR", help="where to save (default: the next free runs/NAME-N)")
    to.add_argument("--force", action="store_true", help="replace the run in --out")
    to.add_argument(
        "--time-limit", type=seconds, metavar="TIME", help="stop training in time: 60s, 5m, 1h (default 60s)"
    )
    to.add_argument("--steps", type=positive, metavar="N", help="training steps, instead of a time limit")
    to.add_argument("--batch", type=positive, metavar="N", help="samples a training step")
    to.add_argument("--guide", metavar="NAME", help="the guide to train (default: chosen from the model)")
    to.add_argument("--samples", type=positive, metavar="N", help="fresh samples for the final estimate")
    to.add_argument("--estimator", metavar="NAME", help="the gradient: score, reparameterised or path")
    to.add_argument("--learning-rate", type=rate, metavar="X", help="the peak learning rate (default: the guide's)")
    to.add_argument("--x64", action="store_true", help="double precision")


def rate(text: str) -> float:
    """A positive, finite number."""
    value = literal(text)
    if isinstance(value, str) or not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"`{text}` is not a positive number")
    return float(value)


def add_output(to: Parser) -> None:
    """`--json` and `--quiet`."""
    to.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else")
    to.add_argument("--quiet", action="store_true", help="no progress and no messages but errors and warnings")


def add_strict(to: Parser) -> None:
    """`--strict`."""
    to.add_argument("--strict", action="store_true", help="exit 1 if there is any warning")


def assignment(text: str) -> tuple[str, int | float | str]:
    """`NAME=VALUE`: an integer where it is written as one, else a real number, else text for the checker to refuse."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise argparse.ArgumentTypeError(f"`{text}` is not NAME=VALUE, as in L=8")
    return name.strip(), literal(value)


def literal(text: str) -> int | float | str:
    """A number as a person writes it; text that is none stays text."""
    text = text.strip()
    if re.fullmatch(r"[+-]?[0-9]{1,4000}", text):
        return int(text)
    try:
        return float(text.replace("_", "x"))  # float() would accept 1_000, the language does not
    except ValueError:
        return text


def natural(text: str) -> int:
    """An integer ≥ 0 that fits 63 bits."""
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"`{text}` is not an integer from 0 to 2^63 - 1")
    return int(text)


def positive(text: str) -> int:
    """An integer ≥ 1."""
    if not re.fullmatch(r"[0-9]{1,12}", text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is not a positive integer")
    return int(text)


def seconds(text: str) -> float:
    """A time: `60s`, `5m`, `1.5h`, or plain seconds."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+)(s|m|min|h)?", text.strip())
    value = float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600}[match[2] or "s"] if match else 0.0
    if not match or not math.isfinite(value) or value <= 0:
        raise argparse.ArgumentTypeError(f"`{text}` is not a time: write 60s, 5m or 1h")
    return value


def overrides(options: argparse.Namespace) -> dict[str, Any]:
    """The `--set` flags as a dictionary. Raises VfeError `usage` if a name is set twice."""
    found: dict[str, Any] = {}
    for name, value in options.overrides:
        if name in found:
            raise usage(f"`--set {name}` is given twice")
        found[name] = value
    return found


def _module(command: Command) -> Any:
    return import_module(f"vdsl.cli.{command.module}")


def _unknown_command(name: str) -> VfeError:
    if name.endswith(".vfe") or Path(name).is_file():
        return usage(f"`{name}` is a file, not a command", f"did you mean `vdsl solve {name}`?")
    if name.startswith("-"):
        return usage(f"there is no flag `{name}` before a command", "`vdsl --help` lists the commands")
    close = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
    hints = (f"did you mean `vdsl {close[0]}`?",) if close else ("`vdsl --help` lists the commands",)
    return usage(f"there is no command `{name}`", *hints)
