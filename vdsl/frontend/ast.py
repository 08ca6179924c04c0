"""The syntax tree of a `.vfe` file: what was written, before anything is known about it.

    module    = Module(statements, comments)
    statement = Model | ParamDecl | Let | Fn | DataDecl | LatticeDecl | UnitCell | Particles | Units | FieldDecl
              | Interaction | Temperature | ObservableDecl | DerivedDecl | SymmetryDecl | ScanDecl | Block
    expr      = Number | String | Name | Prefix | Postfix | Infix | If | LetIn | CallExpr | Index | TupleExpr | ListExpr
              | Reduction

Spans do not take part in equality, so `parse(format(m)) == m`. Comments are kept beside the tree for the formatter and
do not take part in equality either.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vdsl.errors import Span


def _span() -> Span:
    return field(compare=False, repr=False, kw_only=True)


@dataclass(frozen=True)
class Number:
    """A numeric literal; `text` is as written (so that formatting keeps it), `value` an int or a float."""

    text: str
    value: int | float
    span: Span = _span()


@dataclass(frozen=True)
class String:
    value: str
    span: Span = _span()


@dataclass(frozen=True)
class Name:
    id: str
    span: Span = _span()


@dataclass(frozen=True)
class Prefix:
    """`-x`, `+x`, `not x`."""

    op: str
    operand: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Postfix:
    """`x'`."""

    op: str
    operand: Expr
    span: Span = _span()


@dataclass(frozen=True, eq=False)
class Infix:
    """`+ - * / // % ^ == != < <= > >= and or`; `**` is stored as `^`.

    A sum of n terms is n deep to the left, so equality and hash go down the left in a loop.
    """

    op: str
    left: Expr
    right: Expr
    span: Span = _span()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Infix):
            return NotImplemented
        a: Expr = self
        b: Expr = other
        while isinstance(a, Infix) and isinstance(b, Infix):
            if a is b:
                return True
            if a.op != b.op or a.right != b.right:
                return False
            a, b = a.left, b.left
        return type(a) is type(b) and a == b

    def __hash__(self) -> int:
        chain = []
        node: Expr = self
        while isinstance(node, Infix):
            chain.append((node.op, node.right))
            node = node.left
        return hash((node, *chain))


@dataclass(frozen=True)
class If:
    condition: Expr
    yes: Expr
    no: Expr
    span: Span = _span()


@dataclass(frozen=True)
class LetIn:
    """`let name = value in body`."""

    name: Name
    value: Expr
    body: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Keyword:
    """A `name = value` argument of a call."""

    name: Name
    value: Expr
    span: Span = _span()


@dataclass(frozen=True)
class CallExpr:
    function: Name
    arguments: tuple[Expr, ...]
    keywords: tuple[Keyword, ...] = ()
    span: Span = _span()


@dataclass(frozen=True)
class Index:
    """`value[index, …]`."""

    value: Expr
    index: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True)
class TupleExpr:
    """`(a, b)`; one element is written `(a,)`."""

    items: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True)
class ListExpr:
    items: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True)
class BinderExpr:
    """`i in sites` (`bracketed` False) or `<i, j> in nn` (True)."""

    names: tuple[Name, ...]
    over: Expr
    bracketed: bool
    span: Span = _span()


@dataclass(frozen=True)
class Reduction:
    """`sum(binders [where condition]: body)`; op is sum, prod, mean, max or min."""

    op: Name
    binders: tuple[BinderExpr, ...]
    where: Expr | None
    body: Expr
    span: Span = _span()


Expr = (
    Number | String | Name | Prefix | Postfix | Infix | If | LetIn | CallExpr | Index | TupleExpr | ListExpr | Reduction
)


@dataclass(frozen=True)
class RangeExpr:
    """`[a, b)` and the like, after `in`."""

    lower: Expr
    upper: Expr
    lower_open: bool
    upper_open: bool
    span: Span = _span()


@dataclass(frozen=True)
class Option:
    """`key = value` in a `{…}` block."""

    key: Name
    value: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Model:
    name: Name
    title: String | None
    span: Span = _span()


@dataclass(frozen=True)
class ParamDecl:
    """`kind` is None or the name after the colon (`int`, or `real` spelt out)."""

    name: Name
    kind: Name | None
    default: Expr | None
    range: RangeExpr | None
    doc: String | None
    span: Span = _span()


@dataclass(frozen=True)
class Let:
    name: Name
    value: Expr
    doc: String | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Fn:
    name: Name
    parameters: tuple[Name, ...]
    body: Expr
    doc: String | None = None
    span: Span = _span()


@dataclass(frozen=True)
class FromFile:
    path: String
    options: tuple[Option, ...] = ()
    span: Span = _span()


@dataclass(frozen=True)
class Drawn:
    """`~ normal(0, 1) seed n`."""

    distribution: CallExpr
    seed: Expr | None
    options: tuple[Option, ...] = ()
    span: Span = _span()


@dataclass(frozen=True)
class DataDecl:
    """`data NAME [on SET] from "file" {…}` or `data NAME [on SET] ~ dist(…) seed n`."""

    name: Name
    on: Expr | None
    origin: FromFile | Drawn
    doc: String | None = None
    span: Span = _span()


@dataclass(frozen=True)
class LatticeDecl:
    """`lattice KIND(sizes…, boundary = …)`, or `lattice graph(from "edges.csv", …)` with `file`."""

    kind: Name
    sizes: tuple[Expr, ...]
    keywords: tuple[Keyword, ...] = ()
    file: String | None = None
    span: Span = _span()


@dataclass(frozen=True)
class CellVectors:
    """`vectors (1, 0), (1/2, sqrt(3)/2)`."""

    vectors: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True)
class CellSite:
    """`site A at (0, 0)`: fractional coordinates, in units of the primitive vectors."""

    name: Name
    position: Expr
    span: Span = _span()


@dataclass(frozen=True)
class CellBond:
    """`bond x : A -> B (0, 0)`."""

    name: Name
    source: Name
    target: Name
    displacement: Expr
    span: Span = _span()


@dataclass(frozen=True)
class CellGroup:
    """`group nn = x, y, z`."""

    name: Name
    members: tuple[Name, ...]
    span: Span = _span()


@dataclass(frozen=True)
class UnitCell:
    """`lattice NAME { … }`; `options` are `size = …` and `boundary = …`."""

    name: Name
    items: tuple[CellVectors | CellSite | CellBond | CellGroup | Option, ...]
    span: Span = _span()


@dataclass(frozen=True)
class Particles:
    name: Name
    count: Expr
    box: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Units:
    name: Name
    span: Span = _span()


@dataclass(frozen=True)
class FieldDecl:
    """`kind` is a Name (`spin`), a CallExpr (`potts(3)`, `SU(2)`), or an Index (`real[3]`); `on` is None for sites."""

    name: Name
    kind: Expr
    on: Expr | None
    doc: String | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Interaction:
    name: Name
    value: Expr
    doc: String | None = None
    span: Span = _span()


@dataclass(frozen=True)
class Temperature:
    value: Expr
    span: Span = _span()


@dataclass(frozen=True)
class ObservableDecl:
    name: Name
    value: Expr
    doc: String | None
    span: Span = _span()


@dataclass(frozen=True)
class DerivedDecl:
    name: Name
    value: Expr
    doc: String | None
    span: Span = _span()


@dataclass(frozen=True)
class SymmetryDecl:
    """`symmetry z2(s), translation`: one entry per claim, each a Name or a CallExpr."""

    claims: tuple[Expr, ...]
    span: Span = _span()


@dataclass(frozen=True)
class ScanDecl:
    name: Name
    values: Expr
    span: Span = _span()


@dataclass(frozen=True)
class Block:
    """`guide NAME {…}` or `train {…}`."""

    head: str  # "guide" | "train"
    name: Name | None
    options: tuple[Option, ...]
    span: Span = _span()


Statement = (
    Model
    | ParamDecl
    | Let
    | Fn
    | DataDecl
    | LatticeDecl
    | UnitCell
    | Particles
    | Units
    | FieldDecl
    | Interaction
    | Temperature
    | ObservableDecl
    | DerivedDecl
    | SymmetryDecl
    | ScanDecl
    | Block
)


@dataclass(frozen=True)
class Comment:
    """A comment, `#` included; `own_line` when nothing but blanks stand before it."""

    text: str
    span: Span
    own_line: bool


@dataclass(frozen=True)
class Module:
    """A whole file."""

    statements: tuple[Statement, ...]
    comments: tuple[Comment, ...] = field(default=(), compare=False, repr=False)
    span: Span | None = field(default=None, compare=False, repr=False)
