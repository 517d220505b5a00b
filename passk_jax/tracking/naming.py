"""What tells arms apart: their colours, and their names at the curves."""

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
