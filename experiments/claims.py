"""The tables and figures of the four papers, and where each is tested here.

An effect is read from the folder's results.json when `experiments.summary` writes the table;
without that file a row says "not run yet". The verdict is a person's, from the folder's page.
"""

from typing import NamedTuple


class Claim(NamedTuple):
    """A row of experiments/README.md.

    Attributes:
      paper: its short name.
      item: table or figure.
      text: what it says.
      where: folder of experiments/, or None for one that is not tested.
      verdict: of the folder's page; for an untested one, why.
      effect: (study, arm, metric), the arm minus its study's baseline; or with another arm after
        these, minus that.
    """

    paper: str
    item: str
    text: str
    where: str | None
    verdict: str = "not run yet"
    effect: tuple[str, ...] | None = None


PASS_16, PASS_64 = "test/t1/pass@16_n64", "test/t1/pass@64_n64"
MAZE_1, MAZE_8 = "test/t1/pass@1_n32", "test/t1/pass@8_n32"
SOLVED = "train/cumulative_solve_rate"

CLAIMS = [
    Claim("PKPO", "sections 1, 5", "training for k = 8 gives a higher pass@16 than for k = 1",
          "default_job", "holds, on three seeds of the code before the harness",
          ("default_job", "k = 8", "test/t1/pass@16_n16")),
    Claim("PKPO", "Figure 1", "the optimum moves towards risk as k grows", "toy", "reproduced"),
    Claim("PKPO", "Figure 4", "order of the estimators' variances; `sloo_minus_one` lowest", "toy",
          "holds"),
    Claim("PKPO", "Figure 5", "effective rewards of the estimators", "toy", "reproduced"),
    Claim("PKPO", "Tables 1 to 4", "the best k_eval is at k_opt = k_eval: pass@16", "kopt_keval",
          effect=("arithmetic", "k = 16", PASS_16)),
    Claim("PKPO", "Tables 1 to 4", "the same on another task", "kopt_keval",
          effect=("maze", "k = 16", PASS_16)),
    Claim("PKPO", "Tables 1 to 4", "TZSM's baseline does not reach it", "kopt_keval",
          effect=("arithmetic", "TZSM k = 16", PASS_16)),
    Claim("PKPO", "Tables 1 to 4", "a bonus for entropy does not reach it", "kopt_keval",
          effect=("arithmetic", "EntropyReg 0.01", PASS_16)),
    Claim("PKPO", "Tables 5, 6", "on hard problems k_opt > 1 solves more than k_opt = 1, TZSM and "
          "EntropyReg", "hard", effect=("mazes", "k = 8", SOLVED)),
    Claim("PKPO", "Figure 8", "on hard problems pass@1 training stalls: cumulative solve rate",
          "hard", effect=("arithmetic", "k = 8", SOLVED)),
    Claim("PKPO", "Figure 3", "k = 8, then 1: pass@1 recovers and pass@k stays", "annealing",
          "not reproduced: pass@1 nearly recovers, the gain in pass@64 goes",
          effect=("pkpo", "pass@8, then pass@1", PASS_64)),
    Claim("PKT", "Figure 3", "full sampling: pass@k training keeps pass@1", "maze",
          effect=("forms", "full sampling", MAZE_1)),
    Claim("PKT", "Figure 4", "bootstrap sampling beats full sampling", "maze",
          effect=("forms", "bootstrap", MAZE_8, "full sampling")),
    Claim("PKT", "Figure 5", "the analytical form beats bootstrap sampling", "maze",
          effect=("forms", "analytical", MAZE_8, "bootstrap")),
    Claim("PKT", "Figure 7", "pass@k training keeps answers diverse and entropy high", "maze",
          effect=("forms", "analytical", "train/entropy")),
    Claim("PKT", "Figures 10 to 13", "combination, exceeding, adaptive by entropy and without easy "
          "problems; numbers of rollouts", "maze", effect=("shapes", "combination", MAZE_1)),
    Claim("PKT", "Table 2", "pass@k training, then pass@1 training, beats pass@1 alone",
          "annealing", "in part: pass@1 as good, not better; repeated, pass@64 is higher",
          effect=("pkt", "pass@8, then pass@1", "test/t1/pass@1_n64")),
    Claim("PKT", "Table 7", "mazes of sizes beyond training; pass@k, then pass@1", "maze",
          effect=("forms", "analytical", "larger/t1/pass@32_n32")),
    Claim("PKR", "Figure 2", "a larger γ raises pass@K for large K", "arithmetic",
          effect=("arithmetic", "GRPO γ = 4", PASS_64)),
    Claim("PKR", "Figure 4", "a larger γ keeps more different answers", "arithmetic",
          effect=("arithmetic", "GRPO γ = 4", "test/t1/distinct@64_n64")),
    Claim("PKR", "Figure 5", "so it is at other temperatures", "arithmetic",
          effect=("arithmetic", "GRPO γ = 4", "test/t0.6/pass@64_n64")),
    Claim("AS", "Table 1", "each advantage climbs its surrogate reward", "toy",
          "holds, exactly for the unbiased ones"),
    Claim("AS", "sections 4, 5", "GRPO_2 is skew-R as N grows", "surrogates",
          effect=("surrogates", "GRPO_2", PASS_64, "skew-R")),
    Claim("AS", "section 6", "a surrogate's advantage trains as the estimator that it belongs to",
          "surrogates", effect=("surrogates", "log(rate + 0.05)", PASS_64)),
]  # fmt: skip
