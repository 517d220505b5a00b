"""Known sets of questions with answers: where they are, and which of their columns says what."""

from collections.abc import Mapping
from typing import NamedTuple

_HUB = "hf://datasets/"
_PROBLEM = {"question": "problem", "answer": "answer"}


class KnownSet(NamedTuple):
    """A published set.

    Attributes:
      train: Its training file or files, or None.
      test: Its test file or files, or None.
      options: The options of `qa.Qa` that fit its files.
    """

    train: str | None
    test: str | None
    options: Mapping[str, object]


SETS = {
    # Cobbe et al. 2021, arXiv 2110.14168. The answer is a solution that ends in "#### 72", with
    # the calculator's marks <<48/2=24>> in it.
    "gsm8k": KnownSet(
        _HUB + "openai/gsm8k/main/train-*.parquet",
        _HUB + "openai/gsm8k/main/test-*.parquet",
        {"solution": "answer", "answer_after": "####", "remove": "<<[^<>]*>>"},
    ),
    # PRM800K's split of MATH, which `python -m passk_jax.tasks.download math math-train` fetches.
    # Four of its rows have no answer.
    "math": KnownSet(
        "math/train.jsonl",
        "math/test.jsonl",
        {**_PROBLEM, "solution": "solution", "id": "unique_id", "bad_answers": "drop"},
    ),
    "math500": KnownSet(
        None,
        _HUB + "HuggingFaceH4/MATH-500/test.jsonl",
        {**_PROBLEM, "solution": "solution", "id": "unique_id"},
    ),
    "aime24": KnownSet(
        None, _HUB + "HuggingFaceH4/aime_2024/data/train-*.parquet", {**_PROBLEM, "id": "id"}
    ),
    "aime25": KnownSet(None, _HUB + "math-ai/aime25/test.jsonl", {**_PROBLEM, "id": "id"}),
    # arXiv 2503.21380: easy and hard, in English.
    "olymmath": KnownSet(
        None,
        _HUB + "RUC-AIBOX/OlymMATH/data/OlymMATH-EN-*.jsonl",
        {**_PROBLEM, "id": "unique_id"},
    ),
    # arXiv 2503.14476. Its questions say how to answer, and each is there a hundred times.
    "dapo17k": KnownSet(
        _HUB + "BytedTsinghua-SIA/DAPO-Math-17k/data/dapo-math-17k.parquet",
        None,
        {
            "question": "prompt.0.content",
            "answer": "reward_model.ground_truth",
            "prompt": "{question}\n",
        },
    ),
    # arXiv 2501.14275, as PKR takes it: the problems whose solution has a box.
    "aops": KnownSet(
        _HUB + "DeepStudentLlama/AoPS-Instruct@refs/convert/parquet/default/train/*.parquet",
        None,
        {
            "question": "messages.0.content",
            "answer": "messages.1.content",
            "solution": "messages.1.content",
            "answer_after": "\\boxed",
            "bad_answers": "drop",
        },
    ),
    # arXiv 2410.01560. Several solutions of one problem are there: the first one counts.
    "openmath_instruct2": KnownSet(
        _HUB + "nvidia/OpenMathInstruct-2/data/train_1M-*.parquet",
        None,
        {
            "question": "problem",
            "answer": "expected_answer",
            "solution": "generated_solution",
            "bad_answers": "drop",
        },
    ),
}
