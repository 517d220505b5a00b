"""The golden numbers of every row, in golden.json: made here, and compared with a function.

    python -m passk_jax.conformance.golden > passk_jax/conformance/golden.json

For each row: its options; `counts`, for 0/1 rewards in groups of n = 2..8 with c successes, rows
[n, c, k, weight of a success, weight of a failure] (null where there is none, or the row takes no
k); `groups`, where the order matters or rewards are real and tied, {"rewards", "k", "weights"}.
Weights are for a mean; for a sum divide them by n. All have 17 digits.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

FILE = pathlib.Path(__file__).parent / "golden.json"
OPTIONS = {
    "pkr": {"gamma": 2.5},
    "entropy_regularised": {"coefficient": 0.5},
    "mixture": {"shares": (0.5, 0.25)},
    "rs_grpo": {"coefficient": 2.0},
    "w_reinforce": {"coefficient": 0.1},
}
SIZES = range(2, 9)
REAL = ([0.3, -1.0], [2.0, 0.5, 0.5], [0.3, -1.0, 2.0, 0.3, 0.0, 5.5], [1.5] * 4)
ORDERED = ([0, 1, 0], [1, 0, 0, 1, 1, 0], [0, 1, 1, 1, 0, 0, 0, 1], [0, 0, 0, 1])
_OF_SETS = {"full_sampling", "best_of_n", "naive_partitioned", "naive_partitioned_baselined",
            "loo_minus_one_partitioned"}  # fmt: skip
_GIVEN = {"key", "high_entropy", "history", "answers"}  # rows that take more than rewards


def make() -> dict[str, Any]:
    """Returns the numbers of all rows that are functions of rewards alone, in float64."""
    import jax

    from passk_jax import transforms

    found = {}
    with jax.enable_x64(True):
        for name, row in transforms.ESTIMATORS.items():
            if _GIVEN & set(row.parameters):
                continue
            options = OPTIONS.get(name, {})
            run = jax.jit(
                jax.vmap(
                    lambda r, k, row=row, options=options: row.function(
                        r, **({"k": k} if row.takes_k else {}), **options
                    ),
                    in_axes=(0, None),
                )
            )
            groups = [] if row.binary else list(REAL)
            groups += ORDERED if name in _OF_SETS else []
            found[name] = {
                "options": options,
                "binary": row.binary,
                "counts": [] if name in _OF_SETS else _counts(row, run),
                "groups": [
                    {"rewards": g, "k": k, "weights": _plain(run(np.array([g], float), k))[0]}
                    for g in groups
                    for k in _ks(row, len(g))
                ],
            }
    return found


def _counts(row: Any, run: Callable) -> list[list]:
    rows = []
    for n in SIZES:
        for k in _ks(row, n):
            for c, weights in enumerate(_plain(run(np.tri(n + 1, n, k=-1), k))):
                success, failure = weights[0] if c else None, weights[-1] if c < n else None
                rows.append([n, c, k, success, failure])
    return rows


def _ks(row: Any, n: int) -> list[int | None]:
    if not row.takes_k:
        return [None]
    kind = row.parameters["k"]
    return list(range(1, (kind.largest(n) if hasattr(kind, "largest") else n) + 1))


def _plain(weights: Any) -> list[list[float]]:
    return (np.asarray(weights, np.float64) + 0.0).tolist()  # no -0.0


def compare(name: str, function: Callable[..., Any], rtol: float = 1e-9) -> int:
    """Raises AssertionError where a function differs from a row's numbers.

    Args:
      name: The row.
      function: (rewards (n,) float64, k) -> weights (n,) for a mean; without k if the row takes
        none. Options such as `shares` are given by name.
      rtol: The largest error over the largest weight of a group.

    Returns:
      The number of groups that were compared.
    """
    row = json.loads(FILE.read_text())[name]
    cases = [(g["rewards"], g["k"], g["weights"]) for g in row["groups"]]
    for n, c, k, success, failure in row["counts"]:
        cases.append(([1] * c + [0] * (n - c), k, [success] * c + [failure] * (n - c)))
    for rewards, k, expected in cases:
        given = () if k is None else (k,)
        found = np.asarray(function(np.array(rewards, float), *given, **row["options"]))
        size = np.abs(expected).max()
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=rtol * max(size, 1.0), err_msg=f"{name}: {rewards}, {k}"
        )
    return len(cases)


if __name__ == "__main__":
    lines = [f'"{k}":{json.dumps(v, separators=(",", ":"))}' for k, v in make().items()]
    print("{" + ",\n".join(lines) + "}")
