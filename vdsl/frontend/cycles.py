"""Cycles: declarations that need each other, found without recursion, with the places that close the loop."""

from __future__ import annotations

from typing import Any

from vdsl.errors import Related, Span
from vdsl.frontend import ast
from vdsl.frontend.findings import Findings
from vdsl.frontend.scope import Node, Scope

LONGEST_SHOWN = 12  # names of a loop
Edges = dict[Node, dict[Node, Span]]


def report_cycles(scope: Scope, edges: Edges, findings: Findings) -> None:
    """Depth-first search without recursion; each loop is reported once, at its first name in the text."""
    state: dict[Node, int] = {}
    for root in list(edges):
        if root in state:
            continue
        path: list[Node] = [root]
        iterators = [iter(edges.get(root, {}))]
        state[root] = 1
        while path:
            following = next(iterators[-1], None)
            if following is None:
                state[path.pop()] = 2
                iterators.pop()
            elif following not in state:
                state[following] = 1
                path.append(following)
                iterators.append(iter(edges.get(following, {})))
            elif state[following] == 1:
                _report_cycle(path[path.index(following) :], scope, edges, findings)


def _report_cycle(loop: list[Node], scope: Scope, edges: Edges, findings: Findings) -> None:
    names = {node: _declaration_name(node, scope) for node in loop}
    first = min(range(len(loop)), key=lambda k: names[loop[k]][1].start)
    loop = loop[first:] + loop[:first]
    steps = [names[node][0] for node in [*loop, loop[0]]]
    if len(steps) > LONGEST_SHOWN:
        steps = [*steps[: LONGEST_SHOWN - 3], "…", *steps[-2:]]
    shown = " -> ".join(steps)
    recursion = any(kind == "function" for kind, _ in loop)
    related = []
    for node, after in zip(loop, [*loop[1:], loop[0]], strict=True):
        related.append(Related(edges[node][after], f"`{names[node][0]}` uses `{names[after][0]}` here"))
    findings.error(
        "cycle",
        f"`{names[loop[0]][0]}` depends on itself: {shown}",
        names[loop[0]][1],
        related=related[:4],
        notes=["functions cannot call themselves"] if recursion else [],
    )


def _declaration_name(node: Node, scope: Scope) -> tuple[str, Span]:
    kind, name = node
    if kind == "lattice" and scope.lattice is not None:
        named = scope.lattice.kind if isinstance(scope.lattice, ast.LatticeDecl) else scope.lattice.name
        return "lattice", named.span
    tables: dict[str, Any] = {"value": scope.values, "function": scope.functions, "interaction": scope.interactions}
    return name, tables[kind][name].name.span
