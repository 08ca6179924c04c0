"""Claimed symmetries: which a field can have, and a claim as the group that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd

from vdsl.errors import Diagnostic, VfeError
from vdsl.ir.actions import Symmetry
from vdsl.ir.program import Claim, Field, Program
from vdsl.ir.support import (
    Angle,
    Clock,
    Complex,
    Group,
    Potts,
    Real,
    Sphere,
    Spin,
    Support,
    cardinality,
    describe,
    event_shape,
    has_negation,
    is_discrete,
)

KINDS = ("z2", "translation", "permutation", "shift", "rotation", "gauge")


def claimed(program: Program) -> tuple[Symmetry, ...]:
    """The symmetries the user claims.

    A claim without fields means the fields that the word is mostly used of (`permutation` of Potts colours, `shift` of
    angles and phases, `rotation` of vectors), or else all that it can act on. Raises `wrong-symmetry` for a claim that
    no field or lattice of the program can have.
    """
    return tuple(_claimed(program, claim) for claim in program.claims)


def can_act(kind: str, field: Field) -> bool:
    """Whether a symmetry of that kind may name the field."""
    match kind, field.support:
        case "z2", support:
            return has_negation(support) or (is_discrete(support) and cardinality(support) == 2)
        case "permutation", support:
            return is_discrete(support)
        case "rotation", Sphere() | Real(int()) | Angle() | Clock() | Complex() | Group("U1"):
            return True
        case "shift", support:
            return not isinstance(support, Sphere | Group) or support == Group("U1")
        case "gauge", Angle() | Clock() | Spin() | Group("U1"):
            return True
        case "gauge", Complex():
            return field.on == "sites"
        case "gauge", Group():
            return field.on == "links"
    return False


def _claimed(program: Program, claim: Claim) -> Symmetry:
    lattice = program.lattice
    if claim.kind == "translation":
        if lattice is None or lattice.is_graph:
            raise _impossible(claim, "the lattice has no translations: it is a graph")
        return Symmetry("translation", axes=tuple(range(lattice.n_axes)), source="claimed")
    able = [f for f in program.fields if can_act(claim.kind, f)]
    fields = [program.field(name) for name in claim.fields] or _meant(claim.kind, able)
    if not fields:
        raise _impossible(claim, f"`{claim.kind}` cannot act on any field of the model")
    for field in fields:
        if field not in able:
            raise _impossible(claim, f"`{claim.kind}` cannot act on `{field.name}`, a field of `{_type(field)}`")
    match claim.kind:
        case "permutation":
            return _permutation(claim, fields)
        case "rotation" if any(event_shape(f.support) for f in fields):
            return _rotation(claim, fields)
        case "shift" | "rotation":
            return _shift(claim, fields)
        case "gauge":
            return _gauge(claim, fields, able)
    return Symmetry("z2", _names(fields), "Z2", source="claimed")


def _meant(kind: str, able: Sequence[Field]) -> Sequence[Field]:
    """The fields of a claim that names none."""
    first: dict[str, Callable[[Support], object]] = {
        "permutation": lambda support: isinstance(support, Potts),
        "shift": lambda support: isinstance(support, Angle | Clock | Complex | Group),
        "rotation": event_shape,
    }
    return [f for f in able if kind in first and first[kind](f.support)] or able


def _permutation(claim: Claim, fields: Sequence[Field]) -> Symmetry:
    states = [cardinality(f.support) for f in fields]
    if len(set(states)) > 1:
        raise _apart(claim, fields, "the numbers of their states differ")
    return Symmetry("permutation", _names(fields), f"S{states[0]}", source="claimed")


def _rotation(claim: Claim, fields: Sequence[Field]) -> Symmetry:
    shapes = {event_shape(f.support) for f in fields}
    if len(shapes) > 1:
        raise _apart(claim, fields, "their values have different numbers of components")
    return Symmetry("rotation", _names(fields), f"SO({shapes.pop()[0]})", source="claimed")


def _shift(claim: Claim, fields: Sequence[Field]) -> Symmetry:
    """All angles by the same amount: any, or a multiple of 2π/order if some are discrete."""
    order = gcd(*(cardinality(f.support) for f in fields if is_discrete(f.support)))
    if order == 1:
        raise _apart(claim, fields, "the numbers of their states have no common divisor")
    group = f"Z{order}" if order else "R" if all(isinstance(f.support, Real) for f in fields) else "U(1)"
    ones = (1,) * len(fields)
    return Symmetry("shift", _names(fields), group, weights=ones, order=order, source="claimed")


def _gauge(claim: Claim, fields: Sequence[Field], able: Sequence[Field]) -> Symmetry:
    """The fields on links with the matter that is named, or else all the matter that can couple to them."""
    links = [f for f in fields if f.on == "links"]
    if not links:
        raise _impossible(claim, "`gauge` needs a field on links")
    group = links[0].support
    if any(f.support != group for f in links):
        raise _apart(claim, links, "their gauge groups differ")
    named = [f for f in fields if f.on == "sites"] if claim.fields else []
    for field in named:
        if not couples(group, field.support):
            message = f"`{field.name}`, a field of `{_type(field)}`, cannot couple to links of `{describe(group)}`"
            raise _impossible(claim, message)
    matter = named or [f for f in able if f.on == "sites" and couples(group, f.support)]
    return Symmetry("gauge", _names([*links, *matter]), source="claimed")


def couples(group: Support, matter: Support) -> bool:
    """Whether matter can carry a charge of the group that the links take values in."""
    if group in (Angle(), Group("U1")):
        return isinstance(matter, Angle | Complex) or matter == Group("U1")
    return isinstance(group, Spin | Clock) and matter == group


def _names(fields: Sequence[Field]) -> tuple[str, ...]:
    return tuple(f.name for f in fields)


def _type(field: Field) -> str:
    return describe(field.support)


def _impossible(claim: Claim, message: str, *hints: str) -> VfeError:
    return VfeError(Diagnostic("wrong-symmetry", message, claim.span, hints=hints))


def _apart(claim: Claim, fields: Sequence[Field], why: str) -> VfeError:
    shown = ", ".join(f"`{f.name}`: {_type(f)}" for f in fields)
    hints = [f"claim it of one field at a time: `{claim.kind}({f.name})`" for f in fields[:1]]
    return _impossible(claim, f"`{claim.kind}` cannot act on these fields together: {why} ({shown})", *hints)
