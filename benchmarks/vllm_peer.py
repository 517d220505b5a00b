"""vLLM as a peer of `benchmarks.grid`: a process of its own, by the Python of its environment.

The process reads requests from its standard input and writes tokens to its standard output, a line
of JSON each. It waits without using the processor. It samples as in training: weights have changed,
so it forgets the prompts of earlier requests, and the samples of one request share their prompts.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np


class Vllm:
    """Starts vLLM with a model, and asks it for samples.

    Args:
      python: That of an environment which has vllm.
      folder: Of Hugging Face.
      dtype: Of parameters and computation.
      max_tokens: Of a prompt and its completion.
      compiled: Whether it compiles the model, which takes a minute or two.
    """

    def __init__(self, python, folder, dtype, max_tokens, compiled):
        settings = {
            "HF_HUB_OFFLINE": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_CPU_KVCACHE_SPACE": "4",  # GiB
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the threads of its workers would not sleep
            # What vLLM advises on x86. Threads that have no work wait for 5 ms, and then sleep.
            "LD_PRELOAD": str(pathlib.Path(python).absolute().parents[1] / "lib/libiomp5.so"),
            "KMP_BLOCKTIME": "5",
            "KMP_TPAUSE": "0",
            "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0))),
        }
        command = [python, "-P", __file__, folder, dtype, str(max_tokens)]
        self.process = subprocess.Popen(
            command + ["--compiled"] * compiled,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**settings, **os.environ},
        )
        self.processor_seconds = 0.0  # of all samples so far

    def sample(self, tokens_PxT, num_samples, new_tokens, temperature):
        """Returns tokens of shape (prompts, samples, new tokens)."""
        request = [tokens_PxT.tolist(), num_samples, new_tokens, temperature]
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"vLLM ended with status {self.process.wait()}")
        tokens, seconds = json.loads(answer)
        self.processor_seconds += seconds
        return np.array(tokens).reshape(-1, num_samples, new_tokens)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("dtype")
    parser.add_argument("max_tokens", type=int)
    parser.add_argument("--compiled", action="store_true")
    flags = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    import vllm

    model = vllm.LLM(
        flags.folder,
        dtype=flags.dtype,
        skip_tokenizer_init=True,
        enable_prefix_caching=True,
        block_size=32,  # its smallest: samples share more of a prompt than with 128, its default
        max_model_len=flags.max_tokens,
        enforce_eager=not flags.compiled,
    )
    for line in sys.stdin:
        prompts, num_samples, new_tokens, temperature = json.loads(line)
        start = time.process_time()
        model.reset_prefix_cache()
        if not temperature:  # vLLM refuses several greedy samples
            prompts = [prompt for prompt in prompts for _ in range(num_samples)]
        settings = vllm.SamplingParams(  # without a seed: it would draw samples one by one
            n=num_samples if temperature else 1,
            max_tokens=new_tokens,
            ignore_eos=True,
            temperature=temperature,
            detokenize=False,
        )
        found = model.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts], settings, use_tqdm=False
        )
        tokens = [list(sample.token_ids) for each in found for sample in each.outputs]
        seconds = time.process_time() - start
        print(json.dumps([tokens, seconds]), file=answers, flush=True)


if __name__ == "__main__":
    main()
