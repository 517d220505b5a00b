"""Train a one-million-parameter Gemma 2 by pass@k policy optimization on "What is a*b + c*d?"."""

from passk_jax.configs import default


def get_config():
    """The default job itself; see `configs/default.py` for every key."""
    return default.get_config()
