"""Measures the memory that a checkpoint takes while it is loaded, against its parameters.

    python -m benchmarks.loading [--model llama3_2_1b] [--quick]

It writes a folder of random parameters in Hugging Face's form and loads it twice, kept in bfloat16
and in float32, each in a process of its own. It prints the resident memory at its fullest above
what the process had before: of its own (`RssAnon`), and with the mapped files (`VmHWM`), whose
pages the kernel takes back whenever it needs them. Linux only.
"""

import argparse
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time


def decoder_of(model, dtype, quick):
    from passk_jax.policy.config import MODELS
    from passk_jax.policy.decoder import Decoder

    config = dataclasses.replace(MODELS[model], dtype=dtype, param_dtype=dtype)
    if quick:
        config = dataclasses.replace(config, num_layers=2, vocab_size=8192)
    return Decoder(config)


def write(model, folder, quick):
    import flax.linen as nn
    import jax

    from passk_jax.learner.train_state import init_params
    from passk_jax.policy.params import save_huggingface

    decoder = decoder_of(model, "bfloat16", quick)
    params = jax.jit(lambda: nn.unbox(init_params(decoder, jax.random.key(0))))()
    save_huggingface(folder, params, decoder.config)


def resident(field):
    text = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", text)[1]) * 1024


def measure(model, folder, dtype, quick):
    """Loads the folder and returns bytes and seconds."""
    import flax.linen as nn
    import jax
    import jax.numpy as jnp

    from passk_jax.learner.train_state import abstract_params
    from passk_jax.policy.params import load

    decoder = decoder_of(model, dtype, quick)
    template = nn.unbox(abstract_params(decoder))
    jax.block_until_ready(jnp.ones(1) + 1)  # the backend has begun
    before = {field: resident(field) for field in ("RssAnon", "VmRSS")}
    peak, loaded = [before["RssAnon"]], threading.Event()

    def watch():
        while not loaded.wait(0.005):
            peak.append(resident("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    params = jax.block_until_ready(load(folder, decoder.config, template))
    seconds = time.perf_counter() - start
    loaded.set()
    watcher.join()
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    return {
        "bytes": size,
        "own": max(peak) - before["RssAnon"],
        "with files": resident("VmHWM") - before["VmRSS"],
        "seconds": seconds,
    }


def in_a_process(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.loading", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--model", default="llama3_2_1b", help="a name that config.policy.model has"
    )
    parser.add_argument("--quick", action="store_true", help="two layers, 8,192 tokens")
    parser.add_argument("--write", help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.write:
        write(args.model, args.write, args.quick)
        return
    if args.measure:
        print(json.dumps(measure(args.model, *args.measure, args.quick)))
        return
    common = ["--model", args.model, *(["--quick"] if args.quick else [])]
    with tempfile.TemporaryDirectory() as parent:
        folder = f"{parent}/model"
        in_a_process(*common, "--write", folder)
        print(f"{args.model}, kept in    parameters  own memory  with mapped files  seconds")
        for dtype in ("bfloat16", "float32"):
            found = json.loads(in_a_process(*common, "--measure", folder, dtype))
            size = found["bytes"]
            print(
                f"{dtype:>{len(args.model) + 9}} {size / 2**20:9.0f} MiB "
                f"{found['own'] / size:10.2f}x {found['with files'] / size:17.2f}x "
                f"{found['seconds']:8.1f}"
            )


if __name__ == "__main__":
    main()
