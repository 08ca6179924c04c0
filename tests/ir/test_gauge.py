"""Gauge theories: plaquettes, trees, energies as sums over plaquettes, and gauge invariance that is inferred."""

from __future__ import annotations

import numpy as np
import pytest

import vdsl
from vdsl.ir.configurations import random_configuration
from vdsl.ir.gauge import (
    ClassFunction,
    fundamental_cycles,
    gauge_group_of,
    holonomies,
    interpreted,
    link_ends,
    maximal_tree,
    plaquette_links,
    single_plaquette,
)
from vdsl.ir.interpret import energy, resolve_parameters
from vdsl.ir.lattice import named_lattice
from vdsl.ir.program import Program
from vdsl.ir.symmetry import infer, verify

LOOP = "U[x, mu] * U[x + mu, nu] * U[x + nu, mu]' * U[x, nu]'"
PERIODIC, OPEN = "periodic", "open"


def program(lattice: str, fields: str, energy: str) -> Program:
    return vdsl.loads(f"lattice {lattice}\n{fields}\ninteraction e = {energy}\ntemperature 1").program


def angles(lattice: str, of_plaquette: str, rest: str = "") -> Program:
    return program(lattice, "field t : angle on links", f"sum(p in plaquettes: {of_plaquette}){rest}")


def matrices(group: str, of_plaquette: str, lattice: str = "hypercubic(3, 2)") -> Program:
    body = of_plaquette.replace("P", LOOP)
    return program(lattice, f"field U : {group} on links", f"sum(x in sites, <mu, nu> in planes: {body})")


def found(p: Program) -> ClassFunction | str:
    return single_plaquette(p, interpreted(p, {}), np.random.default_rng(1))


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lattice", ["hypercubic(3, 4)", "hypercubic(2, 3, 2, boundary = (periodic, open, open))"])
def test_plaquettes_are_those_of_the_language(lattice: str):
    p = program(lattice, "field U : SU(2) on links", f"sum(x in sites, <mu, nu> in planes: re(tr({LOOP})))")
    x = random_configuration(p, np.random.default_rng(0))
    links, orientations = plaquette_links(p.lattice)
    assert len(links) == p.lattice.n_plaquettes
    loops = np.trace(holonomies(x["U"], links, orientations), axis1=1, axis2=2).real
    assert loops.sum() == pytest.approx(energy(p, x, {}), rel=1e-12)


@pytest.mark.parametrize(
    ("shape", "boundary"), [((3, 4), (PERIODIC, PERIODIC)), ((2, 3, 2), (PERIODIC, OPEN, PERIODIC)), ((4,), (OPEN,))]
)
def test_tree_and_its_cycles(shape: tuple[int, ...], boundary: tuple[str, ...]):
    """n − 1 links reach every site; the cycles are closed and independent, one for each link outside the tree."""
    lattice = named_lattice("hypercubic", shape, boundary)
    tree = maximal_tree(lattice)
    assert len(tree.link) == lattice.n_sites - 1
    assert set(tree.site.tolist()) | {tree.root} == set(range(lattice.n_sites))
    start, end = link_ends(lattice)
    reached = {tree.root}
    for site, parent, link, orientation in zip(tree.site, tree.parent, tree.link, tree.orientation, strict=True):
        assert parent in reached
        assert (parent, site) == ((start[link], end[link]) if orientation > 0 else (end[link], start[link]))
        reached.add(int(site))
    cycles = fundamental_cycles(lattice, tree)
    boundary_of = np.zeros((lattice.n_links, lattice.n_sites), int)
    np.add.at(boundary_of, (np.arange(lattice.n_links), end), 1)
    np.add.at(boundary_of, (np.arange(lattice.n_links), start), -1)
    assert (cycles @ boundary_of == 0).all()
    assert (cycles[:, tree.others(lattice)] == np.eye(len(cycles))).all()


def test_groups_of_fields():
    p = program(
        "hypercubic(2, 2)",
        "field a : angle on links\nfield u : U(1) on links\nfield V : SU(3) on links\nfield b : angle",
        "sum(p in plaquettes: cos(circulation(a, p))) + sum(x in sites, <mu, nu> in planes: "
        f"re({LOOP.replace('U', 'u')}) + re(tr({LOOP.replace('U', 'V')}))) + sum(x in sites: cos(b[x]))",
    )
    assert [gauge_group_of(f) for f in p.fields] == ["U1", "U1", "SU3", None]


# --- energies of plaquettes ------------------------------------------------------------------------------------------

C = "circulation(t, p)"
PHI = 2 * np.pi * np.arange(1024) / 1024


@pytest.mark.parametrize(
    ("lattice", "body", "f"),
    [
        ("hypercubic(2, 2)", f"-2 * cos({C})", -2 * np.cos(PHI)),
        ("hypercubic(2, 3)", f"cos({C} - 0.4) + 0.3 * sin(2 * {C})", np.cos(PHI - 0.4) + 0.3 * np.sin(2 * PHI)),
        ("hypercubic(3, 2)", f"wrap({C})^2", (np.pi - (np.pi - PHI) % (2 * np.pi)) ** 2),
        ("square(3, 2, boundary = (open, periodic))", f"exp(sin({C}))", np.exp(np.sin(PHI))),
        ("hypercubic(2, 3, boundary = open)", f"cos({C})^3", np.cos(PHI) ** 3),
        ("hypercubic(1, 3)", f"-cos({C})", -np.cos(PHI)),
    ],
)
def test_energies_of_angles_are_read_off(lattice: str, body: str, f: np.ndarray):
    found_f = found(angles(lattice, body))
    assert isinstance(found_f, ClassFunction)
    # On a torus Σ sin P has no meaning beyond the odd part's, but cos and sin of the flux itself do.
    np.testing.assert_allclose(found_f.values, f, atol=1e-11)


