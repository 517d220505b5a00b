"""Writes the report of runs: one page with its pictures inside, and the pictures as PNG files."""

import base64
import collections
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from passk_jax.tracking import browser, naming, runs, summary
from passk_jax.tracking.browser import shorten

_TEMPLATE = pathlib.Path(__file__).with_name("report.html.jinja")
_SCRIPT = pathlib.Path(__file__).with_name("report.js")
_GROUPS_SHOWN = 4
_SAMPLES_SHOWN = 8
_FLIPS_SHOWN = 4
_LONGEST_TEXT = 600
_FACTS = {
    "task": "task.name",
    "estimator": "estimator.name",
    "k": "estimator.k",
    "problems a step": "prompts_per_step",
    "samples a problem": "samples_per_prompt",
    "held-out split": "evaluation.split",
    "held-out temperature": "evaluation.temperature",
}


def write_report(
    arms: Sequence[runs.Arm], path: str | os.PathLike[str], title: str | None = None
) -> pathlib.Path:
    """Writes the page of one run, or a page that compares runs.

    Args:
      arms: At least one arm, from `runs.read_arms`.
      path: The page's path, a local file. The pictures go into a folder named like the page without
        its suffix.
      title: The page's title. None: a single run's folder, or the number of runs.

    Returns:
      The path of the page.

    Raises:
      ModuleNotFoundError: jinja2 or matplotlib is not installed.
      OSError: A file cannot be written.
    """
    # These take a second to import, which no training step should wait for.
    try:
        import jinja2

        from passk_jax.tracking import figures
    except ModuleNotFoundError as error:
        need = f"the report needs {error.name}: pip install 'passk_jax[report]'"
        raise ModuleNotFoundError(need) from error

    every = [run for arm in arms for run in arm.runs]
    single = len(every) == 1
    if title is None:
        title = arms[0].label if single else f"{_count(arms, 'arm')}, {_count(every, 'run')}"
    path = pathlib.Path(path)
    folder = path.with_suffix("")
    if folder == path:
        folder = path.with_name(f"{path.name}_pictures")
    pictures = figures.draw_all(arms)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True)
    for picture in pictures:
        (folder / f"{picture.name}.png").write_bytes(picture.png)
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["base64"] = lambda png: base64.b64encode(png).decode("ascii")
    environment.filters["say"] = naming.say
    differing = runs.differences(arms)
    flips = [flips for arm in arms for flips in _flips(arm, 1 if len(every) > 1 else 0)]
    groups = _choose_groups(every[0]) if single else []
    samples, left_out = browser.samples(arms)
    page = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        contents={
            "The runs": not single,
            "How the arms differ": differing,
            "Before and after" if len(arms) == 1 else "Final figures": True,
            "Curves": True,
            "From wrong to right": flips,
            "What the policy writes": groups,
            "All samples": True,
            "What the configs have in common" if differing else "Configuration": True,
        },
        samples=samples,
        left_out=left_out,
        script=_SCRIPT.read_text(encoding="utf-8"),
        arms=arms,
        single=single,
        facts=_facts(arms),
        unfinished=[run for run in every if run.unfinished],
        table=[] if single else [_arm_facts(arm) for arm in arms],
        differences=differing,
        summary=summary.summarise(arms),
        pictures=pictures,
        flips=flips,
        groups=groups,
        config={k: v for k, v in every[0].config.items() if k not in differing},
        folder=folder.name,
    )
    partial = path.with_name(f".{path.name}.partial")  # who looks sees a whole page
    partial.write_text(page, encoding="utf-8", errors="replace")
    partial.replace(path)
    return path


