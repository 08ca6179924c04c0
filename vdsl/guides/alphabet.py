"""Alphabet: the fields of a model regrouped into one letter per lattice element.

Fields that live on the same element (Ashkin-Teller's two spins of a site, say) are merged into one *letter* whose
states are all their combinations, as long as that stays small: what was a four-body coupling between two sites becomes
a pair coupling between two letters. Everything a discrete guide does, it does with letters; this file turns
configurations into letters and back, factors of the model into factors of letters, and finds the global symmetries
that the factors have.

State numbers: for a letter made of fields f = 0, 1, … with q_f states, state = Σ_f digit_f · ∏_{g>f} q_g.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from vdsl.ir.factors import FactorGraph
from vdsl.ir.program import Program
from vdsl.ir.support import Spin, cardinality, stored_states

_LARGEST_LETTER = 16


@dataclass(frozen=True)
class Letters:
    """Factors of one arity: scopes (m, k) increasing, energy tables (m, Q, …, Q), not divided by T."""

    scopes: np.ndarray
    tables: np.ndarray


@dataclass(frozen=True)
class Digit:
    """Where a field's value sits inside the letters: letters first … first+count−1, with this stride and base."""

    field: str
    first: int
    count: int
    stride: int
    q: int
    spin: bool
    dtype: str


@dataclass(frozen=True)
class Codec:
    """How `n` letters spell a configuration. Hashable: it is part of a guide's structure."""

    n: int
    digits: tuple[Digit, ...]

    def encode(self, x: dict[str, jnp.ndarray]) -> jnp.ndarray:
        """Configurations {field: (b, elements)} as letters, (n, b) int32."""
        batch = next(iter(x.values())).shape[0]
        out = jnp.zeros((self.n, batch), jnp.int32)
        for d in self.digits:
            stored = jnp.asarray(x[d.field]).T.astype(jnp.int32)
            state = (stored + 1) // 2 if d.spin else stored
            out = out.at[d.first : d.first + d.count].add(state * d.stride)
        return out

    def decode(self, letters: jnp.ndarray) -> dict[str, jnp.ndarray]:
        """Letters (n, b) as configurations {field: (b, elements)}."""
        out = {}
        for d in self.digits:
            state = letters[d.first : d.first + d.count] // d.stride % d.q
            out[d.field] = (2 * state - 1 if d.spin else state).T.astype(d.dtype)
        return out


@dataclass(frozen=True)
class Alphabet:
    """`n` letters with at most `q` states each; `sizes` (n,) says how many are valid."""

    n: int
    q: int
    sizes: np.ndarray
    digits: tuple[Digit, ...]
    factors: tuple[Letters, ...]
    coordinates: np.ndarray | None

    @property
    def codec(self) -> Codec:
        """How the letters spell a configuration."""
        return Codec(self.n, self.digits)

    def edges(self) -> np.ndarray:
        """Pairs of letters that share a factor, (m, 2), i < j, each once."""
        pairs = [
            f.scopes[:, [a, b]] for f in self.factors for a, b in itertools.combinations(range(f.scopes.shape[1]), 2)
        ]
        return np.unique(np.concatenate(pairs), axis=0) if pairs else np.zeros((0, 2), int)


def alphabet_of(program: Program, graph: FactorGraph) -> Alphabet:
    """The letters of a program with only discrete fields."""
    places: dict[str, list] = defaultdict(list)
    for f, (name, first, count) in zip(program.fields, graph.fields, strict=True):
        places[f.on].append((f, name, first, count))
    digits, letter_of, stride_of = [], np.zeros(len(graph.cardinalities), int), np.ones(len(graph.cardinalities), int)
    sizes: list[np.ndarray] = []
    n = 0
    for members in places.values():
        product = int(np.prod([cardinality(f.support) for f, *_ in members]))
        together = [members] if product <= _LARGEST_LETTER else [[m] for m in members]
        for group in together:
            count = group[0][3]
            stride = 1
            for f, name, first, _ in reversed(group):
                q = cardinality(f.support)
                digits.append(
                    Digit(name, n, count, stride, q, isinstance(f.support, Spin), str(stored_states(f.support).dtype))
                )
                letter_of[first : first + count] = n + np.arange(count)
                stride_of[first : first + count] = stride
                stride *= q
            sizes.append(np.full(count, stride))
            n += count
    all_sizes = np.concatenate(sizes)
    q = int(all_sizes.max())
    factors = _letter_factors(graph, letter_of, stride_of, q)
    return Alphabet(n, q, all_sizes, tuple(digits), factors, _coordinates(program, digits, n))


