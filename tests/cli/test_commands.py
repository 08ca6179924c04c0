"""Commands on models: check, explain, exact, tex, sample, scan, report, diagnose. Numbers against closed forms."""

import json
import math
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from vdsl.cli.scan import sweep

CHAIN = """
model ring "Ising ring"
param L : int = 8 in [2, 64]
param T = 2.0 in (0, inf)
param J = 1.0  "coupling"
lattice chain(L)
field s : spin
interaction exchange = -J * sum(<i, j> in nn: s[i] * s[j])
temperature T
observable m2 = mean(i in sites: s[i])^2
derived twice = 2 * expect(m2)
scan T = [1.0, 2.0]
"""
BAD = CHAIN.replace("in nn:", "in nnb:")


def ring(size: int, temperature: float) -> dict[str, float]:
    """The Ising ring: ln Z = ln(λ₊^L + λ₋^L), λ± = e^K ± e^−K; E = −∂ln Z/∂β by the same sum."""
    k = 1 / temperature
    plus, minus = 2 * math.cosh(k), 2 * math.sinh(k)
    z = plus**size + minus**size
    energy = -size * (plus ** (size - 1) * minus + minus ** (size - 1) * plus) / z
    return {"ln_z": math.log(z), "energy": energy, "entropy": energy * k + math.log(z)}


@pytest.fixture
def file(vdsl, tmp_path):
    (tmp_path / "ring.vfe").write_text(CHAIN)
    return "ring.vfe"


def test_check_says_ok_or_everything_that_is_wrong(vdsl, file, tmp_path):
    assert vdsl("check", file) == (0, "ring.vfe: ok\n", "")
    assert vdsl("check", file, "--quiet") == (0, "", "")
    (tmp_path / "bad.vfe").write_text(BAD)
    code, out, err = vdsl("check", "bad.vfe", file)
    assert code == 1
    assert out == "bad.vfe: 1 error\nring.vfe: ok\n"
    assert "error[unknown-set]: no set called `nnb` here" in err
    assert "--> bad.vfe:8:" in err
    assert "did you mean `nn`?" in err


def test_check_reads_standard_input_and_overrides(vdsl):
    assert vdsl("check", "-", stdin=CHAIN).code == 0
    code, _, err = vdsl("check", "-", "--set", "L=99", stdin=CHAIN)
    assert code == 2
    assert "error[out-of-range]" in err
    code, _, err = vdsl("check", "-", "--set", "j=2", stdin=CHAIN)
    assert code == 2
    assert "did you mean `J`?" in err
    assert vdsl("check", "-", "--set", "L=4", "--set", "L=5", stdin=CHAIN).code == 2


def test_check_as_json_is_one_object_with_positions(vdsl):
    code, out, err = vdsl("check", "-", "--json", stdin=BAD)
    assert (code, err) == (1, "")
    (report,) = json.loads(out)["files"]
    (finding,) = report["diagnostics"]
    assert (finding["code"], finding["line"], finding["severity"]) == ("unknown-set", 8, "error")
    line = BAD.splitlines()[finding["line"] - 1]
    assert line[finding["column"] - 1 : finding["end_column"] - 1] == "nnb"


def test_warnings_fail_only_when_strict(vdsl):
    unused = CHAIN + "param unused = 1.0\n"
    code, out, err = vdsl("check", "-", stdin=unused)
    assert (code, out) == (0, "-: ok, 1 warning\n")
    assert "warning[" in err
    assert vdsl("check", "-", "--strict", stdin=unused).code == 1


def test_check_is_quick_and_starts_no_jax(file, tmp_path):
    script = "import sys; from vdsl.cli import main; c = main(['check', 'ring.vfe']); print(c, 'jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "ring.vfe: ok\n0 False\n"
    times = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "vdsl", "check", "ring.vfe"], cwd=tmp_path, check=True, capture_output=True
        )
        times.append(time.perf_counter() - began)
    assert min(times) < 2.0  # half a second on an idle machine; tests share theirs


@pytest.mark.parametrize("code", ["unknown-set", "usage", "bad-checkpoint", "low-ess", "modes-missing"])
def test_explain_code(vdsl, code):
    status, out, err = vdsl("explain", code)
    assert (status, err) == (0, "")
    assert out.startswith(f"{code}: ")
    assert json.loads(vdsl("explain", code, "--json").out)["code"] == code


def test_explain_suggests_codes(vdsl):
    code, _, err = vdsl("explain", "unknown-sets")
    assert code == 2
    assert "did you mean `unknown-set`?" in err


