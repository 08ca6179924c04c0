"""The interpreter against exact values and against formulas written out by hand in NumPy."""

from __future__ import annotations

import itertools
from math import log, sqrt

import numpy as np
import pytest
from scipy.special import iv, logsumexp

from vdsl.errors import VfeError
from vdsl.ir import functions, values
from vdsl.ir.expr import (
    Binary,
    Binder,
    Call,
    Const,
    DataRead,
    Expect,
    Expr,
    IndexVar,
    Item,
    Items,
    Param,
    Place,
    Read,
    Reduce,
    Ref,
    Select,
    SetOf,
    Unary,
)
from vdsl.ir.interpret import (
    energy,
    energy_terms,
    evaluate,
    evaluate_derived,
    observables,
    random_configuration,
    resolve_parameters,
    temperature,
)
from vdsl.ir.lattice import Lattice, complete_graph, named_lattice
from vdsl.ir.program import (
    Data,
    Definition,
    Field,
    FrozenArray,
    Observable,
    Parameter,
    Program,
    Range,
    Structure,
    Term,
)
from vdsl.ir.support import (
    Angle,
    Clock,
    Complex,
    Group,
    Occupation,
    Potts,
    Real,
    Sphere,
    Spin,
    Support,
    stored_states,
)

ONE = Const(1)
I, J, X = Place("i"), Place("j"), Place("x")
NN = (Binder(("i", "j"), SetOf("bonds", "nn")),)
SITES = (Binder(("x",), SetOf("sites")),)


def minus(e: Expr) -> Expr:
    return Unary("-", e)


def times(*es: Expr) -> Expr:
    return es[0] if len(es) == 1 else Binary("*", times(*es[:-1]), es[-1])


def plus(*es: Expr) -> Expr:
    return es[0] if len(es) == 1 else Binary("+", plus(*es[:-1]), es[-1])


def sub(a: Expr, b: Expr) -> Expr:
    return Binary("-", a, b)


def call(name: str, *arguments: Expr) -> Expr:
    return Call(name, arguments)


def over_bonds(body: Expr, name: str = "nn") -> Expr:
    return Reduce("sum", (Binder(("i", "j"), SetOf("bonds", name)),), body)


def over_sites(body: Expr, op: str = "sum", where: Expr | None = None) -> Expr:
    return Reduce(op, SITES, body, where)


def periodic(kind: str, *shape: int) -> Lattice:
    return named_lattice(kind, shape, ("periodic",) * len(shape))


def model(lattice: Lattice, support: Support, *terms: Expr, on: str = "sites", t: float = 1.0, **more) -> Program:
    return Program(
        "m",
        lattice,
        (Field("s", support, on),),
        tuple(Term(f"t{k}", value) for k, value in enumerate(terms)),
        Const(t),
        **more,
    )


def moved(base: str, *steps: tuple[int | str, int]) -> Place:
    return Place(base, tuple((axis, Const(amount)) for axis, amount in steps))


def s(place: Place) -> Expr:
    return Read("s", place)


ISING = minus(over_bonds(times(s(I), s(J))))
POTTS = minus(over_bonds(call("delta", s(I), s(J))))
CLOCK = minus(over_bonds(call("cos", sub(s(I), s(J)))))


def pair_energies(program: Program) -> dict[tuple, float]:
    """E of two sites as the interpreter sees it, for each pair of states, on a lattice of one bond."""
    states = stored_states(program.fields[0].support)
    return {(a, b): energy(program, {"s": np.array([a, b])}, {}) for a, b in itertools.product(states, repeat=2)}


def ln_z(program: Program, t: float) -> float:
    """ln Σ exp(−E/T) over all states, every energy from the interpreter."""
    states = stored_states(program.fields[0].support)
    n = program.elements(program.fields[0])
    energies = [energy(program, {"s": np.array(x)}, {}) for x in itertools.product(states, repeat=n)]
    return float(logsumexp(-np.array(energies) / t))


