"""TRL's own trainer, on a model of a few hundred parameters, with our advantages."""

import numpy as np
import pytest

from passk_jax import transforms
from passk_jax.integrations import trl as passk_trl

pytest.importorskip("trl", reason="TRL is not installed: make setup-trl")
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

WORDS = ["<pad>", "<eos>", *"abcdefgh"]


def trainer(tmp_path, cls, reward):
    words = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>"
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(WORDS), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
            num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, eos_token_id=1,
            bos_token_id=1,
        )
    )  # fmt: skip
    arguments = GRPOConfig(
        output_dir=str(tmp_path), num_generations=4, per_device_train_batch_size=8, max_steps=1,
        max_completion_length=3, learning_rate=1e-2, report_to=[], use_cpu=True, beta=0.0,
        save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    prompts = Dataset.from_dict({"prompt": ["a b", "c d", "e f", "g h"]})
    return cls(
        model=model, reward_funcs=reward, args=arguments, train_dataset=prompts,
        processing_class=tokenizer,
    )  # fmt: skip


def starts_early(completions, **_):
    return [float(text.strip()[:1] in "abcd") for text in completions]


def test_the_trainer_climbs_our_advantages(tmp_path):
    batches = []

    class Seen(passk_trl.with_estimator(GRPOTrainer, "sloo_minus_one", k=2)):
        def _generate_and_score_completions(self, *args):
            batches.append(super()._generate_and_score_completions(*args))
            return batches[-1]

    run = trainer(tmp_path, Seen, starts_early)
    before = [p.detach().clone() for p in run.model.parameters()]
    run.train()
    rewards = np.array(run._logs["rewards"]["starts_early"], np.float32).reshape(-1, 4)
    assert 0 < rewards.mean() < 1
    expected = np.asarray(transforms.make("sloo_minus_one")(rewards, 2))
    np.testing.assert_allclose(batches[0]["advantages"].numpy(), expected.ravel(), rtol=1e-6)
    np.testing.assert_allclose(list(run._logs["advantages"]), expected.ravel(), rtol=1e-6)
    assert any((p != q).any() for p, q in zip(before, run.model.parameters(), strict=True))


def test_equal_rewards_leave_the_model_as_it_is(tmp_path):
    cls = passk_trl.with_estimator(GRPOTrainer, "sloo_minus_one", k=2)
    run = trainer(tmp_path, cls, lambda completions, **_: [1.0] * len(completions))
    before = [p.detach().clone() for p in run.model.parameters()]
    run.train()
    assert all((p == q).all() for p, q in zip(before, run.model.parameters(), strict=True))


def test_mistakes(tmp_path):
    for name, needs in (("adaptive", "high_entropy"), ("bootstrap", "key"), ("edas", "answers")):
        with pytest.raises(ValueError, match=f"{name}: needs {needs}, which TRL does not give"):
            passk_trl.with_estimator(GRPOTrainer, name, 2)
    with pytest.raises(ValueError, match="pkr: gamma must be given"):
        passk_trl.with_estimator(GRPOTrainer, "pkr")
    cls = passk_trl.with_estimator(GRPOTrainer, "grpo_k", k=9)
    with pytest.raises(ValueError, match="grpo_k: k = 9 with n = 4"):
        trainer(tmp_path, cls, starts_early).train()
