"""The compiled energy against a hand-written JAX function of the same model: time and memory.

    python benchmarks/energy.py [--models ising,su3] [--repeat 60]

Each pair (compiled, by hand) is jitted from the same stored configuration and parameters and called in turn, many
times; a ratio is that of the two median times, so that whatever else the machine does hits both alike. Memory is the
arrays XLA allocates while it runs (`memory_analysis().temp_size_in_bytes`). `same` marks pairs whose optimised
programs are the same but for names, where any other ratio than 1 is noise. Continuous models are also timed with
their gradient with respect to the configuration. Results are recorded in `energy.md`.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from vdsl.compile import loads
from vdsl.model import Model

BATCH = 16
Array = jax.Array
Energy = Callable[[Array, dict[str, Array]], Array]


@dataclass(frozen=True)
class Case:
    """A model as text, and what a practised hand would write for it: `by_hand(x, θ)` from the stored array."""

    text: str
    by_hand: Callable[[Model], Energy]
    continuous: bool
    batches: bool = True


def ising(model: Model) -> Energy:
    shape = model.program.lattice.shape

    def energy(x: Array, p: dict[str, Array]) -> Array:
        s = x.reshape(shape).astype(jnp.float32)
        exchange = -p["J"] * jnp.sum(s * (jnp.roll(s, -1, 0) + jnp.roll(s, -1, 1)))
        zeeman = -p["h"] * jnp.sum(s)
        return exchange + zeeman

    return energy


def edwards_anderson(model: Model) -> Energy:
    shape = model.program.lattice.shape
    couplings = np.asarray(model.program.data[0].values.values, np.float32).reshape(*shape, 3)
    jx, jy, jz = (np.ascontiguousarray(couplings[..., a]) for a in range(3))

    def energy(x: Array, p: dict[str, Array]) -> Array:
        s = x.reshape(shape).astype(jnp.float32)
        field = jx * jnp.roll(s, -1, 0) + jy * jnp.roll(s, -1, 1) + jz * jnp.roll(s, -1, 2)
        return -jnp.sum(s * field)

    return energy


def phi4(model: Model) -> Energy:
    shape = model.program.lattice.shape

    def energy(x: Array, p: dict[str, Array]) -> Array:
        phi = x.reshape(shape)
        density = p["m2"] * phi**2 + p["lam"] * phi**4
        for mu in range(2):
            density += phi * (2 * phi - jnp.roll(phi, -1, mu) - jnp.roll(phi, 1, mu))
        return jnp.sum(density)

    return energy


def xy(model: Model) -> Energy:
    shape = model.program.lattice.shape

    def energy(x: Array, p: dict[str, Array]) -> Array:
        t = x.reshape(shape)
        return -p["J"] * jnp.sum(jnp.cos(t - jnp.roll(t, -1, 0)) + jnp.cos(t - jnp.roll(t, -1, 1)))

    return energy


def u1(model: Model) -> Energy:
    shape = model.program.lattice.shape
    d = len(shape)

    def energy(x: Array, p: dict[str, Array]) -> Array:
        t = x.reshape(*shape, d)
        t = [t[..., mu] for mu in range(d)]
        total = 0.0
        for mu in range(d):
            for nu in range(mu + 1, d):
                total += jnp.cos(t[mu] + jnp.roll(t[nu], -1, mu) - jnp.roll(t[mu], -1, nu) - t[nu])
        return -p["beta"] * jnp.sum(total)

    return energy


Matrix = list[list[Array]]


def su3(model: Model) -> Energy:
    """Products written out over the components, which beats `einsum` and `@` on small matrices by far on a CPU.

    Each direction's links are laid out component by component, rolled as one array and split: of the ways tried this
    has the fastest gradient (subscripts instead of `split` need 4.5 times its memory, `einsum` 5 times its time).
    """
    shape = model.program.lattice.shape
    d = len(shape)

    def components(a: Array) -> Matrix:
        c = [part.reshape(shape) for part in jax.lax.split(a, (1,) * 9)]
        return [c[0:3], c[3:6], c[6:9]]

    def energy(x: Array, p: dict[str, Array]) -> Array:
        u = x.reshape(*shape, d, 9)
        whole = [jnp.moveaxis(u[..., mu, :], -1, 0) for mu in range(d)]
        links = [components(a) for a in whole]
        return (
            -p["beta"] / 3 * jnp.sum(_plaquettes(links, lambda mu, axis: components(jnp.roll(whole[mu], -1, axis + 1))))
        )

    return energy


def su3_by_component(model: Model) -> Energy:
    """The same, rolling each component on its own: the least memory for a gradient, and several times the time."""
    shape = model.program.lattice.shape
    d = len(shape)

    def energy(x: Array, p: dict[str, Array]) -> Array:
        u = x.reshape(*shape, d, 3, 3)
        links = [[[u[..., mu, i, j] for j in range(3)] for i in range(3)] for mu in range(d)]
        return (
            -p["beta"]
            / 3
            * jnp.sum(_plaquettes(links, lambda mu, axis: [[jnp.roll(c, -1, axis) for c in row] for row in links[mu]]))
        )

    return energy


def _plaquettes(links: list[Matrix], shifted: Callable[[int, int], Matrix]) -> Array:
    """Σ over planes of Re tr of the plaquette at each site; `shifted(mu, axis)`: the links mu one site further."""

    def product(a: Matrix, b: Matrix) -> Matrix:
        return [[sum(a[i][k] * b[k][j] for k in range(3)) for j in range(3)] for i in range(3)]

    total = 0.0
    for mu in range(len(links)):
        for nu in range(mu + 1, len(links)):
            left = product(links[mu], shifted(nu, mu))
            right = product(links[nu], shifted(mu, nu))
            total += sum((left[i][j] * right[i][j].conj()).real for i in range(3) for j in range(3))
    return total


_WILSON = """
param beta = 6.0
field U : SU(3) on links
interaction wilson = -beta/3 * sum(x in sites, <mu, nu> in planes:
    re(tr(U[x, mu] * U[x + mu, nu] * U[x + nu, mu]' * U[x, nu]')))