# Partition functions


def test_ising_3x3_equals_brute_force_over_rolled_arrays():
    x = np.array(list(itertools.product([-1, 1], repeat=9)), int).reshape(-1, 3, 3)
    reference = -(x * (np.roll(x, -1, 1) + np.roll(x, -1, 2))).sum((1, 2))
    program = model(periodic("square", 3, 3), Spin(), ISING)
    got = [energy(program, {"s": c.reshape(9)}, {}) for c in x]
    np.testing.assert_allclose(got, reference, atol=1e-12)


def test_ising_4x4_ln_z_at_the_critical_temperature():
    """ln Z = 15.52191545875528, from the histogram of the energies of one representative of each (s, −s) pair.

    The interpreter gives the 1024 row-pair energies; the torus is four rows, so that Z is a trace of row matrices.
    """
    t = 2.269185314213022
    rows = list(itertools.product([-1, 1], repeat=4))
    # An open-in-x 2×4 strip, minus half of each row's own ring, is the bond energy between two rows.
    strip = model(named_lattice("square", (2, 4), ("open", "periodic")), Spin(), ISING)
    ring = model(periodic("chain", 4), Spin(), ISING)
    own = np.array([energy(ring, {"s": np.array(r)}, {}) for r in rows])
    both = np.array([[energy(strip, {"s": np.array(a + b)}, {}) for b in rows] for a in rows])
    transfer = np.exp(-(both - own[:, None] / 2 - own[None, :] / 2) / t)
    z = np.trace(np.linalg.matrix_power(transfer, 4))
    assert log(z) == pytest.approx(15.52191545875528, abs=1e-10)


def test_potts_3x3_ln_z():
    """q = 3, L = 3 at K = ln(1 + √3): 19.688939731847, by row matrices from the interpreter."""
    t = 1 / log(1 + sqrt(3))
    rows = list(itertools.product(range(3), repeat=3))
    strip = model(named_lattice("square", (2, 3), ("open", "periodic")), Potts(3), POTTS)
    ring = model(periodic("chain", 3), Potts(3), POTTS)
    own = np.array([energy(ring, {"s": np.array(r)}, {}) for r in rows])
    both = np.array([[energy(strip, {"s": np.array(a + b)}, {}) for b in rows] for a in rows])
    transfer = np.exp(-(both - own[:, None] / 2 - own[None, :] / 2) / t)
    assert log(np.trace(np.linalg.matrix_power(transfer, 3))) == pytest.approx(19.688939731847, abs=1e-10)


def test_rings():
    k, h, n = 0.7, 0.3, 6
    field = minus(times(Const(h / k), over_sites(s(X))))
    ising = model(periodic("chain", n), Spin(), ISING, field)
    root = sqrt(np.exp(2 * k) * np.sinh(h) ** 2 + np.exp(-2 * k))
    exact = log((np.exp(k) * np.cosh(h) + root) ** n + (np.exp(k) * np.cosh(h) - root) ** n)
    assert ln_z(ising, 1 / k) == pytest.approx(exact, abs=1e-12)

    potts = model(periodic("chain", 5), Potts(3), POTTS)
    exact = log((np.exp(k) + 2) ** 5 + 2 * (np.exp(k) - 1) ** 5)
    assert ln_z(potts, 1 / k) == pytest.approx(exact, abs=1e-12)

    clock = model(periodic("chain", 4), Clock(5), CLOCK)
    angle = 2 * np.pi * np.arange(5) / 5
    eigenvalues = [np.sum(np.exp(k * np.cos(angle)) * np.cos(m * angle)) for m in range(5)]
    assert ln_z(clock, 1 / k) == pytest.approx(log(np.sum(np.array(eigenvalues) ** 4)), abs=1e-12)


