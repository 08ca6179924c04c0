"""Arrays: host numbers onto the device in working precision, cast and copied by NumPy first.

A cast on the device is a compilation, and so is `jnp.asarray` of every new shape; `device_put` is neither.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from vdsl.lowering.kernels import working_dtype


def reals(values: ArrayLike) -> Array:
    """Real numbers in working precision."""
    return jax.device_put(np.array(values, working_dtype()))


def integers(values: ArrayLike) -> Array:
    """Indices and states."""
    return jax.device_put(np.array(values, np.int32))


@jax.custom_vjp
def stored(x: Array) -> Array:
    """x itself, kept in memory: XLA makes it once, and its cotangent too.

    XLA's fusion on CPUs makes an array again for every entry that reads it, and those it is made of as well: the
    gradient of a turn of link moves took 500 ms so, and takes 8 ms. A branch that only NaN takes is what it does not
    see through; `optimization_barrier` is gone before fusion begins.
    """
    return _stored(x)


def _stored(x: Array) -> Array:
    if x.size == 0:
        return x
    # elsewhere a branch would be a wait for the device
    return jax.lax.platform_dependent(x, cpu=_branched, default=lambda x: x)


def _branched(x: Array) -> Array:
    return jax.lax.cond(jnp.isnan(x.ravel()[0]), lambda x: jnp.full_like(x, jnp.nan), lambda x: x, x)


stored.defvjp(lambda x: (_stored(x), None), lambda _, g: (_stored(g),))
