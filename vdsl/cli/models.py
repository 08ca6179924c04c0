"""`vdsl models` and `vdsl new`: the models that ship, and a copy of one to start from."""

from __future__ import annotations

import argparse
import difflib
import json
import re
from importlib import resources
from pathlib import Path

from vdsl.cli.arguments import Parser, usage
from vdsl.cli.terminal import say, show, show_text
from vdsl.errors import Diagnostic, VfeError
from vdsl.files import replace_file

_MODEL = re.compile(r'^[ \t]*model[ \t]+(?P<name>\w+)(?:[ \t]+"(?P<title>[^"\n]*)")?', re.MULTILINE)
_FILE = re.compile(r'\bfrom[ \t]+"([^"\n]+)"')


def arguments_models(parser: Parser) -> None:
    """No model: `vdsl models` looks at what ships."""
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, nothing else")


def run_models(options: argparse.Namespace) -> int:
    """Prints every shipped model with its title."""
    from vdsl.report.table import Table

    titles = {path.stem: title(path.read_text(encoding="utf-8")) for path in shipped()}
    if options.json:
        show_text(json.dumps({"models": titles}, indent=2, ensure_ascii=False))
        return 0
    show((Table(("model", "title"), tuple(titles.items()), left=("title",)),))
    say("\n`vdsl new NAME --template MODEL` copies one into a file of your own")
    return 0


def arguments_new(parser: Parser) -> None:
    """NAME and `--template`."""
    parser.add_argument("name", metavar="NAME", help="the name of the model; NAME.vfe is written")
    parser.add_argument("--template", metavar="MODEL", default="ising", help="a model that ships (default: ising)")
    parser.add_argument("--force", action="store_true", help="overwrite NAME.vfe")


def run_new(options: argparse.Namespace) -> int:
    """Copies a shipped model, with the data files it reads, under a new name."""
    templates = {path.stem: path for path in shipped()}
    if options.template not in templates:
        close = difflib.get_close_matches(options.template, templates, 1, 0.5)
        raise usage(
            f"no model called `{options.template}` ships",
            f"did you mean `{close[0]}`?" if close else "`vdsl models` lists them",
        )
    template = templates[options.template]
    target = Path(options.name if options.name.endswith(".vfe") else f"{options.name}.vfe")
    name = re.sub(r"\W", "_", target.stem, flags=re.ASCII)
    if not re.match(r"[A-Za-z_]", name):
        raise usage(f"`{target.stem}` is no name for a model", "start with a letter, e.g. `vdsl new mymodel`")
    text = template.read_text(encoding="utf-8")
    match = _MODEL.search(text)
    if match:
        text = text[: match.start("name")] + name + text[match.end("name") :]
    copies = {target: text.encode()}
    for file in _FILE.findall(text):
        copies[target.parent / file] = (template.parent / file).read_bytes()
    _refuse_to_overwrite(copies, target, options.force)
    for path, content in copies.items():
        replace_file(path, content)
    shown = ", ".join(str(path) for path in copies)
    say(f"wrote {shown}; next: vdsl check {target}, then vdsl solve {target}")
    return 0


def shipped() -> list[Path]:
    """The shipped model files: inside the installed package, or beside it in a checkout."""
    package = Path(str(resources.files("vdsl")))
    for folder in (package / "examples", package.parent / "examples"):
        if folder.is_dir():
            return sorted(folder.glob("*.vfe"))
    return []


def title(text: str) -> str:
    """The title of a model: the one it states, else its first comment."""
    match = _MODEL.search(text)
    if match and match["title"]:
        return match["title"]
    comment = re.search(r"^#[ \t]*(.+)$", text, re.MULTILINE)
    return comment[1].strip() if comment else ""


def _refuse_to_overwrite(copies: dict[Path, bytes], target: Path, force: bool) -> None:
    for path, content in copies.items():
        if not path.exists() or force or (path != target and path.read_bytes() == content):
            continue
        raise VfeError(
            Diagnostic(
                "out-exists", f"`{path}` exists", hints=("choose another name, or overwrite it with `--force`",)
            ),
            exit_code=2,
        )
