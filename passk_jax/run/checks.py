"""What a config must fulfil beyond what its parts check themselves. Nothing is compiled yet."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from passk_jax import tasks, transforms
from passk_jax.errors import ConfigError
from passk_jax.learner.objective import Objective
from passk_jax.learner.schedule import Schedule, is_number, parse_schedule
from passk_jax.learner.train_state import abstract_params
from passk_jax.policy.config import DecoderConfig
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.sharding import Layout, check_copies, on_cpus
from passk_jax.policy.tokenizer import Tokenizer
from passk_jax.rollout.prompts import encode_prompts, encode_responses
from passk_jax.run.advantages import Transformation
from passk_jax.tasks.order import ORDERS

# An update of fewer tokens by a model of a million parameters, or of as much work by a larger one,
# is so quick that smaller ones would not repay their compilation.
_TOKENS_WORTH_PACKING = 2048
# The least values of the counts that belong to no part.
_LEAST = {
    "steps": 0,
    "prompts_per_step": 1,
    "samples_per_prompt": 2,
    "eval_every_steps": 1,
    "checkpoint_every_steps": 1,
    "checkpoints_to_keep": 1,
    "log_samples_every_steps": 1,
    "log_samples_problems": 0,
    "max_skipped_steps": 1,
    "logprob_chunk_tokens": 1,
    "warm_start.steps": 0,
    "warm_start.batch_size": 1,
    "evaluation.samples_per_prompt": 1,
    "evaluation.prompts_per_batch": 1,
    "evaluation.log_samples_problems": 0,
    "sampling.max_prompt_tokens": 2,  # all but the last run before the first token is drawn
}


@contextlib.contextmanager
def section(name: str | None = None) -> Iterator[None]:
    """Puts the config's section in front of what a part says of its settings.

    Without a name the message begins with the key itself: "optimizer.name = 'adm': ...".
    """
    try:
        yield
    except ConfigError as error:
        where = "config." if name is None else f"config.{name}: "
        raise ConfigError(f"{where}{error}") from error


def check_seed(name: str, seed: int) -> None:
    """Checks that a seed is one of those that PRNG keys tell apart."""
    if not 0 <= seed < 2**32:
        raise ConfigError(
            f"{name} = {seed}: must be at least 0, and below 2^32, beyond which seeds repeat"
        )


def check_counts(config: ConfigDict) -> None:
    """Checks single numbers and names, and which sizes must divide which."""
    for name, least in _LEAST.items():
        if _value(config, name) < least:
            raise ConfigError(f"config.{name} = {_value(config, name)}: must be at least {least}")
    check_seed("config.seed", config.seed)
    for name in ("sampling.temperature", "warm_start.learning_rate"):
        if not 0 < _value(config, name) < float("inf"):
            raise ConfigError(f"config.{name} = {_value(config, name)}: must be a positive number")
    batches = config.dynamic_sampling_batches
    if batches is not None and batches < 2:
        raise ConfigError(
            f"config.dynamic_sampling_batches = {batches}: must be at least 2, or None for off"
        )
    if config.pipeline not in (0, 1):
        raise ConfigError(
            f"config.pipeline = {config.pipeline}: must be 1, or 0 for off: more than one batch is "
            "never ahead"
        )
    if config.pipeline and batches is not None:
        raise ConfigError(
            f"config.pipeline = 1, config.dynamic_sampling_batches = {batches}: what refills a "
            "step is not known before it is scored; use one of the two"
        )
    for name in ("stop_when_flat", "gradient_cosine_every_steps"):
        if _value(config, name) is not None and _value(config, name) < 1:
            raise ConfigError(
                f"config.{name} = {_value(config, name)}: must be at least 1, or None for off"
            )
    if not 0 <= config.evaluation.temperature < float("inf"):
        raise ConfigError(
            f"config.evaluation.temperature = {config.evaluation.temperature}: must be a number of "
            "at least 0 (0 is greedy)"
        )
    _check_figure_ks(config)
    if config.order not in ORDERS:
        raise ConfigError(f"config.order = {config.order!r}: must be one of {', '.join(ORDERS)}")
    steps = config.profile_steps
    if steps is not None and not _is_range(steps):
        raise ConfigError(
            f"config.profile_steps = {steps}: must be (start, stop) with 0 <= start < stop, or None"
        )
    if config.objective.minibatches > 0:  # less is for the objective to refuse
        _check_divisors(config)


def _check_figure_ks(config: ConfigDict) -> None:
    """The k of figures must be such that training and evaluation have a figure each."""
    ks = config.figure_ks
    n, held_out = config.samples_per_prompt, config.evaluation.samples_per_prompt
    if ks is not None and not (
        isinstance(ks, list | tuple)
        and len(ks) > 0
        and all(type(k) is int for k in ks)
        and list(ks) == sorted(set(ks))
        and 1 <= ks[0] <= min(n, held_out)
        and ks[-1] <= max(n, held_out)
    ):
        raise ConfigError(
            f"config.figure_ks = {ks!r}: must be rising integers such as (1, 2, 4), the first from "
            f"1 to {min(n, held_out)} and all at most {max(n, held_out)}, because samples_per_"
            f"prompt = {n} and evaluation.samples_per_prompt = {held_out}; or None"
        )


def _check_divisors(config: ConfigDict) -> None:
    """Minibatches must divide the batch, and micro-batches the minibatches."""
    _check_divides(config, "objective.minibatches", "prompts_per_step", config.prompts_per_step)
    whole, problems = _in_words(config), problems_per_update(config)
    _check_divides(config, "micro_batch.problems", whole, problems)
    _check_divides(config, "micro_batch.samples", "samples_per_prompt", config.samples_per_prompt)
    if config.warm_start.steps:
        size = config.warm_start.batch_size
        _check_divides(config, "micro_batch.problems", "warm_start.batch_size", size)


def _check_divides(config: ConfigDict, name: str, whole: str, size: int) -> None:
    part = _value(config, name)
    if part is not None and (part < 1 or size % part):
        off = ", or None for all" if name.startswith("micro_batch") else ""
        raise ConfigError(f"config.{name} = {part}: must divide config.{whole} = {size}{off}")


def check_staleness(config: ConfigDict, objective: Objective) -> None:
    """Checks that clipping has a ratio to clip, and that stale samples have a correction."""
    clips, once = any(objective.clip), objective.updates_per_step == 1
    if clips and once and not config.pipeline:
        names = ("clip_low", "clip_high", "clip_dual")
        given = [f"{n} = {v}" for n, v in zip(names, objective.clip, strict=True) if v is not None]
        raise ConfigError(
            f"objective.{', '.join(given)}: with one update for each sampling (epochs = 1, "
            "minibatches = 1) the ratio is 1 and nothing is ever clipped; None is allowed, and "
            "config.pipeline = 1"
        )
    if config.pipeline and objective.importance_cap is None and not (clips and once):
        raise ConfigError(
            "config.pipeline = 1: samples are of the policy before the last update. To correct for "
            "it set objective.importance_cap, such as 2.0, or with one update for each sampling "
            "objective.clip_low and clip_high"
        )


def problems_per_update(config: ConfigDict) -> int:
    """Returns the number of problems in one update of the parameters."""
    return config.prompts_per_step // config.objective.minibatches


def weighted_only(config: ConfigDict, objective: Objective, policy: DecoderConfig) -> bool:
    """Returns whether updates leave out the samples of advantage 0: `config.update_weighted_only`.

    By default they do where this is exact and worth the programs that it compiles.
    """
    asked, exact = config.update_weighted_only, objective.is_exact_for_weighted
    if asked and not exact:
        raise ConfigError(
            "config.update_weighted_only = True: objective.kl_coefficient and "
            "objective.entropy_coefficient need the tokens of all samples; with them None or False "
            "is allowed"
        )
    return exact and _is_worth_packing(config, policy) if asked is None else asked


def unpadded(config: ConfigDict, policy: DecoderConfig, layout: Layout) -> bool:
    """Returns whether responses are updated without their padding: `config.update_unpadded`."""
    asked, split = config.update_unpadded, layout.shares("samples") > 1
    if asked and split:
        raise ConfigError(
            "config.update_unpadded = True: sharding.training.samples splits the samples of a "
            "problem over devices; with it None or False is allowed"
        )
    if asked is not None:
        return asked
    return is_one_cpu(layout.mesh) and _is_worth_packing(config, policy)


def is_one_cpu(mesh: jax.sharding.Mesh) -> bool:
    """Returns whether the devices are one CPU."""
    return mesh.size == 1 and on_cpus(mesh)


def _is_worth_packing(config: ConfigDict, policy: DecoderConfig) -> bool:
    limits = config.sampling
    each = limits.max_prompt_tokens + config.samples_per_prompt * limits.max_response_tokens
    parameters = sum(x.size for x in jax.tree.leaves(abstract_params(Decoder(policy))))
    millions = max(1.0, parameters / 1e6)
    return problems_per_update(config) * each * millions >= _TOKENS_WORTH_PACKING


def _in_words(config: ConfigDict) -> str:
    several = config.objective.minibatches > 1
    return "prompts_per_step" + (" / config.objective.minibatches" if several else "")


def learning_rate_phases(config: ConfigDict) -> Schedule:
    """Returns `config.optimizer.learning_rate` as ((first step, rate), ...)."""

    def allowed(rate: Any) -> bool:
        return is_number(rate) and 0 < rate < float("inf")

    rate = config.optimizer.learning_rate
    return parse_schedule(
        "optimizer.learning_rate", rate, allowed, "a positive number", config.steps
    )


def check_batches(config: ConfigDict, layouts: Mapping[str, Layout], trains: bool) -> None:
    """The mesh must split every batch into equal parts, so that no device idles."""
    words, problems = _in_words(config), problems_per_update(config)
    micro_batch, samples = config.micro_batch, config.samples_per_prompt
    training = [
        (words, problems, "problems"),
        ("samples_per_prompt", samples, "samples"),
        ("micro_batch.problems", micro_batch.problems, "problems"),
        ("micro_batch.samples", micro_batch.samples, "samples"),
    ]
    if config.warm_start.steps:
        training.append(("warm_start.batch_size", config.warm_start.batch_size, "problems"))
    sampling = [
        ("prompts_per_step", config.prompts_per_step, "problems"),
        ("samples_per_prompt", samples, "samples"),
        ("evaluation.prompts_per_batch", config.evaluation.prompts_per_batch, "problems"),
    ]
    if not trains:
        training, sampling = [], sampling[-1:]
    for use, sizes in (("training", training), ("sampling", sampling)):
        layout = layouts[use]
        for name, size, axis in sizes:
            shares = layout.shares(axis)
            if size is not None and size % shares:  # None: a micro-batch that is the batch
                split = " x ".join(f"{a} {layout.mesh.shape[a]}" for a in dict(layout.rules)[axis])
                raise ConfigError(
                    f"config.{name} = {size}: config.sharding.{use}.{axis} splits {axis} over the "
                    f"mesh's {split}, so it must be a multiple of {shares}"
                )


def check_split(config: ConfigDict, layouts: Mapping[str, Layout]) -> None:
    """Devices that only sample need a batch to sample, and the parameters that they sample with."""
    if config.mesh.sampling is None:
        return
    if not config.pipeline:
        raise ConfigError(
            f"config.mesh.sampling = {config.mesh.sampling}: devices that sample while the others "
            "train draw the next batch, so config.pipeline = 1 is needed"
        )
    kind = layouts["sampling"].mesh.devices.flat[0].device_kind
    if kind.endswith("lite"):  # v5e and v6e
        raise ConfigError(
            f"config.mesh.sampling = {config.mesh.sampling}: a program on {kind} runs on all "
            "devices of a slice; None is allowed"
        )
    with section():
        check_copies(layouts["training"].mesh, layouts["sampling"])


def check_attention(config: ConfigDict, mesh: jax.sharding.Mesh) -> None:
    """The kernels of splash attention need a TPU."""
    platform = mesh.devices.flat[0].platform
    if config.policy.attention == "splash" and platform != "tpu":
        raise ConfigError(
            "config.policy.attention = 'splash': its kernels are for TPU, and the devices here are "
            f"{platform}; 'reference' runs everywhere"
        )


def check_init_from(place: str | None) -> None:
    """The folder that a run begins with must be there. One that goes on may not need it."""
    if place is not None and "hf://" not in place and not epath.Path(place).is_dir():
        raise ConfigError(f"config.init_from = {place!r}: there is no such folder")


def check_rewards(config: ConfigDict, task: tasks.Task, transformation: Transformation) -> None:
    """An estimator, or noise, for rewards of 0 and 1 needs a task that gives no others."""
    penalty = config.estimator.truncated_penalty
    if penalty is None and task.binary_rewards:
        return
    wants = [
        f"estimator.name = {name!r}"
        for _, name in transformation.names
        if transforms.lookup(name).binary
    ]
    if config.estimator.noise_share is not None and not task.binary_rewards:
        wants.append(f"estimator.noise_share = {config.estimator.noise_share}")
    if wants:
        gives = f"task {config.task.name!r} gives others"
        if penalty is not None:
            gives = f"config.estimator.truncated_penalty = {penalty} makes others"
        real = [row.name for row in transforms.ESTIMATORS.values() if not row.binary]
        raise ConfigError(
            f"config.{wants[0]}: takes rewards of 0 and 1 only, and {gives}. Any reward is taken "
            f"by {', '.join(real)}"
        )


def checked_problems(
    config: ConfigDict, task: tasks.Task, tokenizer: Tokenizer
) -> Sequence[tasks.Problem]:
    """Returns the training problems, once every prompt that the run may meet was encoded."""
    limits, train = config.sampling, task.split("train")
    with section("evaluation.split"):
        held_out = task.split(config.evaluation.split)
    for split, problems in (("train", train), (config.evaluation.split, held_out)):
        if not problems:
            raise ConfigError(f"task {config.task.name!r} has no problems in its {split} split")
        prompts = [problem.prompt for problem in problems]
        encode_prompts(prompts, tokenizer, limits.max_prompt_tokens)
    return train


def checked_examples(
    config: ConfigDict, problems: Sequence[tasks.Problem], tokenizer: Tokenizer
) -> tuple[Sequence[tasks.Problem], int]:
    """Returns the problems of the warm start, and the tokens of the longest of their examples."""
    limits, where = config.sampling, f"config.warm_start.steps = {config.warm_start.steps}"
    if not problems:
        name = config.warm_start.task.name
        raise ConfigError(f"{where}, but task {name!r} has no problems in its train split")
    missing = [problem.id for problem in problems if problem.worked_example is None]
    if missing:
        raise ConfigError(
            f"{where}, but {len(missing)} training problems have no worked example "
            f"({missing[0]!r}, say): only 0 is allowed"
        )
    prompts = [problem.prompt for problem in problems]
    encode_prompts(prompts, tokenizer, limits.max_prompt_tokens)
    examples = [problem.worked_example for problem in problems]
    _, mask = encode_responses(examples, tokenizer, limits.max_response_tokens)
    return problems, int(np.max(np.sum(mask, axis=-1)))


def _is_range(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and [type(each) for each in value] == [int, int]
        and 0 <= value[0] < value[1]
    )


def _value(config: ConfigDict, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), config)
