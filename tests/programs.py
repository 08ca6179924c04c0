"""Random models: a hypothesis strategy for the text of `.vfe` files that are valid and cover the language.

Everything discontinuous (comparisons, rounding) is applied to integers or shifted by odd constants, so that two
evaluators that agree to rounding take the same branch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

NUMBERS = ["0.5", "1.25", "2", "3", "0.1", "-1.5", "(1/3)", "-0.75"]
DIMENSIONS = {
    "chain": 1, "square": 2, "triangular": 2, "honeycomb": 2, "kagome": 2, "cubic": 3, "bcc": 3, "fcc": 3,
}  # fmt: skip
BASIS = {"honeycomb": 2, "kagome": 3, "ladder": 2}
MOST_SITES = 24
DISCRETE = ("spin", "potts(2)", "potts(3)", "clock(4)", "clock(5)", "occupation")
CONTINUOUS = ("real", "real[2]", "real[3]", "complex", "angle", "sphere(2)", "sphere(3)", "U(1)", "SU(2)", "SU(3)")
NO_NEGATION = {"potts(2)", "potts(3)", "occupation", "SU(3)"}
UNIT_CELL = """lattice ladder {{
  vectors (1, 0), (1/2, sqrt(3)/2)
  site A at (0, 0)
  site B at (1/3, 1/3)
  bond x : A -> B ( 0,  0)
  bond y : A -> B (-1,  0)
  bond z : A -> A ( 1, -1)
  group nn = x, y
  group all = x, y, z
  size = ({0}, {1})
  boundary = ({2}, {3})
}}
"""


@dataclass(frozen=True)
class World:
    """What a model's expressions may use."""

    axes: int
    sites: int
    bonds: tuple[str, ...]
    fields: tuple[tuple[str, str, str], ...]  # name, type, on
    site_data: bool
    bond_data: str  # the set, or ""
    link_data: bool
    table: bool


@dataclass(frozen=True)
class Scope:
    """The variables bound around an expression."""

    sites: tuple[str, ...] = ()
    axes: tuple[str, ...] = ()
    integers: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    plaquettes: tuple[str, ...] = ()
    bonds: tuple[tuple[str, str, str], ...] = ()  # i, j, set
    depth: int = 0
    locals: tuple[str, ...] = field(default=())


@st.composite
def sources(draw, supports: tuple[str, ...] = (*DISCRETE, *CONTINUOUS)) -> str:
    """The text of a valid model whose fields have these types."""
    lattice, world = draw(_lattices(supports))
    lines = [lattice]
    lines += [f"field {name} : {kind}{' on links' if on == 'links' else ''}" for name, kind, on in world.fields]
    lines += ["param a = 0.7", "param b = a - 2 in (-inf, 10]", "let c = a * b + 1", "fn f(u, v) = u * v - a"]
    seed = draw(st.integers(0, 99))
    if world.site_data:
        lines.append(f"data h on sites ~ normal(0, 1) seed {seed}")
    if world.bond_data:
        lines.append(f"data J on {world.bond_data} ~ uniform(-1, 1) seed {seed}")
    if world.link_data:
        lines.append(f"data K on links ~ normal(0, 2) seed {seed}")
    if world.table:
        lines.append(f"data W ~ normal(0, 1) seed {seed} {{ shape = (3, 2) }}")
    for k in range(draw(st.integers(1, 2))):
        more = f" + {draw(_scalars(world, Scope()))}" if draw(st.booleans()) else ""
        lines.append(f"interaction e{k} = {draw(st.sampled_from(NUMBERS))} * {draw(_reductions(world, Scope()))}{more}")
    lines.append(f"interaction use = a * b + {' + '.join(draw(_uses(world, f)) for f in world.fields)}")
    lines.append(f"observable o = {draw(_scalars(world, Scope()))}")
    lines.append("observable o2 = o^2 - 1")
    lines.append("temperature 1 + a^2")
    return "\n".join(lines) + "\n"


