"""The names that a model's text may use are the ones that the solver knows."""

import pytest

from vdsl.guides import registry
from vdsl.inference import estimators
from vdsl.ir.settings import GUIDE_OPTIONS, GUIDES, TRAIN_OPTIONS, Option


def test_every_registered_guide_can_be_named_in_a_model() -> None:
    assert set(registry.GUIDES) == set(GUIDES)
    assert set(GUIDE_OPTIONS) == set(GUIDES)


def test_every_estimator_can_be_named_in_a_model() -> None:
    assert set(TRAIN_OPTIONS["estimator"].choices) == set(estimators.ESTIMATORS)


@pytest.mark.parametrize(
    ("option", "good", "bad"),
    [
        (Option("whole", 2), [2, 10], [1, 2.0, True, "2", -3]),
        (Option("real", 0, least_open=True), [1e-9, 3, 2.5], [0, 0.0, -1, True, float("inf"), float("nan"), "1"]),
        (Option("choice", choices=("a", "b")), ["a"], ["c", 1, True]),
    ],
)
def test_options_accept_what_they_say(option: Option, good: list, bad: list) -> None:
    assert all(option.accepts(value) for value in good)
    assert not any(option.accepts(value) for value in bad)
