"""What an instruction takes beside its work, from the seconds of a real run."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from passk_jax.errors import ConfigError
from passk_jax.tracking import rows
from passk_jax.tracking.series import Table


def measured(result: Mapping[str, Any], path: str | os.PathLike[str], instruction_s: float) -> dict:
    """Compares a plan with a run of the same config on the same slice.

    Sampling has many small instructions, and nothing else is as uncertain in its plan. So what it
    took longer than planned, divided by its instructions, is what each of them takes.

    Args:
      result: The plan, with completions as long as the run's longest ones.
      path: The run's metrics.jsonl.
      instruction_s: What the plan takes an instruction for, in seconds.

    Returns:
      Medians over the steps, `sampling_s` and `update_s`, and `instruction_us`, at least 0.

    Raises:
      ConfigError: The plan has no seconds, or the file none of a step.
    """
    if "step_with_overheads_s" not in result:
        raise ConfigError("--calibrate needs a plan that fits a slice of TPUs: --topology=v5e:4x4")
    try:
        table = Table(rows.each_row(path), str(path))
    except ValueError as error:
        raise ConfigError(f"--calibrate = {error}") from error
    names = ("sampling_time_s", "update_time_s")
    seconds = [table.of(f"train/{name}")[1] for name in names]
    if not all(map(len, seconds)):
        raise ConfigError(f"--calibrate = {path}: no row has train/{' and train/'.join(names)}")
    sampling, update = (float(np.median(each)) for each in seconds)
    phase = result["phases"]["sampling"]
    more = (sampling - phase["with_overheads_s"]) / phase["instructions"]
    return {
        "sampling_s": sampling,
        "update_s": update,
        "instruction_us": 1e6 * max(0.0, instruction_s + more),
    }
