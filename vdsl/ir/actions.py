"""Symmetries as data, and what their elements do to a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vdsl.errors import InternalError
from vdsl.ir.configurations import random_values
from vdsl.ir.lattice import ANTIPERIODIC, Lattice
from vdsl.ir.program import Program
from vdsl.ir.support import (
    Angle,
    Clock,
    Complex,
    Group,
    Occupation,
    Potts,
    Real,
    Sphere,
    Spin,
    Support,
    cardinality,
    is_discrete,
)
from vdsl.ir.values import wrap

Configuration = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Symmetry:
    """A group that acts on configurations.

    kind: "z2" (all `fields` change sign together) · "permutation" (of the colours of all `fields` together) · "shift"
    (θ_f → θ_f + w_f c, or ψ_f → e^{i w_f c} ψ_f, w = `weights`) · "rotation" (of all vector `fields` together) ·
    "translation" (by cells along `axes`) · "gauge" (of the link fields among `fields`, the others being matter of
    charge w_f). group: its usual name. order: the number of shifts if they are discrete, else 0.
    """

    kind: str
    fields: tuple[str, ...] = ()
    group: str = ""
    axes: tuple[int, ...] = ()
    weights: tuple[int, ...] = ()
    order: int = 0
    source: str = "inferred"  # or "claimed"

    def __str__(self) -> str:
        what = {
            "z2": "sign flip of",
            "permutation": "permutation of the colours of",
            "shift": "global shift of",
            "rotation": "global rotation of",
            "gauge": "gauge transformations of",
            "translation": "translations along",
        }[self.kind]
        parts = [f"axis {a}" for a in self.axes] if self.kind == "translation" else list(self.fields)
        if any(w != 1 for w in self.weights) and self.kind == "shift":
            parts = [f"{w}×{f}" if w != 1 else f for f, w in zip(self.fields, self.weights, strict=True)]
        together = " (together)" if len(parts) > 1 and self.kind not in ("translation", "gauge") else ""
        return f"{self.group + ': ' if self.group else ''}{what} {', '.join(parts)}{together}"


Element = object  # None, a tuple of ints, an int or float, or an array: see `random_element`


def random_element(symmetry: Symmetry, program: Program, rng: np.random.Generator) -> Element:
    """An element drawn at random, rarely the identity.

    z2: None. permutation: the new state index of each state, shape (q,). shift: k of 2πk/order, or an angle c.
    rotation: an orthogonal matrix (n, n), of determinant 1 for the groups SO(n). translation: cells per axis.
    gauge: one group element per site.
    """
    supports = [program.field(f).support for f in symmetry.fields]
    match symmetry.kind:
        case "z2":
            return None
        case "permutation":
            return rng.permutation(cardinality(supports[0]))
        case "shift":
            return int(rng.integers(1, max(symmetry.order, 2))) if symmetry.order else float(rng.uniform(-np.pi, np.pi))
        case "rotation":
            matrix = random_rotation(_components(supports[0]), rng)
            if not symmetry.group.startswith("SO") and rng.integers(2):
                matrix[:, 0] *= -1
            return matrix
        case "translation":
            lattice = _lattice(program)
            return tuple(int(rng.integers(n)) if a in symmetry.axes else 0 for a, n in enumerate(lattice.shape))
        case "gauge":
            links = [f for f in symmetry.fields if program.field(f).on == "links"]
            return random_values(program.field(links[0]).support, _lattice(program).n_sites, rng)
    raise InternalError(f"no symmetry of kind {symmetry.kind}")


def act(symmetry: Symmetry, element: Element, x: Configuration, program: Program) -> dict[str, np.ndarray]:
    """The configuration that an element turns x into."""
    if symmetry.kind == "translation":
        return {f.name: _translated(program, f.on, np.asarray(x[f.name]), element) for f in program.fields}
    if symmetry.kind == "gauge":
        return dict(x) | _gauged(symmetry, element, x, program)
    out = dict(x)
    for k, name in enumerate(symmetry.fields):
        support, values = program.field(name).support, np.asarray(x[name])
        match symmetry.kind:
            case "z2":
                out[name] = negated(support, values)
            case "permutation":
                out[name] = _recoloured(support, values, np.asarray(element))
            case "shift":
                weight = symmetry.weights[k] if symmetry.weights else 1
                out[name] = _shifted(support, values, element, weight, symmetry.order)
            case "rotation":
                out[name] = (values @ np.asarray(element).T).astype(values.dtype)
            case _:
                raise InternalError(f"no symmetry of kind {symmetry.kind}")
    return out


def negated(support: Support, values: np.ndarray) -> np.ndarray:
    """−x; the angle −θ; the other state of two."""
    match support:
        case Spin() | Real() | Complex() | Sphere() | Group("U1" | "SU2"):
            return -values
        case Angle():
            return wrap(-values)
        case Clock(q):
            return (-values % q).astype(values.dtype)
        case Occupation() | Potts(2):
            return 1 - values
    raise InternalError(f"no sign flip of {support}")


def random_rotation(n: int, rng: np.random.Generator) -> np.ndarray:
    """A uniformly distributed rotation of Rⁿ: QR of a Gaussian matrix, determinant made 1."""
    q, r = np.linalg.qr(rng.standard_normal((n, n)))
    q *= np.sign(np.diagonal(r))
    if np.linalg.det(q) < 0:
        q[:, 0] *= -1
    return q


def _components(support: Support) -> int:
    match support:
        case Real(int(n)) | Sphere(n):
            return n
    raise InternalError(f"no rotation of {support}")


def _lattice(program: Program) -> Lattice:
    if program.lattice is None:
        raise InternalError("no lattice to act on")
    return program.lattice


def _recoloured(support: Support, values: np.ndarray, permutation: np.ndarray) -> np.ndarray:
    if isinstance(support, Spin):
        return (2 * permutation[(values > 0).astype(int)] - 1).astype(values.dtype)
    return permutation[values].astype(values.dtype)


def _shifted(support: Support, values: np.ndarray, element: Element, weight: int, order: int) -> np.ndarray:
    """Shifted by `weight` times 2πk/order, or by `weight` times an angle."""
    if isinstance(support, Spin | Occupation):
        return negated(support, values) if int(element) * weight % 2 else values  # type: ignore[call-overload]
    if is_discrete(support):
        q = cardinality(support)
        steps = int(element) * weight * (q // order)  # type: ignore[call-overload]
        return ((values.astype(int) + steps) % q).astype(values.dtype)
    angle = weight * (2 * np.pi * element / order if order else element)  # type: ignore[operator]
    match support:
        case Angle():
            return wrap(values + angle)
        case Real():
            return values + angle
    return values * np.exp(1j * angle)


def _translated(program: Program, on: str, values: np.ndarray, displacement: Element) -> np.ndarray:
    """new[x + d] = old[x]; on an axis that is not periodic, as if it were. A link that does not exist gives nothing."""
    lattice = _lattice(program)
    sites = np.arange(lattice.n_sites)
    cell, basis = np.divmod(sites, lattice.n_basis)
    index = [
        (i - d) % n
        for i, d, n in zip(np.unravel_index(cell, lattice.shape), displacement, lattice.shape, strict=True)  # type: ignore[call-overload]
    ]
    origin = np.ravel_multi_index(index, lattice.shape) * lattice.n_basis + basis
    if on == "sites":
        return values[origin]
    site, axis = lattice.links
    source = lattice.link_number[origin[site], axis]
    return values[np.where(source >= 0, source, np.arange(len(site)))]


def _gauged(symmetry: Symmetry, element: Element, x: Configuration, program: Program) -> dict[str, np.ndarray]:
    """U_μ(x) → g(x) U_μ(x) g(x+μ)†, θ_μ(x) → θ_μ(x) + α(x) − α(x+μ), and matter by g(x) to the power of its charge.

    An antiperiodic boundary reflects angles, so α(x+μ) changes sign across it like θ itself.
    """
    lattice, g = _lattice(program), np.asarray(element)
    site, axis = lattice.links
    target, sign = np.zeros_like(site), np.ones_like(site)
    for a in range(lattice.n_axes):
        on = axis == a
        target[on], _, sign[on] = lattice.move(site[on], lattice.axis_step(a))
    if ANTIPERIODIC not in lattice.boundary:
        sign = np.ones_like(site)
    out = {}
    for k, name in enumerate(symmetry.fields):
        field, values = program.field(name), np.asarray(x[name])
        if field.on == "links":
            match field.support:
                case Angle():
                    out[name] = wrap(values + g[site] - sign * g[target])
                case Clock(q):
                    out[name] = ((values.astype(int) + g[site] - sign * g[target].astype(int)) % q).astype(values.dtype)
                case Spin():
                    out[name] = values * g[site] * g[target]
                case Group("U1"):
                    out[name] = g[site] * values * g[target].conj()
                case Group():
                    out[name] = g[site] @ values @ g[target].conj().swapaxes(1, 2)
        else:
            out[name] = _matter(field.support, values, g, symmetry.weights[k] if symmetry.weights else 1)
    return out


def _matter(support: Support, values: np.ndarray, g: np.ndarray, charge: int) -> np.ndarray:
    match support:
        case Angle():
            return wrap(values + charge * (np.angle(g) if np.iscomplexobj(g) else g))
        case Clock(q):
            return ((values.astype(int) + charge * g.astype(int)) % q).astype(values.dtype)
        case Spin():
            return values * g**charge if charge >= 0 else values * g ** (-charge)
        case Complex() | Group("U1"):
            return values * (g if np.iscomplexobj(g) else np.exp(1j * g)) ** charge
    raise InternalError(f"no gauge transformation of {support}")
