"""From a config to what is compiled: no task, no tokenizer, and devices that need not be here."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from passk_jax.learner.objective import Objective
from passk_jax.learner.optimizer import make_optimizer
from passk_jax.learner.schedule import Schedule, is_number, parse_schedule
from passk_jax.policy.config import DecoderConfig, RopeScaling
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.sharding import Layout, make_layout, make_mesh
from passk_jax.policy.tokenizer import check_vocabulary
from passk_jax.rollout.prompts import check_buckets
from passk_jax.rollout.sampler import SamplingConfig


class ConfigError(ValueError):
    """A config that cannot be run; the message names the key, its value and what is allowed."""


@contextlib.contextmanager
def config_errors() -> Iterator[None]:
    """Makes a `ConfigError` of what a part says of its settings."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


@dataclasses.dataclass(frozen=True)
class Programs:
    """What the compiled programs of a run depend on, made by `build_programs`."""

    config: ConfigDict
    decoder: Decoder  # in the layout of training
    sampling_decoder: Decoder  # the same in that of sampling, and without LoRA
    sampling: SamplingConfig
    optimizer: optax.GradientTransformation
    warm_start_optimizer: optax.GradientTransformation
    objective: Objective


@config_errors()
def build_programs(
    config: ConfigDict, num_tokens: int | None, devices: Sequence[jax.Device] | None = None
) -> Programs:
    """Makes and checks what a config says of them.

    Args:
      config: of the run.
      num_tokens: ids of the tokenizer; `None` where `config.policy.vocab_size` is to be trusted.
      devices: of the mesh; `None` for those that are here.

    Raises:
      ConfigError: see the class.
    """
    _check_counts(config)
    sampling = SamplingConfig(
        config.sampling.max_response_tokens,
        config.sampling.top_k,
        config.sampling.top_p,
        tuple(config.sampling.response_buckets or ()),
    )
    check_buckets("prompt", config.sampling.prompt_buckets or (), config.sampling.max_prompt_tokens)
    policy = named("policy", _decoder_config, config.policy, num_tokens)
    lora = {"lora_rank": config.lora.rank, "lora_alpha": config.lora.alpha}
    trained = named("lora", functools.partial(dataclasses.replace, policy), **lora)
    objective = named(None, lambda: Objective(**config.objective.to_dict()))
    optimizer = make_optimizer(
        config.optimizer, learning_rate_phases(config), objective.updates_per_step
    )
    warm_start_optimizer = make_optimizer(config.optimizer, config.warm_start.learning_rate)
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.model, devices)
    layouts = {
        use: named(f"sharding.{use}", make_layout, mesh, rules.to_dict())
        for use, rules in config.sharding.items()
    }
    _check_parts(config)
    for use, layout in layouts.items():
        _check_batches(config, use, layout)
    _check_attention(config, mesh)
    return Programs(
        config=config,
        decoder=Decoder(trained, layouts["training"]),
        sampling_decoder=Decoder(policy, layouts["sampling"]),
        sampling=sampling,
        optimizer=optimizer,
        warm_start_optimizer=warm_start_optimizer,
        objective=objective,
    )


def learning_rate_phases(config: ConfigDict) -> Schedule:
    """`config.optimizer.learning_rate` as ((first step, rate), ...)."""

    def allowed(rate: Any) -> bool:
        return is_number(rate) and 0 < rate < float("inf")

    return parse_schedule(
        "config.optimizer.learning_rate",
        config.optimizer.learning_rate,
        allowed,
        "a positive number",
        config.steps,
    )


