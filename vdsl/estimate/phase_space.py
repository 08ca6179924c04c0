"""Fields as positions that move: coordinates, velocities, free motion and gradients on the manifold of each field.

A *position* is {field: (b, elements, …)} and a *velocity* {field: (b, elements, k)}, b configurations at once:

| field          | position                | velocity, kinetic energy ½ m |v|²    | free motion                        |
|----------------|-------------------------|--------------------------------------|------------------------------------|
| real, real[n]  | (…, k) real             | k numbers                            | x + εv                             |
| complex        | (…, 2) re, im           | 2                                    | x + εv                             |
| angle, U(1)    | (…, 1) the angle        | 1                                    | θ + εv                             |
| sphere(n)      | (…, n) unit vectors     | n, orthogonal to the position        | great circle                       |
| SU(N)          | (…, N, N) matrices      | N² − 1, of the generators T          | e^{iε v·T} U                       |
| discrete       | (…,) state indices      | none                                 | none                               |

One mass for each element, so that the metric is that of the manifold and every free motion preserves its measure
(great circles: Byrne & Girolami 2013, Scand. J. Statist. 40, 825; groups: Duane et al. 1987, Phys. Lett. B 195, 216).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.ir.program import Program
from vdsl.ir.support import (
    Angle,
    Complex,
    Group,
    Real,
    Sphere,
    Support,
    cardinality,
    event_shape,
    is_discrete,
    stored_states,
)
from vdsl.lowering.kernels import working_dtype
from vdsl.model import Model

Position = dict[str, Array]
Velocity = dict[str, Array]


@dataclass(frozen=True)
class Space:
    """Where a field lives. kind: "flat" | "circle" | "sphere" | "group" | "discrete"; k: numbers of a velocity."""

    field: str
    kind: str
    support: Support
    elements: int
    k: int


def spaces_of(program: Program) -> tuple[Space, ...]:
    """The space of every field, in the program's order."""
    return tuple(_space(f.name, f.support, program.elements(f)) for f in program.fields)


def _space(name: str, support: Support, elements: int) -> Space:
    match support:
        case Real():
            return Space(name, "flat", support, elements, int(np.prod(event_shape(support), dtype=int)))
        case Complex():
            return Space(name, "flat", support, elements, 2)
        case Angle() | Group("U1"):
            return Space(name, "circle", support, elements, 1)
        case Sphere(n):
            return Space(name, "sphere", support, elements, n)
        case Group():
            return Space(name, "group", support, elements, event_shape(support)[0] ** 2 - 1)
    return Space(name, "discrete", support, elements, 0)


class Target(eqx.Module):
    """βE of positions, and the normalised reference density that annealing starts from.

    centre, width {field: (elements, k)}: the normal density of every flat field; other fields are uniform.
    """

    theta: dict[str, Array]
    beta: Array
    centre: dict[str, Array]
    width: dict[str, Array]
    model: Model = eqx.field(static=True)
    spaces: tuple[Space, ...] = eqx.field(static=True)

    def energy(self, x: Position) -> Array:
        """βE, (b,)."""
        one = lambda c: self.model.energy(c, self.theta)  # noqa: E731
        return self.beta * jax.vmap(one)(decode(self.spaces, x))

    def reference(self, x: Position) -> Array:
        """−ln of the reference density, (b,), with respect to the model's base measure."""
        total = jnp.zeros(len(next(iter(x.values()))), working_dtype())
        for s in self.spaces:
            if s.kind == "flat":
                z = (x[s.field] - self.centre[s.field]) / self.width[s.field]
                total += (0.5 * z**2 + jnp.log(self.width[s.field]) + 0.5 * np.log(2 * np.pi)).sum((1, 2))
            else:
                total += s.elements * log_volume(s.support)
        return total

    def draw_reference(self, key: Array, n: int) -> Position:
        """n positions of the reference density."""
        x = encode(self.spaces, self.model.random_configuration(key, n))
        flat = {s.field for s in self.spaces if s.kind == "flat"}
        return {f: self.centre[f] + self.width[f] * v if f in flat else v for f, v in x.items()}


def make_target(model: Model, theta: Mapping[str, float], temperature: float) -> Target:
    """The target of a model at θ, with the standard normal as the reference of flat fields."""
    spaces = spaces_of(model.program)
    flat = [s for s in spaces if s.kind == "flat"]
    real = working_dtype()
    return Target(
        {name: jnp.asarray(value, real) for name, value in theta.items()},
        jnp.asarray(1 / temperature, real),
        {s.field: jnp.zeros((s.elements, s.k), real) for s in flat},
        {s.field: jnp.ones((s.elements, s.k), real) for s in flat},
        model,
        spaces,
    )


def log_volume(support: Support) -> float:
    """ln of the total base measure of one value of a compact or finite support."""
    match support:
        case Angle():
            return float(np.log(2 * np.pi))
        case Sphere(n):
            return math.log(2) + n / 2 * math.log(math.pi) - math.lgamma(n / 2)
        case Group():
            return 0.0
    return float(np.log(cardinality(support)))


