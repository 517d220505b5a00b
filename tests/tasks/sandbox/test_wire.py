"""The wire: whatever a program sends, reading it ends soon, in a value or in a WireError."""

import datetime
import json
import struct
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from passk_jax.tasks.sandbox import wire

DEADLINE = datetime.timedelta(seconds=2)  # for messages of a few thousand bytes: milliseconds
COLLIDING = [{"int": hex((2**61 - 1) * i)} for i in range(30_000)]  # hash(2**61 - 1) is 0


def received(data):
    """Reads a message from bytes, as from a pipe that then ends."""
    place = 0

    def exactly(count):
        nonlocal place
        place += count
        if place > len(data):
            raise EOFError
        return data[place - count : place]

    return wire.decode(wire.read(exactly)["value"], lambda number: ("handle", number))


def frame(body):
    return struct.pack(">I", len(body)) + body


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
    | st.complex_numbers(allow_nan=False) | st.fractions()
    | st.decimals(-(10**9), 10**9, allow_nan=False),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.sets(st.integers() | st.text())
    | st.frozensets(st.integers()) | st.dictionaries(st.integers() | st.text() | st.none(), inner),
)  # fmt: skip


@settings(deadline=DEADLINE, max_examples=40)
@given(plain)
def test_a_value_comes_back_with_its_types(value):
    data = wire.pack({"value": wire.encode(value, None)})
    assert repr(received(data)) == repr(value) or received(data) == value
    assert type(received(data)) is type(value)


@settings(deadline=DEADLINE)
@given(st.binary(max_size=4000))
def test_any_bytes_are_read_or_refused(data):
    for sent in (data, frame(data), frame(b'{"value": ' + data + b"}")):
        try:
            received(sent)
        except (wire.WireError, EOFError, KeyError, TypeError):
            pass  # the last two: a message without a value, which `Process.ask` refuses


KINDS = "int list tuple set frozenset deque dict complex bytes range type handle other".split()
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["0x" + "f" * 2000, "9" * 2000, "-0x1", "int", "10" * 500, 10**12, 2**61 - 1])
)  # fmt: skip
messages = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.sampled_from(KINDS), inner, min_size=1, max_size=2)
    ),
    max_leaves=40,
)


@settings(deadline=DEADLINE, max_examples=300)
@given(messages)
def test_any_message_is_a_value_or_refused(message):
    try:
        value = received(frame(json.dumps({"value": message}).encode()))
    except wire.WireError:
        return
    assert type(value) in (type(None), bool, int, float, str, bytes, complex, range, type, list,
                           tuple, set, frozenset, dict, wire.collections.deque)  # fmt: skip


@pytest.mark.parametrize(
    "message",
    [
        {"set": COLLIDING},
        {"frozenset": COLLIDING},
        {"list": COLLIDING},  # a test may make a set of it
        {"tuple": COLLIDING},
        {"dict": [[key, 1] for key in COLLIDING]},
        {"dict": [[i, key] for i, key in enumerate(COLLIDING)]},
        {"set": [{"tuple": [key]} for key in COLLIDING]},
        {"list": [{"set": COLLIDING[:3000]}] * 30},
    ],
    ids=str.split("set frozenset list tuple keys values tuples many"),
)
def test_values_that_collide_are_refused_soon(message):
    start = time.thread_time()
    with pytest.raises(wire.WireError, match="chosen to have the same hash"):
        wire.decode(message, None)
    assert time.thread_time() - start < 5  # a set of them all takes many seconds


def test_many_values_that_do_not_collide_are_values():
    numbers = {i * 7 for i in range(100_000)}
    assert wire.decode(wire.encode(numbers, None), None) == numbers
    assert wire.decode({"list": [5] * 500_000}, None) == [5] * 500_000
    words = {str(i): [i] for i in range(50_000)}
    assert wire.decode(wire.encode(words, None), None) == words


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"int": "f" * 2**19}, "an integer of more than 1048576 bits"),
        ({"range": [0, 10**12, 1]}, "a range of more than 1048576 numbers"),
        ({"complex": ["9" * 1000, 1.0]}, "not a complex"),
        ({"handle": True}, "unknown kind 'handle'"),
        ({"set": [{"list": []}]}, "not a set: unhashable"),
        ({"int": "1", "list": []}, "not a value"),
        ({"list": [{"list": []}] * 2**16}, "more than 65536 lists and other parts"),
    ],
)
def test_what_would_cost_more_than_its_size_is_refused(message, error):
    with pytest.raises(wire.WireError, match=error):
        wire.decode(message, None)


def test_depth_and_numbers_have_limits():
    deep = 5
    for _ in range(300):
        deep = {"list": [deep]}
    with pytest.raises(wire.WireError, match="nested more than 200 deep"):
        wire.decode(deep, None)
    for body in (b"[" * 10**5, b'{"value": ' + b"9" * 10**5 + b"}", b'{"value": 0.' + b"9" * 10**5):
        with pytest.raises(wire.WireError, match="a frame that is not JSON"):
            received(frame(body))
    with pytest.raises(wire.WireError, match="a frame of 4294967295 bytes, more than"):
        received(b"\xff\xff\xff\xff")
