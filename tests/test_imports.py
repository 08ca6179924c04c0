"""What a command imports is what a user waits for: checking needs no JAX, and no command needs matplotlib to start."""

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

PROBE = """
import sys
from vdsl.cli import main
code = main(sys.argv[2:])
heavy = sorted({name.partition(".")[0] for name in sys.modules} & set(sys.argv[1].split(",")))
sys.exit(f"imported {heavy}" if heavy else code)
"""


COMMANDS = [
    ["check", str(EXAMPLES / "ising.vfe")],
    ["fmt", "--check", str(EXAMPLES / "sk.vfe")],
    ["tex", str(EXAMPLES / "ising.vfe")],
    ["models"],
    ["explain", "unknown-set"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_text_commands_leave_jax_alone(command: list[str]) -> None:
    heavy = "jax,jaxlib,equinox,optax,distrax,numpyro,matplotlib"
    done = subprocess.run([sys.executable, "-c", PROBE, heavy, *command], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_import_vdsl_leaves_jax_alone() -> None:
    probe = "import sys, vdsl; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], timeout=60).returncode == 0
