"""The model that most studies train: 140,000 parameters, an arm in about a minute on one core."""

from ml_collections import ConfigDict


def estimator(name: str, k: int | None = None, **options: object) -> dict[str, object]:
    """The changes of an arm: its estimator, k, and what else that takes."""
    own = {f"estimator.{key}": value for key, value in options.items()}
    return {"estimator.name": name, "estimator.k": k} | own


def small(config: ConfigDict) -> ConfigDict:
    """Any config with that model, and what else makes its runs short; changed in place."""
    config.policy.embed_dim, config.policy.hidden_dim = 64, 256
    config.policy.num_layers, config.policy.num_heads, config.policy.num_kv_heads = 2, 2, 1
    config.policy.remat = None
    config.prompts_per_step = 16
    config.optimizer.learning_rate = 3e-4
    config.warm_start.learning_rate = 2e-3
    config.evaluation.num_problems = 100
    config.checkpoint_every_steps = config.eval_every_steps = 50
    config.tensorboard = False
    return config
