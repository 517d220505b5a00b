"""Compares the compile times of a step with 42 layers and one with 2: the layers are scanned.

    python -m benchmarks.compile [--quick]

It lowers and compiles the policy-gradient update and the sampler of configs/gemma2_9b_math.py for
the CPU, from shapes only, without any arrays. Each compilation has its own process, so nothing is
shared. It prints wall time and processor time; other load on the machine disturbs the latter less.
"""

import argparse
import json
import subprocess
import sys
import time

NUM_LAYERS = (2, 42)
PHASES = ("sampling", "update")


def compile_once(phase, num_layers, quick):
    """Returns the wall and processor seconds from the function to its executable."""
    from configs import gemma2_9b_math
    from passk_jax.planning import compiling
    from passk_jax.run.parts import build_policy

    config = gemma2_9b_math.get_config()
    config.mesh.update({"fsdp": 1, "model": 1})
    config.sampling.unroll_layers = False  # as on TPU and GPU
    if quick:
        config.policy.update({"embed_dim": 64, "hidden_dim": 128, "head_dim": 16})
    config.policy.num_layers = num_layers
    parts = build_policy(config, None)
    start = time.perf_counter(), time.process_time()
    if phase == "sampling":
        compiling.compile_sampling(parts)
    else:
        compiling.compile_update(parts)
    return time.perf_counter() - start[0], time.process_time() - start[1]


def in_a_process(phase, num_layers, quick):
    call = f"print(json.dumps(compile_once({phase!r}, {num_layers}, {quick})))"
    code = f"import json; from benchmarks.compile import compile_once; {call}"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small widths")
    quick = parser.parse_args().quick
    print(f"{'':10}{'layers':>8}{'wall s':>10}{'processor s':>13}")
    total = dict.fromkeys(NUM_LAYERS, (0.0, 0.0))
    for phase in PHASES:
        for num_layers in NUM_LAYERS:
            wall, processor = in_a_process(phase, num_layers, quick)
            total[num_layers] = total[num_layers][0] + wall, total[num_layers][1] + processor
            print(f"{phase:10}{num_layers:8}{wall:10.2f}{processor:13.2f}", flush=True)
    few, many = (total[num_layers] for num_layers in NUM_LAYERS)
    print(f"{'ratio':18}{many[0] / few[0]:10.2f}{many[1] / few[1]:13.2f}")


if __name__ == "__main__":
    main()
