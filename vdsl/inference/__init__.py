"""Training: gradient estimators, the loop, checkpoints."""
