"""Parts: a reduction into the arrays that `combine` puts together, as its strategy says.

On a grid there is one part for each bond class, basis site, axis, plane and element of a finite set; off it a part
has a new array axis for each binder, or, when elements are missing, the rows of a table with their segments.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce as fold
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from vdsl.errors import InternalError
from vdsl.ir.expr import Binary, Expr, Read, Reduce
from vdsl.lowering import kernels
from vdsl.lowering.codes import Code, State, Static, lift, run
from vdsl.lowering.combine import Part
from vdsl.lowering.frames import (
    MAX_ROWS,
    MAX_SCANNED,
    Frame,
    constant,
    grid_frames,
    integers,
    product_frame,
    set_frame,
    too_large,
)
from vdsl.lowering.kernels import Value
from vdsl.lowering.strategy import (
    FINITE,
    MAX_LANES,
    bilinear,
    conjuncts,
    direct_reads,
    over_cells,
    subscript_variables,
)

if TYPE_CHECKING:
    from vdsl.lowering.lower import Lowering

_CHUNK = 2**22  # elements that a filter is tried on at once


def parts(low: Lowering, node: Reduce, frame: Frame, kind: str) -> list[Part]:
    """The parts of a reduction by the strategy of that kind."""
    match kind:
        case "roll" | "slice":
            return _grid_parts(low, node, frame)
        case "elementwise" if over_cells(node, low.program):
            return _grid_parts(low, node, frame)
        case "unroll":
            return _unrolled_parts(low, node, frame)
    return _row_parts(low, node, frame)


def matmul(low: Lowering, node: Reduce, frame: Frame) -> Code:
    """Σ_(i,j) c·M(i,j)·f(i)·g(j) = c·fᵀMg with a dense constant M."""
    form = bilinear(node, low.program)
    if form is None:
        raise InternalError("not a bilinear form")
    n = low.known_lattice.n_sites
    pairs = set_frame(low.lattice, node.binders[0])
    pairs = replace(pairs, numbers=frame.numbers | pairs.numbers)
    weights = fold(lambda a, b: a * b, [low.static(f, pairs) for f in form.static], np.ones(()))
    matrix = np.zeros((n, n))
    ends = (pairs.numbers[form.i].values, pairs.numbers[form.j].values)
    np.add.at(matrix, ends, np.broadcast_to(weights, pairs.shape))
    sites = frame.with_axes(1)
    every_site = Frame((n,), {v: constant(np.arange(n)) for v in (form.i, form.j)} | sites.numbers)
    left, right = ([low.lower(f, every_site) for f in factors] for factors in (form.left, form.right))
    scalars = [low.lower(f, frame) for f in form.scalars]

    def value(state: State) -> Value:
        f, g = (fold(kernels.multiply, [kernels.real_number(run(c, state)) for c in codes]) for codes in (left, right))
        weight = fold(kernels.multiply, [run(c, state) for c in scalars], 1)
        total = jnp.sum(f * (jnp.asarray(matrix, g.dtype) @ g))
        return kernels.multiply(weight, total)

    return value


def left_factors(product: Expr) -> list[Expr]:
    """The factors of a product written from the left, in order."""
    factors = []
    while isinstance(product, Binary) and product.op == "*":
        factors.append(product.right)
        product = product.left
    return [product, *reversed(factors)]


def _grid_parts(low: Lowering, node: Reduce, frame: Frame) -> list[Part]:
    """One part for each bond class, basis site, axis, plane and element of a finite set."""
    (wide,) = (b for b in node.binders if b.over.kind not in FINITE)
    finite = tuple(b for b in node.binders if b.over.kind in FINITE)
    found = []
    for values in integers(low.lattice, finite):

        def reach(lane: Frame) -> list[tuple[int, ...]]:
            return _reach(low, node, lane)

        for lane in grid_frames(low.known_lattice, wide, frame.with_integers(values), reach):
            found += _part(low, node, lane, (), lane.shape)
    return found


def _reach(low: Lowering, node: Reduce, lane: Frame) -> list[tuple[int, ...]]:
    """The displacements from the cell of everything that the body reads, the far ends of links included."""
    cells, found = lane.cells, []
    assert cells is not None
    for read in direct_reads(node.body, node.where):
        for place in (read.place,) if isinstance(read, Read) else read.places:
            if place.base is None or place.base not in cells.sites:
                continue
            start = cells.sites[place.base][1]
            there = tuple(int(s + d) for s, d in zip(start, low.displacement(place, lane), strict=True))
            found.append(there)
            if read.axis is not None:
                step = low.known_lattice.axis_step(int(low.axis(read.axis, lane)))
                found.append(tuple(t + s for t, s in zip(there, step, strict=True)))
    return found


def _unrolled_parts(low: Lowering, node: Reduce, frame: Frame) -> list[Part]:
    """One part for each element of finite sets; each has the shape of the frame."""
    found = []
    for values in integers(low.lattice, node.binders):
        lane = frame.with_integers(values)
        present = low.present(lane, node.body, node.where) if lane.cells is None else None
        if present is None or bool(present.all()):
            found += _part(low, node, lane, frame.shape, ())
    return found


def _row_parts(low: Lowering, node: Reduce, frame: Frame) -> list[Part]:
    """New array axes for the binders; or, when elements are missing, rows of a table with segments.

    Variables that pick components of vectors have to be constants, so their sets are written out.
    """
    picks = subscript_variables(node)
    written = tuple(b for b in node.binders if b.over.kind in FINITE and picks & set(b.variables))
    kept = tuple(b for b in node.binders if b not in written)
    found = []
    for count, values in enumerate(integers(low.lattice, written)):
        if count >= MAX_LANES:
            raise too_large("a reduction over components", count + 1, MAX_LANES)
        found += _rows(low, replace(node, binders=kept), frame.with_integers(values))
    return found


def _rows(low: Lowering, node: Reduce, frame: Frame) -> list[Part]:
    whole = product_frame(low.lattice, node.binders, frame)
    size = math.prod(whole.shape)
    static = [c for c in conjuncts(node.where) if not _is_dynamic(low, c, frame, node)]
    if not static and size <= MAX_ROWS:
        present = low.present(whole, node.body, node.where)
        if present is None or present.all():
            return _part(low, node, whole, frame.shape, whole.shape[len(frame.shape) :])
    rows = _kept_rows(low, node, static, whole)
    if len(rows) > MAX_ROWS:
        raise too_large("a reduction", len(rows), MAX_ROWS)
    inner = math.prod(whole.shape[len(frame.shape) :])
    segments = rows // max(inner, 1)
    left = tuple(c for c in conjuncts(node.where) if c not in static)
    where = fold(lambda a, b: Binary("and", a, b), left) if left else None
    return _part(low, replace(node, where=where), _unravelled(whole, rows), frame.shape, None, segments)


def _kept_rows(low: Lowering, node: Reduce, conditions: list[Expr], whole: Frame) -> np.ndarray:
    """The elements, numbered over the flattened frame, that static filters and open boundaries leave."""
    size = math.prod(whole.shape)
    if size > MAX_SCANNED:
        raise too_large("a reduction", size, MAX_SCANNED)
    kept = []
    for start in range(0, size, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, size))
        chunk = _unravelled(whole, rows)
        for condition in conditions:
            if len(rows):
                keep = np.broadcast_to(low.static(condition, chunk), rows.shape)
                rows = rows[keep]
                chunk = _unravelled(whole, rows)
        present = low.present(chunk, node.body, node.where) if len(rows) else None
        kept.append(rows if present is None else rows[np.broadcast_to(present, rows.shape)])
    return np.concatenate(kept) if kept else np.zeros(0, int)


def _is_dynamic(low: Lowering, condition: Expr, frame: Frame, node: Reduce) -> bool:
    """Whether a filter can only be decided at run time."""
    probe = product_frame(low.lattice, node.binders, frame)
    one = _unravelled(probe, np.zeros(min(1, math.prod(probe.shape)), int))
    return not isinstance(low.lower(condition, one), Static)


def _part(
    low: Lowering,
    node: Reduce,
    frame: Frame,
    outer: tuple[int, ...],
    inner: tuple[int, ...] | None,
    segments: np.ndarray | None = None,
) -> list[Part]:
    mask: Code | None = None
    for condition in conjuncts(node.where):
        code = low.lower(condition, frame)
        if isinstance(code, Static) and np.ndim(code.value) == 0:
            if not code.value:
                return []
            continue
        mask = code if mask is None else lift(lambda a, b: kernels.binary("and", a, b), mask, code)
    factors = tuple(low.lower(e, frame) for e in left_factors(node.body))
    return [Part(factors, mask, outer, inner, segments)]


def _unravelled(whole: Frame, rows: np.ndarray) -> Frame:
    """The given elements of a frame, without spreading its columns over the whole of it."""
    shape = whole.shape
    at = np.unravel_index(rows, shape)

    def pick(a: np.ndarray) -> np.ndarray:
        pad = (1,) * (len(shape) - a.ndim) + a.shape
        return a.reshape(pad)[tuple(np.minimum(k, n - 1) for k, n in zip(at, pad, strict=True))]

    return whole.mapped(rows.shape, pick)
