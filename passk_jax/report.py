"""Compares runs on one page, or shows one: pictures, a table of differences, what was solved.

`python -m passk_jax.report runs/k8_seed0 runs/k8_seed1 runs/k1_seed0 runs/k1_seed1 --output k.html`
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import jax
from etils import epath

from passk_jax import tracking
from passk_jax.errors import printable


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m passk_jax.report", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, local or gs://")
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="FILE",
        help="the page; RUN/report.html for one local run, and report.html here for others",
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        metavar="LABEL",
        help="one for each arm (runs that differ in the seed alone), in the order of their first "
        "run; what differs between their configs if not given",
    )
    parser.add_argument("--title", metavar="TEXT", help="the page's title")
    arguments = parser.parse_args(argv)
    # A chip may be busy with the run that is looked at, and nothing here is worth its time.
    jax.config.update("jax_platforms", "cpu")
    output = arguments.output
    if output is None:
        first, *others = arguments.runs
        output = pathlib.Path("." if others or "://" in first else first) / "report.html"
    try:
        for run in arguments.runs:
            if "://" in run:
                from passk_jax.run import workdir  # which takes a while to load

                workdir.check_reachable(epath.Path(run), "")
        arms = tracking.read_arms(arguments.runs, arguments.labels)
    except ValueError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    for run in (run for arm in arms for run in arm.runs):
        if run.unfinished:
            print(f"warning: {run.folder} is unfinished: {run.progress}", file=sys.stderr)
    for key, values in tracking.differences(arms).items():
        if key.startswith("version of "):
            print(f"warning: the arms differ in the {key}: {' | '.join(values)}", file=sys.stderr)
    print(tracking.summary_table(arms))
    try:
        print(f"\nreport: {tracking.write_report(arms, output, arguments.title)}")
    except (OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
