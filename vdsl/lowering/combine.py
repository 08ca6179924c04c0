"""Combine: the parts of a reduction into its value, each shape reduced once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from functools import reduce as fold
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.lowering import kernels
from vdsl.lowering.codes import Code, State, plain, run
from vdsl.lowering.frames import too_large
from vdsl.lowering.kernels import Value

MAX_FACTORS = 4096  # length of an ordered product of matrices


@dataclass(frozen=True)
class Part:
    """Values to be reduced: shape outer + inner, over the inner axes; or rows, into `segments` of the outer shape."""

    factors: tuple[Code, ...]  # the values are their product
    mask: Code | None
    outer: tuple[int, ...]
    inner: tuple[int, ...] | None
    segments: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.outer + self.inner if self.inner is not None else (len(self.segments),)  # type: ignore[arg-type]


_JOIN = {"sum": "+", "mean": "+", "prod": "*"}


def combine(op: str, parts: list[Part], state: State | None) -> Value:
    """The reduction of all parts: values of one shape meet element by element, so that each shape is reduced once."""
    if not parts:
        return {"sum": 0.0, "mean": np.nan, "prod": 1.0, "max": -np.inf, "min": np.inf}[op]
    products: dict[Any, list[list[Value]]] = {}
    order: dict[Any, Part] = {}
    for p in parts:
        factors = [run(c, state) for c in p.factors]
        if p.mask is not None:
            mask, value = run(p.mask, state), _product(factors)
            factors = [kernels.map_value(partial(_masked, op, mask), value)]
        key = (p.outer, p.inner, id(p.segments) if p.segments is not None else None)
        products.setdefault(key, []).append(factors)
        order[key] = p
    total = fold(lambda a, b: _join(op, a, b), [_reduced(op, order[k], _met(op, v)) for k, v in products.items()])
    if op == "mean":
        return kernels.binary("/", total, fold(lambda a, b: a + b, [_count(p, state) for p in parts]))
    return total


def _met(op: str, products: list[list[Value]]) -> Value:
    """Products met element by element; in a sum, factors that all of them share are taken out once."""
    scalar = not any(isinstance(f, tuple) for factors in products for f in factors)
    if op not in ("sum", "mean") or len(products) == 1 or not scalar:
        return fold(lambda a, b: _join(op, a, b), [_product(factors) for factors in products])
    rest = [list(factors) for factors in products]
    shared = []
    for factor in products[0]:
        places = [next((k for k, f in enumerate(factors) if f is factor), None) for factors in rest]
        found = [k for k in places if k is not None]
        if not kernels.is_static(factor) and len(found) == len(rest):
            shared.append(factor)
            for factors, k in zip(rest, found, strict=True):
                del factors[k]
    total = fold(lambda a, b: _join(op, a, b), [_product(factors) for factors in rest])
    return _product([*shared, total])


def _product(factors: list[Value]) -> Value:
    return fold(lambda a, b: kernels.binary("*", a, b), factors) if factors else 1


def _join(op: str, a: Value, b: Value) -> Value:
    return kernels.binary(_JOIN[op], a, b) if op in _JOIN else kernels.call(op, [a, b])


def _masked(op: str, mask: Any, value: Any) -> Any:
    value = kernels.real_number(value)
    neutral = {"sum": 0, "mean": 0, "prod": 1, "max": -np.inf, "min": np.inf}[op]
    return jnp.where(mask, value, jnp.asarray(neutral, value.dtype))


def _reduced(op: str, part: Part, value: Value) -> Value:
    """Over the inner axes or the segments; a product of matrices in the order of the elements."""
    if op == "prod" and kernels.is_matrix(value):
        return _matrix_product(part, value)
    return kernels.map_value(lambda v: _reduced_scalar(op, part, v), value)


def _reduced_scalar(op: str, part: Part, value: Any) -> Any:
    static = kernels.is_static(value)
    value = np.asarray(value) if static else kernels.real_number(value)
    if part.segments is None:
        if not part.inner:
            return value
        axes = tuple(range(len(part.outer), len(part.shape)))
        name = {"mean": "sum"}.get(op, op)
        shaped = (np if static else jnp).broadcast_to(value, part.shape)
        if not shaped.size and op in ("max", "min"):
            return np.full(part.outer, -np.inf if op == "max" else np.inf)
        result = getattr(np if static else jnp, name)(shaped, axis=axes)
        return plain(result) if static else result
    n = math.prod(part.outer)
    if not part.outer:  # one segment: a plain reduction of the rows
        return _reduced_scalar(op, Part((), None, (), part.shape), value)
    reducer = {"sum": jax.ops.segment_sum, "mean": jax.ops.segment_sum, "prod": jax.ops.segment_prod,
               "max": jax.ops.segment_max, "min": jax.ops.segment_min}[op]  # fmt: skip
    rows = jnp.broadcast_to(kernels.real_number(value), part.shape)
    return reducer(rows, part.segments, n, indices_are_sorted=True).reshape(part.outer)


def _count(part: Part, state: State | None) -> Any:
    """How many elements of a part are present, for each element outside."""
    if part.mask is not None:
        mask = kernels.real_number(run(part.mask, state))
        return _reduced_scalar("sum", part, jnp.broadcast_to(mask, part.shape))
    if part.segments is None:
        return float(math.prod(part.inner or ()))
    counts = np.bincount(part.segments, minlength=math.prod(part.outer)).reshape(part.outer)
    return plain(counts.astype(float))


def _matrix_product(part: Part, value: Value) -> Value:
    if part.segments is None and not part.inner:
        return value
    if part.outer and part.segments is not None:
        raise VfeError(Diagnostic("too-large", "ordered products of matrices of varying length are not compiled"), 4)
    n = math.prod(part.shape[len(part.outer) :])
    if n > MAX_FACTORS:
        raise too_large("a product of matrices", n, MAX_FACTORS)
    flat = kernels.map_value(lambda v: jnp.broadcast_to(v, part.shape).reshape((*part.outer, n)), value)
    factors = [kernels.map_value(itemgetter((..., k)), flat) for k in range(n)]
    return fold(kernels.matrix_product, factors) if factors else kernels.identity_matrix(len(value))
