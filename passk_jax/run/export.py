"""What a run trained, in the files of other tools."""

import json
import logging
import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from ml_collections import ConfigDict

from passk_jax import hub, tracking
from passk_jax.errors import CheckpointError, ConfigError
from passk_jax.policy import params as params_lib
from passk_jax.policy.lora import merged
from passk_jax.policy.tokenizer import Tokenizer, end_ids
from passk_jax.run import checks, record, workdir
from passk_jax.run.parts import build
from passk_jax.run.state import restore_variables

_logger = logging.getLogger(__name__)

FORMATS = ("huggingface", "gemma", "orbax")
DTYPES = ("float32", "bfloat16")
LORA = ("merge", "keep")
# The tokenizer's own file, and what other tools want to know of it.
_TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("chat_template.jinja", "chat_template.json"),
)


def export(
    directory: epath.Path,
    out: pathlib.Path,
    *,
    file_format: str,
    dtype: str = "bfloat16",
    lora: str = "merge",
    trust: bool = False,
    checkpoint: str = "latest",
    max_shard_bytes: int = 5 * 10**9,
) -> int:
    """Writes the parameters of a run's checkpoint.

    Args:
      directory: the run's folder.
      out: a new folder.
      file_format: "huggingface": safetensors, config.json, generation_config.json, the tokenizer's
        files with its chat template, and a model card; "gemma": what
        `gemma.gm.ckpts.load_params` reads, of a Gemma 2; "orbax": this package's own tree.
      dtype: of the parameters that are written; training keeps them in float32.
      lora: of a run with LoRA, "merge": the model that it makes; "keep": as the PEFT package reads
        it, to be added to the model that the run began with (format "huggingface" only).
      trust: whether what the folder's config names may be executed.
      checkpoint: "latest", "best" (see `config.keep_best`), or a training step.
      max_shard_bytes: the largest size of one file of format "huggingface".

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
    parts = build(config, trains=False)
    step, variables = restore_variables(parts, directory, checkpoint)
    decoder, tokenizer = parts.decoder.config, parts.tokenizer
    if lora == "keep":
        matrices = jax.tree.map(lambda x: x.astype(dtype), variables["lora"])
        base = None if config.init_from is None else hub.name(config.init_from)
        params_lib.save_peft(out, matrices, decoder, base)
        return step
    params = jax.jit(merged, static_argnums=2)(variables, decoder.lora_scale, dtype)
    if file_format == "gemma":
        params_lib.save_gemma(out, params, decoder)
    elif file_format == "orbax":
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(out.absolute(), {"params": params})
    else:
        came_in = _came_in(config.init_from)
        ends = _ends(tokenizer, came_in)
        settings = ends | _longest(config, came_in)
        params_lib.save_huggingface(out, params, decoder, settings, max_shard_bytes)
        generation = json.dumps(came_in["generation"] | ends, indent=2) + "\n"
        (out / "generation_config.json").write_text(generation)
        _copy_tokenizer(config.tokenizer.path, out)
        (out / "README.md").write_text(_card(out.name, directory, config, step))
    return step


def _came_in(init_from: str | None) -> dict[str, dict[str, Any]]:
    """Returns config.json and generation_config.json of the folder that the run began with."""
    found = {"config": {}, "generation": {}}
    if init_from is None:
        return found
    try:
        folder = epath.Path(hub.local(init_from, weights=False))
        checks.check_init_from(str(folder))
    except ConfigError as error:
        _logger.warning(
            "generation_config.json and the longest text are not carried over: %s", error
        )
        return found
    for name, file in (("config", "config.json"), ("generation", "generation_config.json")):
        if (folder / file).exists():
            found[name] = record.read_json(folder / file)
    found["config"] = found["config"].get("text_config", {}) | found["config"]
    return found if "model_type" in found["config"] else {"config": {}, "generation": {}}


def _ends(tokenizer: Tokenizer, came_in: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Returns the tokens that end, fill and begin a text: the folder's, and those of the run."""
    ends = end_ids(came_in["config"] | came_in["generation"])
    return {
        "eos_token_id": list(dict.fromkeys([*ends, *tokenizer.stop_ids])),
        "pad_token_id": tokenizer.pad_id,
        "bos_token_id": came_in["config"].get("bos_token_id", tokenizer.bos_id),
    }


def _longest(config: ConfigDict, came_in: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Returns what config.json says of how long a text may be."""
    if came_in["config"]:  # a key that is missing there means the family's default
        return {k: v for k, v in came_in["config"].items() if k == "max_position_embeddings"}
    most = config.sampling.max_prompt_tokens + config.sampling.max_response_tokens
    return {"max_position_embeddings": max(8192, most)}


def _card(title: str, directory: epath.Path, config: ConfigDict, step: int) -> str:
    """Returns a model card: from what, by which method, for how long, and what came of it."""
    rows = tracking.read_rows(directory / "metrics.jsonl")
    rows = [row for row in rows if row["step"] <= step and any(k.startswith("eval/") for k in row)]
    last = rows[-1] if rows else {}
    figures = {k: v for k, v in last.items() if k.startswith("eval/pass@") and v is not None}
    lora = "" if config.lora.rank is None else f", LoRA of rank {config.lora.rank}"
    base = None if config.init_from is None else hub.name(config.init_from)
    lines = [
        "---",
        *([f"base_model: {json.dumps(base)}"] if base else []),
        *("library_name: transformers", "pipeline_tag: text-generation", "tags: [passk_jax]"),
        *("---", f"# {title}", "", "Trained by reinforcement learning with passk_jax.", ""),
        *("| | |", "|---|---|"),
        f"| base | {base or 'random parameters'} |",
        f"| task | {config.task.name} |",
        f"| method | {config.estimator.name}, k = {config.estimator.k}{lora} |",
        f"| samples | {config.prompts_per_step} problems x {config.samples_per_prompt} each step |",
        f"| steps | {step} |",
    ]
    if figures:
        lines += ["", f"Held-out problems ({config.evaluation.split}), at step {rows[-1]['step']}:"]
        lines += ["", "| figure | value |", "|---|---|"]
        lines += [f"| {k.removeprefix('eval/')} | {v:.4f} |" for k, v in figures.items()]
    return "\n".join(lines) + "\n"


def _copy_tokenizer(path: str | None, out: pathlib.Path) -> None:
    """Puts the tokenizer's files beside the model; the byte tokenizer has none."""
    if path is None:
        return
    folder = epath.Path(hub.local(path, weights=False))
    folder = folder if folder.is_dir() else folder.parent
    for name in _TOKENIZER_FILES:
        if (folder / name).is_file():
            (out / name).write_bytes((folder / name).read_bytes())
