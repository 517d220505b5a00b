"""passk_jax: reinforcement learning of language models on pass@k, in JAX."""

__version__ = "0.1.0"
