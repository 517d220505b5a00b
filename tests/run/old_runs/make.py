"""Keeps a small run of this version, which every later version must be able to open.

python -m tests.run.old_runs.make tests/run/old_runs/schema1.tar.gz

Run it in a commit that raises `record.SCHEMA`. test_record.py opens every archive beside this file.
"""

import pathlib
import sys
import tarfile
import tempfile

from etils import epath

from passk_jax.run.loop import train
from tests.tiny import tiny_config

LEFT_OUT = (".lock", "report.html", "report")


def main(file: str) -> None:
    """Trains for two steps and writes the folder, without its report."""
    config = tiny_config(
        steps=2,
        warm_start__steps=0,
        eval_every_steps=2,
        checkpoints_to_keep=1,
        evaluation__num_problems=2,
        evaluation__prompts_per_batch=2,
    )
    with tempfile.TemporaryDirectory() as folder, tarfile.open(file, "w:gz") as archive:
        train(config, epath.Path(folder))
        for item in sorted(pathlib.Path(folder).iterdir()):
            if item.name not in LEFT_OUT:
                archive.add(item, item.name)


if __name__ == "__main__":
    main(sys.argv[1])
