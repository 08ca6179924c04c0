"""Trials: does an element of a sum vanish, whatever the values that it reads? Tried with random values.

Equal places read equal values, different ones independent values, each drawn from its field's support; sums over
integers and axes are written out, sums over sites of their own stand for one number each.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from vdsl.errors import InternalError
from vdsl.ir.configurations import random_values
from vdsl.ir.expr import (
    Binary,
    Binder,
    Call,
    Const,
    DataRead,
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
from vdsl.ir.interpret import evaluate
from vdsl.ir.lattice import Lattice
from vdsl.ir.program import Data, Field, Program

OVER_SITES = ("sites", "links", "plaquettes", "bonds", "pairs")
MOST_ELEMENTS = 4096  # of the sums over integers and axes that are written out
_EMPTY = Program("", None, (), (), Const(1.0))


class TooInvolved(Exception):
    """The element cannot be tried like this; the text says why."""


@dataclass(frozen=True)
class World:
    """What a trial must know: the lattice, and fields and data by name."""

    lattice: Lattice
    declared: Callable[[str], Field | Data]

    def field(self, name: str) -> Field:
        """The field of that name."""
        found = self.declared(name)
        if not isinstance(found, Field):
            raise InternalError(f"{name} is no field")
        return found

    def data(self, name: str) -> Data:
        """The data of that name."""
        found = self.declared(name)
        if not isinstance(found, Data):
            raise InternalError(f"{name} are no data")
        return found


def vanishes(body: Expr, e: Reduce, world: World, rng: np.random.Generator) -> bool:
    """Whether the sum of `body` over the integers and axes that a reduction binds is zero at random values."""
    values: dict[Any, Expr] = {}
    total, scale = 0j, 0.0
    for numbers in _combinations([b for b in e.binders if b.over.kind not in ("sites", "bonds", "pairs")], world):
        try:
            if e.where is not None and not evaluate(_EMPTY, _at(e.where, numbers, values, world, rng), {}):
                continue
            found = complex(evaluate(_EMPTY, _at(body, numbers, values, world, rng), {}))
        except (TypeError, ValueError, IndexError, KeyError):
            raise TooInvolved("it is too involved for the symmetry to be tried") from None
        total, scale = total + found, scale + abs(found)
    return abs(total) <= 1e-9 * (1 + scale)


def _combinations(binders: list[Binder], world: World) -> Iterator[dict[str, int]]:
    """The values of the variables that are not sites."""
    axes = range(world.lattice.n_axes)
    choices: list[list[dict[str, int]]] = []
    for b in binders:
        match b.over.kind:
            case "range":
                choices.append([{b.variables[0]: k} for k in range(*b.over.bounds)])
            case "axes":
                choices.append([{b.variables[0]: k} for k in axes])
            case "links":
                choices.append([{b.variables[1]: k} for k in axes])
            case "planes" | "plaquettes":
                mu, nu = b.variables[-2:]
                choices.append([{mu: p, nu: q} for p, q in world.lattice.planes])
    if np.prod([len(c) for c in choices], dtype=float) > MOST_ELEMENTS:
        raise TooInvolved("it is too involved for the symmetry to be tried")
    for chosen in itertools.product(*choices):
        yield {name: k for part in chosen for name, k in part.items()}


def _at(e: Any, numbers: dict[str, int], values: dict[Any, Expr], world: World, rng: np.random.Generator) -> Any:
    """An expression with all that it reads replaced by numbers: equal places by equal ones, kept in `values`."""

    def kept(key: Any, make: Callable[[], Expr]) -> Expr:
        if key not in values:
            values[key] = make()
        return values[key]

    def again(x: Any) -> Any:
        return _at(x, numbers, values, world, rng)

    def fixed(axis: int | str | None) -> int | str | None:
        return numbers.get(axis, axis) if isinstance(axis, str) else axis

    match e:
        case IndexVar(name):
            return Const(numbers[name]) if name in numbers else kept(e, lambda: Const(int(rng.integers(1000))))
        case Param() | Ref():
            return kept(e, lambda: Const(float(rng.uniform(0.5, 2.0))))
        case Read(name, place, axis, component):
            value = kept(
                (name, again(place), fixed(axis)),
                lambda: _literal(random_values(world.field(name).support, 1, rng)[0]),
            )
            if not component:
                return value
            return Item(value, tuple(again(c) for c in component))
        case DataRead(name, _, places, axis, index):
            found = world.data(name)
            left = found.values.values.ndim - (found.on is not None) - len(index)
            shape = found.values.values.shape[-1:] if left else ()
            key = (name, again(places), fixed(axis), again(index))
            return kept(key, lambda: _literal(rng.uniform(0.5, 2.0, shape)))
        case Place(base, steps, number):
            moved: dict[Any, int] = {}
            for axis, amount in steps:
                at = fixed(axis)
                moved[at] = moved.get(at, 0) + int(evaluate(_EMPTY, again(amount), {}))
            kept_steps = tuple(sorted((str(a), n) for a, n in moved.items() if n))
            return (base, kept_steps, again(number))
        case Reduce(op, binders, body, where):
            if any(b.over.kind in OVER_SITES for b in binders):
                return kept(e, lambda: Const(float(rng.uniform(0.5, 2.0))))
            parts = []
            for more in _combinations(list(binders), world):
                inner = numbers | more
                if where is None or evaluate(_EMPTY, _at(where, inner, values, world, rng), {}):
                    parts.append(evaluate(_EMPTY, _at(body, inner, values, world, rng), {}))
            return _literal(_folded(op, parts))
        case tuple():
            return tuple(again(x) for x in e)
        case Const() | None:
            return e
        case Unary() | Binary() | Select() | Call() | Items() | Item():
            return replace(e, **{f.name: again(v) for f in fields(e) if not isinstance(v := getattr(e, f.name), str)})
    raise TypeError(e)


def _literal(value: Any) -> Expr:
    """A number or a vector of numbers; TypeError for matrices, which are no literals."""
    array = np.asarray(value)
    if array.ndim == 0:
        return Const(array.item())
    if array.ndim == 1:
        return Items(tuple(Const(x.item()) for x in array))
    raise TypeError("a matrix")


def _folded(op: str, parts: list[Any]) -> Any:
    match op:
        case "sum":
            return sum(parts)
        case "mean":
            return sum(parts) / len(parts)
        case "prod":
            return np.prod(parts)
        case "max":
            return max(parts)
    return min(parts)
