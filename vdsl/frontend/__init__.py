"""Text to Program. Never imports jax."""
