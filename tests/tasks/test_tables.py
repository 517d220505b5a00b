"""Rows of data files of every kind, and what is wrong with a file."""

import gzip
import json
import subprocess
import sys

import pytest

from passk_jax.errors import ConfigError
from passk_jax.tasks import tables
from tests import fake_gcs
from tests.tiny import ROOT, environment

ROWS = [{"question": "1+1?", "answer": "2"}, {"question": "é \n, \"'", "answer": "3"}]


def write(folder, name, rows=ROWS):
    path = folder / name
    lines = "\n".join(json.dumps(row) for row in rows) + "\n"
    csv = 'question,answer\n1+1?,2\n"é \n, ""\'",3\n'
    text = {"jsonl": lines, "json": json.dumps(rows), "csv": csv}
    if name.endswith("parquet"):
        pa = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(rows), path)
    else:
        data = text[name.removesuffix(".gz").rpartition(".")[2]].encode()
        path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    return path


@pytest.mark.parametrize(
    "name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.json.gz", "a.csv", "a.csv.gz", "a.parquet"]
)
def test_every_kind_has_the_same_rows(name, tmp_path):
    path = write(tmp_path, name)
    found = list(tables.rows(str(path)))
    assert [row.columns for row in found] == ROWS
    assert found[1].where == f"{path}, row 2"


def test_a_byte_order_mark_and_windows_lines(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfquestion,answer\r\n1+1?,2\r\n")
    assert next(tables.rows(str(tmp_path / "a.csv"))).columns == ROWS[0]
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"a": "x\xe2\x80\xa8y"}\r\n\r\n{"a": 1}\r\n')
    found = [row.columns["a"] for row in tables.rows(str(tmp_path / "a.jsonl"))]
    assert found == ["x\u2028y", 1]


def test_a_pattern_matches_files_in_the_order_of_their_names(tmp_path):
    for number, name in enumerate(("b-2.jsonl", "b-1.jsonl", "c.jsonl")):
        write(tmp_path, name, [{"n": number}])
    found = tables.rows(str(tmp_path / "b-*.jsonl"))
    assert [row.columns["n"] for row in found] == [1, 0]


def test_a_path_is_meant_from_the_current_folder_or_the_data_folder(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", "a.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PASSK_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"there is no file a\.jsonl\. A path is meant from the"):
        list(tables.rows("a.jsonl"))
    assert len(list(tables.rows("a.jsonl", str(tmp_path / "data")))) == 2
    monkeypatch.setenv("PASSK_DATA", str(tmp_path / "data"))
    assert len(list(tables.rows("a.jsonl"))) == 2
    with pytest.raises(ConfigError, match=r"there is no file b\.jsonl and .*data/b\.jsonl"):
        list(tables.rows("b.jsonl"))


READ = """
import sys
from passk_jax.tasks import tables
for place in sys.argv[1:]:
    print([row.columns["n"] for row in tables.rows(place)])
"""


@pytest.mark.slow
def test_files_in_a_bucket(tmp_path):
    pytest.importorskip("tensorflow")
    with fake_gcs.serve(tmp_path) as (objects, env):
        objects["bucket/data/a-2.jsonl"] = b'{"n": 2}'
        objects["bucket/data/a-1.jsonl"] = b'{"n": 1}'
        objects["bucket/data/b.jsonl"] = b'{"n": 3}'
        places = ["gs://bucket/data/b.jsonl", "gs://bucket/data/a-*.jsonl"]
        done = subprocess.run(
            [sys.executable, "-c", READ, *places], cwd=ROOT, env=environment() | env,
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.stdout.splitlines() == ["[3]", "[1, 2]"], done.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": \n', r"a\.jsonl: line 2 is not JSON: Expecting value"),
        ("a.jsonl", "[1]\n", r"a\.jsonl, row 1: not an object but list"),
        ("a.jsonl", "\n", r"a\.jsonl: the file has no rows"),
        ("a.json", '{"a": 1}', r"a\.json: a list of objects is wanted, not dict"),
        ("a.json", "[]", r"a\.json: the file has no rows"),
        ("a.json", "[3]", r"a\.json, row 1: not an object but int"),
        ("a.csv", "a,b\n1\n", r"a\.csv: a row has more or fewer values than the header"),
        ("a.csv", "a,b\n1,2,3\n", r"a\.csv: a row has more or fewer values than the header"),
        ("a.csv", "a,b\n", r"a\.csv: the file has no rows"),
        ("a.csv", 'a\n"1', r"a\.csv: unexpected end of data"),
        ("a.txt", "a", r"a\.txt: files of this kind are not read; these are: \.jsonl, "),
        ("a.jsonl", b"\xff", r"a\.jsonl: 'utf-8' codec can't decode"),
        ("a.jsonl.gz", b"no", r"a\.jsonl\.gz: Not a gzipped file"),
        ("a.parquet", b"PAR1", r"a\.parquet: .*Parquet"),
    ],
)
def test_what_is_wrong_with_a_file(name, content, message, tmp_path):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    data = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ConfigError, match=message):
        list(tables.rows(str(tmp_path / name)))


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ConfigError, match=r"is a folder: name its files, such as .*/\*\.jsonl"):
        list(tables.rows(str(tmp_path)))


NESTED = {
    "reward_model": {"ground_truth": "34", "style": None},
    "prompt": [{"role": "user", "content": "Solve"}],
    "a.b": "dotted",
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("reward_model.ground_truth", "34"),
        ("prompt.0.content", "Solve"),
        ("prompt.-1.role", "user"),
        ("a.b", "dotted"),
    ],
)
def test_a_dotted_path_reaches_into_a_column(path, expected):
    assert tables.value(tables.Row("f, row 1", NESTED), path, "answer") == expected


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("answer", "the row has the columns reward_model, prompt, a.b"),
        ("promt", r"the row has the columns .* \(did you mean 'prompt'\?\)"),
        ("reward_model.truth", "'reward_model' has the columns ground_truth, style"),
        ("reward_model.style.x", "'reward_model.style' has nothing"),
        ("prompt.1.content", "'prompt' has a list of 1"),
        ("prompt.x", "'prompt' has a list of 1"),
        ("reward_model.ground_truth.0", "'reward_model.ground_truth' has str"),
    ],
)
def test_a_path_that_leads_nowhere(path, message):
    with pytest.raises(ConfigError, match=rf"f, row 1: option answer = '{path}': {message}"):
        tables.value(tables.Row("f, row 1", NESTED), path, "answer")
