"""Tiny models of the families, and what their tests share."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.sharding import AbstractMesh, AxisType

from passk_jax.learner.train_state import init_params
from passk_jax.policy.config import DecoderConfig, RopeScaling
from passk_jax.policy.decoder import Decoder
from passk_jax.policy.sharding import LOGICAL_AXES, Layout

# Every ingredient of Gemma 2: grouped queries, both soft-caps, and a window of 4 that is shorter
# than the sequences of 11.
TINY = DecoderConfig(
    vocab_size=37,
    embed_dim=16,
    hidden_dim=24,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    sliding_window=4,
)
LENGTH = 11

# Every ingredient of Gemma 3: a period of three layers, twice, and two layers that make no period;
# norms of queries and keys; a base of the rotary embedding for local layers, and another one,
# stretched, for global layers. With head_dim 8 the four frequencies of the global ones are slowed
# from 1, 0.1, 0.01 and 0.001 to an eighth.
TINY3 = dataclasses.replace(
    TINY,
    num_layers=8,
    layer_pattern=("local", "local", "global"),
    attention_softcap=None,
    final_softcap=None,
    rope_scaling=RopeScaling(8.0),
    local_rope_base=100.0,
    qk_norm=True,
)

_plain = functools.partial(
    DecoderConfig,
    vocab_size=37,
    embed_dim=16,
    hidden_dim=24,
    num_layers=3,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    sliding_window=None,
    attention_softcap=None,
    final_softcap=None,
    activation="silu",
    post_norms=False,
    norm_offset=0.0,
    scale_embedding=False,
)
# A context of 16 tokens before the stretching: of the 4 frequencies 1, 0.1, 0.01 and 0.001, which
# make 2.5, 0.25, 0.025 and 0.0025 turns in it, one is kept, one is in between and two are slow.
LLAMA = _plain(rope_scaling=RopeScaling(8.0, 0.1, 2.0, 16), norm_eps=1e-5, tied_head=False)
QWEN = _plain(qkv_bias=True, rope_base=1000.0)
QWEN3 = _plain(qk_norm=True, rope_base=1000.0)


@functools.cache
def big_params(config, seed=0):
    """Random parameters large enough that soft-caps and scales matter to the logits."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda: init_params(Decoder(config), jax.random.key(0)))

    def random(path, x):
        norm = path[-1].key == "scale"
        mean = 1.0 - config.norm_offset if norm else 0.0
        return jnp.asarray(mean + 0.6 * rng.standard_normal(x.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(random, nn.meta.unbox(shapes))


@functools.partial(jax.jit, static_argnums=0)
def whole_logits(config, params, tokens_BxL):
    decoder = Decoder(config)
    positions = jnp.broadcast_to(jnp.arange(tokens_BxL.shape[1]), tokens_BxL.shape)
    hidden, _ = decoder.apply({"params": params}, tokens_BxL[:, None], positions[:, None])
    return decoder.apply({"params": params}, hidden[:, 0], method="logits")


def on_a_mesh(config):
    """A decoder on an imagined mesh of 2 x 2 x 2, which splits problems, samples and the rest."""
    mesh = AbstractMesh((2, 2, 2), ("data", "fsdp", "model"), axis_types=(AxisType.Auto,) * 3)
    rules = dict.fromkeys(LOGICAL_AXES, ("model",)) | {"embed": (), "features": ()}
    rules |= {"problems": ("data",), "samples": ("fsdp",)}
    return Decoder(config, Layout(mesh, tuple(rules.items())))


def splits(function, *arguments):
    """What a function asks to have split, and how: {(type and shape, spec)}; traced, not run."""

    def of(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name == "sharding_constraint":
                spec = equation.params["sharding"].spec
                yield equation.outvars[0].aval.str_short(), tuple(spec)
            inner = jax.tree.leaves(
                list(equation.params.values()),
                is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr),
            )
            for one in inner:
                if isinstance(one, ClosedJaxpr | Jaxpr):
                    yield from of(getattr(one, "jaxpr", one))

    return set(of(jax.make_jaxpr(function)(*arguments).jaxpr))


def gemma_transformer(config):
    gm = pytest.importorskip("gemma.gm")
    from gemma.gm.nn import _config, _modules, _transformer

    kinds = {
        "local": _modules.AttentionType.LOCAL_SLIDING,
        "global": _modules.AttentionType.GLOBAL,
    }
    assert gm.nn.Gemma2_2B.config.attention_types[:2] == tuple(kinds.values())
    scaling, (local_base, _) = config.rope_scaling, config.rope("local")
    return _transformer.Transformer(
        config=_config.TransformerConfig(
            num_embed=config.vocab_size,
            embed_dim=config.embed_dim,
            hidden_dim=config.hidden_dim,
            num_heads=config.num_heads,
            head_dim=config.head_dim,
            num_kv_heads=config.num_kv_heads,
            final_logit_softcap=config.final_softcap,
            use_post_attn_norm=True,
            use_post_ffw_norm=True,
            use_qk_norm=config.qk_norm,
            attention_types=tuple(kinds[kind] for kind in config.layer_kinds),
            attn_logits_soft_cap=config.attention_softcap,
            sliding_window_size=config.sliding_window,
            local_base_frequency=local_base,
            global_base_frequency=config.rope_base,
            global_scale_factor=1.0 if scaling is None else scaling.factor,
        ),
        dtype=jnp.float32,
        tokens="tokens",
    )