def test_antiperiodic_ring_swaps_the_sign_of_one_bond():
    k, n = 0.7, 5
    ring = model(named_lattice("chain", (n,), ("antiperiodic",)), Spin(), ISING)
    exact = log((2 * np.cosh(k)) ** n - (2 * np.sinh(k)) ** n)
    assert ln_z(ring, 1 / k) == pytest.approx(exact, abs=1e-12)
    # The same through index arithmetic: s[x] s[x + 1]; and s[x − 6] has crossed once or twice.
    shifted = model(ring.lattice, Spin(), minus(over_sites(times(s(X), s(moved("x", (0, 1)))))))
    twice = model(ring.lattice, Spin(), minus(over_sites(times(s(X), s(moved("x", (0, -6)))))))
    x = {"s": np.array([1, 1, -1, 1, -1])}
    assert energy(ring, x, {}) == energy(shifted, x, {})
    v = x["s"]
    assert energy(twice, x, {}) == -(v[0] * v[4] + sum(-v[k] * v[k - 1] for k in range(1, 5)))


def test_antiperiodic_angles_and_clocks_are_reflected():
    lattice = named_lattice("chain", (2,), ("antiperiodic",))
    far = Read("s", moved("x", (0, 2)))
    site0 = Binary("==", IndexVar("x"), Const(0))
    angle = model(lattice, Angle(), over_sites(far, where=site0))
    assert energy(angle, {"s": np.array([0.25, 0])}, {}) == pytest.approx(-0.25)
    assert energy(angle, {"s": np.array([np.pi, 0])}, {}) == pytest.approx(np.pi)
    clock = model(lattice, Clock(5), over_sites(far, where=site0))
    assert energy(clock, {"s": np.array([2, 0])}, {}) == pytest.approx(2 * np.pi * 3 / 5)
    assert energy(clock, {"s": np.array([0, 0])}, {}) == 0


def test_xy_ring_of_three_by_quadrature():
    """Σ_m (2π I_m(K))³; the trapezium rule is exact to rounding for a periodic analytic integrand."""
    n, k = 24, 0.9
    program = model(periodic("chain", 3), Angle(), minus(over_bonds(call("cos", sub(s(I), s(J))))))
    grid = np.pi - 2 * np.pi * np.arange(n) / n
    energies = [energy(program, {"s": np.array([0.0, a, b])}, {}) for a in grid for b in grid]
    z = np.sum(np.exp(-k * np.array(energies))) * (2 * np.pi / n) ** 2 * 2 * np.pi
    assert z == pytest.approx(np.sum((2 * np.pi * iv(np.arange(-30, 31), k)) ** 3), rel=1e-12)


def test_bond_that_meets_itself_counts_as_the_torus_has_it():
    ones = {"s": np.ones(4)}
    assert energy(model(periodic("square", 2, 2), Spin(), ISING), ones, {}) == -8
    assert energy(model(periodic("square", 1, 4), Spin(), ISING), ones, {}) == -8
    assert energy(model(named_lattice("square", (2, 2), ("open", "open")), Spin(), ISING), ones, {}) == -4


# Other energies, against NumPy


