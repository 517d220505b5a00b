"""Checkpoints: what is saved comes back, damage is noticed, nothing good is lost."""

import errno
import logging
import os
import pathlib
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging as absl_logging

from passk_jax.errors import CheckpointError
from passk_jax.learner.checkpoint import LEFT_OUT, Checkpoints, fingerprints, quiet_logs


def arrays(seed=0):
    return {
        "weights": jax.random.normal(jax.random.key(seed), (100, 50)),
        "half": jax.random.normal(jax.random.key(seed), (3, 4, 5)).astype(jnp.bfloat16),
        "flags": jax.random.bernoulli(jax.random.key(seed), 0.5, (9, 3)),
        "counts": np.arange(7, dtype=np.int32) + seed,
        "key": jax.random.key_data(jax.random.key(seed)),
    }


def save(directory, steps=(1, 2, 3)):
    checkpoints = Checkpoints(directory, keep=3)
    for step in steps:
        checkpoints.save(step, arrays(step), {"step": step, "cursor": {"bytes": 10 * step}})
    checkpoints.close()


def assert_restored(restored, step):
    found_step, found, figures = restored
    assert found_step == step
    jax.tree.map(np.testing.assert_array_equal, found, arrays(step))
    assert figures == {"step": step, "cursor": {"bytes": 10 * step}}


def largest_file(directory):
    files = [path for path in pathlib.Path(directory).rglob("*") if path.is_file()]
    return max(files, key=os.path.getsize)


def test_everything_comes_back_bit_for_bit(tmp_path):
    save(tmp_path / "checkpoints", steps=(1, 2, 3, 4))
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.steps() == [2, 3, 4]
    assert_restored(checkpoints.restore_latest(arrays()), 4)


def test_a_folder_may_be_named_from_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save("here")
    assert_restored(Checkpoints("here").restore_latest(arrays()), 3)
    assert (tmp_path / "here" / "3").is_dir()


def test_what_is_left_out_is_not_read_and_the_rest_is_checked(tmp_path):
    directory = tmp_path / "checkpoints"
    save(directory)
    checkpoints = Checkpoints(directory, read_only=True)
    template = arrays() | {"half": LEFT_OUT, "counts": LEFT_OUT}
    for step in (3, 2):
        found_step, found, _ = checkpoints.restore_latest(template)
        assert found_step == step
        assert found.pop("half") is LEFT_OUT and found.pop("counts") is LEFT_OUT
        jax.tree.map(np.testing.assert_array_equal, found, {n: arrays(step)[n] for n in found})
        flip(largest_file(directory / "3"))


def test_an_empty_directory_has_none(tmp_path):
    assert Checkpoints(tmp_path / "checkpoints").restore_latest(arrays()) is None


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [flip, truncate, remove])
def test_a_damaged_checkpoint_is_passed_over_and_set_aside(tmp_path, damage, caplog):
    directory = tmp_path / "checkpoints"
    save(directory)
    damage(largest_file(directory / "3"))
    checkpoints = Checkpoints(directory)
    assert_restored(checkpoints.restore_latest(arrays()), 2)
    aside = tmp_path / "damaged_checkpoints"
    [said] = [x.getMessage() for x in caplog.records if "is damaged" in x.getMessage()]
    assert said.startswith(f"checkpoint 3 in {directory} is damaged (")
    kind, _, what = said.partition("(")[2].partition(": ")  # an error's, and the rest is one line
    assert kind.isidentifier() and "\n" not in what and len(what) <= 301
    assert f"moved damaged checkpoint 3 to {aside / '3'}" in caplog.text
    # Its number is free again, and what was there is kept for who wants to look at it.
    assert (aside / "3").is_dir()
    checkpoints.save(3, arrays(3), {"step": 3, "cursor": {"bytes": 30}})
    checkpoints.close()
    assert_restored(Checkpoints(directory).restore_latest(arrays()), 3)
    damage(largest_file(directory / "3"))
    assert_restored(Checkpoints(directory).restore_latest(arrays()), 2)
    assert sorted(path.name for path in aside.iterdir()) == ["3", "3_again"]


def test_reading_for_evaluation_moves_nothing(tmp_path):
    directory = tmp_path / "checkpoints"
    save(directory)
    truncate(largest_file(directory / "3"))
    assert_restored(Checkpoints(directory, read_only=True).restore_latest(arrays()), 2)
    assert (directory / "3").is_dir()


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path):
    # What a killed save leaves: orbax's temporary folder, not yet renamed.
    directory = tmp_path / "checkpoints"
    save(directory, steps=(1, 2))
    (directory / "2").rename(directory / "2.orbax-checkpoint-tmp")
    assert_restored(Checkpoints(directory).restore_latest(arrays()), 1)


