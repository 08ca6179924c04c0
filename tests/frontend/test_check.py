"""The checker: what a program is made of, one spelling per meaning, limits that hold before anything is allocated."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vdsl.codes import CODES
from vdsl.compile import compile_source, load, loads
from vdsl.errors import Diagnostic, Source, VfeError
from vdsl.frontend.fold import FoldError, binary
from vdsl.ir.expr import Binary, Binder, Const, DataRead, Param, Place, Read, Reduce, Ref, SetOf, walk
from vdsl.ir.program import Claim, Program, Scan, Settings
from vdsl.ir.support import Clock, Group, Potts, Real, Spin

ROOT = Path(__file__).parents[2]
EXAMPLES = Path(__file__).parent / "language_examples"
ISING = """
param L : int = 4 in [2, 64]
param J = 1.0 in (-inf, inf)
param T = 2.0 in (0, inf)
lattice square(L, L)
field s : spin
interaction exchange = -J * sum(<i, j> in nn: s[i] * s[j])
temperature T
"""


def compiled(text: str, base: Path | None = None, **overrides: object) -> Program:
    return compile_source(Source("<test>", text), overrides, base)[0]


def warnings_of(text: str) -> tuple[Diagnostic, ...]:
    return compile_source(Source("<test>", text))[1]


def refused(text: str, base: Path | None = None, allow_path: bool = False, **overrides: object) -> VfeError:
    with pytest.raises(VfeError) as caught:
        compile_source(Source("<test>", text), overrides, base, allow_path)
    return caught.value


def codes(error: VfeError) -> list[str]:
    return [d.code for d in error.diagnostics]


def model(body: str, lattice: str = "square(4, 4)", field: str = "s : spin") -> str:
    energy = "interaction zero = s[0] * 0\n" if field == "s : spin" and "interaction" not in body else ""
    energy += "" if "interaction" in energy + body else "interaction one = 1\n"
    return f"lattice {lattice}\nfield {field}\ntemperature 1\n{energy}{body}\n"


# Programs


def test_ising_as_a_program() -> None:
    p = compiled(ISING)
    bond = Binder(("i", "j"), SetOf("bonds", "nn"))
    product = Binary("*", Read("s", Place("i")), Read("s", Place("j")))
    energy = Binary("*", Binary("*", Const(-1), Param("J")), Reduce("sum", (bond,), product))
    assert p.terms[0].value in (energy, Binary("*", p.terms[0].value.left, Reduce("sum", (bond,), product)))
    assert (p.name, p.temperature, p.lattice.shape) == ("model", Param("T"), (4, 4))
    assert [q.name for q in p.parameters] == ["J", "T"]
    assert [(q.name, q.value) for q in p.structure] == [("L", 4)]
    assert p.fields[0].support == Spin()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.vfe")), ids=lambda p: p.stem)
def test_every_example_of_the_language(path: Path, tmp_path: Path) -> None:
    rows = [f"{i},{j},{(i + j) % 3 - 1}" for i in range(20) for j in range(i + 1, 20)]
    (tmp_path / "sk20.csv").write_text("\n".join(rows))
    source = Source(path.name, path.read_text())
    if path.stem == "lennard_jones":
        with pytest.raises(VfeError) as caught:
            compile_source(source, {}, tmp_path)
        assert set(codes(caught.value)) == {"not-supported-yet"}
    else:
        program, warnings = compile_source(source, {}, tmp_path)
        assert program.terms
        assert warnings == ()


def test_statements_in_any_order_mean_the_same() -> None:
    lines = ISING.strip().split("\n")
    assert compiled("\n".join(reversed(lines))).terms == compiled(ISING).terms
    assert compiled("\n".join(reversed(lines))).temperature == compiled(ISING).temperature


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("sum(<i, j> in nn: s[i] * s[j])", "sum( <a,b>   in nn : (s[a]*s[b]) )  # the same"),
        ("sum(x in sites, mu in axes: s[x] * s[x + mu])", "sum(y in sites, nu in axes: s[y] * s[nu + y])"),
        ("sum(x in sites, mu in axes: s[x + 2*mu])", "sum(x in sites, mu in axes: s[x + mu + mu])"),
        ("sum(x in sites: s[x + (1, -1)])", "sum(x in sites: s[x - (-1, 1)])"),
        ("s[0] * sum(l in links: 1)", "s[0] * sum(x in sites, mu in axes: 1)"),
        ("2 * 3 * sum(x in sites: s[x])", "6 * sum(y in sites: s[y])"),
        ("size(nn) * s[0]", "32 * s[0]"),
        ("let a = sum(x in sites: s[x]) in a * a", "sum(u in sites: s[u]) * sum(v in sites: s[v])"),
    ],
)
def test_one_meaning_one_fingerprint(one: str, other: str) -> None:
    programs = [compiled(model(f"interaction e = {text}")) for text in (one, other)]
    assert programs[0].terms == programs[1].terms
    assert programs[0].fingerprint == programs[1].fingerprint


def test_plaquettes_are_links_written_out() -> None:
    u1 = model("interaction w = -sum(p in plaquettes: cos(circulation(theta, p)))", field="theta : angle on links")
    explicit = model(
        "interaction w = -sum(x in sites, <m, n> in planes: "
        "cos(theta[x, m] + theta[x + m, n] - theta[x + n, m] - theta[x, n]))",
        field="theta : angle on links",
    )
    assert compiled(u1) == compiled(explicit)
    su3 = model("interaction w = -sum(p in plaquettes: re(tr(loop(U, p))))", field="U : SU(3) on links")
    explicit = model(
        "interaction w = -sum(x in sites, <m, n> in planes: re(tr(U[x, m] * U[x + m, n] * U[x + n, m]' * U[x, n]')))",
        field="U : SU(3) on links",
    )
    assert compiled(su3) == compiled(explicit)
    assert compiled(su3.replace("p in", "<x, m, n> in").replace("loop(U, p)", "loop(U, x, m, n)")) == compiled(su3)


def test_plaquettes_with_open_boundaries_stay_a_set() -> None:
    text = "interaction w = sum(p in plaquettes: cos(circulation(theta, p)))"
    p = compiled(model(text, "square(4, 4, boundary = open)", "theta : angle on links"))
    (reduction,) = (n for n in walk(p.terms[0].value) if isinstance(n, Reduce))
    assert reduction.binders == (Binder(("x", "mu", "nu"), SetOf("plaquettes")),)


def test_fingerprints_do_not_depend_on_the_process() -> None:
    script = (
        "import sys; from vdsl.errors import Source; from vdsl.compile import compile_source;"
        "print(compile_source(Source('<test>', sys.stdin.read()))[0].fingerprint)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script], input=ISING, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {compiled(ISING).fingerprint}


# Parameters, constants


def test_overrides() -> None:
    p = compiled(ISING, L=8, J=2)
    assert p.lattice.shape == (8, 8)
    assert next(q for q in p.parameters if q.name == "J").default == Const(2.0)
    assert compiled(ISING, L="8", J="2.0") == p


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        ({"L": 2.5}, "bad-override"),
        ({"L": "2.0"}, "bad-override"),
        ({"L": True}, "bad-override"),
        ({"J": "one"}, "bad-override"),
        ({"J": math.nan}, "bad-override"),
        ({"J": None}, "bad-override"),
        ({"L": 10**30}, "bad-override"),
        ({"K": 1.0}, "unknown-parameter"),
        ({"L": 1}, "out-of-range"),
        ({"T": 0.0}, "out-of-range"),
        ({"T": -1}, "out-of-range"),
        ({"J": math.inf}, "out-of-range"),
    ],
)
def test_bad_overrides_are_usage_errors(overrides: dict, code: str) -> None:
    error = refused(ISING, **overrides)
    assert codes(error) == [code]
    assert error.exit_code == 2


def test_defaults_follow_overrides() -> None:
    text = ISING.replace("param T = 2.0", "let Tc = 2 * J\nparam T = Tc / 2")
    assert compiled(text).parameters[1].default == Binary("/", Binary("*", Const(2), Param("J")), Const(2))
    assert codes(refused(text, J=-1.0)) == ["out-of-range"]


def test_structural_parameters_are_exact_integers() -> None:
    text = model("param n : int = 2^62 + 1\nparam m : int = n // 2 + 7 % 4 - 3\nlet k = m * 1\nobservable o = k")
    assert [s.value for s in compiled(text).structure] == [2**62 + 1, 2**61]


def test_constants_are_folded_and_the_rest_is_defined() -> None:
    text = model("param g = 2.0\nlet a = sqrt(4) * pi\nlet b = g * a\nobservable o = a + b")
    p = compiled(text)
    assert p.observables[0].value == Binary("+", Const(2 * math.pi), Ref("b"))
    assert [(d.name, d.value) for d in p.definitions] == [("b", Binary("*", Param("g"), Const(2 * math.pi)))]


@pytest.mark.parametrize(
    ("op", "a", "b", "value"),
    [
        ("//", -7, 2, -4),
        ("%", -7, 2, 1),
        ("^", 2, 62, 2**62),
        ("^", 2, 64, 2.0**64),
        ("^", 2, -1, 0.5),
        ("/", 1, 2, 0.5),
        ("^", -1, 10**15 + 1, -1),
        ("*", 2**40, 2**40, 2.0**80),
    ],
)
def test_folding(op: str, a: int, b: int, value: float) -> None:
    folded = binary(op, Const(a), Const(b))
    assert folded == Const(value)
    assert type(folded.value) is type(value)


@pytest.mark.parametrize(("op", "a", "b"), [("^", 9, 9**9), ("^", 0, -1), ("/", 1, 0), ("%", 1, 0), ("^", -8, 0.5)])
def test_folding_what_has_no_value(op: str, a: float, b: float) -> None:
    with pytest.raises(FoldError):
        binary(op, Const(a), Const(b))


# Fields, places, sets


@pytest.mark.parametrize(
    ("spelling", "support"),
    [
        ("potts(q)", Potts(3)),
        ("clock(2 * q)", Clock(6)),
        ("real", Real()),
        ("real[q]", Real(3)),
        ("U(1)", Group("U1")),
        ("SU(2)", Group("SU2")),
    ],
)
def test_field_types(spelling: str, support: object) -> None:
    body = "param q : int = 3\nobservable n = q * size(sites)\nobservable z = sum(i in sites: f[i]) * 0"
    text = model(body, field=f"f : {spelling}")
    if spelling in ("real[q]", "SU(2)"):
        text = text.replace("f[i])", "re(f[i, 0]))" if spelling == "real[q]" else "re(tr(f[i])))")
    if spelling == "U(1)":
        text = text.replace("f[i])", "re(f[i]))")
    assert compiled(text).fields[0].support == support


@pytest.mark.parametrize(
    ("lattice", "over", "count"),
    [
        ("square(4, 5)", "sites", 20),
        ("square(4, 5)", "nn", 40),
        ("square(4, 5, boundary = open)", "nn", 31),
        ("square(4, 5, boundary = (open, periodic))", "links", 35),
        ("square(4, 5, boundary = open)", "plaquettes", 12),
        ("hypercubic(3, 4, 5)", "plaquettes", 180),
        ("hypercubic(3, 4, 5)", "planes", 3),
        ("triangular(4, 4)", "shell(3)", 48),
        ("kagome(3, 3)", "nn", 54),
        ("complete(6)", "nn", 15),
        ("complete(6)", "pairs(sites)", 15),
        ("square(4, 4)", "range(1, 10, 4)", 3),
        ("square(10000, 10000, boundary = open)", "nn", 199980000),
    ],
)
def test_sizes_are_counted_without_building(lattice: str, over: str, count: int) -> None:
    started = time.perf_counter()
    text = model(f"observable n = size({over})\nobservable m = s[0]", lattice)
    p = compiled(text)
    assert p.observables[0].value == Const(count)
    assert time.perf_counter() - started < 1
    if p.lattice.n_sites < 1000 and over in p.lattice.bond_set_names():
        assert len(p.lattice.bonds(over)) == count


def test_places() -> None:
    p = compiled(model("interaction e = sum(x in sites, mu in axes: s[x - 2*mu + (0, 1)])"))
    (read,) = (n for n in walk(p.terms[0].value) if isinstance(n, Read))
    assert read.place == Place("x", ((1, Const(1)), ("mu", Const(-2))))
    chain = compiled(model("interaction e = sum(x in sites: s[x + 1])", "chain(5)"))
    (read,) = (n for n in walk(chain.terms[0].value) if isinstance(n, Read))
    assert read.place == Place("x", ((0, Const(1)),))
    fixed = compiled(model("interaction e = s[3]"))
    assert fixed.terms[0].value == Read("s", Place(None, (), Const(3)))


def test_a_function_may_take_sites_and_axes() -> None:
    written = model("fn pair(x, mu) = s[x] * s[x + mu]\ninteraction e = sum(x in sites, mu in axes: pair(x, mu))")
    assert compiled(written) == compiled(model("interaction e = sum(y in sites, nu in axes: s[y] * s[y + nu])"))


def test_an_observable_may_use_an_interaction() -> None:
    p = compiled(ISING + "observable e = exchange / size(sites)\nderived c = expect(e^2) / T\nderived d = 2 * c\n")
    assert p.observables[0].value == Binary("/", p.terms[0].value, Const(16))
    assert p.derived[1].value == Binary("*", Const(2), p.derived[0].value)


def test_temperature_is_known_to_derived_quantities() -> None:
    p = compiled(model("observable m = s[0]\nderived d = expect(m) / T"))
    assert p.derived[0].value.right == Const(1)


def test_a_long_sum_is_no_deeper_than_it_must_be() -> None:
    terms = " + ".join(f"s[{k % 16}]" for k in range(380))
    p = compiled(model(f"interaction e = {terms} - s[3]"))
    reads = [n for n in walk(p.terms[0].value) if isinstance(n, Read)]
    assert [r.place.number.value for r in reads] == [k % 16 for k in range(380)] + [3]
    hash(p)


# Data


def test_random_data_are_those_of_numpy() -> None:
    text = model(
        "data J on nn ~ normal(0, 1) seed 7\ndata xi ~ sign() seed 3 { shape = (2, 16) }\n"
        "data h on sites ~ uniform(-1, 1) seed 1 { shape = (3,) }\n"
        "interaction e = sum(<i, j> in nn: J[i, j] * s[i] * s[j]) + sum(m in range(2), i in sites: xi[m, i] * h[i, 2])"
    )
    p = compiled(text)
    j, xi, h = (d.values.values for d in p.data)
    assert np.array_equal(j, np.random.default_rng(7).normal(0, 1, 32))
    assert np.array_equal(xi, 2 * np.random.default_rng(3).integers(0, 2, (2, 16)) - 1)
    assert np.array_equal(h, np.random.default_rng(1).uniform(-1, 1, (16, 3)))
    assert [d.on for d in p.data] == ["nn", None, "sites"]
    keys = [n.key for n in walk(p.terms[0].value) if isinstance(n, DataRead)]
    assert keys == ["bond", "index", "site"]


def test_rows_find_their_bonds_in_either_direction(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    p = compiled(model("interaction e = sum(<i, j> in nn: s[i] * s[j])"))
    bonds = p.lattice.bonds("nn")
    values = rng.normal(size=len(bonds))
    order = rng.permutation(len(bonds))
    rows = [(bonds.i[k], bonds.j[k]) if k % 2 else (bonds.j[k], bonds.i[k]) for k in order]
    lines = [f"{i}, {j}, {values[k]!r}" for (i, j), k in zip(rows, order, strict=True)]
    (tmp_path / "J.csv").write_text(
        "i, j, J\n# a comment\n" + "\n".join(lines).replace("np.float64(", "").replace(")", "")
    )
    text = model('data J on nn from "J.csv"\ninteraction e = sum(<i, j> in nn: J[i, j] * s[i])')
    assert np.array_equal(compiled(text, tmp_path).data[0].values.values, values)
    np.save(tmp_path / "J.npy", values)
    assert compiled(text.replace("J.csv", "J.npy"), tmp_path).data == compiled(text, tmp_path).data


def test_rows_may_be_left_out_with_a_default(tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("3,0.5\n0,-1\n")
    text = model('data h on sites from "h.csv" { default = 0 }\ninteraction e = sum(i in sites: h[i] * s[i])')
    expected = np.zeros(16)
    expected[3], expected[0] = 0.5, -1
    assert np.array_equal(compiled(text, tmp_path).data[0].values.values, expected)


def test_twice_joined_sites_take_two_rows(tmp_path: Path) -> None:
    (tmp_path / "J.csv").write_text("0,1,1\n1,0,2\n")
    text = model('data J on nn from "J.csv"\ninteraction e = sum(<i, j> in nn: J[i, j] * s[i] * s[j])', "chain(2)")
    assert np.array_equal(compiled(text, tmp_path).data[0].values.values, [1, 2])


def test_link_data(tmp_path: Path) -> None:
    (tmp_path / "A.csv").write_text("".join(f"{x},{a},{10 * x + a}\n" for x in range(16) for a in (1, 0)))
    text = model('data A on links from "A.csv"\ninteraction e = sum(x in sites, mu in axes: A[x, mu] * s[x])')
    values = compiled(text, tmp_path).data[0].values.values
    assert np.array_equal(values, [10 * x + a for x in range(16) for a in (0, 1)])


def test_archives(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", a=np.arange(3), b=np.arange(16.0))
    text = model('data h on sites from "d.npz" { array = "b" }\ninteraction e = sum(i in sites: h[i] * s[i])')
    assert np.array_equal(compiled(text, tmp_path).data[0].values.values, np.arange(16.0))
    assert codes(refused(text.replace(' { array = "b" }', ""), tmp_path)) == ["bad-data-file"]


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "h.npy", np.array([print, len], dtype=object), allow_pickle=True)
    error = refused(model('data h on sites from "h.npy"\ninteraction e = sum(i in sites: h[i] * s[i])'), tmp_path)
    assert codes(error) == ["bad-data-file"]
    assert "Python objects" in str(error)


def test_paths_that_lead_out(tmp_path: Path) -> None:
    inner = tmp_path / "models"
    inner.mkdir()
    (tmp_path / "h.csv").write_text("1\n" * 16)
    (inner / "link.csv").symlink_to(tmp_path / "h.csv")
    for path in ("../h.csv", str(tmp_path / "h.csv"), "a/../../h.csv", "link.csv", "..\\\\h.csv", "C:\\\\h.csv"):
        text = model(f'data h on sites from "{path}"\ninteraction e = sum(i in sites: h[i] * s[i])')
        assert codes(refused(text, inner)) == ["path-not-allowed"], path
    text = model('data h on sites from "../h.csv"\ninteraction e = sum(i in sites: h[i] * s[i])')
    program, _ = compile_source(Source("<test>", text), {}, inner, allow_path=True)
    assert program.data[0].values.values.sum() == 16


def test_graphs(tmp_path: Path) -> None:
    (tmp_path / "edges.csv").write_text("i,j\n0,1\n2,1\n3,0\n")
    text = model("interaction e = sum(<i, j> in nn: s[i] * s[j])", 'graph(from "edges.csv")')
    lattice = compiled(text, tmp_path).lattice
    assert lattice.edges == ((0, 1), (2, 1), (3, 0))
    assert lattice.n_sites == 4
    more = text.replace('"edges.csv"', '"edges.csv", 6')
    assert compiled(more, tmp_path).lattice.n_sites == 6
    assert codes(refused(text.replace('"edges.csv"', '"edges.csv", 3'), tmp_path)) == ["bad-graph"]


# The rest


def test_claims_scans_and_settings() -> None:
    p = compiled(
        ISING + "symmetry z2(s), translation\nscan T = linspace(1, 3, 5)\nscan L = [4, 8]\n"
        'guide dense\ntrain { steps = 2 * 16, learning_rate = 1e-3, estimator = "score" }\n'
    )
    assert p.claims == (Claim("z2", ("s",)), Claim("translation"))
    assert p.scans == (Scan("T", (1.0, 1.5, 2.0, 2.5, 3.0)), Scan("L", (4.0, 8.0)))
    assert p.guide == Settings("dense")
    assert p.train == Settings("", (("estimator", "score"), ("learning_rate", 1e-3), ("steps", 32)))


def test_warnings() -> None:
    (found,) = warnings_of(ISING.replace("= 4 in", "= 2 in"))
    assert (found.code, found.severity) == ("bond-multiplicity", "warning")
    assert "2 times" in found.notes[0]
    assert warnings_of(ISING) == ()
    quartic = "interaction v = sum(x in sites: {} * phi[x]^4 + phi[x]^2)"
    assert [w.code for w in warnings_of(model(quartic.format(-1), field="phi : real"))] == ["unbounded-energy"]
    assert warnings_of(model(quartic.format(1), field="phi : real")) == ()
    cubic = "interaction v = sum(x in sites: phi[x]^3)"
    assert [w.code for w in warnings_of(model(cubic, field="phi : real"))] == ["unbounded-energy"]


def test_errors_of_a_phase_come_together_and_in_order() -> None:
    error = refused(model("interaction e = a + sum(i in site: b)\nobservable o = cosine(1)"))
    assert codes(error) == ["unknown-name", "unknown-set", "unknown-name", "unknown-function"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (model("", "cubic(100000, 100000, 100000)"), "too-large"),
        (model("", "hypercubic(10^18, 10^18, 10^18, 10^18)"), "too-large"),
        (model("", "complete(10^9)"), "too-large"),
        (model("data x ~ normal(0, 1) seed 1 { shape = (10^6, 10^6) }"), "too-large"),
        (model("observable o = sum(k in range(10^12): k)"), "too-large"),
        (model("observable o = sum(<i, j> in pairs(sites): s[i])", "square(1000, 1000)"), "too-large"),
        (model("let a = 9**9**9\nobservable o = a"), "overflow"),
        (model("\n".join(f"let a{k} = a{k + 1}" for k in range(3000)) + "\nlet a3000 = a0"), "cycle"),
        (model("\n".join(f"fn f{k}(x) = f{k + 1}(f{k + 1}(x))" for k in range(40)) + "\nfn f40(x) = x + x\n"
               "observable o = f0(s[0])"), "too-large"),
        (model("\n".join(f"fn f{k}(x) = f{k + 1}(x)" for k in range(3000)) + "\nfn f3000(x) = x\n"
               "observable o = f0(s[0])"), "too-deep"),
    ],
)  # fmt: skip
def test_hostile_models_are_answered_at_once(text: str, code: str) -> None:
    started = time.perf_counter()
    error = refused(text)
    assert code in codes(error)
    assert error.exit_code == (4 if code.startswith("too-") else 1)
    assert time.perf_counter() - started < 2


def test_a_long_chain_of_constants() -> None:
    text = model("\n".join(f"let a{k} = a{k + 1} + 1" for k in range(3000)) + "\nlet a3000 = 0\nobservable o = a0")
    assert compiled(text).observables[0].value == Const(3000)


def test_load_and_loads(tmp_path: Path) -> None:
    (tmp_path / "wolff.vfe").write_text(ISING)
    assert load(tmp_path / "wolff.vfe", L=8).program == compiled("model wolff\n" + ISING, L=8)
    assert loads(ISING, L=8).program == compiled(ISING, L=8)
    with pytest.raises(VfeError, match="cannot read") as caught:
        load(tmp_path / "none.vfe")
    assert caught.value.exit_code == 2


def test_checking_does_not_import_jax() -> None:
    script = (
        "import sys, vdsl; from vdsl.errors import Source; from vdsl.compile import compile_source;"
        "compile_source(Source('<test>', sys.stdin.read()));"
        "assert not {'jax', 'distrax', 'rich'} & set(sys.modules), 'heavy imports'"
    )
    subprocess.run([sys.executable, "-c", script], input=ISING, text=True, check=True)


def test_every_code_has_an_explanation_and_a_golden() -> None:
    raised: dict[str, set[str]] = {}
    pattern = r'(?:error|warning|Diagnostic|FoldError|usage)\(\s*(?:code=)?"([a-z]+(?:-[a-z0-9]+)*)"'
    for path in (ROOT / "vdsl").rglob("*.py"):
        for code in re.findall(pattern, path.read_text()):
            raised.setdefault(code, set()).add(path.parent.name)
    assert set(raised) <= set(CODES), set(raised) - set(CODES)
    shown = {
        code
        for path in (Path(__file__).parent / "golden").glob("*.txt")
        for code in re.findall(r"^\w+\[([\w-]+)\]", path.read_text(), re.M)
    }
    of_the_checker = {code for code, places in raised.items() if "frontend" in places}
    assert of_the_checker - shown <= set()
