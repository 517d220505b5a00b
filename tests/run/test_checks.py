"""Each mistake is one clear error that names key, value and what is allowed, before compiling."""

import dataclasses

import jax
import pytest

from passk_jax.errors import ConfigError
from passk_jax.learner.objective import Objective
from passk_jax.policy.config import SMALL, SMOLLM2_135M
from passk_jax.policy.sharding import Layout, make_layout, make_mesh
from passk_jax.run import checks, record, workdir
from passk_jax.run.loop import train
from passk_jax.run.parts import build
from passk_jax.tasks.base import Score
from tests.tiny import tiny_config

MISTAKES = [
    (dict(estimator__k=5), r"config.estimator.*k = 5.*n = 4"),
    (dict(estimator__k=0), r"config.estimator.*k = 0"),
    (dict(estimator__k=((0, 2), (3, 9))), r"config.estimator.*k = 9"),
    (dict(estimator__k="two"), r"estimator.k = 'two'"),
    (dict(estimator__name="sloo", estimator__k=4), r"config.estimator.*k = 4.*n = 4"),
    (dict(samples_per_prompt=1, estimator__k=1), r"config.samples_per_prompt = 1.*at least 2"),
    (dict(estimator__name="sloo_minus_two"), r"sloo_minus_two.*sloo_minus_one"),
    (dict(estimator__name="grpo"), r"config.estimator: grpo: k = 2, allowed: None"),
    (dict(estimator__k=None), r"config.estimator: sloo_minus_one: k must be an integer, got None"),
    (dict(estimator__k=2.5), r"config.estimator: sloo_minus_one: k must be an integer, got 2\.5"),
    (dict(estimator__name="pkr", estimator__k=None), r"pkr: gamma must be given.*gamma >= 1"),
    (dict(estimator__gamma=2.0), r"sloo_minus_one: takes no gamma, got 2\.0"),
    (
        dict(estimator__name="pkr", estimator__k=None, estimator__gamma=0.5),
        r"config.estimator: pkr: gamma = 0\.5, allowed: gamma >= 1",
    ),
    (dict(estimator__noise_share=1.5), r"config.estimator.noise_share = 1\.5.*\[0, 1\]"),
    (dict(task__name="arithmetics"), r"arithmetics.*arithmetic"),
    (dict(tokenizer__name="bytes"), r"tokenizer.name = 'bytes'.*byte"),
    (dict(optimizer__name="adam"), r"optimizer.name = 'adam'.*adamw"),
    (dict(task__options__max_n=2), r"config.task.*max_n = 2"),
    (dict(sampling__max_prompt_tokens=10), r"sampling.max_prompt_tokens = 10"),
    (dict(sampling__max_response_tokens=4), r"sampling.max_response_tokens = 4"),
    (dict(sampling__temperature=0.0), r"config.sampling.temperature = 0.0"),
    (dict(sampling__top_p=1.5), r"sampling.top_p = 1.5"),
    (dict(steps=-1), r"config.steps = -1"),
    (dict(figure_ks=(1, 5)), r"config.figure_ks = \(1, 5\): .* 1 to 4 and all at most 4"),
    (dict(figure_ks=(8,), evaluation__samples_per_prompt=8), r"the first from 1 to 4 and all"),
    (dict(figure_ks=(2, 1)), r"config.figure_ks = \(2, 1\): must be rising"),
    (dict(figure_ks=(1, 1)), r"config.figure_ks = \(1, 1\)"),
    (dict(figure_ks=(0, 1)), r"config.figure_ks = \(0, 1\)"),
    (dict(figure_ks=(1, 2.0)), r"config.figure_ks = \(1, 2.0\)"),
    (dict(figure_ks=()), r"config.figure_ks = \(\)"),
    (dict(figure_ks=4), r"config.figure_ks = 4: must be rising integers such as"),
    (dict(gradient_cosine_every_steps=0), r"gradient_cosine_every_steps = 0: must be at least 1"),
    (dict(seed=2**32), r"config.seed = 4294967296: .* below 2\^32"),
    (dict(max_skipped_steps=0), r"config.max_skipped_steps = 0: must be at least 1"),
    (dict(objective__clip_dual=1.0, objective__epochs=2), r"clip_dual = 1.0: must be above 1"),
    (dict(objective__clip_dual=3.0), r"clip_dual = 3.0: with one update for each sampling"),
    (dict(optimizer__decay="cos"), r"config.optimizer.decay = 'cos': must be one of constant, li"),
    (
        dict(profile_steps=(3, 3)),
        r"config.profile_steps = \(3, 3\): must be \(start, stop\) with 0",
    ),
    (dict(profile_steps=5), r"config.profile_steps = 5: must be"),
    (dict(profile_steps=(1.0, 2)), r"config.profile_steps = \(1.0, 2\): must be"),
    (dict(writers=("wandbb",)), r"config.writers: .wandbb. is none of tensorboard, wandb"),
    (dict(eval_every_steps=0), r"config.eval_every_steps = 0"),
    (dict(optimizer__learning_rate=float("nan")), r"config.optimizer.learning_rate = nan"),
    (dict(mesh__model=3), r"mesh.model = 3.*devices"),
    (dict(mesh__data=0), r"mesh.data = 0"),
    (dict(policy__num_layers=0), r"config.policy.*num_layers = 0"),
    (dict(policy__remat="all"), r"config.policy.*remat = 'all'"),
    (dict(policy__attention="flash"), r"config.policy.*attention = 'flash'.*'reference'"),
    (dict(policy__attention="splash"), r"config.policy.attention = 'splash'.*TPU.*are cpu"),
    (dict(policy__param_dtype="float16"), r"config.policy.*param_dtype = 'float16'.*bfloat16"),
    (dict(optimizer__moment_dtype="half"), r"optimizer.moment_dtype = 'half'.*bfloat16"),
    (dict(micro_batch__problems=3), r"micro_batch.problems = 3.*prompts_per_step = 4, or None"),
    (dict(micro_batch__samples=8), r"micro_batch.samples = 8.*samples_per_prompt = 4, or None"),
    (
        dict(micro_batch__problems=2, warm_start__batch_size=3),
        r"micro_batch.problems = 2.*warm_start.batch_size = 3",
    ),
    (dict(objective__kl_coefficient=0.0), r"config.objective.kl_coefficient = 0.0: must be a posi"),
    (dict(objective__kl_estimator="k2"), r"objective.kl_estimator = 'k2': must be one of k1, k3"),
    (
        dict(objective__aggregation="mean"),
        r"aggregation = 'mean': must be one of seq-mean-token-su",
    ),
    (dict(objective__epochs=0), r"config.objective.epochs = 0: must be at least 1"),
    (
        dict(objective__minibatches=3),
        r"objective.minibatches = 3: must divide config.prompts_per_s",
    ),
    (
        dict(objective__minibatches=2, micro_batch__problems=4),
        r"micro_batch.problems = 4.*prompts_per_step / config.objective.minibatches = 2, or None",
    ),
    (dict(objective__epochs=2, objective__clip_low=1.5), r"clip_low = 1.5: must be in \(0, 1\]"),
    (dict(objective__clip_high=0.2), r"clip_high = 0.2: with one update for each sampling"),
    (dict(objective__entropy_coefficient=0.0), r"entropy_coefficient = 0.0: must be a number othe"),
    (dict(pipeline=2), r"config.pipeline = 2: must be 1, or 0 for off"),
    (dict(pipeline=1), r"config.pipeline = 1: samples are of .* set objective.importance_cap"),
    (
        dict(pipeline=1, objective__epochs=2, objective__clip_low=0.2),
        r"config.pipeline = 1: samples are of .* with one update for each sampling objective.clip",
    ),
    (
        dict(pipeline=1, objective__importance_cap=2.0, dynamic_sampling_batches=2),
        r"config.pipeline = 1, config.dynamic_sampling_batches = 2: what refills a step",
    ),
    (dict(mesh__sampling=1), r"config.mesh.sampling = 1: each process takes the same number of"),
    (dict(objective__importance_cap=-1.0), r"importance_cap = -1.0: must be a positive number"),
    (dict(order="kimi"), r"config.order = 'kimi': must be one of epochs, prioritized"),
    (dict(dynamic_sampling_batches=1), r"dynamic_sampling_batches = 1: must be at least 2, or No"),
    (dict(estimator__truncated_penalty=-1.0), r"config.estimator.truncated_penalty = -1.0: must"),
    (
        dict(estimator__name="grpo_k", estimator__truncated_penalty=0.5),
        r"name = 'grpo_k': takes rewards of 0 and 1 only, and config.estimator.truncated_penalty",
    ),
    (
        dict(estimator__k=((0, 2), (3, 1), (3, 4))),
        r"config.estimator.k = .*: the phase k = 1 from step 3 has length 0, for k = 4 begins at",
    ),
    (
        dict(estimator__k=((0, 2), (4, 1), (3, 4))),
        r"config.estimator.k = .*: the phase k = 1 from step 4 overlaps the next, from step 3 on",
    ),
    (
        dict(estimator__k=((2, 2), (4, 1))),
        r"config.estimator.k = .*: the first phase begins at step 2, so the steps before it have n",
    ),
    (
        dict(estimator__k=((0, 2), (6, 1))),
        r"the phase k = 1 begins at step 6 and has length 0, for the run has config.steps = 6",
    ),
    (
        dict(estimator__k=((0, 2), (3, 5))),
        r"config.estimator: from step 3 on: sloo_minus_one: k = 5 with n = 4",
    ),
    (
        dict(estimator__name=((0, "sloo_minus_one"), (3, "grpoo"))),
        r"config.estimator: from step 3 on: unknown estimator 'grpoo'.*did you mean 'grpo'",
    ),
    (
        dict(estimator__name=((0, "sloo_minus_one"), (3, "grpo"))),
        r"config.estimator: from step 3 on: grpo: k = 2, allowed: None",
    ),
    (
        dict(estimator__name=((0, "sloo"), (3, "loo_minus_one_partitioned")), estimator__gamma=2.0),
        r"config.estimator.gamma = 2.0: none of the estimators sloo, loo_minus_one_partitioned tak",
    ),
    (
        dict(optimizer__learning_rate=((0, 1e-3), (3, 0.0))),
        r"config.optimizer.learning_rate = .*a positive number is allowed, or phases",
    ),
    (dict(evaluation__split="dev"), r"config.evaluation.split.*dev"),
]