temperature 1
"""
CASES: dict[str, Case] = {
    "ising 128²": Case(
        """
param J = 1.0
param h = 0.1
lattice square(128, 128)
field s : spin
interaction exchange = -J * sum(<i, j> in nn: s[i] * s[j])
interaction zeeman   = -h * sum(i in sites: s[i])
temperature 1
""",
        ising,
        False,
    ),
    "edwards-anderson 24³": Case(
        """
lattice cubic(24, 24, 24)
field s : spin
data J on nn ~ normal(0, 1) seed 7
interaction ea = -sum(<i, j> in nn: J[i, j] * s[i] * s[j])
temperature 0.5
""",
        edwards_anderson,
        False,
    ),
    "phi4 128²": Case(
        """
param m2 = -4.0
param lam = 6.008
lattice hypercubic(128, 128)
field phi : real
interaction kinetic   = sum(x in sites, mu in axes: phi[x] * (2*phi[x] - phi[x + mu] - phi[x - mu]))
interaction potential = sum(x in sites: m2 * phi[x]^2 + lam * phi[x]^4)
temperature 1
""",
        phi4,
        True,
    ),
    "xy 128²": Case(
        """
lattice square(128, 128)
field theta : angle
param J = 1.0
interaction xy = -J * sum(<i, j> in nn: cos(theta[i] - theta[j]))
temperature 0.9
""",
        xy,
        True,
    ),
    "u1 128²": Case(
        """
param beta = 6.0
lattice hypercubic(128, 128)
field theta : angle on links
interaction wilson = -beta * sum(p in plaquettes: cos(circulation(theta, p)))
temperature 1
""",
        u1,
        True,
    ),
    "u1 10⁴, 4D": Case(
        """
