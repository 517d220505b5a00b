"""Says whether a config fits a TPU slice, and about how long a step takes, without the TPU.

    python -m passk_jax.plan --config configs/gemma2_2b_math.py --topology v5e:8x16

Compiles the real programs of a step for the slice. If they do not fit, the exit status is 3 and
the smallest change found that makes them fit is printed. `--topology local`: the devices here.
"""

from absl import flags

from passk_jax.errors import ConfigError
from passk_jax.run import command

DOES_NOT_FIT = 3


def main() -> int:
    """Prints the plan, and writes it to --json."""
    import jax

    from passk_jax.planning.step import plan
    from passk_jax.planning.words import describe

    given = flags.FLAGS
    if given.topology != "local":
        jax.config.update("jax_platforms", "cpu")  # a TPU that is here is not asked
    price = given.usd_per_chip_hour
    if price is not None and not 0 <= price < float("inf"):
        raise ConfigError(f"--usd_per_chip_hour = {price}: at least 0 is allowed")
    result = plan(
        given.config,
        given.topology,
        response_tokens=given.response_tokens,
        usd_per_chip_hour=price,
    )
    print(describe(result))
    if given.json:
        command.write_json(given.json, result)
    return 0 if result["fits"] else DOES_NOT_FIT


if __name__ == "__main__":
    command.define_config("configs/gemma2_2b_math.py")
    flags.DEFINE_string("topology", None, "Such as v5e:8x16, or local.")
    flags.DEFINE_integer(
        "response_tokens", None, "Tokens of a step's longest completion, if not all that may be."
    )
    flags.DEFINE_float(
        "usd_per_chip_hour", None, "What a chip costs, if not the list price that is known here."
    )
    flags.DEFINE_string("json", None, "Also write the plan to this file.")
    flags.mark_flag_as_required("topology")
    command.main(main)
