"""Symmetries: what is inferred from the terms, what is not, and claims against random configurations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from programs import sources
from vdsl.compile import compile_source
from vdsl.errors import Source, VfeError
from vdsl.ir.expr import Binary, Const, Ref
from vdsl.ir.interpret import energy_terms, random_configuration, resolve_parameters
from vdsl.ir.program import Claim, Observable, Program, Term
from vdsl.ir.symmetry import (
    Symmetry,
    act,
    claimed,
    infer,
    permutation_fields,
    random_element,
    shift_fields,
    spin_flip_generators,
    verify,
    verify_claims,
)


def compiled(text: str) -> Program:
    return compile_source(Source("<test>", text + "\ntemperature 1\n"))[0]


def found(text: str) -> set[str]:
    """The inferred symmetries, spelt briefly; each is checked on random configurations first."""
    program = compiled(text)
    symmetries = infer(program)
    theta = resolve_parameters(program, {})
    assert verify(program, theta, np.random.default_rng(0), symmetries=symmetries) == []
    return {brief(s) for s in symmetries}


def brief(s: Symmetry) -> str:
    parts = s.axes if s.kind == "translation" else s.fields
    weights = f" {s.weights}" if any(w != 1 for w in s.weights) else ""
    return f"{s.kind} {s.group} {','.join(map(str, parts))}{weights}".replace("  ", " ")


SQUARE = "lattice square(3, 4)\n"

CASES = {
    "ising": (
        "field s : spin\ninteraction e = -sum(<i, j> in nn: s[i] * s[j])",
        {"z2 Z2 s", "translation 0,1"},
    ),
    "ising in a field": (
        "param h = 0.1\nfield s : spin\ninteraction e = -sum(<i, j> in nn: s[i] * s[j])\n"
        "interaction z = -h * sum(i in sites: s[i])",
        {"translation 0,1"},
    ),
    "ising in a random field": (
        "data h on sites ~ normal(0, 1) seed 1\nfield s : spin\ninteraction z = -sum(i in sites: h[i] * s[i]^2)",
        {"z2 Z2 s"},
    ),
    "three-spin interaction": (
        "field s : spin\ninteraction e = -sum(i in sites: s[i] * s[i + (1, 0)] * s[i + (0, 1)])",
        {"translation 0,1"},
    ),
    "ashkin-teller": (
        "field s : spin\nfield t : spin\n"
        "interaction e = -sum(<i, j> in nn: s[i]*s[j] + t[i]*t[j] + 0.5*s[i]*s[j]*t[i]*t[j])",
        {"z2 Z2 s", "z2 Z2 t", "translation 0,1"},
    ),
    "only joint flips": (
        "field s : spin\nfield t : spin\nfield u : spin\n"
        "interaction e = -sum(i in sites: s[i]*t[i]) + sum(<i, j> in nn: u[i] * t[j])",
        {"z2 Z2 s,t,u", "translation 0,1"},
    ),
    "flips of pairs": (
        "field s : spin\nfield t : spin\nfield u : spin\ninteraction e = -sum(i in sites: s[i]*t[i]*u[i])",
        {"z2 Z2 s,t", "z2 Z2 s,u", "translation 0,1"},
    ),
    "even functions": (
        "field phi : real\ninteraction e = sum(i in sites: phi[i]^4 - 2*phi[i]^2 + abs(phi[i]) + logcosh(phi[i]))"
        " + sum(<i, j> in nn: phi[i] * sin(phi[j]) + (phi[i] - phi[j])^2)",
        {"z2 Z2 phi", "translation 0,1"},
    ),
    "not even": (
        "field phi : real\ninteraction e = sum(i in sites: phi[i]^4 + phi[i]^3)",
        {"translation 0,1"},
    ),
    "comparison of spins": (
        "field s : spin\ninteraction e = -sum(<i, j> in nn: delta(s[i], s[j])) + sum(<i, j> in nnn: "
        "if s[i] != s[j] then 2 else 3)",
        {"z2 Z2 s", "translation 0,1"},
    ),
    "comparison with a number": (
        "field s : spin\ninteraction e = sum(<i, j> in nn: if s[i] > 0 then s[j] else 0)",
        {"translation 0,1"},
    ),
    "magnetisation squared": (
        "field s : spin\ninteraction e = -sum(i in sites: s[i])^2 / 12",
        {"z2 Z2 s", "translation 0,1"},
    ),
    "potts": (
        "field s : potts(3)\ninteraction e = -sum(<i, j> in nn: delta(s[i], s[j]))\n"
        "interaction f = sum(<i, j> in nnn: if s[i] != s[j] then 0.5 else 0)",
        {"permutation S3 s", "translation 0,1"},
    ),
    "potts with a colour": (
        "field s : potts(3)\ninteraction e = -sum(<i, j> in nn: delta(s[i], s[j])) - sum(i in sites: delta(s[i], 0))",
        {"translation 0,1"},
    ),
    "potts with numbers": (
        "field s : potts(3)\ninteraction e = -sum(<i, j> in nn: delta(s[i], s[j]) + s[i] * s[j])",
        {"translation 0,1"},
    ),
    "two potts fields": (
        "field s : potts(3)\nfield t : potts(3)\nfield u : potts(3)\n"
        "interaction e = -sum(<i, j> in nn: delta(s[i], t[j]) + delta(u[i], u[j]))",
        {"permutation S3 s,t", "permutation S3 u", "translation 0,1"},
    ),
    "clock": (
        "field s : clock(6)\ninteraction e = -sum(<i, j> in nn: cos(s[i] - s[j]))",
        {"shift Z6 s", "translation 0,1"},
    ),
    "clock in an anisotropy": (
        "field s : clock(6)\ninteraction e = -sum(<i, j> in nn: cos(s[i] - s[j])) - sum(i in sites: cos(3*s[i]))",
        {"shift Z3 s", "translation 0,1"},
    ),
    "xy": (
        "field a : angle\ninteraction e = -sum(<i, j> in nn: cos(a[i] - a[j]) + 0.2 * wrap(2*a[i] - 2*a[j])^2)",
        {"shift U(1) a", "translation 0,1"},
    ),
    "xy in an anisotropy": (
        "field a : angle\ninteraction e = -sum(<i, j> in nn: cos(a[i] - a[j])) - sum(i in sites: cos(4*a[i]))",
        {"shift Z4 a", "translation 0,1"},
    ),
    "angles outside periodic functions": (
        "field a : angle\ninteraction e = sum(<i, j> in nn: (a[i] - a[j])^2)",
        {"translation 0,1"},
    ),
    "half angles": (
        "field a : angle\ninteraction e = sum(<i, j> in nn: cos((a[i] - a[j]) / 2))",
        {"translation 0,1"},
    ),
    "coupled angles": (
        "field a : angle\nfield b : angle\n"
        "interaction e = -sum(<i, j> in nn: cos(a[i] - a[j]) + cos(b[i] - b[j])) - sum(i in sites: cos(2*a[i] - b[i]))",
        {"shift Z2 a", "shift U(1) a,b (1, 2)", "translation 0,1"},
    ),
    "complex": (
        "field psi : complex\ninteraction e = sum(i in sites: abs(psi[i])^4)"
        " - sum(<i, j> in nn: re(conj(psi[i])*psi[j]))",
        {"shift U(1) psi", "translation 0,1"},
    ),
    "complex without a phase": (
        "field psi : complex\ninteraction e = sum(i in sites: abs(psi[i])^4 + re(psi[i]^2))",
        {"shift Z2 psi", "translation 0,1"},
    ),
    "heisenberg": (
        "field S : sphere(3)\ninteraction e = -sum(<i, j> in nn: dot(S[i], S[j]))"
        " + sum(<i, j> in nnn: norm(S[i]-S[j]))",
        {"z2 Z2 S", "rotation O(3) S", "translation 0,1"},
    ),
    "scalar chirality": (
        "field S : sphere(3)\ninteraction e = sum(i in sites: dot(S[i], cross(S[i + (1, 0)], S[i + (0, 1)])))",
        {"rotation SO(3) S", "translation 0,1"},
    ),
    "kitaev": (
        "field S : sphere(3)\ninteraction e = -sum(<i, j> in nn: S[i, 0] * S[j, 0])",
        {"z2 Z2 S", "translation 0,1"},
    ),
    "two coupled vectors": (
        "field S : sphere(3)\nfield v : real[3]\ninteraction e = sum(i in sites: dot(S[i], v[i]) + dot(v[i], v[i])^2)",
        {"z2 Z2 S,v", "rotation O(3) S,v", "translation 0,1"},
    ),
    "a site is named": (
        "field s : spin\ninteraction e = -sum(i in sites where i != 0: s[i] * s[i + (1, 0)])",
        {"z2 Z2 s"},
    ),
    "u1 gauge": (
        "field a : angle on links\ninteraction e = -sum(p in plaquettes: cos(circulation(a, p)))",
        {"shift U(1) a", "translation 0,1"},
    ),
    "occupation": (
        "field n : occupation\ninteraction e = -sum(<i, j> in nn: n[i] * n[j])",
        {"translation 0,1"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_inferred(name):
    text, expected = CASES[name]
    assert found(SQUARE + text) == expected


ISING = "field s : spin\ninteraction e = -sum(<i, j> in nn: s[i] * s[j])"


@pytest.mark.parametrize(
    ("lattice", "axes"),
    [
        ("square(3, 4, boundary = (periodic, open))", (0,)),
        ("square(3, 4, boundary = open)", None),
        ("square(3, 4, boundary = (antiperiodic, periodic))", (1,)),
        ("square(1, 4)", (1,)),
        ("complete(5)", None),
        ("kagome(2, 2)", (0, 1)),
    ],
)
def test_translations_follow_the_boundaries(lattice, axes):
    symmetries = {s.kind: s for s in infer(compiled(f"lattice {lattice}\n{ISING}"))}
    assert (symmetries["translation"].axes if "translation" in symmetries else None) == axes
    assert symmetries["z2"].fields == ("s",)


def test_data_on_bonds_breaks_translations_only():
    assert found(
        SQUARE + "data J on nn ~ normal(0, 1) seed 3\nfield s : spin\n"
        "interaction e = -sum(<i, j> in nn: J[i, j] * s[i] * s[j])"
    ) == {"z2 Z2 s"}


def test_angles_are_not_shifted_across_an_antiperiodic_boundary():
    xy = "field a : angle\ninteraction e = -sum(<i, j> in nn: cos(a[i] - a[j]))"
    assert found(f"lattice chain(4, boundary = antiperiodic)\n{xy}") == set()


def test_a_field_of_zero_does_not_break_the_flip_at_those_parameters():
    program = compiled(
        SQUARE + "param h = 0.0\nparam k = 2*h\n" + ISING + "\n"
        "interaction z = -h * sum(i in sites: s[i]) + k / 2 * sum(i in sites: s[i])"
    )
    assert spin_flip_generators(program) == ()
    assert spin_flip_generators(program, {"h": 0.0, "k": 0.0}) == (("s",),)
    assert spin_flip_generators(program, {"h": 0.0, "k": 0.1}) == ()


def test_helpers_for_guides():
    text, _ = CASES["flips of pairs"]
    assert spin_flip_generators(compiled(SQUARE + text)) == (("s", "t"), ("s", "u"))
    assert permutation_fields(compiled(SQUARE + CASES["two potts fields"][0])) == (("s", "t"), ("u",))
    assert shift_fields(compiled(SQUARE + CASES["clock"][0])) == ("s",)
    assert shift_fields(compiled(SQUARE + CASES["clock in an anisotropy"][0])) == ()


def test_terms_that_use_definitions_and_observables():
    program = compiled(
        SQUARE + "param g = 0.5\nlet k = g - 0.5\n" + ISING + "\ninteraction z = -k * sum(i in sites: s[i])"
    )
    assert spin_flip_generators(program) == ()
    assert spin_flip_generators(program, {"g": 0.5}) == (("s",),)
    m = Observable("m", program.terms[1].value)
    cubed = Term("z", Binary("^", Ref("m"), Const(3)))
    assert spin_flip_generators(replace(program, observables=(m,), terms=(cubed,))) == ()
    squared = Term("z", Binary("^", Ref("m"), Const(2)))
    assert spin_flip_generators(replace(program, observables=(m,), terms=(squared,))) == (("s",),)


# Claims


def violations(text: str, **overrides) -> list:
    """The violated claims; they stand on the last line of the text, as a file or a program would have them."""
    text, claims = text.rsplit("\nsymmetry ", 1)
    program = claiming(text, *(Claim(*_parsed(c)) for c in claims.strip().split("; ")))
    return verify(program, resolve_parameters(program, overrides), np.random.default_rng(1))


def claiming(text: str, *claims: Claim) -> Program:
    return replace(compiled(text), claims=claims)


def _parsed(claim: str) -> tuple[str, tuple[str, ...]]:
    kind, _, fields = claim.partition("(")
    return kind, tuple(fields.rstrip(")").split(", ")) if fields else ()


WILSON_U1 = (
    "lattice hypercubic(2, 3)\nfield a : angle on links\ninteraction e = -sum(p in plaquettes: cos(circulation(a, p)))"
)
WILSON = """lattice hypercubic(2, 3)
field U : {group} on links
interaction e = -sum(x in sites, <mu, nu> in planes: re(tr(U[x, mu] * U[x + mu, nu] * U[x + nu, mu]' * U[x, nu]')))
"""


@pytest.mark.parametrize(
    "text",
    [
        SQUARE + ISING + "\nsymmetry z2(s); translation; permutation(s)",
        SQUARE + CASES["potts"][0] + "\nsymmetry permutation(s); shift(s); translation",
        SQUARE + CASES["clock"][0] + "\nsymmetry shift(s); z2(s)",
        SQUARE + CASES["xy"][0] + "\nsymmetry shift(a); rotation(a)",
        SQUARE + CASES["complex"][0] + "\nsymmetry shift(psi); rotation(psi)",
        SQUARE + CASES["heisenberg"][0] + "\nsymmetry rotation(S); z2(S)",
        SQUARE + CASES["scalar chirality"][0] + "\nsymmetry rotation(S)",
        WILSON_U1 + "\nsymmetry gauge(a); z2(a); translation",
        WILSON.format(group="SU(2)") + "symmetry gauge(U); translation",
        WILSON.format(group="SU(3)") + "symmetry gauge(U)",
        "lattice hypercubic(2, 3, boundary = (antiperiodic, open))\n"
        + WILSON_U1.split("\n", 1)[1]
        + "\nsymmetry gauge(a)",
        # matter of either convention, found or named
        WILSON_U1 + "\nfield b : angle\ninteraction h = -sum(x in sites, mu in axes: cos(b[x + mu] - b[x] - a[x, mu]))"
        "\nsymmetry gauge(a)",
        WILSON_U1 + "\nfield b : complex\n"
        "interaction h = -sum(x in sites, mu in axes: re(conj(b[x]) * b[x + mu]) * cos(a[x, mu])"
        " - im(conj(b[x]) * b[x + mu]) * sin(a[x, mu]))\nsymmetry gauge(a, b)",
        "lattice square(3, 3)\nfield u : spin on links\nfield t : spin\ninteraction e = -sum(x in sites, "
        "<mu, nu> in planes: u[x, mu] * u[x + mu, nu] * u[x + nu, mu] * u[x, nu])\n"
        "interaction h = -sum(x in sites, mu in axes: t[x] * u[x, mu] * t[x + mu])\nsymmetry gauge(u)",
    ],
)
def test_true_claims(text):
    assert violations(text) == []


@pytest.mark.parametrize(
    ("text", "kind", "term"),
    [
        (SQUARE + CASES["ising in a field"][0] + "\nsymmetry z2(s)", "z2", "z"),
        (SQUARE + CASES["potts with a colour"][0] + "\nsymmetry permutation(s)", "permutation", "e"),
        (SQUARE + CASES["clock in an anisotropy"][0] + "\nsymmetry shift(s)", "shift", "e"),
        (SQUARE + CASES["kitaev"][0] + "\nsymmetry rotation(S)", "rotation", "e"),
        (SQUARE + CASES["a site is named"][0] + "\nsymmetry translation", "translation", "e"),
        (SQUARE + CASES["ising in a random field"][0].replace("^2", "") + "\nsymmetry translation", "translation", "z"),
        ("lattice square(3, 4, boundary = (periodic, open))\n" + ISING + "\nsymmetry translation", "translation", "e"),
        (
            WILSON_U1 + "\ninteraction mass = sum(x in sites, mu in axes: cos(a[x, mu]))\nsymmetry gauge(a)",
            "gauge",
            "mass",
        ),
        (
            WILSON.format(group="SU(2)").replace("U[x + nu, mu]'", "U[x + nu, mu]") + "symmetry gauge(U)",
            "gauge",
            "e",
        ),
    ],
)
def test_false_claims(text, kind, term):
    (violation,) = violations(text)
    assert (violation.symmetry.kind, violation.term) == (kind, term)
    assert violation.before != violation.after


def test_a_violation_is_an_error_with_both_energies():
    program = claiming(SQUARE + CASES["ising in a field"][0], Claim("z2", ("s",)), Claim("translation"))
    theta = resolve_parameters(program, {"h": 0.5})
    with pytest.raises(VfeError) as caught:
        verify_claims(program, theta, np.random.default_rng(0))
    (violation,) = verify(program, theta, np.random.default_rng(0))
    assert violation.after == -violation.before
    assert caught.value.exit_code == 1
    assert [d.code for d in caught.value.diagnostics] == ["symmetry-violated"]
    for words in ("`z2` does not hold", "changes `z`", f"{violation.before:.12g}", f"{violation.after:.12g}"):
        assert words in str(caught.value)
    verify_claims(program, resolve_parameters(program, {"h": 0}), np.random.default_rng(0))


def test_claims_are_checked_when_a_model_is_compiled():
    text = SQUARE + "param h = 0.5\n" + ISING + "\ninteraction z = -h * sum(i in sites: s[i])\nsymmetry z2(s)"
    with pytest.raises(VfeError) as caught:
        compiled(text)
    assert [d.code for d in caught.value.diagnostics] == ["symmetry-violated"]
    assert caught.value.exit_code == 1
    assert compiled(text.replace("h = 0.5", "h = 0.0")).claims == (Claim("z2", ("s",)),)
    large = text.replace("square(3, 4)", "square(300, 300)") + "\ntemperature 1"
    assert "symmetry-unchecked" in {d.code for d in compile_source(Source("<test>", large))[1]}


def test_a_fast_energy_may_be_given():
    program = compiled(SQUARE + ISING + "\nsymmetry z2(s)")
    seen = []

    def fast(x):
        seen.append(x)
        return {"e": float(np.sum(x["s"]))}

    (violation,) = verify(program, {}, np.random.default_rng(0), trials=2, energy_terms=fast)
    assert violation.after == -violation.before
    assert len(seen) == 4


def test_claims_name_what_they_can_act_on():
    program = compiled("lattice complete(4)\n" + ISING)
    for claim in (Claim("translation"), Claim("gauge"), Claim("rotation", ("s",)), Claim("rotation")):
        with pytest.raises(VfeError) as caught:
            claimed(replace(program, claims=(claim,)))
        assert caught.value.diagnostics[0].code == "wrong-symmetry"
    assert claimed(replace(program, claims=(Claim("z2"),)))[0].fields == ("s",)


TWO = (
    "lattice hypercubic(3, 3)\nfield a : {a}\nfield b : {b}\ninteraction e = sum(i in sites: {body})\nsymmetry {claim}"
)


@pytest.mark.parametrize(
    ("a", "b", "body", "claim"),
    [
        ("potts(3)", "clock(4)", "a[i] * b[i]", "permutation(a, b)"),
        ("clock(2)", "clock(3)", "a[i] * b[i]", "shift"),
        ("sphere(3)", "real[2]", "a[i, 0] * b[i, 0]", "rotation"),
        ("sphere(2)", "angle", "a[i, 0] * b[i]", "rotation(a, b)"),
        ("SU(2) on links", "complex", "re(tr(a[i, 0]) * b[i])", "gauge(a, b)"),
        ("angle on links", "spin", "a[i, 0] * b[i]", "gauge(a, b)"),
        ("angle on links", "spin on links", "a[i, 0] * b[i, 0]", "gauge"),
        ("angle", "complex", "a[i] * re(b[i])", "gauge"),
    ],
)
def test_fields_that_no_group_moves_together(a, b, body, claim):
    text = TWO.format(a=a, b=b, body=body, claim=claim)
    with pytest.raises(VfeError) as caught:
        compiled(text)
    (found,) = caught.value.diagnostics
    assert found.code == "wrong-symmetry"
    assert found.span is not None
    assert found.span.source.text[found.span.start : found.span.end] == claim


@pytest.mark.parametrize(
    ("a", "b", "body", "claim", "fields"),
    [
        ("SU(2) on links", "complex", "re(tr(a[i, 0] * a[i, 0]')) + abs(b[i])^2", "gauge", ("a",)),
        ("angle", "angle on links", "cos(a[i] + b[i, 0] - a[i + (1, 0)])", "gauge(b)", ("b", "a")),
        ("complex", "U(1) on links", "re(a[i]' * b[i, 0] * a[i + (1, 0)])", "gauge(a, b)", ("b", "a")),
        ("clock(4)", "clock(4) on links", "cos(a[i] + b[i, 0] - a[i + (1, 0)])", "gauge", ("b", "a")),
        ("spin", "spin on links", "a[i] * b[i, 0] * a[i + (1, 0)]", "gauge", ("b", "a")),
        ("clock(4)", "angle", "cos(a[i] - b[i])", "shift", ("a", "b")),
        ("potts(3)", "potts(3)", "delta(a[i], b[i])", "permutation", ("a", "b")),
        ("sphere(3)", "real[3]", "dot(a[i], b[i])", "rotation", ("a", "b")),
    ],
)
def test_claims_of_several_fields(a, b, body, claim, fields):
    program = compiled(TWO.format(a=a, b=b, body=body, claim=claim))
    assert claimed(program)[0].fields == fields


def test_a_violated_claim_is_pointed_at():
    text = SQUARE + ISING + "\ninteraction z = sum(i in sites: s[i])\nsymmetry translation, z2(s), permutation\n"
    with pytest.raises(VfeError) as caught:
        compiled(text)
    spans = [d.span for d in caught.value.diagnostics]
    assert [s.source.text[s.start : s.end] for s in spans] == ["z2(s)", "permutation"]


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(sources())
def test_what_is_inferred_holds_in_random_models(text):
    try:
        program, _ = compile_source(Source("<random>", text))
    except VfeError as error:
        assume({d.code for d in error.diagnostics} != {"empty-set"})
        raise
    theta = resolve_parameters(program)
    for symmetries in (infer(program), infer(program, theta)):
        assert verify(program, theta, np.random.default_rng(0), trials=2, symmetries=symmetries) == []


def test_elements_form_the_group():
    """A flip twice, a permutation and its inverse, q shifts by one: the identity; and no element leaves the support."""
    rng = np.random.default_rng(2)
    clock = compiled(SQUARE + CASES["clock"][0])
    x = random_configuration(clock, rng)
    shift = next(s for s in infer(clock) if s.kind == "shift")
    y = x
    for _ in range(6):
        y = act(shift, 1, y, clock)
        assert y["s"].dtype == x["s"].dtype
        assert set(np.unique(y["s"])) <= set(range(6))
    np.testing.assert_array_equal(y["s"], x["s"])
    np.testing.assert_array_equal(act(shift, 2, x, clock)["s"], (x["s"] + 2) % 6)
    potts = compiled(SQUARE + CASES["potts"][0])
    x = random_configuration(potts, rng)
    permutation = next(s for s in infer(potts) if s.kind == "permutation")
    g = random_element(permutation, potts, rng)
    np.testing.assert_array_equal(act(permutation, np.argsort(g), act(permutation, g, x, potts), potts)["s"], x["s"])
    translation = next(s for s in infer(potts) if s.kind == "translation")
    moved = act(translation, (1, 2), x, potts)["s"].reshape(3, 4)
    np.testing.assert_array_equal(moved, np.roll(x["s"].reshape(3, 4), (1, 2), (0, 1)))


def test_a_gauge_transformation_is_not_the_identity_and_keeps_the_group():
    program = compiled(WILSON.format(group="SU(3)") + "symmetry gauge(U)")
    rng = np.random.default_rng(0)
    x = random_configuration(program, rng)
    (gauge,) = claimed(program)
    y = act(gauge, random_element(gauge, program, rng), x, program)["U"]
    assert np.abs(y - x["U"]).max() > 0.5
    np.testing.assert_allclose(y @ y.conj().swapaxes(1, 2), np.broadcast_to(np.eye(3), y.shape), atol=1e-12)
    assert energy_terms(program, {"U": y}, {}) == pytest.approx(energy_terms(program, x, {}))