# Stored configurations and positions


def encode(spaces: tuple[Space, ...], x: Mapping[str, Array]) -> Position:
    """Stored configurations {field: (b, elements, *event)} as positions."""
    out = {}
    for s in spaces:
        values = jnp.asarray(x[s.field])
        match s.kind, s.support:
            case "flat", Complex():
                out[s.field] = jnp.stack([values.real, values.imag], -1).astype(working_dtype())
            case "circle", Group():
                out[s.field] = jnp.angle(values)[..., None].astype(working_dtype())
            case "flat" | "circle" | "sphere", _:
                out[s.field] = values.reshape(len(values), s.elements, s.k).astype(working_dtype())
            case "discrete", _:
                low = int(stored_states(s.support)[0])
                out[s.field] = (values.astype(jnp.int32) - low) // (2 if low < 0 else 1)
            case _:
                out[s.field] = values
    return out


def decode(spaces: tuple[Space, ...], x: Position) -> dict[str, Array]:
    """Positions as stored configurations."""
    out = {}
    for s in spaces:
        values = x[s.field]
        match s.kind, s.support:
            case "flat", Complex():
                out[s.field] = jax.lax.complex(values[..., 0], values[..., 1])
            case "circle", Group():
                out[s.field] = jnp.exp(1j * values[..., 0])
            case "circle", _:
                out[s.field] = wrap(values[..., 0])
            case "flat" | "sphere", _:
                out[s.field] = values.reshape(*values.shape[:2], *event_shape(s.support))
            case "discrete", _:
                out[s.field] = jnp.asarray(stored_states(s.support))[values]
            case _:
                out[s.field] = values
    return out


def wrap(theta: Array) -> Array:
    """Angles into (−π, π], exactly themselves where they lie there already."""
    return theta - 2 * jnp.pi * jnp.ceil((theta - jnp.pi) / (2 * jnp.pi))


# Motion


def moving(spaces: tuple[Space, ...]) -> tuple[Space, ...]:
    """The spaces that have velocities."""
    return tuple(s for s in spaces if s.kind != "discrete")


def draw_velocity(key: Array, spaces: tuple[Space, ...], x: Position, mass: dict[str, Array]) -> Velocity:
    """Velocities from e^{−½ m |v|²}, tangent to the manifold."""
    out = {}
    for number, s in enumerate(moving(spaces)):
        shape = (len(x[s.field]), s.elements, s.k)
        v = jax.random.normal(jax.random.fold_in(key, number), shape, working_dtype())
        out[s.field] = _tangent(s, x[s.field], v) / jnp.sqrt(mass[s.field])[:, None]
    return out


def kinetic(v: Velocity, mass: dict[str, Array]) -> Array:
    """½ Σ m |v|², (b,)."""
    return sum((0.5 * (mass[f][:, None] * a**2).sum((1, 2)) for f, a in v.items()), jnp.zeros(()))


def drift(spaces: tuple[Space, ...], x: Position, v: Velocity, step: Array) -> tuple[Position, Velocity]:
    """Free motion for a time `step`."""
    x, v = dict(x), dict(v)
    for s in moving(spaces):
        at, by = x[s.field], v[s.field]
        match s.kind:
            case "sphere":
                speed = jnp.sqrt((by**2).sum(-1, keepdims=True))
                speed = jnp.maximum(speed, jnp.finfo(speed.dtype).tiny)
                c, sine = jnp.cos(speed * step), jnp.sin(speed * step)
                new = at * c + by / speed * sine
                # Rounding would leave the sphere and the tangent space a little at every step.
                new = new / jnp.sqrt((new**2).sum(-1, keepdims=True))
                x[s.field], v[s.field] = new, _tangent(s, new, by * c - at * speed * sine)
            case "group":
                x[s.field] = _rotated(_matrix(by * step), at)
            case _:
                x[s.field] = at + step * by
    return x, v


def kick(v: Velocity, gradient: Velocity, mass: dict[str, Array], step: Array) -> Velocity:
    """v − ε ∇U / m."""
    return {f: a - step * gradient[f] / mass[f][:, None] for f, a in v.items()}


def tidy(spaces: tuple[Space, ...], x: Position) -> Position:
    """The same positions with angles in (−π, π] and unitary matrices, so that rounding does not add up."""
    x = dict(x)
    for s in spaces:
        if s.kind == "circle":
            x[s.field] = wrap(x[s.field])
        elif s.kind == "group":
            x[s.field] = _unitary(x[s.field])
    return x


def with_gradient(spaces: tuple[Space, ...], u: Callable[[Position], Array], x: Position) -> tuple[Array, Velocity]:
    """u(x), (b,), and its gradient on the manifold."""
    at = {s.field: x[s.field] for s in moving(spaces)}

    def total(at: Position) -> tuple[Array, Array]:
        value = u({**x, **at})
        return value.sum(), value

    (_, value), ambient = jax.value_and_grad(total, has_aux=True)(at)
    return value, {s.field: _along(s, x[s.field], ambient[s.field]) for s in moving(spaces)}