param beta = 1.0
lattice hypercubic(10, 10, 10, 10)
field theta : angle on links
interaction wilson = -beta * sum(p in plaquettes: cos(circulation(theta, p)))
temperature 1
""",
        u1,
        True,
        batches=False,
    ),
    "su3 128²": Case("lattice hypercubic(128, 128)" + _WILSON, su3, True),
    "su3 128² by component": Case("lattice hypercubic(128, 128)" + _WILSON, su3_by_component, True, batches=False),
    "su3 10⁴, 4D": Case("lattice hypercubic(10, 10, 10, 10)" + _WILSON, su3, True, batches=False),
}


@dataclass(frozen=True)
class Row:
    """One comparison: median seconds, temporary bytes and seconds to compile, compiled and by hand."""

    name: str
    what: str
    seconds: tuple[float, float]
    bytes: tuple[int, int]
    compilation: tuple[float, float]
    same: bool

    @property
    def time_ratio(self) -> float:
        return self.seconds[0] / self.seconds[1]

    @property
    def memory_ratio(self) -> float:
        return self.bytes[0] / self.bytes[1] if self.bytes[1] else float(self.bytes[0] > 0) + 1.0


def compare(name: str, case: Case, repeat: int) -> list[Row]:
    """All comparisons of one model."""
    model = loads(case.text, "benchmark.vfe")
    by_hand = case.by_hand(model)
    theta = model.parameters()
    (xs,) = model.random_configuration(jax.random.key(0), BATCH).values()
    rows = []
    for what, x, wrap in _wrappings(xs, case):
        functions = [jax.jit(wrap(f)) for f in (model.energy, by_hand)]
        compiled, compilation = zip(*[_compiled(f, x, theta) for f in functions], strict=True)
        first, second = (jax.tree.leaves(f(x, theta)) for f in compiled)
        for a, b in zip(first, second, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4 * float(jnp.abs(b).max()))
        memory = [c.memory_analysis().temp_size_in_bytes for c in compiled]
        texts = [_anonymous(c.as_text()) for c in compiled]
        medians = _medians(list(compiled), (x, theta), repeat)
        rows.append(Row(name, what, medians, tuple(memory), compilation, texts[0] == texts[1]))
    return rows


def _compiled(f: Callable, *arguments: object) -> tuple[Callable, float]:
    start = time.perf_counter()
    return f.lower(*arguments).compile(), time.perf_counter() - start


def _wrappings(xs: Array, case: Case) -> list[tuple[str, Array, Callable[[Energy], Callable]]]:
    one: list[tuple[str, Callable[[Energy], Callable]]] = [("energy", lambda f: f)]
    if case.continuous:
        one.append(("energy and gradient", lambda f: jax.value_and_grad(f)))
    batch = [(f"{what}, batch {BATCH}", lambda f, wrap=wrap: jax.vmap(wrap(f), (0, None))) for what, wrap in one]
    found = [(what, xs[0], wrap) for what, wrap in one]
    return found + [(what, xs, wrap) for what, wrap in batch] if case.batches else found


def _medians(functions: list[Callable], arguments: tuple, repeat: int) -> tuple[float, float]:
    """Median seconds of each, called in turn and in alternating order; short ones several times at once."""
    start = time.perf_counter()
    for f in functions:
        jax.block_until_ready(f(*arguments))
        jax.block_until_ready(f(*arguments))
    inner = max(1, int(1e-3 / max((time.perf_counter() - start) / 4, 1e-6)))
    times: list[list[float]] = [[], []]
    for k in range(repeat):
        for which in (0, 1) if k % 2 else (1, 0):
            f = functions[which]
            start = time.perf_counter()
            for _ in range(inner):
                jax.block_until_ready(f(*arguments))
            times[which].append((time.perf_counter() - start) / inner)
    return tuple(float(np.median(t)) for t in times)  # type: ignore[return-value]


def _anonymous(hlo: str) -> str:
    """Optimised HLO without metadata and names: computations and values numbered as they appear."""
    hlo = re.sub(r", metadata=\{[^}]*\}", "", hlo)
    hlo = re.sub(r"^HloModule [^\n]*", "", hlo)
    hlo = re.sub(r"(?s)\nFileNames.*?(?=\n%|\nENTRY)", "", hlo)
    numbers: dict[str, str] = {}
    return re.sub(r"%?[\w.-]*\.?\d*[A-Za-z_][\w.-]*", lambda m: _numbered(m.group(), numbers), hlo)


def _numbered(word: str, numbers: dict[str, str]) -> str:
    return numbers.setdefault(word, f"v{len(numbers)}") if word.startswith("%") or "." in word else word


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| model | what | compiled ms | by hand ms | time ratio | compiled MiB | by hand MiB | memory ratio "
        "| compile s | same |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        (a, b), (m, n) = r.seconds, r.bytes
        lines.append(
            f"| {r.name} | {r.what} | {a * 1e3:.3f} | {b * 1e3:.3f} | {r.time_ratio:.3f} "
            f"| {m / 2**20:.3f} | {n / 2**20:.3f} | {r.memory_ratio:.3f} "
            f"| {r.compilation[0]:.1f} : {r.compilation[1]:.1f} | {'yes' if r.same else ''} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Runs the comparisons and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="", help="comma-separated beginnings of names")
    parser.add_argument("--repeat", type=int, default=60)
    arguments = parser.parse_args()
    wanted = tuple(arguments.models.split(","))
    rows: list[Row] = []
    for name, case in CASES.items():
        if name.startswith(wanted):
            rows += compare(name, case, arguments.repeat)
    print(table(rows))


if __name__ == "__main__":
    main()
