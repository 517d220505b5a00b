"""A batch in parts: which problems and samples are in each, and that they come back in place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from passk_jax.learner.micro_batch import WHOLE, MicroBatch, accumulate, for_each, minibatch


def test_the_parts_are_every_so_manyth_and_come_back_in_their_place():
    prompts, arrays = jnp.arange(4), jnp.arange(4 * 6).reshape(4, 6)
    seen = []

    def function(prompts, arrays):
        jax.debug.callback(lambda p, a: seen.append((p.tolist(), a.tolist())), prompts, arrays)
        return prompts[:, None] * 100.0 + arrays

    parts = MicroBatch(2, 3)
    np.testing.assert_array_equal(
        for_each(function, prompts, arrays, parts), prompts[:, None] * 100 + arrays
    )
    jax.effects_barrier()
    # Problems 0 and 2 of four: where two devices hold two neighbours each, one of each device.
    assert ([0, 2], [[0, 2, 4], [12, 14, 16]]) in seen and len(seen) == 4
    total = accumulate(lambda p, a: jnp.sum(1.0 * a), prompts, arrays, parts)
    assert total == arrays.sum()
    with pytest.raises(ValueError, match=r"micro_batch.problems = 3 must divide 4"):
        for_each(function, prompts, arrays, MicroBatch(3))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_micro_batches_that_are_not_used_do_not_run(count):
    ran = []

    def function(prompts, arrays):
        jax.debug.callback(lambda x: ran.append(x.ravel().tolist()), prompts)
        return arrays + prompts[:, None]

    def both(used):
        rest = jnp.arange(6), jnp.ones((6, 1)), MicroBatch(2), used
        return for_each(function, *rest), accumulate(function, *rest)

    each, total = jax.jit(both)(np.int32(count))
    jax.effects_barrier()
    rows = [[0, 3], [1, 4], [2, 5]][:count]
    assert sorted(ran) == sorted(2 * rows)
    used = [n for row in rows for n in row]
    assert each[:, 0].tolist() == [n + 1 if n in used else 0 for n in range(6)]
    assert total[:, 0].tolist() == [sum(n + 1 for n, _ in rows), sum(n + 1 for _, n in rows)]


@pytest.mark.parametrize(
    ("tokens", "parts"),
    [
        (None, (6, 4)),
        (6 * (9 + 4 * 5), (6, 4)),
        (6 * (9 + 4 * 5) - 1, (3, 4)),
        (9 + 4 * 5, (1, 4)),
        (9 + 4 * 5 - 1, (1, 2)),  # a problem's prompt then runs twice
        (5, (1, 1)),  # no less than one sample
    ],
)
def test_as_many_run_at_once_as_have_no_more_tokens(tokens, parts):
    assert MicroBatch(tokens=tokens).sizes(6, 4, 9, 5) == parts
    assert MicroBatch(2, tokens=tokens).sizes(6, 4, 9, 5)[0] == 2
    assert MicroBatch(None, 1, tokens).sizes(6, 4, 9, 5)[1] == 1
    seen = []

    def shapes(prompts, arrays):
        seen.append((prompts.shape, arrays.shape))
        return jnp.sum(arrays)

    arrays = jnp.ones((6, 4, 5))
    assert accumulate(shapes, jnp.ones((6, 9)), arrays, MicroBatch(tokens=tokens)) == 120
    assert set(seen) == {((parts[0], 9), (*parts, 5))}


def test_one_micro_batch_costs_no_loop():
    jaxpr = jax.make_jaxpr(lambda p, a: accumulate(lambda p, a: jnp.sum(a), p, a, WHOLE))(
        jnp.zeros(4), jnp.zeros((4, 6))
    )
    assert "scan" not in str(jaxpr)


def test_sums_of_micro_batches_are_float32_and_the_whole_batch_is_what_the_function_gives():
    # 1 + 8 * 2^-8 is 1 + 2^-5; added up in bfloat16, whose last place above 1 is 2^-7, each 2^-8
    # would be lost.
    terms = jnp.array([[1.0] + [2.0**-8] * 8], "bfloat16")
    total = accumulate(lambda p, a: a.sum(), jnp.zeros(1), terms, MicroBatch(samples=1))
    assert total.dtype == jnp.float32 and total == 1 + 2.0**-5
    assert accumulate(lambda p, a: a[0, 0], jnp.zeros(1), terms, WHOLE).dtype == jnp.bfloat16


def test_a_minibatch_is_every_so_manyth_problem():
    batch = {"tokens": jnp.arange(12).reshape(6, 2), "advantages": jnp.arange(6)}
    part = minibatch(batch, 1, 3)  # of the parts (0, 3), (1, 4), (2, 5)
    assert part["advantages"].tolist() == [1, 4]
    assert part["tokens"].tolist() == [[2, 3], [8, 9]]
