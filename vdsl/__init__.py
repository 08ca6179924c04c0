"""vdsl: variational free energy from a description of the physics."""
