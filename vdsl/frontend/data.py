"""Data statements -> frozen arrays in the order of their set: read from files and matched, or drawn from a seed."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np

from vdsl.errors import Span
from vdsl.frontend import ast
from vdsl.frontend.files import Rows, read_array, read_rows
from vdsl.frontend.findings import Findings, count, several, suggest
from vdsl.frontend.sets import SetTable
from vdsl.frontend.supports import support_of
from vdsl.frontend.typed_data import check_values
from vdsl.frontend.values import Broken, Quantity
from vdsl.ir.expr import Const, Items, SetOf
from vdsl.ir.kinds import INT, is_real
from vdsl.ir.program import Data, FrozenArray

LARGEST_DATA = 3 * 10**7
MOST_DATA_AXES = 8
LARGEST_RANDOM = 1e300  # of the numbers of a distribution: what is drawn is finite then
# name -> number of arguments; see `_draw` for what each draws
DISTRIBUTIONS = {"normal": 2, "uniform": 2, "sign": 0, "bernoulli": 1, "integers": 2, "choice": None}
Evaluate = Callable[[ast.Expr], Quantity | Broken]


class DataChecker:
    """Checks data statements. `evaluate` gives the value of an expression that must be known when compiling."""

    def __init__(
        self, evaluate: Evaluate, sets: SetTable | None, findings: Findings, base_dir: Path | None, allow_path: bool
    ):
        self.evaluate = evaluate
        self.sets = sets
        self.findings = findings
        self.base_dir = base_dir
        self.allow_path = allow_path

    def data(self, s: ast.DataDecl, over: SetOf | None) -> Data | None:
        """The data of a statement on a set (None: a plain array); None when they are broken (reported)."""
        if over is not None and over.kind not in ("sites", "links", "bonds"):
            at = s.on.span if s.on else s.name.span
            self.findings.error(
                "bad-set",
                f"data cannot live on `{over.kind}`",
                at,
                notes=["data live on sites, links or bonds; without `on` they are a plain array"],
            )
            return None
        n = self.sets.count(over) if over is not None and self.sets is not None else None
        match s.origin:
            case ast.Drawn() as drawn:
                values = self._drawn(s, drawn, n)
            case ast.FromFile() as file:
                values = self._from_file(s, file, over, n)
        if values is None:
            return None
        for option in s.origin.options:
            if option.key.id == "type":
                support = support_of(option.value, self.evaluate, self.findings)
                if support is not None:
                    at = s.origin.path.span if isinstance(s.origin, ast.FromFile) else s.name.span
                    check_values(values, support, option, s.name.id, at, self.findings)
        on = None if over is None else over.name if over.kind == "bonds" else over.kind
        return Data(s.name.id, on, FrozenArray(values))

    # Random numbers

    def _drawn(self, s: ast.DataDecl, drawn: ast.Drawn, n: int | None) -> np.ndarray | None:
        name = drawn.distribution.function
        if name.id not in DISTRIBUTIONS:
            self.findings.error(
                "unknown-distribution",
                f"no distribution called `{name.id}`",
                name.span,
                notes=[f"distributions: {several(DISTRIBUTIONS)}"],
                hints=suggest(name.id, DISTRIBUTIONS),
            )
            return None
        nodes = drawn.distribution.arguments
        expected = DISTRIBUTIONS[name.id]
        if drawn.distribution.keywords:
            first = drawn.distribution.keywords[0]
            self.findings.error("wrong-arguments", f"`{name.id}` takes no argument by name", first.span)
            return None
        if len(nodes) != expected if expected is not None else not nodes:
            takes = "1 or more arguments" if expected is None else count(expected, "argument")
            self.findings.error(
                "wrong-arguments",
                f"`{name.id}` takes {takes}, and there {'is' if len(nodes) == 1 else 'are'} {len(nodes)}",
                drawn.distribution.span,
            )
            return None
        arguments = [self._number(a) for a in nodes]
        seed = self._seed(s, drawn)
        shape = self._shape(drawn.options, n)
        if seed is None or shape is None or any(a is None for a in arguments):
            return None
        known = [a for a in arguments if a is not None]
        problem = _problem(name.id, known)
        if problem:
            self.findings.error("out-of-range", f"{problem}", drawn.distribution.span)
            return None
        return _draw(name.id, known, shape, seed)

    def _seed(self, s: ast.DataDecl, drawn: ast.Drawn) -> int | None:
        if drawn.seed is None:
            self.findings.error(
                "missing-seed",
                f"the random data `{s.name.id}` have no seed",
                drawn.distribution.span,
                notes=["random numbers are drawn from a seed, so that they are the same everywhere"],
                hints=["end the line with `seed 1`"],
            )
            return None
        value = self.evaluate(drawn.seed)
        match value:
            case Broken():
                return None
            case Quantity(kind, Const(int(seed))) if kind == INT and seed >= 0:
                return seed
        self.findings.error("out-of-range", "a seed is an integer that is not negative", drawn.seed.span)
        return None

    def _shape(self, options: tuple[ast.Option, ...], n: int | None) -> tuple[int, ...] | None:
        extra: tuple[int, ...] = ()
        for option in options:
            if option.key.id == "type":
                continue
            if option.key.id != "shape":
                self._unknown_option(option, ("shape", "type"))
                return None
            value = self.evaluate(option.value)
            match value:
                case Broken():
                    return None
                case Quantity(_, Items(items)):
                    entries = [x.value if isinstance(x, Const) else None for x in items]
                case Quantity(_, Const(entry)):
                    entries = [entry]
                case _:
                    entries = [None]
            if any(not isinstance(x, int) or isinstance(x, bool) or x < 1 for x in entries):
                self.findings.error("out-of-range", "a shape is made of positive integers", option.value.span)
                return None
            if len(entries) > MOST_DATA_AXES:
                self.findings.error(
                    "out-of-range",
                    f"these data have {len(entries)} axes",
                    option.value.span,
                    notes=[f"at most {MOST_DATA_AXES}"],
                )
                return None
            extra = tuple(int(x.real) for x in entries if x is not None)
        shape = extra if n is None else (n, *extra)
        if prod(shape) > LARGEST_DATA:
            self.findings.error(
                "too-large",
                f"these data have {prod(shape)} entries",
                options[0].span if options else None,
                notes=[f"at most {LARGEST_DATA}"],
                exit_code=4,
            )
            return None
        return shape

    # Files

    def _from_file(self, s: ast.DataDecl, file: ast.FromFile, over: SetOf | None, n: int | None) -> np.ndarray | None:
        default, member = None, None
        for option in file.options:
            match option.key.id, option.value:
                case "default", value:
                    default = self._number(value)
                    if default is None:
                        return None
                case "array", ast.String(value=text):
                    member = text
                case "array", _:
                    self.findings.error("bad-option", "the name of an array is a string", option.value.span)
                    return None
                case "type", _:
                    pass  # checked once the values are known
                case _:
                    self._unknown_option(option, ("default", "array", "type"))
                    return None
        if n is not None and n > LARGEST_DATA:
            self.findings.error(
                "too-large",
                f"data for {n} elements are too many",
                s.name.span,
                notes=[f"at most {LARGEST_DATA}"],
                exit_code=4,
            )
            return None
        if file.path.value.endswith((".npy", ".npz")):
            return self._array(s, file, member, over, n)
        rows = read_rows(file.path, self.base_dir, self.allow_path, self.findings, n)
        if rows is None:
            return None
        widths = {len(row) for _, row in rows}
        if len(widths) > 1:
            usual = len(rows[0][1])
            line, row = next((line, row) for line, row in rows if len(row) != usual)
            self.findings.error(
                "data-row",
                f"row {line} of `{file.path.value}` has {count(len(row), 'column')}, and the first has {usual}",
                file.path.span,
            )
            return None
        width = widths.pop() if widths else 0
        if over is None:
            if not rows:
                self.findings.error("data-size", f"`{file.path.value}` has no rows", file.path.span)
                return None
            table = _integers_if_whole(np.array([row for _, row in rows], float))
            return table[:, 0] if width == 1 else table
        keys = {"sites": 1, "links": 2, "bonds": 2}[over.kind]
        if over.kind == "sites" and width == 1 and n is not None:
            return self._column(rows, n, file.path)
        if rows and width <= keys:
            columns = {"sites": "i, value", "links": "i, axis, value", "bonds": "i, j, value"}[over.kind]
            self.findings.error(
                "data-row",
                f"the rows of `{file.path.value}` have {count(width, 'column')}",
                file.path.span,
                notes=[f"a row is `{columns}`"],
            )
            return None
        return self._matched(rows, keys, over, n or 0, default, file.path)

    def _array(
        self, s: ast.DataDecl, file: ast.FromFile, member: str | None, over: SetOf | None, n: int | None
    ) -> np.ndarray | None:
        array = read_array(file.path, self.base_dir, self.allow_path, self.findings, member)
        if array is None:
            return None
        if n is not None and (array.ndim == 0 or len(array) != n):
            found = f"shape ({several(map(str, array.shape))})" if array.ndim else "one number"
            self.findings.error(
                "data-size",
                f"`{s.name.id}` needs {n} entries, and `{file.path.value}` has {found}",
                file.path.span,
                notes=[f"one entry per element of the set, in its order: {self._name(over)} has {n}"],
            )
            return None
        if array.dtype.kind in "fc" and not np.isfinite(array).all():
            bad = tuple(int(k) for k in np.argwhere(~np.isfinite(array))[0])
            self.findings.error(
                "data-value",
                f"row {bad[0] if bad else 0} of `{file.path.value}` holds {array[bad]}",
                file.path.span,
                notes=["every number must be finite"],
            )
            return None
        kinds = {"f": np.float64, "c": np.complex128}
        return array.astype(kinds.get(array.dtype.kind, np.int64))

    def _column(self, rows: Rows, n: int, path: ast.String) -> np.ndarray | None:
        if len(rows) != n:
            self.findings.error(
                "data-size", f"`{path.value}` has {count(len(rows), 'row')}, and there are {n} sites", path.span
            )
            return None
        return np.array([row[0] for _, row in rows], float)

    def _matched(
        self, rows: Rows, keys: int, over: SetOf, n: int, default: float | None, path: ast.String
    ) -> np.ndarray | None:
        """Rows put in the order of the set by the numbers they start with."""
        waiting = self._elements(over)
        width = len(rows[0][1]) - keys if rows else 1
        values = np.full((n, width), np.nan if default is None else default, dtype=float)
        what = {"sites": "site", "links": "link", "bonds": "bond"}[over.kind]
        given: dict[tuple[int, ...], int] = {}
        for line, row in rows:
            if any(x != int(x) for x in row[:keys]):
                self._bad_row(path, line, row[:keys], "does not start with whole numbers", path.span)
                return None
            key = tuple(int(x) for x in row[:keys])
            key = (min(key), max(key)) if over.kind == "bonds" else key
            places = waiting.get(key)
            if places is None:
                self._bad_row(path, line, row[:keys], f"is no {what} of {self._name(over)}", path.span)
                return None
            if not places:
                again = f"repeats the {what} of row {given[key]}"
                self._bad_row(path, line, row[:keys], again, path.span)
                return None
            given[key] = line
            values[places.pop(0)] = row[keys:]
        missing = [key for key, places in waiting.items() if places]
        if missing and default is None:
            shown = several(str(k if len(k) > 1 else k[0]) for k in missing[:3])
            self.findings.error(
                "data-size",
                f"`{path.value}` has {count(len(rows), 'row')}, and {self._name(over)} has {count(n, what)}",
                path.span,
                notes=[f"no row for {count(len(missing), what)}: {shown}{', …' if len(missing) > 3 else ''}"],
                hints=["for zeros elsewhere, add `{ default = 0 }`"],
            )
            return None
        return values[:, 0] if width == 1 else values

    def _elements(self, over: SetOf) -> dict[tuple[int, ...], list[int]]:
        """Numbers that name an element -> places in the set (several where bonds join the same two sites)."""
        out: dict[tuple[int, ...], list[int]] = {}
        if self.sets is None:
            return out
        lattice = self.sets.lattice
        match over.kind:
            case "sites":
                return {(k,): [k] for k in range(lattice.n_sites)}
            case "links":
                site, axis = lattice.links
                return {(int(x), int(a)): [k] for k, (x, a) in enumerate(zip(site, axis, strict=True))}
        bonds = lattice.bonds(over.name)
        for k, (i, j) in enumerate(zip(bonds.i.tolist(), bonds.j.tolist(), strict=True)):
            out.setdefault((min(i, j), max(i, j)), []).append(k)
        return out

    def _bad_row(self, path: ast.String, line: int, key: list[float], why: str, span: Span) -> None:
        shown = several(f"{x:g}" for x in key)
        self.findings.error(
            "data-row",
            f"row {line} ({shown}) of `{path.value}` {why}",
            span,
            notes=["sites are numbered from 0, the last axis fastest"],
        )

    # Parts

    def _name(self, over: SetOf | None) -> str:
        return "" if over is None else f"`{over.name or over.kind}`"

    def _number(self, node: ast.Expr) -> float | int | None:
        value = self.evaluate(node)
        match value:
            case Broken():
                return None
            case Quantity(kind, Const(x)) if is_real(kind):
                return x if isinstance(x, int) else float(x.real)
        self.findings.error("not-static", "a number known when compiling was expected here", node.span)
        return None

    def _unknown_option(self, option: ast.Option, known: tuple[str, ...]) -> None:
        self.findings.error(
            "unknown-option",
            f"data have no option `{option.key.id}` here",
            option.key.span,
            notes=[f"options: {several(known)}"],
            hints=suggest(option.key.id, known),
        )


def _integers_if_whole(table: np.ndarray) -> np.ndarray:
    whole = np.abs(table).max(initial=0) < 2**53 and (table == np.round(table)).all()
    return table.astype(np.int64) if whole else table


def _problem(name: str, arguments: list) -> str:
    match name, arguments:
        case _, _ if any(not np.isfinite(a) for a in arguments):
            return "the numbers of a distribution must be finite"
        case _, _ if sum(abs(float(a)) for a in arguments) > LARGEST_RANDOM:
            return f"the numbers of a distribution go up to {LARGEST_RANDOM:.0e}"
        case "normal", [_, sd] if sd < 0:
            return f"a standard deviation cannot be negative, and this is {sd:g}"
        case "uniform", [a, b] if a >= b:
            return f"`uniform(a, b)` needs a < b, and this is {a:g}, {b:g}"
        case "bernoulli", [p] if not 0 <= p <= 1:
            return f"a probability lies in [0, 1], and this is {p:g}"
        case "integers", [a, b] if not (isinstance(a, int) and isinstance(b, int) and a < b):
            return "`integers(a, b)` needs integers a < b; b is not included"
    return ""


def _draw(name: str, arguments: list, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Frozen for ever: these calls and their order are part of the language."""
    rng = np.random.default_rng(seed)
    match name:
        case "normal":
            return rng.normal(arguments[0], arguments[1], shape)
        case "uniform":
            return rng.uniform(arguments[0], arguments[1], shape)
        case "sign":
            return 2 * rng.integers(0, 2, shape) - 1
        case "bernoulli":
            return (rng.random(shape) < arguments[0]).astype(np.int64)
        case "integers":
            return rng.integers(arguments[0], arguments[1], shape)
        case _:
            return rng.choice(np.array(arguments), shape)
