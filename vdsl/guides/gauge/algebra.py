"""Algebra: group elements as arrays that are quick to multiply, and as what a model stores.

    U(1)    an angle as a fraction of a turn, in units of 2⁻³² of it: an integer whose overflow *is* the group, so that
            sums over any number of links are exact
    SU(2)   the quaternion (a₀, a) of a₀ + i a·σ
    SU(3)   the matrix

Every product of matrices is followed by a projection back onto the group, so that rounding does not build up.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.lowering.kernels import complex_dtype, working_dtype

TURN_BITS = 32


class Algebra(eqx.Module):
    """Group operations on arrays (…, *event). Stateless."""

    rank: int = eqx.field(static=True)  # axes of one element

    @abstractmethod
    def identity(self, shape: tuple[int, ...]) -> Array:
        """1, shape + event."""

    @abstractmethod
    def multiply(self, a: Array, b: Array) -> Array:
        """ab, on the group."""

    @abstractmethod
    def inverse(self, a: Array) -> Array:
        """a†."""

    @abstractmethod
    def uniform(self, key: Array, shape: tuple[int, ...]) -> Array:
        """Haar."""

    @abstractmethod
    def stored(self, a: Array) -> Array:
        """As a model stores it."""

    @abstractmethod
    def read(self, values: Array) -> Array:
        """The inverse of `stored`."""

    def running(self, a: Array, axis: int, reverse: bool = False) -> Array:
        """Products of all up to each along an axis: a₀a₁…a_k, or a_k…a₁a₀ with `reverse`."""

        def step(product: Array, factor: Array) -> tuple[Array, Array]:
            product = self.multiply(factor, product) if reverse else self.multiply(product, factor)
            return product, product

        factors = jnp.moveaxis(a, axis, 0)
        one = self.identity(factors.shape[1 : factors.ndim - self.rank])
        return jnp.moveaxis(jax.lax.scan(step, one, factors)[1], 0, axis)

    def total(self, a: Array) -> Array:
        """a₀a₁… along axis 1 of (b, k, *event); 1 for none. In √k steps of √k products each."""
        n, k, *event = a.shape
        if k == 0:
            return self.identity((n,))
        size = math.isqrt(k - 1) + 1
        a = jnp.concatenate([a, self.identity((n, size**2 - k))], 1).reshape(n, size, size, *event)

        def step(product: Array, factor: Array) -> tuple[Array, None]:
            return self.multiply(product, factor), None

        rows, _ = jax.lax.scan(step, self.identity((n, size)), jnp.moveaxis(a, 2, 0))
        return jax.lax.scan(step, self.identity((n,)), jnp.moveaxis(rows, 1, 0))[0]

    def commutator(self, a: Array, b: Array) -> Array:
        """ABA†B†."""
        return self.multiply(self.multiply(a, b), self.inverse(self.multiply(b, a)))


class Turns(Algebra):
    """U(1), stored as an angle in (−π, π] or as a complex number."""

    complex_values: bool = eqx.field(static=True)

    def identity(self, shape: tuple[int, ...]) -> Array:
        return jnp.zeros(shape, jnp.int32)

    def multiply(self, a: Array, b: Array) -> Array:
        return a + b

    def inverse(self, a: Array) -> Array:
        return -a

    def running(self, a: Array, axis: int, reverse: bool = False) -> Array:
        return jnp.cumsum(a, axis, jnp.int32)

    def uniform(self, key: Array, shape: tuple[int, ...]) -> Array:
        return jax.random.bits(key, shape, jnp.uint32).astype(jnp.int32)

    def stored(self, a: Array) -> Array:
        angle = a.astype(working_dtype()) * (2 * np.pi / 2**TURN_BITS)
        if self.complex_values:
            return jnp.exp(1j * angle)
        return jnp.where(a == -(2**31), jnp.asarray(np.pi, angle.dtype), angle)  # −π is the angle π

    def read(self, values: Array) -> Array:
        angle = jnp.angle(values) if self.complex_values else values
        fraction = angle * (2**TURN_BITS / (2 * np.pi))
        # π itself rounds to 2³¹, which is −2³¹: the cast would saturate.
        return jnp.where(fraction >= 2.0**31, -(2.0**31), jnp.round(fraction)).astype(jnp.int32)


class Quaternions(Algebra):
    """SU(2), stored as 2×2 matrices."""

    def identity(self, shape: tuple[int, ...]) -> Array:
        return jnp.zeros((*shape, 4), working_dtype()).at[..., 0].set(1)

    def multiply(self, a: Array, b: Array) -> Array:
        a0, a1, a2, a3 = (a[..., k] for k in range(4))
        b0, b1, b2, b3 = (b[..., k] for k in range(4))
        return unit(
            jnp.stack(
                [
                    a0 * b0 - a1 * b1 - a2 * b2 - a3 * b3,
                    a0 * b1 + b0 * a1 - a2 * b3 + a3 * b2,
                    a0 * b2 + b0 * a2 - a3 * b1 + a1 * b3,
                    a0 * b3 + b0 * a3 - a1 * b2 + a2 * b1,
                ],
                -1,
            )
        )

    def inverse(self, a: Array) -> Array:
        return a * jnp.asarray([1, -1, -1, -1], a.dtype)

    def uniform(self, key: Array, shape: tuple[int, ...]) -> Array:
        return unit(jax.random.normal(key, (*shape, 4), working_dtype()))

    def stored(self, a: Array) -> Array:
        diagonal, off = jax.lax.complex(a[..., 0], a[..., 3]), jax.lax.complex(a[..., 2], a[..., 1])
        rows = [jnp.stack([diagonal, off], -1), jnp.stack([-off.conj(), diagonal.conj()], -1)]
        return jnp.stack(rows, -2)

    def read(self, values: Array) -> Array:
        diagonal, off = values[..., 0, 0], values[..., 0, 1]
        return unit(jnp.stack([diagonal.real, off.imag, off.real, diagonal.imag], -1))


class Matrices(Algebra):
    """SU(3) as 3×3 matrices."""

    def identity(self, shape: tuple[int, ...]) -> Array:
        return jnp.broadcast_to(jnp.eye(3, dtype=complex_dtype()), (*shape, 3, 3))

    def multiply(self, a: Array, b: Array) -> Array:
        return special_unitary(product(a, b))

    def inverse(self, a: Array) -> Array:
        return a.conj().swapaxes(-1, -2)

    def uniform(self, key: Array, shape: tuple[int, ...]) -> Array:
        parts = jax.random.normal(key, (2, *shape, 3, 3), working_dtype())
        return special_unitary(jax.lax.complex(parts[0], parts[1]))

    def stored(self, a: Array) -> Array:
        return a

    def read(self, values: Array) -> Array:
        return values


def algebra_of(group: str, complex_values: bool) -> Algebra:
    """The algebra of a group; `complex_values`: whether U(1) is stored as complex numbers and not as angles."""
    if group == "U1":
        return Turns(0, complex_values)
    return Quaternions(1) if group == "SU2" else Matrices(2)


def unit(a: Array) -> Array:
    """A vector, made a unit vector."""
    return a * jax.lax.rsqrt(jnp.sum(a * a, -1, keepdims=True))


def product(a: Array, b: Array) -> Array:
    """A matrix product, written out: small batched `dot_general` is several times slower on CPUs."""
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2)


def special_unitary(a: Array) -> Array:
    """The first two rows made orthonormal (Gram–Schmidt), the third their conjugate cross product: Haar for a matrix
    of Gaussians, as the third row of an element of SU(3) follows from the others."""
    first, second = a[..., 0, :], a[..., 1, :]
    first = first * jax.lax.rsqrt(jnp.sum(jnp.abs(first) ** 2, -1, keepdims=True))
    second = second - first * jnp.sum(first.conj() * second, -1, keepdims=True)
    second = second * jax.lax.rsqrt(jnp.sum(jnp.abs(second) ** 2, -1, keepdims=True))
    return jnp.stack([first, second, jnp.cross(first, second).conj()], -2)
