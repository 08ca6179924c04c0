"""Program -> JAX: what to compute with (`strategy`), on what values (`kernels`), and the compiler itself (`lower`)."""
