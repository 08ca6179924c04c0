"""Sweeps: points that share a compilation, guides that start from their neighbour's, one guide for a whole range."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vdsl
from vdsl.cli import main
from vdsl.errors import VfeError
from vdsl.guides import registry
from vdsl.guides.amortised import build_amortised
from vdsl.guides.problem import Problem
from vdsl.ir.interpret import resolve_parameters

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_compilations")]

ISING = """
model small
lattice square(4, 4)
param T = 2.5 in (0, inf)
param J = 1.0
field s : spin
interaction e = -J * sum(<i, j> in nn: s[i] * s[j])
temperature T
scan T = [2.0, 2.6, 3.2]
"""
TEMPERATURES = [2.0, 2.6, 3.2]


def exact(temperature: float) -> float:
    """ln Z by enumeration."""
    s = 1 - 2 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1).reshape(-1, 4, 4)
    energy = -(s * np.roll(s, 1, 1) + s * np.roll(s, 1, 2)).sum((1, 2))
    return float(np.logaddexp.reduce(-energy / temperature))


def test_one_guide_for_all_points_is_right_at_each():
    runs = vdsl.sweep(
        vdsl.loads(ISING), "T", TEMPERATURES, amortise=True, guide="dense", steps=300, samples=4096, quiet=True
    )
    for run, temperature in zip(runs, TEMPERATURES, strict=True):
        assert run.result["temperature"] == run.result["params"]["T"] == temperature
        assert abs(run.ln_z.value - exact(temperature)) < 4 * run.ln_z.error
        assert run.quality["ess"] > 0.7
        assert run.free_energy.value >= -temperature * exact(temperature) - 4 * run.free_energy.error
    assert runs[0].result["train"]["steps"] == runs[2].result["train"]["steps"] == 300
    assert len({run.model.program.fingerprint for run in runs}) == 3


def test_a_neighbours_guide_is_a_better_start():
    settings = {"guide": "dense", "steps": 60, "samples": 4096, "quiet": True}
    warm = vdsl.sweep(vdsl.loads(ISING), "T", [2.5, 2.4, 2.3], **settings)
    cold = vdsl.sweep(vdsl.loads(ISING), "T", [2.4, 2.3], cold=True, **settings)
    assert warm[-1].quality["variance"] < 0.7 * cold[-1].quality["variance"]
    for run in (*warm, *cold):
        assert abs(run.ln_z.value - exact(run.result["temperature"])) < 4 * run.ln_z.error


def test_the_points_of_an_amortised_guide_are_its_polynomial():
    """Between fresh parameters and any others: params(c) = Σ T_r(c) params_r, and ln q is that of the point's guide."""
    program = vdsl.loads(ISING).program
    choice = registry.choose(Problem(program, resolve_parameters(program, {})), "dense")
    guides = [registry.build(choice, Problem(program, {"T": t, "J": 1.0})) for t in TEMPERATURES]
    guide = build_amortised(guides, TEMPERATURES)
    params = jax.tree.map(
        lambda p: jax.random.normal(jax.random.key(p.size), p.shape) * 0.1, guide.init(jax.random.key(0))
    )
    one = jnp.ones(())
    z = guide.sample_latent(params, jax.random.key(5), 8, one)
    k = int(z[0])
    c = [-1.0, 0.0, 1.0][k]
    by_hand = jax.tree.map(lambda p: p[0] + c * p[1] + (2 * c * c - 1) * p[2], params)
    np.testing.assert_allclose(
        guide.latent_log_prob(params, z, one), guides[k].latent_log_prob(by_hand, z[1], one), rtol=2e-5
    )
    np.testing.assert_allclose(guide.latent_energy(z, one), guides[k].latent_energy(z[1], one), rtol=1e-6)
    assert guide.anneal_from() == min(g.anneal_from() for g in guides)


def test_points_of_different_form_are_refused():
    with pytest.raises(VfeError) as caught:
        vdsl.sweep(vdsl.loads(ISING), "J", [0.0, 1.0], amortise=True, guide="dense", steps=5, quiet=True)
    assert caught.value.diagnostics[0].code == "cannot-amortise"
    with pytest.raises(VfeError) as caught:
        vdsl.sweep(vdsl.loads(ISING), "K", [0.0, 1.0], quiet=True)
    assert caught.value.diagnostics[0].code == "unknown-parameter"


def test_a_scan_on_the_command_line_and_its_points_afterwards(tmp_path, capsys, monkeypatch):
    """One training; each point is a run that fresh samples can be drawn from; a lost result is made again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.vfe").write_text(ISING)
    words = "scan small.vfe --amortise --guide dense --steps 200 --samples 2048 --out curve --json --quiet"
    assert main(words.split()) == 0
    first = json.loads(capsys.readouterr().out)
    assert [r["temperature"] for r in first["results"]] == TEMPERATURES
    assert main(["sample", "curve/T=2.6", "--samples", "2048", "--seed", "7", "--json", "--quiet"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert abs(again["ln_z"]["value"] - exact(2.6)) < 4 * again["ln_z"]["error"]
    (tmp_path / "curve" / "T=3.2" / "result.json").unlink()
    assert main(["resume", "curve", "--json", "--quiet"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert second["results"][2]["ln_z"] == first["results"][2]["ln_z"]
