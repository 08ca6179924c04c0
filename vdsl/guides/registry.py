"""Registry: the guides there are, and which one a model gets.

`choose` looks at the structure of a model once and says which guide and why; `build` makes that guide for given
parameter values. Guides built from one choice have arrays of the same shapes, so that a sweep compiles once.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.exact.cost import elimination_cost
from vdsl.exact.elimination import conditional_tables
from vdsl.guides.alphabet import Alphabet, Codec, Digit, alphabet_of
from vdsl.guides.arrays import reals
from vdsl.guides.autoregressive import build_autoregressive, interactions, sweep_width, symmetry_of
from vdsl.guides.continuous import build_continuous, choose_continuous, transfer
from vdsl.guides.coupling import build_coupling, choose_coupling
from vdsl.guides.dissection import Dissection, dissect
from vdsl.guides.equivariant import build_gauge_flow, choose_gauge_continuous, choose_gauge_coupling
from vdsl.guides.factors import Energy, ModelEnergy, build_factor_energy
from vdsl.guides.gauge.tree import build_tree, choose_tree
from vdsl.guides.gaussian import build_gaussian, choose_gaussian
from vdsl.guides.guide import Guide, GuideChoice, Params
from vdsl.guides.hartree import is_quadratic
from vdsl.guides.mean_field import build_mean_field
from vdsl.guides.multiscale import build_multiscale, choose_multiscale
from vdsl.guides.multiscale import transfer as transfer_multiscale
from vdsl.guides.problem import Problem, cannot_serve
from vdsl.guides.sequential import build_sequential, choose_sequential
from vdsl.guides.tables import build_tables
from vdsl.ir.factors import FactorGraph
from vdsl.ir.gauge import gauge_group_of
from vdsl.ir.graph import Symbolic, best_order, neighbours
from vdsl.ir.program import Program
from vdsl.ir.support import Spin, describe, event_shape, is_discrete, stored_states

_TABLE_ENTRIES = 2**24  # of all tables of the exact guide together: 64 MiB in float32
_DENSE_WEIGHTS = 2**28
_MOST_VALUES = 2**20
# Real variables. φ⁴ 14×14, whose coarsest sites are 49, one core, 75 s: autoregressive .89, multiscale .58 (from
# the best Gaussian; not measured since it starts from expectation propagation).
_LARGE_FOR_NETWORKS_OF_THEIR_OWN, _LARGE_FOR_SCORES = 200, 512


@dataclass(frozen=True)
class Structure:
    """What `choose` found and `build` needs again: an elimination, or a dissection and a net size."""

    symbolic: Symbolic | None = None
    dissection: Dissection | None = None
    hidden: int = 0


def choose(problem: Problem, name: str | None = None) -> GuideChoice:
    """The guide of that name, or the default for the model, with the reason and the sizes.

    Raises VfeError: `unknown-guide` (usage), `no-guide` for fields that no guide here serves, `guide-cannot-serve` for
    a named guide that the model is too large or too entangled for.
    """
    check_fields(problem.program)
    if name is not None and name not in GUIDES:
        close = difflib.get_close_matches(name, GUIDES, 1)
        raise VfeError(
            Diagnostic(
                "unknown-guide",
                f"no guide called `{name}`",
                notes=(f"guides: {', '.join(GUIDES)}",),
                hints=(f"did you mean `{close[0]}`?",) if close else (),
            ),
            exit_code=2,
        )
    if name is not None:
        return GUIDES[name].choose(problem)
    if not problem.discrete:
        return _default_continuous(problem)
    exact = _choose_exact(problem)
    return exact if exact is not None else _choose_autoregressive(problem)


def check_fields(program: Program) -> Program:
    """The program, unless it has too many values of fields. Raises VfeError `too-large` (exit code 4)."""
    values = sum(program.elements(f) * int(np.prod(event_shape(f.support), dtype=int)) for f in program.fields)
    if values > _MOST_VALUES:
        why = f"guides serve up to {_MOST_VALUES:,} values of fields, and this model has {values:,}"
        raise VfeError(Diagnostic("too-large", "this lattice is too large to solve", notes=(why,)), exit_code=4)
    return program


def build(choice: GuideChoice, problem: Problem) -> Guide:
    """The chosen guide for a problem. Raises VfeError `bad-temperature`."""
    return GUIDES[choice.name].build(choice, problem)


# --- discrete fields -------------------------------------------------------------------------------------------------


def _choose_exact(problem: Problem) -> GuideChoice | None:
    graph = _factors(problem, "exact")
    if graph.opaque:
        return None
    symbolic = best_order(neighbours(graph), graph.cardinalities, graph.coordinates, budget=np.log2(_TABLE_ENTRIES) - 4)
    cost = elimination_cost(graph, symbolic, keep_tables=True)
    if not cost.feasible or cost.table_entries > _TABLE_ENTRIES:
        return None
    return GuideChoice(
        "exact",
        "the interaction graph is narrow: variable elimination gives every conditional exactly, nothing is trained",
        {
            "variables": graph.n,
            "width": symbolic.width,
            "depth": int(symbolic.levels().max()) + 1,
            "mean parents": float(np.mean([len(p) for p in symbolic.parents])),
            "table entries": int(cost.table_entries),
            "parameters": 0,
        },
        Structure(symbolic=symbolic),
    )


def _require_exact(problem: Problem) -> GuideChoice:
    found = _choose_exact(problem)
    if found is None:
        raise cannot_serve("exact", "its interaction graph is too wide for tables", "leave the choice to vdsl")
    return found


def _build_exact(choice: GuideChoice, problem: Problem) -> Guide:
    graph, program, temperature = problem.graph, problem.program, problem.temperature
    tables = conditional_tables(graph, temperature, choice.structure.symbolic)
    digits = tuple(
        Digit(
            name,
            first,
            count,
            1,
            int(graph.cardinalities[first]),
            isinstance(program.field(name).support, Spin),
            str(stored_states(program.field(name).support).dtype),
        )
        for name, first, count in graph.fields
    )
    return build_tables(tables, Codec(graph.n, digits), graph.cardinalities, temperature)


def _choose_autoregressive(problem: Problem) -> GuideChoice:
    if not problem.discrete:
        return replace(choose_sequential(problem), name="autoregressive")
    graph = _factors(problem, "autoregressive")
    if graph.opaque:
        terms = ", ".join(f"`{name}`" for name, _ in graph.opaque)
        why = f"{terms} couples everything: nothing can be summed exactly, all letters are learned"
        return replace(_choose_dense(problem, "autoregressive"), name="autoregressive", reason=why)
    alphabet = alphabet_of(problem.program, graph)
    dissection = dissect(interactions(alphabet), sweep_width(alphabet.q, alphabet.n))
    learned, n = len(dissection.skeleton), alphabet.n
    reason = (
        f"the interaction graph is too wide for exact tables: {learned} of {n} sites are learned one after another, "
        f"the other {n - learned} fall into {len(dissection.blocks)} blocks that are summed and sampled exactly"
    )
    hidden = _hidden(problem, "autoregressive", len(dissection.skeleton))
    return _autoregressive_choice("autoregressive", reason, alphabet, dissection, hidden)


def _choose_dense(problem: Problem, called: str = "dense") -> GuideChoice:
    alphabet = alphabet_of(problem.program, _factors(problem, "dense"))
    n = alphabet.n
    hidden = _hidden(problem, called, n)
    if n * n * hidden * max(1, alphabet.q - 1) > _DENSE_WEIGHTS:
        raise cannot_serve("dense", f"{n} sites with all-to-all weights need too much memory", "use `autoregressive`")
    before = tuple(np.arange(k) for k in range(n))
    dissection = Dissection(np.arange(n), before, np.arange(n), (), 0)
    reason = "a baseline: every site is learned, in lattice order, each conditional sees all earlier sites"
    return _autoregressive_choice("dense", reason, alphabet, dissection, hidden)


def _autoregressive_choice(
    name: str, reason: str, alphabet: Alphabet, dissection: Dissection, hidden: int
) -> GuideChoice:
    parents = [len(p) for p in dissection.parents]
    net, group = symmetry_of(alphabet, dissection.skeleton)
    symmetry = {"odd": "global flip", "colours": f"permutation of {alphabet.q} colours"}.get(net, "")
    return GuideChoice(
        name,
        reason,
        {
            "sites": alphabet.n,
            "learned": len(dissection.skeleton),
            "blocks": len(dissection.blocks),
            "block width": dissection.width,
            "depth": dissection.depth,
            "mean parents": float(np.mean(parents)) if parents else 0.0,
            "most parents": max(parents, default=0),
            "hidden units": hidden,
            "symmetry built in": (group.description if group is not None else symmetry) or "none",
        },
        Structure(dissection=dissection, hidden=hidden),
    )


def _hidden(problem: Problem, guide: str, learned: int) -> int:
    """Units of each conditional's hidden layer: a choice that serves 16×16 and 32×32 Ising at T_c, not an optimum."""
    return int(problem.options(guide).get("hidden", 32 if learned <= 100 else 64))


