"""Lattices against brute force: distances in a large open patch, tori counted by hand, numbering and signs."""

from __future__ import annotations

import itertools
from collections import Counter
from math import sqrt

import numpy as np
import pytest

from vdsl.ir.lattice import (
    DIMENSIONS,
    BondClass,
    Lattice,
    complete_graph,
    graph_lattice,
    named_lattice,
)

KINDS = [*DIMENSIONS, "hypercubic"]
# Neighbours of a site in the first shells.
COORDINATION = {
    "chain": (2, 2, 2),
    "square": (4, 4, 4, 8),
    "triangular": (6, 6, 6, 12),
    "honeycomb": (3, 6, 3, 6),
    "kagome": (4, 4, 6, 8),
    "cubic": (6, 12, 8, 6),
    "bcc": (8, 6, 12, 24),
    "fcc": (12, 6, 24, 12),
    "hypercubic": (8, 24, 32),
}
DISTANCES = {
    "chain": (1, 2, 3),
    "square": (1, sqrt(2), 2, sqrt(5)),
    "triangular": (1, sqrt(3), 2, sqrt(7)),
    "honeycomb": (1 / sqrt(3), 1, 2 / sqrt(3), sqrt(7 / 3)),
    "kagome": (0.5, sqrt(3) / 2, 1, sqrt(7) / 2),
    "cubic": (1, sqrt(2), sqrt(3), 2),
    "bcc": (sqrt(3) / 2, 1, sqrt(2), sqrt(11) / 2),
    "fcc": (sqrt(1 / 2), 1, sqrt(3 / 2), sqrt(2)),
    "hypercubic": (1, sqrt(2), sqrt(3)),
}
SHELLS = [(kind, k) for kind in KINDS for k in range(1, len(DISTANCES[kind]) + 1)]


def dimension(kind: str) -> int:
    return DIMENSIONS.get(kind, 4)


def lattice(kind: str, length: int, boundary: str = "periodic") -> Lattice:
    d = dimension(kind)
    return named_lattice(kind, (length,) * d, (boundary,) * d)


