"""The tree-gauge guide: lattice gauge theories with the gauge freedom removed exactly."""