def test_phi4_against_rolls():
    """Σ_x Σ_μ φ_x (2φ_x − φ_{x+μ} − φ_{x−μ}) + m²φ² + λφ⁴."""
    m2, lam = -4.0, 6.008
    phi = Read("s", X)
    up, down = Read("s", Place("x", (("mu", ONE),))), Read("s", Place("x", (("mu", Const(-1)),)))
    kinetic = Reduce(
        "sum", (*SITES, Binder(("mu",), SetOf("axes"))), times(phi, sub(sub(times(Const(2), phi), up), down))
    )
    potential = over_sites(
        plus(times(Param("m2"), Binary("^", phi, Const(2))), times(Param("lam"), Binary("^", phi, Const(4))))
    )
    mean = Observable("phi2", over_sites(Binary("^", phi, Const(2)), "mean"))
    program = model(
        periodic("hypercubic", 3, 4),
        Real(),
        kinetic,
        potential,
        parameters=(Parameter("m2", Const(m2)), Parameter("lam", Const(lam))),
        observables=(mean,),
    )
    x = random_configuration(program, np.random.default_rng(0))
    f = x["s"].reshape(3, 4)
    expected_kinetic = sum(np.sum(f * (2 * f - np.roll(f, -1, a) - np.roll(f, 1, a))) for a in (0, 1))
    got = energy_terms(program, x, resolve_parameters(program, {}))
    assert got["t0"] == pytest.approx(expected_kinetic, rel=1e-13)
    assert got["t1"] == pytest.approx(np.sum(m2 * f**2 + lam * f**4), rel=1e-13)
    assert observables(program, x, {"m2": m2, "lam": lam})["phi2"] == pytest.approx(np.mean(f**2), rel=1e-13)


def plaquette_reads(adjoint) -> tuple[Expr, ...]:
    x, xm, xn = Place("x"), Place("x", (("mu", ONE),)), Place("x", (("nu", ONE),))
    return Read("s", x, "mu"), Read("s", xm, "nu"), adjoint(Read("s", xn, "mu")), adjoint(Read("s", x, "nu"))


PLAQUETTES = (Binder(("x", "mu", "nu"), SetOf("plaquettes")),)
SITES_PLANES = (Binder(("x",), SetOf("sites")), Binder(("mu", "nu"), SetOf("planes")))


@pytest.mark.parametrize("binders", [PLAQUETTES, SITES_PLANES], ids=["plaquettes", "sites and planes"])
def test_u1_wilson_action_and_charge(binders):
    circulation = plus(*plaquette_reads(minus))
    program = model(
        periodic("hypercubic", 3, 4),
        Angle(),
        minus(Reduce("sum", binders, call("cos", circulation))),
        on="links",
        observables=(
            Observable("Q", Binary("/", Reduce("sum", binders, call("wrap", circulation)), Const(2 * np.pi))),
        ),
    )
    x = random_configuration(program, np.random.default_rng(1))
    a, b = np.moveaxis(x["s"].reshape(3, 4, 2), 2, 0)
    p = a + np.roll(b, -1, 0) - np.roll(a, -1, 1) - b
    assert energy(program, x, {}) == pytest.approx(-np.sum(np.cos(p)), rel=1e-13)
    q = observables(program, x, {})["Q"]
    assert q == pytest.approx(np.sum(np.angle(np.exp(1j * p))) / (2 * np.pi), abs=1e-12)
    assert q == pytest.approx(round(q), abs=1e-12)


def test_su3_wilson_action_against_matrix_products():
    beta = 6.0
    loop = times(*plaquette_reads(lambda u: Unary("'", u)))
    wilson = times(Const(-beta / 3), Reduce("sum", SITES_PLANES, call("re", call("tr", loop))))
    program = model(periodic("hypercubic", 2, 3, 2), Group("SU3"), wilson, on="links")
    x = random_configuration(program, np.random.default_rng(2))
    u = x["s"].reshape(2, 3, 2, 3, 3, 3)
    expected = 0.0
    for site in np.ndindex(2, 3, 2):
        for mu, nu in itertools.combinations(range(3), 2):
            xm = tuple((site[a] + (a == mu)) % (2, 3, 2)[a] for a in range(3))
            xn = tuple((site[a] + (a == nu)) % (2, 3, 2)[a] for a in range(3))
            p = u[site][mu] @ u[xm][nu] @ u[xn][mu].conj().T @ u[site][nu].conj().T
            expected -= beta / 3 * np.trace(p).real
    assert energy(program, x, {}) == pytest.approx(expected, rel=1e-13)


