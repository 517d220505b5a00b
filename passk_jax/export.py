"""Writes what a run trained, as other tools read it.

python -m passk_jax.export --workdir runs/x --format huggingface --out gemma2-trained
"""

import pathlib

from absl import flags

from passk_jax.run import command


def main() -> None:
    """Writes the folder, and says which step it is of."""
    from passk_jax.run.export import export

    given = flags.FLAGS
    step = export(
        command.run_folder(),
        pathlib.Path(given.out),
        file_format=given.format,
        dtype=given.dtype,
        lora=given.lora,
        trust=given.trust_config,
        checkpoint=given.checkpoint,
    )
    print(f"the policy of step {step}: {given.out}")


if __name__ == "__main__":
    command.define_workdir()
    command.define_checkpoint()
    flags.DEFINE_string("out", None, "A new folder.", required=True)
    flags.DEFINE_string("format", "huggingface", "One of huggingface, gemma, orbax.")
    flags.DEFINE_string("lora", "merge", "With LoRA: merge it, or keep it apart (PEFT's form).")
    flags.DEFINE_string("dtype", "bfloat16", "One of float32, bfloat16.")
    command.main(main)
