"""The energy of a model into colours: sets of elements of one field that do not feel each other.

Two elements interact where changing one changes the gradient of the energy with respect to the other, which is tried on
random configurations. On a periodic lattice whose terms treat all cells alike only the elements of one cell are tried.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.errors import Diagnostic, VfeError
from vdsl.estimate.phase_space import Position, Space, Target, moving, with_gradient
from vdsl.ir.invariance import is_homogeneous, terms
from vdsl.ir.lattice import PERIODIC, Lattice
from vdsl.ir.program import Program

_MOST_ELEMENTS = 20000  # that are tried one by one
_NUMBERS = 2**22  # of the gradients that are compared at once
_TOLERANCE = 3e-5  # of a gradient's size, in single precision
Neighbours = dict[tuple[str, int], set[tuple[str, int]]]


def gradient(target: Target, x: Position) -> dict[str, Array]:
    """∇βE on the manifold of every moving field, {field: (b, elements, k)}."""
    return with_gradient(target.spaces, target.energy, x)[1]


def colour_masks(target: Target, key: Array) -> dict[str, np.ndarray]:
    """{field: (colours, elements)} of booleans: each element of a moving field in one colour."""
    program = target.model.program
    near = _neighbours(target, program, key)
    out = {}
    for s in moving(target.spaces):
        out[s.field] = np.concatenate([_greedy(s, group, near) for group in _groups(program, s)])
    return out


def _groups(program: Program, s: Space) -> list[np.ndarray]:
    """Links of each direction apart: they have two colours on even lattices."""
    field, lattice = program.field(s.field), program.lattice
    if field.on == "sites" or lattice is None:
        return [np.arange(s.elements)]
    axis = lattice.links[1]
    return [np.flatnonzero(axis == a) for a in np.unique(axis)]


def _greedy(s: Space, members: np.ndarray, near: Neighbours) -> np.ndarray:
    colour: dict[int, int] = {}
    for element in members.tolist():
        taken = {colour[e] for f, e in near[s.field, element] if f == s.field and e in colour}
        colour[element] = next(c for c in range(len(taken) + 1) if c not in taken)
    masks = np.zeros((max(colour.values()) + 1, s.elements), bool)
    for element, c in colour.items():
        masks[c, element] = True
    return masks


def _neighbours(target: Target, program: Program, key: Array) -> Neighbours:
    spaces, lattice = moving(target.spaces), program.lattice
    uniform = (
        lattice is not None
        and not lattice.is_graph
        and all(b == PERIODIC for b in lattice.boundary)
        and all(is_homogeneous(t) for t in terms(program))
    )
    if not uniform and sum(s.elements for s in spaces) > _MOST_ELEMENTS:
        raise VfeError(
            Diagnostic(
                "method-cannot-serve",
                "the lattice is too large for local updates of a model that is not uniform",
                notes=(f"at most {_MOST_ELEMENTS} elements",),
                hints=("`--method hmc`",),
            ),
            exit_code=2,
        )
    near: Neighbours = {(s.field, e): set() for s in spaces for e in range(s.elements)}
    for s in spaces:
        tried = _first_cell(program, s) if uniform else np.arange(s.elements)
        for element, felt in zip(tried.tolist(), _feel(target, s, tried, key), strict=True):
            if uniform and lattice is not None:
                _translate(program, lattice, s, element, felt, near)
            else:
                near[s.field, element] |= felt
    for a, others in list(near.items()):  # rounding may have lost one direction
        for b in others:
            near[b].add(a)
    return near


def _first_cell(program: Program, s: Space) -> np.ndarray:
    lattice = program.lattice
    per_site = lattice.n_axes if lattice is not None and program.field(s.field).on == "links" else 1
    return np.arange(per_site * (1 if lattice is None else lattice.n_basis))


def _feel(target: Target, s: Space, tried: np.ndarray, key: Array) -> list[set[tuple[str, int]]]:
    """For each element, the others whose gradient changes with it, in either of two random configurations."""
    total = sum(o.elements * o.k for o in moving(target.spaces))
    chunk = int(np.clip(_NUMBERS // total, 1, len(tried)))
    found: list[set[tuple[str, int]]] = [set() for _ in tried]
    for number in range(2):
        x = target.draw_reference(jax.random.fold_in(key, number), 2)
        base = {f: v[:1] for f, v in x.items()}
        other = x[s.field][1]
        for start in range(0, len(tried), chunk):
            at = np.resize(tried[start : start + chunk], chunk)  # one shape, one compilation
            changed = _changed(target, base, s.field, other, jnp.asarray(at))
            for name, rows in changed.items():
                for k, e in np.argwhere(np.asarray(rows)[: len(tried) - start]):
                    if (name, int(e)) != (s.field, int(at[k])):
                        found[start + k].add((name, int(e)))
    return found


@eqx.filter_jit
def _changed(target: Target, base: Position, field: str, other: Array, at: Array) -> dict[str, Array]:
    """{field: (tried, elements)}: whether a gradient changes when element `at` of a field takes another value."""

    def moved(e: Array) -> Position:
        new = jnp.where(e >= 0, other[e], base[field][:, e])
        return base | {field: base[field].at[:, e].set(new)}

    everything = jax.lax.map(lambda e: gradient(target, moved(e)), jnp.append(at, -1))  # the last one not moved
    out = {}
    for name, g in everything.items():
        scale = _TOLERANCE * jnp.maximum(jnp.abs(g).max(), jnp.finfo(g.dtype).tiny)
        out[name] = (jnp.abs(g[:-1, 0] - g[-1, 0]) > scale).any(-1)
    return out


def _translate(
    program: Program, lattice: Lattice, s: Space, element: int, felt: set[tuple[str, int]], near: Neighbours
) -> None:
    """Enters what an element of the first cell feels for the elements of all cells."""
    cells = np.arange(lattice.n_cells)
    place = np.stack(np.unravel_index(cells, lattice.shape), 1)
    for name, other in felt:
        pairs = zip(_images(program, lattice, s.field, element, place),
                    _images(program, lattice, name, other, place), strict=True)  # fmt: skip
        for a, b in pairs:
            near[s.field, int(a)].add((name, int(b)))


def _images(program: Program, lattice: Lattice, field: str, element: int, place: np.ndarray) -> np.ndarray:
    """The element moved by every displacement of cells."""
    on_links = program.field(field).on == "links"
    site, axis = divmod(element, lattice.n_axes) if on_links else (element, 0)
    cell, basis = divmod(site, lattice.n_basis)
    at = (np.stack(np.unravel_index(cell, lattice.shape)) + place) % np.array(lattice.shape)
    sites = np.ravel_multi_index(tuple(at.T), lattice.shape) * lattice.n_basis + basis
    return lattice.link_number[sites, axis] if on_links else sites
