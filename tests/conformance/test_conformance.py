"""The kit tells right from wrong: our ports, our rows, and the public versions that are off."""

import importlib.util
import json
import os
import subprocess
import sys
from math import comb

import numpy as np
import pytest

from passk_jax import transforms
from passk_jax.conformance import examine, golden, numpy_port
from passk_jax.conformance.examine import RATES

N, K = 8, 4
PORTED = ("loo s sloo sloo_centered sloo_minus_one sloo_mixed mixture pass_all_k reinforce_k "
          "rloo_k maxrl").split()  # fmt: skip


# --- the golden numbers and the ports ---


def test_the_file_has_every_row_that_is_a_function_of_the_rewards():
    rows = json.loads(golden.FILE.read_text())
    more = {"key", "high_entropy", "history", "answers"}
    expected = {n for n, row in transforms.ESTIMATORS.items() if not more & set(row.parameters)}
    assert set(rows) == expected
    for row in rows.values():
        assert row["counts"] or row["groups"]


@pytest.mark.slow
def test_the_file_has_what_the_estimators_give():
    made, filed = golden.make(), json.loads(golden.FILE.read_text())
    for name, row in made.items():
        for part in ("counts", "groups"):
            for found, expected in zip(row[part], filed[name][part], strict=True):
                if part == "groups":
                    found, expected = found["weights"], expected["weights"]
                np.testing.assert_allclose(
                    np.array(found, float), np.array(expected, float), rtol=1e-12, atol=1e-13
                )


@pytest.mark.parametrize("name", PORTED)
def test_the_numpy_port_passes_the_golden_numbers(name):
    assert golden.compare(name, getattr(numpy_port, name)) > 20
    batch = np.random.default_rng(0).integers(0, 2, (3, 2, 6)).astype(float)
    given = {"loo": (), "mixture": ((0.5, 0.2),)}.get(name, (3,))
    whole = getattr(numpy_port, name)(batch, *given)
    np.testing.assert_allclose(whole[1, 1], getattr(numpy_port, name)(batch[1, 1], *given))


@pytest.mark.parametrize("name", PORTED)
def test_the_torch_port_passes_the_golden_numbers(name):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from passk_jax.conformance import torch_port

    def function(rewards, *given, **options):
        return getattr(torch_port, name)(torch.from_numpy(rewards), *given, **options).numpy()

    assert golden.compare(name, function) > 20


def test_a_wrong_number_is_seen():
    with pytest.raises(AssertionError, match="sloo_minus_one: "):
        golden.compare("sloo_minus_one", lambda r, k: numpy_port.sloo_minus_one(r, k) * 1.001)
    with pytest.raises(AssertionError):  # PKPO's scale
        golden.compare("s", lambda r, k: numpy_port.s(r, k) / len(r))


@pytest.mark.parametrize("file", ["numpy_port", "torch_port"])
def test_a_port_is_one_file_of_its_own(file):
    text = (golden.FILE.parent / f"{file}.py").read_text()
    assert len(text.splitlines()) < 150
    imports = [line for line in text.splitlines() if line.startswith(("import", "from"))]
    assert imports == [{"numpy_port": "import numpy as np", "torch_port": "import torch"}[file]]


# --- the examination ---


@pytest.mark.parametrize("name", ["s", "sloo", "sloo_centered", "sloo_minus_one", "sloo_mixed"])
def test_what_is_unbiased_is_found_so(name):
    found = examine(getattr(numpy_port, name), "max_at_k", k=3, n=6)
    assert found.unbiased and found.real < 1e-12
    np.testing.assert_allclose(found.ratios, 1, rtol=1e-9)
    assert not examine(getattr(numpy_port, name), "max_at_k", k=3, n=6, scale="sum").unbiased


def test_other_claims():
    assert examine(numpy_port.loo, "mean_reward", n=5).unbiased
    assert examine(numpy_port.pass_all_k, "pass_all_k", k=3, n=6).unbiased
    assert examine(numpy_port.maxrl, "maxrl", k=3, n=6).unbiased
    assert examine(numpy_port.rloo_k, "pass_at_k", k=3, n=6).follows == "0.3333 times pass@3"


def test_real_rewards_count_where_they_are_claimed():
    # right for 0/1 rewards, wrong for others
    squared = lambda r, k: numpy_port.sloo_minus_one(r**2, k)  # noqa: E731
    assert examine(squared, "pass_at_k", k=3, n=6).unbiased
    assert not examine(squared, "max_at_k", k=3, n=6).unbiased


# What public code has, from its formulas. docs/conformance.md gives what comes out.


def mean_subtracted(rewards, k):
    plain = numpy_port.s(rewards, k)
    return plain - plain.mean()


def best_minus_second_best(rewards, k):
    """TZSM's lead, used for k < n."""
    second, best = np.sort(rewards)[-2:]
    return len(rewards) * (best - second) * (rewards == best)


def over_the_mean(rewards):
    mean = rewards.mean()
    return (rewards - mean) / mean if mean > 0 else 0 * rewards


def analytical(rewards, k):
    """PKT (14), (15)."""
    n, c = len(rewards), int(rewards.sum())
    rho = 1 - comb(n - c, k) / comb(n, k)
    if rho in (0, 1):
        return 0 * rewards
    minus = (1 - rho - comb(n - c - 1, k - 1) / comb(n - 1, k - 1)) / np.sqrt(rho * (1 - rho))
    return np.where(rewards == 1, np.sqrt((1 - rho) / rho), minus)


def with_its_own_sample(rewards, k):
    """RLOO_K with f+ for failures too: a failure is among the failures that scale it."""
    n, c = len(rewards), int(rewards.sum())
    share = comb(n - c, k - 1) / comb(n - 1, k - 1)
    return k * share * numpy_port.loo(rewards)