@st.composite
def _lattices(draw, supports: tuple[str, ...]) -> tuple[str, World]:
    kind = draw(st.sampled_from([*DIMENSIONS, "hypercubic", "ladder", "complete"]))
    d = draw(st.integers(1, 4)) if kind == "hypercubic" else 2 if kind == "ladder" else DIMENSIONS.get(kind, 0)
    shape: list[int] = []
    for _ in range(d):
        room = MOST_SITES // BASIS.get(kind, 1)
        for n in shape:
            room //= n
        shape.append(draw(st.integers(1, max(1, min(4, room)))))
    boundary = [draw(st.sampled_from(["periodic", "periodic", "open", "antiperiodic"])) for _ in range(d)]
    sites = BASIS.get(kind, 1)
    for n in shape:
        sites *= n
    bonds = ("nn", "nnn", "shell(3)") if d else ("nn",)
    if kind == "complete":
        sites = draw(st.integers(1, 6))
        text = f"lattice complete({sites})"
    elif kind == "ladder":
        text, bonds = UNIT_CELL.format(*shape, *boundary), ("nn", "all", "x", "z", "nnn", "shell(2)")
    else:
        walls = f"({', '.join(boundary)})" if d > 1 else boundary[0]
        text = f"lattice {kind}({', '.join(map(str, shape))}, boundary = {walls})"
    able = [k for k in supports if "antiperiodic" not in boundary or k not in NO_NEGATION]
    count = draw(st.integers(1, 3))
    fields = tuple(
        (f"s{k}", draw(st.sampled_from(able)), draw(st.sampled_from(["sites", "sites", "links"])) if d else "sites")
        for k in range(count)
    )
    links = d > 0 and any(n > 1 or b != "open" for n, b in zip(shape, boundary, strict=True))
    fields = tuple((name, k, on if links else "sites") for name, k, on in fields)
    bond_data = draw(st.sampled_from(["", *bonds])) if draw(st.booleans()) else ""
    return text, World(
        d, sites, bonds, fields, draw(st.booleans()), bond_data, links and draw(st.booleans()), draw(st.booleans())
    )


@st.composite
def _uses(draw, world: World, f: tuple[str, str, str]) -> str:
    """A term that reads a field on every element, so that each field is used."""
    name, kind, on = f
    read = f"{name}[x, mu]" if on == "links" else f"{name}[x]"
    binder = "x in sites, mu in axes" if on == "links" else "x in sites"
    return f"sum({binder}: {_number_of(draw, kind, read, read)})"


def _number_of(draw, kind: str, r: str, t: str) -> str:
    """A real number out of two values of a field."""
    options = {
        "spin": [r, f"{r} * {t}", f"delta({r}, {t})", f"(if {r} == {t} then 2 else {r})"],
        "occupation": [r, f"{r} * {t}", f"delta({r}, 1)"],
        "real": [r, f"{r} * {t}", f"({r} - {t})^2", f"tanh({r})", f"({r} + 0.1234)^3"],
        "complex": [f"re({r})", f"im({r} * {t})", f"abs({r} - {t})^2", f"re({r}' * {t})", f"re(conj({r}) / (3 + {t}))"],
        "angle": [f"cos({r})", f"cos({r} - {t})", f"sin(2*{r} + {t})", f"wrap({r} - {t} + 0.1234)", f"{r} * {t}"],
        "U(1)": [f"re({r})", f"im({r} * {t}')", f"arg({r} * {t} * 0.5)", f"re(({r}')^2 * {t})"],
        "SU(2)": [f"re(tr({r}))", f"re(tr({r} * {t}'))", f"im(({r} * {t})[0, 1])", f"re({r}[1, 0])"],
        "SU(3)": [f"re(tr({r}))", f"im(tr({r} * {t}'))", f"re(det({r} + {t}))", f"im({r}[2, 1])"],
    }
    if kind.startswith("potts"):
        choices = [r, f"delta({r}, {t})", f"({r} + 2*{t})", f"({r} // 2)", f"(if {r} != {t} then {r} else 0.5)"]
    elif kind.startswith("clock"):
        choices = [f"cos({r})", f"cos({r} - {t})", f"sin({r} + 2*{t})", f"delta({r}, {t})", r]
    elif kind.startswith(("sphere", "real[")):
        base, sep, rest = r.rpartition("]")
        part = f"{base}, 1{sep}{rest}"
        choices = [part, f"dot({r}, {t})", f"norm({r} + 2*{t})", f"dist({r}, {t} / 2)", f"({r} - {t})[0]"]
        if "3" in kind:
            choices.append(f"dot({r}, cross({t}, (1, 0.5, 2)))")
    else:
        choices = options[kind]
    return draw(st.sampled_from(choices))


