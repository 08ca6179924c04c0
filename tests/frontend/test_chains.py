"""Long chains mean what they say, at any length that a file can hold."""

from __future__ import annotations

import numpy as np
import pytest

from vdsl.compile import compile_source
from vdsl.errors import Source, VfeError
from vdsl.frontend.chains import LONGEST_CHAIN
from vdsl.frontend.format import format_module
from vdsl.frontend.parse import parse
from vdsl.ir.interpret import energy
from vdsl.ir.program import Program

HEAD = "lattice chain(8)\nfield s : potts(7)\ntemperature 1\n"
LENGTHS = (2, LONGEST_CHAIN + 1, LONGEST_CHAIN + 2, 63, 64, 65, 2000)


def compiled(text: str) -> Program:
    return compile_source(Source("<string>", HEAD + text))[0]


@pytest.mark.parametrize("n", LENGTHS)
def test_sums_and_differences(n: int) -> None:
    rng = np.random.default_rng(n)
    signs, weights, sites = rng.choice([1, -1], n), rng.integers(1, 100, n), rng.integers(0, 8, n)
    terms = [f"{'+-'[int(sign < 0)]} {w}*s[{i}]" for sign, w, i in zip(signs, weights, sites, strict=True)]
    x = rng.integers(0, 7, 8)
    program = compiled(f"interaction e = s[0] {' '.join(terms)}\n")
    assert energy(program, {"s": x}, {}) == x[0] + int(np.sum(signs * weights * x[sites]))


@pytest.mark.parametrize("n", LENGTHS)
def test_products_keep_their_order(n: int) -> None:
    """Matrices do not commute: the trace of a product of permuted factors would differ."""
    rng = np.random.default_rng(n)
    sites = rng.integers(0, 8, n)
    text = "lattice chain(8)\nfield s : SU(2)\ntemperature 1\n"
    program = compile_source(
        Source("<string>", text + f"interaction e = re(tr({' * '.join(f's[{i}]' for i in sites)}))\n")
    )[0]
    angles = rng.normal(size=(8, 3))
    a, b = np.exp(1j * angles[:, 0]) * np.cos(angles[:, 2]), np.exp(1j * angles[:, 1]) * np.sin(angles[:, 2])
    x = np.stack([np.stack([a, b], -1), np.stack([-b.conj(), a.conj()], -1)], 1)
    expected = np.eye(2)
    for i in sites:
        expected = expected @ x[i]
    assert energy(program, {"s": x}, {}) == pytest.approx(expected.trace().real, abs=1e-12)


@pytest.mark.parametrize(("op", "expected"), [("and", 0), ("or", 1)])
def test_conditions(op: str, expected: int) -> None:
    tests = f" {op} ".join(f"s[{k % 8}] > {k % 5}" for k in range(2000))
    program = compiled(f"interaction e = if {tests} then 1 else 0\n")
    assert energy(program, {"s": np.full(8, 3)}, {}) == expected


def test_constants() -> None:
    program = compiled(f"let a = {' - '.join(['1'] * 5000)}\ninteraction e = a*s[0]\n")
    assert energy(program, {"s": np.ones(8, int)}, {}) == 2 - 5000


@pytest.mark.parametrize("op", ["/", "%", "//"])
def test_chains_that_cannot_be_cut_are_refused_in_time(op: str) -> None:
    with pytest.raises(VfeError) as caught:
        compiled(f"interaction e = s[0]{f' {op} 2' * 5000}\n")
    assert [d.code for d in caught.value.diagnostics] == ["too-deep"]
    assert caught.value.exit_code == 4


def test_a_wrong_operand_in_a_long_sum_is_pointed_at() -> None:
    text = HEAD + f"interaction e = {' + '.join(['s[0]'] * 50)} + (s[1] > 2) + {' + '.join(['s[0]'] * 50)}\n"
    with pytest.raises(VfeError) as caught:
        compile_source(Source("<string>", text))
    (found,) = caught.value.diagnostics
    assert found.code == "kind-mismatch"
    assert found.span is not None
    assert "s[1] > 2" in text[found.span.start : found.span.end]
    assert found.span.end - found.span.start < 30


def test_long_chains_compare_hash_and_format() -> None:
    text = "let a = " + " - ".join(f"x{k}" for k in range(5000)) + "\n"
    once = parse(Source("a", text))
    again = parse(Source("b", format_module(once)))
    assert once == again
    assert hash(once) == hash(again)
    assert once != parse(Source("c", text.replace("x7 ", "y7 ")))
    assert once != parse(Source("d", text.replace("x0 - ", "")))
