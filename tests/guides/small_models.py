"""Small models of every kind that discrete guides serve, and what is true of them by enumeration, in float64."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from unittest.mock import patch

import jax
import numpy as np

import vdsl
from vdsl.guides import registry
from vdsl.guides.alphabet import Alphabet, alphabet_of
from vdsl.guides.autoregressive import Autoregressive, build_autoregressive, interactions
from vdsl.guides.dissection import Dissection, dissect
from vdsl.guides.guide import Guide, Params
from vdsl.guides.problem import Problem
from vdsl.ir import factors, interpret, tables
from vdsl.ir.factors import FactorGraph, factorise
from vdsl.ir.program import Program
from vdsl.ir.support import stored_states
from vdsl.model import Model

ISING = "field s : spin\ninteraction e = -1.3 * sum(<i, j> in nn: s[i] * s[j])\n"
GLASS = "field s : spin\ndata J on nn ~ normal(0, 1) seed 3\n"
GLASS += "interaction e = -sum(<i, j> in nn: J[i, j] * s[i] * s[j])\n"

SOURCES = {
    "ising": "lattice square(3, 3)\n" + ISING + "temperature 2.3",
    "ising in a field": "lattice square(3, 3)\n"
    + ISING
    + "data h on sites ~ normal(0, 0.5) seed 1\ninteraction z = -sum(i in sites: (h[i] + 0.1) * s[i])\ntemperature 2",
    "triangular antiferromagnet": "lattice triangular(3, 3)\nfield s : spin\n"
    "interaction e = sum(<i, j> in nn: s[i] * s[j])\ntemperature 0.7",
    "ring": "lattice chain(8)\n" + ISING + "temperature 1.1",
    "graph": 'lattice graph(from "ring_with_tail.csv")\n' + GLASS + "temperature 0.6",
    "spin glass": "lattice complete(6)\n" + GLASS + "temperature 0.5",
    "potts": "lattice square(3, 2)\nfield s : potts(3)\n"
    "interaction e = -sum(<i, j> in nn: delta(s[i], s[j]))\ntemperature 0.9",
    "chiral potts": "lattice square(3, 2)\nfield s : potts(3)\ninteraction e = -sum(<i, j> in nn: "
    "cos(2 * pi * (s[i] - s[j]) / 3 + 0.4))\ntemperature 0.9",
    "clock": "lattice square(2, 3)\nfield a : clock(4)\n"
    "interaction e = -sum(<i, j> in nn: cos(a[i] - a[j]))\ntemperature 0.9",
    "clock in a field": "lattice square(2, 2, boundary = open)\nfield a : clock(5)\n"
    "interaction e = -sum(<i, j> in nn: cos(a[i] - a[j])) - 0.3 * sum(i in sites: cos(2 * a[i]) + sin(a[i]))\n"
    "temperature 0.9",
    "lattice gas": "lattice square(3, 3)\nfield n : occupation\n"
    "interaction e = -3 * sum(<i, j> in nn: n[i] * n[j]) + 5 * sum(i in sites: n[i])\ntemperature 1.5",
    "ashkin-teller": "lattice square(2, 3)\nfield s : spin\nfield t : spin\n"
    "interaction e = -sum(<i, j> in nn: 0.5 * s[i] * s[j] + 0.7 * t[i] * t[j] + 0.3 * s[i] * s[j] * t[i] * t[j])\n"
    "temperature 1.5",
    "spin and potts": "lattice square(2, 2, boundary = open)\nfield s : spin\nfield p : potts(3)\n"
    "interaction e = -sum(<i, j> in nn: (1 + s[i] * s[j]) * delta(p[i], p[j]) + 0.2 * s[i] * p[j])\ntemperature 1.2",
    "letters of two sizes": "lattice chain(3)\nfield p : potts(5)\nfield a : clock(4)\n"
    "interaction e = -sum(<i, j> in nn: delta(p[i], p[j]) + cos(a[i] - a[j]))"
    " - sum(i in sites: p[i] * cos(a[i]) / 4)\ntemperature 0.8",
    "spins and links": "lattice square(2, 3, boundary = open)\nfield s : spin\nfield U : spin on links\n"
    "interaction e = -sum(x in sites, mu in axes: s[x] * U[x, mu] * s[x + mu]) - 0.3 * sum(<x, mu> in links: U[x, mu])"
    "\ntemperature 1.2",
    "link gauge": "lattice square(2, 2)\nfield U : spin on links\ninteraction e = -sum(x in sites: "
    "U[x, 0] * U[x + (1, 0), 1] * U[x + (0, 1), 0] * U[x, 1]) - 0.2 * sum(<x, mu> in links: U[x, mu])\n"
    "temperature 1.3",
    "plaquettes": "lattice square(3, 3)\nfield s : spin\ninteraction e = -sum(<i, j> in nn: s[i] * s[j])\n"
    "interaction four = 0.4 * sum(x in sites: s[x] * s[x + (1, 0)] * s[x + (0, 1)] * s[x + (1, 1)])\ntemperature 2",
    "antiperiodic": "lattice square(3, 3, boundary = (antiperiodic, open))\n" + ISING + "temperature 1.7",
    "opaque": "lattice square(2, 3, boundary = open)\n" + ISING + "interaction all = abs(sum(i in sites: s[i]) - 1)^1.5"
    "\ntemperature 1.7",
    "opaque potts": "lattice chain(5)\nfield p : potts(3)\ninteraction e = -sum(<i, j> in nn: delta(p[i], p[j]))\n"
    "interaction all = exp(sum(i in sites: p[i]) / 8)\ntemperature 0.9",
}  # fmt: skip

OPAQUE = ("opaque", "opaque potts")


@dataclass(frozen=True)
class Small:
    """A model that can be enumerated. `states` (M, n): every configuration, as state numbers of its variables."""

    model: Model
    theta: dict[str, float]
    graph: FactorGraph

    @property
    def program(self) -> Program:
        return self.model.program

    @cached_property
    def temperature(self) -> float:
        return interpret.temperature(self.program, self.theta)

    @cached_property
    def states(self) -> np.ndarray:
        q = tuple(self.graph.cardinalities.tolist())
        return np.stack(np.unravel_index(np.arange(np.prod(q)), q), axis=1)

    @cached_property
    def configurations(self) -> dict[str, np.ndarray]:
        """All of them as the model stores them, {field: (M, elements)}."""
        return self.stored(self.states)

    def stored(self, states: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: stored_states(self.program.field(name).support)[states[:, first : first + count]]
            for name, first, count in self.graph.fields
        }

    def number(self, x: dict[str, np.ndarray]) -> np.ndarray:
        """Where configurations stand among all of them."""
        columns = [
            np.searchsorted(stored_states(self.program.field(name).support), np.asarray(x[name]))
            for name, *_ in self.graph.fields
        ]
        return np.ravel_multi_index(tuple(np.concatenate(columns, 1).T), tuple(self.graph.cardinalities))

    @cached_property
    def energies(self) -> np.ndarray:
        """Of every configuration: from the factors, or from the interpreter where there are opaque terms."""
        if not self.graph.opaque:
            return self.graph.energy(self.states)
        return np.array([self.interpreted(k) for k in range(len(self.states))])

    def interpreted(self, number: int) -> float:
        """The energy of one configuration by the reference evaluator."""
        x = {name: values[number] for name, values in self.configurations.items()}
        return interpret.energy(self.program, x, self.theta)

    @cached_property
    def reduced(self) -> np.ndarray:
        """βE of every configuration."""
        return self.energies / self.temperature

    @cached_property
    def ln_z(self) -> float:
        return float(np.logaddexp.reduce(-self.reduced))

    @cached_property
    def alphabet(self) -> Alphabet:
        return alphabet_of(self.program, self.graph)

    def dissected(self, width: int) -> Dissection:
        """A skeleton even though tables would do."""
        return dissect(interactions(self.alphabet), width)

    def autoregressive(self, width: int, hidden: int = 4) -> Autoregressive:
        return build_autoregressive(self.alphabet, self.dissected(width), self.graph.constant, self.temperature, hidden)

    def guide(self, form: str, width: int = 1) -> Guide:
        """A registered guide by its name, its sweeps no wider than `width`: these models need no skeleton otherwise."""
        with small_tables(bool(self.graph.opaque)):
            with patch.object(registry, "sweep_width", lambda q, n: width):
                choice = registry.GUIDES[form].choose(Problem(self.program, self.theta))
            return registry.build(choice, Problem(self.program, self.theta))


@contextmanager
def small_tables(yes: bool) -> Iterator[None]:
    """Models that can be enumerated could be tabulated whole: with pair tables at most, some terms are opaque."""
    with ExitStack() as stack:
        for module, name in ((factors, "SMALL_TABLE"), (tables, "SMALL_TABLE"), (tables, "MAX_TABLE")) if yes else ():
            stack.enter_context(patch.object(module, name, 2**4))
        yield


def small(text: str, opaque: bool = False) -> Small:
    model = vdsl.loads(text, base_dir=Path(__file__).parent)
    theta = interpret.resolve_parameters(model.program)
    with small_tables(opaque):
        return Small(model, theta, factorise(model.program, theta))


@cache
def named(name: str) -> Small:
    return small(SOURCES[name], name in OPAQUE)


def random_params(guide: Guide, seed: int = 0, size: float = 0.3) -> Params:
    """Parameters as training might leave them: nothing is zero, no symmetry is accidental."""
    params = guide.init(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda p: p + np.asarray(size * rng.standard_normal(p.shape), p.dtype), params)


def log_prob(guide: Guide, params: Params, x: dict[str, np.ndarray]) -> np.ndarray:
    """ln q of configurations, in float64 for comparing."""

    @jax.jit
    def run(guide: Guide, params: Params, x: dict) -> jax.Array:
        return guide.log_prob(params, x)

    return np.asarray(compiled(run, guide, params, x), float)


def compiled(function: Any, *arguments: Any) -> Any:
    """The result of a jitted function that runs once: compiling is all the time it takes, so without optimising."""
    return function.lower(*arguments).compile(compiler_options={"xla_backend_optimization_level": 0})(*arguments)


def seed_of(*names: str) -> int:
    """A number that depends on the names only."""
    return zlib.crc32(" ".join(names).encode())
