"""A run that never was: metrics, samples and configuration as training writes them."""

import copy
import functools
import json
import pathlib

import numpy as np
import pytest

from passk_jax import tracking
from passk_jax.tasks import Problem, arithmetic

CONFIG = {
    "seed": 0,
    "steps": 300,
    "prompts_per_step": 32,
    "samples_per_prompt": 16,
    "eval_every_steps": 25,
    "checkpoint_every_steps": 50,
    "warm_start": {"steps": 400, "learning_rate": 1e-3},
    "estimator": {"name": "sloo_minus_one", "k": 8},
    "optimizer": {"name": "adamw", "learning_rate": 2e-5, "clip_norm": 1.0, "warm_up_steps": 10},
    "task": {"name": "arithmetic", "options": {"max_n": 13, "worked_example": "steps"}},
    "sampling": {"temperature": 1.0, "top_k": None, "top_p": None, "max_response_tokens": 16},
    "evaluation": {
        "split": "validation",
        "num_problems": None,
        "samples_per_prompt": 16,
        "temperature": 1.0,
    },
    "policy": {"layers": 4, "width": 128, "tokenizer": "byte"},
    "mesh": {"data": 1, "fsdp": 1, "model": 1},
}


@pytest.fixture(scope="session")
def write_run():
    """Returns a function that fills a folder with such a run, and returns its path."""
    return _write_run


def _write_run(workdir, *, steps=300, eval_every=25, k_changes_at=None, seed=0, **changes):
    """Fills `workdir` with a run in which problems of all difficulties get a little easier.

    `changes` are of the config, "a.b" written a__b.
    """
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    config = copy.deepcopy(CONFIG) | {"steps": steps, "seed": seed}
    for key, value in changes.items():
        *parents, name = key.split("__")
        functools.reduce(dict.__getitem__, parents, config)[name] = value
    (workdir / "config.json").write_text(json.dumps(config, indent=2))
    rng = np.random.default_rng(seed)
    train_logits, eval_logits = rng.normal(-1.3, 2.2, 5000), rng.normal(-1.3, 2.2, 500)
    solved = tracking.solve_record.empty(5000)
    held_out = [Problem(f"p{i}", "", None) for i in range(500)]
    with tracking.Writer(workdir, writers=()) as writer:
        for i in range(400 if steps else 0):
            loss = 0.35 + 3.2 * np.exp(-i / 60) + rng.normal(0, 0.03)
            writer.write(0, {"warm_start/step": i + 1, "warm_start/loss": loss})
        for step in range(steps + 1):
            gain = 1.1 * (1 - np.exp(-step / 140))
            row = {}
            if step:
                k = 8 if k_changes_at is None or step < k_changes_at else 1
                indices = rng.integers(0, 5000, 32)
                correct, answers = _sample(rng, train_logits[indices] + gain)
                solved = tracking.solve_record.update(solved, indices, correct, step)
                row = _train_row(rng, step, k, correct, answers, solved)
                if step % 50 == 0 or step == steps:
                    writer.write_samples(step, _sample_rows(rng, correct, answers, k))
            if step % eval_every == 0 or step == steps:
                correct, answers = _sample(rng, eval_logits + gain)
                writer.write_evaluation(step, held_out, correct)
                texts = _sample_rows(rng, correct, answers, None)
                writer.write_samples(step, ({**each, "split": "validation"} for each in texts))
                row |= tracking.group_metrics(correct, correct, answers, prefix="eval", stderr=True)
            writer.write(step, row)
    return workdir


def _sample(rng, logits_P):
    correct_PxN = rng.random((len(logits_P), 16)) < (1 / (1 + np.exp(-logits_P)))[:, None]
    wrong_PxN = np.minimum(rng.geometric(0.25, correct_PxN.shape), 12)
    answers = [
        ["right" if right else f"wrong {number}" for right, number in zip(*row, strict=True)]
        for row in zip(correct_PxN.tolist(), wrong_PxN.tolist(), strict=True)
    ]
    return correct_PxN, answers


def _train_row(rng, step, k, correct, answers, solved):
    return {
        **tracking.group_metrics(correct, correct, answers, prefix="train"),
        "train/cumulative_solve_rate": tracking.solve_record.cumulative_solve_rate(solved),
        "train/entropy": 0.42 - 0.12 * (1 - np.exp(-step / 150)) + rng.normal(0, 0.01),
        "train/response_tokens": 8.1 + 0.4 * step / 300 + rng.normal(0, 0.1),
        "train/truncated": rng.binomial(512, 0.01) / 512,
        "train/k": k,
        "train/gradient_norm": rng.lognormal(-0.5, 0.35),
        "train/loss": rng.normal(-0.05, 0.02),
        "train/learning_rate": 2e-5 * min(1, step / 10),
        "train/sampling_tokens_per_s": 2.1e4 * (0.1 if step == 1 else 1 + rng.normal(0, 0.04)),
        "train/update_tokens_per_s": 3.4e4 * (0.1 if step == 1 else 1 + rng.normal(0, 0.04)),
        "train/step_time_s": 6.0 if step == 1 else 0.45 + rng.normal(0, 0.02),
    }


def _sample_rows(rng, correct, answers, k):
    for row in range(6):
        a, b, c, d = (rng.integers(1, 14, 4) if k else row + np.arange(1, 5)).tolist()
        problem = arithmetic.make_problem(a, b, c, d)
        completions = []
        for right, name in zip(correct[row].tolist(), answers[row], strict=True):
            off = 0 if right else int(name.split()[1])
            answer = str(int(problem.reference) + off)
            text = f"{a * b}+{c * d + off}={answer}\n"
            weight = k and (k / 16 if right and not correct[row].all() else 0.0)
            completions.append(
                {
                    "text": text,
                    "reward": float(right),
                    "correct": right,
                    "weight": weight,
                    "final_answer": answer,
                }
            )
        yield {
            "problem": problem.id,
            "prompt": problem.prompt,
            "reference": problem.reference,
            "completions": completions,
        }