def test_explain_model(vdsl, file):
    code, out, err = vdsl("explain", file)
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    for fact in (
        "ring: Ising ring", "s spin sites 8 2", "chain(8), periodic count", "sites 8", "nn 8", "L 8 structural [2, 64]",
        "J 1 dynamic coupling", "interaction exchange sum(<i, j> in nn)", "sign flip of s", "translations along axis 0",
        "exact feasible", "guide exact",
    ):  # fmt: skip
        assert fact in words, fact
    facts = json.loads(vdsl("explain", file, "--json", "--guide", "mean_field").out)
    assert facts["sets"]["nn"] == 8
    assert facts["guide"]["name"] == "mean_field"
    assert vdsl("explain", file, "--guide", "meanfield").code == 2


def test_explain_says_when_an_exact_answer_is_out_of_reach(vdsl, tmp_path):
    """In words, where a count of bytes would be infinite."""
    path = tmp_path / "xy.vfe"
    path.write_text(
        "lattice square(16, 16)\nfield a : angle\ninteraction e = -sum(<i, j> in nn: cos(a[i] - a[j]))\ntemperature 1\n"
    )
    words = vdsl("explain", str(path)).out
    assert "too expensive: elimination over quadrature nodes, beyond any machine" in " ".join(words.split())
    assert json.loads(vdsl("explain", str(path), "--json").out)["exact"]["bytes"] is None


def test_exact_agrees_with_the_transfer_matrix(vdsl, file):
    code, out, err = vdsl("exact", file, "--json", "--set", "L=10")
    assert (code, err) == (0, "")
    result = json.loads(out)
    assert not {"guide", "quality", "train", "method"} & result.keys()
    for name, value in ring(10, 2.0).items():
        assert result[name] == {"value": pytest.approx(value, rel=1e-12), "error": 0, "method": "exact"}
    assert result["params"] == {"L": 10, "T": 2.0, "J": 1.0}
    assert result["derived"]["twice"]["value"] == pytest.approx(2 * result["observables"]["m2"]["value"])
    assert re.search(rf"ln Z +{ring(8, 2.0)['ln_z'] / 8:.10g}", vdsl("exact", file).out)


def test_exact_says_what_it_would_cost(vdsl):
    wide = CHAIN.replace("chain(L)", "cubic(L, L, L)").replace("nn: s", "nn: s")
    code, out, err = vdsl("exact", "-", stdin=wide)
    assert (code, out) == (4, "")
    assert "error[too-expensive]" in err
    assert "of memory" in err


def test_tex(vdsl, file):
    code, out, err = vdsl("tex", file)
    assert (code, err) == (0, "")
    assert r"\sum" in out


def test_sample_agrees_with_the_transfer_matrix(vdsl, file, tmp_path):
    code, out, _ = vdsl("sample", file, "--json", "--samples", "4096", "--out", "x.npz", "--quiet")
    assert code == 0
    result = json.loads(out)
    energy = result["energy"]
    assert abs(energy["value"] - ring(8, 2.0)["energy"]) < 5 * energy["error"]
    assert 0 < energy["error"] < 0.2
    assert energy["method"].startswith("markov")
    assert result["quality"]["r_hat"]["energy"] < 1.05
    with np.load(tmp_path / "x.npz") as file_:
        spins, energies = file_["sample/s"], file_["energy"]
    assert spins.shape == (4096, 8)
    np.testing.assert_allclose(energies, -(spins * np.roll(spins, 1, axis=1)).sum(1))
    code, _, err = vdsl("sample", "ring.vfe", "--out", "x.npz")
    assert code == 2
    assert "error[out-exists]" in err


def test_sample_refuses_what_cannot_work(vdsl, file):
    assert vdsl("sample", file, "--samples", "10").code == 2
    assert vdsl("sample", file, "--out", "x.csv").code == 2
    assert vdsl("sample", file, "--method", "magic").code == 2
    assert vdsl("sample", ".").code == 2


def test_sweeps():
    assert sweep("T=1:2:3") == ("T", [1.0, 1.5, 2.0])
    assert sweep("L=4:8:3") == ("L", [4, 6, 8])
    assert all(isinstance(v, int) for v in sweep("L=4:8:3")[1])
    assert sweep("T=1.6:3.2:17")[1] == pytest.approx(np.linspace(1.6, 3.2, 17))
    assert sweep("T=1,2.5") == ("T", [1, 2.5])


@pytest.mark.parametrize(
    "text", ["T", "T=", "=1:2:3", "T=1:2", "T=1:2:0", "T=1:2:x", "T=a,b", "T=1:inf:3", "T=1:2:1001"]
)
def test_what_is_no_sweep_is_refused(vdsl, file, text):
    code, _, err = vdsl("scan", file, "--scan", text)
    assert code == 2
    assert "is no sweep" in err