def test_a_constant_is_part_of_it():
    p = angles("hypercubic(2, 2)", f"cos({C})", " + 2")
    np.testing.assert_allclose(found(p).values, np.cos(PHI) + 0.5, atol=1e-12)


def test_mixed_fundamental_and_adjoint_action():
    """Of SU(2): f(α) = −1.1·2cos α + 0.3·(2cos α)²."""
    f = found(matrices("SU(2)", "-1.1 * re(tr(P)) + 0.3 * abs(tr(P))^2"))
    alpha = 2 * np.pi * np.arange(256) / 256
    np.testing.assert_allclose(f.values, -2.2 * np.cos(alpha) + 1.2 * np.cos(alpha) ** 2, atol=1e-11)
    np.testing.assert_allclose(f.refined(1024)[::4], f.values, atol=1e-12)
    np.testing.assert_allclose(f(np.array([[0.3], [2.0]])), [-2.2 * np.cos(a) + 1.2 * np.cos(a) ** 2 for a in (0.3, 2)])


def test_wilson_action_of_su3():
    f = found(matrices("SU(3)", "-re(tr(P))", "hypercubic(2, 2)"))
    a = np.array([0.7, -1.9])
    assert f(a) == pytest.approx(-np.cos(0.7) - np.cos(1.9) - np.cos(1.2))
    assert f.refined(96)[12, 90] == pytest.approx(-np.cos(np.pi / 4) - np.cos(-np.pi / 8) - np.cos(np.pi / 8))


@pytest.mark.parametrize(
    ("p", "why"),
    [
        (angles("hypercubic(2, 2, 2)", f"cos({C})"), "two-dimensional"),
        (angles("hypercubic(2, 2)", f"cos({C})", " + 0.1 * sum(<x, mu> in links: cos(t[x, mu]))"), "not a sum"),
        (angles("hypercubic(2, 2)", f"cos({C})", " + sum(p in plaquettes: cos(circulation(t, p)))^2"), "not a sum"),
        (matrices("SU(3)", "im(tr(P))", "hypercubic(2, 2)"), "not a sum"),
        (angles("hypercubic(3, 3, boundary = antiperiodic)", f"cos({C})"), "antiperiodic"),
        (
            program(
                "hypercubic(3, 3)",
                "field t : angle on links\nfield s : angle",
                f"sum(p in plaquettes: cos({C})) + sum(i in sites: cos(s[i]))",
            ),
            "other fields",
        ),
    ],
)
def test_other_energies_are_refused(p: Program, why: str):
    answer = found(p)
    assert isinstance(answer, str)
    assert why in answer


# --- gauge invariance ------------------------------------------------------------------------------------------------

PLAQUETTES = "-sum(p in plaquettes: cos(circulation(t, p)))"


@pytest.mark.parametrize(
    ("fields", "terms", "expected"),
    [
        ("", PLAQUETTES, {"t": 1}),
        ("", PLAQUETTES + " - 0.1 * sum(<x, mu> in links: cos(t[x, mu]))", None),
        (
            "field s : angle\n",
            PLAQUETTES + " - sum(x in sites, mu in axes: cos(s[x] + 2 * t[x, mu] - s[x + mu]))",
            {"t": 1, "s": -2},
        ),
        ("field s : angle\n", PLAQUETTES + " - sum(i in sites: cos(s[i]))", {"t": 1}),
        (
            "field z : complex\n",
            PLAQUETTES + " + sum(i in sites: abs(z[i])^2) - sum(x in sites, mu in axes: "
            "cos(t[x, mu]) * re(conj(z[x]) * z[x + mu]) - sin(t[x, mu]) * im(conj(z[x]) * z[x + mu]))",
            {"t": 1, "z": 1},
        ),
    ],
)
def test_gauge_invariance_is_inferred(fields: str, terms: str, expected: dict[str, int] | None):
    p = program("hypercubic(4, 4, 4)", f"field t : angle on links\n{fields}", terms)
    gauge = [s for s in infer(p, {}) if s.kind == "gauge"]
    assert [dict(zip(s.fields, s.weights, strict=True)) for s in gauge] == ([] if expected is None else [expected])
    assert not verify(p, {}, np.random.default_rng(2), trials=1, symmetries=gauge)


def test_gauge_invariance_of_matrices_in_four_dimensions():
    p = matrices("SU(2)", "-re(tr(P))", "hypercubic(4, 4, 4, 4)")
    assert [s.fields for s in infer(p, {}) if s.kind == "gauge"] == [("U",)]
    assert not [s for s in infer(p) if s.kind == "gauge"]  # nothing can be evaluated without parameters


def test_couplings_at_links_do_not_matter():
    """Disordered plaquettes are gauge invariant; the lattice is looked at as it is."""
    source = "lattice square(3, 3)\nfield t : angle on links\ndata b on sites ~ normal(1, 0.2) seed 1\n"
    source += "interaction e = -sum(x in sites, <mu, nu> in planes: b[x] * "
    source += "cos(t[x, mu] + t[x + mu, nu] - t[x + nu, mu] - t[x, nu]))\ntemperature 1"
    p = vdsl.loads(source).program
    assert [s.fields for s in infer(p, resolve_parameters(p)) if s.kind == "gauge"] == [("t",)]
