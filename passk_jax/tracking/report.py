"""A run on one page: report.html, with its pictures inside, and the pictures as PNG files."""

import base64
import collections
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from passk_jax.tracking import summary, writers

_TEMPLATE = pathlib.Path(__file__).with_name("report.html.jinja")
_GROUPS_SHOWN = 4
_SAMPLES_SHOWN = 8
_LONGEST_TEXT = 600
# A byte-level policy writes control characters: they are shown, and not sent to the browser.
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {127: 0x2421}


def write_report(workdir: str | os.PathLike[str], title: str | None = None) -> pathlib.Path:
    """Writes workdir/report.html and workdir/report/*.png from what the run has written so far.

    Reads metrics.jsonl and, where they are there, config.json (a dictionary, nested or flat) and
    samples.jsonl. It may be called at any time, also for a run that was stopped half-way.

    Args:
        workdir: a local folder.
        title: of the page; None for the folder's name.

    Returns:
        The path of the page.

    Raises:
        ValueError: there are no metrics, or a file is damaged; the message names it.
        OSError: a file cannot be written.
    """
    # These take a second to import, which no training step should wait for.
    import jinja2

    from passk_jax.tracking import figures

    workdir = pathlib.Path(workdir)
    rows = writers.read_rows(workdir / "metrics.jsonl")
    if not rows:
        raise ValueError(f"nothing to report: {workdir / 'metrics.jsonl'} has no rows")
    config = dict(_flatten(_read_config(workdir / "config.json")))
    pictures = figures.draw_all(rows)
    folder = workdir / "report"
    folder.mkdir(exist_ok=True)
    for picture in pictures:
        (folder / f"{picture.name}.png").write_bytes(picture.png)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["base64"] = lambda png: base64.b64encode(png).decode("ascii")
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=workdir.resolve().name if title is None else title,
        facts=_facts(rows, config),
        summary=summary.summarise(rows),
        pictures=pictures,
        groups=_choose_groups(writers.read_rows(workdir / "samples.jsonl")),
        config=config,
    )
    path = workdir / "report.html"
    path.write_text(page, encoding="utf-8", errors="replace")
    return path


def _read_config(path: pathlib.Path) -> Mapping:
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path}: not a JSON object")
    return config


def _flatten(config: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yields a nested dictionary's values under dotted keys; an empty one is a value.

    >>> dict(_flatten({"a": {"b": {"c": 1}, "d": {}}, "e": None}))
    {'a.b.c': 1, 'a.d': {}, 'e': None}
    """
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _facts(rows: Sequence[Mapping], config: Mapping) -> list[tuple[str, str]]:
    """Returns the few words under the title: what was trained, how, how far."""
    facts = [
        (label, str(config[key]))
        for label, key in [
            ("task", "task.name"),
            ("estimator", "estimator.name"),
            ("k", "estimator.k"),
            ("problems a step", "prompts_per_step"),
            ("samples a problem", "samples_per_prompt"),
            ("seed", "seed"),
        ]
        if key in config
    ]
    done = rows[-1]["step"]
    steps = config.get("steps", done)
    facts.append(("steps", str(done) if steps == done else f"{done} of {steps}"))
    seconds = sum(row.get("train/step_time_s") or 0.0 for row in rows)
    if seconds:
        facts.append(("time in steps", _duration(seconds)))
    return facts


def _duration(seconds: float) -> str:
    """Returns a duration in its two largest units.

    >>> [_duration(seconds) for seconds in (0.4, 59.7, 61, 3599.9, 3725)]
    ['0 s', '1 min 0 s', '1 min 1 s', '1 h 0 min', '1 h 2 min']
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _choose_groups(rows: Sequence[Mapping]) -> list[dict]:
    """Picks groups of the last sampled step for the page, those with both outcomes first."""
    if not rows:
        return []
    last = [row for row in rows if row["step"] == rows[-1]["step"]]
    last.sort(key=lambda row: len({sample["reward"] for sample in row["completions"]}) < 2)
    return [
        {
            "step": row["step"],
            "problem": row["problem"],
            "prompt": _shorten(row["prompt"]),
            "reference": row.get("reference"),
            "num_samples": len(row["completions"]),
            **_choose_samples(row["completions"]),
        }
        for row in last[:_GROUPS_SHOWN]
    ]


def _choose_samples(samples: Sequence[Mapping]) -> dict:
    """Picks samples of one group, from the best reward to the worst, equal ones as one line."""
    counts = collections.Counter(
        (sample["text"], sample["reward"], sample["weight"]) for sample in samples
    )
    ranked = sorted(counts, key=lambda key: (key[1] or 0.0, counts[key]), reverse=True)
    # Both ends: with only the best, a group of many different right answers would hide the wrong.
    half = _SAMPLES_SHOWN // 2
    shown = ranked[:half] + ranked[half:][-half:]
    return {
        "samples": [
            {"text": _shorten(text), "reward": reward, "weight": weight, "count": counts[key]}
            for key in shown
            for text, reward, weight in [key]
        ],
        "num_hidden": len(samples) - sum(counts[key] for key in shown),
    }


def _shorten(text: str) -> str:
    if len(text) > _LONGEST_TEXT:
        text = f"{text[:_LONGEST_TEXT]} … ({len(text) - _LONGEST_TEXT} characters more)"
    return text.translate(_VISIBLE)
