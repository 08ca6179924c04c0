"""Symmetries of the model are exact symmetries of the guide, whatever its parameters; broken ones are not imposed."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from guides.small_models import Small, log_prob, named, random_params, seed_of, small

FIELD = {
    "ising": "interaction f = -0.2 * sum(i in sites: s[i])\n",
    "potts": "interaction f = -0.2 * sum(i in sites: delta(s[i], 0))\n",
    "clock": "interaction f = -0.2 * sum(i in sites: cos(a[i]))\n",
    "ashkin-teller": "interaction f = -0.2 * sum(i in sites: s[i])\n",
}
TEXT = {
    "ising": "lattice square(3, 3)\nfield s : spin\ninteraction e = -sum(<i, j> in nn: s[i] * s[j])\n",
    "potts": "lattice square(3, 3)\nfield s : potts(3)\ninteraction e = -sum(<i, j> in nn: delta(s[i], s[j]))\n",
    "clock": "lattice square(2, 3)\nfield a : clock(4)\ninteraction e = -sum(<i, j> in nn: cos(a[i] - a[j]))\n",
    "ashkin-teller": "lattice square(2, 3)\nfield s : spin\nfield t : spin\ninteraction e = "
    "-sum(<i, j> in nn: 0.5 * s[i] * s[j] + 0.7 * t[i] * t[j] + 0.3 * s[i] * s[j] * t[i] * t[j])\n",
}


def log_q(model: Small, width: int) -> np.ndarray:
    guide = model.autoregressive(width)
    assert len(guide.skeleton) > 1  # a single letter would be exact by symmetry
    params = random_params(guide, seed_of(str(width)), size=0.5)
    return log_prob(guide, params, model.configurations)


def images(model: Small, name: str) -> list[np.ndarray]:
    """Where every element but the identity of the symmetry group takes each configuration."""
    x = model.configurations
    match name:
        case "ising":
            moved = [{"s": -x["s"]}]
        case "potts":
            moved = [{"s": np.array(p)[x["s"]]} for p in itertools.permutations(range(3))][1:]
        case "clock":
            moved = [{"a": (x["a"] + k) % 4} for k in (1, 2, 3)]
        case _:
            moved = [{"s": a * x["s"], "t": b * x["t"]} for a, b in ((-1, 1), (1, -1), (-1, -1))]
    return [model.number(m) for m in moved]


WIDTHS = [("ising", 1), ("ising", 2), ("potts", 1), ("potts", 2), ("clock", 1), ("ashkin-teller", 1)]


@pytest.mark.parametrize(("name", "width"), WIDTHS)
def test_symmetric(name: str, width: int):
    model = small(TEXT[name] + "temperature 1.4")
    found = log_q(model, width)
    for image in images(model, name):
        np.testing.assert_allclose(model.energies[image], model.energies, atol=1e-12)
        np.testing.assert_allclose(found[image], found, rtol=0, atol=1e-5)
    # The parameters are random: nothing else makes these equal, and the guide is not the exact one.
    assert np.ptp(found + model.reduced) > 0.1


@pytest.mark.parametrize("name", TEXT)
def test_a_field_switches_it_off(name: str):
    model = small(TEXT[name] + FIELD[name] + "temperature 1.4")
    found = log_q(model, 1)
    kept = {"ashkin-teller": [1]}.get(name, [])  # the flip of t alone survives a field on s
    for k, image in enumerate(images(model, name)):
        # A guide with the symmetry would still have E's asymmetry inside the blocks, but none in the skeleton.
        difference = np.abs(found[image] - found).max()
        assert difference < 1e-5 if k in kept else difference > 0.1


def test_colours_that_do_not_all_permute_still_shift():
    """The chiral Potts model has Z3 but not S3: shifts are exact, transpositions are not imposed."""
    model = named("chiral potts")
    found = log_q(model, 1)
    x = model.configurations["s"]
    for k in (1, 2):
        np.testing.assert_allclose(found[model.number({"s": (x + k) % 3})], found, rtol=0, atol=1e-5)
    assert np.abs(found[model.number({"s": np.array([1, 0, 2])[x]})] - found).max() > 0.1


def test_a_flip_of_two_fields_together():
    """s·p couples the flips of two spins: only both at once leave the energy as it is."""
    model = small(
        "lattice square(2, 3)\nfield s : spin\nfield t : spin\ninteraction e = -sum(<i, j> in nn: "
        "0.5 * s[i] * s[j] + 0.7 * t[i] * t[j]) - 0.4 * sum(i in sites: s[i] * t[i])\ntemperature 1.4"
    )
    found = log_q(model, 1)
    x = model.configurations
    np.testing.assert_allclose(found[model.number({"s": -x["s"], "t": -x["t"]})], found, rtol=0, atol=1e-5)
    assert np.abs(found[model.number({"s": -x["s"], "t": x["t"]})] - found).max() > 0.1