def centre(kind: str, length: int) -> int:
    """The number of the cell in the middle of a patch."""
    return int(np.ravel_multi_index((length // 2,) * dimension(kind), (length,) * dimension(kind)))


@pytest.mark.parametrize(("kind", "k"), SHELLS)
def test_shells_against_distances_in_an_open_patch(kind, k):
    """Every site of the middle cell is bonded to exactly the sites at the shell's distance."""
    patch = lattice(kind, 5 if dimension(kind) == 4 else 9, "open")
    positions, bonds = patch.positions(), patch.bonds(f"shell({k})")
    cell = centre(kind, patch.shape[0])
    for b in range(patch.n_basis):
        site = cell * patch.n_basis + b
        distance = np.linalg.norm(positions - positions[site], axis=1)
        expected = np.flatnonzero(abs(distance - DISTANCES[kind][k - 1]) < 1e-9)
        bonded = sorted([*bonds.j[bonds.i == site], *bonds.i[bonds.j == site]])
        assert bonded == expected.tolist()
        assert len(bonded) == COORDINATION[kind][k - 1]
        # No distance in between was left out.
        levels = np.unique(np.round(distance, 9))
        assert levels[k] == pytest.approx(DISTANCES[kind][k - 1])


@pytest.mark.parametrize(("kind", "k"), [(kind, k) for kind, k in SHELLS if dimension(kind) < 4])
def test_each_undirected_bond_of_a_large_torus_once(kind, k):
    torus = lattice(kind, 7)
    bonds = torus.bonds(f"shell({k})")
    pairs = [frozenset(p) for p in zip(bonds.i.tolist(), bonds.j.tolist(), strict=True)]
    assert len(set(pairs)) == len(pairs) == torus.n_sites * COORDINATION[kind][k - 1] // 2
    assert all(len(p) == 2 for p in pairs)
    degree = np.bincount(np.concatenate([bonds.i, bonds.j]), minlength=torus.n_sites)
    assert set(degree) == {COORDINATION[kind][k - 1]}
    assert set(bonds.sign) == {1}
    assert torus.multiplicities(f"shell({k})") == {}


@pytest.mark.parametrize("kind", KINDS)
def test_names(kind):
    small = lattice(kind, 3)
    assert small.bond_classes("nn") == small.bond_classes("shell(1)")
    assert small.bond_classes("nnn") == small.bond_classes("shell(2)")
    assert small.bond_set_names() == ("nn", "nnn")
    with pytest.raises(KeyError):
        small.bond_classes("nnb")


def test_bond_order_is_cell_by_cell_class_by_class():
    """The order of data files and of random data: in J[x, y, a] of shape (Lx, Ly, 2), a = 0 couples (x, y)–(x+1, y)."""
    torus = named_lattice("square", (3, 4), ("periodic", "periodic"))
    expected = []
    for x, y in itertools.product(range(3), range(4)):
        expected += [(x * 4 + y, (x + 1) % 3 * 4 + y), (x * 4 + y, x * 4 + (y + 1) % 4)]
    bonds = torus.bonds("nn")
    assert list(zip(bonds.i.tolist(), bonds.j.tolist(), strict=True)) == expected
    assert bonds.cell.tolist() == [n // 2 for n in range(24)]
    assert bonds.cls.tolist() == [0, 1] * 12


def test_open_bonds_keep_the_order_and_leave_out_the_crossing_ones():
    """The 10 × 10 open Edwards–Anderson instance: 180 bonds, J[x, y, a] without x = 9, a = 0 and y = 9, a = 1."""
    bonds = named_lattice("square", (10, 10), ("open", "open")).bonds("nn")
    expected = []
    for x, y in itertools.product(range(10), range(10)):
        if x < 9:
            expected.append((x * 10 + y, (x + 1) * 10 + y))
        if y < 9:
            expected.append((x * 10 + y, x * 10 + y + 1))
    assert len(bonds) == 180
    assert list(zip(bonds.i.tolist(), bonds.j.tolist(), strict=True)) == expected


def test_sites_are_numbered_by_cell_then_place():
    kagome = named_lattice("kagome", (3, 4), ("periodic", "open"))
    positions = kagome.positions()
    a1, a2 = np.array([1, 0]), np.array([0.5, sqrt(3) / 2])
    for x, y, b in itertools.product(range(3), range(4), range(3)):
        expected = x * a1 + y * a2 + np.array([(0, 0), (0.5, 0), (0.25, sqrt(3) / 4)][b])
        np.testing.assert_allclose(positions[(x * 4 + y) * 3 + b], expected, atol=1e-12)


def test_moves_on_every_boundary():
    mixed = named_lattice("cubic", (3, 4, 5), ("periodic", "open", "antiperiodic"))
    sites = np.arange(mixed.n_sites)
    for displacement in [(1, 0, 0), (0, 1, 0), (0, -2, 0), (0, 0, 1), (0, 0, -6), (2, 1, 9), (-4, 3, -11)]:
        moved, exists, sign = mixed.move(sites, displacement)
        for site, (x, y, z) in enumerate(itertools.product(range(3), range(4), range(5))):
            x2, y2, z2 = x + displacement[0], y + displacement[1], z + displacement[2]
            assert exists[site] == (0 <= y2 < 4)
            if exists[site]:
                assert moved[site] == (x2 % 3 * 4 + y2) * 5 + z2 % 5
                crossings = z2 // 5
                assert sign[site] == (-1) ** (crossings % 2)


@pytest.mark.parametrize("kind", KINDS)
def test_antiperiodic_bonds(kind):
    """The sign of a bond is −1 for an odd number of antiperiodic crossings: counted from the unwrapped ends."""
    d = dimension(kind)
    boundary = tuple(("antiperiodic", "periodic", "antiperiodic", "open")[a] for a in range(d))
    bonds = named_lattice(kind, (3,) * d, boundary).bonds("nn")
    bare = lattice(kind, 3)
    shape = bare.shape
    for n in range(len(bonds)):
        step = bare.bond_classes("nn")[bonds.cls[n]].displacement
        start = np.array(np.unravel_index(bonds.cell[n], shape))
        wraps = (start + np.array(step)) // 3
        odd = sum(int(w) for w, b in zip(wraps, boundary, strict=True) if b == "antiperiodic") % 2
        assert bonds.sign[n] == (-1) ** odd
        assert all(w == 0 for w, b in zip(wraps, boundary, strict=True) if b == "open")
    # Each antiperiodic axis of a chain has one negative bond per line.
    if kind == "chain":
        assert Counter(bonds.sign.tolist()) == {1: 2, -1: 1}


@pytest.mark.parametrize(
    ("boundary", "bonds", "links", "plaquettes"),
    [
        (("periodic", "periodic"), 24, 24, 12),
        (("open", "periodic"), 8 + 12, 8 + 12, 8),
        (("periodic", "open"), 12 + 9, 12 + 9, 9),
        (("open", "open"), 8 + 9, 8 + 9, 6),
        (("antiperiodic", "open"), 12 + 9, 12 + 9, 9),
    ],
)
def test_counts_on_a_3_by_4_square(boundary, bonds, links, plaquettes):
    square = named_lattice("square", (3, 4), boundary)
    assert (len(square.bonds("nn")), square.n_links, square.n_plaquettes) == (bonds, links, plaquettes)


def test_links_and_plaquettes_in_four_dimensions():
    torus = named_lattice("hypercubic", (2, 3, 2, 3), ("periodic",) * 4)
    assert (torus.n_sites, torus.n_links, torus.n_plaquettes) == (36, 4 * 36, 6 * 36)
    site, axis = torus.links
    assert site.tolist() == [n // 4 for n in range(144)]
    assert axis.tolist() == [n % 4 for n in range(144)]
    x, mu, nu = torus.plaquettes
    assert list(zip(mu[:6].tolist(), nu[:6].tolist(), strict=True)) == list(itertools.combinations(range(4), 2))
    assert x.tolist() == [n // 6 for n in range(216)]


def test_links_past_an_open_boundary_do_not_exist():
    square = named_lattice("square", (3, 2), ("open", "antiperiodic"))
    site, axis = square.links
    assert list(zip(site.tolist(), axis.tolist(), strict=True)) == [
        (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1), (4, 1), (5, 1),
    ]  # fmt: skip
    assert square.link_number.tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [-1, 8], [-1, 9]]


@pytest.mark.parametrize(
    ("kind", "shape", "expected"),
    [
        ("chain", (1,), {0: 1}),
        ("chain", (2,), {2: 1}),
        ("chain", (3,), {}),
        ("square", (1, 1), {0: 2}),
        ("square", (2, 2), {2: 4}),
        ("square", (2, 3), {2: 3}),
        ("square", (1, 3), {0: 3}),
        ("triangular", (2, 2), {2: 6}),
        ("triangular", (1, 1), {0: 3}),
        ("triangular", (1, 3), {0: 3, 2: 3}),
        ("honeycomb", (1, 1), {3: 1}),
        ("honeycomb", (2, 2), {}),
        ("honeycomb", (1, 2), {2: 2}),
        ("kagome", (1, 1), {2: 3}),
        ("kagome", (2, 2), {}),
        ("cubic", (2, 2, 2), {2: 12}),
        ("fcc", (2, 2, 2), {2: 24}),
        ("bcc", (2, 2, 2), {2: 16}),
    ],
)
def test_multiplicities_of_small_tori(kind, shape, expected):
    torus = named_lattice(kind, shape, ("periodic",) * len(shape))
    got = torus.multiplicities("nn")
    assert got == expected
    # The torus has every bond, however small: half the coordination number per site.
    assert len(torus.bonds("nn")) * 2 == torus.n_sites * COORDINATION[kind][0]


def test_a_small_open_lattice_has_no_doubled_bond():
    assert named_lattice("square", (2, 2), ("open", "open")).multiplicities("nn") == {}
    assert len(named_lattice("chain", (1,), ("open",)).bonds("nn")) == 0


def test_graphs():
    complete = complete_graph(5)
    bonds = complete.bonds("nn")
    assert list(zip(bonds.i.tolist(), bonds.j.tolist(), strict=True)) == list(itertools.combinations(range(5), 2))
    assert (complete.n_sites, complete.n_links, complete.n_plaquettes, complete.is_graph) == (5, 0, 0, True)
    assert complete.bond_set_names() == ("nn",)
    path = graph_lattice("graph", 4, ((2, 0), (0, 1), (3, 1)))
    assert path.bonds("nn").i.tolist() == [2, 0, 3]
    assert path.bonds("nn").j.tolist() == [0, 1, 1]
    assert graph_lattice("graph", 2, ()).bonds("nn").i.tolist() == []
    with pytest.raises(KeyError):
        path.bonds("nnn")


def test_a_unit_cell_with_its_own_bonds_and_its_shells_at_any_scale():
    x, y = BondClass(0, 1, (0, 0)), BondClass(0, 1, (-1, 0))
    for scale in (1.0, 2.5e-10, 4e7):
        cell = Lattice(
            "ladder",
            (5, 5),
            ("periodic", "periodic"),
            vectors=((scale, 0.0), (0.5 * scale, scale * sqrt(3) / 2)),
            basis=((0.0, 0.0), (0.5 * scale, scale * sqrt(3) / 6)),
            basis_names=("A", "B"),
            bond_sets=(("x", (x,)), ("xy", (x, y))),
        )
        assert len(cell.bonds("x")) == 25
        assert len(cell.bonds("xy")) == 50
        assert len(cell.bonds("shell(1)")) == 75
        assert len(cell.bonds("shell(2)")) == 150
        assert len(cell.bonds("shell(3)")) == 75
        assert cell.bond_set_names() == ("x", "xy", "nnn")
