"""What a run would do: its config, data, tokenizer and folder are checked; nothing is compiled."""

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from passk_jax.errors import printable
from passk_jax.learner.train_state import abstract_base, abstract_state
from passk_jax.policy import params
from passk_jax.rollout.prompts import encode_prompts
from passk_jax.run import checks, record
from passk_jax.run.parts import Parts, build


def dry_run(config: ConfigDict, directory: epath.Path, fork_from: str | None = None) -> str:
    """Returns what `train` would do with a config in a folder, which stays as it is.

    Raises:
      ConfigError: The config cannot be run, or not in this folder.
      CheckpointError: `config.init_from` is no checkpoint of this policy. No tensor is read,
        and no weights are fetched from the hub.
    """
    parts = build(config, workdir=directory)
    config = parts.config
    record.Claim(directory, config, parts.data(), fork_from)
    trained = abstract_state(parts.decoder, parts.optimizer).params
    checks.check_init_from(config.init_from)
    if config.init_from is not None:
        template = trained if config.lora.rank is None else abstract_base(parts.decoder)
        params.check(config.init_from, parts.decoder.config, template)
    count = sum(leaf.size for leaf in jax.tree.leaves(trained))
    problems, samples = config.prompts_per_step, config.samples_per_prompt
    held_out = parts.task.split(config.evaluation.split)[: config.evaluation.num_problems]
    lines = {
        "policy": f"{count:,} trained parameters, from {config.init_from or 'random numbers'}, "
        f"on {jax.device_count()} {jax.default_backend()} device(s)",
        "task": f"{config.task.name}: {len(parts.problems):,} training problems",
        "prompts": _lengths(parts),
        "first": repr(printable(parts.problems[0].prompt))[:300],
        "objective": f"{config.estimator.name}, k = {config.estimator.k}, n = {samples}",
        "warm start": f"{config.warm_start.steps:,} updates",
        "steps": f"{config.steps:,}, each of {problems} problems x {samples} samples = "
        f"{problems * samples:,} completions of at most {config.sampling.max_response_tokens} "
        f"tokens; {config.steps * problems / len(parts.problems):.2g} epochs",
        "evaluation": f"every {config.eval_every_steps} steps: {len(held_out):,} problems of the "
        f"{config.evaluation.split} split x {config.evaluation.samples_per_prompt} samples",
        "folder": f"{directory}, a checkpoint every {config.checkpoint_every_steps} steps",
    }
    return "\n".join(f"{name:>10}: {words}" for name, words in lines.items())


def _lengths(parts: Parts) -> str:
    limit = parts.config.sampling.max_prompt_tokens
    prompts = encode_prompts([each.prompt for each in parts.problems], parts.tokenizer, limit)
    tokens = np.sum(prompts.mask, axis=1)
    return f"{tokens.min()} to {tokens.max()} tokens, mean {tokens.mean():.1f}; at most {limit} fit"
