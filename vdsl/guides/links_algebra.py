"""Link algebra: the elements of U(1), SU(2) and SU(3) as arrays with links and batch last, and what is done with them.

| group | array, last axes (links, b)                | product           |
|-------|--------------------------------------------|-------------------|
| U(1)  | the angle                                  | sum               |
| U(1)  | or z (2, …): U = z₀ + i z₁, |z| = 1        | of phasors        |
| SU(2) | q (4, …): U = q₀ + i q·σ, |q| = 1          | of quaternions    |
| SU(3) | the matrix (3, 3, …)                       | of matrices       |

With the batch last every product is a handful of long elementwise operations, several times faster on a CPU than a
batch of 3×3 matrix products.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.lowering.kernels import working_dtype


@dataclass(frozen=True)
class LinkGroup(ABC):
    """The protocol. n: N; dimension: of the Lie algebra; leading: axes of one element before (links, b)."""

    n: int
    dimension: int
    leading: tuple[int, ...]

    @property
    def rank(self) -> int:
        """How many axes one element has."""
        return len(self.leading)

    @property
    def real(self) -> bool:
        """Whether every trace is real, so that loops have no odd part."""
        return self.n == 2

    def take(self, x: Array, index: Array) -> Array:
        """The links of given numbers (…,): (*leading, …, b)."""
        return jnp.take(x, index, axis=self.rank, mode="clip")

    def put(self, x: Array, index: Array, values: Array) -> Array:
        """x with links replaced; numbers beyond the last link are left out."""
        return x.at[(*(slice(None),) * self.rank, index)].set(values, mode="drop", unique_indices=True)

    @abstractmethod
    def encode(self, values: Array) -> Array:
        """Stored elements (b, links, *event)."""

    @abstractmethod
    def decode(self, x: Array) -> Array:
        """Elements as they are stored."""

    @abstractmethod
    def haar(self, key: Array, links: int, b: int) -> Array:
        """Independent elements from the Haar measure."""

    @abstractmethod
    def multiply(self, x: Array, y: Array) -> Array:
        """The product, element by element."""

    @abstractmethod
    def adjoint(self, x: Array) -> Array:
        """The inverse."""

    @abstractmethod
    def pair(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Real and imaginary part of tr(x y†)/N."""

    def linear(self, x: Array) -> tuple[LinkGroup, Array]:
        """The elements as arrays that can be added: a sum of them is one of group elements' matrices."""
        return self, x

    def tidy(self, x: Array) -> Array:
        """The same elements without what rounding added."""
        return x


class Phases(LinkGroup):
    """U(1), or angles. `stored_angle`: configurations hold the angle and not the phase."""

    stored_angle: bool

    def __init__(self, stored_angle: bool):
        super().__init__(1, 1, ())
        object.__setattr__(self, "stored_angle", stored_angle)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Phases) and other.stored_angle == self.stored_angle

    def __hash__(self) -> int:
        return hash(("U1", self.stored_angle))

    def encode(self, values: Array) -> Array:
        return (values if self.stored_angle else jnp.angle(values)).T.astype(working_dtype())

    def decode(self, x: Array) -> Array:
        return self.tidy(x).T if self.stored_angle else jnp.exp(1j * x.T)

    def haar(self, key: Array, links: int, b: int) -> Array:
        return jax.random.uniform(key, (links, b), minval=-jnp.pi, maxval=jnp.pi)

    def multiply(self, x: Array, y: Array) -> Array:
        return x + y

    def adjoint(self, x: Array) -> Array:
        return -x

    def pair(self, x: Array, y: Array) -> tuple[Array, Array]:
        return jnp.cos(x - y), jnp.sin(x - y)

    def tidy(self, x: Array) -> Array:
        return x - 2 * jnp.pi * jax.lax.stop_gradient(jnp.ceil((x - jnp.pi) / (2 * jnp.pi)))  # into (−π, π]

    def linear(self, x: Array) -> tuple[LinkGroup, Array]:
        return Phasors(self.stored_angle), jnp.stack([jnp.cos(x), jnp.sin(x)])


class Phasors(LinkGroup):
    """U(1), or angles, by real and imaginary part: sums and products need no sines."""

    stored_angle: bool

    def __init__(self, stored_angle: bool):
        super().__init__(1, 1, (2,))
        object.__setattr__(self, "stored_angle", stored_angle)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Phasors) and other.stored_angle == self.stored_angle

    def __hash__(self) -> int:
        return hash(("phasors", self.stored_angle))

    def encode(self, values: Array) -> Array:
        parts = (jnp.cos(values), jnp.sin(values)) if self.stored_angle else (values.real, values.imag)
        return jnp.stack([part.T for part in parts]).astype(working_dtype())

    def decode(self, x: Array) -> Array:
        return jnp.arctan2(x[1], x[0]).T if self.stored_angle else jax.lax.complex(x[0], x[1]).T

    def haar(self, key: Array, links: int, b: int) -> Array:
        angle = jax.random.uniform(key, (links, b), minval=-jnp.pi, maxval=jnp.pi)
        return jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    def multiply(self, x: Array, y: Array) -> Array:
        return jnp.stack([x[0] * y[0] - x[1] * y[1], x[0] * y[1] + x[1] * y[0]])

    def adjoint(self, x: Array) -> Array:
        return jnp.stack([x[0], -x[1]])

    def pair(self, x: Array, y: Array) -> tuple[Array, Array]:
        return (x * y).sum(0), x[1] * y[0] - x[0] * y[1]

    def tidy(self, x: Array) -> Array:
        return x / jnp.sqrt((x**2).sum(0))


