"""The intermediate representation: pure data and NumPy. No jax, no lark."""
