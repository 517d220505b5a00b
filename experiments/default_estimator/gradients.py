"""How much the gradients of the same batches vary with each estimator; needs the runs of run.py.

python -m experiments.default_estimator.gradients --runs runs/default_estimator
"""

import argparse
import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from experiments.default_estimator.run import NAMES, K, studies
from experiments.running import Run
from experiments.study import Study
from passk_jax import transforms
from passk_jax.learner.gradient_cosine import policy_gradients
from passk_jax.run.parts import Parts, build
from passk_jax.run.sampling import sample, score
from passk_jax.run.state import restore_variables

BATCHES = 32
REMEMBERED = "sloo_posterior, one earlier group"


def weights(rewards_PxN: jax.Array, history: transforms.History) -> dict[str, jax.Array]:
    """Returns the (P, N) weights of each estimator, and of the one that remembers."""
    found = {
        name: jax.vmap(functools.partial(getattr(transforms, name), k=K))(rewards_PxN)
        for name in NAMES
    }
    remembering = functools.partial(transforms.sloo_posterior, k=K)
    found[REMEMBERED] = jax.vmap(lambda r, h: remembering(r, history=h))(rewards_PxN, history)
    return found


@functools.partial(jax.jit, static_argnames=("decoder", "chunk_tokens"))
def gradients(variables, rollout, weights, temperature, **sizes) -> list:
    """Returns the policy gradient with each kind of (P, N) weights."""
    of_params = lambda params: {"params": params}  # noqa: E731
    return policy_gradients(variables["params"], of_params, rollout, weights, temperature, **sizes)


def squares(gradients) -> np.ndarray:
    """Returns the squared norm of each gradient."""
    return np.array([float(optax.global_norm(each)) ** 2 for each in gradients])


def variances(parts: Parts, run: Run) -> dict[str, float]:
    """Returns the variance of each estimator's gradient, summed over the parameters.

    Each batch is as large as a step's, and of problems of its own choice. All estimators see the
    same samples. Another group of each problem is what the last one remembers.
    """
    _, variables = restore_variables(parts, epath.Path(run.workdir))
    params, config = parts.sampling_params(variables), parts.config
    chosen = np.random.default_rng(run.seed)
    total, norms = None, []
    for batch in range(BATCHES):
        picked = chosen.choice(len(parts.problems), config.prompts_per_step, replace=False)
        problems = [parts.problems[i] for i in picked]
        keys = jax.random.split(jax.random.key(1000 * run.seed + batch))
        rollout, earlier = (sample(parts, params, problems, key) for key in keys)
        solved = score(parts, problems, earlier, 0).correct_PxN.sum(1)
        counts = np.full(solved.shape, config.samples_per_prompt)
        known = transforms.History(*(jnp.asarray(x, jnp.float32) for x in (solved, counts)))
        by_name = weights(jnp.asarray(score(parts, problems, rollout, 0).rewards_PxN), known)
        found = gradients(
            variables,
            rollout,
            list(by_name.values()),
            config.sampling.temperature,
            decoder=parts.decoder,
            chunk_tokens=config.logprob_chunk_tokens,
        )
        norms.append(squares(found))
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    of_mean = squares(jax.tree.map(lambda x: x / BATCHES, total))
    variance = (np.mean(norms, axis=0) - of_mean) * BATCHES / (BATCHES - 1)
    return dict(zip(by_name, map(float, variance), strict=True))


def measured(study: Study, folder: pathlib.Path) -> dict[str, dict[str, list[float]]]:
    """Returns, before and after training with the baseline, each estimator's variance by seed."""
    runs = study.runs(folder)
    trained = {run.seed: run for run in runs if run.arm == study.baseline}
    found = {}
    for when in ("before", "after"):
        seeds = []
        for run in trained.values():
            of = run.after if when == "before" else run
            seeds.append(variances(build(of.config), of))
            print(study.name, when, run.seed, seeds[-1], flush=True)
        found[when] = {name: [each[name] for each in seeds] for name in seeds[0]}
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Returns Markdown: each variance over the baseline's, its mean and standard error."""
    lines = ["|  | " + " | ".join(found) + " |", "| --- " * (len(found) + 1) + "|"]
    for name in next(iter(found.values())):
        cells = []
        for variance in found.values():
            ratio = np.divide(variance[name], variance[NAMES[0]])
            error = ratio.std(ddof=1) / len(ratio) ** 0.5
            cells.append(f"{ratio.mean():.2f} ± {error:.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    found = {study.name: measured(study, arguments.runs) for study in studies()}
    home = pathlib.Path(__file__).parent
    (home / "gradients.json").write_text(json.dumps(found, indent=1) + "\n")
    every = {f"{name}, {when}": x for name, whens in found.items() for when, x in whens.items()}
    print(table(every))
