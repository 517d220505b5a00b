"""Models and data sets of the hub, from a server that answers as the hub does."""

import json
import os
import re
import subprocess
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.tiny import ROOT, environment

# The hub, as its server answers: https://huggingface.co/docs/hub/api.

SHA = "0123456789abcdef0123456789abcdef01234567"
FILES = {"config.json": b'{"model_type": "llama"}', "model.safetensors": b"weights", "x.bin": b"x"}
DATA = {
    "default/train/0000.parquet": b"one",
    "default/train/0001.parquet": b"two",
    "default/test/0000.parquet": b"test",
    "data/rows.jsonl": b'{"question": "?", "answer": "1"}',
}
# Each commit has its number, so that the server knows whose file is asked for.
TINY_SHA = SHA[::-1]
TINY = {
    "model_type": "llama", "vocab_size": 259, "hidden_size": 16, "intermediate_size": 32,
    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
    "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": True,
    "max_position_embeddings": 64,
}  # fmt: skip
OTHERS = {
    "org/two": {"a/train/0.parquet": b"a", "b/train/0.parquet": b"b"},
    "org/tiny": {"config.json": json.dumps(TINY).encode(), "model.safetensors": b"weights"},
}


class Hub(BaseHTTPRequestHandler):
    asked: list = []  # noqa: RUF012

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(head=True)

    def do_GET(self):
        self.answer()

    def answer(self, head=False):
        self.asked.append((self.path, self.headers.get("authorization")))
        headers, status, body = {}, 200, b""
        if "/api/models/org/gated" in self.path:
            status, headers = 403, {"X-Error-Code": "GatedRepo"}
        elif "/api/models/org/none" in self.path:
            status, headers = 404, {"X-Error-Code": "RepoNotFound"}
        elif "/api/models/org/name/revision/v9" in self.path:
            status, headers = 404, {"X-Error-Code": "RevisionNotFound"}
        elif match := re.match(
            "/api/(models|datasets)/(org/(?:name|data|two|tiny))(/tree)?", self.path
        ):
            _, repository, tree = match.groups()
            files = {"org/name": FILES, "org/data": DATA, **OTHERS}[repository]
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": name}
                for name, data in files.items()
            ]
            names = [{"rfilename": name} for name in files]
            sha = TINY_SHA if repository == "org/tiny" else SHA
            body = {"id": repository, "sha": sha, "siblings": names}
            body = json.dumps(rows if tree else body).encode()
        else:
            _, sha, name = re.fullmatch(r"(.*/resolve)/(\w+)/(.*)", self.path).groups()
            files = {**FILES, **DATA, **OTHERS["org/two"]}
            body = (OTHERS["org/tiny"] if sha == TINY_SHA else files).get(name)
            status = 404 if body is None else 200
            body = body or b""
            headers = {"ETag": f'"{len(body)}{name.replace("/", "-")}"', "X-Repo-Commit": sha}
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if not head:
            self.wfile.write(body)


FETCH = """
import os, sys
from passk_jax.errors import ConfigError
from passk_jax import hub, tasks
for place in sys.argv[1:]:
    try:
        if place.startswith("qa "):
            print(tasks.make("qa", files=place[3:]).split("train")[0].row)
        elif "datasets" in place:
            print([(file.name, file.read_text()) for file in hub.data_files(place)])
        else:
            print(sorted(os.listdir(hub.local(place.lstrip("+"), weights="+" in place))))
    except ConfigError as error:
        print(error)
"""


