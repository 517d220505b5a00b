"""What is sent to a bucket: of a file that grows only what is new."""

import types

import pytest
from etils import epath

from passk_jax.run import bucket


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A local folder, a folder in the place of a bucket, and what is appended there."""
    (tmp_path / "here").mkdir()
    appended, append = [], bucket.append

    def spy(target, data, size):
        appended.append((target.name, data, size))
        append(target, data, size)

    monkeypatch.setattr(bucket, "append", spy)
    return tmp_path / "here", epath.Path(tmp_path) / "runs" / "there", appended


def sent(sender, place, data, name="metrics.jsonl"):
    """Sends a file with this content; returns what the bucket has of it then."""
    here, there, _ = place
    (here / name).write_bytes(data)
    sender.send(here / name, there / name)
    return (there / name).read_bytes()


def test_a_path_with_a_scheme_is_in_a_bucket():
    assert bucket.is_in(epath.Path("gs://bucket/run")) is True
    assert bucket.is_in(epath.Path("/tmp/gs/run")) is False


def test_a_file_that_grows_is_sent_once_and_then_what_is_new(place):
    sender, (_, there, appended) = bucket.Sender(), place
    assert sent(sender, place, b"ab") == b"ab"
    assert appended == []
    assert sent(sender, place, b"abc") == b"abc"
    assert sent(sender, place, b"abcde") == b"abcde"
    assert sent(sender, place, b"abcde") == b"abcde"
    name = "metrics.jsonl"
    assert appended == [(name, b"c", 2), (name, b"de", 3), (name, b"", 5)]
    assert [path.name for path in there.iterdir()] == [name]


def test_a_file_that_was_empty_is_sent_as_a_whole(place):
    sender = bucket.Sender()
    assert sent(sender, place, b"") == b""
    assert sent(sender, place, b"a") == b"a"
    assert place[2] == []


@pytest.mark.parametrize(
    ("name", "grows"),
    [
        ("metrics.jsonl", True),
        ("samples.jsonl", True),
        ("evaluation.csv", True),
        ("events.out.tfevents.17.host", True),
        ("problems.csv", False),
        ("old_metrics.jsonl", False),
        ("METRICS.JSONL", False),
    ],
)
def test_which_files_grow(name, grows, place):
    sender = bucket.Sender()
    sent(sender, place, b"1", name)
    assert sent(sender, place, b"12", name) == b"12"
    assert place[2] == ([(name, b"2", 1)] if grows else [])


@pytest.mark.parametrize("now", [b"", b"a", b"xb", b"xbcd", b"axcd"])
def test_a_file_that_is_another_one_is_sent_as_a_whole(now, place):
    """It was cut off, and may have grown again."""
    sender = bucket.Sender()
    sent(sender, place, b"ab")
    assert sent(sender, place, now) == now
    assert place[2] == []


def test_the_last_bytes_are_compared_and_those_before_are_not(place, monkeypatch):
    monkeypatch.setattr(bucket, "_TAIL_BYTES", 3)
    sender, (here, _, appended) = bucket.Sender(), place
    sent(sender, place, b"abcdef")
    # Bytes 4 to 6 are the same: what was before them is not looked at.
    assert sent(sender, place, b"xxxdefg") == b"abcdefg"
    assert appended == [("metrics.jsonl", b"g", 6)]
    # Now they are bytes 5 to 7, e, f and g.
    assert sent(sender, place, b"xxxxefgh") == b"abcdefgh"
    assert sent(sender, place, b"abcdeXghi") == b"abcdeXghi"  # byte 6 is another one
    assert len(appended) == 2
    sender.has(here / "metrics.jsonl", 9, b"0123456Xyz")  # of the end it keeps X, y and z
    assert sent(sender, place, b"......Xyz!") == b"abcdeXghi!"


def test_so_many_bytes_are_remembered(place):
    """64 KiB are: a change of the byte before them is not seen."""
    sender, size = bucket.Sender(), 65_536
    sent(sender, place, b"ab" + b"." * (size - 1))
    assert sent(sender, place, b"xb" + b"." * size)[:1] == b"a"  # a is one byte too far
    sent(sender, place, b"y" * (size + 1))
    sent(sender, place, b"ab" + b"." * (size - 1))
    assert sent(sender, place, b"ax" + b"." * size)[:2] == b"ax"  # b is not


def test_what_cannot_be_appended_is_sent_as_a_whole_and_grows_again(place, caplog):
    sender, (_, there, appended) = bucket.Sender(), place
    sent(sender, place, b"ab")
    (there / "metrics.jsonl").write_bytes(b"abc")
    assert sent(sender, place, b"abd") == b"abd"
    (record,) = caplog.records
    assert record.levelname == "WARNING" and record.name == "passk_jax.run.bucket"
    assert record.getMessage() == (
        f"{there / 'metrics.jsonl'} is sent as a whole: "
        "it has 3 bytes there and not the 2 that were sent"
    )
    assert sent(sender, place, b"abde") == b"abde"
    assert appended == [("metrics.jsonl", b"d", 2), ("metrics.jsonl", b"e", 3)]


def test_what_could_not_be_sent_at_all_is_sent_as_a_whole_later(place):
    sender, (_, there, appended) = bucket.Sender(), place
    sent(sender, place, b"ab")
    (there / "metrics.jsonl").unlink()
    there.rmdir()
    there.write_bytes(b"a file in the way")
    with pytest.raises(OSError):
        sent(sender, place, b"abc")
    there.unlink()
    assert sent(sender, place, b"abcd") == b"abcd"
    assert appended == [("metrics.jsonl", b"c", 2)]  # which failed


class Storage:
    """Google's bucket "b": {name: bytes}. A blob is known by its name, size and generation."""

    def __init__(self, objects):
        self.objects, self.composed = objects, []

    def Client(self):
        return self

    def bucket(self, name):
        assert name == "b"
        return self

    def get_blob(self, name):
        return self.blob(name) if name in self.objects else None

    def blob(self, name):
        def compose(both, if_generation_match=None):
            self.composed.append((name, [each.name for each in both], if_generation_match))
            self.objects[name] = b"".join(self.objects[each.name] for each in both)

        size = len(self.objects.get(name, b""))
        return types.SimpleNamespace(name=name, size=size, generation=17, compose=compose)


