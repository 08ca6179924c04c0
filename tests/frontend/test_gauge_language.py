"""Links in the language: forms that mean the same give the same program, observables against loops gone by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vdsl.compile import compile_source
from vdsl.errors import Source, VfeError
from vdsl.ir import interpret
from vdsl.ir.configurations import random_configuration

GROUPS = ("angle", "U(1)", "SU(2)", "SU(3)")
SIZES = {2: "3, 4", 3: "2, 3, 2", 4: "2, 2, 2, 2"}


def compile_text(text: str):
    return compile_source(Source("test.vfe", text), {}, None)[0]


def program_of(group: str, size: str, action: str, more: str = "", boundary: str = "periodic"):
    text = f"""lattice hypercubic({size}, boundary = {boundary})
    field U : {group} on links
    interaction wilson = {action}
    temperature 1
    {more}"""
    return compile_text(text)


def real(group: str, loop: str) -> str:
    """The real number that an action takes of a loop."""
    return {"angle": f"cos({loop})", "U(1)": f"re({loop})"}.get(group, f"re(tr({loop}))")


def written(group: str, x: str = "x", mu: str = "mu", nu: str = "nu") -> str:
    """A plaquette, link by link."""
    a, b, c, d = f"U[{x}, {mu}]", f"U[{x} + {mu}, {nu}]", f"U[{x} + {nu}, {mu}]", f"U[{x}, {nu}]"
    return f"{a} + {b} - {c} - {d}" if group == "angle" else f"{a} * {b} * {c}' * {d}'"


def short(group: str) -> str:
    return "circulation" if group == "angle" else "loop"


@pytest.mark.parametrize("dimension", SIZES)
@pytest.mark.parametrize("group", GROUPS)
def test_a_plaquette_in_four_spellings_is_one_program(group: str, dimension: int) -> None:
    spellings = [
        f"sum(p in plaquettes: {real(group, f'{short(group)}(U, p)')})",
        f"sum(<x, mu, nu> in plaquettes: {real(group, f'{short(group)}(U, x, mu, nu)')})",
        f"sum(x in sites, <mu, nu> in planes: {real(group, f'{short(group)}(U, x, mu, nu)')})",
        f"sum(x in sites, <mu, nu> in planes: {real(group, written(group))})",
        f"sum(y in sites, <a, b> in planes: {real(group, written(group, 'y', 'a', 'b'))})",
    ]
    programs = [program_of(group, SIZES[dimension], s) for s in spellings]
    assert len({p.fingerprint for p in programs}) == 1


@pytest.mark.parametrize("group", ["angle", "SU(2)"])
def test_spellings_agree_on_open_lattices(group: str) -> None:
    """Where links are missing, the plaquettes are counted and not the sites: another program, the same energy."""
    boundary = "(open, periodic, open)"
    one = program_of(group, "2, 3, 2", f"sum(p in plaquettes: {real(group, f'{short(group)}(U, p)')})", "", boundary)
    body = real(group, written(group))
    two = program_of(group, "2, 3, 2", f"sum(x in sites, <mu, nu> in planes: {body})", "", boundary)
    x = random_configuration(one, np.random.default_rng(1))
    assert interpret.energy(one, x, {}) == pytest.approx(interpret.energy(two, x, {}), rel=1e-12)


def test_forms_of_link_indices() -> None:
    """A link by two names or one, moved by an axis, by its number or by cells, and components of its matrix."""
    forms = [
        "sum(<x, mu> in links: re(U[x, mu, 0, 1]))",
        "sum(l in links: re(U[l, 0, 1]))",
        "sum(x in sites, mu in axes: re(U[x, mu, 0, 1]))",
    ]
    assert len({program_of("SU(2)", "3, 4", f).fingerprint for f in forms}) == 1
    moved = [
        "re(tr(U[x + (1, 2), 0] * U[x - (1, 0), 1]'))",
        "re(tr(U[x + (1, 0) + 2 * (0, 1), 0] * U[x + (-1, 0), 1]'))",
    ]
    assert len({program_of("SU(2)", "3, 4", f"sum(x in sites: {m})").fingerprint for m in moved}) == 1


# Loops gone by hand


def transporter(group: str, program, links: np.ndarray, start: int, path: list[tuple[int, int]]) -> np.ndarray:
    """The product along a path of (axis, ±1), as matrices; angles as e^{iθ}."""
    lattice, n = program.lattice, {"SU(2)": 2, "SU(3)": 3}.get(group, 1)
    u = np.exp(1j * links) if group == "angle" else links
    at, out = start, np.eye(n, dtype=complex)
    for axis, sign in path:
        step = tuple(sign * int(a == axis) for a in range(lattice.n_axes))
        there = int(lattice.move(np.array(at), step)[0])
        link = np.asarray(u[lattice.link_number[at if sign > 0 else there, axis]]).reshape(n, n)
        out = out @ (link if sign > 0 else link.conj().T)
        at = there
    return out


def mean_loop(group: str, program, links: np.ndarray, planes, sides) -> float:
    values = []
    for x, (mu, nu), (r, t) in itertools.product(range(program.lattice.n_sites), planes, sides):
        path = [(mu, 1)] * r + [(nu, 1)] * t + [(mu, -1)] * r + [(nu, -1)] * t
        w = transporter(group, program, links, x, path)
        values.append(np.trace(w).real / len(w))
    return float(np.mean(values))


@pytest.mark.parametrize("dimension", [2, 3])
@pytest.mark.parametrize("group", GROUPS)
def test_wilson_and_polyakov_loops_by_hand(group: str, dimension: int) -> None:
    body = real(group, f"{short(group)}(U, p)")
    more = """observable w11 = wilson_loop(U, 1, 1)
    observable w12 = wilson_loop(U, 1, 2)
    observable w21 = wilson_loop(U, 2, 1)
    observable along = wilson_loop(U, 1, 2, 1, 0)
    observable p = re(polyakov_loop(U, 1))
    observable absp = abs(polyakov_loop(U, 1))"""
    program = program_of(group, SIZES[dimension], f"sum(p in plaquettes: {body})", more)
    x = random_configuration(program, np.random.default_rng(2))
    found = interpret.observables(program, x, {})
    planes = list(program.lattice.planes)
    ours = lambda planes, *sides: mean_loop(group, program, x["U"], planes, sides)  # noqa: E731
    assert found["w11"] == pytest.approx(ours(planes, (1, 1)), abs=1e-12)
    assert found["w12"] == pytest.approx(ours(planes, (1, 2), (2, 1)), abs=1e-12)
    assert found["w21"] == pytest.approx(found["w12"], abs=1e-12)
    assert found["along"] == pytest.approx(ours([(1, 0)], (1, 2)), abs=1e-12)
    length = program.lattice.shape[1]
    loops = [transporter(group, program, x["U"], s, [(1, 1)] * length) for s in range(program.lattice.n_sites)]
    mean = np.mean([np.trace(w) / len(w) for w in loops])
    assert found["p"] == pytest.approx(mean.real, abs=1e-12)
    assert found["absp"] == pytest.approx(abs(mean), abs=1e-12)


def test_loops_on_open_lattices_are_those_that_fit() -> None:
    more = "observable w = wilson_loop(U, 1, 2, 0, 1)\nobservable both = wilson_loop(U, 3, 1)"
    program = program_of("U(1)", "3, 4", "sum(p in plaquettes: re(loop(U, p)))", more, "open")
    x = random_configuration(program, np.random.default_rng(3))
    starts = [s for s in range(12) if s // 4 < 2 and s % 4 < 2]
    path = [(0, 1), (1, 1), (1, 1), (0, -1), (1, -1), (1, -1)]
    expected = np.mean([transporter("U(1)", program, x["U"], s, path)[0, 0].real for s in starts])
    found = interpret.observables(program, x, {})
    assert found["w"] == pytest.approx(expected, abs=1e-12)
    starts = [s for s in range(12) if s // 4 < 2 and s % 4 < 1]  # only 1 × 3 has room: the other side is 3 sites long
    path = [(0, 1), *[(1, 1)] * 3, (0, -1), *[(1, -1)] * 3]
    expected = np.mean([transporter("U(1)", program, x["U"], s, path)[0, 0].real for s in starts])
    assert found["both"] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("group", ["angle", "U(1)"])
def test_topological_charge(group: str) -> None:
    body = real(group, f"{short(group)}(U, p)")
    program = program_of(group, "3, 4", f"sum(p in plaquettes: {body})", "observable Q = topological_charge(U)")
    charges = set()
    for seed in range(6):
        x = random_configuration(program, np.random.default_rng(seed))
        fluxes = []
        for s in range(12):
            w = transporter(group, program, x["U"], s, [(0, 1), (1, 1), (0, -1), (1, -1)])
            fluxes.append(np.angle(w[0, 0]))
        q = interpret.observables(program, x, {})["Q"]
        assert q == pytest.approx(sum(fluxes) / (2 * np.pi), abs=1e-9)
        assert q == pytest.approx(round(q), abs=1e-9)
        charges.add(round(q))
    assert len(charges) > 1


@pytest.mark.parametrize("group", GROUPS)
def test_loops_do_not_change_under_gauge_transformations(group: str) -> None:
    """An action made of larger loops has the symmetry that it claims."""
    body = real(group, f"{short(group)}(U, p)")
    improved = f"-1.6 * sum(p in plaquettes: {body}) + 0.1 * wilson_loop(U, 1, 2) + 0.2 * abs(polyakov_loop(U, 0))"
    program = program_of(group, "3, 3", improved, "symmetry gauge(U)")
    assert program.claims[0].kind == "gauge"


HIGGS = {
    "angle": "-sum(x in sites, mu in axes: cos(psi[x] + theta[x, mu] - psi[x + mu]))",
    "complex": "-sum(x in sites, mu in axes: re(psi[x]' * U[x, mu] * psi[x + mu])) + sum(x in sites: abs(psi[x])^4)",
}


@pytest.mark.parametrize("matter", HIGGS)
def test_matter_is_part_of_a_gauge_claim(matter: str) -> None:
    links, name = ("angle", "theta") if matter == "angle" else ("U(1)", "U")
    plaquette = "cos(circulation(theta, p))" if matter == "angle" else "re(loop(U, p))"

    def model(energy: str) -> str:
        return f"""lattice hypercubic(3, 3)
        field {name} : {links} on links
        field psi : {matter}
        interaction gauge = -sum(p in plaquettes: {plaquette})
        interaction hopping = {energy}
        temperature 1
        symmetry gauge({name}, psi)"""

    assert compile_text(model(HIGGS[matter])).claims
    wrong = HIGGS[matter].replace("- psi[x + mu]", "+ psi[x + mu]").replace("* psi[x + mu]", "* psi[x + mu]'")
    with pytest.raises(VfeError) as found:
        compile_text(model(wrong))
    assert [d.code for d in found.value.diagnostics] == ["symmetry-violated"]


@pytest.mark.parametrize(
    ("group", "action"),
    [
        ("U(1)", "-sum(x in sites: re(U[x, 0] * U[x + (1, 0), 1] * U[x + (0, 1), 0]' * U[x + (1, 0), 1]'))"),
        ("U(1)", "-sum(p in plaquettes: re(loop(U, p))) + 0.01 * sum(l in links: re(U[l]))"),
        ("SU(2)", "-sum(p in plaquettes: re(tr(loop(U, p)))) + 0.1 * sum(l in links: re(U[l, 0, 0]))"),
        ("angle", "-sum(p in plaquettes: cos(circulation(U, p))) + sum(p in plaquettes: circulation(U, p)^2)"),
    ],
)
def test_wrong_gauge_claims_are_found(group: str, action: str) -> None:
    with pytest.raises(VfeError) as found:
        program_of(group, "3, 3", action, "symmetry gauge(U)")
    assert [d.code for d in found.value.diagnostics] == ["symmetry-violated"]


OPEN = {
    "U[x, mu] * U[x, nu]": True,
    "U[x, mu] * U[x + mu, nu] * U[x + nu, mu] * U[x, nu]'": True,
    "U[x, mu]' * U[x + mu, nu]": True,
    "U[x, mu] * U[x, mu]'": False,
    "(U[x, nu] * U[x + nu, mu] * U[x + mu, nu]' * U[x, mu]')'": False,
    "U[x, mu] * U[x - nu + mu, nu]' * U[x - nu, mu]' * U[x - nu, nu]": False,
    "U[x, 0] * U[x + (1, 0), 0] * U[x + (2, 0), 0]": False,  # around the lattice, of length 3
    "U[x, 1] * U[x + (0, 1), 1] * U[x + (0, 2), 1]": True,  # of length 4
    "U[x, mu] * U[y, nu]": True,
}


@pytest.mark.parametrize(("product", "is_open"), OPEN.items())
def test_open_loops(product: str, is_open: bool) -> None:
    binders = "x in sites, y in sites, <mu, nu> in planes" if "y" in product else "x in sites, <mu, nu> in planes"
    action = f"sum({binders}: re(tr({product})))"
    if not is_open:
        assert program_of("SU(2)", "3, 4", action, "symmetry gauge(U)").claims
        return
    with pytest.raises(VfeError) as found:
        program_of("SU(2)", "3, 4", action, "symmetry gauge(U)")
    assert {d.code for d in found.value.diagnostics} == {"open-loop"}
    assert program_of("SU(2)", "3, 4", action).terms  # a warning where nothing is claimed
