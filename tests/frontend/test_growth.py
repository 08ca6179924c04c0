"""Energies that do not hold their fields: warned about where it is certain, and never where ln Z exists."""

import pytest

from vdsl.compile import compile_source
from vdsl.errors import Source

OPEN = ", boundary = open"
UNBOUNDED = {
    "vector": ("", "field f : real[2]\ninteraction e = -sum(i in sites: dot(f[i], f[i]))"),
    "one component": ("", "field f : real[2]\ninteraction e = sum(i in sites: dot(f[i], f[i]) - 2 * f[i, 1]^2)"),
    "complex": ("", "field f : complex\ninteraction e = sum(i in sites: abs(f[i])^2)\n"
                "interaction v = -sum(<i, j> in nn: abs(f[i])^2 * abs(f[j])^2)"),
    "two fields": ("", "field f : real\nfield g : real\n"
                   "interaction e = sum(i in sites: f[i]^2 + g[i]^2 - 2.1 * f[i] * g[i])"),
    "open": (OPEN, "field f : real\ninteraction e = sum(i in sites: f[i]^2) - sum(<i, j> in nn: f[i]^3 * f[j])"),
    "data": (OPEN, "field f : real\ndata J on nn ~ normal(0, 3) seed 1\n"
             "interaction e = sum(i in sites: f[i]^2) - sum(<i, j> in nn: J[i, j] * f[i] * f[j])"),
    "staggered": ("", "field f : real\ninteraction e = sum(<i, j> in nn: f[i] * f[j]) + sum(i in sites: f[i]^2)"),
    "for some spins": ("", "field f : real\nfield s : spin\ninteraction e = sum(i in sites: s[i] * f[i]^2)"),
    "for some angles": ("", "field f : real\nfield a : angle\n"
                        "interaction e = sum(i in sites: (1 + 2 * cos(a[i])) * f[i]^2)"),
    "linear": (OPEN, "field f : real\nfield g : real\ninteraction e = sum(i in sites: f[i]^2 + g[i])"),
}  # fmt: skip
FLAT = {
    "massless": "field f : real\ninteraction e = sum(<i, j> in nn: (f[i] - f[j])^2)",
    "anharmonic": "field f : real\ninteraction e = sum(<i, j> in nn: (f[i] - f[j])^4)",
    "one of two": "field f : real\nfield g : real\ninteraction e = sum(i in sites: g[i]^2 + f[i]^2 + (g[i] - f[i])^4)"
    " - sum(i in sites: f[i]^2)\ninteraction h = -sum(i in sites: (g[i] - f[i])^4 + g[i]^2) + sum(i in sites: f[i]^2)",
}
HELD = {
    "two fields": "field f : real\nfield g : real\n"
    "interaction e = sum(i in sites: f[i]^2 + g[i]^2 - 1.9 * f[i] * g[i])",
    "data": "field f : real\ndata J on nn ~ normal(0, 1) seed 1\n"
    "interaction e = 5 * sum(i in sites: f[i]^2) - sum(<i, j> in nn: J[i, j] * f[i] * f[j])",
    "one site held": "field f : real\ninteraction e = sum(<i, j> in nn: (f[i] - f[j])^2) + f[0]^2",
    "double well": "field f : real[3]\ninteraction e = sum(i in sites: dot(f[i], f[i])^2 - 9 * dot(f[i], f[i]))",
    "unknown": "field f : real\ninteraction e = sum(i in sites: cosh(f[i]) - f[i]^4)",
    "spins": "field f : real\nfield s : spin\ninteraction e = sum(i in sites: f[i]^2 - 5 * s[i] * f[i])",
}


def warnings(text: str, boundary: str = "") -> list:
    return list(compile_source(Source("m.vfe", f"lattice square(4, 3{boundary})\n{text}\ntemperature 1\n"))[1])


@pytest.mark.parametrize("name", UNBOUNDED)
def test_energies_without_a_lower_bound(name: str) -> None:
    boundary, text = UNBOUNDED[name]
    (found,) = warnings(text, boundary)
    assert found.code == "unbounded-energy"
    assert "no lower bound" in found.message


@pytest.mark.parametrize("boundary", ["", OPEN])
@pytest.mark.parametrize("name", FLAT)
def test_energies_that_do_not_change_under_a_shift(name: str, boundary: str) -> None:
    (found,) = warnings(FLAT[name], boundary)
    assert found.code == "unbounded-energy"
    assert "does not hold" in found.message


@pytest.mark.parametrize("boundary", ["", OPEN])
@pytest.mark.parametrize("name", HELD)
def test_no_warning_where_the_partition_function_exists_or_is_not_known(name: str, boundary: str) -> None:
    assert warnings(HELD[name], boundary) == []