def test_scan_of_the_file_gives_one_table_and_one_plot(vdsl, file, tmp_path):
    code, out, err = vdsl("scan", file, "--exact", "--out", "scan")
    assert code == 0
    header, *rows = out.splitlines()
    assert header.split() == ["T", "F/site", "E/site", "S/site", "C/site", "m2", "twice"]
    for row, t in zip(rows, (1.0, 2.0), strict=True):
        value, free_energy, energy, *_ = (float(x) for x in row.split())
        assert value == t
        assert free_energy == pytest.approx(-t * ring(8, t)["ln_z"] / 8, rel=1e-9)
        assert energy == pytest.approx(ring(8, t)["energy"] / 8, rel=1e-9)
    assert (tmp_path / "scan" / "scan.png").read_bytes().startswith(b"\x89PNG")
    assert "scan.png" in err
    shown = vdsl("report", "scan")
    assert shown.out == out
    assert [r["temperature"] for r in json.loads(vdsl("report", "scan", "--json").out)["results"]] == [1.0, 2.0]


def test_scan_checks_every_value_before_it_starts(vdsl, file, tmp_path):
    code, _, err = vdsl("scan", file, "--scan", "T=1,-1")
    assert code == 2
    assert "error[out-of-range]" in err
    assert not (tmp_path / "runs").exists()
    assert vdsl("scan", file, "--set", "T=3").code == 2
    assert "has no `scan` statement" in vdsl("scan", "-", stdin=CHAIN.replace("scan T", "# scan T")).err


def _run(directory, **changes):
    """Files of a run with given numbers in them."""
    directory.mkdir()
    value = {"value": -16.0, "error": 0.08, "method": "importance"}
    result = {
        "schema": 1, "model": "ring", "fingerprint": "f", "sites": 8, "temperature": 2.0, "params": {"L": 8},
        "guide": {"name": "mean_field", "parameters": 8},
        "free_energy": {**value, "method": "variational", "bound": "upper"},
        "ln_z": {**value, "value": 8.0}, "energy": value, "entropy": value, "heat_capacity": value,
        "observables": {"m2": value}, "derived": {},
        "quality": {"ess": 0.9, "ess_samples": 10000, "variance": 0.1, "acceptance": 0.9, "warnings": []},
        "train": {"steps": 10, "batch": 5, "seconds": 3.0, "seed": 0}, "versions": {}, "device": "cpu",
    }  # fmt: skip
    for key, change in changes.items():
        result[key] = {**result.get(key, {}), **change}
    (directory / "result.json").write_text(json.dumps(result))
    (directory / "diagnostics.json").write_text(json.dumps({"pareto_k": 0.2, "longest_rejection": 3}))


def test_report_shows_one_and_compares_many(vdsl, tmp_path):
    _run(tmp_path / "a")
    _run(tmp_path / "b", quality={"ess": 0.25})
    one = vdsl("report", "a")
    assert one.code == 0
    assert "very good" in one.out
    assert "-2.000 ± 0.010" in one.out
    header, a, b = vdsl("report", "a", "b").out.splitlines()
    assert header.split()[:2] == ["run", "model"]
    assert (a.split()[0], b.split()[0]) == ("a", "b")
    assert "0.900" in a
    assert "0.250" in b
    both = json.loads(vdsl("report", "a", "b", "--json").out)["runs"]
    assert both["b"]["quality"]["ess"] == 0.25
    assert vdsl("report", "nowhere").code == 2


def test_diagnose_names_threshold_cause_and_remedy(vdsl, tmp_path):
    _run(tmp_path / "good")
    code, out, _ = vdsl("diagnose", "good", "--strict")
    assert code == 0
    assert "FAILED" not in out
    assert "nothing to improve" in out
    _run(tmp_path / "bad", quality={"ess": 0.02, "acceptance": 0.1, "variance": 5.0}, exact={"ln_z": 9.0})
    code, out, _ = vdsl("diagnose", "bad")
    assert code == 0
    assert out.count("FAILED") == 5  # ESS, effective samples, variance, acceptance, the exact value
    assert "remedy: train longer" in out
    assert vdsl("diagnose", "bad", "--strict").code == 1
    checks = json.loads(vdsl("diagnose", "bad", "--json").out)["checks"]
    failed = {c["name"]: c for c in checks if not c["passed"]}
    assert failed["ln Z against the exact value"]["found"] == "-12.5 σ"
    assert all(c["cause"] and c["remedy"] for c in failed.values())
