"""vdsl: variational free energy from a description of the physics.

    model = vdsl.load("ising.vfe", L=8)
    run = vdsl.solve(model, seed=0, time_limit=60)

Names are imported when they are first used, so that `import vdsl` costs nothing and does not start JAX.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vdsl.compile import load, loads
    from vdsl.errors import VfeError
    from vdsl.model import Model
    from vdsl.run import Run
    from vdsl.solver import solve
    from vdsl.sweep import sweep

__all__ = ["Model", "Run", "VfeError", "load", "loads", "solve", "sweep"]

_HOMES = {
    "Model": "vdsl.model",
    "Run": "vdsl.run",
    "VfeError": "vdsl.errors",
    "load": "vdsl.compile",
    "loads": "vdsl.compile",
    "solve": "vdsl.solver",
    "sweep": "vdsl.sweep",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vdsl' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
