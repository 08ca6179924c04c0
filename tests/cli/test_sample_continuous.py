"""`vdsl sample` on continuous and mixed models: every method against exact values."""

import json

import jax
import numpy as np
import pytest

from vdsl.cli import sample as vdsl_sample

# Anharmonic oscillators that do not feel each other: everything is an integral over one of them.
MODEL = """
param lam = 1.0
lattice chain(8)
field x : real
interaction e = sum(i in sites: lam * x[i]^4 - x[i]^2)
temperature 1
observable x2 = mean(i in sites: x[i]^2)
observable m = mean(i in sites: x[i])
derived chi = size(sites) * expect(m^2)
"""
MIXED = """
lattice chain(4)
field s : spin
field u : real
interaction a = -sum(<i, j> in nn: s[i] * s[j] * (1 + 0.5 * (u[i] - u[j])))
interaction b = sum(i in sites: u[i]^2)
temperature 1
"""
SPIN = "lattice chain(4)\nfield s : spin\ninteraction e = -sum(<i, j> in nn: s[i] * s[j])\ntemperature 1\n"

LINE = np.linspace(-5, 5, 20001)
WEIGHT = np.exp(LINE**2 - LINE**4)
Z = WEIGHT.sum() * (LINE[1] - LINE[0])
X2 = (WEIGHT * LINE**2).sum() / WEIGHT.sum()  # chi is the same: oscillators are independent and even
ENERGY = 8 * (WEIGHT * (LINE**4 - LINE**2)).sum() / WEIGHT.sum()


@pytest.fixture(scope="module", autouse=True)
def quick_compiles():
    """Compiling takes nearly all of the time here, and half of it goes into speed that short runs do not need."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def file(tmp_path):
    (tmp_path / "oscillators.vfe").write_text(MODEL)
    return "oscillators.vfe"


def agrees(estimate, exact, most):
    assert abs(estimate["value"] - exact) < 4 * estimate["error"]
    assert estimate["error"] < most


@pytest.mark.parametrize("method", ["auto", "nuts"])
def test_chains(vdsl, file, method, tmp_path):
    words = ("--json", "--quiet", "--samples", "4096", "--method", method, "--out", "x.npz")
    code, out, err = vdsl("sample", file, *words)
    assert (code, err) == (0, "wrote x.npz\n")
    result = json.loads(out)
    assert result["quality"]["method"] == ("hmc" if method == "auto" else "nuts")
    assert result["quality"]["r_hat"]["energy"] < 1.05
    assert 0.6 < result["quality"]["acceptance"] < 0.97
    agrees(result["observables"]["x2"], X2, 0.01)
    agrees(result["derived"]["chi"], X2, 0.05)
    agrees(result["energy"], ENERGY, 0.1)
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["sample/x"].shape == (4096, 8)
        assert (arrays["sample/x"] ** 2).mean() == pytest.approx(result["observables"]["x2"]["value"], rel=1e-5)


def test_annealing(vdsl, file, monkeypatch):
    """ln Z = 8 ln ∫ e^{−E}; F, S and E belong together. The table has no columns that populations cannot fill."""
    kept, run = [], vdsl_sample._run_chains
    monkeypatch.setattr(vdsl_sample, "_run_chains", lambda *words: kept.append(run(*words)) or kept[-1])
    words = ("sample", file, "--quiet", "--samples", "1024", "--chains", "16", "--method", "smc")
    code, out, err = vdsl(*words, "--json")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert result["quality"]["method"] == "smc"
    assert result["quality"]["levels"] > 1
    agrees(result["ln_z"], 8 * np.log(Z), 0.1)
    agrees(result["energy"], ENERGY, 0.2)
    agrees(result["observables"]["x2"], X2, 0.02)
    assert result["free_energy"]["value"] == pytest.approx(-result["ln_z"]["value"])
    entropy = result["energy"]["value"] - result["free_energy"]["value"]
    assert result["entropy"]["value"] == pytest.approx(entropy)

    monkeypatch.setattr(vdsl_sample, "_run_chains", lambda *words: kept[-1])  # the same run as a table
    code, out, err = vdsl(*words)
    assert (code, err) == (0, "")
    assert "autocorrelation" not in out
    assert "R-hat" not in out
    rows = [line.split() for line in out.splitlines()]
    (ln_z,) = [row for row in rows if row[:2] == ["ln", "Z"]]
    assert float(ln_z[5]) == pytest.approx(result["ln_z"]["value"], abs=result["ln_z"]["error"])


def test_what_does_not_apply_is_said(vdsl, file):
    code, _, err = vdsl("sample", file, "--method", "cluster")
    assert code == 2
    assert "error[method-cannot-serve]" in err
    code, _, err = vdsl("sample", "-", "--method", "hmc", stdin=SPIN)
    assert code == 2
    assert "error[method-cannot-serve]" in err
    code, _, err = vdsl("sample", "-", "--method", "nuts", stdin=MIXED)
    assert code == 2
    assert "error[unsupported-support]" in err
    assert "--method hmc" in err


def test_an_energy_without_a_bottom(vdsl, file):
    code, _, err = vdsl("sample", file, "--set", "lam=-1", "--samples", "512")
    assert code == 3
    assert "error[non-finite]" in err


def test_blackjax_is_optional(vdsl, file, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "blackjax", None)
    code, _, err = vdsl("sample", file, "--method", "blackjax")
    assert code == 2
    assert "error[no-blackjax]" in err
