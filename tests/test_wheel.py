"""The built wheel works away from the checkout: the grammar and the examples travel inside it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout without a network."""
    target = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (built,) = target.glob("vdsl-*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an installer would put into site-packages."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def run(site: Path, where: Path, *arguments: str) -> subprocess.CompletedProcess:
    """`python arguments` outside the checkout, with the unpacked wheel before everything that is installed."""
    environment = {**os.environ, "PYTHONPATH": str(site), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=where, env=environment, capture_output=True, text=True, timeout=120
    )


def test_wheel_holds_the_package_the_grammar_and_the_examples(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {f"vdsl/grammar/{p.name}" for p in (ROOT / "grammar").iterdir()}
    expected |= {f"vdsl/examples/{p.name}" for p in (ROOT / "examples").iterdir()}
    expected |= {p.relative_to(ROOT).as_posix() for p in (ROOT / "vdsl").rglob("*.py")} | {"vdsl/py.typed"}
    assert expected <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/", "shared/"))]


def test_grammar_is_read_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    model = tmp_path / "dimer.vfe"
    model.write_text("lattice chain(2, boundary = open)\nfield s : spin\n"
                     "interaction e = -sum(<i, j> in nn: s[i] * s[j])\ntemperature 1\n")  # fmt: skip
    where = run(unpacked, tmp_path, "-c", "import vdsl; print(vdsl.__file__)")
    assert where.stdout.startswith(str(unpacked)), where.stderr
    checked = run(unpacked, tmp_path, "-m", "vdsl", "check", str(model))
    assert checked.returncode == 0, checked.stderr
    model.write_text(model.read_text().replace("in nn", "in nnb"))
    refused = run(unpacked, tmp_path, "-m", "vdsl", "check", str(model))
    assert refused.returncode == 1
    assert "unknown-set" in refused.stderr + refused.stdout


def test_examples_ship_with_their_data(unpacked: Path, tmp_path: Path) -> None:
    listed = run(unpacked, tmp_path, "-m", "vdsl", "models")
    assert listed.returncode == 0, listed.stderr
    for path in (ROOT / "examples").glob("*.vfe"):
        assert path.stem in listed.stdout
    copied = run(unpacked, tmp_path, "-m", "vdsl", "new", "glass", "--template", "sk")
    assert copied.returncode == 0, copied.stderr
    checked = run(unpacked, tmp_path, "-m", "vdsl", "check", "glass.vfe")
    assert checked.returncode == 0, checked.stderr