def _build_autoregressive(choice: GuideChoice, problem: Problem) -> Guide:
    if not problem.discrete:
        return build_sequential(choice, problem)
    graph, temperature = problem.graph, problem.temperature
    alphabet = alphabet_of(problem.program, graph)
    structure = choice.structure
    whole = _energy(problem, alphabet) if graph.opaque else None
    return build_autoregressive(alphabet, structure.dissection, graph.constant, temperature, structure.hidden, whole)


def _choose_mean_field(problem: Problem) -> GuideChoice:
    alphabet = alphabet_of(problem.program, _factors(problem, "mean_field"))
    reason = "a baseline: every site independent"
    return GuideChoice("mean_field", reason, {"sites": alphabet.n, "depth": 1, "mean parents": 0.0}, Structure())


def _build_mean_field(choice: GuideChoice, problem: Problem) -> Guide:
    alphabet = alphabet_of(problem.program, problem.graph)
    return build_mean_field(alphabet, _energy(problem, alphabet), problem.temperature)


def _energy(problem: Problem, alphabet: Alphabet) -> Energy:
    if not problem.graph.opaque:
        return build_factor_energy(alphabet, problem.graph.constant)
    return ModelEnergy({k: reals(v) for k, v in problem.theta.items()}, problem.model, alphabet.codec)


