"""The command: where the page is written, what the terminal says, and one line for bad input."""

import json
import pathlib
import shutil

import pytest

from passk_jax import report
from passk_jax.run.loop import train
from passk_jax.tracking import figures
from tests.tiny import tiny_config


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny run, and a copy that says that its k was another."""
    one = tmp_path_factory.mktemp("runs") / "k1"
    train(tiny_config(estimator__k=1, steps=2, eval_every_steps=2), one)
    other = pathlib.Path(shutil.copytree(one, one.with_name("k2")))
    config = json.loads((other / "config.json").read_text())
    config["estimator"]["k"] = 2
    (other / "config.json").write_text(json.dumps(config))
    return one, other


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.setattr(figures, "draw_all", lambda arms: [])  # they take seconds


@pytest.mark.slow
def test_two_runs(folders, tmp_path, capsys):
    page = tmp_path / "new" / "k.html"
    labels = ["pass@1", "pass@2"]
    runs = list(map(str, folders))
    assert report.main([*runs, "--output", str(page), "--labels", *labels]) == 0
    out = capsys.readouterr().out
    assert f"report: {page}" in out
    assert "minus the first" in out
    assert all(f"</span>{label}" in page.read_text() for label in labels)
    assert "problems rose from step 0 to step 2" in page.read_text()
    assert (page.parent / "k" / "pass_at_k.png").exists()


def test_a_single_run_is_written_into_its_folder(folders, no_pictures, capsys):
    (folders[0] / "report.html").unlink()
    assert report.main([str(folders[0])]) == 0
    assert "passk_jax run" in (folders[0] / "report.html").read_text()
    assert capsys.readouterr().err == ""


def test_several_are_written_here(folders, no_pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert report.main(list(map(str, folders))) == 0
    assert (tmp_path / "report.html").exists()


def test_versions_that_differ_are_a_warning(folders, no_pictures, tmp_path, capsys):
    runs = [str(shutil.copytree(each, tmp_path / each.name)) for each in folders]
    file = tmp_path / "k2" / "record.json"
    record = json.loads(file.read_text())
    here = record["starts"][0]["versions"]["jax"]
    record["starts"][0]["versions"]["jax"] = "0.1"
    file.write_text(json.dumps(record))
    assert report.main([*runs, "--output", str(tmp_path / "k.html")]) == 0
    said = f"warning: the arms differ in the version of jax: {here} | 0.1"
    assert capsys.readouterr().err.strip() == said
    assert "version of jax" in (tmp_path / "k.html").read_text()


def test_an_unfinished_run_is_a_warning(folders, no_pictures, tmp_path, capsys):
    config = json.loads((folders[0] / "config.json").read_text())
    for name in ("config.json", "metrics.jsonl"):
        (tmp_path / name).write_bytes((folders[0] / name).read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(config | {"steps": 7}))
    assert report.main([str(tmp_path)]) == 0
    warning = f"warning: {tmp_path} is unfinished: step 2 of 7\n"
    assert capsys.readouterr().err == warning
    # One that ended early is as it should be, unless it has gone on since.
    record = json.loads((folders[0] / "record.json").read_text())
    for step, words in ((2, ""), (1, warning)):
        record["ended"] = {"step": step, "reason": "flat"}
        (tmp_path / "record.json").write_text(json.dumps(record))
        assert report.main([str(tmp_path)]) == 0
        assert capsys.readouterr().err == words
        assert ("Unfinished" in (tmp_path / "report.html").read_text()) == bool(words)


def test_bad_input_is_one_line_and_status_2(folders, tmp_path, capsys):
    one, other = folders
    assert report.main([str(one), str(tmp_path), "--output", str(tmp_path / "x.html")]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path} holds no run: there is no config.json in it\n"
    )
    config = json.loads((other / "config.json").read_text())
    config["evaluation"]["temperature"] = 0.6
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "metrics.jsonl").write_bytes((other / "metrics.jsonl").read_bytes())
    assert report.main([str(one), str(tmp_path), "--output", str(tmp_path / "x.html")]) == 2
    assert capsys.readouterr().err == (
        f"error: {one} and {tmp_path} are not comparable: config.evaluation.temperature is 1.0 "
        "there and 0.6 here\n"
    )
    assert not (tmp_path / "x.html").exists()


def test_a_page_that_cannot_be_written(folders, no_pictures, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert report.main([str(folders[0]), "--output", str(tmp_path / "file" / "x.html")]) == 1
    assert "error: " in capsys.readouterr().err
