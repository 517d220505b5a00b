"""Shows the progress of a run: a bar in a terminal, plain lines elsewhere."""

import sys
import types
from collections.abc import Mapping
from typing import TextIO

from passk_jax.tracking import metrics
from passk_jax.tracking.summary import SOLVE_RATE


class Progress:
    """Shows the most important metrics: pass@1, the largest pass@k, problems solved.

    In a terminal it is a bar. In a log file, where a bar would leave thousands of lines, it is one
    line every `plain_every` steps and one at the last step. Held-out figures have their own.

    Args:
      total: The run's last step.
      initial: The step that a resumed run starts from.
      name: What is counted, "step" or "warm start".
      plain_every: The number of steps between plain lines. None: about twenty lines in a run.
      stream: The output stream. None: stderr.
    """

    def __init__(
        self,
        total: int,
        *,
        initial: int = 0,
        name: str = "step",
        plain_every: int | None = None,
        stream: TextIO | None = None,
    ) -> None:
        self._total, self._name = total, name
        self._stream = sys.stderr if stream is None else stream
        self._plain_every = max(1, total // 20) if plain_every is None else plain_every
        self._bar = None
        if self._stream.isatty():
            import tqdm  # not at the top: a machine with only JAX can train without it

            self._bar = tqdm.tqdm(
                total=total, initial=initial, file=self._stream, desc=name, dynamic_ncols=True
            )

    def update(self, step: int, row: Mapping[str, object]) -> None:
        """Shows that `step` is done, with the metrics of its row."""
        text = main_metrics(row)
        if held_out := _pass_at_k(row, "eval"):
            self.note(f"{self._name} {step}/{self._total}: held-out {_in_words(held_out)}")
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
        elif text and (step % self._plain_every == 0 or step == self._total):
            self.note(f"{self._name} {step}/{self._total}: {text}")

    def note(self, text: str) -> None:
        """Writes a separate line, above the bar if there is one."""
        if self._bar is None:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.write(text, file=self._stream)

    def close(self) -> None:
        """Ends the bar's line and leaves the bar visible."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()


def main_metrics(row: Mapping[str, object]) -> str:
    """Returns a row's most important metrics as a short text.

    >>> row = {"train/pass@1_n16": 0.4, "train/pass@4_n16": 0.62, "train/pass@16_n16": 0.81}
    >>> main_metrics({**row, "train/cumulative_solve_rate": 0.5, "train/step_time_s": 0.3})
    'pass@1 0.400, pass@16 0.810, solved 0.500, 0.30 s/step'
    """
    shown = _pass_at_k(row, "train")
    shown |= {"solved": row.get(SOLVE_RATE), "loss": row.get("warm_start/loss")}
    words = [_in_words(shown)]
    if row.get("train/step_time_s") is not None:
        words.append(f"{row['train/step_time_s']:.2f} s/step")
    return ", ".join(filter(None, words))


def _pass_at_k(row: Mapping[str, object], prefix: str) -> dict[str, float]:
    by_k = metrics.pass_at_k_by_k(row, prefix)
    return {f"pass@{k}": by_k[k][1] for k in (min(by_k), max(by_k))} if by_k else {}


def _in_words(figures: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None)
