"""Says whether a config fits a TPU slice, and about how long a step takes, without the TPU.

    python -m passk_jax.plan --config configs/gemma2_2b_math.py --topology v5e:8x16

Compiles the real programs of a step for the slice. If they do not fit, the exit status is 3 and
the smallest change found that makes them fit is printed. `--topology local`: the devices here.
`--search=4` looks for the meshes, batches and layouts that draw the most samples per chip-second.
"""

from absl import flags

from passk_jax.errors import ConfigError
from passk_jax.planning import chips
from passk_jax.run import command

DOES_NOT_FIT = 3


def main() -> int:
    """Prints the plan, or those of a search, and writes it to --json."""
    import jax

    from passk_jax.planning.calibration import measured
    from passk_jax.planning.search import search
    from passk_jax.planning.step import plan
    from passk_jax.planning.words import describe, describe_search

    given = flags.FLAGS
    if given.topology != "local":
        jax.config.update("jax_platforms", "cpu")  # a TPU that is here is not asked
    price = given.usd_per_chip_hour
    if price is not None and not 0 <= price < float("inf"):
        raise ConfigError(f"--usd_per_chip_hour = {price}: at least 0 is allowed")
    if not 0 <= given.instruction_us < float("inf"):
        raise ConfigError(f"--instruction_us = {given.instruction_us}: at least 0 is allowed")
    instruction_s = given.instruction_us * 1e-6
    options = {
        "response_tokens": given.response_tokens,
        "usd_per_chip_hour": price,
        "instruction_s": instruction_s,
    }
    if given.calibrate and given.config.pipeline:
        raise ConfigError(
            "--calibrate: with config.pipeline = 1 a step's sampling_time_s is not the time of "
            "sampling, but how long it waited for its samples; 0 is allowed"
        )
    if given.search is not None:
        if given.calibrate:
            raise ConfigError("--search and --calibrate: a run is compared with one plan")
        result = search(given.config, given.topology, given.search, **options)
        print(describe_search(result))
        fits = any(one["fits"] for one in result["found"])
    else:
        result = plan(given.config, given.topology, **options)
        if given.calibrate:
            result["measured"] = measured(result, given.calibrate, instruction_s)
        print(describe(result))
        fits = result["fits"]
    if given.json:
        command.write_json(given.json, result)
    return 0 if fits else DOES_NOT_FIT


if __name__ == "__main__":
    command.define_config("configs/gemma2_2b_math.py")
    flags.DEFINE_string("topology", None, "Such as v5e:8x16, or local.")
    flags.DEFINE_integer(
        "response_tokens", None, "Tokens of a step's longest completion, if not all that may be."
    )
    flags.DEFINE_float(
        "usd_per_chip_hour", None, "What a chip costs, if not the list price that is known here."
    )
    flags.DEFINE_float(
        "instruction_us", 1e6 * chips.INSTRUCTION_S, "What an instruction takes beside its work."
    )
    flags.DEFINE_string(
        "calibrate", None, "metrics.jsonl of a run of this config there: finds --instruction_us."
    )
    flags.DEFINE_integer(
        "search", None, "Compile so many other meshes and batches, the best that are estimated."
    )
    flags.DEFINE_string("json", None, "Also write the plan to this file.")
    flags.mark_flag_as_required("topology")
    command.main(main)
