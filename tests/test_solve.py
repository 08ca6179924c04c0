"""`vdsl.solve`, `Run` and `vdsl solve`: numbers against exact ones, the schema of the result, and what is on disk."""

import json
import math

import jax
import numpy as np
import pytest

import vdsl
from vdsl.cli import main
from vdsl.estimate.stats import Estimate
from vdsl.report import write

pytestmark = pytest.mark.usefixtures("quick_compilations")

MODEL = """
model square "small Ising square"
param L : int = 3
param J = 1.0
param T = 2.5 in (0, inf)
lattice square(L, L)
field s : spin
interaction exchange = -J * sum(<i, j> in nn: s[i] * s[j])
temperature T
observable absm = abs(mean(i in sites: s[i]))
derived double = 2 * expect(absm)
"""
TOP = {
    "schema", "model", "fingerprint", "sites", "temperature", "params", "guide", "free_energy", "ln_z", "energy",
    "entropy", "heat_capacity", "observables", "derived", "exact", "quality", "train", "versions", "device",
}  # fmt: skip


def _enumerated(size: int = 3, temperature: float = 2.5) -> dict[str, float]:
    """Every configuration of the torus, one by one."""
    states = 1 - 2 * ((np.arange(2 ** (size * size))[:, None] >> np.arange(size * size)) & 1)
    grid = states.reshape(-1, size, size)
    energy = -(grid * np.roll(grid, 1, 1) + grid * np.roll(grid, 1, 2)).sum((1, 2)).astype(float)
    weight = np.exp(-energy / temperature)
    z = weight.sum()
    mean = (weight * energy).sum() / z
    absm = (weight * np.abs(grid.mean((1, 2)))).sum() / z
    return {
        "ln_z": math.log(z),
        "free_energy": -temperature * math.log(z),
        "energy": mean,
        "entropy": mean / temperature + math.log(z),
        "heat_capacity": ((weight * energy**2).sum() / z - mean**2) / temperature**2,
        "absm": absm,
        "double": 2 * absm,
    }


@pytest.fixture(scope="module")
def model(quick_compilations):
    return vdsl.loads(MODEL)


@pytest.fixture(scope="module")
def run(model, quick_compilations):
    """A guide that is trained but not exact, so that weights matter."""
    return vdsl.solve(model, seed=1, steps=150, batch=256, samples=8192, guide="dense", quiet=True)


def test_every_estimate_agrees_with_enumeration(run):
    exact = _enumerated()
    found = {
        "ln_z": run.ln_z, "energy": run.energy, "entropy": run.entropy, "heat_capacity": run.heat_capacity,
        **run.observables, **run.derived,
    }  # fmt: skip
    for name, estimate in found.items():
        assert isinstance(estimate, Estimate)
        assert estimate.error < 0.1
        assert abs(estimate.value - exact[name]) < 4.5 * estimate.error, name
    assert run.free_energy.bound == "upper"
    assert exact["free_energy"] - 4 * run.free_energy.error < run.free_energy.value < exact["free_energy"] + 0.2
    assert 0.8 < run.quality["ess"] < 1


def test_the_result_has_the_keys_of_the_language_and_no_others(run):
    assert run.result.keys() == TOP
    exact = _enumerated()
    assert run.result["exact"]["ln_z"] == pytest.approx(exact["ln_z"])
    assert run.result["exact"]["observables"]["absm"] == pytest.approx(exact["absm"])
    assert run.result["temperature"] == 2.5
    assert run.result["params"] == {"L": 3, "J": 1.0, "T": 2.5}
    assert run.result["sites"] == 9
    assert run.result["guide"]["name"] == "dense"
    assert run.result["guide"]["parameters"] > 0
    assert run.result["train"].keys() == {"steps", "batch", "seconds", "seed"}
    assert 50 < run.result["train"]["steps"] <= 150  # fewer where training has nothing left to gain
    assert (run.result["train"]["batch"], run.result["train"]["seed"]) == (256, 1)
    assert run.result["quality"].keys() == {"ess", "ess_samples", "variance", "acceptance", "warnings"}
    assert run.result["quality"]["ess_samples"] == 8192
    for name in ("free_energy", "ln_z", "energy", "entropy", "heat_capacity"):
        assert run.result[name].keys() - {"bound"} == {"value", "error", "method"}
        assert run.result[name]["value"] == getattr(run, name).value
    assert json.loads(json.dumps(run.result, allow_nan=False)) == run.result


