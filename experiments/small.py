"""The model of most studies: 140,000 parameters. A run takes about a minute on one core."""

from ml_collections import ConfigDict


def estimator(name: str, k: int | None = None, **options: object) -> dict[str, object]:
    """Returns an arm's config changes: its estimator, k, and the estimator's other parameters."""
    own = {f"estimator.{key}": value for key, value in options.items()}
    return {"estimator.name": name, "estimator.k": k} | own


def small(config: ConfigDict) -> ConfigDict:
    """Changes a config, in place, to this model and to short runs, and returns it."""
    config.policy.embed_dim, config.policy.hidden_dim = 64, 256
    config.policy.num_layers, config.policy.num_heads, config.policy.num_kv_heads = 2, 2, 1
    config.policy.remat = None
    config.prompts_per_step = 16
    config.optimizer.learning_rate = 3e-4
    config.warm_start.learning_rate = 2e-3
    config.evaluation.num_problems = 100
    config.checkpoint_every_steps = config.eval_every_steps = 50
    config.writers = None
    config.report_at_evaluations = False
    return config