@pytest.mark.parametrize(
    ("key", "least"),
    {
        "steps": 0, "prompts_per_step": 1, "samples_per_prompt": 2, "eval_every_steps": 1,
        "checkpoint_every_steps": 1, "checkpoints_to_keep": 1, "log_samples_every_steps": 1,
        "log_samples_problems": 0, "max_skipped_steps": 1, "logprob_chunk_tokens": 1,
        "warm_start__steps": 0, "warm_start__batch_size": 1, "evaluation__samples_per_prompt": 1,
        "evaluation__prompts_per_batch": 1, "evaluation__log_samples_problems": 0,
        "sampling__max_prompt_tokens": 2,
    }.items(),
)  # fmt: skip
def test_a_count_has_a_least_value(key, least):
    def complaint(value):
        try:
            checks.check_counts(tiny_config(**{key: value}))
        except ConfigError as error:
            return str(error)
        return ""

    name = key.replace("__", ".")
    assert complaint(least - 1) == f"config.{name} = {least - 1}: must be at least {least}"
    assert "must be at least" not in complaint(least)


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=lambda x: str(x)[:40])
def test_a_mistake_in_the_config(changes, message, tmp_path):
    config = tiny_config()
    with config.ignore_type():
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    with jax.log_compiles(), pytest.raises(ConfigError, match=message):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()  # nothing was made


