"""A config and a command small enough that a whole run takes seconds."""

import collections
import contextlib
import json
import os
import pathlib
import subprocess
import sys

import jax

from configs import default

ROOT = pathlib.Path(__file__).parent.parent

TINY = {
    "steps": 6,
    "prompts_per_step": 4,
    "samples_per_prompt": 4,
    "eval_every_steps": 3,
    "checkpoint_every_steps": 2,
    "log_samples_every_steps": 2,
    "task.options.max_n": 9,
    "task.options.num_train": 50,
    "task.options.num_validation": 10,
    "task.options.num_test": 10,
    "policy.embed_dim": 16,
    "policy.hidden_dim": 32,
    "policy.num_layers": 2,
    "policy.num_heads": 2,
    "policy.num_kv_heads": 1,
    "policy.head_dim": 8,
    "sampling.max_response_tokens": 10,
    "estimator.k": 2,
    "warm_start.steps": 5,
    "warm_start.batch_size": 8,
    "evaluation.samples_per_prompt": 4,
    "evaluation.prompts_per_batch": 5,
    "evaluation.log_samples_problems": 7,
    "writers": None,
    "report_at_evaluations": False,
    "compilation_cache": None,
}


def tiny_config(**changes):
    """The default config with the tiny settings, and `changes` ("a.b" written a__b)."""
    config = default.get_config()
    config.update_from_flattened_dict(TINY)
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return config


def save_weights(folder, seed=0):
    """Saves random parameters of the tiny policy as a folder of Hugging Face; returns them."""
    from passk_jax.learner.train_state import base_params
    from passk_jax.policy.params import save_huggingface
    from passk_jax.run.parts import build

    decoder = build(tiny_config()).decoder
    params = base_params(decoder, seed)
    save_huggingface(folder, params, decoder.config)
    return params


def command(module, *args, workdir):
    return [sys.executable, "-m", module, *args, "--workdir", str(workdir)]


def train_command(workdir, **changes):
    settings = TINY | {k.replace("__", "."): v for k, v in changes.items()}
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    return command("passk_jax.train", "--config", "configs/arithmetic.py", *flags, workdir=workdir)


def environment(devices=1):
    """What the processes of a test see: so many devices, and programs compiled as in `conftest`."""
    flags = os.environ["XLA_FLAGS"]
    if devices > 1:
        flags += f" --xla_force_host_platform_device_count={devices}"
    return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def printed_by(script, devices, argument):
    """What a script prints last, as JSON, with so many devices and an argument, as JSON too."""
    result = subprocess.run(
        [sys.executable, "-c", script, json.dumps(argument)],
        cwd=ROOT, env=environment(devices) | {"PYTHONPATH": os.fspath(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def run(args, **kwargs):
    return subprocess.run(
        args, cwd=ROOT, env=environment(), capture_output=True, text=True, **kwargs
    )


@contextlib.contextmanager
def compilations():
    """Counts what is compiled here and now: {"jit(name)": times}, of nothing compiled before."""
    counts = collections.Counter()

    def listen(event, duration, **labels):
        if event == "/jax/core/compile/backend_compile_duration":
            counts[labels["fun_name"]] += 1

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
