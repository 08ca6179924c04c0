"""Programs for the lowering tests: every kind of reduction, support, lattice and boundary, built from IR nodes."""

from __future__ import annotations

from functools import reduce as fold

import numpy as np

from vdsl.ir.expr import (
    Binary,
    Binder,
    Call,
    Const,
    DataRead,
    Expr,
    IndexVar,
    Item,
    Items,
    Param,
    Place,
    Read,
    Reduce,
    Ref,
    Select,
    SetOf,
    Unary,
)
from vdsl.ir.lattice import Lattice, complete_graph, graph_lattice, named_lattice
from vdsl.ir.program import Data, Definition, Field, FrozenArray, Observable, Parameter, Program, Range, Term
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
    is_discrete,
)

P, O, A = "periodic", "open", "antiperiodic"
LATTICES: dict[str, Lattice] = {
    "chain": named_lattice("chain", (5,), (P,)),
    "chain antiperiodic": named_lattice("chain", (5,), (A,)),
    "square": named_lattice("square", (4, 3), (P, P)),
    "square half open": named_lattice("square", (4, 3), (P, O)),
    "square mixed": named_lattice("square", (3, 4), (O, A)),
    "square of two": named_lattice("square", (2, 2), (P, P)),
    "triangular": named_lattice("triangular", (4, 3), (O, P)),
    "honeycomb": named_lattice("honeycomb", (3, 4), (P, A)),
    "honeycomb open": named_lattice("honeycomb", (3, 4), (O, O)),
    "kagome": named_lattice("kagome", (3, 3), (P, P)),
    "cubic": named_lattice("cubic", (3, 2, 4), (P, O, A)),
    "bcc": named_lattice("bcc", (3, 3, 3), (P, P, P)),
    "fcc": named_lattice("fcc", (3, 3, 3), (P, P, O)),
    "hypercubic": named_lattice("hypercubic", (3, 3, 2, 3), (P, P, P, P)),
    "complete": complete_graph(6),
    "graph": graph_lattice("graph", 6, ((0, 3), (3, 1), (5, 2), (2, 0), (4, 5))),
}
I, J, X = Place("i"), Place("j"), Place("x")


def const(value: complex) -> Expr:
    """A literal."""
    return Const(value)


def chain(op: str, *items: Expr) -> Expr:
    """a op b op c, from the left."""
    return fold(lambda a, b: Binary(op, a, b), items)


def plus(*items: Expr) -> Expr:
    return chain("+", *items)


def minus(*items: Expr) -> Expr:
    return chain("-", *items) if len(items) > 1 else Unary("-", items[0])


def times(*items: Expr) -> Expr:
    return chain("*", *items)


def call(name: str, *arguments: Expr) -> Expr:
    return Call(name, arguments)


def at(base: str, *steps: tuple[int | str, int]) -> Place:
    """A place moved by (axis, amount) steps."""
    return Place(base, tuple((axis, Const(n)) for axis, n in steps))


def f(place: Place | str, axis: int | str | None = None, *component: Expr) -> Expr:
    """The value of field f."""
    return Read("f", Place(place) if isinstance(place, str) else place, axis, component)


def over(kind: str, *variables: str, name: str = "nn") -> Binder:
    return Binder(variables, SetOf(kind, name if kind == "bonds" else ""))


def ranged(variable: str, *bounds: int) -> Binder:
    return Binder((variable,), SetOf("range", "", bounds if len(bounds) == 3 else (0, bounds[0], 1)))


SITES, BONDS = over("sites", "x"), over("bonds", "i", "j")


def total(body: Expr, *binders: Binder, op: str = "sum", where: Expr | None = None) -> Expr:
    return Reduce(op, binders, body, where)


def program(lattice: Lattice, support: Support, value: Expr, on: str = "sites", **more) -> Program:
    """One field f and one term."""
    return Program("m", lattice, (Field("f", support, on),), (Term("t", value),), Const(1.5), **more)


def many(lattice: Lattice, support: Support, terms: dict[str, Expr], on: str = "sites", **more) -> Program:
    """One field f and many terms."""
    named = tuple(Term(name, value) for name, value in terms.items())
    return Program("m", lattice, (Field("f", support, on),), named, Const(1.5), **more)


def real_value(support: Support, read: Expr) -> Expr:
    """A real number made from a value of any support, nothing about it even, so that signs show."""
    match support:
        case Real(int()) | Sphere():
            return plus(Item(read, (Const(0),)), times(Const(0.3), Item(read, (Const(1),))))
        case Complex() | Group("U1"):
            return plus(call("re", read), times(Const(0.7), call("im", read)))
        case Group():
            return plus(call("re", call("tr", read)), times(Const(0.6), call("im", Item(read, (Const(0), Const(1))))))
    return read


