"""What boundaries do to a model: bonds that meet on a small torus, fields that cannot change sign."""

from __future__ import annotations

from vdsl.errors import Span
from vdsl.frontend import ast
from vdsl.frontend.findings import Findings, declared, several
from vdsl.ir.lattice import ANTIPERIODIC, OPEN, Lattice


def warn_multiplicity(lattice: Lattice, name: str, span: Span, findings: Findings) -> None:
    """Warns where a small torus makes bonds meet themselves or one another, and says how often they are counted.

    Two bonds can only meet if some periodic axis is no longer than twice the longest step along it; longer axes are cut
    to just above that, which changes how many such bonds there are but not their multiplicity.
    """
    if lattice.is_graph:
        return
    reach = [
        max((abs(c.displacement[a]) for c in lattice.bond_classes(name)), default=0) for a in range(lattice.n_axes)
    ]
    short = [a for a, n in enumerate(lattice.shape) if lattice.boundary[a] != OPEN and n <= 2 * reach[a]]
    if not short:
        return
    shape = tuple(min(n, 2 * r + 1) for n, r in zip(lattice.shape, reach, strict=True))
    found = Lattice(**{**lattice.__dict__, "shape": shape}).multiplicities(name)
    loops = found.pop(0, 0)
    if not found and not loops:
        return
    sizes = several(f"L = {lattice.shape[a]} along axis {a}" for a in short)
    notes = []
    if found:
        notes.append(f"bonds between the same two sites are counted {several(f'{m} times' for m in sorted(found))}")
    if loops:
        notes.append("bonds that join a site to itself are counted too")
    findings.warning(
        "bond-multiplicity",
        f"on so small a torus the bonds of `{name}` meet each other",
        span,
        sizes,
        notes=notes,
        hints=["use a larger size, or `boundary = open`"],
    )


def check_antiperiodic(lattice: Lattice, name: ast.Name, negation: bool, findings: Findings, at: Span) -> None:
    """Refuses a field whose values have no negative on a lattice with an antiperiodic boundary."""
    if ANTIPERIODIC in lattice.boundary and not negation:
        findings.error(
            "antiperiodic-field",
            f"the field `{name.id}` cannot change sign",
            name.span,
            related=[declared("lattice", at)],
            notes=["across an antiperiodic boundary a field value is reached as its negative"],
        )
