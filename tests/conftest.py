"""What every test needs before JAX is imported: the CPU, and repeatable hypothesis examples."""

import os

from hypothesis import settings

os.environ.setdefault("JAX_PLATFORMS", "cpu")

settings.register_profile("vdsl", deadline=None, derandomize=True)
settings.load_profile("vdsl")
