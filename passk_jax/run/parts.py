"""The parts of a run: `build` makes them from its config, and checks each before it compiles."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict

from passk_jax import tasks
from passk_jax.errors import ConfigError
from passk_jax.learner.micro_batch import MicroBatch
from passk_jax.learner.objective import Objective
from passk_jax.learner.optimizer import configured_schedule, make_optimizer
from passk_jax.learner.train_state import TrainState, sampling_params
from passk_jax.learner.update import policy_gradient_updates, supervised_update
from passk_jax.policy import hub
from passk_jax.policy.chat import Chat
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.settings import from_settings
from passk_jax.policy.sharding import make_layout, make_mesh
from passk_jax.policy.tokenizer import Tokenizer, make_tokenizer
from passk_jax.rollout import stops
from passk_jax.rollout.prompts import Prompts, check_buckets, encode_prompts, encode_responses
from passk_jax.rollout.sampler import Rollout, SamplingConfig, trimmed, without_truncated
from passk_jax.run import checks, record
from passk_jax.run.advantages import Transformation, make_transformation
from passk_jax.run.checks import section
from passk_jax.run.model import resolved
from passk_jax.tasks import subset
from passk_jax.tasks.order import ORDERS, Order, Prioritized
from passk_jax.tracking import services

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Parts:
    """The parts of a run.

    Attributes:
      config: The run's config, with all that its checkpoint says of the model.
      decoder: The policy as the update sees it: in the layout of training, with LoRA if any.
      sampling_decoder: The same policy in the layout of sampling, without LoRA.
      sampling: How completions are drawn.
      objective: What an update climbs.
      optimizer: Training's optimizer.
      warm_start_optimizer: The optimizer of the warm start.
      learning_rate: From a step, counted from 0, to its learning rate.
      micro_batch: How much of a batch an update works on at once.
      tokenizer: This and the following are `None` for a plan, which needs no data.
      task: What is asked, and how it is scored.
      transformation: From rewards to advantages.
      problems: The task's train split.
      order: The order in which training takes these problems.
      stops: The automaton that finds `config.sampling.stop_strings`, on the devices, if any.
    """

    config: ConfigDict
    decoder: Decoder
    sampling_decoder: Decoder
    sampling: SamplingConfig
    objective: Objective
    optimizer: optax.GradientTransformation
    warm_start_optimizer: optax.GradientTransformation
    learning_rate: Callable[[int], jax.Array]
    micro_batch: MicroBatch
    tokenizer: Tokenizer | None = None
    task: tasks.Task | None = None
    transformation: Transformation | None = None
    problems: Sequence[tasks.Problem] = ()
    order: Order | Prioritized | None = None
    stops: jax.Array | None = None

    def sampling_params(self, variables: Mapping[str, Any]) -> Any:
        """Returns the update's parameters in sampling's layout and the arithmetic's dtype."""
        return sampling_params(variables, self.sampling_decoder, self.decoder.config.lora_scale)

    def prompts(self, problems: Sequence[tasks.Problem]) -> Prompts:
        """Returns the problems' prompts as left-padded tokens (P, T) on the devices."""
        limits = self.config.sampling
        host = encode_prompts(
            [problem.prompt for problem in problems],
            self.tokenizer,
            limits.max_prompt_tokens,
            limits.prompt_buckets or (),
        )
        return jax.tree.map(self._put_problems, host)

    def transform(
        self, rewards_PxN: np.ndarray, rollout: Rollout, key: jax.Array, step: int
    ) -> jax.Array:
        """Returns the advantages (P, N) by the estimator of step `step`, counted from 0.

        Raises:
          ValueError: The estimator does not take these rewards.
        """
        self.transformation.check(rewards_PxN, step)
        return self.transformation(self.decoder.layout.put(rewards_PxN), rollout, key, step)

    def update(
        self, state: TrainState, rollout: Rollout, advantages_PxN: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Makes the policy-gradient updates of one step; `state` is donated."""
        rollout = trimmed(rollout, self.sampling)
        if self.config.estimator.mask_truncated:
            rollout = without_truncated(rollout)
        return policy_gradient_updates(
            state,
            rollout,
            advantages_PxN,
            self.config.sampling.temperature,
            decoder=self.decoder,
            optimizer=self.optimizer,
            objective=self.objective,
            chunk_tokens=self.config.logprob_chunk_tokens,
            micro_batch=self.micro_batch,
        )

    def imitate(
        self, state: TrainState, problems: Sequence[tasks.Problem]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Makes one supervised update on the problems' worked examples; `state` is donated."""
        responses = encode_responses(
            [problem.worked_example for problem in problems],
            self.tokenizer,
            self.sampling.max_response_tokens,
        )
        return supervised_update(
            state,
            self.prompts(problems),
            *map(self._put_problems, responses),
            decoder=self.decoder,
            optimizer=self.warm_start_optimizer,
            chunk_tokens=self.config.logprob_chunk_tokens,
            micro_batch=self.micro_batch,
        )

    def _put_problems(self, array: np.ndarray) -> jax.Array:
        return self.decoder.layout.put(array, "problems")

    def data(self) -> dict[str, dict[str, str]]:
        """Returns a digest of each problem that the run reads, by split and id."""
        held_out = self.config.evaluation.split
        splits = {held_out: self.task.split(held_out), "train": self.problems}
        return {split: record.digests(problems) for split, problems in splits.items()}


def build(
    config: ConfigDict, *, workdir: epath.Path | None = None, estimator: bool = True
) -> Parts:
    """Makes the parts that a config names, and checks them. Nothing is compiled.

    Args:
      config: The run's config.
      workdir: The folder that the run may be in already; see `model.resolved`.
      estimator: Whether its estimator is made, which may import a user's module. Evaluation and
        export need none.

    Raises:
      ConfigError: The config cannot be run.
    """
    with section():
        services.check(config.writers)
    config = resolved(config, workdir)
    with section("tokenizer"):
        path = config.tokenizer.path
        path = path if path is None else hub.local(path, weights=False)
        tokenizer = make_tokenizer(config.tokenizer.name, path)
    parts = build_policy(config, tokenizer.vocab_size)
    transformation = None
    if estimator:
        with section():
            transformation = make_transformation(config)
    with section("chat"):
        chat = Chat(tokenizer, **config.chat)
    with section("task"):
        task = tasks.make(
            config.task.name,
            tokenizer=tokenizer,
            chat=chat,
            data_dir=config.data_dir,
            **config.task.options.to_dict(),
        )
    if config.keep_problems is not None:
        with section("keep_problems"):
            task = subset.with_ids(
                task, subset.read_ids(config.keep_problems), config.keep_problems
            )
    if config.drop_long_problems:
        task = _without_long(config, task, tokenizer)
    if transformation is not None:
        checks.check_rewards(config, task, transformation)
    problems = checks.checked_problems(config, task, tokenizer)
    return dataclasses.replace(
        parts,
        tokenizer=tokenizer,
        task=task,
        transformation=transformation,
        problems=problems,
        order=ORDERS[config.order](problems, config.seed),
        stops=_stops(config, tokenizer, parts.sampling_decoder),
    )


def build_policy(
    config: ConfigDict, num_tokens: int | None, devices: Sequence[jax.Device] | None = None
) -> Parts:
    """Makes and checks the parts that need neither tokenizer nor data.

    Args:
      config: The run's config.
      num_tokens: The tokenizer's number of ids; `None` trusts `config.policy.vocab_size`.
      devices: The mesh's devices, which need not be here; `None` for those that are.

    Raises:
      ConfigError: The config cannot be run.
    """
    checks.check_counts(config)
    config, settings = resolved(config), config.sampling
    with section():
        phases = checks.learning_rate_phases(config)
        sampling = SamplingConfig(
            settings.max_response_tokens,
            settings.top_k,
            settings.top_p,
            tuple(settings.response_buckets or ()),
            num_tokens,
        )
        check_buckets("prompt", settings.prompt_buckets or (), settings.max_prompt_tokens)
        objective = Objective(**config.objective.to_dict())
        optimizer = make_optimizer(
            config.optimizer, phases, objective.updates_per_step, config.steps
        )
        warm_start_optimizer = make_optimizer(config.optimizer, config.warm_start.learning_rate)
        mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.model, devices)
    with section("policy"):
        policy = from_settings(config.policy.to_dict(), num_tokens)
    with section("lora"):
        trained = dataclasses.replace(
            policy, lora_rank=config.lora.rank, lora_alpha=config.lora.alpha
        )
    layouts = {}
    for use, rules in config.sharding.items():
        with section(f"sharding.{use}"):
            layouts[use] = make_layout(mesh, rules.to_dict())
    checks.check_batches(config, layouts)
    checks.check_attention(config, mesh)
    return Parts(
        config=config,
        decoder=Decoder(trained, layouts["training"]),
        sampling_decoder=Decoder(policy, layouts["sampling"]),
        sampling=sampling,
        objective=objective,
        optimizer=optimizer,
        warm_start_optimizer=warm_start_optimizer,
        learning_rate=jax.jit(configured_schedule(config.optimizer, phases, steps=config.steps)),
        micro_batch=MicroBatch(config.micro_batch.problems, config.micro_batch.samples),
    )


