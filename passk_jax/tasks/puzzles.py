"""The puzzles of reasoning-gym: generators with verifiers, each one a task."""

import hashlib
import importlib.metadata
import pickle
from collections.abc import Mapping, Sequence

from passk_jax.errors import ConfigError
from passk_jax.tasks import base, puzzle_generation

REWARDS = ("all", "share")
# The supported verifiers of this version were read. Another version may draw other puzzles.
VERSION = "0.1.25"
MAX_ANSWER_CHARACTERS = 50_000

_INSTRUCTION = "Give the final answer, and nothing else, between <answer> and </answer>."
# Each seed has its own million item numbers. The library adds its seed to them, and one of its
# generators needs the sum to be below 2**32.
_ITEMS_PER_SEED = 10**6
_MAX_SEED = 2**32 // _ITEMS_PER_SEED - 1
_FREE_ATTEMPTS, _ATTEMPTS_PER_PUZZLE = 1_000, 5
_BATCH = 50  # items requested at once


class Puzzles:
    """One dataset of reasoning-gym, an optional dependency.

    The prompt is the library's question and a line that asks for the answer in tags. No prompt
    appears twice, neither within a split nor in two splits. The puzzles are a pure function of the
    dataset, its parameters and the seed; the splits also depend on their three numbers. Test comes
    first, so that a larger train split does not change the held-out puzzles. A split is drawn at
    its first use, together with the splits before it. One puzzle takes a millisecond with most
    generators, and half a second with a few.

    The reward is 1.0 if the text in the last pair of answer tags solves the puzzle, else 0.0.
    Worker processes compute it with `puzzle_grading.grade`.

    Args:
      dataset: The library's name of the dataset, such as "knights_knaves".
      num_train: The number of puzzles in the train split.
      num_validation: The number of puzzles in the validation split.
      num_test: The number of puzzles in the test split.
      seed: The seed of the draw.
      reward: "all", or "share": a wrong answer earns the library's partial score, which is below
        1.0. In some datasets any answer of the right form earns a little.
      time_limit_s: Seconds of processor time for grading one completion.
      template: The chat template of the prompt, see `base.render`. None: the plain text.
      **parameters: The dataset's parameters, as the library's configuration names them.

    Attributes:
      binary_rewards: Whether `reward` is "all".

    Raises:
      ImportError: reasoning-gym is missing, or its version is not `VERSION`.
      ConfigError: An option is out of range, the dataset or a parameter is unknown, or the library
        refuses the parameter's value.
    """

    def __init__(
        self,
        dataset: str,
        *,
        num_train: int = 1000,
        num_validation: int = 100,
        num_test: int = 100,
        seed: int = 0,
        reward: str = "all",
        time_limit_s: float = 5.0,
        template: str | None = None,
        **parameters: object,
    ) -> None:
        counts = {"num_train": num_train, "num_validation": num_validation, "num_test": num_test}
        for option, value in [("seed", seed), *counts.items()]:
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ConfigError(f"{option} must be an integer >= 0, got {value!r}")
        if seed > _MAX_SEED:
            raise ConfigError(f"seed must be at most {_MAX_SEED}, got {seed}")
        if reward not in REWARDS:
            raise ConfigError(f"unknown reward {reward!r}; allowed: {', '.join(REWARDS)}")
        if not time_limit_s > 0:
            raise ConfigError(f"time_limit_s must be positive, got {time_limit_s!r}")
        base.render(template, "")
        _check_installed()
        parameters = {name: _plain(value) for name, value in parameters.items()}
        puzzle_generation.ask("check", dataset, parameters)
        self.binary_rewards = reward == "all"
        self._dataset = dataset
        self._parameters = pickle.dumps(parameters)
        self._time_limit_s = time_limit_s
        self._template = template
        held_out = num_test + num_validation
        self._places = {
            "test": slice(0, num_test),
            "validation": slice(num_test, held_out),
            "train": slice(held_out, held_out + num_train),
        }
        self._first_item = self._next_item = seed * _ITEMS_PER_SEED
        self._drawn: dict[str, base.Problem] = {}

    def split(self, name: str) -> Sequence[base.Problem]:
        """Returns the puzzles of one split.

        Raises:
          ConfigError: The generator does not give enough different puzzles.
        """
        base.check_split(name)
        place = self._places[name]
        self._draw(place.stop)
        return tuple(self._drawn.values())[place]

    def _draw(self, count: int) -> None:
        """Draws until there are `count` different puzzles."""
        attempts = min(_FREE_ATTEMPTS + _ATTEMPTS_PER_PUZZLE * count, _ITEMS_PER_SEED)
        failures = []
        while len(self._drawn) < count:
            made = self._next_item - self._first_item
            wanted = min(count - len(self._drawn), attempts - made, _BATCH)
            if wanted <= 0 or len(failures) > _BATCH + len(self._drawn):
                failed = f" ({len(failures)} draws failed: {failures[-1]})" if failures else ""
                raise ConfigError(
                    f"{count} different puzzles of puzzles/{self._dataset} were requested, but "
                    f"{made} draws gave only {len(self._drawn)}; ask for fewer, or for other "
                    f"parameters{failed}"
                )
            items = puzzle_generation.ask(
                "items", self._dataset, self._parameters, self._next_item, wanted
            )
            self._next_item += wanted
            for item in items:
                if isinstance(item, str):
                    failures.append(item)
                else:
                    self._drawn.setdefault(item.question, self._problem(item))

    def _problem(self, item: puzzle_generation.Item) -> base.Problem:
        solved = item.answer is not None and len(item.answer) <= MAX_ANSWER_CHARACTERS
        digest = hashlib.sha256(item.question.encode()).hexdigest()[:16]
        return base.Problem(
            id=f"puzzles/{self._dataset}/{digest}",
            prompt=base.render(self._template, f"{item.question.rstrip()}\n\n{_INSTRUCTION}\n"),
            reference=item.entry,
            worked_example=f"<answer>{item.answer}</answer>" if solved else None,
        )

    def score(
        self, problems: Sequence[base.Problem], completions: Sequence[str]
    ) -> list[base.Score]:
        """Rewards each completion with 1.0 if its answer solves the puzzle, else with less."""
        base.check_same_length(problems, completions)
        from passk_jax.tasks import pool

        answers = [read_answer(completion) for completion in completions]
        graded = iter(
            pool.score(
                "passk_jax.tasks.puzzle_grading:grade",
                [
                    (
                        self._dataset,
                        self._parameters,
                        problem.reference,
                        answer,
                        not self.binary_rewards,
                    )
                    for problem, (answer, error) in zip(problems, answers, strict=True)
                    if error is None
                ],
                time_limit_s=self._time_limit_s,
            )
        )
        return [
            next(graded) if error is None else base.Score(0.0, False, None, error)
            for _, error in answers
        ]


def read_answer(completion: str) -> tuple[str | None, str | None]:
    """Returns (the answer of a completion, None), or (None, the error)."""
    answer = base.last_tagged(completion)
    if answer is None:
        return None, "no <answer>...</answer> in the completion"
    answer = answer.strip()
    if len(answer) > MAX_ANSWER_CHARACTERS:
        return None, f"the answer is longer than {MAX_ANSWER_CHARACTERS} characters"
    return answer, None


def _check_installed() -> None:
    try:
        version = importlib.metadata.version("reasoning-gym")
    except importlib.metadata.PackageNotFoundError:
        version = "missing"
    if version != VERSION:
        raise ConfigError(
            f"puzzles need reasoning-gym {VERSION}; the installed version is {version}: "
            "pip install 'passk_jax[puzzles]'"
        )


def _plain(value: object) -> object:
    """Converts a config's value to Python's own types, which every process can unpickle."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value