SITE_SUPPORTS: dict[str, Support] = {
    "spin": Spin(), "potts": Potts(3), "clock": Clock(5), "occupation": Occupation(), "real": Real(),
    "real[2]": Real(2), "complex": Complex(), "angle": Angle(), "sphere": Sphere(3), "U1": Group("U1"),
    "SU2": Group("SU2"), "SU3": Group("SU3"),
}  # fmt: skip


def pair_program(lattice: Lattice, support: Support) -> Program:
    """Σ_<ij> a·g(f_i) g(f_j) + g(f_j)·0.2 with a parameter and a definition."""
    left, right = real_value(support, f(I)), real_value(support, f(J))
    body = plus(times(Ref("a"), left, right), times(Const(0.2), right))
    return program(
        lattice,
        support,
        minus(total(body, BONDS)),
        parameters=(Parameter("g", Const(0.7), Range(0.0, 10.0)),),
        definitions=(Definition("a", plus(Const(0.4), times(Param("g"), Param("g")))),),
    )


def bond_data(lattice: Lattice, seed: int = 3) -> Data:
    return Data("D", "nn", FrozenArray(np.random.default_rng(seed).normal(size=len(lattice.bonds("nn")))))


def site_data(lattice: Lattice, columns: int = 2) -> Data:
    return Data("h", "sites", FrozenArray(np.random.default_rng(5).normal(size=(lattice.n_sites, columns))))


def link_data(lattice: Lattice) -> Data:
    return Data("w", "links", FrozenArray(np.random.default_rng(6).normal(size=lattice.n_links)))


def neighbour_sum() -> Expr:
    """Σ over the bonds that start at x of the far spin: a reduction whose elements depend on the outer variable."""
    return total(f("b"), over("bonds", "a", "b"), where=Binary("==", IndexVar("a"), IndexVar("x")))


def graph_terms() -> dict[str, Expr]:
    """Reductions that any lattice or graph has."""
    bond = DataRead("D", "bond", (I, J))
    reversed_bond = DataRead("D", "bond", (J, I))
    h0 = DataRead("h", "site", (X,), None, (Const(0),))
    return {
        "field": total(times(h0, f(X)), SITES),
        "bond data": total(times(bond, f(I), f(J)), BONDS),
        "bond data reversed": total(times(reversed_bond, f(I), f(J), f(J)), BONDS),
        "bonds nonlinear": total(Binary("^", minus(f(I), times(bond, f(J))), Const(3)), BONDS),
        "mean": total(plus(f(X), Const(2)), SITES, op="mean"),
        "mean of bonds": total(times(f(I), plus(f(J), bond)), BONDS, op="mean"),
        "max": total(times(f(I), bond), BONDS, op="max"),
        "min": total(minus(f(I), times(bond, f(J))), BONDS, op="min"),
        "prod": total(plus(Const(1.0), times(Const(0.1), f(X))), SITES, op="prod"),
        "static": total(call("cos", IndexVar("x")), SITES),
        "pairs": total(times(f("x"), f("y"), IndexVar("y")), over("pairs", "x", "y")),
        "two sites": total(
            times(f("x"), f("y")), over("sites", "x"), over("sites", "y"),
            where=Binary("<", IndexVar("x"), IndexVar("y")),
        ),
        "filter": total(f(X), SITES, where=Binary("==", Binary("%", IndexVar("x"), Const(3)), Const(1))),
        "dynamic filter": total(plus(f(X), h0), SITES, where=Binary(">", f(X), Const(0))),
        "dynamic filter mean": total(plus(f(I), bond), BONDS, op="mean", where=Binary(">=", f(J), Const(0))),
        "dynamic filter max": total(plus(f(I), bond), BONDS, op="max", where=Binary(">=", f(J), Const(0))),
        "both filters": total(
            f(X), SITES, op="mean",
            where=Binary("and", Binary(">", IndexVar("x"), Const(1)), Binary(">", plus(f(X), h0), Const(-9))),
        ),
        "empty": total(f(X), SITES, where=Binary("<", IndexVar("x"), Const(0))),
        "neighbours": total(call("abs", plus(neighbour_sum(), times(Const(0.5), f(X)))), SITES),
        "neighbours max": total(
            total(f("b"), over("bonds", "a", "b"), op="max",
                  where=Binary("or", Binary("==", IndexVar("a"), IndexVar("x")), Binary(">", IndexVar("b"), Const(2)))),
            SITES, where=Binary(">", IndexVar("x"), Const(2)),
        ),
        "hopfield": total(
            Binary("^", total(times(f(X), DataRead("h", "site", (X,), None, (IndexVar("a"),))), SITES), Const(2)),
            ranged("a", 2),
        ),
        "square of mean": Binary("^", total(f(X), SITES, op="mean"), Const(2)),
        "mean inside": total(Binary("^", minus(f(X), total(f("y"), over("sites", "y"), op="mean")), Const(2)), SITES),
        "table": total(DataRead("h", "index", (), None, (IndexVar("x"), Const(1))), SITES),
        "by number": times(Read("f", Place(None, (), Const(2))), total(f(X), SITES)),
        "select": total(Select(Binary("<", IndexVar("x"), Const(2)), f(X), times(Const(3), f(X))), SITES),
        "vector": call("norm", total(Items((f(X), times(f(X), f(X)), h0)), SITES)),
    }  # fmt: skip


