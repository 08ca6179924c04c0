"""What the documentation shows is true: models are checked, Python is run, diagnostics and links exist."""

import re
import shutil
from pathlib import Path

import pytest

from vdsl.compile import compile_source
from vdsl.errors import Source, VfeError
from vdsl.frontend.format import format_module
from vdsl.frontend.parse import parse

pytestmark = pytest.mark.usefixtures("quick_compilations")

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list:
    """The fenced blocks of one language on all pages, with the page they stand on."""
    return [
        pytest.param(page, text, id=f"{page.stem}-{number}", marks=[pytest.mark.slow] * (page.stem != "README"))
        if language == "python"
        else pytest.param(page, text, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, text in enumerate(re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S))
    ]


@pytest.mark.parametrize(("page", "text"), blocks("vfe"))
def test_models_check_and_are_in_canonical_layout(page: Path, text: str) -> None:
    source = Source(f"{page.name}", text)
    _, warnings = compile_source(source, base_dir=ROOT / "examples")
    assert not warnings
    assert format_module(parse(source)) == text


@pytest.mark.parametrize(("page", "text"), blocks("python"))
def test_python_runs(page: Path, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (ROOT / "examples").iterdir():
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    exec(compile(text, str(page), "exec"), {"__name__": "__main__"})


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_diagnostic_that_the_reference_shows() -> None:
    """The excerpt in docs/language.md is what its model, with `nn` misspelt, prints."""
    page = (ROOT / "docs" / "language.md").read_text()
    (shown,) = re.findall(r"^```text\n(error\[.*?)^```", page, re.M | re.S)
    model = "\n".join([""] * 9 + ["interaction exchange = -J * sum(<i, j> in nnb: s[i] * s[j])", "param J = 1.0",
                                  "lattice square(4, 4)", "field s : spin", "temperature 1"])  # fmt: skip
    with pytest.raises(VfeError) as caught:
        compile_source(Source("ising.vfe", model))
    assert str(caught.value).strip() == shown.strip()


def test_set_up_commands() -> None:
    """Two lines make an environment: one solves the Ising model, one runs the tests; `.ci/run` runs both."""
    commands = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), re.M)
    assert len(commands) == 2
    assert "vdsl solve examples/ising.vfe" in commands[0]
    assert commands[1].endswith("pytest")
