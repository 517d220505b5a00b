"""What a run trained, in the files of other tools."""

import pathlib

import jax
import orbax.checkpoint as ocp
from etils import epath

from passk_jax.errors import CheckpointError, ConfigError
from passk_jax.policy import params as params_lib
from passk_jax.policy.lora import merged
from passk_jax.run import workdir
from passk_jax.run.parts import build
from passk_jax.run.state import restore_variables

FORMATS = ("huggingface", "gemma", "orbax")
DTYPES = ("float32", "bfloat16")
LORA = ("merge", "keep")
# Beside the tokenizer's own file, what transformers wants to know of it.
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def export(
    directory: epath.Path,
    out: pathlib.Path,
    *,
    file_format: str,
    dtype: str = "bfloat16",
    lora: str = "merge",
    trust: bool = False,
    checkpoint: str = "latest",
) -> int:
    """Writes the parameters of a run's checkpoint.

    Args:
      directory: the run's folder.
      out: a new folder.
      file_format: "huggingface": safetensors, config.json and the tokenizer's files; "gemma": what
        `gemma.gm.ckpts.load_params` reads, of a Gemma 2; "orbax": this package's own tree.
      dtype: of the parameters that are written; training keeps them in float32.
      lora: of a run with LoRA, "merge": the model that it makes; "keep": as the PEFT package reads
        it, to be added to the model that the run began with (format "huggingface" only).
      trust: whether what the folder's config names may be executed.
      checkpoint: "latest", "best" (see `config.keep_best`), or a training step.

    Returns:
      The step that they are of.

    Raises:
      ConfigError: an argument is not allowed, or the folder holds no run or no checkpoint.
      CheckpointError: no checkpoint can be read, or the folder exists or cannot be written, or the
        format has no such model.
    """
    for name, value, allowed in (
        ("format", file_format, FORMATS),
        ("dtype", dtype, DTYPES),
        ("lora", lora, LORA),
    ):
        if value not in allowed:
            raise ConfigError(f"--{name} = {value!r}: allowed are {', '.join(allowed)}")
    if lora == "keep" and file_format != "huggingface":
        raise ConfigError(f"--lora = 'keep', --format = {file_format!r}: only huggingface has it")
    if out.exists():
        raise CheckpointError(f"{out} exists already: name a new folder")
    # Whatever devices are here: the parameters are the same.
    config = workdir.load_config(directory, mesh=(1, 1, -1), trust=trust)
    if lora == "keep" and config.lora.rank is None:
        raise ConfigError(
            f"--lora = 'keep': {directory} is a run without LoRA (config.lora.rank = None); merge "
            "is allowed"
        )
    parts = build(config, estimator=False)
    step, variables = restore_variables(parts, directory, checkpoint)
    decoder, tokenizer = parts.decoder.config, parts.tokenizer
    if lora == "keep":
        matrices = jax.tree.map(lambda x: x.astype(dtype), variables["lora"])
        params_lib.save_peft(out, matrices, decoder, config.init_from)
        return step
    params = jax.jit(merged, static_argnums=2)(variables, decoder.lora_scale, dtype)
    if file_format == "gemma":
        params_lib.save_gemma(out, params, decoder)
    elif file_format == "orbax":
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(out.absolute(), {"params": params})
    else:
        limits = config.sampling
        settings = {
            "eos_token_id": list(tokenizer.stop_ids),
            "pad_token_id": tokenizer.pad_id,
            "bos_token_id": tokenizer.bos_id,
            "max_position_embeddings": max(
                8192, limits.max_prompt_tokens + limits.max_response_tokens
            ),
        }
        params_lib.save_huggingface(out, params, decoder, settings)
        _copy_tokenizer(config.tokenizer.path, out)
    return step


def _copy_tokenizer(path: str | None, out: pathlib.Path) -> None:
    """Puts the tokenizer's files beside the model; the byte tokenizer has none."""
    if path is None:
        return
    folder = pathlib.Path(path)
    folder = folder if folder.is_dir() else folder.parent
    for name in _TOKENIZER_FILES:
        if (folder / name).is_file():
            (out / name).write_bytes((folder / name).read_bytes())
