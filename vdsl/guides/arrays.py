"""Arrays: host numbers onto the device in working precision, cast and copied by NumPy first.

A cast on the device is a compilation, and so is `jnp.asarray` of every new shape; `device_put` is neither.
"""

from __future__ import annotations

import jax
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
