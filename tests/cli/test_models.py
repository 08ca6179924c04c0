"""`vdsl models` and `vdsl new`."""

import json
from pathlib import Path

import pytest

from vdsl.cli.models import shipped, title

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_models_lists_every_example_with_a_title(vdsl):
    code, out, _ = vdsl("models")
    assert code == 0
    listed = {line.split()[0]: line.split(maxsplit=1)[1] for line in out.splitlines()[1:]}
    assert sorted(listed) == sorted(p.stem for p in EXAMPLES.glob("*.vfe"))
    assert listed["ising"] == "square-lattice Ising ferromagnet"


def test_models_as_json_is_one_object_and_nothing_else(vdsl):
    code, out, err = vdsl("models", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["models"]["ising"] == "square-lattice Ising ferromagnet"


def test_titles_come_from_the_model_or_the_first_comment():
    assert title('# c\nmodel a "the title"  # x\n') == "the title"
    assert title("# first words\nmodel a\n") == "first words"
    assert title("") == ""


def test_new_writes_a_model_under_the_new_name(vdsl, tmp_path):
    code, out, err = vdsl("new", "mine")
    assert (code, out) == (0, "")
    assert "wrote mine.vfe" in err
    text = (tmp_path / "mine.vfe").read_text()
    assert text == (EXAMPLES / "ising.vfe").read_text().replace("model ising ", "model mine ", 1)


@pytest.mark.parametrize("template", [path.stem for path in shipped()])
def test_every_template_arrives_with_its_data(vdsl, tmp_path, template):
    assert vdsl("new", "copy", "--template", template).code == 0
    text = (tmp_path / "copy.vfe").read_text()
    for word in text.split('from "')[1:]:
        assert (tmp_path / word.partition('"')[0]).read_bytes() == (EXAMPLES / word.partition('"')[0]).read_bytes()


def test_new_overwrites_only_when_told(vdsl, tmp_path):
    (tmp_path / "mine.vfe").write_text("precious")
    code, _, err = vdsl("new", "mine.vfe")
    assert code == 2
    assert "error[out-exists]: `mine.vfe` exists" in err
    assert (tmp_path / "mine.vfe").read_text() == "precious"
    assert vdsl("new", "mine", "--force").code == 0
    assert (tmp_path / "mine.vfe").read_text() != "precious"


def test_new_keeps_a_data_file_that_differs(vdsl, tmp_path):
    (tmp_path / "sk20.csv").write_text("precious")
    assert vdsl("new", "mine", "--template", "sk").code == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sk20.csv"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("mine", "--template", "isin"), "did you mean `ising`?"),
        (("2d",), "`2d` is no name for a model"),
        (("nowhere/mine",), "nowhere"),
    ],
)
def test_new_refuses_with_a_reason(vdsl, words, expected):
    code, _, err = vdsl("new", *words)
    assert code == 2
    assert expected in err


def test_a_name_with_a_dash_gives_a_model_the_language_can_read(vdsl, tmp_path):
    assert vdsl("new", "my-model").code == 0
    assert "model my_model " in (tmp_path / "my-model.vfe").read_text()
