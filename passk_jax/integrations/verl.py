"""Every estimator as an advantage function of verl.

    from passk_jax.integrations import verl as passk_verl
    from verl.trainer.ppo.core_algos import register_adv_est

    register_adv_est("sloo_minus_one")(passk_verl.advantage_function("sloo_minus_one", k=8))
    # algorithm.adv_estimator=sloo_minus_one

verl calls it with the rewards of all completions by token, and with the id of each one's prompt.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from passk_jax.integrations import of_rewards


def advantage_function(name: str, k: int | None = None, **options: Any) -> Callable[..., tuple]:
    """Returns an estimator in the form that verl's `register_adv_est` takes.

    Args:
      name: As in `transforms.lookup`.
      k: The k of pass@k; `None` for an estimator that takes none.
      **options: The estimator's other parameters.

    Returns:
      (token_level_rewards (B, L), response_mask (B, L), index (B,), config=None, **kwargs) ->
      (advantages (B, L), the same). The reward of a completion is the sum over its tokens, and all
      of its tokens get its weight. It raises ValueError where prompts have different numbers of
      completions, and where the estimator does not take the rewards or this k.

    Raises:
      ValueError: The name or an option is unknown or not allowed, or the estimator needs more than
        the rewards of a group.
    """
    estimator = of_rewards(name, "verl", **options)

    def advantages(token_level_rewards, response_mask, index, config=None, **kwargs) -> tuple:
        del config, kwargs
        rewards = token_level_rewards.sum(dim=-1).detach().float().cpu().numpy()
        prompts, counts = np.unique(np.asarray(index), return_counts=True)
        if len(set(counts.tolist())) != 1:
            raise ValueError(
                f"{name}: each prompt must have as many completions, got {counts.min()} to "
                f"{counts.max()} of {len(prompts)} prompts"
            )
        order = np.argsort(np.asarray(index), kind="stable")
        groups_PxN = rewards[order].reshape(len(prompts), -1)
        weights = np.empty_like(rewards)
        weights[order] = np.asarray(estimator(groups_PxN, k)).reshape(-1)
        spread = token_level_rewards.new_tensor(weights)[:, None] * response_mask
        return spread, spread

    advantages.__name__ = advantages.__qualname__ = estimator.__name__
    return advantages
