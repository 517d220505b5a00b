"""Exchanges read from texts: their groups, their bytes, and how often they happen."""

import pytest

from passk_jax.planning.collectives import collectives, device_groups, instructions

FORMS = {
    "replica_groups={}, dimensions={0}": [range(8)],
    "replica_groups={{0,2},{4,6},{1,3},{5,7}}, x": [(0, 2), (4, 6), (1, 3), (5, 7)],
    "replica_groups=[2,4]<=[8], x": [(0, 1, 2, 3), (4, 5, 6, 7)],
    # 0..7 as (2, 4), transposed: columns become rows.
    "replica_groups=[4,2]<=[2,4]T(1,0), x": [(0, 4), (1, 5), (2, 6), (3, 7)],
    "replica_groups=[4,2]<=[2,4], x": [(0, 1), (2, 3), (4, 5), (6, 7)],
    "replica_groups=[4,2]<=[2,2,2]T(0,2,1), x": [(0, 2), (1, 3), (4, 6), (5, 7)],
    "replica_groups=mesh['a'=4,'b'=2] {'a'}, x": [(0, 2, 4, 6), (1, 3, 5, 7)],
    "replica_groups=mesh['a'=2,'b'=1,'c'=4] {'b','c'}, x": [(0, 1, 2, 3), (4, 5, 6, 7)],
    "replica_groups=mesh['a'=2,'b'=4], device_ids=(0,2,4,6,1,3,5,7) {'a'}, x": [
        (0, 1), (2, 3), (4, 5), (6, 7),
    ],
    "source_target_pairs={{0,1},{1,2},{2,2}}, x": [(0, 1), (1, 2)],
}  # fmt: skip


@pytest.mark.parametrize("attributes", FORMS)
def test_groups(attributes):
    groups = device_groups(f", channel_id=1, {attributes}", 8)
    assert groups == tuple(map(tuple, FORMS[attributes]))


def test_an_unknown_form_is_an_error():
    with pytest.raises(ValueError, match=r"replica_groups=<0,1> is not understood"):
        device_groups(", replica_groups=<0,1>", 8)


def test_a_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation in this HLO text: 'hello'"):
        collectives("hello")


PIECE = 2 * 64 * 128  # bytes of bf16[64,128]


def test_an_exchange_in_steps_counts_once():
    # As a TPU splits a gather: started, carried on beside a product, finished.
    array, gathered = "bf16[64,128]{1,0}", "bf16[256,128]{1,0}"
    gather = "channel_id=7, replica_groups=[2,4]<=[8], dimensions={0}"
    text = f"""HloModule m, num_partitions=8

%start (p: bf16[64,128]) -> (bf16[64,128], bf16[256,128]) {{
  %p = {array} parameter(0)
  %g = {gathered} all-gather(%p), {gather}
  ROOT %c = ({array}, {gathered}) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}}

%step (q: bf16[64,128], b: bf16[256,128], x: bf16[8,64]) -> (bf16[8,128], bf16[256,128]) {{
  %x = bf16[8,64]{{1,0}} parameter(2)
  %b = {gathered} parameter(1)
  %q = {array} parameter(0)
  %g = {gathered} all-gather(%q), {gather}
  %y = bf16[8,128]{{1,0}} dot(%x, %q), lhs_contracting_dims={{1}}, rhs_contracting_dims={{0}}
  ROOT %t = (bf16[8,128]{{1,0}}, {gathered}) tuple(%y, %g)
}}

%done (r: bf16[64,128], d: bf16[256,128]) -> bf16[256,128] {{
  %r = {array} parameter(0)
  %d = {gathered} parameter(1)
  %g = {gathered} all-gather(%r), {gather}
  ROOT %c = {gathered} custom-call(%d, %g), custom_call_target="AsyncCollectiveDone"
}}

ENTRY %main (w: bf16[64,128], v: bf16[8,64]) -> bf16[256,128] {{
  %w = {array} parameter(0)
  %v = bf16[8,64]{{1,0}} parameter(1)
  %s = ({array}, {gathered}) fusion(%w), kind=kCustom, calls=%start
  %s0 = {array} get-tuple-element(%s), index=0
  %s1 = {gathered} get-tuple-element(%s), index=1
  %m = (bf16[8,128]{{1,0}}, {gathered}) fusion(%s0, %s1, %v), kind=kOutput, calls=%step
  %m1 = {gathered} get-tuple-element(%m), index=1
  ROOT %e = {gathered} fusion(%s0, %m1), kind=kCustom, calls=%done
}}
"""
    (gather,) = collectives(text)
    assert (gather.kind, gather.sent_bytes) == ("all-gather", 3 * PIECE)
    assert gather.groups == ((0, 1, 2, 3), (4, 5, 6, 7))
    assert gather.times == 1
    assert instructions(text) == 3  # each fusion is one, whatever is in it


