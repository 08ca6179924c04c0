"""Numbers as people read them, and sheets as plain text."""

import io
import math

import pytest

from vdsl.report.summary import verdict
from vdsl.report.table import Heading, Notes, Table, amount, deviation, duration, estimate, number, plain, print_pretty


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (-541.40123, 0.0213, "-541.401 ± 0.021"),
        (-541.40123, 0.0996, "-541.40 ± 0.10"),
        (-541.40123, 0.00996, "-541.401 ± 0.010"),
        (1.0, 1.0, "1.0 ± 1.0"),
        (9.96, 9.96, "10 ± 10"),
        (12345.6, 123.4, "12350 ± 120"),
        (0.0, 0.5, "0.00 ± 0.50"),
        (-0.0001, 0.02, "0.000 ± 0.020"),
        (3.2e-12, 1.5e-13, "(3.20 ± 0.15)e-12"),
        (6.02e23, 1.2e21, "(6.020 ± 0.012)e+23"),
        (2.5, 0.0, "2.5"),
        (-2.3457891234567, 0.0, "-2.345789123"),
        (1.5, None, "1.5 ± ?"),
        (None, 0.1, "not finite"),
    ],
)
def test_estimates_keep_two_digits_of_the_error(value, error, expected):
    assert estimate(value, error) == expected


def test_rounding_never_moves_a_value_by_more_than_half_a_digit_of_its_error():
    import numpy as np

    rng = np.random.default_rng(0)
    for _ in range(500):
        error = 10 ** rng.uniform(-12, 12)
        value = rng.normal() * error * 10 ** rng.uniform(0, 6)
        text = estimate(value, error)
        scale = 1.0
        if text.startswith("("):
            text, _, power = text[1:].partition(")e")
            scale = 10.0 ** int(power)
        shown, shown_error = (float(part) * scale for part in text.split(" ± "))
        assert abs(shown_error / error - 1) < 0.051
        assert abs(shown - value) <= 0.0501 * error + 1e-12 * abs(value)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((-10.0, 0.1, -10.2), "+2.0 σ"),
        ((-10.3, 0.1, -10.2), "-1.0 σ"),
        ((-10.0, 0.001, -10.2, "upper"), "above by 2.0e-01"),
        ((-10.3, 0.001, -10.2, "upper"), "below by 1.0e-01"),
        ((-10.0, 1e-9, -10.000001), "equal to 1e-07"),
        ((0.0, 0.0, 0.0), "equal to 1e-16"),
        ((1.0, 0.0, 2.0), "differs by -1.0e+00"),
    ],
)
def test_deviations(arguments, expected):
    assert deviation(*arguments) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
    ],
)
def test_durations(seconds, expected):
    assert duration(seconds) == expected


def test_amounts_and_numbers():
    assert [amount(s) for s in (12, 2048, 3.5 * 2**20)] == ["12 bytes", "2.0 KiB", "3.5 MiB"]
    assert [number(x) for x in (16, 2.269185314213022, -0.0, None)] == ["16", "2.269185314", "0", "not finite"]


SHEET = (
    Heading("ising", "256 sites"),
    Table(("", "per site", "method"), (("F", "-2.1 ± 0.1", "variational"), ("ln Z", "1.0", "exact")), left=("method",)),
    Notes((("ESS", "0.9", "good"), ("", "[red]not markup[/]", ""))),
)


def test_plain_sheets_align_columns():
    assert plain(SHEET).splitlines() == [
        "ising",
        "256 sites",
        "",
        "         per site   method",
        "F      -2.1 ± 0.1   variational",
        "ln Z          1.0   exact",
        "",
        "ESS  0.9",
        "     [red]not markup[/]",
    ]


def test_pretty_sheets_show_the_same_words():
    from rich.console import Console

    console = Console(record=True, width=120, color_system="truecolor", force_terminal=True, file=io.StringIO())
    print_pretty(SHEET, console)
    styled = console.export_text(styles=True, clear=False)
    assert "\x1b[" in styled
    assert console.export_text().split() == plain(SHEET).split()


def test_a_verdict_is_given_for_every_ess_and_withdrawn_by_missing_modes():
    words = [verdict(ess) for ess in (1.0, 0.9, 0.6, 0.2, 0.03, 1e-4)]
    assert len(set(words)) == 6
    assert words[0] == "excellent: the guide is nearly exact"
    assert verdict(0.99, ["modes-missing: two chains disagree"]).startswith("not to be trusted")
    assert verdict(math.nan) == "unknown"
