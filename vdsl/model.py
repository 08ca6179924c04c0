"""Model: a program as pure JAX functions of one configuration and its parameters; owns batching, chunking and checks.

    x   {field: array (elements, *event)}, or the bare array when the model has one field; types as in `vdsl.ir.support`
    θ   {parameter: scalar}; whatever is left out takes its default

Every function is written for one configuration and may be wrapped in `jax.vmap`, `jax.jit` and `jax.grad`. Parameters
and the temperature are traced: a sweep compiles once. Energies are in the model's own units and never divided by T.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vdsl.errors import Diagnostic, VfeError
from vdsl.ir import interpret
from vdsl.ir.expr import Expr, Param, Ref, walk
from vdsl.ir.program import Field, Program
from vdsl.ir.support import (
    Angle,
    Clock,
    Complex,
    Group,
    Occupation,
    Potts,
    Real,
    Sphere,
    Spin,
    Support,
    describe,
    event_shape,
)
from vdsl.lowering.kernels import complex_dtype, working_dtype
from vdsl.lowering.lower import Lowering, State, prepare
from vdsl.lowering.strategy import Decision, decisions

Array = jax.Array
Configuration = Mapping[str, Any]
Parameters = Mapping[str, Any]
_CHUNK_NUMBERS = 2**24  # stored numbers that one chunk of a batch may hold


class Model:
    """A checked program, compiled.

    `energy(x, θ)` = Σ over interactions; `reduced_energy` = energy / T; `log_density` = −energy / T. Raises `VfeError`
    with `shape-mismatch`, `unknown-parameter`, `out-of-range` and the like for wrong arguments.
    """

    def __init__(self, program: Program):
        self.program = program
        self._lowering = Lowering(program)

    def __repr__(self) -> str:
        fields = ", ".join(f"{f.name}: {describe(f.support)}" for f in self.fields)
        return f"Model({self.program.name!r}, fields={fields})"

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields, in the program's order."""
        return self.program.fields

    @property
    def decisions(self) -> tuple[Decision, ...]:
        """How every reduction is computed, and why."""
        return decisions(self.program)

    # Energies of one configuration

    def energy(self, x: Any, params: Parameters | None = None) -> Array:
        """H(x) = Σ_terms, a scalar, in the model's own energy units."""
        return self._energy(self.configuration(x), self.parameters(params))

    def energy_terms(self, x: Any, params: Parameters | None = None) -> dict[str, Array]:
        """Each interaction by name; their sum is `energy`."""
        values = self._energy_terms(self.configuration(x), self.parameters(params))
        return {t.name: v for t, v in zip(self.program.terms, values, strict=True)}

    def reduced_energy(self, x: Any, params: Parameters | None = None) -> Array:
        """H(x) / T, a number without units."""
        return -self.log_density(x, params)

    def log_density(self, x: Any, params: Parameters | None = None) -> Array:
        """−H(x) / T: ln of the Boltzmann weight with respect to the base measure, not normalised."""
        theta = self.parameters(params)
        return -self._energy(self.configuration(x), theta) / self._checked_temperature(theta)

    def temperature(self, params: Parameters | None = None) -> Array:
        """T, a scalar. Raises `bad-temperature` for a known value that is not positive and finite."""
        return self._checked_temperature(self.parameters(params))

    def observables(self, x: Any, params: Parameters | None = None) -> dict[str, Array]:
        """Every `observable` of one configuration, by name."""
        values = self._observables(self.configuration(x), self.parameters(params))
        return {o.name: v for o, v in zip(self.program.observables, values, strict=True)}

    def evaluate(self, expr: Expr, x: Any, params: Parameters | None = None) -> Array:
        """Any closed expression of the program (not compiled on its own: wrap the caller in `jax.jit`)."""
        return self._value(expr, self._state(self.configuration(x), self.parameters(params)))

    # Batches

    def energies(self, xs: Any, params: Parameters | None = None, chunk: int | None = None) -> Array:
        """Energies of a batch, shape (n,): `energy` mapped over the leading axis, `chunk` configurations at a time."""
        xs = self.batch(xs)
        size = chunk if chunk is not None else self.chunk_size
        theta = self.parameters(params)
        if len(next(iter(xs.values()))) <= size:
            return self._batch_energy(xs, theta)
        return self._chunked_energy(size)(xs, theta)

    @cached_property
    def chunk_size(self) -> int:
        """How many configurations are evaluated at once unless the caller says otherwise."""
        one = sum(self.program.elements(f) * math.prod(event_shape(f.support)) for f in self.fields)
        return max(1, _CHUNK_NUMBERS // max(one, 1))

    # Parameters and configurations

    def parameters(self, overrides: Parameters | None = None) -> dict[str, Array]:
        """θ: every dynamic parameter as a scalar of the working real type, defaults filled in.

        Known values are checked against their ranges; traced ones (inside jit, grad, vmap) cannot be.
        """
        overrides = dict(overrides or {})
        if not any(isinstance(v, jax.core.Tracer) for v in overrides.values()):
            theta: dict[str, Any] = dict(interpret.resolve_parameters(self.program, overrides))
        else:
            theta = self._traced_parameters(overrides)
        return {name: jnp.asarray(value, working_dtype()) for name, value in theta.items()}

    def configuration(self, x: Any) -> dict[str, Any]:
        """One configuration as {field: array}, its names and shapes checked. Raises `shape-mismatch`."""
        return self._named(x, ())

    def batch(self, xs: Any) -> dict[str, Any]:
        """A batch of configurations as {field: array (n, elements, *event)}. Raises `shape-mismatch`."""
        first = next(iter(xs.values())) if isinstance(xs, Mapping) and xs else xs
        return self._named(xs, np.shape(first)[:1])

    def random_configuration(self, key: Array, n: int | None = None) -> dict[str, Array]:
        """Independent values from each field's base measure (standard normal where that has no total).

        {field: (elements, *event)}, or (n, elements, *event) with n. Haar on SU(N), uniform on spheres and angles.
        """
        keys = jax.random.split(key, max(len(self.fields), 1))
        leading = () if n is None else (n,)
        return {
            f.name: _random_values(k, f.support, (*leading, self.program.elements(f)))
            for k, f in zip(keys, self.fields, strict=False)
        }

    # Other answers

    def exact(self, params: Parameters | None = None, **options: Any) -> Any:
        """ln Z, averages and samples without sampling error, where elimination is feasible (`vdsl.exact`)."""
        from vdsl import exact

        # In double precision: a temperature rounded to the working precision moves ln Z in its seventh digit.
        theta = interpret.resolve_parameters(self.program, {k: float(v) for k, v in (params or {}).items()})
        return exact.solve(self.program, theta, **options)

    def to_numpyro(self) -> Callable[..., None]:
        """A NumPyro model of the fields with `numpyro.factor` over −H/T (`vdsl.interop.numpyro`)."""
        from vdsl.interop.numpyro import numpyro_model

        return numpyro_model(self)

    # Compiled functions

    @cached_property
    def _energy(self) -> Callable[[Configuration, Parameters], Array]:
        def energy(x: Configuration, theta: Parameters) -> Array:
            state = self._state(x, theta)
            return sum((self._scalar(t.value, state) for t in self.program.terms), jnp.zeros((), working_dtype()))

        return jax.jit(energy)

    @cached_property
    def _batch_energy(self) -> Callable[[Configuration, Parameters], Array]:
        return jax.jit(jax.vmap(self._energy, (0, None)))

    def _chunked_energy(self, size: int) -> Callable[[Configuration, Parameters], Array]:
        compiled = self.__dict__.setdefault("_chunked", {})
        if size not in compiled:
            compiled[size] = jax.jit(
                lambda xs, theta: jax.lax.map(lambda x: self._energy(x, theta), xs, batch_size=size)
            )
        return compiled[size]

    @cached_property
    def _energy_terms(self) -> Callable[[Configuration, Parameters], tuple[Array, ...]]:
        def terms(x: Configuration, theta: Parameters) -> tuple[Array, ...]:
            state = self._state(x, theta)
            return tuple(self._scalar(t.value, state) for t in self.program.terms)

        return jax.jit(terms)

    @cached_property
    def _observables(self) -> Callable[[Configuration, Parameters], tuple[Array, ...]]:
        def observables(x: Configuration, theta: Parameters) -> tuple[Array, ...]:
            state = self._state(x, theta)
            return tuple(self._value(Ref(o.name), state) for o in self.program.observables)

        return jax.jit(observables)

    @cached_property
    def _temperature(self) -> Callable[[Parameters], Array]:
        return jax.jit(lambda theta: self._scalar(self.program.temperature, State({}, theta)))

    def _state(self, x: Configuration, theta: Parameters) -> State:
        return State(prepare(self.program, x), theta)

    def _scalar(self, expr: Expr, state: State) -> Array:
        return jnp.real(jnp.asarray(self._lowering(expr, state))).astype(working_dtype())

    def _value(self, expr: Expr, state: State) -> Array:
        value = self._lowering(expr, state)
        dtype = complex_dtype() if np.iscomplexobj(value) else working_dtype()
        return jnp.asarray(value, dtype)

    def _checked_temperature(self, theta: Parameters) -> Array:
        if not any(isinstance(v, jax.core.Tracer) for v in theta.values()):
            interpret.temperature(self.program, {k: float(v) for k, v in theta.items()})
        return self._temperature(theta)

    def _traced_parameters(self, overrides: dict[str, Any]) -> dict[str, Any]:
        """θ when some values are tracers: what follows from them is computed in JAX, the rest as usual."""
        program = self.program
        unknown = {n: 0.0 for n in overrides if n not in {p.name for p in program.parameters}}
        if unknown:
            interpret.resolve_parameters(program, {p.name: 0.0 for p in program.parameters} | unknown)
        needs = {p.name: _mentioned(program, p.default) for p in program.parameters if p.name not in overrides}
        traced = {n for n, v in overrides.items() if isinstance(v, jax.core.Tracer)}
        while True:
            more = {n for n, used in needs.items() if used & traced} - traced
            if not more:
                break
            traced |= more
        known = tuple(p for p in program.parameters if p.name not in traced)
        given = {n: v for n, v in overrides.items() if n not in traced}
        rest = Program(
            program.name, None, (), (), program.temperature, parameters=known, data=program.data,
            definitions=program.definitions,
        )  # fmt: skip
        theta: dict[str, Any] = dict(interpret.resolve_parameters(rest, given))
        theta |= {n: overrides[n] for n in traced if n in overrides}
        defaults = {p.name: p.default for p in program.parameters}
        while len(theta) < len(program.parameters):
            for name in needs:
                if name not in theta and needs[name] <= theta.keys():
                    theta[name] = self._lowering(defaults[name], State({}, theta))  # type: ignore[arg-type]
        return {p.name: theta[p.name] for p in program.parameters}

    def _named(self, x: Any, leading: tuple[int, ...]) -> dict[str, Any]:
        if not isinstance(x, Mapping):
            if len(self.fields) != 1:
                names = ", ".join(f"`{f.name}`" for f in self.fields)
                raise _mismatch("one array for a model of several fields", f"expected a dict with {names}")
            x = {self.fields[0].name: x}
        expected = {f.name for f in self.fields}
        if set(x) != expected:
            given, wanted = ", ".join(sorted(map(str, x))), ", ".join(sorted(expected))
            raise _mismatch(f"a configuration of `{given}`", f"the fields are `{wanted}`")
        for f in self.fields:
            wanted_shape = (*leading, self.program.elements(f), *event_shape(f.support))
            if np.shape(x[f.name]) != wanted_shape:
                raise _mismatch(
                    f"`{f.name}` has shape {tuple(np.shape(x[f.name]))}",
                    f"expected {wanted_shape}: one {describe(f.support)} for each of {self.program.elements(f)} {f.on}",
                )
        return dict(x)


def _mismatch(message: str, expected: str) -> VfeError:
    return VfeError(Diagnostic("shape-mismatch", message, notes=(expected,)), exit_code=2)


def _mentioned(program: Program, expr: Expr | None) -> set[str]:
    """The parameters that an expression uses, also through definitions."""
    if expr is None:
        return set()
    definitions = {d.name: d.value for d in program.definitions}
    found: set[str] = set()
    for node in walk(expr):
        if isinstance(node, Param):
            found.add(node.name)
        elif isinstance(node, Ref):
            found |= _mentioned(program, definitions.get(node.name))
    return found


def _random_values(key: Array, support: Support, shape: tuple[int, ...]) -> Array:
    """Independent values of a support, shape + event."""
    real = working_dtype()
    match support:
        case Spin():
            return jax.random.rademacher(key, shape, jnp.int8)
        case Potts(q) | Clock(q):
            return jax.random.randint(key, shape, 0, q).astype(jnp.int8 if q <= 127 else jnp.int32)
        case Occupation():
            return jax.random.bernoulli(key, 0.5, shape).astype(jnp.int8)
        case Real():
            return jax.random.normal(key, (*shape, *event_shape(support)), real)
        case Complex():
            parts = jax.random.normal(key, (2, *shape), real)
            return jax.lax.complex(parts[0], parts[1])
        case Angle():
            return -jax.random.uniform(key, shape, real, -jnp.pi, jnp.pi)
        case Sphere(n):
            v = jax.random.normal(key, (*shape, n), real)
            return v / jnp.linalg.norm(v, axis=-1, keepdims=True)
        case Group("U1"):
            return jnp.exp(1j * jax.random.uniform(key, shape, real, -jnp.pi, jnp.pi))
    return _special_unitary(key, event_shape(support)[0], shape)


def _special_unitary(key: Array, n: int, shape: tuple[int, ...]) -> Array:
    """Haar on SU(n): Gram-Schmidt of a complex Gaussian with positive diagonal (Mezzadri 2007), det divided out."""
    parts = jax.random.normal(key, (2, *shape, n, n), working_dtype())
    q, r = jnp.linalg.qr(jax.lax.complex(parts[0], parts[1]))
    diagonal = jnp.diagonal(r, axis1=-2, axis2=-1)
    u = q * (diagonal / jnp.abs(diagonal))[..., None, :]
    return u / jnp.linalg.det(u)[..., None, None] ** (1 / n)
