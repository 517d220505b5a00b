"""experiments/tpu and docs/tpu.md: the exact commands, and whole runs on a stand-in for gcloud.

The stand-in (`CLOUD`) keeps what exists in a file, and runs what is sent to a host for real, in a
folder that stands for the host: the copy of the code, host.sh and the training command's arguments.
"""

import json
import os
import pathlib
import re
import shlex
import shutil
import string
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
TPU = ROOT / "experiments/tpu"
PAGE = (ROOT / "docs/tpu.md").read_text()
SCRIPTS = sorted(TPU.glob("*.sh"))
SETTINGS = {
    "PROJECT_ID": "my-project",
    "ZONE": "us-west4-a",
    "TPU_NAME": "math",
    "ACCELERATOR_TYPE": "v5litepod-128",
    "CLUSTER": "passk",
    "BUCKET": "gs://my-bucket",
}
HERE = ["--zone=us-west4-a", "--project=my-project"]
TRAIN = ["--config", "configs/a.py", "--workdir", "gs://my-bucket/runs/x"]
# A shell that loses a quote on the way to the host loses one of these.
AWKWARD = ["--config.a=two words", "--config.b=it's", '--config.c=("x", $HOME, `id`, \\)', "--d="]

CLOUD = r"""
import json, os, pathlib, shutil, subprocess, sys
name, args = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
top = pathlib.Path(os.environ["FAKE"])
with open(top / "log", "a") as log:
    log.write(json.dumps([name, *args]) + "\n")

def value(flag):
    return next((a.partition("=")[2] for a in args if a.startswith(flag + "=")), None)

def gcloud():
    cloud = json.loads((top / "cloud").read_text())
    status = tpu(cloud)
    (top / "cloud").write_text(json.dumps(cloud))
    return status

def tpu(cloud):
    noun, verb = (args[2:4] + ["", ""])[:2]
    if args[:2] == ["auth", "list"]:
        print(cloud["account"])
    elif args[:3] == ["storage", "buckets", "describe"]:
        print(cloud["bucket"])
    elif args[0] in ("artifacts", "builds"):
        return 1 if "describe" in args and not cloud["image"] else 0
    elif args[:2] != ["compute", "tpus"] or noun == "accelerator-types":
        return 0
    elif verb == "list":
        if cloud["silent"]:
            cloud["silent"] -= 1
            return 1
        if noun == "queued-resources" and cloud["request"]:
            if cloud["request"] == "WAITING_FOR_RESOURCES":
                cloud["request"] = "PROVISIONING"
            elif cloud["request"] == "PROVISIONING":
                cloud["request"], cloud["node"] = "ACTIVE", "READY"
            print(cloud["request"])
        elif noun == "tpu-vm" and cloud["node"]:
            print("1000000000.25" if "createTime" in value("--format") else cloud["node"])
    elif verb == "create":
        key = "request" if noun == "queued-resources" else "node"
        assert not cloud[key], "exists already"
        cloud[key] = cloud["answer"][noun]
        for host in (top / "host0", top / "host1"):
            shutil.rmtree(host, ignore_errors=True)
            host.mkdir()
    elif verb == "delete":
        cloud["request"] = cloud["node"] = None
    elif verb == "describe":
        print("no quota for you")
    elif verb == "scp":
        for host in hosts():
            shutil.copy(args[4], host)
    elif verb == "ssh":
        if not cloud["node"]:
            return 255
        if value("--command").endswith("host.sh status") and cloud["events"]:
            event = cloud["events"].pop(0)
            if event == "preempt":
                cloud["request"], cloud["node"] = "SUSPENDED", None
                subprocess.run(os.environ["ON_PREEMPTION"], shell=True, check=True)
                return 255
            if event == "delete":
                cloud["request"] = cloud["node"] = None
                return 255
            if event != "train":
                for host in hosts():
                    (host / "active").unlink()
                    (host / "passk_jax/exit_status").write_text(event)
        return max(
            subprocess.run(
                ["bash", "-c", value("--command")],
                cwd=host,
                env=os.environ
                | {"HOME": str(host), "PATH": f"{top}/hostbin:{os.environ['PATH']}"},
            ).returncode
            for host in hosts()
        )

def hosts():
    return [top / "host0", top / "host1"][: 2 if value("--worker") == "all" else 1]

def xpk():
    pass

sys.exit(globals()[name]())
"""

