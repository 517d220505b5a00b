"""The kernels against the reference, interpreted on the CPU; and compiled for TPUs elsewhere."""

import dataclasses
import functools
import importlib.util
import itertools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.extend.core import jaxprs_in_params

from passk_jax.learner.logprobs import response_logprobs
from passk_jax.policy import splash
from passk_jax.policy.attention import attend
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.prefill import prompt_positions
from passk_jax.rollout.prompts import Prompts
from passk_jax.rollout.sampler import SamplingConfig, sample
from tests.policy.models import TINY, big_params
from tests.tiny import ROOT, environment

SPLASH = dataclasses.replace(TINY, attention="splash")


@pytest.fixture
def interpreted():
    """Kernels run as plain XLA: slow, and nothing is gained by lengths below 128."""
    with pltpu.force_tpu_interpret_mode(True):
        yield


def group(prompt, length, seed=0):
    """Two problems of two samples, two heads of two; half of the second one's prompt is padding."""
    keys = jax.random.split(jax.random.key(seed), 6)
    shapes = [(2, 2, length, 2, 2, 16), (2, 2, 2, 16, length), (2, 2, 2, length, 16)]
    shapes += [(2, 2, 16, prompt), (2, 2, prompt, 16)]
    arrays = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=False)]
    mask = jnp.arange(prompt) >= jnp.array([[0], [prompt // 2]])
    positions = jnp.sum(mask, -1)[:, None, None] + jnp.arange(length)
    positions = jnp.broadcast_to(positions, (2, 2, length))
    return arrays, mask, positions, jax.random.normal(keys[5], shapes[0])


def values_and_gradients(attention, arrays, cotangent):
    def run(*arrays):
        out, pull = jax.vjp(attention, *arrays)
        return out * (cotangent != 0), pull(cotangent)

    return jax.jit(run)(*arrays)


def assert_close(one, other):
    """Equal but for rounding, each array measured by its largest number."""
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        scale = np.max(np.abs(a))
        assert scale > 1e-3
        np.testing.assert_allclose(b, a, atol=2e-5 * scale)


# With cap 2 the logits, of standard deviation 4, are well inside the bend of the tanh. A window of
# 50 leaves blocks that are seen in part, and queries that see nothing of the prompt.
@pytest.mark.parametrize(("window", "cap"), [(None, None), (None, 2.0), (50, 2.0)])
def test_a_group_attends_as_in_the_reference(interpreted, window, cap):
    # Neither 100 nor 140 is a multiple of 128.
    arrays, mask, positions, cotangent = group(100, 140)
    valid = jnp.ones(positions.shape, bool)

    def segments(k, v, prompt_k, prompt_v):
        prompt = (prompt_k, prompt_v, prompt_positions(mask), mask)
        return [prompt, (k, v, positions, valid)]

    def reference(q, *kv):
        return attend(q, positions, segments(*kv), window=window, cap=cap)

    def kernel(q, *kv):
        return splash.attend(q, positions, segments(*kv), window=window, cap=cap)

    both = [values_and_gradients(f, arrays, cotangent) for f in (reference, kernel)]
    assert_close(*both)


@pytest.mark.parametrize("window", [None, 50])
@pytest.mark.parametrize("side", ["left", "right"])
def test_sequences_alone_attend_as_in_the_reference(interpreted, side, window):
    # Padding sees other things than in the reference, and nothing may come of that.
    arrays, _, _, cotangent = group(0, 140)
    start, end = (60, 140) if side == "left" else (0, 90)
    column = jnp.arange(140)
    valid = jnp.broadcast_to((start <= column) & (column < end), (2, 2, 140))
    positions = jnp.broadcast_to(jnp.maximum(column - start, 0), (2, 2, 140))
    cotangent *= valid[..., None, None, None]

    def reference(q, k, v):
        return attend(q, positions, [(k, v, positions, valid)], window=window, cap=2.0)

    def kernel(q, k, v):
        return splash.attend(q, positions, [(k, v, positions, valid)], window=window, cap=2.0)

    both = [values_and_gradients(f, arrays[:3], cotangent) for f in (reference, kernel)]
    assert_close(*both)


@pytest.mark.parametrize("window", [None, 1, 3, 6])
@pytest.mark.parametrize("prompt", [0, 4])
def test_the_mask_of_a_group_token_by_token(prompt, window):
    # Three samples of 5 tokens. Each key is (owner, position); a sample starts where the prompt
    # ends, so with a prompt of 4 the first token of each is at position 4.
    samples, length = 3, 5
    own = [(i, prompt + t) for i in range(samples) for t in range(length)]
    keys = [(None, t) for t in range(prompt)] + own
    expected = np.array(
        [
            [
                owner in (None, sample) and 0 <= at - position < (window or len(keys))
                for owner, position in keys
            ]
            for sample, at in own
        ]
    )
    mask = splash.GroupMask(prompt, samples, length, window)
    assert mask.shape == expected.shape
    parts = [slice(0, 15), slice(3, 9), slice(5, 7)]
    for rows, columns in itertools.product(parts, parts):
        np.testing.assert_array_equal(mask[rows, columns], expected[rows, columns])


def batch(shared=0):
    """Two prompts of 5 and 4 tokens, two responses of 11 to each."""
    tokens = jax.random.randint(jax.random.key(1), (2, 2, 11), 1, TINY.vocab_size)
    prompts = jax.random.randint(jax.random.key(2), (2, 5), 1, TINY.vocab_size)
    mask = jnp.arange(5) >= jnp.array([[0], [1]])
    prompts = prompts.at[1, 1:3].set(prompts[0, :2])  # both begin with the same tokens
    return Prompts(tokens=jnp.where(mask, prompts, 0), mask=mask, shared=shared), tokens


def loss(params, config, shared=0):
    prompts, tokens = batch(shared)
    logp, entropy = response_logprobs(
        {"params": params}, prompts, tokens, 1.0, decoder=Decoder(config), chunk_tokens=64
    )
    return jnp.sum(jnp.sin(logp)) + jnp.sum(entropy), logp


def calls(jaxpr):
    """How often a program calls a kernel, a loop's body being one."""
    return sum(
        1 if e.primitive.name == "pallas_call" else sum(map(calls, jaxprs_in_params(e.params)))
        for e in jaxpr.eqns
    )


def test_the_switch_decides_who_attends():
    # The prompt and the group, in a local and in a global layer.
    for config, shared, expected in ((TINY, 0, 0), (SPLASH, 0, 4), (SPLASH, 2, 6)):
        of_config = functools.partial(loss, config=config, shared=shared)
        assert calls(jax.make_jaxpr(of_config)(big_params(TINY)).jaxpr) == expected


def test_the_sampler_runs_its_prompts_by_the_kernels():
    def draw(params):
        return sample(
            params,
            batch()[0],
            jax.random.key(3),
            1.0,
            decoder=Decoder(SPLASH),
            num_samples=2,
            config=SamplingConfig(max_response_tokens=6, unroll_layers=False),
            stop_ids=(0,),
            pad_id=0,
        )

    # A local and a global layer of the prompt; single tokens have nothing to gain.
    assert calls(jax.make_jaxpr(draw)(big_params(TINY)).jaxpr) == 2


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0, 2])
def test_logprobs_and_gradients_are_the_references(interpreted, shared):
    # Parameters of ordinary size: at those of `big_params` gradients are of the order of 1e4.
    params = jax.tree.map(lambda x: x / 3, big_params(TINY))
    results = [
        jax.jit(jax.value_and_grad(functools.partial(loss, **each), has_aux=True))(params)
        for each in ({"config": TINY}, {"config": SPLASH, "shared": shared})
    ]
    assert np.std(results[0][0][1]) > 0.1  # log-probabilities
    assert_close(*results)


SHARDED = """
import jax, numpy as np
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import PartitionSpec
from passk_jax.policy import splash
from passk_jax.policy.prefill import prompt_positions
from tests.policy.test_splash import assert_close, group, values_and_gradients

mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "model"),
                     axis_types=(jax.sharding.AxisType.Auto,) * 3)
arrays, mask, positions, cotangent = group(100, 140)
valid = positions >= 0

def attend(q, k, v, prompt_k, prompt_v, **split):
    segments = [(prompt_k, prompt_v, prompt_positions(mask), mask), (k, v, positions, valid)]
    return splash.attend(q, positions, segments, window=50, cap=2.0, **split)

def alone(q, k, v, *_, **split):
    return splash.attend(q, positions, [(k, v, positions, valid)], window=50, cap=2.0, **split)

with pltpu.force_tpu_interpret_mode(True):
    for f, arrays in ((attend, arrays), (alone, arrays[:3])):
        whole = values_and_gradients(f, arrays, cotangent)
        # With None, an axis of the mesh does the same thing twice.
        for axes in (("data", "fsdp", "model"), ("data", None, "model"), ("fsdp", None, None)):
            split = values_and_gradients(
                lambda *x: f(*x, mesh=mesh, axes=PartitionSpec(*axes)), arrays, cotangent)
            assert_close(whole, split)
print("done")
"""


@pytest.mark.slow
def test_a_mesh_gives_what_one_device_gives(tmp_path):
    env = environment(devices=8)
    assert run(SHARDED, env) == "done"


def run(script, env, *args):
    result = subprocess.run(
        [sys.executable, "-c", script, *args],
        cwd=ROOT,
        env=env | {"PYTHONPATH": os.fspath(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1]


# One layer's attention, forward and backward, at the sizes of Gemma 2 2B.
COMPILED = """
import sys
import jax, jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np
from passk_jax.policy import splash

topology, chips = sys.argv[1], int(sys.argv[2])
devices = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
mesh = Mesh(np.array(devices[:chips]).reshape(1, chips // 2 or 1, min(chips, 2)),
            ("data", "samples", "model"))

def array(spec, shape, dtype=jnp.bfloat16):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec)))

q = array(("data", "samples", None, "model"), (1, 8, 1024, 4, 2, 256))
k = array(("data", "samples", "model"), (1, 8, 4, 256, 1024))
v = array(("data", "samples", "model"), (1, 8, 4, 1024, 256))
prompt_k = array(("data", "model"), (1, 4, 256, 511))
prompt_v = array(("data", "model"), (1, 4, 511, 256))
mask, valid = array(("data",), (1, 511), bool), array(("data", "samples"), (1, 8, 1024), bool)

def both(q, k, v, prompt_k, prompt_v, mask, valid, cotangent):
    def attend(q, k, v, prompt_k, prompt_v):
        segments = [(prompt_k, prompt_v, None, mask), (k, v, None, valid)]
        positions = None  # not read
        axes = PartitionSpec("data", "samples", "model")
        split = {} if chips == 1 else {"mesh": mesh, "axes": axes}
        return splash.attend(q, positions, segments, window=4096, cap=50.0, **split)
    out, pull = jax.vjp(attend, q, k, v, prompt_k, prompt_v)
    return out, pull(cotangent)

compiled = jax.jit(both).lower(q, k, v, prompt_k, prompt_v, mask, valid, q).compile()
memory = compiled.memory_analysis()
print(compiled.as_text().count('custom_call_target="tpu_custom_call"'),
      memory.peak_memory_in_bytes - memory.argument_size_in_bytes - memory.output_size_in_bytes)
"""


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="libtpu, the TPU's compiler, isn't installed"
)
@pytest.mark.parametrize(
    ("topology", "chips"), [("v5e:2x2", 1), ("v5e:2x2", 4), ("v5p:2x2x1", 1), ("v6e:2x2", 1)]
)
def test_it_compiles_for_a_tpu_without_the_logits(tmp_path, topology, chips):
    # libtpu lets one process in at a time, lest two want the same TPU; here is none to want.
    env = environment() | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "TPU_SKIP_MDS_QUERY": "1"}
    calls, beside = map(int, run(COMPILED, env, topology, str(chips)).split())
    assert calls == 3  # forward, gradient of the queries, gradient of the keys and values
    # The logits alone, 8 heads x 8 samples x 1,024 x 1,536 in float32, are 403 MB.
    assert beside < 8 * 8 * 1024 * 1536 * 4 / chips
