"""One spelling per meaning: variables of reductions renamed in the order of their appearance, each used once.

A variable's new name says what it runs over (`x` sites, `mu nu` axes, `i j` ends of bonds, `k` integers), with a number
when the name is taken. Shared parts of an expression get names of their own at every occurrence.
"""

from __future__ import annotations

from typing import Any

from vdsl.ir.expr import (
    Binary,
    Binder,
    Call,
    Const,
    DataRead,
    Expect,
    Expr,
    IndexVar,
    Item,
    Items,
    Param,
    Place,
    Read,
    Reduce,
    Ref,
    Select,
    Unary,
)

_PREFIXES = {
    "sites": ("x",),
    "links": ("x", "mu"),
    "axes": ("mu",),
    "planes": ("mu", "nu"),
    "plaquettes": ("x", "mu", "nu"),
    "bonds": ("i", "j"),
    "pairs": ("i", "j"),
    "range": ("k",),
}
Renaming = dict[str, str]


def canonical(expr: Expr) -> Expr:
    """The expression with the variables of its reductions renamed."""
    return _Renamer().expression(expr, {})


class _Renamer:
    def __init__(self) -> None:
        self.taken: dict[str, int] = {}

    def expression(self, e: Expr, names: Renaming) -> Expr:
        match e:
            case Const() | Param() | Ref():
                return e
            case IndexVar(name):
                return IndexVar(names.get(name, name))
            case Read(field, place, axis, component):
                return Read(field, self.place(place, names), _axis(axis, names), self.many(component, names))
            case DataRead(data, key, places, axis, index):
                moved = tuple(self.place(p, names) for p in places)
                return DataRead(data, key, moved, _axis(axis, names), self.many(index, names))
            case Unary(op, x):
                return Unary(op, self.expression(x, names))
            case Binary(op, a, b):
                return Binary(op, self.expression(a, names), self.expression(b, names))
            case Select(c, a, b):
                return Select(self.expression(c, names), self.expression(a, names), self.expression(b, names))
            case Call(function, arguments):
                return Call(function, self.many(arguments, names))
            case Items(items):
                return Items(self.many(items, names))
            case Item(value, index):
                return Item(self.expression(value, names), self.many(index, names))
            case Expect(value):
                return Expect(self.expression(value, names))
            case Reduce(op, binders, body, where):
                names = dict(names)
                renamed = []
                for binder in binders:
                    new = tuple(self.fresh(p) for p in _PREFIXES[binder.over.kind])
                    names.update(zip(binder.variables, new, strict=True))
                    renamed.append(Binder(new, binder.over))
                condition = None if where is None else self.expression(where, names)
                return Reduce(op, tuple(renamed), self.expression(body, names), condition)
        raise TypeError(e)

    def many(self, expressions: tuple[Expr, ...], names: Renaming) -> tuple[Expr, ...]:
        return tuple(self.expression(x, names) for x in expressions)

    def place(self, p: Place, names: Renaming) -> Place:
        steps = [(_axis(axis, names), self.expression(amount, names)) for axis, amount in p.steps]
        ordered = tuple(sorted(steps, key=lambda s: (isinstance(s[0], str), str(s[0]))))
        number = None if p.number is None else self.expression(p.number, names)
        return Place(None if p.base is None else names.get(p.base, p.base), ordered, number)

    def fresh(self, prefix: str) -> str:
        count = self.taken.get(prefix, 0)
        self.taken[prefix] = count + 1
        return f"{prefix}{count}" if count else prefix


def _axis(axis: Any, names: Renaming) -> Any:
    return names.get(axis, axis) if isinstance(axis, str) else axis
