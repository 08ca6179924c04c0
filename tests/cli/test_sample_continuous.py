"""`vdsl sample` on continuous and mixed models: every method against exact values."""

import json

import numpy as np
import pytest

PHI4 = """
param L : int = 4
param lam = 6.975
lattice hypercubic(L, L)
field phi : real
interaction kinetic = sum(x in sites, mu in axes: phi[x] * (2 * phi[x] - phi[x + mu] - phi[x - mu]))
interaction potential = sum(x in sites: -4 * phi[x]^2 + lam * phi[x]^4)
temperature 1
observable phi2 = mean(x in sites: phi[x]^2)
observable m = mean(x in sites: phi[x])
derived chi2 = size(sites) * expect(m^2)
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
HEISENBERG = """
lattice chain(8, boundary = open)
field S : sphere(3)
interaction e = -2 * sum(<i, j> in nn: dot(S[i], S[j]))
temperature 1
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "phi4.vfe").write_text(PHI4)
    return "phi4.vfe"


@pytest.mark.parametrize("method", ["auto", "nuts"])
def test_phi4(vdsl, file, method, tmp_path):
    """⟨φ²⟩ and χ₂ by transfer matrix."""
    words = ("--json", "--quiet", "--samples", "4096", "--method", method, "--out", "x.npz")
    code, out, err = vdsl("sample", file, *words)
    assert (code, err) == (0, "wrote x.npz\n")
    result = json.loads(out)
    assert result["quality"]["method"] == ("hmc" if method == "auto" else "nuts")
    assert result["quality"]["r_hat"]["energy"] < 1.05
    assert 0.6 < result["quality"]["acceptance"] < 0.97
    phi2, chi2 = result["observables"]["phi2"], result["derived"]["chi2"]
    assert abs(phi2["value"] - 0.167392) < 4 * phi2["error"]
    assert abs(chi2["value"] - 0.934971) < 4 * chi2["error"]
    assert phi2["error"] < 0.003
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["sample/phi"].shape == (4096, 16)
        assert (arrays["sample/phi"] ** 2).mean() == pytest.approx(phi2["value"], rel=1e-5)


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


def test_an_energy_without_a_bottom(vdsl, tmp_path):
    (tmp_path / "down.vfe").write_text(PHI4)
    code, _, err = vdsl("sample", "down.vfe", "--set", "lam=-1", "--samples", "512")
    assert code == 3
    assert "error[non-finite]" in err


def test_blackjax_is_optional(vdsl, file, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "blackjax", None)
    code, _, err = vdsl("sample", file, "--method", "blackjax")
    assert code == 2
    assert "error[no-blackjax]" in err
