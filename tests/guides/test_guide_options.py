"""The options of a `guide` block reach the guide, and `vdsl explain` prints them (resume: tests/test_resume.py)."""

import json

import jax
import pytest

from vdsl.cli import main
from vdsl.compile import compile_source
from vdsl.errors import Source
from vdsl.guides import registry
from vdsl.guides.continuous import transfer
from vdsl.guides.problem import Problem
from vdsl.ir.interpret import resolve_parameters
from vdsl.ir.settings import GUIDE_OPTIONS

REAL = """
lattice square(8, 8)
field phi : real
interaction kinetic = 0.5 * sum(<i, j> in nn: (phi[i] - phi[j])^2)
interaction potential = sum(i in sites: phi[i]^4 - phi[i]^2)
temperature 1
"""
ANGLES = """
lattice square(4, 4)
field theta : angle
interaction xy = -sum(<i, j> in nn: cos(theta[i] - theta[j]))
temperature 1
"""
SPINS = """
lattice square(8, 8)
field s : spin
interaction exchange = -sum(<i, j> in nn: s[i] * s[j])
temperature 1
"""
LINKS = """
lattice square(4, 4)
field theta : angle on links
interaction wilson = -sum(p in plaquettes: cos(circulation(theta, p)) + 0.2 * cos(2 * circulation(theta, p)))
temperature 1
"""


def problem(text: str) -> Problem:
    program, _ = compile_source(Source("options.vfe", text), {}, None, False)
    return Problem(program, resolve_parameters(program, {}))


def chosen(text: str, guide: str, block: str) -> tuple[registry.GuideChoice, int]:
    """The choice with such a block, and how many numbers are trained."""
    p = problem(f"{text}\nguide {guide} {{ {block} }}\n")
    choice = registry.choose(p, guide)
    return choice, registry.build(choice, p).n_parameters()


# What each guide says of itself, and whether more of it means more numbers to train.
CASES = {
    "autoregressive hidden": (REAL, "autoregressive", "hidden", 3, "hidden units"),
    "autoregressive hidden of spins": (SPINS, "autoregressive", "hidden", 3, "hidden units"),
    "dense hidden": (SPINS, "dense", "hidden", 3, "hidden units"),
    "coupling layers": (REAL, "coupling", "layers", 2, "layers"),
    "coupling layers of angles": (ANGLES, "coupling", "layers", 2, "layers"),
    "coupling bins": (REAL, "coupling", "bins", 3, "bins"),
    "coupling features": (REAL, "coupling", "features", 5, "features"),
    "coupling hidden": (REAL, "coupling", "hidden", 7, "hidden units"),
    "continuous steps": (REAL, "continuous", "steps", 2, "steps"),
    "continuous steps of angles": (ANGLES, "continuous", "steps", 2, "steps"),
    "continuous width": (REAL, "continuous", "width", 2, "width"),
    "continuous width of angles": (ANGLES, "continuous", "width", 1, "width"),
    "multiscale hidden": (REAL, "multiscale", "hidden", 3, "hidden units"),
    "gauge_continuous sweeps": (LINKS, "gauge_continuous", "sweeps", 2, "sweeps"),
    "gauge_continuous reach": (LINKS, "gauge_continuous", "reach", 2, "reach"),
    "gauge_continuous hidden": (LINKS, "gauge_continuous", "hidden", 3, "hidden units"),
    "gauge_continuous harmonics": (LINKS, "gauge_continuous", "harmonics", 1, "harmonics"),
    "gauge_coupling sweeps": (LINKS, "gauge_coupling", "sweeps", 2, "sweeps"),
    "gauge_coupling reach": (LINKS, "gauge_coupling", "reach", 2, "reach"),
    "gauge_coupling hidden": (LINKS, "gauge_coupling", "hidden", 3, "hidden units"),
    "gauge_coupling bins": (LINKS, "gauge_coupling", "bins", 3, "bins"),
}


def test_every_option_has_a_case() -> None:
    covered = {(guide, option) for _, guide, option, _, _ in CASES.values()}
    covered |= {("multiscale", "coarsest"), ("multiscale", "window")}
    assert covered == {(guide, option) for guide, options in GUIDE_OPTIONS.items() for option in options}


@pytest.mark.parametrize("name", CASES)
def test_options_reach_the_guide(name: str) -> None:
    text, guide, option, value, shown = CASES[name]
    (few, fewer), (more, larger) = (chosen(text, guide, f"{option} = {v}") for v in (value, value + 1))
    assert (few.description[shown], more.description[shown]) == (value, value + 1)
    assert fewer < larger


def test_the_coarsest_level() -> None:
    levels = {
        most: chosen(REAL, "multiscale", f"coarsest = {most}")[0].description["sites by level"] for most in (8, 16)
    }
    assert levels == {8: [8, 8, 16], 16: [16, 16]}


def test_windows_are_whole_shells() -> None:
    windows = {most: chosen(REAL, "multiscale", f"window = {most}")[0].description["window"] for most in (4, 11, 12)}
    assert windows == {4: 4, 11: 8, 12: 12}


def test_a_block_is_about_the_guide_that_it_names() -> None:
    p = problem(REAL + "\nguide coupling { hidden = 7 }\n")
    assert registry.choose(p, "coupling").structure.hidden == 7
    assert registry.choose(p, "autoregressive").structure.hidden == 24


def test_kernels_move_between_flows_of_the_same_options_only() -> None:
    small, large = REAL.replace("8, 8", "4, 4"), REAL
    (few, _), (same, _), (more, _) = (
        chosen(text, "continuous", f"steps = {steps}") for text, steps in ((small, 1), (large, 1), (large, 2))
    )
    params = registry.build(few, problem(small)).init(jax.random.key(0))
    assert transfer(params, params, few, same)["flow"].keys() == params["flow"].keys()
    with pytest.raises(ValueError, match="differ"):
        transfer(params, params, few, more)


def test_explain_prints_them(tmp_path, capsys) -> None:
    file = tmp_path / "spins.vfe"
    file.write_text(SPINS + "guide dense { hidden = 3 }\n")
    assert main(["explain", str(file), "--json"]) == 0
    guide = json.loads(capsys.readouterr().out)["guide"]
    assert (guide["name"], guide["hidden units"]) == ("dense", 3)
    assert main(["explain", str(file)]) == 0
    assert "hidden units: 3" in capsys.readouterr().out
    assert main(["explain", str(file), "--guide", "mean_field", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["guide"]["name"] == "mean_field"