def fetch(url, cache, *places, **env):
    env = environment() | {"HF_ENDPOINT": url, "HF_HOME": str(cache), "HF_TOKEN": "mine", **env}
    args = [sys.executable, "-c", FETCH, *places]
    done = subprocess.run(args, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_model_of_the_hub(tmp_path):
    pytest.importorskip("huggingface_hub")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        small, whole, gated, none, revision, wrong = fetch(
            url, tmp_path,
            "hf://org/name", "+hf://org/name@main", "hf://org/gated", "hf://org/none",
            "hf://org/name@v9", "hf://name",
        )  # fmt: skip
        server.shutdown()
    assert small == "['config.json']"
    assert whole == "['config.json', 'model.safetensors']"
    assert ("Bearer mine") in {token for _, token in Hub.asked}
    assert gated == (
        "'hf://org/gated' is gated: accept its terms on its page, and set HF_TOKEN to your token"
    )
    assert none.startswith("'hf://org/none': there is no such model, or it is private")
    assert revision == "'hf://org/name@v9': the model has no such revision"
    assert wrong.startswith("'hf://name' is no name: write hf://org/name")
    # Without the network: what is in the cache is there, and nothing else is.
    there, other = fetch(url, tmp_path, "+hf://org/name@main", "hf://org/other")
    assert there == whole
    assert other.startswith("'hf://org/other' is not in the cache of this machine and cannot be")
    assert os.linesep not in other


DRY_RUN = """
import sys
from etils import epath
from passk_jax.errors import CheckpointError
from passk_jax.policy.settings import MODEL
from passk_jax.run import dry_run, parts
from tests.tiny import tiny_config
config = tiny_config(init_from="hf://org/tiny", tokenizer__name=None)
config.policy.update(dict.fromkeys(MODEL))
print(dry_run.dry_run(config, epath.Path(sys.argv[1])))
config = parts.build(config).config
config.policy.hidden_dim = 64
try:
    dry_run.dry_run(config, epath.Path(sys.argv[1]))
except CheckpointError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_dry_run_fetches_no_weights(tmp_path):
    pytest.importorskip("huggingface_hub")
    asked = len(Hub.asked)
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        args = [sys.executable, "-c", DRY_RUN, str(tmp_path / "run")]
        env = environment() | {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "cache")}
        done = subprocess.run(args, cwd=ROOT, env=env, capture_output=True, text=True, timeout=100)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    # 259 x 16, and in each of 2 layers 16 x (2 x 16 + 2 x 8) + 3 x 16 x 32 + 2 x 16; 16 at the end
    assert "8,832 trained parameters, from hf://org/tiny" in done.stdout
    # A config that says all is compared with the model's config.json.
    assert done.stdout.splitlines()[-1].endswith("hidden_dim is 32, and the policy's 64")
    files = [path.rpartition("/")[2] for path, _ in Hub.asked[asked:] if "/resolve/" in path]
    assert "config.json" in files
    assert "model.safetensors" not in files
    assert not (tmp_path / "run").exists()


def test_a_data_set_of_the_hub(tmp_path):
    pytest.importorskip("huggingface_hub")
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        asked = len(Hub.asked)
        one, pattern, whole, missing, several, wrong, row = fetch(
            url, tmp_path,
            "hf://datasets/org/data/data/rows.jsonl",
            "hf://datasets/org/data@refs/convert/parquet/default/*/0000.parquet",
            "hf://datasets/org/data",
            "hf://datasets/org/data@v1/*.csv",
            "hf://datasets/org/two",
            "hf://datasets/org",
            "qa hf://datasets/org/data/data/*.jsonl",
        )  # fmt: skip
        server.shutdown()
    assert one == """[('rows.jsonl', '{"question": "?", "answer": "1"}')]"""
    assert row == "{'question': '?', 'answer': '1'}"
    assert pattern == "[('0000.parquet', 'test'), ('0000.parquet', 'one')]"
    assert whole == "[('0000.parquet', 'one'), ('0001.parquet', 'two')]"
    paths = [urllib.parse.unquote(path) for path, _ in Hub.asked[asked:]]
    assert any("/revision/refs/convert/parquet" in path for path in paths)
    assert missing.endswith("the data set has no file '*.csv' at this revision")
    assert several.endswith("@refs/convert/parquet/a/train/*.parquet. There are: a, b")
    assert wrong.startswith("'hf://datasets/org' is no name: write hf://datasets/org/name or")
    (again,) = fetch(url, tmp_path, "hf://datasets/org/data/data/rows.jsonl")  # without the server
    assert again == one