def test_when_all_are_damaged_it_says_so_and_does_not_start_afresh(tmp_path):
    save(tmp_path / "checkpoints", steps=(1,))
    truncate(largest_file(tmp_path / "checkpoints" / "1"))
    with pytest.raises(CheckpointError, match=r"none of the checkpoints \[1\]"):
        Checkpoints(tmp_path / "checkpoints").restore_latest(arrays())


def test_a_fingerprint_sees_any_changed_element_and_any_swap():
    x = jax.random.normal(jax.random.key(0), (4, 5))
    original = fingerprints({"x": x})["['x']"]
    assert fingerprints({"x": x + 0.0})["['x']"] == original
    assert fingerprints({"x": x.at[3, 4].add(1e-6)})["['x']"] != original
    assert fingerprints({"x": x[::-1]})["['x']"] != original
    assert fingerprints({"x": x.T})["['x']"] != original
    # Of an array of the host, whose n bytes are 255: 255 (1 + 3 + ... + 2n - 1) = 255 n^2, and it
    # has 32 bits: 255 x 4,096^2 needs all of them, and 255 x 8,192^2 = 3 x 2^32 + 4,227,858,432.
    for n, expected in ((4096, 4_278_190_080), (8192, 4_227_858_432)):
        assert fingerprints({"x": np.full(n, 255, np.uint8)})["['x']"] == expected


def test_the_best_is_kept_beside_the_latest(tmp_path):
    directory = tmp_path / "checkpoints"
    values = {1: 0.2, 2: 0.9, 3: None, 4: 0.5, 5: 0.1}
    for steps in ((1, 2, 3), (4, 5)):  # the values are read again when a run goes on
        checkpoints = Checkpoints(directory, keep=1, keep_best=True)
        for step in steps:
            checkpoints.save(step, arrays(step), {"step": step}, values[step])
        checkpoints.close()
    checkpoints = Checkpoints(directory, read_only=True)
    assert checkpoints.steps() == [2, 5] and checkpoints.best() == 2
    step, found, _ = checkpoints.restore_latest(arrays(), at=2)
    assert step == 2
    jax.tree.map(np.testing.assert_array_equal, found, arrays(2))
    assert checkpoints.restore_latest(arrays())[0] == 5


def test_without_values_none_is_the_best(tmp_path):
    save(tmp_path, steps=(1, 2))
    assert Checkpoints(tmp_path, read_only=True).best() is None


def test_a_link_out_of_a_checkpoint_is_refused(tmp_path):
    directory = tmp_path / "checkpoints"
    save(directory)
    file = largest_file(directory / "3")
    file.unlink()
    file.symlink_to("/dev/zero")  # reading it would never end
    with pytest.raises(CheckpointError, match="is a link that leads out of the checkpoint"):
        Checkpoints(directory).restore_latest(arrays())
    assert (directory / "3").exists()


def test_a_checkpoint_that_cannot_be_written_is_an_error_and_the_others_are_named(
    tmp_path, monkeypatch
):
    # Without a folder orbax's threads wait for each other so long, and the process for them.
    timeout = "orbax.checkpoint._src.multihost.multihost._DEFAULT_BARRIER_TIMEOUT"
    monkeypatch.setattr(timeout, 1, raising=False)
    directory = tmp_path / "checkpoints"
    checkpoints = Checkpoints(directory, keep=3)
    checkpoints.save(1, arrays(1), {"step": 1})
    checkpoints.wait()
    directory.rename(tmp_path / "moved")
    directory.write_text("no folder")
    with pytest.raises(
        CheckpointError, match=r"could not write a checkpoint to .*\[1\] are intact"
    ):
        checkpoints.save(2, arrays(2), {"step": 2})
        checkpoints.wait()


def test_what_fails_at_once_is_the_same_error(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(CheckpointError, match=r"could not write .*No space left.*\[\] are intact"):
        checkpoints.save(1, arrays(1), {"step": 1})


def test_only_what_nobody_can_help_is_hidden_from_the_screen(monkeypatch):
    shown, hidden = [], types.SimpleNamespace(exc_value=RuntimeError("Event loop is closed"))
    monkeypatch.setattr(sys, "unraisablehook", shown.append)
    monkeypatch.setattr(absl_logging.get_absl_logger(), "level", logging.INFO)
    quiet_logs()
    assert absl_logging.get_verbosity() == absl_logging.WARNING
    other = types.SimpleNamespace(exc_value=RuntimeError("a thread of yours"))
    for what in (hidden, other):
        sys.unraisablehook(what)
    assert shown == [other]
