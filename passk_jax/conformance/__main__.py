"""Examines a function: `python -m passk_jax.conformance module:function --claims pass_at_k`."""

import argparse
import functools
import importlib
import sys

from passk_jax.conformance import CLAIMS, examine


def main() -> int:
    """Prints what is found; the status is 0 if the function is what it claims, else 1."""
    parser = argparse.ArgumentParser(
        prog="python -m passk_jax.conformance",
        description="Says whether a function from rewards (n,) to weights (n,) is unbiased.",
    )
    parser.add_argument("function", help="module:function, called with (rewards, k) or (rewards)")
    parser.add_argument("--claims", choices=CLAIMS, default="pass_at_k")
    parser.add_argument("--k", type=int, default=4, help="size of a set, or order of maxrl")
    parser.add_argument("--n", type=int, default=8, help="samples of a group, 2 to 12")
    parser.add_argument("--scale", choices=("mean", "sum"), default="mean")
    parser.add_argument("--torch", action="store_true", help="call it with a torch tensor")
    given = parser.parse_args()
    module, _, name = given.function.partition(":")
    sys.path.insert(0, "")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        parser.error(f"{given.function!r}: must be module:function ({error})")
    if given.torch:
        function = _of_tensors(function)
    try:
        found = examine(function, given.claims, given.k, given.n, given.scale)
    except ValueError as error:
        parser.error(str(error))
    print("\n".join([f"{given.function} {found.lines[0]}", *found.lines[1:]]))
    return 0 if found.unbiased else 1


def _of_tensors(function):
    import torch

    @functools.wraps(function)
    def called(rewards, *k):
        return function(torch.from_numpy(rewards), *k).numpy()

    return called


if __name__ == "__main__":
    sys.exit(main())
