"""Files of strangers: any bytes give the right arrays or one clear CheckpointError."""

import json
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax.sharding import SingleDeviceSharding

from passk_jax.errors import CheckpointError
from passk_jax.policy.formats import config_json, orbax, safetensors
from passk_jax.policy.formats.safetensors import INDEX, SINGLE, SafetensorsFolder

ROWS = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    "c": {"dtype": "F16", "shape": [], "data_offsets": [32, 34]},
}
DATA = np.arange(17, dtype=np.uint16).tobytes()


def file_of(rows, data=DATA):
    header = rows if isinstance(rows, bytes) else json.dumps(rows).encode()
    return len(header).to_bytes(8, "little") + header + data


def read(folder):
    found = SafetensorsFolder(folder)
    device = SingleDeviceSharding(jax.devices()[0])
    return {name: np.asarray(found.read(name, device)) for name in found.shapes}


def as_the_format_says(content):
    """The tensors of a file, by the format's page alone, of a file that it allows."""
    end = 8 + int.from_bytes(content[:8], "little")
    rows, arrays = json.loads(content[8:end]), {}
    for name, row in rows.items():
        if name == "__metadata__":
            continue
        dtype = {"F32": np.float32, "F16": np.float16, "BF16": jnp.bfloat16}[row["dtype"]]
        first, last = row["data_offsets"]
        data = content[end + first : end + last]
        arrays[name] = np.frombuffer(data, dtype).reshape(row["shape"])
    return arrays


def test_the_whole_file_is_read(tmp_path):
    (tmp_path / SINGLE).write_bytes(file_of(ROWS))
    found = read(tmp_path)
    assert found["a"].tobytes() + found["b"].tobytes() + found["c"].tobytes() == DATA
    assert found["a"].shape == (2, 3) and found["c"].shape == ()


def change(**fields):
    return {**ROWS, "b": {**ROWS["b"], **fields}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (file_of(change(data_offsets=[16, 24])), "'b' at bytes 16 to 24 overlaps"),
        (file_of(change(shape=[2], data_offsets=[28, 32])), "'b' at bytes 28 to 32 leaves a gap"),
        (file_of({"a": ROWS["a"]}), "corrupt: .* bytes, and its header says"),
        (file_of(change(shape=[-2, -2])), "'b' has shape or offsets that are no whole numbers"),
        (file_of(change(shape=[4.0])), "no whole numbers"),
        (file_of(change(shape=[True, 4])), "no whole numbers"),
        (file_of(change(shape="4")), "no list as its shape"),
        (file_of(change(shape={})), "header is corrupt"),
        (file_of(change(shape=None)), "header is corrupt"),
        (file_of(change(data_offsets=[24.0, 32.0])), "no whole numbers"),
        (file_of(change(data_offsets=[-8, 0])), "no whole numbers"),
        (file_of(change(data_offsets=[24])), "header is corrupt"),
        (file_of(change(shape=[0, 2**62], data_offsets=[24, 24])), "that no array can have"),
        (file_of(change(shape=[4, *[1] * 64])), "that no array can have"),
        (file_of(change(dtype="I64")), "is stored as I64"),
        (file_of(change(dtype=["F32"])), "header is corrupt"),
        (file_of(b'{"a": 1, "a": 2}', b""), "'a' occurs twice"),
        (file_of(b"[" * 100_000, b""), "header is corrupt"),
        (file_of(b'{"a": {"shape": [' + b"9" * 5000 + b"]}}", b""), "header is corrupt"),
        (file_of(b"[1, 2]", b""), "header is corrupt"),
        ((2**63).to_bytes(8, "little") + b"{}", "its header alone would take"),
        ((3).to_bytes(8, "little") + b"{}", "its header alone would take"),
        (b"1234567", "truncated"),
    ],
)
def test_what_a_file_cannot_be_is_said(content, message, tmp_path):
    (tmp_path / SINGLE).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        SafetensorsFolder(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / SINGLE)
    with pytest.raises(CheckpointError, match="truncated or not a safetensors file"):
        SafetensorsFolder(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
small = st.integers(-3, 40)


@st.composite
def damaged(draw):
    """A whole file, with bytes changed, cut out or put in, or other fields in its header."""
    rows = json.loads(json.dumps(ROWS))
    if draw(st.booleans()):
        for _ in range(draw(st.integers(1, 2))):
            row = rows[draw(st.sampled_from(sorted(ROWS)))]
            field = draw(st.sampled_from(sorted(row)))
            row[field] = draw(st.lists(small, max_size=3) | st.sampled_from(["F16"]) | json_values)
        return file_of(rows)
    content = bytearray(file_of(rows))
    for _ in range(draw(st.integers(0, 3))):
        place, length = draw(st.integers(0, len(content))), draw(st.integers(0, 3))
        content[place : place + length] = draw(st.binary(max_size=3))
    return bytes(content)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200) | damaged())
