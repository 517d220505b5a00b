"""Prints the figures of the first tables of benchmarks/README.md, in turn: `python -m benchmarks`.

Some twenty minutes on two cores with nothing else running. The peers come with `make setup-trl` and
`make setup-parity`, the weights of SmolLM2 with `make setup-pretrained`.
"""

import subprocess
import sys

FAST = "--peers dynamic shared"  # a static cache takes eight times as long after 1,024 tokens
COMMANDS = (
    "whole_step",
    f"grid --prompts 24 --completions 32 256 1024 {FAST}",
    f"grid --prompts 128 1024 4096 --completions 32 {FAST}",
    f"grid --prompts 24 --completions 256 --samples 64 {FAST}",
    "smollm2 --repetitions 3",
    "step --smollm2",
)

if __name__ == "__main__":
    for command in COMMANDS:
        print(f"\n## python -m benchmarks.{command}", flush=True)
        subprocess.run([sys.executable, "-m", *f"benchmarks.{command}".split()], check=True)
