"""The reference values in the examples' headers are what independent calculations give; their data is as generated."""

import re

import numpy as np
import pytest

from references.headers import EXAMPLES, reference
from references.make_data import FILES
from references.methods import enumerate_spins, kaufman
from references.models import REFERENCES

# Published, or computed elsewhere in two ways.
KNOWN = [
    ("ising", {"L": 4}, 15.52191545875528),
    ("ising", {"L": 16}, 238.6422566351329),
    ("ising", {"L": 64}, 3808.672283419809),
    ("ising", {"L": 16, "T": 5.0}, 3.67265406164 * 256 / 5.0),
    ("ising", {"L": 16, "T": 1.0}, 2.00305588987 * 256),
    ("triangular_antiferromagnet", {"L": 4, "T": 1.0}, 1.2896640454 * 16),
    ("potts_square", {"L": 3}, 19.688939731847),
    ("potts_square", {"L": 4}, 34.172608137824),
    ("potts_square", {"L": 6}, 75.571951800165),
    ("sk", {"T": 2.0}, 0.75822334 * 20),
    ("sk", {"T": 0.2}, 3.45268323 * 20),
    ("edwards_anderson_2d", {"T": 1.0}, 100.245673),
    ("edwards_anderson_2d", {"T": 0.5}, 166.341145),
    ("edwards_anderson_2d", {"T": 0.2}, 395.807603),
    ("phi4", {"L": 8}, -11.6228852573),
    ("phi4", {"L": 3, "m2": 1.0, "lam": 1.0}, -1.91218715),
    ("free_field", {"L": 4, "m2": 1.0, "T": 0.5}, -2.8581318146),
    ("ring_polymer", {"P": 4}, -0.84124253 + 2 * np.log(np.pi)),
    ("ring_polymer", {"P": 16}, -0.85373305 + 8 * np.log(np.pi / 4)),
    ("xy", {"L": 3, "T": 2.0}, 1.4133763935 + 9 * np.log(2 * np.pi)),
    ("u1", {"L": 4, "beta": 1.0}, 3.7746347073 + 32 * np.log(2 * np.pi)),
]


@pytest.mark.parametrize(("name", "parameters", "value"), KNOWN)
def test_references_agree_with_known_numbers(name: str, parameters: dict, value: float) -> None:
    assert REFERENCES[name](**parameters) == pytest.approx(value, rel=1.5e-8)


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_header_is_what_an_independent_calculation_gives(name: str) -> None:
    header = reference(EXAMPLES / f"{name}.vfe")
    assert REFERENCES[name](**header.parameters) == pytest.approx(header.ln_z, abs=1e-11 * max(1, abs(header.ln_z)))


def test_every_example_has_a_reference() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.vfe")} == set(REFERENCES)


@pytest.mark.parametrize("name", sorted(FILES))
def test_shipped_data_is_what_the_generator_writes(name: str) -> None:
    assert (EXAMPLES / name).read_text() == FILES[name]()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.vfe")), ids=lambda path: path.stem)
def test_examples_fit_a_screen_and_open_with_physics(path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 48
    assert all(len(line) <= 120 for line in text.splitlines())
    assert re.match(r"# \S", text)


@pytest.mark.parametrize("temperature", [1.0, 2.269185314213022, 4.0])
def test_kaufman_agrees_with_enumeration(temperature: float) -> None:
    def energy(s: np.ndarray) -> np.ndarray:
        grid = s.reshape(-1, 4, 4)
        return -(grid * np.roll(grid, 1, 1) + grid * np.roll(grid, 1, 2)).sum((1, 2))

    assert kaufman(4, temperature) == pytest.approx(enumerate_spins(16, energy, temperature), rel=1e-12)


def test_wannier_ground_states_of_the_triangular_torus() -> None:
    """One bond in three is frustrated at best, so E₀ = −N; there are 263640 such states at L = 6 and 42 at L = 4."""
    degeneracy = np.exp(REFERENCES["triangular_antiferromagnet"](L=6, T=0.02) - 36 / 0.02)
    assert degeneracy == pytest.approx(263640, rel=1e-9)
    assert np.exp(REFERENCES["triangular_antiferromagnet"](L=4, T=0.02) - 16 / 0.02) == pytest.approx(42, rel=1e-9)


def test_identities_between_models() -> None:
    ising = REFERENCES["ising"](L=4, T=1.7)
    # Two colours: K delta(a, b) = K/2 (1 + s_a s_b), and there are 32 bonds.
    assert REFERENCES["potts_square"](L=4, q=2, K=2 / 1.7) == pytest.approx(ising + 32 / 1.7, rel=1e-12)
    assert REFERENCES["clock"](L=4, q=2, T=1.7) == pytest.approx(ising, rel=1e-12)
    assert REFERENCES["ashkin_teller"](L=4, K=0.0, J=1.0, T=1.7) == pytest.approx(2 * ising, rel=1e-12)
    four_state = REFERENCES["potts_square"](L=3, q=4, K=1.6) - 0.4 * 18
    assert REFERENCES["ashkin_teller"](L=3, K=0.4, J=0.4) == pytest.approx(four_state, rel=1e-12)
    shifted = REFERENCES["lattice_gas"](L=4, mu=-8.0 + 1e-13)  # by transfer matrix; the default is Kaufman's
    assert REFERENCES["lattice_gas"](L=4) == pytest.approx(shifted, rel=1e-9)
    with_field = REFERENCES["ising"](L=4, h=1e-13, T=3.0)
    assert REFERENCES["ising"](L=4, T=3.0) == pytest.approx(with_field, rel=1e-12)