def test_open_boundary_leaves_out_links_and_plaquettes():
    lattice = named_lattice("hypercubic", (3, 4), ("open", "periodic"))
    one = times(Const(0), Read("s", X, "mu"))
    links = Reduce("sum", (Binder(("x", "mu"), SetOf("links")),), plus(ONE, one))
    pairs = Reduce("sum", (*SITES, Binder(("mu",), SetOf("axes"))), plus(ONE, one))
    steps = Reduce("sum", (*SITES, Binder(("mu",), SetOf("axes"))), plus(ONE, times(Const(0), s2("x", "mu"))))
    loops = Reduce("sum", SITES_PLANES, plus(ONE, *(times(Const(0), r) for r in plaquette_reads(minus))))
    program = Program(
        "m",
        lattice,
        (Field("s", Angle(), "links"), Field("t", Real())),
        tuple(Term(f"t{k}", e) for k, e in enumerate((links, pairs, steps, loops))),
        ONE,
    )
    x = random_configuration(program, np.random.default_rng(0))
    assert energy_terms(program, x, {}) == {"t0": 20, "t1": 20, "t2": 20, "t3": 8}


def s2(base: str, axis: str) -> Expr:
    return Read("t", Place(base, ((axis, ONE),)))


def test_an_absent_element_is_absent_in_the_innermost_reduction():
    """On an open chain of 3: each site sums over its existing neighbours and multiplies by its own value."""
    lattice = named_lattice("chain", (3,), ("open",))
    step = Binder(("k",), SetOf("range", bounds=(-1, 2, 1)))
    neighbour = Read("s", Place("x", ((0, IndexVar("k")),)))
    nested = over_sites(times(s(X), Reduce("sum", (step,), neighbour, Binary("!=", IndexVar("k"), Const(0)))))
    means = over_sites(Reduce("mean", (step,), neighbour))
    program = model(lattice, Real(), nested, means)
    a, b, c = v = np.array([2.0, 3.0, 5.0])
    got = energy_terms(program, {"s": v}, {})
    assert got["t0"] == a * b + b * (a + c) + c * b
    assert got["t1"] == pytest.approx((a + b) / 2 + (a + b + c) / 3 + (b + c) / 2)


def test_reductions():
    program = model(periodic("chain", 3), Real(), over_sites(s(X)))
    x = {"s": np.array([2.0, -3.0, 5.0])}
    none = Binary(">", s(X), Const(100))
    negative = Binary("<", s(X), Const(0))

    def value(op: str, where: Expr | None = None) -> float:
        return evaluate(program, over_sites(s(X), op, where), {}, x)

    assert [value(op) for op in ("sum", "prod", "max", "min")] == [4, -30, 5, -3]
    assert value("mean") == pytest.approx(4 / 3)
    assert [value(op, negative) for op in ("sum", "prod", "mean", "max", "min")] == [-3] * 5
    assert [value("sum", none), value("prod", none)] == [0, 1]


def test_kitaev_heisenberg_on_a_unit_cell():
    from vdsl.ir.lattice import BondClass

    x, y, z = BondClass(0, 1, (0, 0)), BondClass(0, 1, (-1, 0)), BondClass(0, 1, (0, -1))
    lattice = Lattice(
        "honeycomb_xyz",
        (2, 3),
        ("periodic", "periodic"),
        vectors=((1.0, 0.0), (0.5, sqrt(3) / 2)),
        basis=((0.0, 0.0), (0.5, sqrt(3) / 6)),
        basis_names=("A", "B"),
        bond_sets=(("nn", (x, y, z)), ("x", (x,)), ("y", (y,)), ("z", (z,))),
    )
    heisenberg = times(Const(1.2), over_bonds(call("dot", s(I), s(J))))
    kitaev = [
        times(
            Const(-5.0),
            over_bonds(times(Read("s", I, None, (Const(k),)), Read("s", J, None, (Const(k),))), name),
        )
        for k, name in enumerate("xyz")
    ]
    program = model(lattice, Sphere(3), heisenberg, *kitaev)
    x_random = random_configuration(program, np.random.default_rng(3))
    v = x_random["s"].reshape(2, 3, 2, 3)
    a, b = v[:, :, 0], v[:, :, 1]
    b_by_bond = (b, np.roll(b, 1, 0), np.roll(b, 1, 1))
    got = energy_terms(program, x_random, {})
    assert got["t0"] == pytest.approx(1.2 * sum(np.sum(a * c) for c in b_by_bond), rel=1e-13)
    for k in range(3):
        assert got[f"t{k + 1}"] == pytest.approx(-5 * np.sum(a[..., k] * b_by_bond[k][..., k]), rel=1e-13)