@pytest.fixture
def storage(monkeypatch):
    """A bucket with a file; its paths write there too."""
    google = pytest.importorskip("google.cloud.storage")
    storage = Storage({"runs/x/metrics.jsonl": b"ab"})
    monkeypatch.setattr(google, "Client", storage.Client)
    kind = type(epath.Path("gs://b/runs"))
    name = lambda path: str(path).removeprefix("gs://b/")  # noqa: E731
    write = lambda path, data: storage.objects.update({name(path): data})  # noqa: E731
    monkeypatch.setattr(kind, "write_bytes", write)
    monkeypatch.setattr(kind, "unlink", lambda path: storage.objects.pop(name(path)))
    return storage


def test_in_a_bucket_two_objects_become_one(storage):
    bucket.append(epath.Path("gs://b/runs/x/metrics.jsonl"), b"cd", 2)
    assert storage.objects == {"runs/x/metrics.jsonl": b"abcd"}
    names = ["runs/x/metrics.jsonl", "runs/x/metrics.jsonl.part"]
    # Another writer's change in between would be another generation: then nothing is composed.
    assert storage.composed == [(names[0], names, 17)]


@pytest.mark.parametrize(("name", "present"), [("metrics", "2"), ("samples", "None")])
def test_in_a_bucket_a_file_of_another_size_is_left_as_it_is(name, present, storage):
    with pytest.raises(ValueError, match=f"it has {present} bytes there and not the 3 that were"):
        bucket.append(epath.Path(f"gs://b/runs/x/{name}.jsonl"), b"cd", 3)
    assert storage.objects == {"runs/x/metrics.jsonl": b"ab"}


def test_of_nothing_new_nothing_is_asked(tmp_path, storage):
    bucket.append(epath.Path("gs://b/runs/x/metrics.jsonl"), b"", 9)
    bucket.append(epath.Path(tmp_path / "is not there"), b"", 9)
    assert not storage.composed and not any(tmp_path.iterdir())