def named(section: str | None, function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Calls a part's constructor; its complaint is given the config section it is about.

    `None` for a complaint that names its key itself, as "optimizer.name = 'adm': ...".
    """
    try:
        return function(*args, **kwargs)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        where = "config." if section is None else f"config.{section}: "
        raise ConfigError(f"{where}{error}") from error


def _decoder_config(config: ConfigDict, num_tokens: int | None) -> DecoderConfig:
    fields = config.to_dict()
    if fields["rope_scaling"] is not None:
        fields["rope_scaling"] = RopeScaling(**fields["rope_scaling"])
    if fields["vocab_size"] is None:
        if num_tokens is None:
            raise ValueError("vocab_size = None: without the tokenizer the number is needed")
        fields["vocab_size"] = num_tokens
    if num_tokens is not None:
        check_vocabulary(num_tokens, fields["vocab_size"])
    return DecoderConfig(**fields)


def _check_counts(config: ConfigDict) -> None:
    """Checks the numbers that no part checks for itself."""
    least = {
        "steps": 0,
        "prompts_per_step": 1,
        "samples_per_prompt": 2,
        "eval_every_steps": 1,
        "checkpoint_every_steps": 1,
        "checkpoints_to_keep": 1,
        "log_samples_every_steps": 1,
        "log_samples_problems": 0,
        "logprob_chunk_tokens": 1,
        "seed": 0,
        "warm_start.steps": 0,
        "warm_start.batch_size": 1,
        "evaluation.samples_per_prompt": 1,
        "evaluation.prompts_per_batch": 1,
        "evaluation.log_samples_problems": 0,
        "sampling.max_prompt_tokens": 1,
    }
    for name, smallest in least.items():
        value = _value(config, name)
        if value < smallest:
            raise ConfigError(f"config.{name} = {value}: must be at least {smallest}")
    for name in ("sampling.temperature", "warm_start.learning_rate"):
        value = _value(config, name)
        if not 0 < value < float("inf"):
            raise ConfigError(f"config.{name} = {value}: must be a positive number")
    batches = config.dynamic_sampling_batches
    if batches is not None and batches < 2:
        raise ConfigError(
            f"config.dynamic_sampling_batches = {batches}: must be at least 2, or None for off"
        )
    if not 0 <= config.evaluation.temperature < float("inf"):
        raise ConfigError(
            f"config.evaluation.temperature = {config.evaluation.temperature}: must be a number of "
            "at least 0 (0 is greedy)"
        )


def problems_per_update(config: ConfigDict) -> int:
    """Problems in each update of the parameters: a minibatch."""
    return config.prompts_per_step // config.objective.minibatches


def _check_parts(config: ConfigDict) -> None:
    """Checks that minibatches divide the batch, and micro-batches the minibatches."""
    _check_divides(config, "objective.minibatches", "prompts_per_step", config.prompts_per_step)
    whole, problems = "prompts_per_step", problems_per_update(config)
    if config.objective.minibatches > 1:
        whole += " / config.objective.minibatches"
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


def _check_batches(config: ConfigDict, use: str, layout: Layout) -> None:
    """Checks that the batches can be split as the layout says, so that no device idles."""
    sizes = {"prompts_per_step": "problems", "samples_per_prompt": "samples"}
    if use == "sampling":
        sizes["evaluation.prompts_per_batch"] = "problems"
    else:
        sizes |= {"micro_batch.problems": "problems", "micro_batch.samples": "samples"}
        if config.warm_start.steps:
            sizes["warm_start.batch_size"] = "problems"
    for name, axis in sizes.items():
        size, shares = _value(config, name), layout.shares(axis)
        if size is None:  # a micro-batch that is the batch
            continue
        if use == "training" and name == "prompts_per_step":
            size = problems_per_update(config)
            name += " / config.objective.minibatches" if config.objective.minibatches > 1 else ""
        if size % shares:
            split = " x ".join(
                f"{name} {layout.mesh.shape[name]}" for name in dict(layout.rules)[axis]
            )
            raise ConfigError(
                f"config.{name} = {size}: config.sharding.{use}.{axis} splits {axis} over the "
                f"mesh's {split}, so it must be a multiple of {shares}"
            )


def _value(config: ConfigDict, name: str) -> Any:
    return functools.reduce(getattr, name.split("."), config)


def _check_attention(config: ConfigDict, mesh: jax.sharding.Mesh) -> None:
    platform = mesh.devices.flat[0].platform
    if config.policy.attention == "splash" and platform != "tpu":
        raise ConfigError(
            "config.policy.attention = 'splash': its kernels are for TPU, and the devices here are "
            f"{platform}; 'reference' runs everywhere"
        )
