"""The compiled energy against a hand-written JAX function of the same model: time and memory.

    python benchmarks/energy.py [--models ising,su3] [--repeat 60] [--markdown]

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


def ising(model: Model) -> Energy:
    shape = model.program.lattice.shape

    def energy(x: Array, p: dict[str, Array]) -> Array:
        s = x.reshape(shape).astype(jnp.float32)
        pairs = s * (jnp.roll(s, -1, 0) + jnp.roll(s, -1, 1))
        return -p["J"] * jnp.sum(pairs) - p["h"] * jnp.sum(s)

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

    def energy(x: Array, p: dict[str, Array]) -> Array:
        t = x.reshape(*shape, 2)
        t0, t1 = t[..., 0], t[..., 1]
        return -p["beta"] * jnp.sum(jnp.cos(t0 + jnp.roll(t1, -1, 0) - jnp.roll(t0, -1, 1) - t1))

    return energy


def su3(model: Model) -> Energy:
    """Products written out over the components, which beats `einsum` and `@` on small matrices by far on a CPU."""
    shape = model.program.lattice.shape
    d = len(shape)

    def product(a: list, b: list) -> list:
        return [[sum(a[i][k] * b[k][j] for k in range(3)) for j in range(3)] for i in range(3)]

    def adjoint(a: list) -> list:
        return [[a[j][i].conj() for j in range(3)] for i in range(3)]

    def energy(x: Array, p: dict[str, Array]) -> Array:
        u = x.reshape(*shape, d, 3, 3)
        links = [[[u[..., mu, i, j] for j in range(3)] for i in range(3)] for mu in range(d)]

        def shifted(mu: int, axis: int) -> list:
            return [[jnp.roll(c, -1, axis) for c in row] for row in links[mu]]

        total = 0.0
        for mu in range(d):
            for nu in range(mu + 1, d):
                left = product(links[mu], shifted(nu, mu))
                right = product(links[nu], shifted(mu, nu))
                total += sum((left[i][j] * right[i][j].conj()).real for i in range(3) for j in range(3))
        return -p["beta"] / 3 * jnp.sum(total)

    return energy


def su3_einsum(model: Model) -> Energy:
    """The same with `einsum`, as many codes have it."""
    shape = model.program.lattice.shape
    d = len(shape)

    def energy(x: Array, p: dict[str, Array]) -> Array:
        u = jnp.moveaxis(x.reshape(*shape, d, 3, 3), d, 0)
        total = 0.0
        for mu in range(d):
            for nu in range(mu + 1, d):
                left = jnp.einsum("...ij,...jk->...ik", u[mu], jnp.roll(u[nu], -1, mu))
                right = jnp.einsum("...ij,...jk->...ik", u[nu], jnp.roll(u[mu], -1, nu))
                total += jnp.einsum("...ik,...ik->...", left, right.conj()).real
        return -p["beta"] / 3 * jnp.sum(total)

    return energy


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
    "su3 10⁴": Case("lattice hypercubic(10, 10, 10, 10)" + _WILSON, su3, True),
    "su3 128²": Case("lattice hypercubic(128, 128)" + _WILSON, su3, True),
}


@dataclass(frozen=True)
class Row:
    """One comparison: median seconds and temporary bytes, compiled and by hand."""

    name: str
    what: str
    seconds: tuple[float, float]
    bytes: tuple[int, int]
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
    for what, x, wrap in _wrappings(xs, case.continuous):
        functions = [jax.jit(wrap(f)) for f in (model.energy, by_hand)]
        compiled = [f.lower(x, theta).compile() for f in functions]
        first, second = (jax.tree.leaves(f(x, theta)) for f in compiled)
        for a, b in zip(first, second, strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4 * float(jnp.abs(b).max()))
        memory = [c.memory_analysis().temp_size_in_bytes for c in compiled]
        texts = [_anonymous(c.as_text()) for c in compiled]
        rows.append(Row(name, what, _medians(functions, (x, theta), repeat), tuple(memory), texts[0] == texts[1]))
    return rows


def _wrappings(xs: Array, continuous: bool) -> list[tuple[str, Array, Callable[[Energy], Callable]]]:
    one: list[tuple[str, Callable[[Energy], Callable]]] = [("energy", lambda f: f)]
    if continuous:
        one.append(("energy and gradient", lambda f: jax.value_and_grad(f)))
    batch = [(f"{what}, batch {BATCH}", lambda f, wrap=wrap: jax.vmap(wrap(f), (0, None))) for what, wrap in one]
    return [(what, xs[0], wrap) for what, wrap in one] + [(what, xs, wrap) for what, wrap in batch]


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
        "| model | what | compiled ms | by hand ms | time ratio | compiled MiB | by hand MiB | memory ratio | same |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        (a, b), (m, n) = r.seconds, r.bytes
        lines.append(
            f"| {r.name} | {r.what} | {a * 1e3:.3f} | {b * 1e3:.3f} | {r.time_ratio:.3f} "
            f"| {m / 2**20:.3f} | {n / 2**20:.3f} | {r.memory_ratio:.3f} | {'yes' if r.same else ''} |"
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
