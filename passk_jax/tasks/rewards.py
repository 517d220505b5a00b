"""Own rewards: a task whose rewards come from a user's functions.

    def brief(prompt, completion, row):
        return -len(completion) / 1000

    config.task.reward = ("task", "my_rewards:brief")  # the task's own reward, and this one
    config.task.reward_weights = {"brief": 0.1}

A plain function runs in worker processes with limits, see `pool`. An `async def` runs in this
process, many calls at once: it may wait for a judge on another machine.
"""

import asyncio
import collections
import dataclasses
import functools
import inspect
import threading
from collections.abc import Callable, Mapping, Sequence

from passk_jax.errors import ConfigError, did_you_mean
from passk_jax.tasks import base, named
from passk_jax.tasks.reward_call import WANTED, Outcome, name_of, outcome

_OWN = "task"  # the name of the task's own reward


class RewardError(RuntimeError):
    """A reward function raised, returned something else, or failed too often."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """The limits of a call of a reward function.

    Attributes:
      time_limit_s: The seconds of one call.
      concurrency: How many calls of an `async def` wait at once.
      retries: How often a call of an `async def` that raised, or was late, is made again: after 1,
        2, 4, ... seconds, and never more than 30.
      max_lost: The share of a batch's completions whose reward may fail. More of them end the run.

    Raises:
      ConfigError: A number is out of range.
    """

    time_limit_s: float = 10.0
    concurrency: int = 32
    retries: int = 3
    max_lost: float = 0.25

    def __post_init__(self):
        for name, good, allowed in (
            ("time_limit_s", self.time_limit_s > 0, "a positive number of seconds"),
            ("concurrency", self.concurrency >= 1, "at least 1"),
            ("retries", self.retries >= 0, "at least 0"),
            ("max_lost", 0 <= self.max_lost <= 1, "between 0 and 1"),
        ):
            if not good:
                raise ConfigError(
                    f"reward_limits.{name} = {getattr(self, name)}: must be {allowed}"
                )


class Rewarded:
    """A task with other rewards.

    The reward is the weighted sum of the functions' rewards. `correct`, on which pass@k rests, is
    what the task says, unless a function says it: in a dict under "correct", or by a `Score`.

    Args:
      task: The task that has the problems.
      places: "module:function", or several. Among several, "task" is the task's own reward.
      weights: The weight of each reward, by name; a name that is missing has 1. The name of a
        number is its function's, and a dict has a name for each of its numbers.
      limits: The limits of a call.

    Raises:
      ConfigError: A function does not exist or takes other arguments, two rewards have one name, or
        a weight is no number.
    """

    def __init__(
        self,
        task: base.Task,
        places: str | Sequence[str],
        weights: Mapping[str, float] | None = None,
        limits: Limits = Limits(),
    ) -> None:
        places = (places,) if isinstance(places, str) else tuple(places)
        self._task, self._weights, self._limits = task, dict(weights or {}), limits
        self._graded = getattr(task, "graded", True)
        if _OWN in places and not self._graded:
            raise ConfigError(f"reward = {places!r}: this task has no reward of its own")
        self._takes_own = _OWN in places
        self._functions = {place: _function(place) for place in places if place != _OWN}
        _check_names(places)
        for name, weight in self._weights.items():
            if isinstance(weight, bool) or not isinstance(weight, int | float):
                raise ConfigError(f"reward_weights.{name} = {weight!r}: must be a number")
        # A function that gives 0 and 1 alone may say so, for the estimators that need it.
        (first, *more) = self._functions.values() or (None,)
        self.binary_rewards = (
            not (more or self._takes_own or self._weights)
            and getattr(first, "binary_rewards", False) is True
        )

    def split(self, name: str) -> Sequence[base.Problem]:
        """Returns the problems of one split of the task."""
        return self._task.split(name)

    def try_out(self, problem: base.Problem) -> None:
        """Scores one completion, to find what is wrong before a model is loaded.

        Raises:
          RewardError: See `score`.
        """
        self.score([problem], [problem.worked_example or ""])

    def score(
        self, problems: Sequence[base.Problem], completions: Sequence[str]
    ) -> list[base.Score]:
        """Scores each completion by the functions.

        Raises:
          RewardError: A function raised, or returned no reward. An `async def` that raises is only
            tried again. Or nobody said what is correct, or more than `max_lost` have failed.
        """
        base.check_same_length(problems, completions)
        if not problems:
            return []
        own = self._task.score(problems, completions) if self._graded else None
        items = [
            (problem.prompt, completion, _row(problem))
            for problem, completion in zip(problems, completions, strict=True)
        ]
        said = {place: self._run(place, items) for place in self._functions}
        for place, outcomes in said.items():
            self._check(place, outcomes, problems, completions)
        scores = []
        for i, (problem, completion) in enumerate(zip(problems, completions, strict=True)):
            # Without a grader the whole completion is the answer.
            graded = base.Score(0.0, False, completion.strip()) if own is None else own[i]
            scores.append(self._together(problem, graded, [each[i] for each in said.values()]))
        self._check_weights(scores)
        return scores

    def _run(self, place: str, items: Sequence[tuple]) -> list[Outcome]:
        function = self._functions[place]
        if inspect.iscoroutinefunction(function):
            asked = _ask_all(function, name_of(place), items, self._limits)
            return asyncio.run_coroutine_threadsafe(asked, _loop()).result()
        from passk_jax.tasks import pool

        scored = pool.score(
            f"passk_jax.tasks.reward_call:{place}", items, time_limit_s=self._limits.time_limit_s
        )
        return [
            Outcome({}, error=each.error, failed=True, score=each)
            if isinstance(each, base.Score)
            else each
            for each in scored
        ]

    def _check(self, place, outcomes, problems, completions) -> None:
        """Raises if a function has a bug, or failed too often."""
        lost = [i for i, each in enumerate(outcomes) if each.failed]
        bugs = [i for i in lost if outcomes[i].bug]
        where = lambda i: f"problem {problems[i].id!r}, completion {completions[i][:200]!r}"  # noqa: E731
        if bugs:
            i = bugs[0]
            raise RewardError(f"config.task.reward {place!r}, {where(i)}: {outcomes[i].error}")
        if len(lost) > self._limits.max_lost * len(outcomes):
            raise RewardError(
                f"config.task.reward {place!r} failed for {len(lost)} of {len(outcomes)} "
                f"completions; config.task.reward_limits.max_lost = {self._limits.max_lost} is the "
                f"share that is allowed. First: {where(lost[0])}: {outcomes[lost[0]].error}"
            ) from outcomes[lost[0]].cause

    def _together(
        self, problem: base.Problem, own: base.Score, outcomes: Sequence[Outcome]
    ) -> base.Score:
        """Returns the score of one completion, from what the task and the functions said."""
        said = [each.correct for each in outcomes if each.correct is not None]
        answers = [each.final_answer for each in outcomes if each.final_answer is not None]
        answers.append(own.final_answer)
        failed = [
            each.score or base.Score(0.0, False, None, each.error, failed=True)
            for each in outcomes
            if each.failed
        ]
        failed += [own] if own.failed and (self._takes_own or not said) else []
        if not (self._graded or said or failed):
            raise RewardError(
                f"problem {problem.id!r}: the task has no grader, so a function of "
                'config.task.reward must say what is correct: {"correct": True, ...}, or a Score'
            )
        if len(said) > 1:
            raise RewardError(
                f"problem {problem.id!r}: {len(said)} functions of config.task.reward say what is "
                "correct; only one may"
            )
        correct = said[0] if said else own.correct
        if failed:
            return dataclasses.replace(failed[0], correct=correct, final_answer=answers[0])
        pairs = [pair for each in outcomes for pair in each.rewards.items()]
        pairs += [(_OWN, own.reward)] if self._takes_own else []
        repeated = [name for name, n in collections.Counter(n for n, _ in pairs).items() if n > 1]
        if repeated:
            raise RewardError(f"two functions of config.task.reward give a {repeated[0]!r}")
        parts = dict(pairs)
        reward = sum(self._weights.get(name, 1.0) * value for name, value in parts.items())
        errors = [each.error for each in (*outcomes, own) if each.error]
        return base.Score(reward, correct, answers[0], (errors or [None])[0], parts=parts)

    def _check_weights(self, scores: Sequence[base.Score]) -> None:
        """Raises if completions have other rewards than the first, or a weight is of none."""
        parts = [score.parts for score in scores if not score.failed]
        for each in parts:
            if each.keys() != parts[0].keys():
                raise RewardError(
                    f"config.task.reward gave {', '.join(parts[0])} to one completion and "
                    f"{', '.join(each)} to another: each must have the same rewards"
                )
        for name in self._weights if parts else ():
            if name not in parts[0]:
                raise ConfigError(
                    f"config.task.reward_weights.{name}: there is no such reward"
                    f"{did_you_mean(name, parts[0])}; there are: {', '.join(parts[0])}"
                )


def _function(place: str) -> Callable:
    if not isinstance(place, str) or place.count(":") != 1:
        raise ConfigError(f"reward = {place!r}: must be module:function, or {_OWN!r} among several")
    function = named.imported(place, WANTED)
    if not callable(function):
        raise ConfigError(f"reward = {place!r}: must be {WANTED}, not {type(function).__name__}")
    try:
        inspect.signature(function).bind("prompt", "completion", {})
    except TypeError as error:
        raise ConfigError(f"reward = {place!r}: must be {WANTED}: {error}") from None
    return function


def _check_names(places: Sequence[str]) -> None:
    names = [name_of(place) for place in places]
    if not places or names == [_OWN]:
        raise ConfigError(f"reward = {tuple(places)!r}: names no function; None is allowed")
    if len(set(names)) < len(names):
        raise ConfigError(f"reward = {tuple(places)!r}: two rewards have one name")


def _row(problem: base.Problem) -> dict[str, object]:
    if problem.row is not None:
        return dict(problem.row)
    return {"id": problem.id, "reference": problem.reference}


# --- functions that wait ---


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    """The loop of all calls: a client that a function keeps between two batches belongs to it."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="rewards", daemon=True).start()
    return loop


async def _ask_all(
    function: Callable, name: str, items: Sequence[tuple], limits: Limits
) -> list[Outcome]:
    slots = asyncio.Semaphore(limits.concurrency)

    async def ask(item: tuple) -> Outcome:
        async with slots:
            return await _ask(function, name, item, limits)

    return list(await asyncio.gather(*map(ask, items)))


async def _ask(function: Callable, name: str, item: tuple, limits: Limits) -> Outcome:
    late = f"took longer than {limits.time_limit_s:g} s"
    for attempt in range(limits.retries + 1):
        if attempt:
            await asyncio.sleep(min(2.0 ** (attempt - 1), 30.0))
        try:
            async with asyncio.timeout(limits.time_limit_s):
                return outcome(name, await function(*item))
        except Exception as error:
            cause = error
    reason = f"{type(cause).__name__}: {str(cause) or late}"
    error = f"{reason} (tried {limits.retries + 1} times)"
    return Outcome({}, error=error, failed=True, cause=cause)