# Data


def bond_data(*places: Place) -> DataRead:
    return DataRead("J", "bond", places)


def test_edwards_anderson_couplings_and_their_order():
    """J in bond order couples (x, y)–(x + 1, y) first; one ground-state-like sum against rolled arrays."""
    couplings = np.random.default_rng(7).normal(size=(3, 4, 2))
    program = model(
        periodic("square", 3, 4),
        Spin(),
        minus(over_bonds(times(bond_data(I, J), s(I), s(J)))),
        minus(over_bonds(times(bond_data(J, I), s(I), s(J)))),
        minus(over_sites(times(bond_data(X, moved("x", (1, 1))), s(X), s(moved("x", (1, 1)))))),
        data=(Data("J", "nn", FrozenArray(couplings.reshape(-1))),),
    )
    x = random_configuration(program, np.random.default_rng(0))
    v = x["s"].reshape(3, 4).astype(float)
    along = [couplings[..., a] * v * np.roll(v, -1, a) for a in (0, 1)]
    got = energy_terms(program, x, {})
    assert got["t0"] == got["t1"] == pytest.approx(-np.sum(along), rel=1e-13)
    assert got["t2"] == pytest.approx(-np.sum(along[1]), rel=1e-13)


def test_doubled_bonds_keep_their_own_couplings():
    """At L = 2 two bonds join the same sites: each is read with its own number, by binder and by displacement."""
    couplings = np.array([1.0, 10.0])
    program = model(
        periodic("chain", 2),
        Real(),
        over_bonds(times(bond_data(I, J), s(I))),
        over_sites(times(bond_data(X, moved("x", (0, 1))), s(X))),
        over_sites(times(bond_data(X, moved("x", (0, -1))), s(X))),
        data=(Data("J", "nn", FrozenArray(couplings)),),
    )
    got = energy_terms(program, {"s": np.array([1.0, 100.0])}, {})
    assert got == {"t0": 1001, "t1": 1001, "t2": 110}


def test_sk_data_and_other_keys():
    n = 5
    table = np.triu(np.random.default_rng(0).standard_normal((n, n)), 1)
    h, matrix, w = np.arange(5.0), np.arange(6.0).reshape(2, 3), np.arange(10.0).reshape(5, 2)
    program = model(
        complete_graph(n),
        Spin(),
        minus(over_bonds(times(bond_data(I, J), s(I), s(J)))),
        over_sites(times(DataRead("h", "site", (X,)), s(X))),
        over_sites(times(DataRead("w", "site", (X,), index=(ONE,)), s(X))),
        DataRead("matrix", "index", index=(ONE, Const(2))),
        over_sites(DataRead("h", "index", index=(IndexVar("x"),))),
        data=(
            Data("J", "nn", FrozenArray(table[np.triu_indices(n, 1)])),
            Data("h", "sites", FrozenArray(h)),
            Data("w", "sites", FrozenArray(w)),
            Data("matrix", None, FrozenArray(matrix)),
        ),
    )
    x = random_configuration(program, np.random.default_rng(1))
    v = x["s"].astype(float)
    got = energy_terms(program, x, {})
    assert got["t0"] == pytest.approx(-v @ table @ v, rel=1e-13)
    assert got["t1"] == h @ v
    assert got["t2"] == w[:, 1] @ v
    assert (got["t3"], got["t4"]) == (5, 10)