def test_any_file_gives_the_right_arrays_or_one_clear_error(content, tmp_path):
    (tmp_path / SINGLE).write_bytes(content)
    try:
        found = read(tmp_path)
    except CheckpointError:
        return
    expected = as_the_format_says(content)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def write_shards(folder, index):
    folder.mkdir(exist_ok=True)
    (folder / "one").write_bytes(file_of({"a": ROWS["a"]}, DATA[:24]))
    (folder / "two").write_bytes(file_of({"b": change(data_offsets=[0, 8])["b"]}, DATA[:8]))
    content = index if isinstance(index, bytes) else json.dumps({"weight_map": index}).encode()
    (folder / INDEX).write_bytes(content)


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "..", ".", "", "a/b", "a\\b", "a\0b", "\ud800", "x" * 300, 3]
)
def test_a_shard_is_a_file_of_the_folder(name, tmp_path):
    (tmp_path / "x").write_bytes(file_of({"a": ROWS["a"]}, DATA[:24]))
    write_shards(tmp_path / "model", {"a": name, "b": "two"})
    with pytest.raises(CheckpointError, match=r"index.json is corrupt: .*(not the name|expected)"):
        SafetensorsFolder(tmp_path / "model")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"a": "two", "b": "two"}, "two lacks 'a', which .* lists there"),
        ({"a": "one", "b": "one"}, "one lacks 'b', which .* lists there"),
        ({"a": "two", "b": "one"}, "two lacks 'a', which .* lists there"),
        ({"a": "one", "b": "three"}, "lacks 1 of the 2 shards"),
        (b'{"weight_map": {"a": "one", "a": "two"}}', "'a' occurs twice"),
        (b"[" * 100_000, "index.json is corrupt"),
        (b'{"weight_map": ["one"]}', "index.json is corrupt"),
        (b"\xff", "index.json is corrupt"),
    ],
)
def test_an_index_that_does_not_fit_is_said(index, message, tmp_path):
    write_shards(tmp_path, index)
    with pytest.raises(CheckpointError, match=message):
        SafetensorsFolder(tmp_path)


def test_a_tensor_is_in_one_shard(tmp_path):
    write_shards(tmp_path, {"a": "one", "b": "two"})
    assert set(read(tmp_path)) == {"a", "b"}
    (tmp_path / "two").write_bytes(file_of({"a": ROWS["a"]}, DATA[:24]))
    with pytest.raises(CheckpointError, match=r"two has 'a', as .*one has"):
        SafetensorsFolder(tmp_path)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=50)
    | st.fixed_dictionaries(
        {"model_type": st.sampled_from(["llama", "gemma2"])},
        optional={name: small | json_values for name in config_json._SIZES.values()}
        | {"head_dim": small, "rope_scaling": json_values, "hidden_act": st.just("silu")},
    ).map(lambda data: json.dumps(data).encode())
)
def test_any_config_gives_a_decoder_or_one_clear_error(content, tmp_path):
    (tmp_path / "config.json").write_bytes(content)
    try:
        config_json.read(orbax.epath.Path(tmp_path / "config.json"))
    except CheckpointError:
        pass


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_a_checkpoint_does_not_lead_out_of_its_folder(kind, tmp_path):
    folder = tmp_path / "step"
    (folder / "d").mkdir(parents=True)
    (folder / "d" / "data").write_bytes(b"x")
    (folder / "inside").symlink_to("d/data")
    orbax.check_links(folder)
    (tmp_path / "link").symlink_to(folder)  # the folder may be on another disk as a whole
    orbax.check_links(tmp_path / "link")
    if kind == "pipe":
        os.mkfifo(folder / "d" / "out")
    else:
        (tmp_path / "outside").mkdir()
        (folder / "d" / "out").symlink_to("/etc/hostname" if kind == "file" else "../../outside")
    begun = time.monotonic()
    with pytest.raises(CheckpointError, match=r"d/out is "):
        orbax.OrbaxFolder(folder)
    assert time.monotonic() - begun < 60
    assert safetensors.SINGLE not in os.listdir(folder)


def test_names_that_are_almost_numbers_and_folders_in_themselves(tmp_path):
    (tmp_path / "\u00b2").mkdir()
    assert orbax.find(orbax.epath.Path(tmp_path)) is None
    (tmp_path / "1").symlink_to(".")
    assert orbax.find(orbax.epath.Path(tmp_path)) is None
    (tmp_path / "checkpoints").write_text("no folder")
    assert orbax.find(orbax.epath.Path(tmp_path)) is None
