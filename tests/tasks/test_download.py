"""Fetching data: from a server of this machine, with what can go wrong on the way."""

import functools
import hashlib
import http.server
import io
import os
import pathlib
import threading
import zipfile

import pytest

from passk_jax.tasks import download


@pytest.fixture
def served(tmp_path):
    """A folder, and the address at which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def a_source(address, content=b'{"text": 1}\n'):
    digest = hashlib.sha256(content).hexdigest()
    return download.Source(f"{address}/x.jsonl", "x/x.jsonl", {"": digest}, "MIT")


def test_a_file_is_fetched_once_and_checked(served, tmp_path, monkeypatch, capsys):
    folder, address = served
    (folder / "x.jsonl").write_bytes(b'{"text": 1}\n')
    monkeypatch.setattr(download, "SOURCES", {"x": a_source(address)})
    root = tmp_path / "data"
    assert download.main(["x", "--to", str(root)]) == 0
    assert (root / "x/x.jsonl").read_bytes() == b'{"text": 1}\n'
    assert "x: now in" in capsys.readouterr().out
    (folder / "x.jsonl").unlink()  # the second time nothing is fetched
    assert download.main(["--to", str(root)]) == 0
    assert "x: already in" in capsys.readouterr().out


def test_another_file_is_refused_and_leaves_nothing(served, tmp_path, monkeypatch, capsys):
    folder, address = served
    (folder / "x.jsonl").write_bytes(b"changed")
    monkeypatch.setattr(download, "SOURCES", {"x": a_source(address)})
    assert download.main(["x", "--to", str(tmp_path / "data")]) == 1
    printed = capsys.readouterr().err
    assert "gave 7 bytes with the sha256 " in printed and "not " in printed
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_without_a_network_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    source = a_source("http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(download, "SOURCES", {"x": source})
    assert download.main(["x", "--to", str(tmp_path)]) == 1
    printed = capsys.readouterr().err
    assert "cannot be reached" in printed and f"put it at {tmp_path / 'x/x.jsonl'}" in printed


def test_an_archive_is_unpacked_and_checked(served, tmp_path, monkeypatch, capsys):
    folder, address = served
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("repo-master/data/training/b.json", "{}")
        archive.writestr("repo-master/data/training/a.json", "[]")
        archive.writestr("repo-master/data/training/README", "no")
        archive.writestr("repo-master/other/data/x.json", "no")
    (folder / "x.zip").write_bytes(packed.getvalue())
    lines = "".join(
        f"{hashlib.sha256(text).hexdigest()}  {name}\n"
        for name, text in (("a.json", b"[]"), ("b.json", b"{}"))
    )
    source = download.Source(
        f"{address}/x.zip",
        "x",
        {"training": hashlib.sha256(lines.encode()).hexdigest()},
        "MIT",
        (("data/training", "training"),),
    )
    monkeypatch.setattr(download, "SOURCES", {"x": source})
    assert download.main(["x", "--to", str(tmp_path / "data")]) == 0
    assert sorted(os.listdir(tmp_path / "data/x/training")) == ["a.json", "b.json"]
    (folder / "x.zip").write_bytes(b"not a zip")
    assert download.main(["x", "--to", str(tmp_path / "other")]) == 1
    assert "not a zip archive" in capsys.readouterr().err


def test_what_to_fetch_and_where_to_are_asked_for(monkeypatch, capsys):
    monkeypatch.delenv("PASSK_DATA", raising=False)
    assert download.main(["mbp", "--to", "x"]) == 2
    assert "unknown data set 'mbp'; known: mbpp, humaneval" in capsys.readouterr().err
    assert download.main(["mbpp"]) == 2
    assert "give the data folder by --to FOLDER or PASSK_DATA" in capsys.readouterr().err


@pytest.mark.skipif("PASSK_DATA" not in os.environ, reason="PASSK_DATA is not set")
@pytest.mark.parametrize("name", ["mbpp", "humaneval", "math", "arc-agi-1"])
def test_the_published_files_have_these_digests(name):
    assert download.is_there(download.SOURCES[name], pathlib.Path(os.environ["PASSK_DATA"]))
