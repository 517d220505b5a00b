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


def samples(arms: Sequence[Arm], most: int = _MOST_CHARACTERS) -> tuple[str, dict[str, int]]:
    """Returns the samples of all runs as JSON that may stand in a page's script element.

    Args:
      arms: The arms.
      most: The number of characters of JSON, for all runs together. The latest samples of each run
        are kept.

    Returns:
      [{"run": name, "left_out": number of groups, "groups": [[step, split, problem, prompt,
      reference, [[text, times, reward, right, weight], ...]], ...]}, ...]. Equal samples of a group
      are one. The text has no "<": nothing in it can end the element or begin another. And the
      number of groups that are left out of each run, where there are any.
    """
    every = [(arm, run) for arm in arms for run in arm.runs]
    chosen, left_out = [], {}
    for arm, run in every:
        name = arm.label + (f", seed {run.config['seed']}" if len(every) > 1 else "")
        groups: list[str] = []  # each as JSON: the objects would take ten times the room
        room = most // len(every)
        for row in reversed(run.samples):
            group = json.dumps(_group(row))
            room -= len(group)
            if room < 0:
                break
            groups.append(group)
        left_out[name] = len(run.samples) - len(groups)
        head = json.dumps({"run": name, "left_out": left_out[name]})
        chosen.append(f'{head[:-1]}, "groups": [{", ".join(groups)}]}}')
    text = f"[{', '.join(chosen)}]".replace("<", "\\u003c")
    return text, {name: count for name, count in left_out.items() if count}


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
