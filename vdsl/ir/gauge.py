"""Gauge theories: links, plaquettes, trees, and energies that are a sum of one class function over single plaquettes.

    E(x) = Σ_p f(P_p),     P = U_μ(x) U_ν(x + μ) U_μ(x + ν)† U_ν(x)†,     f(g P g†) = f(P)

Whether an energy is of this form, and which f it is, is found by evaluation: one link set to g and all others to 1
turns one plaquette into g and another into g†, so that f can be read off; the sum is then compared with the energy of
random configurations, where an analytic identity that holds at random points holds everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vdsl.ir.configurations import random_values
from vdsl.ir.lattice import Lattice
from vdsl.ir.program import Field, Program
from vdsl.ir.support import Angle, Group

Energies = Callable[[dict[str, np.ndarray]], np.ndarray]  # configurations (n, elements, …) -> energies (n,), float64

_NODES = {"U1": 1024, "SU2": 256, "SU3": 48}  # of the grid on the maximal torus, per angle
_TOLERANCE = 1e-9  # relative to the energies that are compared
_CHUNK = 2**22  # stored numbers of the configurations that are evaluated at once


# Groups and lattices


def gauge_group_of(field: Field) -> str | None:
    """ "U1", "SU2" or "SU3" for a field of group elements (or angles) on links; None for any other field."""
    match field.on, field.support:
        case "links", Angle():
            return "U1"
        case "links", Group(name):
            return name
    return None


def link_ends(lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """(start, end) of every link: its site, and the next one along its axis."""
    site, axis = lattice.links
    end = np.zeros_like(site)
    for a in range(lattice.n_axes):
        on = axis == a
        end[on] = lattice.move(site[on], lattice.axis_step(a))[0]
    return site, end


def plaquette_links(lattice: Lattice) -> tuple[np.ndarray, np.ndarray]:
    """(links (p, 4), orientations (p, 4) of ±1): U_μ(x), U_ν(x + μ), U_μ(x + ν)†, U_ν(x)† of every plaquette."""
    site, mu, nu = lattice.plaquettes
    beside, above = np.zeros_like(site), np.zeros_like(site)
    for a in range(lattice.n_axes):
        beside[mu == a] = lattice.move(site[mu == a], lattice.axis_step(a))[0]
        above[nu == a] = lattice.move(site[nu == a], lattice.axis_step(a))[0]
    number = lattice.link_number
    links = np.stack([number[site, mu], number[beside, nu], number[above, mu], number[site, nu]], 1)
    return links, np.broadcast_to(np.array([1, 1, -1, -1]), links.shape)


@dataclass(frozen=True)
class Tree:
    """A maximal tree: in order of discovery, `site` is reached from `parent` along `link` (backwards if −1)."""

    root: int
    site: np.ndarray
    parent: np.ndarray
    link: np.ndarray
    orientation: np.ndarray

    def others(self, lattice: Lattice) -> np.ndarray:
        """The links that are not in the tree, in order: as many as there are independent cycles."""
        return np.setdiff1d(np.arange(lattice.n_links), self.link)


def maximal_tree(lattice: Lattice, root: int = 0) -> Tree:
    """The tree of shortest paths from a site, breadth first."""
    start, end = link_ends(lattice)
    around: list[list[tuple[int, int, int]]] = [[] for _ in range(lattice.n_sites)]
    for link, (a, b) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        around[a].append((b, link, 1))
        around[b].append((a, link, -1))
    rows, seen, queue = [], {root}, [root]
    for here in queue:
        for there, link, orientation in around[here]:
            if there not in seen:
                seen.add(there)
                queue.append(there)
                rows.append((there, here, link, orientation))
    table = np.array(rows, int).reshape(-1, 4)
    return Tree(root, table[:, 0], table[:, 1], table[:, 2], table[:, 3])


def fundamental_cycles(lattice: Lattice, tree: Tree) -> np.ndarray:
    """For every link outside the tree, the closed path through it and the tree: (cycles, links) of −1, 0, +1."""
    path = np.zeros((lattice.n_sites, lattice.n_links), int)  # from the root to each site
    for site, parent, link, orientation in zip(tree.site, tree.parent, tree.link, tree.orientation, strict=True):
        path[site] = path[parent]
        path[site, link] += orientation
    start, end = link_ends(lattice)
    others = tree.others(lattice)
    cycles = path[start[others]] - path[end[others]]
    cycles[np.arange(len(others)), others] += 1
    return cycles


# Class functions


@dataclass(frozen=True)
class ClassFunction:
    """A real class function on the maximal torus: `values` at the angles 2πk/n, one axis for each independent angle.

    U(1): e^{iφ}; SU(2): diag(e^{iφ}, e^{−iφ}); SU(3): diag(e^{iφ₁}, e^{iφ₂}, e^{−i(φ₁+φ₂)}).
    """

    group: str
    values: np.ndarray

    def refined(self, n: int) -> np.ndarray:
        """Values on a grid of n points per angle, by trigonometric interpolation."""
        spectrum = self.values
        for axis in range(self.values.ndim):
            spectrum = _padded(np.fft.fft(spectrum, axis=axis), n, axis)
        for axis in range(self.values.ndim):
            spectrum = np.fft.ifft(spectrum, axis=axis)
        return spectrum.real * (n / len(self.values)) ** self.values.ndim

    def __call__(self, angles: np.ndarray) -> np.ndarray:
        """Values at angles (…, independent angles), by trigonometric interpolation."""
        n = len(self.values)
        waves = np.fft.fftfreq(n, 1 / n)
        total: np.ndarray = np.fft.fftn(self.values) / self.values.size
        phases = np.exp(1j * angles[..., None] * waves)  # (…, angles, n)
        if self.values.ndim == 1:
            return (phases[..., 0, :] @ total).real
        return np.einsum("...a,...b,ab->...", phases[..., 0, :], phases[..., 1, :], total).real


def class_angles(group: str, holonomies: np.ndarray) -> np.ndarray:
    """The independent eigenvalue angles of group elements, (…, 1 or 2)."""
    if group == "U1":
        return np.angle(holonomies)[..., None]
    return np.angle(np.linalg.eigvals(holonomies))[..., : 1 if group == "SU2" else 2]


def holonomies(links: np.ndarray, path: np.ndarray, orientations: np.ndarray) -> np.ndarray:
    """Ordered products along paths (p, k) of links, complex numbers (links,) or matrices (links, n, n)."""
    total: np.ndarray | None = None
    for k in range(path.shape[1]):
        u = links[path[:, k]]
        adjoint = u.conj() if u.ndim == 1 else u.conj().swapaxes(1, 2)
        step = np.where(orientations[:, k].reshape(-1, *[1] * (u.ndim - 1)) > 0, u, adjoint)
        total = step if total is None else total * step if u.ndim == 1 else total @ step
    if total is None:
        raise ValueError("a path of no links")
    return total


# Energies of single plaquettes


def single_plaquette(program: Program, energies: Energies, rng: np.random.Generator) -> ClassFunction | str:
    """f, if the energy is Σ_p f(P_p) on a two-dimensional lattice (its constant is part of f); else why it is not.

    `energies` evaluates configurations at fixed parameters, in double precision.
    """
    lattice = program.lattice
    if lattice is None or lattice.is_graph or lattice.n_axes != 2 or lattice.n_basis != 1:
        return "its lattice is not two-dimensional"
    if len(program.fields) != 1 or gauge_group_of(program.fields[0]) is None:
        return "it has other fields than one of U(1), SU(2) or SU(3) on links"
    field, group = program.fields[0], gauge_group_of(program.fields[0])
    if set(lattice.boundary) - {"periodic", "open"}:
        return "its boundary is antiperiodic"
    paths = plaquette_links(lattice)
    if not len(paths[0]):
        return "its lattice has no plaquettes"
    evaluate = _Evaluator(field, str(group), lattice.n_links, energies)
    f = _read_off(evaluate, paths[0])
    if f is None:
        return "its lattice is too small to set one plaquette apart"
    if not np.isfinite(f.values).all():
        return "its energy is not finite everywhere"
    if not _verified(evaluate, f, paths, rng):
        return "its energy is not a sum of one class function over single plaquettes"
    return f


@dataclass(frozen=True)
class _Evaluator:
    """Energies of configurations of one link field given as group elements."""

    field: Field
    group: str
    links: int
    energies: Energies

    def stored(self, elements: np.ndarray) -> np.ndarray:
        return -np.angle(elements.conj()) if self.field.support == Angle() else elements

    def excited(self, links: list[int], elements: np.ndarray) -> np.ndarray:
        """Energies with the given links set to an element (m, …) and all others to 1, less that of all links at 1."""
        unit = np.ones((), complex) if self.group == "U1" else np.eye(elements.shape[-1], dtype=complex)
        size = max(1, _CHUNK // (self.links * unit.size))
        out = []
        for first in range(0, len(elements), size):
            chunk = elements[first : first + size]
            x = np.broadcast_to(unit, (len(chunk), self.links, *unit.shape)).copy()
            for link in links:
                x[:, link] = chunk
            out.append(self(x))
        return np.concatenate(out)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.energies({self.field.name: self.stored(x)}), np.float64)


def _read_off(evaluate: _Evaluator, plaquettes: np.ndarray) -> ClassFunction | None:
    """f on the grid, from one link at an edge, or from one between two plaquettes (and two of one plaquette)."""
    group, n = evaluate.group, _NODES[evaluate.group]
    elements, place = _grid_elements(group, n)
    members: list[list[int]] = [[] for _ in range(evaluate.links)]
    for p, row in enumerate(plaquettes.tolist()):
        for link in row:
            members[link].append(p)
    vacuum = evaluate.excited([0], elements[:1])[0]  # the first element of the grid is 1
    one = vacuum / len(plaquettes)
    at_edge = next((link for link, found in enumerate(members) if len(found) == 1), None)
    if at_edge is not None:
        row = plaquettes[members[at_edge][0]].tolist()
        seen = elements if row.index(at_edge) < 2 else elements.conj()  # the elements are diagonal
        return ClassFunction(group, evaluate.excited([at_edge], seen)[place] - vacuum + one)
    between = [link for link, found in enumerate(members) if len(found) == len(set(found)) == 2]
    if not between:
        return None
    rise = evaluate.excited(between[:1], elements)[place] - vacuum  # f(g) + f(g†) − 2f(1)
    even = 0.5 * rise + one
    if group != "U1":
        return ClassFunction(group, even)
    pair = next(
        (
            [a, b]
            for a in between[:1]
            for b in between
            if a != b and len(set(members[a]) & set(members[b])) == 1 and _same_sense(plaquettes, a, b)
        ),
        None,
    )
    if pair is None:
        return ClassFunction(group, even)
    # g on both turns their plaquette into g² and two others into g†: f(2α) + 2f(−α) − 3f(0), of which o(2α) − 2o(α)
    # is the odd part. The map o -> (o(2α) − known)/2 is a contraction, on the grid as well.
    double = (2 * np.arange(n)) % n
    known = evaluate.excited(pair, elements)[place] - vacuum - (even[double] + 2 * even - 3 * one)
    odd = np.zeros(n)
    for _ in range(64):
        odd = 0.5 * (odd[double] - known)
    return ClassFunction(group, even + odd)


def _same_sense(plaquettes: np.ndarray, a: int, b: int) -> bool:
    """Whether two links stand in their common plaquette with the orientation +1 both."""
    row = next(r for r in plaquettes.tolist() if a in r and b in r)
    return row.index(a) < 2 and row.index(b) < 2


def _verified(
    evaluate: _Evaluator, f: ClassFunction, paths: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> bool:
    for _ in range(3):
        if evaluate.group == "U1":
            # Angles of the grid, so that f needs no interpolation and may have kinks.
            n = len(f.values)
            steps = rng.integers(n, size=evaluate.links)
            x = np.exp(2j * np.pi * steps / n)
            expected = f.values[(steps[paths[0]] * paths[1]).sum(1) % n]
        else:
            x = random_values(Group(evaluate.group), evaluate.links, rng)
            expected = f(class_angles(evaluate.group, holonomies(x, *paths)))
        found = float(evaluate(x[None])[0])
        scale = max(abs(found), float(np.abs(f.values - f.values.mean()).max()), float(np.abs(expected).sum()))
        if not abs(found - expected.sum()) <= _TOLERANCE * scale:
            return False
    return True


def _grid_elements(group: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """(distinct group elements, the first one 1; which of them stands at every node of the grid)."""
    if group == "U1":
        return np.exp(2j * np.pi * np.arange(n) / n), np.arange(n)
    k = np.arange(n)
    if group == "SU2":
        angles, place = 2 * np.pi * np.arange(n // 2 + 1) / n, np.minimum(k, n - k)
        return _diagonal(np.stack([angles, -angles], 1)), place
    triples = np.stack([*np.broadcast_arrays(k[:, None], k[None]), (-k[:, None] - k[None]) % n], -1)
    kinds, inverse = np.unique(np.sort(triples.reshape(-1, 3), axis=1), axis=0, return_inverse=True)
    return _diagonal(2 * np.pi * kinds / n), inverse.reshape(n, n)


def _diagonal(angles: np.ndarray) -> np.ndarray:
    return np.exp(1j * angles)[:, :, None] * np.eye(angles.shape[1])


def _padded(spectrum: np.ndarray, n: int, axis: int) -> np.ndarray:
    """A spectrum with zeros at the high frequencies, up to n of them; the highest one is shared by both signs."""
    old = spectrum.shape[axis]
    if n <= old:
        return spectrum
    moved = np.moveaxis(spectrum, axis, 0)
    out = np.zeros((n, *moved.shape[1:]), complex)
    half = old // 2
    out[:half], out[n - half + 1 :] = moved[:half], moved[half + 1 :]
    out[half] = out[n - half] = 0.5 * moved[half]
    return np.moveaxis(out, 0, axis)


def interpreted(program: Program, theta: Mapping[str, float]) -> Energies:
    """The energies of the reference evaluator, one configuration at a time: for small lattices."""
    from vdsl.ir import interpret

    def energies(x: dict[str, np.ndarray]) -> np.ndarray:
        count = len(next(iter(x.values())))
        return np.array([interpret.energy(program, {k: v[i] for k, v in x.items()}, theta) for i in range(count)])

    return energies
