"""The samples that a reader of the page can search."""

import collections
import json
from collections.abc import Mapping, Sequence

from passk_jax.errors import printable
from passk_jax.tracking.runs import Arm

# Together, of all runs. A browser opens such a page in a second or two.
_MOST_CHARACTERS = 12_000_000
_LONGEST_TEXT = 20_000
# A byte-level policy writes control characters. The page shows visible symbols for them.
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}


def samples(arms: Sequence[Arm], most: int = _MOST_CHARACTERS) -> str:
    """Returns the samples of all runs as JSON that may stand in a page's script element.

    Args:
      arms: The arms.
      most: The number of characters of JSON, for all runs together. The latest samples of each run
        are kept.

    Returns:
      [{"run": name, "left_out": number of groups, "groups": [[step, split, problem, prompt,
      reference, [[text, times, reward, right, weight], ...]], ...]}, ...]. Equal samples of a group
      are one. The text has no "<": nothing in it can end the element or begin another.
    """
    every = [(arm, run) for arm in arms for run in arm.runs]
    chosen = []
    for arm, run in every:
        name = arm.label + (f", seed {run.config['seed']}" if len(every) > 1 else "")
        groups: list[list] = []
        room = most // len(every)
        for row in reversed(run.samples):
            groups.append(_group(row))
            room -= len(json.dumps(groups[-1]))
            if room < 0:
                groups.pop()
                break
        left_out = len(run.samples) - len(groups)
        chosen.append({"run": name, "left_out": left_out, "groups": groups})
    return json.dumps(chosen).replace("<", "\\u003c")


def shorten(text: str, longest: int = _LONGEST_TEXT) -> str:
    """Returns a text with visible control characters, and at most so many of its characters."""
    if len(text) > longest:
        text = f"{text[:longest]} … ({len(text) - longest} characters more)"
    return printable(text.translate(_VISIBLE))


def _group(row: Mapping) -> list:
    counts = collections.Counter(
        (
            sample["text"],
            sample["reward"],
            sample.get("correct", (sample["reward"] or 0) > 0),
            sample["weight"],
        )
        for sample in row["completions"]
    )
    reference = row.get("reference")
    return [
        row["step"],
        row.get("split", "train"),
        row["problem"],
        shorten(row["prompt"]),
        None if reference is None else shorten(str(reference)),
        [
            [shorten(text), times, reward, right, weight]
            for (text, reward, right, weight), times in counts.most_common()
        ],
    ]
