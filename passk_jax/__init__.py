"""passk_jax: reinforcement learning of language models on pass@k, in JAX."""


def __getattr__(name: str) -> str:
    """Returns `__version__`, which is read from the installed metadata when it is asked for."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata

    try:
        return metadata.version(__name__)
    except metadata.PackageNotFoundError:  # a checkout that was not installed
        return "0+unknown"