def _stops(config: ConfigDict, tokenizer: Tokenizer, decoder: Decoder) -> jax.Array | None:
    with section():
        strings = stops.check(config.sampling.stop_strings)
    return decoder.layout.put(stops.automaton(strings, tokenizer.pieces())) if strings else None


def _without_long(config: ConfigDict, task: tasks.Task, tokenizer: Tokenizer) -> tasks.Task:
    """Leaves out the problems that the token limits have no room for, and says how many."""
    limits = config.sampling

    def prompt_fits(problem: tasks.Problem) -> bool:
        return _fits(encode_prompts, [problem.prompt], tokenizer, limits.max_prompt_tokens)

    def fits(problem: tasks.Problem) -> bool:
        example = problem.worked_example
        return prompt_fits(problem) and (
            not config.warm_start.steps
            or example is None
            or _fits(encode_responses, [example], tokenizer, limits.max_response_tokens)
        )

    kept = subset.Subset(task, dict.fromkeys(tasks.SPLITS, prompt_fits) | {"train": fits})
    for split in dict.fromkeys(("train", config.evaluation.split)):
        before, after = (len(each.split(split)) for each in (task, kept))
        if after < before:
            _logger.warning(
                "drop_long_problems: %d of %d problems of the %s split are too long and left out",
                before - after,
                before,
                split,
            )
    return kept


def _fits(encode: Callable, *args: Any) -> bool:
    try:
        encode(*args)
    except ConfigError:
        return False
    return True
