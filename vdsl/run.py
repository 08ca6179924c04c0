"""Run: a solved model, what it knows, and how it is put into a directory."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vdsl.errors import Diagnostic
from vdsl.estimate.importance import Draw
from vdsl.estimate.thermo import Thermodynamics, reweight, thermodynamics
from vdsl.guides.guide import Guide, GuideChoice
from vdsl.ir.program import Program
from vdsl.report import write
from vdsl.report.result import versions

if TYPE_CHECKING:
    from vdsl.estimate.stats import Estimate
    from vdsl.inference.train import Plan
    from vdsl.model import Model

_KEPT_BYTES = 2**27  # configurations kept in samples.npz


@dataclass(frozen=True)
class SolveSettings:
    """What the user may choose; None leaves the choice to the plan. `time_limit` in seconds, for the whole solve."""

    seed: int | None = None
    time_limit: float | None = None
    steps: int | None = None
    batch: int | None = None
    guide: str | None = None
    samples: int | None = None
    estimator: str | None = None
    learning_rate: float | None = None


def with_blocks(settings: SolveSettings, program: Program) -> SolveSettings:
    """The settings, and where they leave something open what the model's `guide` and `train` blocks say."""
    options = dict(program.train.options) if program.train is not None else {}
    said: dict[str, Any] = {"guide": program.guide.name or None} if program.guide is not None else {}
    said |= {f.name: options[f.name] for f in fields(SolveSettings) if f.name in options}
    if settings.steps is not None:
        said.pop("time_limit", None)  # what was asked for on the spot replaces what the file says about the length
    if settings.time_limit is not None:
        said.pop("steps", None)
    return replace(settings, **{name: value for name, value in said.items() if getattr(settings, name) is None})


def seed_of(settings: SolveSettings) -> int:
    """The seed, 0 unless something said otherwise."""
    return settings.seed or 0


@dataclass(frozen=True)
class Run:
    """A solved model. Estimates are extensive totals with one standard error; `result` is what `result.json` holds."""

    model: Model
    settings: SolveSettings
    choice: GuideChoice
    guide: Guide
    params: Any
    draw: Draw
    thermodynamics: Thermodynamics
    result: dict[str, Any]
    diagnostics: dict[str, Any]
    history: dict[str, np.ndarray]
    warnings: tuple[Diagnostic, ...]
    directory: Path | None = None

    @property
    def free_energy(self) -> Estimate:
        """F_q, the variational upper bound on F = −T ln Z."""
        return self.thermodynamics.free_energy

    @property
    def ln_z(self) -> Estimate:
        """The importance-weighted ln Z."""
        return self.thermodynamics.ln_z

    @property
    def energy(self) -> Estimate:
        """⟨E⟩, reweighted."""
        return self.thermodynamics.energy

    @property
    def entropy(self) -> Estimate:
        """S in units of k_B, reweighted."""
        return self.thermodynamics.entropy

    @property
    def heat_capacity(self) -> Estimate:
        """(⟨E²⟩ − ⟨E⟩²)/T², reweighted."""
        return self.thermodynamics.heat_capacity

    @property
    def observables(self) -> dict[str, Estimate]:
        """Thermal averages by name."""
        return self.thermodynamics.observables

    @property
    def derived(self) -> dict[str, Estimate]:
        """Functions of averages by name."""
        return self.thermodynamics.derived

    @property
    def quality(self) -> dict[str, Any]:
        """ESS, variance of ln w, acceptance and warnings, as in `result`."""
        return self.result["quality"]

    @property
    def topology(self) -> dict[str, Any] | None:
        """⟨Q²⟩, its exact value where known, autocorrelation and weights of sectors, as in `result`; for U(1) and angle
        fields on the links of a two-dimensional torus."""
        return self.result.get("topology")

    def sample(self, key: jax.Array, n: int) -> tuple[Any, jax.Array]:
        """n direct samples of the trained guide and ln q of each: x is {field: (n, elements)}, or the bare array of a
        model with one field."""
        x, log_q = self.guide.sample_and_log_prob(self.params, key, n)
        return (next(iter(x.values())) if len(x) == 1 else x), log_q

    def reweight(self, **changes: float) -> Thermodynamics:
        """All estimates at a nearby point, e.g. `reweight(T=2.3)`, from the same samples; its `quality.ess` says
        how far that carries."""
        return thermodynamics(reweight(self.draw, self.model, **changes), self.model)

    def save(self, directory: str | Path, force: bool = False) -> Path:
        """Writes the run to a directory that does not exist yet. Raises VfeError `out-exists` unless `force`."""
        target = write.claim(Path(directory), self.model.program.name, force)
        with write.locked(target):
            write_start(target, self.model, self.settings, {})
            write_end(target, self)
        return target


def write_start(directory: Path, model: Model, settings: SolveSettings, given: dict[str, Any]) -> None:
    """Writes what a run starts with: the source, the canonical program, and last the manifest that makes it a run.

    `given` is what only the caller knows: `source` (name and text), `overrides`, `allow_path`, `base` (where data files
    are) and `files` (their content, by the name the source uses).
    """
    program = model.program
    source = given.get("source", {})
    if "text" in source:
        write.write_text(directory / write.MODEL, source["text"])
    for name, content in given.get("files", {}).items():
        write.write_bytes(directory / write.DATA / name, content)
    write.write_text(directory / write.PROGRAM, f"fingerprint {program.fingerprint}\n\n{canonical(program)}\n")
    manifest = {
        "schema": write.MANIFEST_SCHEMA,
        "model": program.name,
        "fingerprint": program.fingerprint,
        "source": {"name": source.get("name")},
        "base": given.get("base"),
        "overrides": given.get("overrides", {}),
        "allow_path": given.get("allow_path", False),
        "x64": bool(jax.config.read("jax_enable_x64")),
        "settings": asdict(settings),
        "data": {d.name: d.values.digest for d in program.data},
        "versions": versions(),
        "device": jax.default_backend(),
    }
    write.write_json(directory / write.MANIFEST, manifest)


def write_plan(directory: Path, plan: Plan) -> None:
    """Adds the plan of the training to the manifest: steps, schedule, clipping."""
    manifest = write.read_manifest(directory)
    write.write_json(directory / write.MANIFEST, manifest | {"plan": asdict(plan)})


def write_end(directory: Path, run: Run) -> None:
    """Writes what a run ends with; `result.json` comes last: where it is, the rest is complete."""
    rows = max(1, min(len(run.draw), _KEPT_BYTES // max(1, sum(v[0].nbytes for v in run.draw.x.values()))))
    arrays = {f"sample/{name}": values[:rows] for name, values in run.draw.x.items()}
    arrays |= {"log_q": run.draw.log_q[:rows], "energy": run.draw.energy[:rows]}
    arrays |= {f"observable/{name}": values[:rows] for name, values in run.draw.observables.items()}
    write.write_arrays(directory / write.SAMPLES, arrays)
    write.write_arrays(directory / write.HISTORY, run.history)
    write.write_json(directory / write.DIAGNOSTICS, run.diagnostics)
    write.write_json(directory / write.RESULT, run.result)


def canonical(program: Program) -> str:
    """The canonical program, one declaration a line."""
    lines = [f"model {program.name}", f"lattice {program.lattice!r}"]
    for kind in (
        "structure",
        "parameters",
        "data",
        "definitions",
        "fields",
        "terms",
        "observables",
        "derived",
        "claims",
    ):
        lines += [repr(entry) for entry in getattr(program, kind)]
    return "\n".join([*lines, f"temperature {program.temperature!r}"])
