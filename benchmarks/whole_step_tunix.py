"""Tunix's GRPOLearner for `benchmarks.whole_step`: it takes a step whenever it is called."""

import threading

import jax
import numpy as np
import optax
from flax import nnx
from tunix.models.llama3 import model as llama
from tunix.rl.grpo.grpo_learner import GRPOConfig, GRPOLearner
from tunix.rl.rl_cluster import ClusterConfig, RLCluster, RLTrainingConfig, Role
from tunix.rl.rollout.base_rollout import RolloutConfig

from benchmarks.smollm2 import NEVER


class Tunix:
    """Trains a Llama of these sizes in a thread of its own, which waits between two steps.

    Args:
      sizes: Those of the model.
      prompts: Texts of `prompt_tokens` tokens each.
      num_samples: Of each prompt.
      new_tokens: Of each sample.
      tokenizer: One of `transformers`.
      reward: From a text to its reward.
    """

    def __init__(self, sizes, prompts, prompt_tokens, num_samples, new_tokens, tokenizer, reward):
        self.model = llama.Llama3(
            llama.ModelConfig(**sizes, rope_theta=10_000, weight_tying=True), rngs=nnx.Rngs(0)
        )
        types = (jax.sharding.AxisType.Auto,) * 2
        mesh = jax.make_mesh((1, 1), ("fsdp", "tp"), types, devices=jax.devices()[:1])
        rollout = RolloutConfig(
            max_tokens_to_generate=new_tokens,
            max_prompt_length=prompt_tokens,
            kv_cache_size=prompt_tokens + new_tokens,
            temperature=1.0,
            eos_tokens=[NEVER],
        )
        training = RLTrainingConfig(
            actor_optimizer=optax.adamw(1e-3), eval_every_n_steps=10**9, max_steps=10**9
        )
        cluster = RLCluster(
            actor=self.model,
            tokenizer=tokenizer,
            cluster_config=ClusterConfig(
                role_to_mesh=dict.fromkeys((Role.ACTOR, Role.REFERENCE, Role.ROLLOUT), mesh),
                training_config=training,
                rollout_config=rollout,
            ),
        )
        self.learner = GRPOLearner(
            cluster,
            GRPOConfig(num_generations=num_samples, beta=0.0),
            reward_fns=lambda completions, **_: [reward(text) for text in completions],
        )
        self.prompts = prompts
        self.wanted, self.wants = threading.Semaphore(0), threading.Semaphore(0)
        self.error, self.closed = None, False
        self.thread = threading.Thread(target=self._train, daemon=True)
        self.thread.start()
        self._wait()

    def __call__(self):
        self.wanted.release()
        self._wait()

    def close(self):
        """Ends the learner: a process does not exit while its threads wait for another step."""
        self.closed = True
        self.wanted.release()
        self.thread.join()

    def _train(self):
        try:
            self.learner.train(self._batches())
        except BaseException as error:
            self.error = error
            self.wants.release()

    def _batches(self):
        while True:
            self.wants.release()
            self.wanted.acquire()
            if self.closed:
                return
            yield {"prompts": np.array(self.prompts)}

    def _wait(self):
        """Waits until the learner asks for the next batch, and its update is done."""
        self.wants.acquire()
        if self.error is not None:
            raise self.error
        jax.block_until_ready(nnx.state(self.model))
