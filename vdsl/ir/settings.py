"""Settings: the names and options that `guide NAME { … }` and `train { … }` may hold, known without importing a guide.

The registry of guides and the training loop are tested to agree with these tables.
"""

from __future__ import annotations

from dataclasses import dataclass

Value = bool | int | float | str


@dataclass(frozen=True)
class Option:
    """What an option takes: `whole` or `real` numbers within bounds, or one of some `choices`."""

    kind: str  # "whole" | "real" | "choice"
    least: float = 0.0
    least_open: bool = False
    choices: tuple[str, ...] = ()
    most: float = float("inf")

    def __str__(self) -> str:
        if self.kind == "choice":
            return "one of " + ", ".join(f'"{c}"' for c in self.choices)
        if self.most < float("inf"):
            bound = f"from {self.least:g} to {self.most:g}"
        else:
            bound = f"{'above' if self.least_open else 'of at least'} {self.least:g}"
        return f"{'an integer' if self.kind == 'whole' else 'a number'} {bound}"

    def accepts(self, value: Value) -> bool:
        """Whether a value fits."""
        match self.kind, value:
            case _, bool():
                return False
            case "choice", str(text):
                return text in self.choices
            case ("whole", int(x)) | ("real", int(x) | float(x)):
                return (x > self.least if self.least_open else x >= self.least) and x <= self.most and x < float("inf")
        return False


GUIDES: tuple[str, ...] = (
    "exact",
    "autoregressive",
    "dense",
    "mean_field",
    "gaussian",
    "coupling",
    "continuous",
    "multiscale",
    "tree",
    "gauge_continuous",
    "gauge_coupling",
)
_HIDDEN = Option("whole", 1, most=1024)
_STEPS = Option("whole", 1, most=64)
_WIDTH = Option("whole", 1, most=64)
_REACH = Option("whole", 0, most=64)
# Sizes of what is trained; what a guide takes when nothing is said depends on the model. The bounds are far beyond what
# has ever helped, and keep a slip of the finger from filling the memory.
GUIDE_OPTIONS: dict[str, dict[str, Option]] = {
    "exact": {},
    "autoregressive": {"hidden": _HIDDEN},
    "dense": {"hidden": _HIDDEN},
    "mean_field": {},
    "gaussian": {},
    "coupling": {
        "layers": Option("whole", 1, most=64),
        "bins": Option("whole", 2, most=64),
        "features": Option("whole", 1, most=256),
        "hidden": _HIDDEN,
    },
    "continuous": {"steps": _STEPS, "width": _WIDTH},
    "multiscale": {
        "hidden": _HIDDEN,
        "window": Option("whole", 2, most=256),
        "coarsest": Option("whole", 2, most=64),
    },
    "tree": {},
    "gauge_continuous": {
        "sweeps": _STEPS,
        "reach": _REACH,
        "hidden": _HIDDEN,
        "harmonics": Option("whole", 1, most=16),
    },
    "gauge_coupling": {"sweeps": _STEPS, "reach": _REACH, "hidden": _HIDDEN, "bins": Option("whole", 2, most=64)},
}
TRAIN_OPTIONS: dict[str, Option] = {
    "steps": Option("whole", 0),
    "batch": Option("whole", 2),
    "time_limit": Option("real", 0, least_open=True),  # seconds
    "samples": Option("whole", 2),
    "seed": Option("whole", 0),
    "learning_rate": Option("real", 0, least_open=True),
    "estimator": Option("choice", choices=("score", "reparameterised", "path")),
}