def _factors(problem: Problem, name: str) -> FactorGraph:
    """The factors, for guides that need all fields discrete."""
    for f in problem.program.fields:
        if not is_discrete(f.support):
            why = f"`{f.name}` is a field of type {describe(f.support)}, and it serves discrete fields only"
            raise cannot_serve(name, why, "leave the choice to vdsl")
    return problem.graph


# --- continuous fields -----------------------------------------------------------------------------------------------


_BECAUSE = {
    "autoregressive": "chosen because it starts from the model's own local fields, and on φ⁴ and XY lattices of some "
    "hundred sites no flow came as close in the same time",
    "continuous": "chosen because the noise of its gradient does not grow with the volume as that of `autoregressive`",
    "multiscale": "chosen because sites that are translations of each other are taught together: on φ⁴ and XY lattices "
    "of 16 × 16 and more no other guide came as close in the same time",
    "coupling": "chosen because no other guide serves this model",
    "gauge_continuous": "chosen because it learns nothing of the gauge orbit and starts near the trivializing map",
}


def _default_continuous(problem: Problem) -> GuideChoice:
    """The first that can serve, in an order that was measured (benchmarks/continuous.md, benchmarks/flows.md).

    For gauge theories those that leave out the gauge freedom: in two dimensions `tree` is the answer; conditionals in
    the gauge of a tree serve U(1), with any action and matter (4⁴, β = 0.5, untrained: Var ln w = 1.9, the flow 2.9).
    The Gaussian where the energy is quadratic: it is the answer. Else conditionals one after another, which know the
    model's own local fields; with a network for each, their score function grows noisy with the volume, and on large
    lattices networks that are shared by translations learn faster, or, for reals without any, a continuous flow.
    """
    if problem.chart is not None and is_quadratic(problem.expansion):
        return choose_gaussian(problem)
    order = ["autoregressive", "continuous", "coupling", "multiscale"]
    if problem.chart is not None and problem.chart.size > _LARGE_FOR_SCORES and not problem.chart.periodic().any():
        order = ["continuous", "coupling", "autoregressive", "multiscale"]
    # Unit vectors have no chart: Heisenberg 16×16, T = 1, 40 s: autoregressive .76, multiscale .68.
    if problem.chart is not None and problem.chart.size > _LARGE_FOR_NETWORKS_OF_THEIR_OWN:
        order = ["multiscale", *order[:-1]]
    if any(gauge_group_of(f) for f in problem.program.fields):
        order = ["tree", "autoregressive", "gauge_continuous", "continuous", "coupling"]
    refusals = []
    for name in order:
        try:
            choice = CONTINUOUS[name].choose(problem)
            return replace(choice, reason=f"{choice.reason}; {_BECAUSE[name]}" if name in _BECAUSE else choice.reason)
        except VfeError as refused:
            if refused.diagnostics[0].code != "guide-cannot-serve":
                raise
            refusals.append(refused.diagnostics[0].message)
    fields = ", ".join(f"`{f.name}`: {describe(f.support)}" for f in problem.program.fields)
    hint = "`vdsl check`, `vdsl sample` and the compiled energy work for this model"
    raise VfeError(
        Diagnostic("no-guide", f"no guide serves this model ({fields})", notes=tuple(refusals), hints=(hint,))
    )


# --- the table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A registered guide: how it is chosen and how it is built. Every entry faces every law in the tests.

    transfer(params, fresh, from, to): the trained parameters of one choice as a start for another that is built alike
    on a larger lattice; what the smaller one cannot know is left `fresh`. Raises ValueError where they are not alike.
    """

    choose: Callable[[Problem], GuideChoice]
    build: Callable[[GuideChoice, Problem], Guide]
    transfer: Callable[[Params, Params, GuideChoice, GuideChoice], Params] | None = None


DISCRETE: dict[str, Entry] = {
    "exact": Entry(_require_exact, _build_exact),
    "autoregressive": Entry(_choose_autoregressive, _build_autoregressive),
    "dense": Entry(_choose_dense, _build_autoregressive),
    "mean_field": Entry(_choose_mean_field, _build_mean_field),
}
CONTINUOUS: dict[str, Entry] = {
    "gaussian": Entry(choose_gaussian, build_gaussian),
    "autoregressive": DISCRETE["autoregressive"],
    "continuous": Entry(choose_continuous, build_continuous, transfer),
    "coupling": Entry(choose_coupling, build_coupling),
    "multiscale": Entry(choose_multiscale, build_multiscale, transfer_multiscale),
    "tree": Entry(choose_tree, build_tree),
    "gauge_continuous": Entry(choose_gauge_continuous, build_gauge_flow),
    "gauge_coupling": Entry(choose_gauge_coupling, build_gauge_flow),
}
GUIDES = DISCRETE | CONTINUOUS
