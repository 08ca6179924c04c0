"""Arrays: host numbers onto the device in working precision, cast by NumPy first: a device cast is a compilation."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike

from vdsl.lowering.kernels import working_dtype


def reals(values: ArrayLike) -> Array:
    """Real numbers in working precision."""
    return jnp.asarray(np.asarray(values, working_dtype()))


def integers(values: ArrayLike) -> Array:
    """Indices and states."""
    return jnp.asarray(np.asarray(values, np.int32))