def test_a_batch_that_the_mesh_cannot_divide(monkeypatch):
    monkeypatch.setattr(Layout, "shares", lambda layout, name: 8 if name == "problems" else 1)
    with pytest.raises(ConfigError, match=r"config.prompts_per_step = 4.*multiple of 8"):
        build(tiny_config())
    config = tiny_config(prompts_per_step=8, evaluation__prompts_per_batch=8)
    build(config)
    config.micro_batch.problems = 4
    with pytest.raises(ConfigError, match=r"config.micro_batch.problems = 4.*multiple of 8"):
        build(config)


@pytest.mark.parametrize("seed", [0, 2**31, 2**32 - 1])
def test_all_seeds_of_32_bits_are_allowed_and_no_others(seed):
    checks.check_seed("config.seed", seed)
    for other in (-1 - seed, 2**32 + seed):
        with pytest.raises(ConfigError, match=f"config.seed = {other}: must be at least 0, and"):
            checks.check_seed("config.seed", other)


def test_a_misspelt_key_in_a_config_file():
    with pytest.raises((AttributeError, KeyError), match="prompts_per_stepp"):
        tiny_config().prompts_per_stepp = 3


def contents(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_a_workdir_of_another_run_shows_the_difference(tmp_path):
    train(tiny_config(steps=0, warm_start__steps=0), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=r"config.estimator.k: 2 there, 3 here"):
        train(tiny_config(steps=0, warm_start__steps=0, estimator__k=3), tmp_path)
    assert contents(tmp_path) == before


def layouts_on(sizes, **axes):
    """The layouts of a run on a mesh of these sizes, whose devices are not here."""
    table = tiny_config().sharding.training.to_dict() | axes
    mesh = jax.sharding.AbstractMesh(sizes, ("data", "fsdp", "model"))
    layout = Layout(mesh, make_layout(make_mesh(1, 1, 1), table).rules)
    return {"training": layout, "sampling": layout}


def test_batches_of_training_matter_only_where_there_is_training():
    layouts = layouts_on((8, 1, 1))
    config = tiny_config(prompts_per_step=12, evaluation__prompts_per_batch=8)
    checks.check_batches(config, layouts, trains=False)
    with pytest.raises(ConfigError, match=r"config.prompts_per_step = 12: .* a multiple of 8"):
        checks.check_batches(config, layouts, trains=True)
    config.evaluation.prompts_per_batch = 12
    with pytest.raises(ConfigError, match=r"config.evaluation.prompts_per_batch = 12: .* of 8"):
        checks.check_batches(config, layouts, trains=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples_per_prompt": 4}, "samples_per_prompt = 4: .*training.samples .* model 4"),
        (
            {"micro_batch__samples": 4},
            "micro_batch.samples = 4: .* model 4 x fsdp 2, .* a multiple of 8",
        ),
        ({"micro_batch__problems": 2}, "micro_batch.problems = 2: .* data 3, .* a multiple of 3"),
        ({"warm_start__batch_size": 4}, "warm_start.batch_size = 4: .* a multiple of 3"),
        ({"objective__minibatches": 3}, "prompts_per_step / config.objective.minibatches = 2"),
        ({"evaluation__prompts_per_batch": 4}, "evaluation.prompts_per_batch = 4: .*sampling.prob"),
    ],
)
def test_every_batch_is_shared_evenly(changes, message):
    whole = dict.fromkeys(("embed", "heads", "kv_heads", "mlp", "vocab"))
    layouts = layouts_on((3, 2, 4), problems="data", samples=("model", "fsdp"), **whole)
    sizes = {"prompts_per_step": 6, "samples_per_prompt": 8, "warm_start__batch_size": 6}
    sizes |= {"evaluation__prompts_per_batch": 6}
    checks.check_batches(tiny_config(**sizes), layouts, trains=True)
    with pytest.raises(ConfigError, match=rf"config\.{message}"):
        checks.check_batches(tiny_config(**sizes | changes), layouts, trains=True)