LOOP = """HloModule m, num_partitions=4

%add (a: f32[], b: f32[]) -> f32[] {{
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}}

%goes_on (s: (bf16[64,128], s32[])) -> pred[] {{
  %s = (bf16[64,128]{{1,0:T(8,128)(2,1)}}, /*index=1*/s32[]{{:T(128)}}) parameter(0)
  %limit = s32[]{{:T(128)}} constant(15), metadata={{op_name="jit(f)/while/cond/lt"}}
  %i = s32[]{{:T(128)}} get-tuple-element(%s), index=1
  ROOT %lt = pred[]{{:T(512)}} compare(%i, %limit), direction=LT
}}

%body (s: (bf16[64,128], s32[])) -> (bf16[64,128], s32[]) {{
  %step = s32[]{{:T(128)}} constant({step})
  %s = (bf16[64,128]{{1,0:T(8,128)(2,1)}}, /*index=1*/s32[]{{:T(128)}}) parameter(0)
  %i = s32[]{{:T(128)}} get-tuple-element(%s), index=1
  %x = bf16[64,128]{{1,0:T(8,128)(2,1)}} get-tuple-element(%s), index=0
  %r = bf16[64,128]{{1,0:T(8,128)(2,1)}} {exchange}
  %j = s32[]{{:T(128)}} {next}
  ROOT %t = (bf16[64,128]{{1,0:T(8,128)(2,1)}}, s32[]{{:T(128)}}) tuple(%r, %j)
}}

ENTRY %main (w: (bf16[64,128], s32[])) -> (bf16[64,128], s32[]) {{
  %w = (bf16[64,128]{{1,0:T(8,128)(2,1)}}, s32[]{{:T(128)}}) parameter(0)
  ROOT %l = (bf16[64,128]{{1,0:T(8,128)(2,1)}}, s32[]{{:T(128)}}) while(%w), condition=%goes_on, \
body=%body, metadata={{op_name="jit(f)/while"}}{config}
}}
"""
SUM = "all-reduce(%x), channel_id=1, replica_groups=[2,2]<=[4], to_apply=%add"
COUNTED, OPAQUE = "add(%i, %step)", "fusion(%i), kind=kLoop, calls=%add"
KNOWN = ', backend_config={"known_trip_count":{"n":"9"}}'


def loop(*, step=1, exchange=SUM, then=COUNTED, config=""):
    return LOOP.format(step=step, exchange=exchange, next=then, config=config)


@pytest.mark.parametrize(
    ("text", "times"),
    [
        (loop(), 15),
        (loop(step=2), 8),  # an XLA loop of two steps in each iteration: 0, 2, ..., 14
        (loop(then=OPAQUE, config=KNOWN), 9),
    ],
)
def test_an_exchange_in_a_loop_happens_as_often_as_the_loop_runs(text, times):
    (one,) = collectives(text)
    assert one.sent_bytes == times * 2 * PIECE * 1 / 2  # an all-reduce of two devices
    assert one.times == times
    # Two in the body, the sum and the counter, and one comparison. The rest are names.
    assert instructions(text) == times * 3


BRANCHES = """HloModule m, num_partitions=4

%add (a: bf16[], b: bf16[]) -> bf16[] {
  %a = bf16[] parameter(0)
  %b = bf16[] parameter(1)
  ROOT %s = bf16[] add(%a, %b)
}

%both (x: bf16[64,128]) -> bf16[64,128] {
  %x = bf16[64,128]{1,0} parameter(0)
  %r = bf16[64,128]{1,0} all-reduce(%x), channel_id=1, replica_groups=[2,2]<=[4], to_apply=%add
  ROOT %q = bf16[64,128]{1,0} all-reduce(%r), channel_id=2, replica_groups=[2,2]<=[4], to_apply=%add
}

%one (y: bf16[64,128]) -> bf16[64,128] {
  %y = bf16[64,128]{1,0} parameter(0)
  ROOT %p = bf16[64,128]{1,0} all-reduce(%y), channel_id=3, replica_groups=[2,2]<=[4], to_apply=%add
}

ENTRY %main (n: s32[], w: bf16[64,128]) -> bf16[64,128] {
  %n = s32[] parameter(0)
  %w = bf16[64,128]{1,0} parameter(1)
  ROOT %c = bf16[64,128]{1,0} conditional(%n, %w, %w), branch_computations={%one, %both}
}
"""


def test_of_several_branches_the_largest_counts():
    assert [each.channel for each in collectives(BRANCHES)] == ["1", "2"]
    assert instructions(BRANCHES) == 2


def test_a_loop_that_ends_by_its_data_runs_as_often_as_is_said():
    (one,) = collectives(loop(), {"jit(f)/while": 12.5})
    assert one.sent_bytes == 12.5 * PIECE
    with pytest.raises(ValueError, match=r"has no loop 'jit\(f\)/until_8/while'"):
        collectives(loop(), {"jit(f)/until_8/while": 8})


def test_a_loop_that_is_not_understood_matters_where_it_exchanges_something():
    with pytest.raises(ValueError, match=r"how often the loop 'jit\(f\)/while' runs is not under"):
        collectives(loop(then=OPAQUE))
    assert collectives(loop(then=OPAQUE, exchange="negate(%x)")) == []
    assert instructions(loop(then=OPAQUE, exchange="negate(%x)")) == 3  # counted once
