"""Expressions of a checked program.

    expr  = Const | Param | Ref | IndexVar | Read | DataRead | Unary | Binary | Select | Call | Items | Item | Reduce
          | Expect
    place = a site, as a binder's variable moved by a displacement

Everything structural is already resolved: names are bound, functions are inlined, structural (`: int`) parameters and
sizes are constants, plaquettes and circulations are written out as links. What is left depends on dynamic parameters,
on data, on the fields, and on the variables of the reductions around it.

Semantics that every evaluator shares:

- A `Reduce` runs over the elements of its binders, in order, first binder slowest. An element is *absent* when its
  `where` is false, or when any `Place` read directly in its body or `where` (not inside a nested `Reduce`) lies past
  an open boundary. Absent elements contribute nothing; `mean` divides by the number that are present.
  An empty `sum` is 0 and an empty `prod` is 1.
- A field value reached across an antiperiodic boundary changes sign, once per crossing: −x for numbers, vectors and
  group elements; the angle −x (wrapped to the support) for `angle` and `clock`.
- `/` is real division, `//` and `%` floor as Python's do. Comparisons and logic give booleans.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Const:
    """A literal: bool, int, float or complex."""

    value: bool | int | float | complex


@dataclass(frozen=True)
class Param:
    """A dynamic (real) parameter, by name."""

    name: str


@dataclass(frozen=True)
class Ref:
    """The value of a `Definition` (a `let` that depends on dynamic parameters or data) or of an observable, by name."""

    name: str


@dataclass(frozen=True)
class IndexVar:
    """The integer value of a binder variable: a range variable, an axis number, or a site's number."""

    name: str


@dataclass(frozen=True)
class Place:
    """A site: the site that binder variable `base` stands for, moved along axes.

    `steps` is canonical: one entry (axis, amount) per axis, sorted, no zero constants; an axis is a constant or the
    name of an axis variable; an amount is a static integer expression (almost always `Const`). If `base` is None,
    `number` is a static integer expression for the site's number.
    """

    base: str | None
    steps: tuple[tuple[int | str, Expr], ...] = ()
    number: Expr | None = None


@dataclass(frozen=True)
class Read:
    """A field's value at a site (`axis` None) or on the link from a site along an axis; `component`: of its event."""

    field: str
    place: Place
    axis: int | str | None = None
    component: tuple[Expr, ...] = ()


@dataclass(frozen=True)
class DataRead:
    """A data value.

    `key` says how it is indexed: "site" (places = 1), "link" (places = 1, `axis`), "bond" (places = 2, the bond that
    joins them, in either direction), or "index" (plain integer subscripts). `index` holds the remaining integer
    subscripts; a site's number is `IndexVar`.
    """

    data: str
    key: str
    places: tuple[Place, ...] = ()
    axis: int | str | None = None
    index: tuple[Expr, ...] = ()


@dataclass(frozen=True)
class Unary:
    """`-`, `not`, or `'` (adjoint)."""

    op: str
    operand: Expr


@dataclass(frozen=True)
class Binary:
    """`+ - * / // % ^`, `== != < <= > >=`, `and or`. `*` of two matrices is the matrix product."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Select:
    """`if condition then yes else no`."""

    condition: Expr
    yes: Expr
    no: Expr


@dataclass(frozen=True)
class Call:
    """A built-in function of values: `FUNCTIONS` of vdsl.ir.functions lists them."""

    function: str
    arguments: tuple[Expr, ...]


@dataclass(frozen=True)
class Items:
    """A vector written out, `(a, b, c)` or `[a, b, c]`: real or complex scalars."""

    items: tuple[Expr, ...]


@dataclass(frozen=True)
class Item:
    """A component of a vector or matrix value by static subscripts."""

    value: Expr
    index: tuple[Expr, ...]


@dataclass(frozen=True)
class SetOf:
    """What a binder runs over.

    kind: "sites" (1 variable) · "links" (site, axis) · "axes" (1) · "planes" (mu < nu, 2) · "plaquettes" (site, mu, nu)
    · "bonds" (i, j; `name` of the bond set) · "pairs" (i < j, all pairs of sites) · "range" (1; `bounds` = start, stop,
    step). "links" and "plaquettes" hold only the ones that exist (open boundaries).
    """

    kind: str
    name: str = ""
    bounds: tuple[int, int, int] = (0, 0, 1)


@dataclass(frozen=True)
class Binder:
    """Variables and the set they run over."""

    variables: tuple[str, ...]
    over: SetOf


@dataclass(frozen=True)
class Reduce:
    """`sum`, `prod`, `mean`, `max` or `min` of `body` over the elements of `binders`.

    Variables are unique within a program's expression (no shadowing), so evaluators need no scopes.
    """

    op: str
    binders: tuple[Binder, ...]
    body: Expr
    where: Expr | None = None


@dataclass(frozen=True)
class Expect:
    """A thermal average; only inside `derived`."""

    value: Expr


Expr = (
    Const | Param | Ref | IndexVar | Read | DataRead | Unary | Binary | Select | Call | Items | Item | Reduce | Expect
)


def children(node: Expr | Place) -> Iterator[Expr | Place]:
    """The sub-expressions and places directly below a node, in order."""
    for f in fields(node):
        yield from _nodes(getattr(node, f.name))


def walk(node: Expr | Place) -> Iterator[Expr | Place]:
    """A node and everything below it, parents first. Iterative: depth is the checker's business, not the stack's."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(reversed(list(children(top))))


def _nodes(value: object) -> Iterator[Expr | Place]:
    if isinstance(value, tuple):
        for item in value:
            yield from _nodes(item)
    elif isinstance(value, Expr | Place):
        yield value
