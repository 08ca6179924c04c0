"""`vdsl fmt`: what is written, what is left alone, and the exit codes."""

import os

import pytest

UGLY = "param   L:int=4   # size\n"
NEAT = "param L : int = 4  # size\n"


@pytest.fixture
def neat(vdsl):
    return vdsl("fmt", "-", stdin=UGLY).out


def test_standard_input_goes_to_standard_output(neat):
    assert neat.split() == NEAT.split()
    assert neat.startswith("param L : int = 4")


def test_files_are_rewritten_once_and_keep_their_mode(vdsl, tmp_path, neat):
    path = tmp_path / "m.vfe"
    path.write_text(UGLY)
    os.chmod(path, 0o640)
    assert vdsl("fmt", "m.vfe") == (0, "", "m.vfe: formatted\n")
    assert path.read_text() == neat
    assert path.stat().st_mode & 0o777 == 0o640
    assert vdsl("fmt", "m.vfe") == (0, "", "")


def test_a_link_stays_a_link(vdsl, tmp_path, neat):
    (tmp_path / "real.vfe").write_text(UGLY)
    (tmp_path / "link.vfe").symlink_to("real.vfe")
    assert vdsl("fmt", "link.vfe").code == 0
    assert (tmp_path / "link.vfe").is_symlink()
    assert (tmp_path / "real.vfe").read_text() == neat


def test_check_and_diff_write_nothing(vdsl, tmp_path, neat):
    (tmp_path / "m.vfe").write_text(UGLY)
    (tmp_path / "n.vfe").write_text(neat)
    assert vdsl("fmt", "--check", "m.vfe", "n.vfe") == (1, "m.vfe: would be formatted\n", "")
    code, out, _ = vdsl("fmt", "--diff", "m.vfe", "n.vfe")
    assert code == 0
    assert out.splitlines()[:2] == ["--- m.vfe", "+++ m.vfe (formatted)"]
    assert vdsl("fmt", "--diff", "--check", "m.vfe").code == 1
    assert vdsl("fmt", "--check", "--diff", "n.vfe") == (0, "", "")
    assert vdsl("fmt", "--check", "-", stdin=UGLY).code == 1
    assert (tmp_path / "m.vfe").read_text() == UGLY


def test_a_broken_file_is_reported_and_the_others_are_formatted(vdsl, tmp_path, neat):
    (tmp_path / "bad.vfe").write_text("param x = (\n")
    (tmp_path / "m.vfe").write_text(UGLY)
    code, _, err = vdsl("fmt", "bad.vfe", "m.vfe")
    assert code == 1
    assert "error[unclosed-bracket]" in err
    assert (tmp_path / "bad.vfe").read_text() == "param x = (\n"
    assert (tmp_path / "m.vfe").read_text() == neat
