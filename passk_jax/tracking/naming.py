"""What tells arms apart: their colours, their names at the curves, their configs in words."""

import colorsys
import os
from collections.abc import Sequence

# Any eye can tell these apart, best of all the first two, which are compared most often.
_COLOURS = ("#0072b2", "#d55e00", "#008060", "#8e4b9e", "#b8860b", "#56a0d3", "#a3324b", "#5c6575")
_LONGEST_SHORT = 28


def colours(count: int) -> list[str]:
    """Returns as many colours, all different, each dark enough on white and light enough on black.

    >>> len(set(colours(40)))
    40
    """
    chosen = list(_COLOURS[:count])
    for i in range(count - len(chosen)):  # hues by the golden ratio, at three lightnesses in turn
        rgb = colorsys.hls_to_rgb(i * 0.618034 % 1, (0.32, 0.45, 0.58)[i % 3], 0.6)
        chosen.append("#" + "".join(f"{round(255 * part):02x}" for part in rgb))
    return chosen


def short(labels: Sequence[str]) -> list[str]:
    """Returns labels without the parts that all have in common, short enough to stand at a curve.

    A single label needs none.

    >>> short(["k = 8, name = rloo", "k = 1, name = rloo"])
    ['8', '1']
    >>> short(["of the sums over all training problems", "of the mean"])
    ['1: sums over all training…', 'mean']
    """
    if len(labels) == 1:
        return [""]
    columns = list(zip(*(label.split(", ") for label in labels), strict=False))
    if len({label.count(", ") for label in labels}) > 1:
        columns = [labels]
    kept = []
    for column in columns:
        alike = os.path.commonprefix(column)  # noqa: RUF071 - of characters, whatever they are
        start = max(alike.rfind(" "), alike.rfind("/")) + 1
        if len(set(column)) > 1:
            kept.append([each[start:] or "–" for each in column])
    texts = [", ".join(parts) for parts in zip(*kept, strict=True)] or list(labels)
    return [
        text if len(text) <= _LONGEST_SHORT else f"{i}: {text[: _LONGEST_SHORT - 5].strip()}…"
        for i, text in enumerate(texts, start=1)
    ]


def last_phase(value: object) -> object:
    """Returns the last value of a key that may be ((first step, value), ...).

    >>> last_phase(8), last_phase([[0, 8], [1500, 1]])
    (8, 1)
    """
    return value[-1][1] if is_phases(value) else value


def is_phases(value: object) -> bool:
    """Returns whether a value is ((first step, value), ...)."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(each, list | tuple) and len(each) == 2 for each in value)
    )


def say(value: object) -> str:
    """Returns a config's value in words.

    >>> say(None), say(0.0003), say([[0, 8], [1500, 1]])
    ('None', '0.0003', '8, from step 1500 1')
    """
    if not is_phases(value):
        return str(value)
    first, *later = value
    return ", ".join([str(first[1]), *(f"from step {step} {each}" for step, each in later)])
