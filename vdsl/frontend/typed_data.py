"""Data that are values of a field's type, `{ type = sphere(3) }`: spins that are ±1, unit vectors of length one …"""

from __future__ import annotations

import numpy as np

from vdsl.errors import Span
from vdsl.frontend import ast
from vdsl.frontend.findings import Findings
from vdsl.ir.support import Angle, Clock, Occupation, Potts, Real, Sphere, Spin, Support, describe, event_shape

_LENGTH_ERROR = 1e-6  # what a file with seven digits leaves of a unit vector's length


def check_values(
    values: np.ndarray, support: Support, option: ast.Option, name: str, at: Span, findings: Findings
) -> None:
    """Reports numbers outside a support: the first entry that is wrong, or a shape that cannot be right."""
    described = describe(support)
    if values.dtype.kind == "c" or not isinstance(support, Spin | Potts | Clock | Occupation | Real | Angle | Sphere):
        findings.error(
            "bad-option",
            f"data cannot be values of `{described}`",
            option.value.span,
            notes=["types of data: spin, potts(q), clock(q), occupation, real, real[n], angle, sphere(n)"],
        )
        return
    event = event_shape(support)
    if event and values.shape[-1:] != event:
        shape = values.shape[-1] if values.ndim else 1
        findings.error(
            "data-size",
            f"a value of `{described}` is {event[0]} numbers, and `{name}` has rows of {shape}",
            option.value.span,
        )
        return
    good = _inside(values, support)
    if good.all():
        return
    first = tuple(int(k) for k in np.argwhere(~good)[0])
    entry = ", ".join(map(str, first))
    shown = np.array2string(values[first], separator=", ", precision=6) if event else f"{values[first]:g}"
    extra = f", of length {float(np.linalg.norm(values[first])):.6g}" if isinstance(support, Sphere) else ""
    findings.error(
        "data-value",
        f"entry {entry} of `{name}` is {shown}{extra}, which is no value of `{described}`",
        at,
        notes=[_words(support)],
    )


def _inside(values: np.ndarray, support: Support) -> np.ndarray:
    match support:
        case Spin():
            return np.isin(values, (-1, 1))
        case Occupation():
            return np.isin(values, (0, 1))
        case Potts(q) | Clock(q):
            return (values == np.round(values)) & (values >= 0) & (values < q)
        case Angle():
            return (values > -np.pi) & (values <= np.pi)
        case Sphere():
            return np.abs(np.linalg.norm(values, axis=-1) - 1) <= _LENGTH_ERROR
        case Real(int()):
            return np.ones(values.shape[:-1], bool)
    return np.ones(values.shape, bool)


def _words(support: Support) -> str:
    match support:
        case Spin():
            return "a spin is -1 or 1"
        case Occupation():
            return "an occupation is 0 or 1"
        case Potts(q) | Clock(q):
            return f"its states are numbered 0 to {q - 1}"
        case Angle():
            return "an angle lies in (-pi, pi]"
    return "a unit vector has length 1"
