"""Stop strings: wherever tokens cut them, and what a completion is then."""

import itertools
import random

import jax
import numpy as np
import pytest

from passk_jax.errors import ConfigError
from passk_jax.learner.train_state import init_state
from passk_jax.policy.tokenizer import ByteTokenizer
from passk_jax.rollout import stops
from passk_jax.run.parts import build
from passk_jax.run.sampling import sample, score
from tests.tiny import tiny_config


@pytest.mark.parametrize(
    "strings",
    [["aab"], ["ab", "bb"], ["abab", "ba"], ["\nclass", "\nQuestion:"], ["é"], ["aa", "a"]],
)
def test_the_end_is_found_at_the_first_token_with_which_the_text_has_a_stop_string(strings):
    pieces = [b"", b"a", b"b", b"ab", b"aab", b"ba", b"x", b"\n", b"\ncl", b"ass", b"\nQ", b"ion:"]
    pieces += [b"uest", "é".encode()[:1], "é".encode()[1:], "xé".encode()]
    table = stops.automaton(strings, pieces)
    ends = [string.encode() for string in strings]
    draw = random.Random(0)
    cases = [draw.choices(range(len(pieces)), k=12) for _ in range(400)]
    cases += map(list, itertools.product(range(len(pieces)), repeat=3))
    hits = 0
    for tokens in cases:
        text, state = b"", 0
        for token in tokens:
            text, state = text + pieces[token], table[state, token]
            assert (state == len(table) - 1) == any(end in text for end in ends), tokens
        hits += state == len(table) - 1
    assert 0 < hits < len(cases)


@pytest.fixture(scope="module")
def sampled():
    """Completions of a random policy, and the same that end with texts which occur in the first."""
    found, strings = [], None
    for _ in range(2):
        parts = build(tiny_config(sampling__stop_strings=strings, sampling__max_response_tokens=16))
        params = init_state(parts.decoder, parts.optimizer, 0).params
        problems = parts.task.split("train")[:4]
        rollout = sample(parts, params, problems, jax.random.key(1), num_samples=32)
        found.append((parts, jax.device_get(rollout), score(parts, problems, rollout)))
        written = [written_in(rollout, p, n) for p, n in np.ndindex(4, 16)]
        pairs = (text[t % 9 : t % 9 + 2] for t, text in enumerate(written))
        strings = tuple(pair.decode() for pair in pairs if len(pair) == 2 and pair.isascii())
    return found


def written_in(rollout, p, n):
    pieces = ByteTokenizer().pieces()
    return b"".join(pieces[token] for token in rollout.tokens[p, n][rollout.mask[p, n]])


def ends_in_one(two_tokens, strings):
    return ByteTokenizer().decode(two_tokens) in strings


def test_a_completion_ends_with_the_token_that_completes_a_stop_string(sampled):
    (_, free, _), (parts, cut, scores) = sampled
    strings = parts.config.sampling.stop_strings
    num_stopped = 0
    for p, n in np.ndindex(cut.ended.shape):
        whole = free.tokens[p, n][free.mask[p, n]].tolist()
        # The random numbers are those of the free completion, and so are the tokens up to the end.
        lengths = range(2, len(whole) + 1)
        count = next((t for t in lengths if ends_in_one(whole[t - 2 : t], strings)), None)
        kept = cut.mask[p, n].sum()
        assert kept == (len(whole) if count is None else count)
        assert cut.tokens[p, n].tolist() == whole[:kept] + [parts.tokenizer.pad_id] * (16 - kept)
        assert cut.mask[p, n, :kept].all()
        assert cut.ended[p, n] == (count is not None or free.ended[p, n])
        for name in ("sampling_logp", "policy_logp"):
            np.testing.assert_allclose(cut[name][p, n, :kept], free[name][p, n, :kept], atol=1e-5)
            assert not cut[name][p, n, kept:].any()
        assert scores.texts[p][n] == stops.cut(parts.tokenizer.decode(whole[:kept]), strings)
        assert count is None or len(scores.texts[p][n].encode()) <= kept - 2
        num_stopped += count is not None
    assert 10 < num_stopped < cut.ended.size


@pytest.mark.parametrize("wrong", ["\nclass", ("",), (1,), {"a": 1}])
def test_mistakes(wrong):
    message = r"(?s)config\.sampling\.stop_strings = .*: texts such as"
    with pytest.raises(ConfigError, match=message):
        build(tiny_config(sampling__stop_strings=wrong))
