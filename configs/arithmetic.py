"""Trains a one-million-parameter Gemma 2 by pass@k policy optimization on "What is a*b + c*d?"."""

from passk_jax.configs import default


def get_config():
    """Returns the default job; `configs/default.py` documents every key."""
    return default.get_config()
