"""From a config to the parts of a run, each checked before anything is compiled."""

import dataclasses
import functools
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from passk_jax import processes, tasks, transforms
from passk_jax.advantages import Transformation, make_transformation
from passk_jax.groups import Scores
from passk_jax.learner.checkpoint import CheckpointError, fingerprints
from passk_jax.learner.micro_batch import MicroBatch, minibatch
from passk_jax.learner.optimizer import learning_rate_schedule
from passk_jax.learner.train_state import (
    TrainState,
    abstract_base,
    base_params,
    sampling_params,
)
from passk_jax.learner.update import (
    policy_gradient_update,
    rollout_logprobs,
    supervised_update,
)
from passk_jax.policy.params import load
from passk_jax.policy.tokenizer import Tokenizer, make_tokenizer
from passk_jax.programs import (
    ConfigError,
    Programs,
    build_programs,
    config_errors,
    learning_rate_phases,
    named,
)
from passk_jax.rollout.prompts import (
    Prompts,
    bucket_for,
    encode_prompts,
    encode_responses,
)
from passk_jax.rollout.sampler import Rollout, sample, shortened
from passk_jax.tasks import subset
from passk_jax.tasks.order import ORDERS

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Experiment(Programs):
    """The parts of a run, made by `build` from its config: what is compiled, and what it is for."""

    task: tasks.Task
    tokenizer: Tokenizer
    transformation: Transformation

    def digest(self) -> int:
        """A number that changes with the problems: hosts with other data have another."""
        splits = (self.task.split(name) for name in ("train", self.config.evaluation.split))
        asked = "\n".join(f"{p.id} {p.prompt!r}" for problems in splits for p in problems)
        return zlib.crc32(asked.encode(errors="surrogatepass"))

    def prompts(self, problems: Sequence[tasks.Problem]) -> Prompts:
        """The problems' prompts as left-padded token arrays on the devices."""
        sampling = self.config.sampling
        host = encode_prompts(
            [problem.prompt for problem in problems],
            self.tokenizer,
            sampling.max_prompt_tokens,
            sampling.prompt_buckets or (),
        )
        return jax.tree.map(self._put_problems, host)

    def _put_problems(self, array: np.ndarray) -> jax.Array:
        return self.decoder.layout.put(array, "problems")

    def base(self, expected: Mapping[str, int] | None = None) -> Any:
        """The parameters that LoRA adds to, for `TrainState.frozen`; `None` without LoRA.

        Args:
          expected: the fingerprints that they must have; `None` where a run begins.

        Raises:
          CheckpointError: they cannot be read, or are not those.
        """
        config = self.config
        if config.lora.rank is None:
            return None
        where = f"config.init_from = {config.init_from!r}"
        if config.init_from is None:
            base = base_params(self.decoder, config.seed)
        else:
            try:
                base = load(config.init_from, self.decoder.config, abstract_base(self.decoder))
            except CheckpointError as error:
                raise CheckpointError(
                    f"{where}: LoRA needs it whenever it begins or goes on: {error}"
                ) from error
        if expected is not None:
            found = fingerprints(base)
            changed = [name for name in found if found[name] != expected.get(name)]
            if changed:
                raise CheckpointError(
                    f"{where}: these are not the parameters that LoRA was trained on: "
                    f"{len(changed)} of {len(found)} arrays differ, the first is {changed[0]}. "
                    "Put back the folder that the run began with"
                )
        return base

    def sampling_params(self, variables: Mapping[str, Any]) -> Any:
        """The update's parameters as `sample` wants them: in its layout, of the arithmetic's dtype.

        Where that makes a copy, it takes memory for as long as it is kept.
        """
        return sampling_params(variables, self.sampling_decoder, self.decoder.config.lora_scale)

    def sample(
        self,
        params: Any,
        problems: Sequence[tasks.Problem],
        key: jax.Array,
        *,
        num_samples: int | None = None,
        temperature: float | None = None,
    ) -> Rollout:
        """Samples completions for each problem; `None` for what the config says of training.

        The parameters are those of `sampling_params`.
        """
        config = self.config
        return sample(
            params,
            self.prompts(problems),
            key,
            config.sampling.temperature if temperature is None else temperature,
            decoder=self.sampling_decoder,
            num_samples=config.samples_per_prompt if num_samples is None else num_samples,
            config=self.sampling,
            stop_ids=self.tokenizer.stop_ids,
            pad_id=self.tokenizer.pad_id,
        )

    def score(
        self,
        problems: Sequence[tasks.Problem],
        rollout: Rollout,
        num_texts: int | None = None,
    ) -> Scores:
        """Decodes the completions and has the task score them, each process its own.

        Args:
          problems: P of them.
          rollout: of these problems.
          num_texts: of how many problems the texts are wanted; `None` for all.

        Raises:
          ValueError: the task returned a reward that is not finite.
        """
        own = functools.partial(self._score_own, problems, rollout, num_texts)
        return _merge(rollout.tokens.shape[:2], processes.together(own, share=True))

    def _score_own(
        self, problems: Sequence[tasks.Problem], rollout: Rollout, num_texts: int | None
    ) -> list[list]:
        """Scores what this process holds: [p, n, reward, correct, answer, text or None] each."""
        own = processes.own_rows(rollout.tokens)
        asked = [problems[p] for p, _ in own]
        texts = [self.tokenizer.decode(ids.tolist()) for ids in own.values()]
        rows = []
        for (p, n), problem, text, score in zip(
            own, asked, texts, self.task.score(asked, texts), strict=True
        ):
            if not np.isfinite(np.float32(score.reward)):
                raise ValueError(
                    f"task {self.config.task.name!r} gave reward {score.reward} to a completion of "
                    f"problem {problem.id!r}: rewards must be finite numbers. The completion was "
                    f"{text[:200]!r}"
                )
            text = text if num_texts is None or p < num_texts else None
            rows.append([p, n, float(score.reward), bool(score.correct), score.final_answer, text])
        return rows

    def sample_and_score(
        self,
        params: Any,
        problems: Sequence[tasks.Problem],
        key: jax.Array,
        *,
        num_samples: int,
        temperature: float,
        num_texts: int = 0,
    ) -> Scores:
        """Evaluates any number of problems, in batches of one shape so that nothing recompiles.

        The parameters are those of `sampling_params`. The last batch is filled up with repeated
        problems, which are dropped again. A batch is scored while the next one is sampled. Texts
        are kept of the first `num_texts` problems.
        """
        size = self.config.evaluation.prompts_per_batch
        scored = []
        with futures.ThreadPoolExecutor(1) as scorer:
            for start in range(0, len(problems), size):
                batch = list(problems[start : start + size])
                filled = (batch * size)[:size]
                rollout = self.sample(
                    params,
                    filled,
                    jax.random.fold_in(key, start),
                    num_samples=num_samples,
                    temperature=temperature,
                )
                if len(scored) > 1:
                    futures.wait(scored[-2:-1])  # no more than two batches wait
                scored.append(
                    scorer.submit(self._score_own, filled, rollout, max(num_texts - start, 0))
                )

        def own():
            batches = [future.result() for future in scored]
            rows = [[b * size + p, *row] for b, each in enumerate(batches) for p, *row in each]
            return [row for row in rows if row[0] < len(problems)]

        # Not while others are sampled: all processes use the devices in the same order.
        return _merge((len(problems), num_samples), processes.together(own, share=True))

    def transform(
        self, rewards_PxN: np.ndarray, rollout: Rollout, key: jax.Array, step: int
    ) -> jax.Array:
        """Advantages (P, N) by the estimator of update `step`, counted from 0.

        The key is for an estimator that draws.

        Raises:
          ValueError: rewards that the estimator does not take.
        """
        self.transformation.check(rewards_PxN, step)
        return self.transformation(self.decoder.layout.put(rewards_PxN), rollout, key, step)

    def learning_rate(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0 (that of its last update)."""
        return float(self._learning_rate(step))

    @functools.cached_property
    def _learning_rate(self) -> Callable[[int], jax.Array]:
        phases, warmup_steps = learning_rate_phases(self.config), self.config.optimizer.warmup_steps
        return jax.jit(learning_rate_schedule(phases, warmup_steps))

    def update(
        self, state: TrainState, rollout: Rollout, advantages_PxN: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """The policy-gradient updates of one step; `state` is donated.

        With several, the figures are means over them.
        """
        config, objective = self.config, self.objective
        temperature = config.sampling.temperature
        sizes = {
            "decoder": self.decoder,
            "chunk_tokens": config.logprob_chunk_tokens,
            "micro_batch": MicroBatch(config.micro_batch.problems, config.micro_batch.samples),
        }
        rollout = self._shortened(rollout)
        reference_logp_PxNxR = old_logp_PxNxR = None
        if objective.keeps_reference:
            reference = state.variables(state.reference)
            reference_logp_PxNxR = rollout_logprobs(reference, rollout, temperature, **sizes)
        if objective.updates_per_step > 1:
            old_logp_PxNxR = rollout_logprobs(state.variables(), rollout, temperature, **sizes)
        batch = (rollout, advantages_PxN, reference_logp_PxNxR, old_logp_PxNxR)
        each = []
        for update in range(objective.updates_per_step):
            part = batch
            if objective.minibatches > 1:
                part = minibatch(batch, update % objective.minibatches, objective.minibatches)
            rollout, advantages_PxN, *logps = part
            state, figures = policy_gradient_update(
                state, rollout, advantages_PxN, temperature, *logps,
                optimizer=self.optimizer, objective=objective, **sizes,
            )  # fmt: skip
            each.append(figures)
        return state, each[0] if len(each) == 1 else _mean(each)

    def _shortened(self, rollout: Rollout) -> Rollout:
        """Without the columns of padding beyond the bucket that the longest completion needs."""
        if not self.sampling.response_buckets:
            return rollout
        longest = int(jnp.max(jnp.sum(rollout.mask, axis=-1)))
        limit = self.sampling.max_response_tokens
        return shortened(rollout, bucket_for(longest, self.sampling.response_buckets, limit))

    def imitate(
        self, state: TrainState, problems: Sequence[tasks.Problem]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """One supervised step on the problems' worked examples; `state` is donated."""
        responses = encode_responses(
            [problem.worked_example for problem in problems],
            self.tokenizer,
            self.config.sampling.max_response_tokens,
        )
        return supervised_update(
            state,
            self.prompts(problems),
            *map(self._put_problems, responses),
            decoder=self.decoder,
            optimizer=self.warm_start_optimizer,
            chunk_tokens=self.config.logprob_chunk_tokens,
            micro_batch=MicroBatch(self.config.micro_batch.problems),
        )


@jax.jit
def _mean(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: sum(leaves) / len(leaves), *trees)


def _merge(shape: tuple[int, int], shares: Sequence[list[list]]) -> Scores:
    """The scores of all processes, each row at its place."""
    rows = sorted((row for share in shares for row in share), key=lambda row: row[:2])
    if [row[:2] for row in rows] != [list(place) for place in np.ndindex(shape)]:
        raise AssertionError(f"{len(rows)} scores are not one for each of {shape} completions")
    _, _, rewards, correct, answers, texts = zip(*rows, strict=True)

    def groups(values):
        return [list(values[i : i + shape[1]]) for i in range(0, len(values), shape[1])]

    return Scores(
        rewards_PxN=np.asarray(rewards, np.float32).reshape(shape),
        correct_PxN=np.asarray(correct, bool).reshape(shape),
        texts=groups(texts),
        final_answers=groups(answers),
    )


@config_errors()
def build(config: ConfigDict) -> Experiment:
    """Makes and checks every part that a config names.

    Raises:
      ConfigError: see the class.
    """
    tokenizer = make_tokenizer(config.tokenizer.name, config.tokenizer.path)
    programs = build_programs(config, tokenizer.vocab_size)
    transformation = named(None, make_transformation, config, tokenizer.stop_ids)
    task = named(
        "task",
        tasks.make,
        config.task.name,
        tokenizer=tokenizer,
        data_dir=config.data_dir,
        **config.task.options.to_dict(),
    )
    if config.keep_problems is not None:
        task = named("keep_problems", _keep, task, config.keep_problems)
    if config.drop_long_problems:
        task = _without_long(config, task, tokenizer)
    _check_rewards(config, task, transformation)
    if config.order not in ORDERS:
        raise ConfigError(f"config.order = {config.order!r}: must be one of {', '.join(ORDERS)}")
    parts = {field.name: getattr(programs, field.name) for field in dataclasses.fields(programs)}
    experiment = Experiment(**parts, task=task, tokenizer=tokenizer, transformation=transformation)
    _check_problems(experiment)
    return experiment


def _keep(task: tasks.Task, file: str) -> tasks.Task:
    return subset.with_ids(task, subset.read_ids(file), file)


def _without_long(config: ConfigDict, task: tasks.Task, tokenizer: Tokenizer) -> tasks.Task:
    """Leaves out the problems that the token limits have no room for, and says how many."""

    def prompt_fits(problem: tasks.Problem) -> bool:
        return _works(
            encode_prompts, [problem.prompt], tokenizer, config.sampling.max_prompt_tokens
        )

    def fits(problem: tasks.Problem) -> bool:
        example = problem.worked_example
        return prompt_fits(problem) and (
            not config.warm_start.steps
            or example is None
            or _works(encode_responses, [example], tokenizer, config.sampling.max_response_tokens)
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


def _works(function: Callable, *args: Any) -> bool:
    try:
        function(*args)
    except ValueError:
        return False
    return True


def _check_rewards(config: ConfigDict, task: tasks.Task, transformation: Transformation) -> None:
    """An estimator, or noise, for 0/1 rewards needs a task that gives no others."""
    gives = f"task {config.task.name!r} gives others"
    if config.estimator.truncated_penalty is not None:
        gives = (
            f"config.estimator.truncated_penalty = {transformation.truncated_penalty} makes others"
        )
    elif task.binary_rewards:
        return
    wants = {
        f"config.estimator.name = {name!r}": transforms.lookup(name).binary
        for _, name in transformation.names
    }
    wants["config.estimator.noise_share"] = config.estimator.noise_share is not None
    for key, binary in wants.items():
        if binary and not (key.endswith("noise_share") and task.binary_rewards):
            real = [row.name for row in transforms.ESTIMATORS.values() if not row.binary]
            raise ConfigError(
                f"{key}: takes rewards of 0 and 1 only, and {gives}. Any reward is taken by "
                f"{', '.join(real)}"
            )


def _check_problems(experiment: Experiment) -> None:
    """Encodes every problem that the run may meet: a prompt or an example that is too long."""
    config, tokenizer = experiment.config, experiment.tokenizer
    train = experiment.task.split("train")
    held_out = named("evaluation.split", experiment.task.split, config.evaluation.split)
    for split, problems in (("train", train), (config.evaluation.split, held_out)):
        if not problems:
            raise ConfigError(f"task {config.task.name!r} has no problems in its {split} split")
        encode_prompts(
            [problem.prompt for problem in problems], tokenizer, config.sampling.max_prompt_tokens
        )
    if config.warm_start.steps:
        missing = [problem.id for problem in train if problem.worked_example is None]
        if missing:
            raise ConfigError(
                f"config.warm_start.steps = {config.warm_start.steps}, but {len(missing)} training "
                f"problems have no worked example ({missing[0]!r}, say): only 0 is allowed"
            )
        encode_responses(
            [problem.worked_example for problem in train],
            tokenizer,
            config.sampling.max_response_tokens,
        )