def _letter_factors(graph: FactorGraph, letter_of: np.ndarray, stride_of: np.ndarray, q: int) -> tuple[Letters, ...]:
    merged: dict[int, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for group in graph.groups:
        k = group.scopes.shape[1]
        letters = letter_of[group.scopes]
        # Rows that merge their variables into letters in the same way are converted together.
        order = np.argsort(letters, axis=1, kind="stable")
        ordered = np.take_along_axis(letters, order, 1)
        new = np.concatenate([np.ones((len(letters), 1), bool), np.diff(ordered, axis=1) > 0], 1)
        slot = np.empty_like(letters)
        np.put_along_axis(slot, order, np.cumsum(new, 1) - 1, 1)
        strides = stride_of[group.scopes]
        patterns, which = np.unique(np.concatenate([slot, strides], 1), axis=0, return_inverse=True)
        for p, pattern in enumerate(patterns):
            rows = np.flatnonzero(which.reshape(-1) == p)
            slots, step = pattern[:k], pattern[k:]
            arity = int(slots.max()) + 1
            shape = group.tables.shape[1:]
            states = np.indices((q,) * arity)
            index = tuple((states[slots[a]] // step[a]) % shape[a] for a in range(k))
            scopes = np.zeros((len(rows), arity), int)
            for a in range(k):
                scopes[:, slots[a]] = letters[rows, a]
            picked = group.tables[(rows.reshape(-1, *(1,) * arity), *index)]
            merged[arity].append((scopes, picked))
    out = []
    for _, parts in sorted(merged.items()):
        scopes, tables = np.concatenate([s for s, _ in parts]), np.concatenate([t for _, t in parts])
        unique, inverse = np.unique(scopes, axis=0, return_inverse=True)
        total = np.zeros((len(unique), *tables.shape[1:]))
        np.add.at(total, inverse.reshape(-1), tables)
        out.append(Letters(unique, total))
    return tuple(out)


def _coordinates(program: Program, digits: list[Digit], n: int) -> np.ndarray | None:
    lattice = program.lattice
    if lattice is None or lattice.is_graph:
        return None
    out = np.zeros((n, lattice.n_axes), int)
    for d in digits:
        on = program.field(d.field).on
        site = np.arange(lattice.n_sites) if on == "sites" else lattice.links[0]
        out[d.first : d.first + d.count] = np.stack(np.unravel_index(site // lattice.n_basis, lattice.shape), 1)
    return out


# --- global symmetries of the factors --------------------------------------------------------------------------------


@dataclass(frozen=True)
class LetterGroup:
    """A finite abelian group that permutes letter states: `act` (|G|, kinds, q); `kind_of` (n,) their kinds."""

    act: np.ndarray
    kind_of: np.ndarray
    description: str

    @property
    def order(self) -> int:
        return len(self.act)


def find_shifts(alphabet: Alphabet, letter: int, limit: int = 64) -> LetterGroup:
    """Global cyclic shifts of field values (spin flips among them) that leave every factor table unchanged.

    Candidates: x_f → x_f + 1 mod q of one field, and joint flips of several two-valued fields. The group returned moves
    every state of `letter`, so that the state of that letter tells which element has acted.
    """
    fields = alphabet.digits
    starts = sorted({d.first for d in fields})
    kind_of = np.searchsorted(starts, np.arange(alphabet.n), side="right") - 1
    binary = [k for k, d in enumerate(fields) if d.q == 2]
    candidates = [{k: 1} for k, d in enumerate(fields) if d.q > 2]
    for size in range(1, len(binary) + 1):
        candidates += [dict.fromkeys(subset, 1) for subset in itertools.combinations(binary, size)]
    names_found: list[str] = []
    elements = [_identity(alphabet, len(starts))]
    for shifts in candidates:
        step = _shift(alphabet, starts, shifts)
        if any(np.array_equal(step, e) for e in elements) or not _invariant(alphabet, step[kind_of]):
            continue
        order = max(fields[k].q for k in shifts)
        if len(elements) * order > limit:
            continue
        names = ", ".join(fields[k].field for k in shifts)
        power, powers = _identity(alphabet, len(starts)), []
        for _ in range(order):
            powers.append(power)
            power = np.take_along_axis(step, power, 1)
        extended = [np.take_along_axis(p, e, 1) for p in powers for e in elements]
        images = np.stack(extended)[:, kind_of[letter], : alphabet.sizes[letter]]
        if all(len(set(column)) == len(extended) for column in images.T.tolist()):
            elements = extended
            names_found.append(f"{'flip' if order == 2 else f'Z{order} shift'} of {names}")
    return LetterGroup(np.stack(elements), kind_of, "; ".join(names_found))


def colours_permute(alphabet: Alphabet) -> bool:
    """Whether every relabelling of the q > 2 colours of a single field leaves all factor tables unchanged."""
    if len(alphabet.digits) != 1 or alphabet.q <= 2:
        return False
    # Two generators of S_q: a transposition and the full cycle.
    swap, cycle = np.arange(alphabet.q), np.roll(np.arange(alphabet.q), 1)
    swap[[0, 1]] = [1, 0]
    return all(_invariant(alphabet, np.tile(p, (alphabet.n, 1))) for p in (swap, cycle))


def _identity(alphabet: Alphabet, kinds: int) -> np.ndarray:
    return np.tile(np.arange(alphabet.q), (kinds, 1))


def _shift(alphabet: Alphabet, starts: list[int], shifts: dict[int, int]) -> np.ndarray:
    out = _identity(alphabet, len(starts))
    for k, amount in shifts.items():
        d = alphabet.digits[k]
        kind = starts.index(d.first)
        size = int(alphabet.sizes[d.first])
        state = out[kind, :size]
        digit = state // d.stride % d.q
        out[kind, :size] = state + ((digit + amount) % d.q - digit) * d.stride
    return out


def _invariant(alphabet: Alphabet, permutation: np.ndarray) -> bool:
    """Whether relabelling the states of letter v by permutation[v] leaves every factor table as it is."""
    for f in alphabet.factors:
        k = f.scopes.shape[1]
        rows = np.arange(len(f.scopes)).reshape(-1, *(1,) * k)
        index = [
            permutation[f.scopes[:, a]].reshape(len(f.scopes), *(alphabet.q if b == a else 1 for b in range(k)))
            for a in range(k)
        ]
        scale = 1e-12 * (1 + np.abs(f.tables).max(initial=0.0))
        valid = np.ones(f.tables.shape, bool)
        for a in range(k):
            ok = np.arange(alphabet.q)[None] < alphabet.sizes[f.scopes[:, a]][:, None]
            valid &= ok.reshape(len(f.scopes), *(alphabet.q if b == a else 1 for b in range(k)))
        if np.abs(np.where(valid, f.tables[(rows, *index)] - f.tables, 0)).max(initial=0.0) > scale:
            return False
    return True
