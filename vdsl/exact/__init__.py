"""Exact answers: variable elimination, exact samples, closed forms, enumeration; determinants and quadratures."""

from vdsl.exact.answer import ExactResult, ExactValue
from vdsl.exact.cost import Cost
from vdsl.exact.elimination import ConditionalTables, conditional_tables, draw
from vdsl.exact.gauge import charge_squared
from vdsl.exact.result import cost, solve

__all__ = [
    "ConditionalTables",
    "Cost",
    "ExactResult",
    "ExactValue",
    "charge_squared",
    "conditional_tables",
    "cost",
    "draw",
    "solve",
]
