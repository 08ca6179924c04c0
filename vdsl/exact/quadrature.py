"""Quadrature (being written)."""

from vdsl.errors import Diagnostic, VfeError
from vdsl.exact.cost import Cost


def quadrature_cost(program, theta):
    return Cost(float("inf"), float("inf"), float("inf"), False, "no exact method for continuous fields")


def solve_quadrature(program, theta, t, seed, samples):
    raise VfeError(Diagnostic("not-discrete", "no exact method for the continuous fields"), exit_code=4)