class Quaternions(LinkGroup):
    """SU(2)."""

    def __init__(self) -> None:
        super().__init__(2, 3, (4,))

    def encode(self, values: Array) -> Array:
        u = jnp.moveaxis(values, 0, -1)  # (links, 2, 2, b)
        a, b = u[:, 0, 0], u[:, 0, 1]
        return jnp.stack([a.real, b.imag, b.real, a.imag]).astype(working_dtype())

    def decode(self, x: Array) -> Array:
        a, b = jax.lax.complex(x[0], x[3]), jax.lax.complex(x[2], x[1])
        rows = jnp.stack([jnp.stack([a, b]), jnp.stack([-b.conj(), a.conj()])])
        return rows.transpose(3, 2, 0, 1)

    def haar(self, key: Array, links: int, b: int) -> Array:
        return self.tidy(jax.random.normal(key, (4, links, b)))

    def multiply(self, x: Array, y: Array) -> Array:
        return _quaternion_product(x, y)

    def adjoint(self, x: Array) -> Array:
        return x * np.array([1, -1, -1, -1], x.dtype).reshape(4, *(1,) * (x.ndim - 1))

    def pair(self, x: Array, y: Array) -> tuple[Array, Array]:
        real = (x * y).sum(0)
        return real, jnp.zeros_like(real)

    def tidy(self, x: Array) -> Array:
        return x / jnp.sqrt((x**2).sum(0))


class Matrices(LinkGroup):
    """SU(3)."""

    def __init__(self) -> None:
        super().__init__(3, 8, (3, 3))

    def encode(self, values: Array) -> Array:
        dtype = jnp.complex64 if working_dtype() == np.float32 else jnp.complex128
        return values.transpose(2, 3, 1, 0).astype(dtype)

    def decode(self, x: Array) -> Array:
        return x.transpose(3, 2, 0, 1)

    def haar(self, key: Array, links: int, b: int) -> Array:
        parts = jax.random.normal(key, (2, 2, 3, links, b))
        return _from_two_columns(jax.lax.complex(parts[0], parts[1]))

    def multiply(self, x: Array, y: Array) -> Array:
        return _matrix_product(x, y)

    def adjoint(self, x: Array) -> Array:
        return x.conj().swapaxes(0, 1)

    def pair(self, x: Array, y: Array) -> tuple[Array, Array]:
        real = (x.real * y.real + x.imag * y.imag).sum((0, 1)) / 3
        return real, (x.imag * y.real - x.real * y.imag).sum((0, 1)) / 3

    def tidy(self, x: Array) -> Array:
        return _from_two_columns(jnp.stack([x[:, 0], x[:, 1]]))


def entries(x: Array, axis: int = 0) -> tuple[Array, ...]:
    """x[0], x[1], … of an axis, whose derivative is one concatenation and not as many arrays of zeros to be added."""
    return tuple(part.squeeze(axis) for part in jax.lax.split(x, (1,) * x.shape[axis], axis))


# The derivative of a product is products again. Autodiff would add up padded slices: eight times slower, and slower to
# compile. x and y have the same shape.


@jax.custom_vjp
def _quaternion_product(x: Array, y: Array) -> Array:
    return jnp.stack(
        [
            x[0] * y[0] - x[1] * y[1] - x[2] * y[2] - x[3] * y[3],
            x[0] * y[1] + y[0] * x[1] - (x[2] * y[3] - x[3] * y[2]),
            x[0] * y[2] + y[0] * x[2] - (x[3] * y[1] - x[1] * y[3]),
            x[0] * y[3] + y[0] * x[3] - (x[1] * y[2] - x[2] * y[1]),
        ]
    )


@jax.custom_vjp
def _matrix_product(x: Array, y: Array) -> Array:
    return sum(x[:, k, None] * y[None, k] for k in range(3))  # type: ignore[return-value]


def _quaternion_pull(factors: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, y = (Quaternions().adjoint(factor) for factor in factors)
    return _quaternion_product(g, y), _quaternion_product(x, g)


def _matrix_pull(factors: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, y = (factor.swapaxes(0, 1) for factor in factors)
    return _matrix_product(g, y), _matrix_product(x, g)


_quaternion_product.defvjp(lambda x, y: (_quaternion_product(x, y), (x, y)), _quaternion_pull)
_matrix_product.defvjp(lambda x, y: (_matrix_product(x, y), (x, y)), _matrix_pull)


def _from_two_columns(columns: Array) -> Array:
    """The special unitary matrix with these first two columns (2, 3, …), made orthonormal (Gram–Schmidt).

    The third is the conjugate of their cross product. Of two Gaussian columns this is Haar: the first is uniform on the
    sphere, the second uniform on what is orthogonal to it, the third determined.
    """
    norm = lambda v: jnp.sqrt((v.real**2 + v.imag**2).sum(0))  # noqa: E731
    a, b = columns
    a = a / norm(a)
    b = b - a * (a.conj() * b).sum(0)
    b = b / norm(b)
    c = jnp.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]).conj()
    return jnp.stack([a, b, c], axis=1)
