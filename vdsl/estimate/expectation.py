"""Derived quantities into numbers: the argument of `expect(…)` on every sample, the quantity as a function of means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from vdsl.errors import InternalError
from vdsl.estimate.importance import Draw
from vdsl.ir.expr import Binary, Call, Const, Expect, Expr, Param, Place, Ref, Select, Unary, walk
from vdsl.ir.interpret import evaluate, evaluate_derived
from vdsl.ir.program import Observable, Program
from vdsl.ir.values import Value

if TYPE_CHECKING:
    from vdsl.model import Model

_UNARY = {"-": np.negative, "not": np.logical_not}
_BINARY = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.true_divide, "//": np.floor_divide, "%": np.mod,
    "^": np.power, "==": np.equal, "!=": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater,
    ">=": np.greater_equal, "and": np.logical_and, "or": np.logical_or,
}  # fmt: skip
_FUNCTIONS = {
    "exp": np.exp, "log": np.log, "sqrt": np.sqrt, "abs": np.abs, "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
}  # fmt: skip


def expect_arguments(program: Program) -> tuple[Expr, ...]:
    """What the derived quantities of a program take expectations of, each once, in order."""
    found = [node.value for quantity in program.derived for node in walk(quantity.value) if isinstance(node, Expect)]
    return tuple(dict.fromkeys(found))


def per_sample(expr: Expr, draw: Draw, model: Model) -> np.ndarray:
    """An expression in observables, parameters and fields on every sample of a draw, shape (n,), float64.

    What uses observables only is worked out from the draw's columns in float64; the rest by the compiled model.
    """
    definitions = {d.name for d in model.program.definitions}
    if all(_is_columnwise(node, draw, definitions) for node in walk(expr)):
        values = _columnwise(expr, draw, model.program)
        return np.broadcast_to(np.asarray(values, np.float64), (len(draw),))

    with jax.enable_x64(True):  # squares of extensive sums, whose differences are asked for
        x, theta = jax.tree.map(jnp.asarray, draw.x), jax.tree.map(jnp.asarray, draw.theta)
        return np.asarray(_every(model, expr, x, theta), np.float64)


def derived_function(
    quantity: Observable, program: Program, theta: Mapping[str, float], arguments: tuple[Expr, ...]
) -> Callable[[np.ndarray], float]:
    """A derived quantity as a function of the averages of `arguments`, shape (k,), in their order."""
    numbers = {argument: k for k, argument in enumerate(arguments)}

    def value(averages: np.ndarray) -> float:
        average = lambda argument: float(averages[numbers[argument]])  # noqa: E731
        return float(np.asarray(evaluate_derived(program, quantity.value, average, theta)).real)

    return value


@partial(jax.jit, static_argnums=(0, 1))
def _every(model: Model, expr: Expr, x: dict[str, jax.Array], theta: dict[str, jax.Array]) -> jax.Array:
    return jax.lax.map(lambda one: model.evaluate(expr, one, theta).real, x, batch_size=model.chunk_size)


def _is_columnwise(node: Expr | Place, draw: Draw, definitions: set[str]) -> bool:
    match node:
        case Const() | Param() | Unary("-" | "not", _) | Select():
            return True
        case Binary(op, _, _):
            return op in _BINARY
        case Call(function, _):
            return function in _FUNCTIONS
        case Ref(name):
            return name in draw.observables or name in definitions
    return False


def _columnwise(expr: Expr, draw: Draw, program: Program) -> Value:
    again = lambda e: _columnwise(e, draw, program)  # noqa: E731
    match expr:
        case Const(value):
            return value
        case Param(name):
            return float(draw.theta[name])
        case Ref(name) if name in draw.observables:
            return np.asarray(draw.observables[name], np.float64)
        case Ref():
            return evaluate(program, expr, draw.theta)
        case Unary(op, operand):
            return _UNARY[op](again(operand))
        case Binary(op, left, right):
            return _BINARY[op](again(left), again(right))
        case Select(condition, yes, no):
            return np.where(again(condition), again(yes), again(no))
        case Call(function, arguments):
            return _FUNCTIONS[function](again(arguments[0]))
    raise InternalError(f"{type(expr).__name__} is not an expression in observables")
