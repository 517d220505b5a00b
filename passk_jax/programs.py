"""From a config to what is compiled: no task, no tokenizer, and devices that need not be here."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from passk_jax.learner.optimizer import make_optimizer
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
    optimizer = make_optimizer(config.optimizer)
    warm_start_optimizer = make_optimizer(config.optimizer, config.warm_start.learning_rate)
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.model, devices)
    layouts = {
        use: named(f"sharding.{use}", make_layout, mesh, rules.to_dict())
        for use, rules in config.sharding.items()
    }
    _check_micro_batches(config)
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
    )


def named(section: str, function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Calls a part's constructor; its complaint is given the config section it is about."""
    try:
        return function(*args, **kwargs)
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise ConfigError(f"config.{section}: {error}") from error


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
    for name in ("sampling.temperature", "optimizer.learning_rate", "warm_start.learning_rate"):
        value = _value(config, name)
        if not 0 < value < float("inf"):
            raise ConfigError(f"config.{name} = {value}: must be a positive number")
    kl = config.kl_coefficient
    if kl is not None and not 0 < kl < float("inf"):
        raise ConfigError(f"config.kl_coefficient = {kl}: must be a positive number, or None")
    if not 0 <= config.evaluation.temperature < float("inf"):
        raise ConfigError(
            f"config.evaluation.temperature = {config.evaluation.temperature}: must be a number of "
            "at least 0 (0 is greedy)"
        )


def _check_micro_batches(config: ConfigDict) -> None:
    wholes = {
        "micro_batch.problems": ["prompts_per_step"],
        "micro_batch.samples": ["samples_per_prompt"],
    }
    if config.warm_start.steps:
        wholes["micro_batch.problems"].append("warm_start.batch_size")
    for name, of in wholes.items():
        for whole in of:
            part, size = _value(config, name), _value(config, whole)
            if part is not None and (part < 1 or size % part):
                raise ConfigError(
                    f"config.{name} = {part}: must divide config.{whole} = {size}, or None for all"
                )


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
