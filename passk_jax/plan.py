"""Says whether a config fits a TPU slice, and about how long a step takes, without the TPU.

    python -m passk_jax.plan --config configs/gemma2_2b_math.py --topology v5e:8x16

Compiles the real programs of a step for the slice. If they do not fit, the exit status is 3 and
the smallest change found that makes them fit is printed. `--topology local`: the devices here.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

import jax
from absl import app, flags
from ml_collections import config_flags

from passk_jax import command_line
from passk_jax.planning.step import plan
from passk_jax.planning.words import describe

DOES_NOT_FIT = 3


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    if _TOPOLOGY.value != "local":
        jax.config.update("jax_platforms", "cpu")  # a TPU that is here is not asked
    try:
        result = plan(_CONFIG.value, _TOPOLOGY.value, response_tokens=_RESPONSE_TOKENS.value)
    except (ValueError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(describe(result))
    if _JSON.value:
        pathlib.Path(_JSON.value).write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["fits"] else DOES_NOT_FIT


if __name__ == "__main__":
    _CONFIG = config_flags.DEFINE_config_file("config", None, "E.g. configs/gemma2_2b_math.py.")
    _TOPOLOGY = flags.DEFINE_string("topology", None, "Such as v5e:8x16, or local.")
    _RESPONSE_TOKENS = flags.DEFINE_integer(
        "response_tokens", None, "Of a step's longest completion; by default all that are allowed."
    )
    _JSON = flags.DEFINE_string("json", None, "Also write the figures to this file.")
    flags.mark_flags_as_required(["config", "topology"])
    app.run(main, flags_parser=command_line.parse)
