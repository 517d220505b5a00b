"""Every estimator in the GRPOTrainer of TRL (the package trl).

    from passk_jax.integrations import trl as passk_trl

    Trainer = passk_trl.with_estimator(GRPOTrainer, "sloo_minus_one", k=8)
    Trainer(model=..., reward_funcs=..., args=GRPOConfig(num_generations=16, ...), ...).train()

TRL computes its own advantages in the middle of a long method. The trainer made here keeps the
rewards that this method sees, and replaces the advantages that it returns. TRL divides its loss by
tokens or by completions, as `loss_type` says; weights here are for a mean over completions.
"""

from typing import Any

import numpy as np

from passk_jax.integrations import of_rewards


def with_estimator(trainer: type, name: str, k: int | None = None, **options: Any) -> type:
    """Returns a GRPOTrainer whose advantages an estimator gives; evaluation keeps TRL's.

    Args:
      trainer: `trl.GRPOTrainer` or a class made of it, with one process or several.
      name: As in `transforms.lookup`.
      k: The k of pass@k; `None` for an estimator that takes none.
      **options: The estimator's other parameters.

    Returns:
      A class with the arguments of `trainer`. What it raises while it trains is the estimator's:
      a ValueError for a k that `num_generations` does not allow, for rewards that are not finite
      (TRL's nan for completions that no function scored, too), or not 0 and 1 where they must be.

    Raises:
      ValueError: The name or an option is unknown or not allowed, or the estimator needs more than
        the rewards of a group.
    """
    estimator = of_rewards(name, "TRL", **options)

    class Trainer(trainer):
        """The trainer with the advantages of an estimator of passk_jax."""

        _seen = None  # rewards (completions of all processes, functions) of the batch

        def _calculate_rewards(self, *args, **kwargs):
            self._seen = super()._calculate_rewards(*args, **kwargs)
            return self._seen

        def _generate_and_score_completions(self, *args, **kwargs):
            batch = super()._generate_and_score_completions(*args, **kwargs)
            if not self.model.training:
                return batch
            weights = self.reward_weights.to(self._seen.device)
            rewards = (self._seen * weights[None]).sum(dim=1)
            groups_PxN = rewards.reshape(-1, self.num_generations).float().cpu().numpy()
            advantages = np.array(estimator(groups_PxN, k)).reshape(-1)
            logged = self._logs["advantages"]
            for _ in advantages:
                logged.pop()
            logged.extend(advantages.tolist())
            own = len(batch["advantages"])
            first = own * self.accelerator.process_index
            mine = advantages[first : first + own]
            batch["advantages"] = batch["advantages"].new_tensor(mine)
            return batch

    Trainer.__name__ = Trainer.__qualname__ = f"{trainer.__name__}_{estimator.__name__}"
    return Trainer