def embedded(spaces: tuple[Space, ...], x: Position, v: Velocity, mass: dict[str, Array]) -> tuple[Array, Array]:
    """Positions and velocities in a flat space, (b, m) each, scaled by √mass: distances there are dimensionless."""
    points, speeds = [], []
    for s in moving(spaces):
        at, by = x[s.field], v[s.field]
        match s.kind:
            case "circle":
                c, sine = jnp.cos(at), jnp.sin(at)
                at, by = jnp.concatenate([c, sine], -1), jnp.concatenate([-sine * by, c * by], -1)
            case "group":
                moved = _product(_matrix(by), at)
                at, by = (jnp.concatenate([a.real, a.imag], -1).reshape(*a.shape[:2], -1) for a in (at, moved))
        root = jnp.sqrt(mass[s.field])[:, None]
        points.append((root * at).reshape(len(at), -1))
        speeds.append((root * by).reshape(len(at), -1))
    return jnp.concatenate(points, 1), jnp.concatenate(speeds, 1)


def _tangent(s: Space, x: Array, v: Array) -> Array:
    return v - (v * x).sum(-1, keepdims=True) * x if s.kind == "sphere" else v


def _along(s: Space, x: Array, ambient: Array) -> Array:
    """The gradient on the manifold from the one in its ambient coordinates."""
    if s.kind != "group":
        return _tangent(s, x, ambient)
    # JAX's gradient G of a complex U is that of du = Re Σ_ij G_ij dU_ij, and dU = iT_a U.
    basis = jnp.asarray(1j * _generators(x.shape[-1]))
    return jnp.einsum("...ji,aij->...a", _product(x, ambient.swapaxes(-1, -2)), basis).real


# SU(N)


def _generators(n: int) -> np.ndarray:
    """Hermitian traceless T_a with tr T_a T_b = ½ δ_ab, (n² − 1, n, n)."""
    out = []
    for a in range(n):
        for b in range(a + 1, n):
            for entry in (0.5, -0.5j):
                t = np.zeros((n, n), complex)
                t[a, b], t[b, a] = entry, np.conj(entry)
                out.append(t)
    for k in range(1, n):
        out.append(np.diag([1.0] * k + [-float(k)] + [0.0] * (n - k - 1)).astype(complex) / np.sqrt(2 * k * (k + 1)))
    return np.stack(out)


def _matrix(v: Array) -> Array:
    """i v·T, (…, n, n)."""
    n = math.isqrt(v.shape[-1] + 1)
    return jnp.einsum("...a,aij->...ij", v, jnp.asarray(1j * _generators(n)))


def _product(x: Array, y: Array) -> Array:
    """Matrix products written out: batches of 2×2 or 3×3 `dot_general` are some ten times slower on a CPU."""
    return sum(x[..., :, k, None] * y[..., None, k, :] for k in range(x.shape[-1]))  # type: ignore[return-value]


def _rotated(a: Array, u: Array) -> Array:
    """e^A U, A anti-Hermitian and traceless, |A| up to some tens: eighth order after halving A six times.

    A³ = pA + q, p = ½ tr A², q = ⅓ tr A³ (Cayley–Hamilton): the series and the squares are numbers x + yA + zA².
    """
    a = a / 2**6
    square = _product(a, a)
    p = 0.5 * _trace(square)
    q = _trace(_product(square, a)) / 3 if a.shape[-1] == 3 else jnp.zeros_like(p)
    x, y, z = jnp.ones_like(p), jnp.zeros_like(p), jnp.zeros_like(p)
    for k in range(8, 0, -1):
        x, y, z = 1 + z * q / k, (x + z * p) / k, y / k
    for _ in range(6):
        yz, zz = y * z, z * z
        x, y, z = x * x + 2 * yz * q, 2 * x * y + 2 * yz * p + zz * q, y * y + 2 * x * z + zz * p
    x, y, z = (c[..., None, None] for c in (x, y, z))
    au = _product(a, u)
    return x * u + y * au + z * _product(a, au)


def _trace(a: Array) -> Array:
    return sum(a[..., k, k] for k in range(a.shape[-1]))  # type: ignore[return-value]


def _unitary(u: Array) -> Array:
    """The nearest element of SU(N) to first order: Gram–Schmidt of the columns, the determinant's phase divided out."""
    columns: list[Array] = []
    for k in range(u.shape[-1]):
        column = u[..., k]
        for other in columns:
            column = column - other * (other.conj() * column).sum(-1, keepdims=True)
        columns.append(column / jnp.sqrt((column.real**2 + column.imag**2).sum(-1, keepdims=True)))
    q = jnp.stack(columns, -1)
    return q / (jnp.linalg.det(q) ** (1 / u.shape[-1]))[..., None, None]


def has_moving(program: Program) -> bool:
    """Whether any field is continuous."""
    return not all(is_discrete(f.support) for f in program.fields)