def test_samples_without_weight_are_left_out_where_it_is_exact_and_pays():
    under_a_million = dataclasses.replace(SMALL, num_layers=2)

    def chosen(problems, prompt, response, policy=under_a_million, **changes):
        config = tiny_config(
            prompts_per_step=problems,
            sampling__max_prompt_tokens=prompt,
            sampling__max_response_tokens=response,
            **changes,
        )
        return checks.weighted_only(config, Objective(**config.objective.to_dict()), policy)

    # With four samples: 64 x (16 + 4 x 4) = 2,048 tokens, and 89 x (11 + 4 x 3) = 2,047.
    assert chosen(64, 16, 4) is True and chosen(89, 11, 3) is False
    assert chosen(64, 16, 4, objective__minibatches=2) is False
    assert chosen(64, 16, 4, objective__kl_coefficient=0.1) is False
    assert chosen(64, 16, 4, update_weighted_only=False) is False
    assert chosen(1, 16, 4, update_weighted_only=True) is True
    # A larger model has as much to do at fewer tokens: SmolLM2 has 134.5 million parameters.
    assert chosen(1, 4, 3, SMOLLM2_135M) is True and chosen(1, 3, 3, SMOLLM2_135M) is False


def test_padding_is_left_out_on_one_cpu_where_it_pays():
    policy = dataclasses.replace(SMALL, num_layers=2)
    one = make_layout(make_mesh(1, 1, 1), tiny_config().sharding.training.to_dict())

    def chosen(problems, layout=one, **changes):
        sizes = {"sampling__max_prompt_tokens": 16, "sampling__max_response_tokens": 4}
        return checks.unpadded(
            tiny_config(prompts_per_step=problems, **sizes, **changes), policy, layout
        )

    # Also with a KL term: 64 x (16 + 4 x 4) = 2,048 tokens.
    assert chosen(64) is True and chosen(63) is False
    assert chosen(64, objective__kl_coefficient=0.1) is True
    assert chosen(64, update_unpadded=False) is False and chosen(1, update_unpadded=True) is True
    several = layouts_on((2, 1, 1))["training"]
    assert chosen(64, several) is False and chosen(64, several, update_unpadded=True) is True
    split = layouts_on((2, 1, 1), problems=None, samples="data")["training"]
    assert chosen(64, split) is False
    with pytest.raises(ConfigError, match=r"config.update_unpadded = True: sharding.training.samp"):
        chosen(64, split, update_unpadded=True)


def test_a_workdir_that_is_no_run_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("do not lose me")
    with pytest.raises(ConfigError, match=r"thesis\.tex"):
        train(tiny_config(), tmp_path)


def test_a_run_killed_while_it_began_can_begin_again(tmp_path):
    for name in (".lock", "config.partial"):
        (tmp_path / name).write_text("{")
    record.Claim(tmp_path, tiny_config()).write(0)
    assert workdir.load_config(tmp_path).estimator.k == 2
    assert not (tmp_path / "config.partial").exists()


@pytest.mark.parametrize("reward", [float("nan"), float("inf")])
def test_a_reward_that_is_no_number(reward, tmp_path, monkeypatch):
    from passk_jax.tasks.arithmetic import Arithmetic

    monkeypatch.setattr(
        Arithmetic,
        "score",
        lambda self, problems, completions: [Score(reward, False, None) for _ in problems],
    )
    with pytest.raises(
        ValueError, match=r"gave reward (nan|inf) to a completion of problem 'arith"
    ):
        train(tiny_config(warm_start__steps=0), tmp_path / "run")
