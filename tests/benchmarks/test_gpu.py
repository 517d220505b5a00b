"""The GPU benchmark, on what is here, tiny: it ends, and needs no more than the JAX stack."""

import re
import sys

import pytest

from tests.tiny import run

# In place of a module None is one that cannot be imported.
BARE = """
import runpy, sys
sys.modules.update(dict.fromkeys(%r))
sys.argv = ["benchmarks.gpu", "--quick"]
runpy.run_module("benchmarks.gpu", run_name="__main__")
"""
ABSENT = ["gemma", "seqio", "tensorflow", "torch", "transformers", "tokenizers", "sentencepiece"]


@pytest.mark.slow
def test_it_runs_with_the_jax_stack_alone():
    done = run([sys.executable, "-c", BARE % ABSENT])
    assert done.returncode == 0, done.stderr
    assert "100.0% of the tokens are equal; an update differs by 0.0e+00" in done.stdout
    # Embedding 259 x 64; in each of 2 layers attention 64 x 16 x (2 x 8 + 2 x 4) and feed-forward
    # 3 x 64 x 128 and norms 4 x 64; the last norm.
    count = 259 * 64 + 2 * (64 * 16 * 24 + 3 * 64 * 128 + 4 * 64) + 64
    assert f"{count / 1e6:.2f} million parameters" in done.stdout
    # 2 prompts of 7 tokens before the last, 2 x 4 x 8 completion tokens; the embedding at those.
    flops = 6 * ((count - 259 * 64) * (14 + 64) + 259 * 64 * 64)
    assert f"{flops / 1e12:.6f} TFLOP" in done.stdout
    # Keys and values of a token: 2 layers x 2 x 4 heads x 16 x 4 bytes. For each of the tokens 1 to
    # 7 all parameters and both prompts; completions of 1 + ... + 7 tokens so far.
    of_a_token = 2 * 2 * 4 * 16 * 4
    num_bytes = 7 * (4 * count + 14 * of_a_token) + 28 * 8 * of_a_token
    assert f"{num_bytes / 1e9:.3f} GB after it" in done.stdout
    shares = [float(share) for share in re.findall(r"([\d.]+)% of what", done.stdout)]
    assert len(shares) == 2 and all(share > 0 for share in shares)