@st.composite
def _places(draw, world: World, scope: Scope) -> str:
    site = draw(st.sampled_from(scope.sites))
    steps = [""]
    if world.axes:
        steps += [
            f" + ({', '.join(str(draw(st.integers(-2, 2))) for _ in range(world.axes))}{',' * (world.axes == 1)})"
        ]
    for mu in scope.axes:
        steps += [f" + {mu}", f" - 2*{mu}"]
        steps += [f" + {k}*{mu}" for k in scope.integers]
    if world.axes == 1:
        steps += [" + 1", *(f" - {k}" for k in scope.integers)]
    text = site + draw(st.sampled_from(steps))
    if len(scope.axes) > 1 and draw(st.booleans()):
        text += f" + {scope.axes[0]} - {scope.axes[1]}"
    return text


@st.composite
def _reads(draw, world: World, scope: Scope) -> str:
    """A number out of a field."""
    able = [f for f in world.fields if f[2] == "sites" or world.axes]
    name, kind, on = draw(st.sampled_from(able))
    reads = []
    for _ in range(2):
        if on == "links":
            if scope.links and draw(st.booleans()):
                reads.append(f"{name}[{draw(st.sampled_from(scope.links))}]")
            else:
                axes = [*scope.axes, str(draw(st.integers(0, world.axes - 1)))]
                reads.append(f"{name}[{draw(_places(world, scope))}, {draw(st.sampled_from(axes))}]")
        else:
            reads.append(f"{name}[{draw(_places(world, scope))}]")
    return _number_of(draw, kind, *reads)


@st.composite
def _around(draw, world: World, scope: Scope) -> str:
    """A number out of a plaquette."""
    p = draw(st.sampled_from(scope.plaquettes))
    able = [
        f for f in world.fields if f[2] == "links" and f[1] in ("angle", "real", "U(1)", "SU(2)", "SU(3)", "clock(5)")
    ]
    if not able:
        return "1"
    name, kind, _ = draw(st.sampled_from(able))
    if kind in ("angle", "real", "clock(5)"):
        return f"cos(circulation({name}, {p}))"
    return f"re(loop({name}, {p}))" if kind == "U(1)" else f"re(tr(loop({name}, {p})))"


@st.composite
def _data(draw, world: World, scope: Scope) -> str:
    options = ["a"]
    if world.site_data and scope.sites:
        options += [f"h[{draw(_places(world, scope))}]"]
    if world.bond_data:
        options += [f"J[{i}, {j}]" for i, j, over in scope.bonds if over == world.bond_data]
        options += [f"J[{j}, {i}]" for i, j, over in scope.bonds if over == world.bond_data]
    if world.link_data:
        options += [f"K[{link}]" for link in scope.links]
        options += [f"K[{site}, {mu}]" for site in scope.sites for mu in scope.axes]
    if world.table:
        options += [
            "W[2, 1]",
            *(f"W[{site} % 3, 0]" for site in scope.sites),
            *(f"W[{k} + 1, 1]" for k in scope.integers),
        ]
    return draw(st.sampled_from(options[1:] or options))


@st.composite
def _scalars(draw, world: World, scope: Scope) -> str:
    """A real number."""
    deep = scope.depth >= 5
    leaves = ["number", "parameter"]
    if scope.sites or scope.links:
        leaves += ["read"] * 5 + ["data"] * 2 + ["index"]
    if scope.plaquettes:
        leaves += ["around"] * 3
    if not (scope.sites or scope.links or scope.plaquettes or scope.integers or scope.axes):
        leaves += ["reduce"] * 12
    elif not deep and len(scope.sites) < 2:
        leaves += ["reduce"]
    inner = [] if deep else ["binary"] * 4 + ["call", "if", "let", "fn", "power"]
    what = draw(st.sampled_from(leaves + inner))
    below = replace(scope, depth=scope.depth + 1)
    match what:
        case "number":
            return draw(st.sampled_from(NUMBERS))
        case "parameter":
            return draw(st.sampled_from(["a", "b", "c", *scope.locals]))
        case "read":
            return draw(_reads(world, scope)) if scope.sites else _link_read(draw, world, scope)
        case "data":
            return draw(_data(world, scope)) if scope.sites or scope.links else "c"
        case "index":
            return draw(st.sampled_from([f"({x} % 3)" for x in (*scope.sites, *scope.axes)] + [*scope.integers, "1"]))
        case "around":
            return draw(_around(world, scope))
        case "reduce":
            return draw(_reductions(world, scope))
        case "binary":
            left, right = draw(_scalars(world, below)), draw(_scalars(world, below))
            op = draw(st.sampled_from(["+", "-", "*", "*", "/"]))
            return f"({left} / (2 + ({right})^2))" if op == "/" else f"({left} {op} {right})"
        case "call":
            x = draw(_scalars(world, below))
            calls = ["sin({})", "tanh({})", "abs({})", "max({}, 0.123)", "min({}, a, 2)", "sqrt(1 + ({})^2)",
                     "exp(-({})^2 / 4)", "log(1 + ({})^2)", "logcosh({})", "erf({})", "atan2({}, 1.5)"]  # fmt: skip
            return draw(st.sampled_from(calls)).format(x)
        case "if":
            condition, yes, no = draw(_conditions(scope)), draw(_scalars(world, below)), draw(_scalars(world, below))
            return f"(if {condition} then {yes} else {no})"
        case "let":
            name = f"t{scope.depth}"
            inside = replace(below, locals=(*scope.locals, name))
            return f"(let {name} = {draw(_scalars(world, below))} in {draw(_scalars(world, inside))} + {name})"
        case "fn":
            return f"f({draw(_scalars(world, below))}, {draw(_scalars(world, below))})"
    return f"({draw(_scalars(world, below))})^{draw(st.integers(2, 3))}"