# Expressions


@pytest.mark.parametrize(
    ("expr", "value"),
    [
        (Binary("//", Const(-7), Const(2)), -4),
        (Binary("%", Const(-7), Const(3)), 2),
        (Binary("/", Const(7), Const(2)), 3.5),
        (Binary("^", Const(2), Const(-1)), 0.5),
        (Binary("^", Const(2), Const(10)), 1024),
        (Binary("//", Const(-7.5), Const(2)), -4.0),
        (Binary("%", Const(-7.5), Const(3)), 1.5),
        (Binary("/", Const(1.0), Const(0)), np.inf),
        (Select(Binary("<", Const(1), Const(2)), Const(3), Const(4)), 3),
        (Binary("and", Const(True), Unary("not", Const(True))), False),
        (Binary("or", Const(False), Const(True)), True),
        (Unary("'", Const(1 + 2j)), 1 - 2j),
        (call("wrap", Const(np.pi)), np.pi),
        (call("wrap", Const(-np.pi)), np.pi),
        (call("wrap", Const(7.0)), 7.0 - 2 * np.pi),
        (call("delta", Const(2), Const(2)), 1),
        (call("norm", sub(Items((Const(0), Const(3))), Items((Const(4), Const(0))))), 5),
        (call("floor", Const(-1.5)), -2),
        (call("logcosh", Const(-1.5)), log(np.cosh(1.5))),
        (call("erf", Const(0.0)), 0),
        (call("lgamma", Const(5)), log(24)),
        (Item(call("cross", Items((ONE, Const(0), Const(0))), Items((Const(0), ONE, Const(0)))), (Const(2),)), 1),
        (call("max", Const(1), Const(5), Const(3)), 5),
        (call("atan2", Const(1), Const(-1)), 3 * np.pi / 4),
        (call("re", Const(3 + 4j)), 3),
        (call("abs", Const(3 + 4j)), 5),
        (call("sign", Const(-2.5)), -1),
    ],
)
def test_values(expr, value):
    program = model(periodic("chain", 3), Real(), over_sites(s(X)))
    assert evaluate(program, expr, {}) == pytest.approx(value)


def test_every_function_has_a_meaning():
    assert set(values.FUNCTIONS) == set(functions.FUNCTIONS)


def test_supports_read_as_the_table_says():
    lattice = periodic("chain", 2)
    cases = [
        (Spin(), np.array([-1, 1], np.int8), -1.0),
        (Potts(4), np.array([3, 0], np.int8), 3),
        (Clock(4), np.array([3, 0], np.int8), 1.5 * np.pi),
        (Occupation(), np.array([1, 0], np.int8), 1),
        (Complex(), np.array([1 + 2j, 0]), 1 + 2j),
    ]
    for support, x, expected in cases:
        program = model(lattice, support)
        got = evaluate(program, Read("s", Place(None, number=Const(0))), {}, {"s": x})
        assert got == expected
        assert type(got) is type(expected)


def test_derived_and_observables_of_observables():
    program = model(
        periodic("chain", 3),
        Spin(),
        ISING,
        observables=(
            Observable("m", over_sites(s(X), "mean")),
            Observable("absm", call("abs", Ref("m"))),
        ),
    )
    got = observables(program, {"s": np.array([1, -1, -1])}, {})
    assert got == {"m": pytest.approx(-1 / 3), "absm": pytest.approx(1 / 3)}
    chi = sub(Expect(Binary("^", Ref("m"), Const(2))), Binary("^", Expect(Ref("absm")), Const(2)))
    averages = {Binary("^", Ref("m"), Const(2)): 0.5, Ref("absm"): 0.6}
    assert evaluate_derived(program, chi, averages.__getitem__, {}) == pytest.approx(0.5 - 0.36)


# Parameters and temperature


