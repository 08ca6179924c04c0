"""Codes: what an expression is lowered to, either a value that is known already or a function of a `State`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from vdsl.errors import InternalError
from vdsl.lowering import kernels
from vdsl.lowering.kernels import Value

Array = Any


@dataclass
class State:
    """One evaluation: a configuration in working types, the parameters, and what has been computed from them so far."""

    x: Mapping[str, Array]
    theta: Mapping[str, Array]
    known: dict[Any, Any] = field(default_factory=dict)

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """make(), or what it returned the first time."""
        if key not in self.known:
            self.known[key] = make()
        return self.known[key]


@dataclass(frozen=True)
class Static:
    """A value known when the program is lowered."""

    value: Value


Code = Static | Callable[[State], Value]


def run(code: Code, state: State | None) -> Value:
    """The value of lowered code; static code needs no state, and with one becomes constants of the working types."""
    if isinstance(code, Static):
        return code.value if state is None else kernels.map_value(kernels.working_constant, code.value)
    if state is None:
        raise InternalError("a value that depends on the configuration or on parameters is needed statically")
    return code(state)


def lift(f: Callable[..., Value], *codes: Code) -> Code:
    """f of the values of codes; folded at once when they are all static."""
    if all(isinstance(c, Static) for c in codes):
        with np.errstate(all="ignore"):
            return Static(f(*(c.value for c in codes)))  # type: ignore[union-attr]
    parts = [runner(c) for c in codes]
    match parts:  # one Python frame a level, so that deep expressions stay within the stack
        case [a]:
            return lambda state: f(a(state))
        case [a, b]:
            return lambda state: f(a(state), b(state))
    return lambda state: f(*[part(state) for part in parts])


def runner(code: Code) -> Callable[[State], Value]:
    """Code as a function of the state."""
    return partial(run, code) if isinstance(code, Static) else code


def plain(x: Any) -> Any:
    """A NumPy value of no dimensions as a Python number, so that it takes the type of what it meets."""
    return x.item() if isinstance(x, np.ndarray | np.generic) and np.ndim(x) == 0 else x