def _count(things: Sequence, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _facts(arms: Sequence[runs.Arm]) -> list[tuple[str, str]]:
    """Returns the facts under the title: the settings that all arms have in common."""
    configs = [arm.config for arm in arms]
    facts = [
        (label, naming.say(configs[0][key]))
        for label, key in _FACTS.items()
        if key in configs[0] and all(config.get(key) == configs[0][key] for config in configs)
    ]
    if len(arms) == 1:
        (_, *facts_of_arm) = _arm_facts(arms[0]).items()
        facts += [(name, str(value)) for name, value in facts_of_arm if name != "folders"]
    return facts


def _arm_facts(arm: runs.Arm) -> dict[str, object]:
    """Returns an arm's seeds, its progress and its folders."""
    steps = dict.fromkeys(
        f"{run.step}" if run.step == run.config["steps"] else f"{run.step} of {run.config['steps']}"
        for run in arm.runs
    )
    seconds = [run.table.of("train/step_time_s")[1].sum() for run in arm.runs]
    drawn = sum(run.samples_drawn([run.step])[0] for run in arm.runs) / len(arm.runs)
    each = " each" if len(arm.runs) > 1 else ""
    return {
        "arm": arm,
        "seeds" if each else "seed": ", ".join(str(run.config["seed"]) for run in arm.runs),
        "steps": ", ".join(steps),
        f"samples drawn{each}": f"{drawn:,.0f}",
        f"time in steps{each}": _duration(sum(seconds) / len(seconds)),
        "folders": [run.folder for run in arm.runs],
    }


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


def _flips(arm: runs.Arm, num_open: int) -> Iterator[dict]:
    """Yields for each run the held-out problems whose share of right samples rose most.

    Only problems count whose samples were written at the first and at the last evaluation. Each has
    its most frequent wrong sample from the first and its most frequent right one from the last.
    """
    for place, run in enumerate(arm.runs):
        first, last = (_held_out_groups(run, run.evaluated[end]) for end in (0, -1))
        if len(run.evaluated) < 2 or not first:
            continue
        rises = []
        for problem in first.keys() & last.keys():
            before, after = (each[problem]["completions"] for each in (first, last))
            wrong, right = _most_frequent(before, False), _most_frequent(after, True)
            rise = _share(after) - _share(before)
            if rise > 0 and wrong is not None and right is not None:
                rises.append((rise, problem, before, after, wrong, right))
        rises.sort(key=lambda each: (-each[0], each[1]))
        yield {
            "arm": arm,
            "run": run,
            "open": place < num_open or not num_open,
            "steps": (run.evaluated[0], run.evaluated[-1]),
            "num_logged": len(last),
            "num_risen": len(rises),
            "problems": [
                {
                    "problem": problem,
                    "prompt": _shorten(last[problem]["prompt"]),
                    "before": f"{sum(s['correct'] for s in before)} of {len(before)}",
                    "after": f"{sum(s['correct'] for s in after)} of {len(after)}",
                    "wrong": _shorten(wrong),
                    "right": _shorten(right),
                }
                for _, problem, before, after, wrong, right in rises[:_FLIPS_SHOWN]
            ],
        }


def _held_out_groups(run: runs.Run, step: int) -> dict[str, dict]:
    return {
        row["problem"]: row
        for row in run.samples_at(step)
        if row.get("split") == run.config.get("evaluation.split")
        if "correct" in row["completions"][0]
    }


def _share(samples: Sequence[Mapping]) -> float:
    return sum(sample["correct"] for sample in samples) / len(samples)


def _most_frequent(samples: Sequence[Mapping], correct: bool) -> str | None:
    texts = collections.Counter(s["text"] for s in samples if s["correct"] == correct)
    return texts.most_common(1)[0][0] if texts else None


def _choose_groups(run: runs.Run) -> list[dict]:
    """Picks groups of the last sampled step, those with different rewards first."""
    trained = (row for row in reversed(run.samples) if row.get("split", "train") == "train")
    latest = next(trained, None)
    if latest is None:
        return []
    last = [r for r in run.samples_at(latest["step"]) if r.get("split", "train") == "train"]
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
    """Picks samples of one group, from the best reward to the worst. Equal ones are one line."""
    counts = collections.Counter(
        (sample["text"], sample["reward"], sample["weight"]) for sample in samples
    )
    ranked = sorted(counts, key=lambda key: (key[1] or 0.0, counts[key]), reverse=True)
    # Show both ends: many different right answers would otherwise hide the wrong ones.
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
    return shorten(text, _LONGEST_TEXT)


class ReportProcess:
    """Writes a run's report while it trains, in a process that takes only what training leaves.

    Args:
      folder: The run's folder, local.
      title: The page's title.
    """

    def __init__(self, folder: pathlib.Path, title: str) -> None:
        lowest = (
            "import os, sys; os.nice(19); from passk_jax import report; report.main(sys.argv[1:])"
        )
        self._command = [sys.executable, "-c", lowest, str(folder), "--title", title]
        self._process: subprocess.Popen | None = None

    def write(self) -> None:
        """Begins to write the page, unless it is being written. A failure shows at the end."""
        if self._process is None or self._process.poll() is not None:
            quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
            self._process = subprocess.Popen(self._command, **quiet)

    def close(self) -> None:
        """Gives up a page that is being written."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