def with_parameters() -> Program:
    return model(
        periodic("chain", 3),
        Spin(),
        ISING,
        structure=(Structure("L", 3),),
        parameters=(
            Parameter("ratio", Binary("/", Ref("half"), Param("J"))),
            Parameter("J", Const(2.0), Range(0, np.inf, lower_open=True, upper_open=True)),
            Parameter("h", None),
        ),
        definitions=(Definition("half", Binary("/", Param("J"), Const(2))),),
    )


def test_defaults_use_other_parameters_whatever_the_order():
    theta = resolve_parameters(with_parameters(), {"h": 0, "J": 8})
    assert theta == {"ratio": 0.5, "J": 8.0, "h": 0.0}
    assert list(theta) == ["ratio", "J", "h"]
    assert resolve_parameters(with_parameters(), {"h": 1, "ratio": 3})["ratio"] == 3


@pytest.mark.parametrize(
    ("overrides", "code", "words"),
    [
        ({"h": 1, "ratoi": 2}, "unknown-parameter", "did you mean `ratio`?"),
        ({"h": 1, "L": 2}, "unknown-parameter", "sizes the model"),
        ({}, "missing-parameter", "`h` has no value"),
        ({"h": 1, "J": 0}, "out-of-range", "(0, inf)"),
        ({"h": float("nan")}, "out-of-range", "`h` = nan is out of range"),
        ({"h": np.inf}, "out-of-range", "a parameter is finite unless"),
        ({"h": "one"}, "bad-override", "`h` was given 'one'"),
    ],
)
def test_parameter_errors(overrides, code, words):
    with pytest.raises(VfeError) as caught:
        resolve_parameters(with_parameters(), overrides)
    assert [d.code for d in caught.value.diagnostics] == [code]
    assert caught.value.exit_code == 2
    assert words in str(caught.value)


@pytest.mark.parametrize("t", [0.0, -1.0, np.inf, np.nan])
def test_bad_temperature(t):
    with pytest.raises(VfeError) as caught:
        temperature(model(periodic("chain", 3), Spin(), ISING, t=t), {})
    assert caught.value.diagnostics[0].code == "bad-temperature"
    assert caught.value.exit_code == 3


# Random configurations


def test_random_configurations_follow_the_base_measures():
    rng = np.random.default_rng(5)
    from vdsl.ir.configurations import random_values

    u = random_values(Group("SU3"), 4000, rng)
    np.testing.assert_allclose(u @ u.conj().swapaxes(1, 2), np.broadcast_to(np.eye(3), u.shape), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(u), 1, atol=1e-12)
    trace = np.trace(u, axis1=1, axis2=2)
    # Haar moments: ⟨tr⟩ = 0, ⟨|tr|²⟩ = 1, ⟨tr³⟩ = 1 for SU(3); ⟨tr⁴⟩ = 2 for SU(2).
    assert abs(np.mean(trace)) < 0.06
    assert np.mean(np.abs(trace) ** 2) == pytest.approx(1, abs=0.08)
    assert np.mean(trace**3) == pytest.approx(1, abs=0.2)
    v = np.trace(random_values(Group("SU2"), 4000, rng), axis1=1, axis2=2)
    np.testing.assert_allclose(v.imag, 0, atol=1e-12)
    assert np.mean(v.real**4) == pytest.approx(2, abs=0.25)
    sphere = random_values(Sphere(3), 4000, rng)
    np.testing.assert_allclose(np.sum(sphere**2, 1), 1)
    np.testing.assert_allclose(np.mean(sphere**2, 0), 1 / 3, atol=0.02)
    angles = random_values(Angle(), 4000, rng)
    assert np.abs(np.mean(np.exp(1j * angles))) < 0.06
    assert np.bincount(random_values(Potts(3), 3000, rng)).min() > 850
    assert set(random_values(Spin(), 50, rng)) == {-1, 1}