def _link_read(draw, world: World, scope: Scope) -> str:
    able = [f for f in world.fields if f[2] == "links"]
    if not able:
        return "1"
    name, kind, _ = draw(st.sampled_from(able))
    read = f"{name}[{draw(st.sampled_from(scope.links))}]"
    return _number_of(draw, kind, read, read)


@st.composite
def _conditions(draw, scope: Scope) -> str:
    """A truth value that does not depend on rounding."""
    options = ["a > 0.5", "b > a or not (a < 2)"]
    integers = [*scope.sites, *scope.integers, *scope.axes]
    options += [f"{x} != 0" for x in integers] + [f"{x} % 2 == 0" for x in integers]
    options += [f"{x} < {y}" for x in scope.sites for y in scope.sites if x != y]
    return draw(st.sampled_from(options))


@st.composite
def _reductions(draw, world: World, scope: Scope) -> str:
    op = draw(st.sampled_from(["sum"] * 5 + ["mean", "prod", "max", "min"]))
    binders, inside = [], replace(scope, depth=scope.depth + 1)
    n = scope.depth
    choices = ["sites"] * 3 + ["bonds"] * 3 + ["range"]
    if world.sites <= 8:
        choices += ["pairs"]
    if world.axes:
        choices += ["sites axes"] * 2 + ["links", "link", "axes", "range axes"]
    if world.axes > 1:
        choices += ["sites planes", "plaquettes", "planes"]
    for word in draw(st.sampled_from(choices)).split():
        match word:
            case "sites":
                binders.append(f"x{n} in sites")
                inside = replace(inside, sites=(*inside.sites, f"x{n}"))
            case "bonds" | "pairs":
                over = draw(st.sampled_from(world.bonds)) if word == "bonds" else "pairs(sites)"
                binders.append(f"<i{n}, j{n}> in {over}")
                inside = replace(
                    inside, sites=(*inside.sites, f"i{n}", f"j{n}"), bonds=(*inside.bonds, (f"i{n}", f"j{n}", over))
                )
            case "range":
                start = draw(st.integers(-1, 0))
                binders.append(f"k{n} in range({start}, 2)")
                inside = replace(inside, integers=(*inside.integers, f"k{n}"))
            case "axes":
                binders.append(f"mu{n} in axes")
                inside = replace(inside, axes=(*inside.axes, f"mu{n}"))
            case "planes":
                binders.append(f"<mu{n}, nu{n}> in planes")
                inside = replace(inside, axes=(*inside.axes, f"mu{n}", f"nu{n}"))
            case "links":
                binders.append(f"<x{n}, mu{n}> in links")
                inside = replace(inside, sites=(*inside.sites, f"x{n}"), axes=(*inside.axes, f"mu{n}"))
            case "link":
                binders.append(f"l{n} in links")
                inside = replace(inside, links=(*inside.links, f"l{n}"))
            case "plaquettes":
                binders.append(f"p{n} in plaquettes")
                inside = replace(inside, plaquettes=(*inside.plaquettes, f"p{n}"))
    where = f" where {draw(_conditions(inside))}" if draw(st.integers(0, 3)) == 0 else ""
    return f"{op}({', '.join(binders)}{where}: {draw(_scalars(world, inside))})"