def test_samples_are_the_guides_own_with_their_log_probabilities(run, model):
    x, log_q = run.sample(jax.random.key(0), 64)
    assert x.shape == (64, 9)
    np.testing.assert_allclose(log_q, run.guide.log_prob(run.params, {"s": x}), atol=1e-4)
    again, _ = run.sample(jax.random.key(0), 64)
    np.testing.assert_array_equal(x, again)


def test_reweighting_reaches_a_nearby_temperature(run):
    moved = run.reweight(T=2.7)
    exact = _enumerated(temperature=2.7)
    assert abs(moved.ln_z.value - exact["ln_z"]) < 4 * moved.ln_z.error
    assert abs(moved.energy.value - exact["energy"]) < 4 * moved.energy.error
    assert 0.3 < moved.quality.ess < 1


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(model):
    def numbers(seed):
        run = vdsl.solve(model, seed=seed, steps=20, batch=32, samples=512, guide="mean_field", quiet=True)
        return {k: v for k, v in run.result.items() if k != "train"}

    first = numbers(5)
    assert numbers(5) == first
    assert numbers(6)["ln_z"] != first["ln_z"]


def test_python_writes_files_only_when_told(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = vdsl.solve(model, samples=512, quiet=True)
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")
    run.save("saved")
    names = {p.name for p in (tmp_path / "saved").iterdir()}
    assert {write.RESULT, write.MANIFEST, write.PROGRAM, write.SAMPLES, write.HISTORY} <= names
    with pytest.raises(vdsl.VfeError, match="out-exists"):
        run.save("saved")
    with pytest.raises(vdsl.VfeError, match="out-exists"):
        vdsl.solve(model, out="saved", quiet=True)


@pytest.fixture(scope="module")
def solved(tmp_path_factory, quick_compilations):
    home = tmp_path_factory.mktemp("home")
    (home / "m.vfe").write_text(MODEL)
    flags = ["--set", "T=3.0", "--guide", "mean_field", "--steps", "30", "--batch", "64", "--samples", "2048"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        code = main(["solve", "m.vfe", *flags, "--seed", "4"])
    assert code == 0
    return home / "runs" / "square-1"


def test_the_run_directory_holds_what_was_found_and_how(solved):
    result = json.loads((solved / write.RESULT).read_text())
    manifest = json.loads((solved / write.MANIFEST).read_text())
    assert (solved / write.MODEL).read_text() == MODEL
    assert (solved / write.PROGRAM).read_text().startswith(f"fingerprint {result['fingerprint']}")
    assert manifest["overrides"] == {"T": 3.0}
    assert (manifest["settings"]["seed"], manifest["settings"]["steps"]) == (4, 30)
    assert manifest["plan"]["clip"] > 0
    assert manifest["plan"]["learning_rate"] > 0
    assert manifest["versions"].keys() >= {"vdsl", "jax", "numpy"}
    samples, history = write.read_arrays(solved / write.SAMPLES), write.read_arrays(solved / write.HISTORY)
    spins = samples["sample/s"].reshape(-1, 3, 3).astype(int)
    energy = -(spins * np.roll(spins, 1, 1) + spins * np.roll(spins, 1, 2)).sum((1, 2))
    np.testing.assert_allclose(samples["energy"], energy)
    log_w = -samples["energy"] / 3.0 - samples["log_q"]
    assert math.log(np.exp(log_w).mean()) == pytest.approx(result["ln_z"]["value"])
    assert history["step"].tolist()[:2] == [10, 20]
    assert history["step"][-1] == result["train"]["steps"] <= 30
    assert {"free_energy", "ess", "variance"} <= history.keys()


def test_a_run_can_be_reported_diagnosed_and_sampled(solved, capsys):
    assert main(["report", str(solved)]) == 0
    assert "mean_field" in capsys.readouterr().out
    assert main(["diagnose", str(solved), "--json"]) == 0
    names = {c["name"] for c in json.loads(capsys.readouterr().out)["checks"]}
    assert {"ESS", "two ln Z agree", "ln Z against the exact value"} <= names
    assert main(["sample", str(solved), "--json", "--samples", "1024", "--quiet"]) == 0
    again = json.loads(capsys.readouterr().out)
    before = json.loads((solved / write.RESULT).read_text())
    assert again["quality"]["ess_samples"] == 1024
    assert again["ln_z"] != before["ln_z"]
    assert abs(again["ln_z"]["value"] - before["ln_z"]["value"]) < 5 * math.hypot(
        again["ln_z"]["error"], before["ln_z"]["error"]
    )


def test_the_table_shows_estimate_exact_value_and_verdict(solved, capsys):
    assert main(["report", str(solved)]) == 0
    out = capsys.readouterr().out
    exact = _enumerated(temperature=3.0)
    for name, symbol in (("free_energy", "F"), ("energy", "E"), ("entropy", "S")):
        row = next(line for line in out.splitlines() if line.startswith(f"{symbol}  "))
        assert f"{exact[name] / 9:.8g}" in row
    assert "ESS" in out
    assert "fresh samples: " in out


@pytest.mark.parametrize(
    ("flags", "code", "words"),
    [
        (["--guide", "magic"], 2, "error[unknown-guide]"),
        (["--batch", "1"], 2, "error[bad-setting]"),
        (["--set", "K=1"], 2, "error[unknown-parameter]"),
        (["--set", "T=-1"], 2, "error[out-of-range]"),
        (["--out", "m.vfe"], 2, "error[out-exists]"),
        (["--out", "/dev/null/x"], 2, "error[unwritable]"),
    ],
)
def test_what_cannot_be_solved_is_said(tmp_path, monkeypatch, capsys, flags, code, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.vfe").write_text(MODEL)
    assert main(["solve", "m.vfe", "--quiet", "--steps", "10", *flags]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err


def test_a_training_that_the_clock_ends_says_so(tmp_path, monkeypatch, model):
    """As when compiling takes all of the limit; the estimates are still those of the guide as it is, with a plot."""
    monkeypatch.setattr("vdsl.fit._OVERTIME", 0.0)
    run = vdsl.solve(model, guide="mean_field", time_limit=5, samples=512, quiet=True, out=tmp_path / "run")
    assert run.result["train"]["steps"] == 0
    (said,) = [w for w in run.result["quality"]["warnings"] if w.startswith("cut-short")]
    assert "before its first step" in said
    assert main(["report", str(tmp_path / "run"), "--plot", str(tmp_path / "history.png")]) == 0
    whole = vdsl.solve(model, guide="mean_field", steps=10, samples=512, quiet=True)
    assert not any(w.startswith("cut-short") for w in whole.result["quality"]["warnings"])


def test_strict_fails_on_a_warning(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cold = MODEL.replace("2.5 in", "0.3 in")
    (tmp_path / "m.vfe").write_text(cold)
    flags = ["--guide", "mean_field", "--steps", "10", "--samples", "512", "--quiet", "--json"]
    assert main(["solve", "m.vfe", *flags]) == 0
    assert json.loads(capsys.readouterr().out)["quality"]["warnings"]
    assert main(["solve", "m.vfe", *flags, "--strict"]) == 1


@pytest.mark.slow
def test_guide_and_train_blocks_count_unless_the_caller_says_otherwise():
    text = (
        "lattice square(4, 4)\nfield s : spin\ninteraction e = -sum(<i, j> in nn: s[i] * s[j])\ntemperature 3\n"
        "guide mean_field {}\ntrain { steps = 20; batch = 32; seed = 5; learning_rate = 0.02; samples = 2048 }\n"
    )
    run = vdsl.solve(vdsl.loads(text), quiet=True)
    assert run.result["guide"]["name"] == "mean_field"
    assert {k: run.result["train"][k] for k in ("steps", "batch", "seed")} == {"steps": 20, "batch": 32, "seed": 5}
    assert run.diagnostics["plan"]["learning_rate"] == 0.02
    assert run.quality["ess_samples"] == 2048
    other = vdsl.solve(vdsl.loads(text), seed=6, steps=10, guide="dense", quiet=True)
    assert other.result["guide"]["name"] == "dense"
    assert {k: other.result["train"][k] for k in ("steps", "batch", "seed")} == {"steps": 10, "batch": 32, "seed": 6}