def lattice_terms() -> dict[str, Expr]:
    """Reductions that need axes."""
    step = f(at("x", ("mu", 1)))
    return {
        "axes": total(
            times(f(X), minus(times(Const(2), f(X)), step, f(at("x", ("mu", -1))))), SITES, over("axes", "mu")
        ),
        "inner axes": total(Binary("^", total(step, over("axes", "mu")), Const(2)), SITES),
        "inner mean": total(call("abs", total(plus(step, f(X)), over("axes", "mu"), op="mean")), SITES),
        "far": total(times(f(X), f(at("x", (0, 2)))), SITES),
        "around": total(times(f(X), f(at("x", (0, 7)))), SITES),
        "range": total(
            times(f(X), Read("f", Place("x", ((0, IndexVar("k")),)), None)), SITES, ranged("k", 1, 3, 1)
        ),
        "range filter": total(
            times(f(X), IndexVar("k"), Read("f", Place("x", ((0, IndexVar("k")),)), None)),
            SITES, ranged("k", -2, 3, 1), where=Binary("!=", IndexVar("k"), Const(0)),
        ),
        "beyond bonds": total(times(f(I), f(at("j", (0, 1)))), BONDS),
        "shell": total(times(f(I), f(J)), Binder(("i", "j"), SetOf("bonds", "shell(2)"))),
        "bond data by places": total(
            times(DataRead("D", "bond", (at("i"), at("j"))), f(I), f(at("i", (0, 1)))), BONDS
        ),
        "axis loop": total(
            call("abs", total(times(f(X), f(at("x", ("mu", 1)))), SITES)), over("axes", "mu")
        ),
        "three sites": total(
            times(f("x"), f(at("x", (0, 1))), f("y")), over("sites", "x"), over("sites", "y"),
            where=Binary("<=", IndexVar("y"), IndexVar("x")),
        ),
    }  # fmt: skip


def link_terms() -> dict[str, Expr]:
    """Reductions over a field on links."""
    planes = over("planes", "mu", "nu")
    plaquette = plus(f("x", "mu"), f(at("x", ("mu", 1)), "nu"), minus(f(at("x", ("nu", 1)), "mu")), minus(f("x", "nu")))
    links = over("links", "x", "mu")
    return {
        "links": total(call("cos", times(f("x", "mu"), DataRead("w", "link", (X,), "mu"))), links),
        "links by axis": total(times(f("x", "mu"), plus(IndexVar("mu"), Const(1))), links),
        "sites and axes": total(Binary("^", f("x", "mu"), Const(2)), SITES, over("axes", "mu")),
        "plaquettes": total(call("cos", plaquette), over("plaquettes", "x", "mu", "nu")),
        "planes": total(call("sin", plaquette), SITES, planes),
        "charge": total(call("wrap", plaquette), over("plaquettes", "x", "mu", "nu")),
        "next link": total(times(f("x", "mu"), f(at("x", ("mu", 1)), "mu")), links),
        "divergence": total(
            Binary("^", total(minus(f("x", "mu"), f(at("x", ("mu", -1)), "mu")), over("axes", "mu")), Const(2)), SITES
        ),
    }


