"""The LaTeX of a Hamiltonian: each form once, as it must stand in the paper."""

from __future__ import annotations

from pathlib import Path

import pytest

from vdsl.compile import compile_source
from vdsl.errors import Source
from vdsl.frontend.tex import tex

EXAMPLES = Path(__file__).parent / "language_examples"


def tex_of(text: str) -> str:
    program, _ = compile_source(Source("test.vfe", text), {}, EXAMPLES)
    return tex(program)


def term(value: str, before: str = "") -> str:
    """The right side of `interaction e = value` on a square lattice of spins s, with parameters J, beta and m2."""
    text = tex_of(
        f"lattice square(4, 4)\nfield s : spin\nparam J = 1.0\nparam beta = 1.0\nparam m2 = 1.0\n{before}\n"
        f"interaction e = {value}\ntemperature 1\n"
    )
    return text.removeprefix("\\begin{align*}\n  H &= ").split("  % e")[0]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("-J * sum(<i, j> in nn: s[i] * s[j])", r"-J \sum_{\langle i,j \rangle} s_{i} s_{j}"),
        ("sum(<i, j> in nn: s[i]) * beta", r"\left(\sum_{\langle i,j \rangle} s_{i}\right) \beta"),
        ("J * (sum(<i, j> in nn: s[i]) - beta)", r"J \left(\sum_{\langle i,j \rangle} s_{i} - \beta\right)"),
        ("J * sum(<i, j> in nn: s[i]) * beta", r"\left(J \sum_{\langle i,j \rangle} s_{i}\right) \beta"),
        ("sum(<i, j> in nn: s[i] + s[j])", r"\sum_{\langle i,j \rangle} \left(s_{i} + s_{j}\right)"),
        ("m2 * sum(<i, j> in nn: J^beta * s[i])", r"m_{2} \sum_{\langle i,j \rangle} J^{\beta} s_{i}"),
        ("J * -beta * sum(<i, j> in nn: s[i])", r"J \left(-\beta\right) \sum_{\langle i,j \rangle} s_{i}"),
        ("J - (beta - m2) + sum(<i, j> in nn: s[i])",
         r"J - \left(\beta - m_{2}\right) + \sum_{\langle i,j \rangle} s_{i}"),
        ("-J / m2 * sum(<i, j> in nn: s[i])", r"-\frac{J}{m_{2}} \sum_{\langle i,j \rangle} s_{i}"),
        ("(J / m2)^2 * sum(<i, j> in nn: s[i])",
         r"\left(\frac{J}{m_{2}}\right)^{2} \sum_{\langle i,j \rangle} s_{i}"),
        ("cos(J) * sum(<i, j> in nn: s[i])", r"\cos\left(J\right) \sum_{\langle i,j \rangle} s_{i}"),
        ("sqrt(abs(J)) * sum(<i, j> in nn: s[i])", r"\sqrt{\left|J\right|} \sum_{\langle i,j \rangle} s_{i}"),
        ("sum(<i, j> in nn where s[i] > 0: s[j])", r"\sum_{\substack{\langle i,j \rangle \\ s_{i} > 0}} s_{j}"),
        ("sum(<i, j> in nnn: delta(s[i], s[j]))",
         r"\sum_{\langle i,j \rangle_{\mathrm{nnn}}} \delta_{s_{i}, s_{j}}"),
        ("1e-5 * sum(<i, j> in nn: s[i])", r"1 \times 10^{-5} \sum_{\langle i,j \rangle} s_{i}"),
    ],
)  # fmt: skip
def test_terms(value: str, expected: str) -> None:
    assert term(value) == expected


def test_a_file_is_an_align_with_a_line_for_each_term() -> None:
    assert tex_of((EXAMPLES / "ising.vfe").read_text()) == (
        "\\begin{align*}\n"
        "  H &= -J \\sum_{\\langle i,j \\rangle} s_{i} s_{j} \\\\  % exchange\n"
        "  &\\quad -h \\sum_{x} s_{x}  % zeeman\n"
        "\\end{align*}\n"
    )


def test_gauge_fields_have_links_and_daggers() -> None:
    assert (
        r"-\frac{\beta}{3} \sum_{x,\, \mu<\nu} \operatorname{Re}\left(\operatorname{Tr}\left(U_{x, \mu} "
        r"U_{x + \hat{\mu}, \nu} U_{x + \hat{\nu}, \mu}^{\dagger} U_{x, \nu}^{\dagger}\right)\right)"
    ) in tex_of((EXAMPLES / "su3_wilson.vfe").read_text())


def test_fields_with_subscripts_keep_one_subscript_each() -> None:
    text = tex_of(
        "lattice chain(4)\nfield s1 : spin\ninteraction e = sum(<i, j> in nn: s1[i] * s1[j])\ntemperature 1\n"
    )
    assert "{s_{1}}_{i} {s_{1}}_{j}" in text


@pytest.mark.parametrize(
    "name", ["ising", "edwards_anderson", "potts", "phi4", "xy", "u1_gauge", "su3_wilson", "kitaev_heisenberg"]
)
def test_brackets_balance(name: str) -> None:
    text = tex_of((EXAMPLES / f"{name}.vfe").read_text())
    assert text.count(r"\left") == text.count(r"\right")
    assert text.count("{") == text.count("}")
    assert not [word for word in ("None", "Const(", "Place(") if word in text]
