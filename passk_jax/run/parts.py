"""The parts of a run: `build` makes them from its config, and checks each before it compiles."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import optax
from etils import epath
from ml_collections import ConfigDict

from passk_jax import hub, processes, tasks
from passk_jax.errors import ConfigError
from passk_jax.learner.micro_batch import MicroBatch
from passk_jax.learner.objective import Objective
from passk_jax.learner.optimizer import configured_schedule, make_optimizer
from passk_jax.learner.packing import pack_examples
from passk_jax.learner.train_state import TrainState, sampling_params
from passk_jax.learner.update import policy_gradient_updates, supervised_update
from passk_jax.policy.chat import Chat
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.settings import from_settings
from passk_jax.policy.sharding import Layout, make_layout, make_meshes
from passk_jax.policy.tokenizer import Tokenizer, make_tokenizer
from passk_jax.rollout import stops
from passk_jax.rollout.prompts import (
    Prompts,
    check_buckets,
    encode_prompts,
    encode_responses,
    shared_beginning,
)
from passk_jax.rollout.sampler import Rollout, SamplingConfig, without_truncated
from passk_jax.run import checks, digests
from passk_jax.run.advantages import Transformation, make_transformation
from passk_jax.run.checks import section
from passk_jax.run.model import resolved
from passk_jax.tasks import rewards, subset
from passk_jax.tasks.order import ORDERS, Order, Prioritized
from passk_jax.tracking import services

_logger = logging.getLogger(__name__)

# An update of so many tokens at once stays in the cache of a CPU. With 256 x (24 + 128) tokens it
# takes 0.71 of the time that all of them at once take.
_TOKENS_OF_A_CPU = 2048

# With so few layers an unrolled update takes a CPU no longer to compile, and less time to run.
_FEW_LAYERS = 8

# Of so many training problems it is looked for what all prompts begin with.
_LOOKED_AT = 256


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
      weighted_only: Whether updates leave out the samples of advantage 0.
      unpadded: Whether updates leave out the padding of responses.
      unrolls: Whether updates unroll the decoder; see `policy.decoder.by_layers`.
      tokenizer: This and the following are `None` for a plan, which needs no data.
      task: What is asked, and how it is scored.
      transformation: From rewards to advantages.
      problems: The task's train split.
      warm_start_problems: Those whose worked examples the warm start takes, if there is one.
      example_tokens: The number of tokens of the longest of these; all are padded to it.
      order: The order in which training takes these problems.
      stops: The automaton that finds `config.sampling.stop_strings`, on the devices, if any.
      shared: The tokens that the training prompts begin with, where they are many.
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
    weighted_only: bool
    unpadded: bool
    unrolls: bool
    tokenizer: Tokenizer | None = None
    task: tasks.Task | None = None
    transformation: Transformation | None = None
    problems: Sequence[tasks.Problem] = ()
    warm_start_problems: Sequence[tasks.Problem] = ()
    example_tokens: int = 0
    order: Order | Prioritized | None = None
    stops: jax.Array | None = None
    shared: tuple[int, ...] = ()

    @property
    def update_decoder(self) -> Decoder:
        """The decoder as updates run it."""
        return self.decoder.clone(unrolled=self.unrolls)

    @property
    def samples_apart(self) -> bool:
        """Whether other devices sample than those that train."""
        return self.decoder.layout.mesh != self.sampling_decoder.layout.mesh

    def sampling_params(self, variables: Mapping[str, Any]) -> Any:
        """Returns the update's parameters in sampling's layout and the arithmetic's dtype."""
        layout = self.sampling_decoder.layout
        params = sampling_params(
            variables,
            self.sampling_decoder.clone(layout=layout.on(self.decoder.layout.mesh)),
            self.decoder.config.lora_scale,
            int8="weights" in self.sampling.int8,
        )
        return jax.tree.map(layout.take, params) if self.samples_apart else params

    def prompts(self, problems: Sequence[tasks.Problem], layout: Layout | None = None) -> Prompts:
        """Returns the problems' prompts as left-padded tokens (P, T), by default for sampling."""
        layout = layout or self.sampling_decoder.layout
        return jax.tree.map(lambda x: layout.put(x, "problems"), self._encoded(problems))

    def _encoded(self, problems: Sequence[tasks.Problem]) -> Prompts:
        limits = self.config.sampling
        return encode_prompts(
            [problem.prompt for problem in problems],
            self.tokenizer,
            limits.max_prompt_tokens,
            limits.prompt_buckets or (),
            self.shared,
        )

    def for_training(self, rollout: Rollout) -> Rollout:
        """Returns samples that are drawn where the update has them. A collective."""
        if not self.samples_apart:
            return rollout
        put, host = self.decoder.layout.put, jax.tree.map(processes.fetch, rollout)
        prompts = jax.tree.map(lambda x: put(x, "problems"), host.prompts)
        samples = {name: x for name, x in host.items() if name != "prompts"}
        samples = jax.tree.map(lambda x: put(x, "problems", "samples"), samples)
        return Rollout(prompts=prompts, **samples)

    def transform(
        self,
        rewards_PxN: np.ndarray,
        rollout: Rollout,
        key: jax.Array,
        step: int,
        more: Mapping[str, Any] = MappingProxyType({}),
    ) -> jax.Array:
        """Returns the advantages (P, N) by the estimator of step `step`, counted from 0.

        Args:
          rewards_PxN: The rewards of the rollout's completions.
          rollout: The completions.
          key: A PRNG key.
          step: The training step.
          more: What `Transformation.beside_rewards` returned.

        Raises:
          ValueError: The estimator does not take these rewards.
        """
        self.transformation.check(rewards_PxN, step)
        rewards_PxN = self.decoder.layout.put(rewards_PxN)
        more = jax.tree.map(self.decoder.layout.put, dict(more))
        return self.transformation(rewards_PxN, rollout, key, step, more)

    def update(
        self, state: TrainState, rollout: Rollout, advantages_PxN: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Makes the policy-gradient updates of one step; `state` is donated."""
        if self.config.estimator.mask_truncated:
            rollout = without_truncated(rollout)
        return policy_gradient_updates(
            state,
            rollout,
            advantages_PxN,
            self.config.sampling.temperature,
            decoder=self.update_decoder,
            optimizer=self.optimizer,
            objective=self.objective,
            sampling=self.sampling,
            weighted_only=self.weighted_only,
            unpadded=self.unpadded,
            chunk_tokens=self.config.logprob_chunk_tokens,
            micro_batch=self.micro_batch,
        )

    def imitate(
        self, state: TrainState, problems: Sequence[tasks.Problem]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Makes one supervised update on the problems' worked examples; `state` is donated."""
        layout, micro_batch, used = self.decoder.layout, self.micro_batch, None
        examples = (
            self._encoded(problems),
            *encode_responses(
                [problem.worked_example for problem in problems],
                self.tokenizer,
                self.example_tokens,
            ),
        )
        if self.unpadded:
            examples, micro_batch, used = pack_examples(*examples, micro_batch, layout)
        return supervised_update(
            state,
            *jax.tree.map(lambda x: layout.put(x, "problems"), examples),
            used,
            decoder=self.update_decoder,
            optimizer=self.warm_start_optimizer,
            chunk_tokens=self.config.logprob_chunk_tokens,
            micro_batch=micro_batch,
        )

    def data(self) -> dict[str, dict[str, str]]:
        """Returns a digest of each problem that the run reads, by split and id."""
        held_out = self.config.evaluation.split
        splits = {held_out: self.task.split(held_out), "train": self.problems}
        if self.config.warm_start.task.name is not None:
            splits["warm_start"] = self.warm_start_problems
        rows = self.config.task.reward is not None
        return {split: digests.of_problems(problems, rows) for split, problems in splits.items()}


def build(config: ConfigDict, *, workdir: epath.Path | None = None, trains: bool = True) -> Parts:
    """Makes the parts that a config names, and checks them. Nothing is compiled.

    Args:
      config: The run's config.
      workdir: The folder that the run may be in already; see `model.resolved`.
      trains: Whether it is to be trained. Evaluation and export need no estimator, which may import
        a user's module, and no devices that share training's batches evenly.

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
    parts = build_policy(config, tokenizer.vocab_size, trains=trains)
    transformation = None
    if trains:
        with section():
            transformation = make_transformation(config)
    with section("chat"):
        chat = Chat(tokenizer, **config.chat)
    with section("task"):
        task = _task(config.task, config, chat)
        rewarded = _rewarded(config, task)
        task = rewarded or task
    if config.keep_problems is not None:
        with section("keep_problems"):
            task = subset.with_ids(
                task, subset.read_ids(config.keep_problems), config.keep_problems
            )
    if config.drop_long_problems:
        taught = config.warm_start.steps > 0 and config.warm_start.task.name is None
        splits = dict.fromkeys(tasks.SPLITS, False) | {"train": taught}
        task = _without_long(config, task, tokenizer, splits)
    if transformation is not None:
        checks.check_rewards(config, task, transformation)
    problems = checks.checked_problems(config, task, tokenizer)
    examples, example_tokens = (), 0
    if config.warm_start.steps and (trains or config.warm_start.task.name is None):
        examples, example_tokens = _examples(config, problems, tokenizer, chat)
    if rewarded is not None and trains:
        rewarded.try_out(problems[0])
    return dataclasses.replace(
        parts,
        tokenizer=tokenizer,
        task=task,
        transformation=transformation,
        problems=problems,
        warm_start_problems=examples,
        example_tokens=example_tokens,
        order=ORDERS[config.order](problems, config.seed),
        stops=_stops(config, tokenizer, parts.sampling_decoder),
        shared=_shared(config, problems, tokenizer),
    )


def build_policy(
    config: ConfigDict,
    num_tokens: int | None,
    devices: Sequence[jax.Device] | None = None,
    *,
    trains: bool = True,
) -> Parts:
    """Makes and checks the parts that need neither tokenizer nor data.

    Args:
      config: The run's config.
      num_tokens: The tokenizer's number of ids; `None` trusts `config.policy.vocab_size`.
      devices: The mesh's devices, which need not be here; `None` for those that are.
      trains: See `build`.

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
            settings.unroll_layers,
            settings.int8 if isinstance(settings.int8, str) else tuple(settings.int8 or ()),
        )
        check_buckets("prompt", settings.prompt_buckets or (), settings.max_prompt_tokens)
        objective = Objective(**config.objective.to_dict())
        optimizer = make_optimizer(
            config.optimizer, phases, objective.updates_per_step, config.steps
        )
        warm_start_optimizer = make_optimizer(config.optimizer, config.warm_start.learning_rate)
        meshes = make_meshes(**config.mesh, devices=devices)
    with section("policy"):
        policy = from_settings(config.policy.to_dict(), num_tokens)
    with section("lora"):
        trained = dataclasses.replace(
            policy, lora_rank=config.lora.rank, lora_alpha=config.lora.alpha
        )
    layouts = {}
    for use, rules in config.sharding.items():
        with section(f"sharding.{use}"):
            layouts[use] = make_layout(meshes[use], rules.to_dict())
    mesh = meshes["training"]
    on_a_cpu = checks.is_one_cpu(mesh)
    unrolls = config.update_unroll_layers
    if unrolls is None:
        unrolls = on_a_cpu and policy.num_layers <= _FEW_LAYERS
    checks.check_split(config, layouts)
    checks.check_batches(config, layouts, trains)
    checks.check_attention(config, mesh)
    checks.check_staleness(config, objective)
    return Parts(
        config=config,
        decoder=Decoder(trained, layouts["training"]),
        sampling_decoder=Decoder(policy, layouts["sampling"]),
        sampling=sampling,
        objective=objective,
        optimizer=optimizer,
        warm_start_optimizer=warm_start_optimizer,
        learning_rate=jax.jit(configured_schedule(config.optimizer, phases, steps=config.steps)),
        micro_batch=MicroBatch(
            config.micro_batch.problems,
            config.micro_batch.samples,
            _TOKENS_OF_A_CPU if on_a_cpu else None,
        ),
        weighted_only=checks.weighted_only(config, objective, trained),
        unpadded=checks.unpadded(config, trained, layouts["training"]),
        unrolls=unrolls,
    )


