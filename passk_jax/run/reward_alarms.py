"""Says when rewards are 0 for another reason than that the answers are wrong."""

import logging

from passk_jax.run.groups import Scores

_logger = logging.getLogger(__name__)
_SHARE = 0.05  # of a step's completions
_FIRST_STEPS = 3
_WORDS = {
    "timed_out": "ran out of time",
    "died": "could not be scored, because what scored them died",
    "not_python": "are not Python",
    "no_answer": "hold no answer",
    "other": "could not be scored",
}


class RewardAlarms:
    """Warns once of each kind of error that is frequent, and of a run without any reward."""

    def __init__(self):
        self._told: set[str] = set()
        self._steps = self._errors_only = self._without_reward = 0

    def look(self, step: int, scores: Scores) -> None:
        """Looks at the scores of a step.

        Args:
          step: The step's number, from 1.
          scores: The scores of all its completions.
        """
        rates = scores.error_rates()
        for kind, rate in rates.items():
            if rate > _SHARE and kind not in self._told:
                self._told.add(kind)
                pairs = [pair for row in scores.errors for pair in row if pair[0] == kind]
                _logger.warning(
                    "step %d: %s of the completions %s, and earn 0: %s. The figure is "
                    "train/scoring_errors/%s; samples.jsonl has the errors",
                    *(step, f"{rate:.0%}", _WORDS[kind], pairs[0][1] or "no reason is given", kind),
                )
        if self._steps == _FIRST_STEPS:
            return
        self._steps += 1
        self._errors_only += sum(rates.values()) > 1 - 1e-9
        self._without_reward += not scores.rewards_PxN.any()
        if self._errors_only == _FIRST_STEPS:
            worst = max(rates, key=rates.get)
            _logger.warning(
                "all rewards of the first %d steps are 0 although no answer was found wrong: most "
                "completions %s. Look at samples.jsonl before you train on",
                *(_FIRST_STEPS, _WORDS[worst]),
            )
        elif self._without_reward == _FIRST_STEPS:
            _logger.warning(
                "no completion of the first %d steps earned a reward, so nothing was learned. Look "
                "at samples.jsonl: is an answer written where the task looks for it, and is the "
                "reference the answer alone?",
                _FIRST_STEPS,
            )