def wilson(beta: float = 6.0) -> Expr:
    """−β/3 Σ re tr U_mu(x) U_nu(x+mu) U_mu(x+nu)' U_nu(x)'."""
    u = times(
        f("x", "mu"), f(at("x", ("mu", 1)), "nu"), Unary("'", f(at("x", ("nu", 1)), "mu")), Unary("'", f("x", "nu"))
    )
    return times(Const(-beta / 3), total(call("re", call("tr", u)), SITES, over("planes", "mu", "nu")))


def polyakov(length: int) -> Expr:
    """|Σ_x tr Π_k U_0(x + k)|: an ordered product of matrices."""
    link = Read("f", Place("x", ((0, IndexVar("k")),)), 0)
    return call("abs", total(call("tr", total(link, ranged("k", length), op="prod")), SITES))


def function_terms() -> dict[str, Expr]:
    """Every elementary operation on a real field."""
    x, half = f(X), times(Const(0.4), call("tanh", f(X)))
    unary = [
        "abs", "sign", "floor", "ceil", "round", "exp", "expm1", "sin", "cos", "tan", "sinh", "cosh", "tanh", "atan",
        "asinh", "erf", "logcosh", "wrap",
    ]  # fmt: skip
    inside = ["asin", "acos", "atanh", "log1p"]
    positive = ["sqrt", "log", "log2", "log10", "acosh", "lgamma"]
    above_one = plus(Const(1.1), times(x, x))
    terms = {n: total(call(n, x), SITES) for n in unary}
    terms |= {n: total(call(n, half), SITES) for n in inside} | {n: total(call(n, above_one), SITES) for n in positive}
    terms |= {
        "atan2": total(call("atan2", x, Const(0.3)), SITES),
        "minmax": total(call("min", x, call("max", Const(0.1), times(x, x)), Const(0.7)), SITES),
        "floor divide": total(plus(Binary("//", x, Const(0.3)), Binary("%", x, Const(0.7))), SITES),
        "divide": total(Binary("/", Const(1), plus(x, Const(9))), SITES),
        "powers": total(
            plus(Binary("^", x, Const(3)), Binary("^", above_one, Const(-2)), Binary("^", above_one, x)), SITES
        ),
        "logic": total(
            Select(
                Binary(
                    "or",
                    Binary("and", Binary(">", x, Const(0)), Binary("<=", x, Const(1))),
                    Unary("not", Binary("<", x, Const(0.5))),
                ),
                x,
                Const(7),
            ),
            SITES,
        ),
        "delta": total(times(call("delta", Binary(">", x, Const(0)), Binary("<", x, Const(1))), x), SITES),
        "complex": total(call("re", call("exp", times(Const(1j), x))), SITES),
        "arg": total(call("arg", plus(x, Const(0.3j))), SITES),
        "cross": total(
            call(
                "dot",
                call("cross", Items((x, Const(1), half)), Items((half, x, Const(2)))),
                Items((x, x, Const(1))),
            ),
            SITES,
        ),
        "many": total(plus(*[times(Const(k), x) for k in range(300)]), SITES),
    }  # fmt: skip
    return terms


def matrix_terms() -> dict[str, Expr]:
    """Operations on matrices."""
    u, v = f(X), f(at("x", (0, 1)))
    return {
        "det": total(call("re", call("det", plus(u, v))), SITES),
        "power": total(call("re", call("tr", Binary("^", u, Const(3)))), SITES),
        "adjoint": total(call("im", call("tr", times(Unary("'", u), v))), SITES),
        "conj": total(call("re", Item(times(call("conj", u), v, v), (Const(0), Const(1)))), SITES),
        "scalar": total(call("re", call("tr", times(Const(2.5), u, Const(1j)))), SITES),
        "sum": call("abs", call("tr", total(u, SITES))),
        "prod": call("re", call("tr", total(f("y"), over("sites", "y"), op="prod"))),
    }


def observed(lattice: Lattice) -> Program:
    """An Ising model with observables that use one another."""
    return Program(
        "ising",
        lattice,
        (Field("f", Spin()),),
        (Term("exchange", times(minus(Param("J")), total(times(f(I), f(J)), BONDS))),
         Term("zeeman", times(minus(Param("h")), total(f(X), SITES)))),
        Param("T"),
        parameters=(Parameter("J", Const(1.0)), Parameter("h", times(Const(0.1), Param("J"))),
                    Parameter("T", Const(2.0), Range(0.0, float("inf"), lower_open=True))),
        observables=(Observable("m", total(f(X), SITES, op="mean")), Observable("absm", call("abs", Ref("m")))),
    )  # fmt: skip


__all__ = [name for name in dir() if not name.startswith("_")] + ["is_discrete"]