def _task(named: ConfigDict, config: ConfigDict, chat: Chat) -> tasks.Task:
    return tasks.make(named.name, chat=chat, data_dir=config.data_dir, **named.options.to_dict())


def _examples(
    config: ConfigDict, problems: Sequence[tasks.Problem], tokenizer: Tokenizer, chat: Chat
) -> tuple[Sequence[tasks.Problem], int]:
    """Returns `checks.checked_examples` of the training problems, or of another task's."""
    if config.warm_start.task.name is not None:
        with section("warm_start.task"):
            task = _task(config.warm_start.task, config, chat)
        if config.drop_long_problems:
            task = _without_long(config, task, tokenizer, {"train": True})
        problems = task.split("train")
    return checks.checked_examples(config, problems, tokenizer)


def _rewarded(config: ConfigDict, task: tasks.Task) -> rewards.Rewarded | None:
    """Returns the task with the rewards that `config.task.reward` names, if any."""
    own = config.task
    if own.reward is not None:
        limits = rewards.Limits(**own.reward_limits)
        return rewards.Rewarded(task, own.reward, own.reward_weights.to_dict(), limits)
    if own.reward_weights:
        raise ConfigError(f"reward_weights = {own.reward_weights.to_dict()}: reward is None")
    if not getattr(task, "graded", True):
        raise ConfigError("reward = None: this task has no grader, so it needs a reward function")
    return None