HOST = r"""
set -eu
case $(basename "$0") in
  sudo)
    case $1 in
      cp) [ "$3" = /etc/systemd/system/passk_jax.service ]; mkdir -p ~/etc; cp "$2" ~/etc ;;
      systemctl | journalctl) "$@" ;;
    esac ;;
  systemctl)
    case $1 in
      enable) [ -e ~/etc/passk_jax.service ]; (cd && bash passk_jax/train.sh); touch ~/active ;;
      disable) rm ~/active; echo 143 >~/passk_jax/exit_status ;;
      is-active) [ -e ~/active ] ;;
      show) if [ -e ~/active ]; then echo active; else echo inactive; fi ;;
    esac ;;
  journalctl) echo "the last lines of the log" >&2 ;;
  python3) mkdir -p ~/.local/bin; cp "$0" ~/.local/bin/uv ;;  # pip install uv
  uv) [ "$2" != find ] || echo /managed/python3.12 ;;
  make) [ "$PYTHON" = /managed/python3.12 ]; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  python) printf '%s\0' "$(basename "$PWD")" "$PASSK_DATA" "$@" >>~/trained; echo >>~/trained ;;
esac
"""


class Place:
    """A checkout with the scripts, and a cloud; `run` runs one of the scripts there."""

    def __init__(self, top):
        self.root, self.top = top / "my checkout", top  # a blank in the path
        shutil.copytree(TPU, self.root / "experiments/tpu")
        (self.root / "Makefile").write_text("UV_VERSION := 1.2.3\n")
        for config in {"configs/a.py", *re.findall(r"configs/\w+\.py", PAGE)}:
            path = self.root / config
            path.parent.mkdir(exist_ok=True)
            path.write_text("")
        (self.root / ".gitignore").write_text("/build/\n")
        self.git("init", "--quiet")
        self.commit("first")
        (top / "passk_data").mkdir()
        (top / "passk_data/tokenizer.model").write_text("x")
        interpreter = f"#!{sys.executable} -SE"
        self.install("bin", "gcloud xpk", f"{interpreter}\n{CLOUD}")
        self.install("hostbin", "sudo systemctl journalctl python3 make", f"#!/bin/bash\n{HOST}")
        self.set_cloud()

    def install(self, folder, names, text):
        (self.top / folder).mkdir()
        for name in names.split():
            path = self.top / folder / name
            path.write_text(text)
            path.chmod(0o755)

    def git(self, *args):
        command = [
            "git",
            "-c",
            "user.name=n",
            "-c",
            "user.email=e",
            "-c",
            "commit.gpgsign=no",
            *args,
        ]
        done = subprocess.run(command, cwd=self.root, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, message):
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "--short=12", "HEAD")

    def set_cloud(self, **changes):
        cloud = {
            "account": "me@example.com",
            "bucket": "US-WEST4",
            "request": None,
            "node": None,
            "silent": 0,
            "image": False,
            "events": [],
            "answer": {"tpu-vm": "READY", "queued-resources": "WAITING_FOR_RESOURCES"},
        }
        (self.top / "cloud").write_text(json.dumps(cloud | changes))

    def cloud(self):
        return json.loads((self.top / "cloud").read_text())

    def run(self, script, *args, cwd=None, **environment):
        return subprocess.run(
            ["bash", str(self.root / "experiments/tpu" / script), *args],
            cwd=cwd or self.top,
            env={
                **SETTINGS,
                "HOME": str(self.top),
                "PATH": f"{self.top}/bin:{os.environ['PATH']}",
                "FAKE": str(self.top),
                "POLL_S": "0",
                "ON_PREEMPTION": ":",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def log(self, *, verb=None):
        path = self.top / "log"
        lines = (
            [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        )
        return [line for line in lines if verb is None or verb in line]

    def trained(self, host=0):
        lines = (self.top / f"host{host}/trained").read_text().splitlines()
        return [line.split("\0")[:-1] for line in lines]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def printed(done):
    """The commands that a dry run printed, each as its arguments."""
    assert done.returncode == 0, done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()]


def copied(place, commit):
    stage = str(place.root / f"build/tpu/passk_jax-{commit}")
    return stage, [
        ["rm", "-rf", stage, f"{stage}.tar"],
        ["mkdir", "-p", f"{stage}/data"],
        ["git", "-C", str(place.root), "archive", f"--output={stage}.tar", commit],
        ["tar", "-xf", f"{stage}.tar", "-C", stage],
    ]


# The scripts and the unit by themselves.


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck():
    done = subprocess.run(
        ["shellcheck", "--external-sources", *SCRIPTS], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_bash_reads_it(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_reads_the_unit(tmp_path):
    text = (TPU / "passk_jax.service").read_text()
    unit = tmp_path / "passk_jax.service"
    unit.write_text(text.replace("@HERE@", "/tmp").replace("@USER@", "root"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "passk_jax" in line]
    assert not complaints


# Dry runs: the exact commands, and nothing else happens.


def test_the_commands_of_a_pod(place):
    commit = place.git("rev-parse", "--short=12", "HEAD")
    done = place.run("pod.sh", "run", "--spot", "--data", "passk_data", "--dry_run", "--", *TRAIN)
    stage, copies = copied(place, commit)
    gcloud, ssh = ["gcloud", "compute", "tpus"], ["tpu-vm", "ssh", "math"]
    host = "bash passk_jax/experiments/tpu/host.sh"
    requests = [
        *[*gcloud, "queued-resources", "list", "--filter=name~/math$"],
        *["--format=value(state.state)", *HERE],
    ]
    assert printed(done) == [
        ["gcloud", "auth", "list", "--filter=status:ACTIVE", "--format=value(account)"],
        [*gcloud, "accelerator-types", "describe", "v5litepod-128", *HERE],
        [*"gcloud storage buckets describe gs://my-bucket".split(), "--format=value(location)"],
        requests,
        [
            *[*gcloud, "queued-resources", "create", "math", "--node-id=math"],
            *["--accelerator-type=v5litepod-128", "--runtime-version=v2-alpha-tpuv5-lite"],
            *["--spot", *HERE],
        ],
        *copies,
        ["cp", "-R", "passk_data/.", f"{stage}/data"],
        ["tar", "-czf", f"{stage}.tar.gz", "-C", os.path.dirname(stage), f"passk_jax-{commit}"],
        [*gcloud, "tpu-vm", "scp", f"{stage}.tar.gz", "math:", "--worker=all", *HERE],
        [
            *[*gcloud, *ssh, "--worker=all"],
            f"--command=tar -xzf passk_jax-{commit}.tar.gz && "
            f"bash passk_jax-{commit}/experiments/tpu/host.sh setup",
            *HERE,
        ],
        [
            *[*gcloud, *ssh, "--worker=all"],
            f"--command={host} start --distributed {shlex.join(TRAIN)}",
            *HERE,
        ],
        requests,
        [*gcloud, *ssh, "--worker=0", f"--command={host} status", *HERE],
    ]
    assert "3072 a day" in done.stderr  # 128 chips x 24
    assert not place.log() and not (place.root / "build").exists()


def test_the_commands_of_one_vm(place):
    settings = ["--type=v6e-8", "--name", "trial", "--dry_run"]
    gcloud, trial = ["gcloud", "compute", "tpus", "tpu-vm"], ["trial", "--worker=all"]
    host = "--command=bash passk_jax/experiments/tpu/host.sh"
    assert printed(place.run("vm.sh", "create", *settings))[-1] == [
        *[*gcloud, "create", "trial", "--accelerator-type=v6e-8", "--version=v2-alpha-tpuv6e"],
        *HERE,
    ]
    # One host needs no --distributed, and its own disk lasts as long as it does.
    train = ["--config", "configs/a.py", "--workdir", "runs/x"]
    assert printed(place.run("vm.sh", "start", *settings, "--", *train)) == [
        [*gcloud, "ssh", *trial, f"{host} start {shlex.join(train)}", *HERE]
    ]
    assert printed(place.run("vm.sh", "each", *settings, "--", "df", "-h")) == [
        [*gcloud, "ssh", *trial, f"{host} each df -h", *HERE]
    ]
    assert printed(place.run("vm.sh", "stop", *settings)) == [
        [*gcloud, "ssh", *trial, f"{host} stop", *HERE]
    ]
    assert printed(place.run("vm.sh", "logs", *settings, "--worker=3")) == [
        [*gcloud, "ssh", "trial", "--worker=3", f"{host} logs --follow", *HERE]
    ]
    assert printed(place.run("vm.sh", "delete", *settings)) == [
        [*gcloud, "delete", "trial", "--quiet", *HERE]
    ]
    assert not place.log()


def test_every_kind_of_machine_and_any_flag_of_gcloud(place):
    given = ["--reserved", "--network=n", "--service-account", "a@b", "--create_flag=--tags=x,y"]
    passed = ["--reserved", "--network=n", "--service-account=a@b", "--tags=x,y", *HERE]
    for script in ("pod.sh", "vm.sh"):
        create = [row for row in printed(place.run(script, "create", "--dry_run", *given))
                  if "create" in row]  # fmt: skip
        assert [row[-6:] for row in create] == [passed]
    for settings, wanted in (
        (["--flex_start=8h"], ["--provisioning-model=flex-start", "--max-run-duration=8h"]),
        (["--spot"], ["--spot"]),
    ):
        # `run` hands all settings on to `create`.
        done = place.run("pod.sh", "run", "--dry_run", *settings, *given, "--", *TRAIN)
        (create,) = (row for row in printed(done) if "create" in row)
        alpha = ["alpha"] if settings != ["--spot"] else []
        kind = ["compute", "tpus", "queued-resources", "create"]
        assert create[: 5 + len(alpha)] == ["gcloud", *alpha, *kind]
        assert create[-6 - len(wanted) :] == [*wanted, *passed]
    done = place.run("vm.sh", "create", "--flex_start=8h", "--dry_run")
    assert done.returncode == 2 and "pod.sh" in done.stderr

    def cluster(*flags):
        (row,) = printed(place.run("gke.sh", "create", "--dry_run", *flags))
        return row[row.index("--num-slices=1") + 1 : -3]

    assert cluster("--spot", "--create_flag=--private") == ["--spot", "--private"]
    for flag in ("--reservation=r", "--flex"):
        assert cluster(f"--create_flag={flag}") == [flag]
    for flag in ("--reserved", "--flex_start=8h"):
        done = place.run("gke.sh", "create", flag, "--dry_run")
        assert done.returncode == 2 and "--create_flag=--" in done.stderr


def test_the_commands_of_gke(place):
    commit = place.git("rev-parse", "--short=12", "HEAD")
    xpk = ["--cluster=passk", "--project=my-project", "--zone=us-west4-a"]
    assert printed(place.run("gke.sh", "create", "--dry_run")) == [
        [*"xpk cluster create --tpu-type=v5litepod-128 --num-slices=1 --on-demand".split(), *xpk]
    ]
    stage, copies = copied(place, commit)
    image = f"us-west4-docker.pkg.dev/my-project/passk-jax/passk_jax:{commit}"
    repository = "passk-jax --location=us-west4 --project=my-project --repository-format=docker"
    assert printed(place.run("gke.sh", "start", "--dry_run", "--", *TRAIN, *AWKWARD)) == [
        [*"gcloud artifacts repositories create".split(), *repository.split()],
        *copies,
        ["cp", f"{stage}/experiments/tpu/Dockerfile", f"{stage}/Dockerfile"],
        [
            *["gcloud", "builds", "submit", stage, f"--tag={image}", "--timeout=3600"],
            "--project=my-project",
        ],
        [
            *"xpk workload create --workload=math --tpu-type=v5litepod-128".split(),
            f"--docker-image={image}",
            *"--max-restarts=50 --restart-on-exit-codes=1".split(),
            "--termination-grace-period-seconds=300",
            # shlex quotes as the script does
            f"--command=exec .venv/bin/python -m passk_jax.train --distributed "
            f"{shlex.join([*TRAIN, *AWKWARD])}".replace('"\'"', "\\'"),
            *xpk,
        ],
    ]
    for verb, command in {
        "status": "xpk workload list",
        "stop": "xpk workload delete --workload=math",
        "delete": "xpk cluster delete",
    }.items():
        assert printed(place.run("gke.sh", verb, "--dry_run")) == [[*command.split(), *xpk]]
    assert printed(place.run("gke.sh", "logs", "--dry_run"))[-1][:3] == [
        "kubectl",
        "logs",
        "--follow",
    ]
    assert not place.log()


# What is wrong is said, by name, before anything happens.


@pytest.mark.parametrize(
    ("args", "environment", "message"),
    [
        (["create"], {"PROJECT_ID": ""}, "--project is missing"),
        (["create"], {"ZONE": ""}, "--zone is missing"),
        (["create"], {"TPU_NAME": ""}, "--name is missing"),
        (["create"], {"ACCELERATOR_TYPE": ""}, "--type is missing"),
        (["create", "--type=v5e-128"], {}, "--type=v5e-128 is unknown: one of v5litepod-4"),
        (["create", "--zone=us-west4"], {}, "--zone=us-west4 is no zone"),
        (["create", "--name=My_TPU"], {}, "--name=My_TPU: small letters"),
        (["create", "--zone"], {}, "--zone needs a value"),
        (["create", "--sport"], {}, "unknown setting --sport"),
        (["creat"], {}, "unknown verb creat"),
        (["setup", "--data=nowhere"], {}, "--data=nowhere is no folder"),
        (["setup", "--commit=abc123"], {}, "--commit=abc123 is no commit"),
        (["start"], {}, "--config is missing"),
        (["start", "--", "--config=configs/a.py"], {}, "--workdir is missing"),
        (["start", "--", "--config=a:small"], {}, "--workdir is missing"),
        (["start", "--", *TRAIN[:2], "--workdir=runs/x"], {}, "need a gs:// folder"),
        (["start", "--", "--config=configs/b.py", *TRAIN[2:]], {}, "configs/b.py is not in commit"),
        (["start", "--", "--config=b", *TRAIN[2:]], {}, "--config b is not in commit"),
        (["create", "--flex_start=soon"], {}, "--flex_start=soon is no duration"),
        (["create", "--flex_start=8h", "--spot"], {}, "give one of them"),
        (["create", "--network"], {}, "--network needs a value"),
        (["each"], {}, "each wants a command"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(place, args, environment, message):
    done = place.run("pod.sh", *args, **environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert done.stderr.count("\n") == 1 and not place.log()


def test_no_git_checkout(place):
    shutil.rmtree(place.root / ".git")
    done = place.run("vm.sh", "setup")
    assert done.returncode == 2 and "is not a git checkout" in done.stderr


def test_uncommitted_changes_are_warned_of_and_stay(place):
    (place.root / "configs/a.py").write_text("changed")
    done = place.run("vm.sh", "setup", "--dry_run")
    assert "warning: uncommitted changes stay here" in done.stderr
    (place.root / "configs/a.py").write_text("")
    assert "warning" not in place.run("vm.sh", "setup", "--dry_run").stderr


def test_check_looks_at_the_account_the_type_and_the_bucket(place):
    done = place.run("pod.sh", "check", "--", *TRAIN)
    assert done.returncode == 0 and "warning" not in done.stderr
    assert "--topology v5e:8x16" in done.stderr and "quota for 128 chips of v5e" in done.stderr
    place.set_cloud(bucket="EUROPE-WEST4")
    done = place.run("pod.sh", "check", "--", *TRAIN)
    assert "gs://my-bucket is in europe-west4, the TPU in us-west4" in done.stderr
    place.set_cloud(account="")
    done = place.run("pod.sh", "check")
    assert done.returncode == 2 and "gcloud auth login" in done.stderr


# Whole runs. The events are what the status of the training meets, one after the other.


def test_a_run_survives_preemption_and_ends(place):
    commit = place.git("rev-parse", "--short=12", "HEAD")
    place.set_cloud(events=["train", "preempt", "train", "train", "0"])
    done = place.run(
        *["pod.sh", "run", "--spot", "--data", "passk_data", "--", *TRAIN, *AWKWARD],
        # Who goes on working in the checkout does not change what is run.
        ON_PREEMPTION=f"cd '{place.root}' && git -c user.name=n -c user.email=e commit -q "
        "--allow-empty -m second",
    )
    assert done.returncode == 0, done.stderr
    assert "math was taken away: asking again" in done.stderr
    assert re.search(r": finished\n.*3072 a day, until you say: .*pod.sh delete", done.stderr)
    assert len(place.log(verb="create")) == 2 and len(place.log(verb="delete")) == 1
    assert all("--spot" in line for line in place.log(verb="create"))
    assert place.git("rev-parse", "--short=12", "HEAD") != commit
    for host in (0, 1):  # the second set of machines; the first is gone
        folder, data, *command = place.trained(host)[-1]
        assert folder == f"passk_jax-{commit}"
        assert command == ["-m", "passk_jax.train", "--distributed", *TRAIN, *AWKWARD]
        assert (pathlib.Path(data) / "tokenizer.model").exists()
    unit = (place.top / "host0/etc/passk_jax.service").read_text()
    assert f"{place.top}/host0/passk_jax-{commit}/train.sh" in unit and "@" not in unit
    assert place.cloud()["node"] == "READY"  # nothing was deleted that was not asked for


def test_a_failed_training_shows_its_log_and_keeps_the_machines(place):
    place.set_cloud(events=["train", "2"])
    done = place.run("pod.sh", "run", "--", *TRAIN)
    assert done.returncode == 2 and "failed with exit status 2" in done.stderr
    assert "the last lines of the log" in done.stderr
    assert len(place.log(verb="create")) == 1 and not place.log(verb="delete")


def test_a_host_that_goes_down_is_no_stop(place):
    # SIGTERM at preemption: the training ends with 143 before the machines are seen to be lost
    place.set_cloud(events=["143", "preempt", "0"])
    done = place.run("pod.sh", "run", "--spot", "--", *TRAIN)
    assert done.returncode == 0 and "interrupted" in done.stderr
    assert len(place.log(verb="create")) == 2


def test_what_somebody_deletes_is_not_made_again(place):
    place.set_cloud(events=["train", "delete"])
    done = place.run("pod.sh", "run", "--spot", "--", *TRAIN)
    assert done.returncode == 2 and "it is not asked for again" in done.stderr
    assert len(place.log(verb="create")) == 1 and not place.cloud()["request"]


def test_a_refused_request_is_not_repeated(place):
    place.set_cloud(answer={"queued-resources": "FAILED"})
    done = place.run("pod.sh", "run", "--spot", "--", *TRAIN)
    assert done.returncode == 2 and "no quota for you" in done.stderr
    assert len(place.log(verb="create")) == 1
    # left over from before, it is replaced
    place.set_cloud(request="FAILED")
    assert place.run("pod.sh", "create").returncode == 0
    assert place.cloud()["request"] == "ACTIVE"


def test_create_again_says_that_it_is_there(place):
    for _ in range(2):
        done = place.run("vm.sh", "create", "--type=v5litepod-8")
        assert done.returncode == 0 and "math is there" in done.stderr
    assert len(place.log(verb="create")) == 1


def test_machines_that_are_not_spot_are_never_replaced(place):
    place.set_cloud(node="TERMINATED")
    done = place.run("vm.sh", "create", "--type=v5litepod-8")
    assert done.returncode == 2 and "its disk may hold something" in done.stderr
    assert not place.log(verb="delete") and not place.log(verb="create")


def test_no_answer_is_not_the_answer_that_nothing_is_there(place):
    for script, settings in {"pod.sh": [], "vm.sh": ["--type=v5litepod-8"]}.items():
        place.set_cloud(request="ACTIVE", node="READY", silent=2)
        assert place.run(script, "create", *settings).returncode == 0
    assert not place.log(verb="create")


def test_the_verbs_one_by_one(place):
    settings = ["--type=v5litepod-8"]
    assert place.run("vm.sh", "create", *settings).returncode == 0
    assert place.run("vm.sh", "setup", *settings).returncode == 0
    status = place.run("vm.sh", "status", *settings).stdout
    assert "machines: active\ntraining: not started\n" in status
    for _ in range(2):  # the second time it runs already
        assert place.run("vm.sh", "start", *settings, "--", *TRAIN).returncode == 0
    assert len(place.trained()) == 1 and "--distributed" not in place.trained()[0]
    other = place.run("vm.sh", "start", *settings, "--", *TRAIN, "--config.seed=1")
    assert other.returncode == 2 and "another run is going on" in other.stderr
    assert "training: running" in place.run("vm.sh", "status", *settings).stdout
    assert place.run("vm.sh", "each", *settings, "--", "pwd").stdout.count("passk_jax-") == 2
    assert place.run("vm.sh", "stop", *settings).returncode == 0
    status = place.run("vm.sh", "status", *settings).stdout
    hours = int(re.search(r"training: stopped\nchip-hours .*: (\d+)", status)[1])
    assert hours > 8 * 24 * 365  # made in 2001, and 8 chips
    assert place.run("vm.sh", "delete", *settings).returncode == 0
    done = place.run("vm.sh", "delete", *settings)
    assert "nothing to delete" in done.stderr and len(place.log(verb="delete")) == 1


def test_gke_builds_one_image_for_a_commit(place):
    assert place.run("gke.sh", "start", "--", *TRAIN).returncode == 0
    assert len(place.log(verb="builds")) == len(place.log(verb="xpk")) == 1
    stage = place.root / f"build/tpu/passk_jax-{place.git('rev-parse', '--short=12', 'HEAD')}"
    assert (stage / "Dockerfile").exists() and (stage / "configs/a.py").exists()
    place.set_cloud(image=True)
    done = place.run("gke.sh", "start", "--", *TRAIN)
    assert "is built already" in done.stderr
    assert len(place.log(verb="builds")) == 1 and len(place.log(verb="xpk")) == 2


# The page.


def page_lines():
    """The command lines of the page with the variables that are exported before them."""
    exported, lines = {}, []
    for block in re.findall(r"^```\n(.*?)^```", PAGE, re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("export "):
                exported |= dict(word.split("=", 1) for word in shlex.split(line)[1:])
            else:
                lines.append((line, dict(exported)))
    return lines


def dry_run_of(line, variables, place):
    """What a line of the page that calls a script prints with --dry_run."""
    script, verb, rest = re.match(r"experiments/tpu/(\S+) (\w+)(.*)", line).groups()
    command = f'bash "$SCRIPTS/{script}" {verb} --dry_run {rest}'
    return subprocess.run(
        ["bash", "-c", command],
        cwd=place.top,
        env={**variables, "PATH": os.environ["PATH"], "SCRIPTS": f"{place.root}/experiments/tpu"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_command_of_the_page_is_one_of_the_scripts(place):
    scripts = [row for row in page_lines() if row[0].startswith("experiments/tpu/")]
    assert len(scripts) > 15
    for line, variables in scripts:
        done = dry_run_of(line, variables, place)
        assert done.returncode == 0 and done.stdout, (line, done.stderr)
        assert "warning" not in done.stderr


def real_gcloud():
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        pytest.skip("gcloud is not installed")
    return gcloud


@pytest.mark.slow
def test_gcloud_knows_every_command_and_flag(place, tmp_path):
    commands = []
    for line, variables in page_lines():
        if line.startswith("gcloud "):
            commands.append(shlex.split(string.Template(line).substitute(variables)))
        elif line.startswith("experiments/tpu/"):
            commands += [
                shlex.split(row) for row in dry_run_of(line, variables, place).stdout.splitlines()
            ]
    # What is sent to a host is not gcloud's; its linter takes the flags in it for its own.
    commands = {
        shlex.join("--command=x" if word.startswith("--command=") else word for word in command)
        for command in commands
        if command[0] == "gcloud"
    }
    assert len(commands) > 20
    wrong = "gcloud compute tpus tpu-vm delete x --no-such-flag=1"
    path = tmp_path / "commands.json"
    path.write_text(json.dumps([{"command_string": row} for row in [*sorted(commands), wrong]]))
    done = subprocess.run(
        [real_gcloud(), "meta", "lint-gcloud-commands", f"--commands-file={path}"],
        env={**os.environ, "CLOUDSDK_CONFIG": str(tmp_path / "gcloud")},
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout:
        pytest.skip("this gcloud has no linter")
    failed = {
        row["command_string"]: row["error_message"]
        for row in json.loads(done.stdout)
        if not row["success"]
    }
    assert set(failed) == {wrong}, failed


def test_the_table_of_the_page_is_the_scripts_own():
    source = (TPU / "common.sh").read_text()
    known = {
        row.split()[0]: row.split()[1:4]
        for row in re.search(r'^TYPES="\n(.*?)^"', source, re.M | re.S)[1].splitlines()
    }
    rows = re.findall(r"^\| `(v\d\S+)` \| `(\S+)` \| (\d+) \| (\d+) \| (\d+) GB", PAGE, re.M)
    assert len(rows) == 10
    for name, *numbers, memory in rows:
        assert numbers == known[name]
        assert memory == {"v5e": "16", "v5p": "95", "v6e": "32"}[numbers[0][:3]]
    for name, (topology, chips, hosts) in known.items():
        sides = [int(side) for side in topology.split(":")[1].split("x")]
        product = sides[0] * sides[1] * (sides[2] if len(sides) == 3 else 1)
        assert product == int(chips) == int(name.split("-")[1]) // (2 if "v5p" in name else 1)
        assert int(hosts) == (1 if product <= (4 if "v5p" in name else 8) else product // 4)


def test_what_the_page_names_is_there():
    named = {
        f"passk_jax/{name.replace('.', '/')}.py"
        for name in re.findall(r"passk_jax\.([a-z_.]+)", PAGE)
    }
    named |= set(re.findall(r"configs/\w+\.py", PAGE))
    missing = sorted(path for path in named if not (ROOT / path).exists())
    if missing:
        pytest.skip(f"not written yet: {', '.join(missing)}")