def test_the_mean_of_s_shrinks_the_gradient():
    found = examine(mean_subtracted, k=K, n=N)
    assert not found.unbiased and found.factor == pytest.approx(1 - K / N)
    assert found.follows == "0.5 times pass@4" and "  the factor is 1 - k/n" in found.lines


def test_best_minus_second_best_climbs_pass_at_n_and_ties_give_0():
    found = examine(best_minus_second_best, k=K, n=N)
    assert found.follows == "1 times pass@8"
    np.testing.assert_allclose(found.ratios, 2 * (1 - np.array(RATES)) ** 4, rtol=1e-9)
    assert examine(best_minus_second_best, k=N, n=N).unbiased
    assert not best_minus_second_best(np.array([1.0, 1, 0]), 2).any()


def test_reward_over_mean_is_of_order_n_minus_1():
    assert examine(over_the_mean, "maxrl", k=N - 1, n=N).unbiased
    found = examine(over_the_mean, "maxrl", k=N, n=N)
    assert not found.unbiased
    assert found.follows == "1 times the log-likelihood truncated at order 7"


def test_the_analytical_form_is_silent_at_k_of_n():
    found = examine(analytical, k=K, n=N)
    assert not found.unbiased and found.factor is None and found.follows is None
    assert "k = n: all weights are 0" in found.lines


def test_a_scale_that_counts_its_own_sample_is_too_steep():
    # n = 16 is more than the examination takes: the same sum, over the number of successes
    n, k, m = 16, 8, np.arange(16)
    for p, expected in ((0.1, 1.05), (0.4, 1.31)):
        slopes = [
            with_its_own_sample(np.array([1.0] * (i + 1) + [0.0] * (n - i - 1)), k)[0]
            - with_its_own_sample(np.array([1.0] * i + [0.0] * (n - i)), k)[-1]
            for i in m
        ]
        chance = [comb(n - 1, i) * p**i * (1 - p) ** (n - 1 - i) for i in m]
        assert np.dot(chance, slopes) / (k * (1 - p) ** (k - 1)) == pytest.approx(
            expected, abs=5e-3
        )
    found = examine(with_its_own_sample, k=K, n=N)
    assert not found.unbiased and found.ratios[3] > 1.1


# --- our own wrong versions of before ---


def old_best_of_n(rewards, k):
    """(14) without p, on the policy's own samples: it was called best_of_n."""
    fails = 1 - rewards.mean()
    return k * fails ** (k - 1) / (1 - fails**k) * rewards if fails < 1 else 0 * rewards


def old_own_surrogate(rewards):
    """`r - r.mean()` named as a surrogate."""
    return 0 * rewards


def test_our_own_wrong_versions_of_before_are_told_apart():
    assert not examine(old_best_of_n, k=3, n=6).unbiased
    assert examine(old_own_surrogate, k=3, n=6).follows == "nothing: its expected update is 0"
    in_pkpo_s_scale = examine(lambda r, k: numpy_port.sloo_minus_one(r, k) / len(r), k=3, n=6)
    assert in_pkpo_s_scale.factor == pytest.approx(1 / 6)
    assert "  the factor is 1/n" in in_pkpo_s_scale.lines


def test_edges_are_reported():
    lines = examine(numpy_port.sloo_centered, k=3, n=6).lines
    assert "k = n: raises ValueError" in lines and "k = n + 1: raises ValueError" in lines
    assert "all rewards 1: largest weight 0" in lines
    assert "samples of equal reward get equal weights" in lines
    assert "a reward that is nan: all weights are nan" in lines
    assert "all rewards 1: largest weight 3" in examine(numpy_port.s, k=3, n=6).lines
    first = lambda r, k: np.arange(len(r)) * r  # noqa: E731
    lines = examine(first, k=3, n=6).lines
    assert "permuting samples permutes weights: no" in lines
    assert any("weights that differ by up to" in line for line in lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"claims": "pass"}, r"claims = 'pass', allowed: pass_at_k, max_at_k"),
        ({"n": 13}, r"n = 13, allowed: 2, 3"),
        ({"k": 9}, r"k = 9, allowed: 1, 2, 3, 4, 5, 6, 7, 8$"),
        ({"scale": "max"}, r"scale = 'max', allowed: mean, sum"),
    ],
)
def test_what_cannot_be_examined(changes, message):
    with pytest.raises(ValueError, match=message):
        examine(numpy_port.s, **changes)
    with pytest.raises(ValueError, match=r"it maps rewards \(8,\) to \(\), must be the same"):
        examine(lambda r, k: r.mean())


def test_the_command(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from passk_jax.conformance.numpy_port import s, sloo_minus_one\n"
        "def centred(rewards, k):\n"
        "    return s(rewards, k) - s(rewards, k).mean()\n"
        "def plain(rewards):\n"
        "    return rewards / len(rewards)\n"
    )
    command = [sys.executable, "-m", "passk_jax.conformance"]

    def run(*arguments):
        return subprocess.run(
            [*command, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(golden.FILE.parents[2])},
            capture_output=True,
            text=True,
            timeout=120,
        )

    right = run("mine:sloo_minus_one", "--claims", "pass_at_k", "--k", "4")
    assert right.returncode == 0 and "unbiased: yes" in right.stdout, right.stderr
    wrong = run("mine:centred", "--k", "2", "--n", "6")
    assert wrong.returncode == 1 and "it climbs exactly 0.6667 times pass@2" in wrong.stdout
    tensors = ["--torch"] if importlib.util.find_spec("torch") else []
    assert run("mine:plain", "--claims", "mean_reward", "--scale", "sum", *tensors).returncode == 0
    none = run("mine:nothing")
    assert none.returncode == 2 and "'mine:nothing': must be module:function" in none.stderr
