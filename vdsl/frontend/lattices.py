"""Lattice statements -> `Lattice`: sizes, boundaries and numbers of sites, checked before anything is allocated."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from vdsl.errors import Related, Span
from vdsl.frontend import ast
from vdsl.frontend.files import read_rows
from vdsl.frontend.findings import Findings, count, several, suggest
from vdsl.frontend.values import Broken, Quantity
from vdsl.ir.expr import Const, Items
from vdsl.ir.kinds import INT, is_real
from vdsl.ir.lattice import (
    ANTIPERIODIC,
    DIMENSIONS,
    OPEN,
    PERIODIC,
    BondClass,
    Lattice,
    complete_graph,
    graph_lattice,
    named_lattice,
)

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_LATTICE = 10**8
LARGEST_GRAPH = 4 * 10**6
MOST_AXES = 6
BOUNDARIES = (PERIODIC, OPEN, ANTIPERIODIC)
Rows = tuple[tuple[float, ...], ...]
Evaluate = Callable[[ast.Expr], Quantity | Broken]


class LatticeChecker:
    """Checks the lattice statement of a model. `evaluate` gives the value of an expression that stands for a size."""

    def __init__(self, evaluate: Evaluate, findings: Findings, base_dir: Path | None, allow_path: bool):
        self.evaluate = evaluate
        self.findings = findings
        self.base_dir = base_dir
        self.allow_path = allow_path

    def lattice(self, s: ast.LatticeDecl | ast.UnitCell) -> Lattice | None:
        """The lattice of a statement; None when it is broken (reported)."""
        if isinstance(s, ast.UnitCell):
            return self._unit_cell(s)
        match s.kind.id:
            case "graph":
                return self._graph(s)
            case "complete":
                return self._complete(s)
        return self._named(s)

    def _named(self, s: ast.LatticeDecl) -> Lattice | None:
        kind = s.kind.id
        if s.file is not None:
            self.findings.error(
                "wrong-arguments",
                f"the lattice `{kind}` is not read from a file",
                s.file.span,
                hints=['a list of edges is `lattice graph(from "edges.csv")`'],
            )
        self._known_keywords(s, ("boundary",))
        sizes = self._sizes(s.sizes)
        expected = DIMENSIONS.get(kind, len(s.sizes))
        if len(s.sizes) != expected or not s.sizes:
            shown = ", ".join(["L"] * max(1, expected))
            self.findings.error(
                "wrong-arguments",
                f"`{kind}` takes {count(max(1, expected), 'size')}, and there "
                f"{'is' if len(s.sizes) == 1 else 'are'} {len(s.sizes)}",
                s.span,
                hints=[f"write `{kind}({shown})`"],
            )
            return None
        if len(s.sizes) > MOST_AXES:
            self.findings.error("wrong-arguments", f"a lattice has at most {MOST_AXES} axes", s.span)
            return None
        if sizes is None:
            return None
        option = next((k.value for k in s.keywords if k.name.id == "boundary"), None)
        boundary = self.boundary(option, len(sizes))
        basis = {"honeycomb": 2, "kagome": 3}.get(kind, 1)
        if boundary is None or not self._small_enough(prod(sizes) * basis, s.span):
            return None
        return named_lattice(kind, tuple(sizes), boundary)

    def _complete(self, s: ast.LatticeDecl) -> Lattice | None:
        self._known_keywords(s, ())
        if len(s.sizes) != 1 or s.file is not None:
            self.findings.error("wrong-arguments", f"`complete` takes 1 size, and there are {len(s.sizes)}", s.span)
            return None
        sizes = self._sizes(s.sizes)
        if sizes is None or not self._small_enough(sizes[0], s.span):
            return None
        bonds = sizes[0] * (sizes[0] - 1) // 2
        if bonds > LARGEST_GRAPH:
            self.findings.error(
                "too-large",
                f"a complete graph of {sizes[0]} sites has {bonds} bonds",
                s.span,
                notes=[f"at most {LARGEST_GRAPH} bonds are listed one by one"],
                exit_code=4,
            )
            return None
        return complete_graph(sizes[0])

    def _graph(self, s: ast.LatticeDecl) -> Lattice | None:
        self._known_keywords(s, ())
        if s.file is None:
            self.findings.error(
                "wrong-arguments",
                "`graph` reads its edges from a file",
                s.span,
                hints=['write `lattice graph(from "edges.csv")`'],
            )
            return None
        sizes = self._sizes(s.sizes[:1])
        rows = read_rows(s.file, self.base_dir, self.allow_path, self.findings)
        if rows is None or sizes is None:
            return None
        edges: list[tuple[int, int]] = []
        seen: dict[tuple[int, int], int] = {}
        for line, row in rows:
            ends = row[:2]
            if len(row) < 2 or any(x != int(x) or x < 0 for x in ends):
                self.findings.error(
                    "bad-graph",
                    f"row {line} is not an edge",
                    s.file.span,
                    notes=["each row gives the numbers of two sites, counted from 0"],
                )
                return None
            i, j = int(ends[0]), int(ends[1])
            key = (min(i, j), max(i, j))
            if i == j or key in seen:
                what = "joins a site to itself" if i == j else f"repeats the edge of row {seen[key]}"
                self.findings.error("bad-graph", f"row {line} ({i}, {j}) {what}", s.file.span)
                return None
            seen[key] = line
            edges.append((i, j))
        n = 1 + max((max(e) for e in edges), default=-1)
        if sizes and n > sizes[0]:
            self.findings.error(
                "bad-graph", f"an edge ends at site {n - 1}, and the graph has {sizes[0]} sites", s.file.span
            )
            return None
        n = sizes[0] if sizes else n
        if n == 0:
            self.findings.error("bad-graph", "the file has no edges", s.file.span)
            return None
        if len(edges) > LARGEST_GRAPH or not self._small_enough(n, s.span):
            return None
        return graph_lattice("graph", n, tuple(edges))

    # Unit cells

    def _unit_cell(self, s: ast.UnitCell) -> Lattice | None:
        before = len(self.findings.errors)
        vectors = self._vectors(s)
        if vectors is None:
            return None
        d = len(vectors)
        sites, names = self._basis(s, vectors)
        classes = self._bonds(s, names, d)
        options = {o.key.id: o for o in s.items if isinstance(o, ast.Option)}
        for key, option in options.items():
            if key not in ("size", "boundary"):
                self.findings.error(
                    "unknown-option",
                    f"a unit cell has no option `{key}`",
                    option.key.span,
                    hints=suggest(key, ("size", "boundary")),
                )
        shape = self._cell_size(s, options.get("size"), d)
        boundary = self.boundary(options["boundary"].value if "boundary" in options else None, d)
        if len(self.findings.errors) > before or shape is None or boundary is None:
            return None
        if not self._small_enough(prod(shape) * len(sites), s.name.span):
            return None
        return Lattice(s.name.id, tuple(shape), boundary, vectors, sites, tuple(names), classes)

    def _vectors(self, s: ast.UnitCell) -> Rows | None:
        rows = [v for item in s.items if isinstance(item, ast.CellVectors) for v in item.vectors]
        if not rows:
            self.findings.error(
                "bad-unit-cell",
                f"the unit cell `{s.name.id}` has no `vectors`",
                s.name.span,
                hints=["add a line such as `vectors (1, 0), (0, 1)`"],
            )
            return None
        vectors = [self._numbers(v) for v in rows]
        if any(v is None for v in vectors):
            return None
        known = [v for v in vectors if v is not None]
        lengths = {len(v) for v in known}
        if len(lengths) > 1 or len(known) > MOST_AXES or len(known) > min(lengths):
            self.findings.error(
                "bad-unit-cell",
                "the vectors do not span a cell: there are "
                f"{len(known)}, of {' and '.join(map(str, sorted(lengths)))} components",
                rows[0].span,
            )
            return None
        if np.linalg.matrix_rank(np.array(known)) < len(known):
            self.findings.error("bad-unit-cell", "the vectors of the unit cell are linearly dependent", rows[-1].span)
            return None
        return tuple(known)

    def _basis(self, s: ast.UnitCell, vectors: Rows) -> tuple[Rows, dict[str, ast.CellSite]]:
        names: dict[str, ast.CellSite] = {}
        sites: list[tuple[float, ...]] = []
        for item in s.items:
            if not isinstance(item, ast.CellSite):
                continue
            if item.name.id in names:
                self.findings.error(
                    "duplicate-name",
                    f"two sites are called `{item.name.id}`",
                    item.name.span,
                    "declared again",
                    related=[Related(names[item.name.id].name.span, "first declared here")],
                )
            names.setdefault(item.name.id, item)
            position = self._numbers(item.position)
            if position is None:
                continue
            if len(position) != len(vectors):
                self.findings.error(
                    "bad-unit-cell",
                    f"a position in this cell has {count(len(vectors), 'coordinate')}, "
                    f"and this one has {len(position)}",
                    item.position.span,
                    notes=["positions are fractions of the cell's vectors"],
                )
                continue
            sites.append(tuple(float(x) for x in np.array(position) @ np.array(vectors)))
        if not names:
            self.findings.error(
                "bad-unit-cell",
                f"the unit cell `{s.name.id}` has no `site`",
                s.name.span,
                hints=["add a line such as `site A at (0, 0)`"],
            )
        return tuple(sites), names

    def _bonds(self, s: ast.UnitCell, sites: dict, d: int) -> tuple[tuple[str, tuple[BondClass, ...]], ...]:
        numbers = {name: k for k, name in enumerate(sites)}
        named: dict[str, tuple[BondClass, ...]] = {}
        for item in s.items:
            if isinstance(item, ast.CellBond):
                for end in (item.source, item.target):
                    if end.id not in numbers:
                        self.findings.error(
                            "bad-unit-cell",
                            f"no site called `{end.id}` in this unit cell",
                            end.span,
                            notes=[f"sites: {several(numbers)}"],
                            hints=suggest(end.id, numbers),
                        )
                step = self._integers(item.displacement)
                if step is None or item.source.id not in numbers or item.target.id not in numbers:
                    continue
                if len(step) != d:
                    self.findings.error(
                        "bad-unit-cell",
                        f"a displacement in this cell has {'1 entry' if d == 1 else f'{d} entries'}, and this "
                        f"one has {len(step)}",
                        item.displacement.span,
                    )
                elif item.source.id == item.target.id and not any(step):
                    self.findings.error("bad-unit-cell", f"the bond `{item.name.id}` joins a site to itself", item.span)
                else:
                    named[item.name.id] = (BondClass(numbers[item.source.id], numbers[item.target.id], step),)
        bonds = [b.name.id for b in s.items if isinstance(b, ast.CellBond)]
        for item in s.items:
            if isinstance(item, ast.CellGroup):
                members: list[BondClass] = []
                for member in item.members:
                    if member.id not in bonds:
                        self.findings.error(
                            "bad-unit-cell",
                            f"no bond called `{member.id}` in this unit cell",
                            member.span,
                            notes=[f"bonds: {several(bonds)}"],
                            hints=suggest(member.id, bonds),
                        )
                    members += named.get(member.id, ())
                named[item.name.id] = tuple(members)
        return tuple(named.items())

    def _cell_size(self, s: ast.UnitCell, option: ast.Option | None, d: int) -> list[int] | None:
        if option is None:
            self.findings.error(
                "bad-unit-cell",
                f"the unit cell `{s.name.id}` has no `size`",
                s.name.span,
                hints=[f"add a line such as `size = ({', '.join('8' * d)}{',' if d == 1 else ''})`"],
            )
            return None
        match option.value:
            case ast.TupleExpr(items=items) | ast.ListExpr(items=items):
                nodes = items
            case single:
                nodes = (single,)
        if len(nodes) != d:
            self.findings.error(
                "bad-unit-cell",
                f"this cell has {count(d, 'vector')}, and there "
                f"{'is' if len(nodes) == 1 else 'are'} {count(len(nodes), 'size')}",
                option.value.span,
            )
            return None
        return self._sizes(nodes)

    # Parts

    def boundary(self, node: ast.Expr | None, axes: int) -> tuple[str, ...] | None:
        """One word per axis; one word alone stands for all."""
        match node:
            case None:
                return (PERIODIC,) * axes
            case ast.TupleExpr(items=items) | ast.ListExpr(items=items):
                words = [self._word(n) for n in items]
            case _:
                words = [self._word(node)] * axes
        if any(w is None for w in words):
            return None
        if len(words) != axes:
            self.findings.error(
                "bad-boundary", f"the lattice has {axes} axes, and there are {len(words)} boundaries", node.span
            )
            return None
        return tuple(w for w in words if w is not None)

    def _word(self, node: ast.Expr) -> str | None:
        word = node.id if isinstance(node, ast.Name) else node.value if isinstance(node, ast.String) else None
        if word in BOUNDARIES:
            return str(word)
        self.findings.error(
            "bad-boundary",
            f"no boundary called `{word}`" if word else "a boundary was expected here",
            node.span,
            "not a boundary",
            notes=[f"boundaries: {several(BOUNDARIES)}"],
            hints=suggest(word or "", BOUNDARIES),
        )
        return None

    def _sizes(self, nodes: tuple[ast.Expr, ...] | list[ast.Expr]) -> list[int] | None:
        sizes: list[int] = []
        failed = False
        for node in nodes:
            match self.evaluate(node):
                case Quantity(kind, Const(int(n))) if kind == INT:
                    if n < 1:
                        self.findings.error("out-of-range", f"a size must be at least 1, and this is {n}", node.span)
                        failed = True
                    sizes.append(n)
                case Quantity() as found:
                    self.findings.error(
                        "not-an-integer",
                        f"a size is an integer, and this is {found}",
                        node.span,
                        "not an integer",
                        hints=["`//` divides integers"],
                    )
                    failed = True
                case _:
                    failed = True
        return None if failed else sizes

    def _numbers(self, node: ast.Expr) -> tuple[float, ...] | None:
        match self.evaluate(node):
            case Broken():
                return None
            case Quantity(_, Items(items)) if all(isinstance(x, Const) for x in items):
                return tuple(float(x.value.real) for x in items if isinstance(x, Const))
            case Quantity(kind, Const(value)) if is_real(kind):
                return (float(value.real),)
        self.findings.error(
            "bad-unit-cell",
            "a tuple of numbers was expected here",
            node.span,
            hints=["write `(0, 1/2)`; in one dimension, `(1/2,)`"],
        )
        return None

    def _integers(self, node: ast.Expr) -> tuple[int, ...] | None:
        values = self._numbers(node)
        if values is None:
            return None
        if any(x != int(x) for x in values):
            self.findings.error("bad-unit-cell", "a bond's displacement counts whole cells", node.span, "not integers")
            return None
        return tuple(int(x) for x in values)

    def _known_keywords(self, s: ast.LatticeDecl, known: tuple[str, ...]) -> None:
        for k in s.keywords:
            if k.name.id not in known:
                self.findings.error(
                    "unknown-option",
                    f"the lattice `{s.kind.id}` has no option `{k.name.id}`",
                    k.name.span,
                    hints=suggest(k.name.id, known),
                )

    def _small_enough(self, sites: int, span: Span) -> bool:
        if sites <= LARGEST_LATTICE:
            return True
        shown = str(sites) if sites < 10**12 else f"{sites:.3g}" if sites < 10**300 else "more than 1e300"
        self.findings.error(
            "too-large", f"this lattice has {shown} sites", span, notes=[f"at most {LARGEST_LATTICE} fit"], exit_code=4
        )
        return False