def _stops(config: ConfigDict, tokenizer: Tokenizer, decoder: Decoder) -> jax.Array | None:
    with section():
        strings = stops.check(config.sampling.stop_strings)
    return decoder.layout.put(stops.automaton(strings, tokenizer.pieces())) if strings else None


def _shared(
    config: ConfigDict, problems: Sequence[tasks.Problem], tokenizer: Tokenizer
) -> tuple[int, ...]:
    """Returns what the prompts of some problems begin with; `Parts.prompts` looks at each batch."""
    some = [problems[i].prompt for i in range(0, len(problems), 1 + len(problems) // _LOOKED_AT)]
    return shared_beginning(encode_prompts(some, tokenizer, config.sampling.max_prompt_tokens))


def _without_long(
    config: ConfigDict, task: tasks.Task, tokenizer: Tokenizer, splits: Mapping[str, bool]
) -> tasks.Task:
    """Leaves out the problems that the token limits have no room for, and says how many.

    Args:
      config: The run's config.
      task: The task.
      tokenizer: The policy's tokenizer.
      splits: For each split, whether its worked examples need room too.
    """
    limits = config.sampling

    def fits(problem: tasks.Problem, taught: bool) -> bool:
        example = problem.worked_example if taught else None
        return _fits(encode_prompts, [problem.prompt], tokenizer, limits.max_prompt_tokens) and (
            example is None
            or _fits(encode_responses, [example], tokenizer, limits.max_response_tokens)
        )

    kept = subset.Subset(
        task, {name: functools.partial(fits, taught=taught) for name, taught in splits.items()}
    )
    for split in [name for name in ("train", config.evaluation.split) if name in splits]:
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
