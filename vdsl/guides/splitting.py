"""Splitting: a differential equation integrated colour by colour, every turn a bijection in closed form.

In a turn the variables of one colour move along their velocity (`vectorfield`), the others standing still. The turn's
map has an exact inverse and an exact Jacobian (`integrate`), and so has the whole, at any length of step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdsl.guides.arrays import integers, reals
from vdsl.guides.vectorfield import AngleField, Dense, RealField


class Turn(eqx.Module):
    """One colour's turn: its own variables first in `order` (n,). site (own,): their classes."""

    order: Array
    inverse: Array
    pairing: Dense
    site: Array


class Splitting(eqx.Module):
    """Time [0, 1] in `steps` steps; in each, turn after turn, one colour of one partition moves in closed form.

    First order in h = 1/steps as a solver of the differential equation; as a map of (n, b) exact at any h. What moves
    together does not interact meanwhile. With one partition alone no linear mode of a colour could be stretched more
    than another (measured: from a white base an almost free field stayed at ESS .27), hence several, each with its
    share of h. Pairs that only some partitions part act for that fraction of the time.
    """

    field: RealField | AngleField
    turns: tuple[Turn, ...]  # one, its arrays stacked, where they are alike: their program is then compiled once
    hats: Array  # (steps, turns, knots)
    alike: bool = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    partitions: int = eqx.field(static=True)
    pairs: int = eqx.field(static=True)
    sites: int = eqx.field(static=True)
    recompute: bool = eqx.field(static=True)  # in reverse mode keep what enters each step, nothing from inside

    def init(self, key: Array) -> dict[str, Any]:
        """No velocity: the identity."""
        return self.field.init(key, self.hats.shape[2], self.pairs, self.sites)

    def forward(self, params: dict[str, Any], x: Array) -> tuple[Array, Array]:
        """x (n, b) at time 1, and ln|det|."""
        return self._run(params, x, back=False)

    def inverse(self, params: dict[str, Any], x: Array) -> tuple[Array, Array]:
        """x at time 0, and ln|det| of the way back."""
        return self._run(params, x, back=True)

    def step(self, params: dict[str, Any], x: Array, hat: Array, h: float | Array, back: bool) -> tuple[Array, Array]:
        """All turns once, each of length h, or back; hat (turns, knots). The map and its ln|det|."""
        log_det = jnp.zeros_like(x[0])
        for k in reversed(range(self.hats.shape[1])) if back else range(self.hats.shape[1]):
            turn = jax.tree.map(lambda a, k=k: a[k], self.turns[0]) if self.alike else self.turns[k]
            x, slope = self._turn(params, x, turn, hat[k], h, back)
            log_det = log_det + slope
        return x, log_det

    def _turn(
        self, params: dict[str, Any], x: Array, turn: Turn, hat: Array, h: float | Array, back: bool
    ) -> tuple[Array, Array]:
        kernels = {k: jnp.tensordot(hat, w, 1) for k, w in params["kernels"].items()}
        mine, x = turn.site.shape[0], x[turn.order]
        found = self.field.coefficients(params, kernels, turn.pairing, turn.site, x[mine:])
        moved, slope = (self.field.move_back if back else self.field.move)(params, x[:mine], found, h)
        return jnp.concatenate([moved, x[mine:]])[turn.inverse], slope

    def _run(self, params: dict[str, Any], x: Array, back: bool) -> tuple[Array, Array]:
        h = 1.0 / (self.steps * self.partitions)
        steps, turns, knots = self.hats.shape

        def one_step(carry: tuple[Array, Array], hat: Array) -> tuple[tuple[Array, Array], None]:
            moved, log_det = self.step(params, carry[0], hat, h, back)
            return (moved, carry[1] + log_det), None

        def one_turn(carry: tuple[Array, Array], entry: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
            turn = jax.tree.map(lambda a: a[entry[1]], self.turns[0])
            moved, log_det = self._turn(params, carry[0], turn, entry[0], h, back)
            return (moved, carry[1] + log_det), None

        start = (x, jnp.zeros_like(x[0]))
        keep: Callable[..., Any] = jax.checkpoint if self.recompute else lambda body: body
        if self.alike:
            entries = (self.hats.reshape(steps * turns, knots), jnp.tile(jnp.arange(turns), steps))
            (x, log_det), _ = jax.lax.scan(keep(one_turn), start, entries, reverse=back)
        else:
            (x, log_det), _ = jax.lax.scan(keep(one_step), start, self.hats, reverse=back)
        return x, log_det


def splitting(
    field: RealField | AngleField,
    classes: np.ndarray,
    site: np.ndarray,
    partitions: tuple[np.ndarray, ...],
    steps: int,
    knots: int,
    recompute: bool,
) -> Splitting:
    """The integrator for n variables: classes (n, n) of pairs, site (n,) of variables, partitions (n,) into colours."""
    turns = []
    for colour in partitions:
        for c in range(int(colour.max()) + 1):
            mine, rest = np.flatnonzero(colour == c), np.flatnonzero(colour != c)
            order = np.concatenate([mine, rest])
            pairing = Dense(integers(classes[np.ix_(mine, rest)]))
            turns.append(Turn(integers(order), integers(np.argsort(order)), pairing, integers(site[mine])))
    times = (np.arange(steps * len(turns)) + 0.5) / (steps * len(turns))
    table = reals(hats(times, knots).reshape(steps, len(turns), knots))
    alike = len({str(jax.tree.map(jnp.shape, turn)) for turn in turns}) == 1
    stacked = (jax.tree.map(lambda *a: integers(np.stack([np.asarray(one) for one in a])), *turns),) if alike else turns
    kinds = int(classes.max()) + 1, int(site.max()) + 1
    return Splitting(field, tuple(stacked), table, alike, steps, len(partitions), *kinds, recompute)


def hats(times: np.ndarray, knots: int) -> np.ndarray:
    """Piecewise linear functions on [0, 1], one per knot, at times: (times, knots). They sum to 1."""
    if knots == 1:
        return np.ones((len(times), 1))
    place = times[:, None] * (knots - 1) - np.arange(knots)[None]
    return np.maximum(0.0, 1.0 - np.abs(place))
