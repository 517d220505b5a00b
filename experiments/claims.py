"""The tables and figures of the four papers, and the experiment that tests each one.

`experiments.summary` reads each effect from the folder's results.json when it writes the table.
Without that file the row says "not run yet". A person wrote the verdicts, on the folders' pages.
"""

from typing import NamedTuple


class Claim(NamedTuple):
    """A row of experiments/README.md.

    Attributes:
      paper: The paper's short name.
      item: The table or figure.
      text: The claim.
      where: The folder of experiments/ that tests it, or None if it is not tested.
      verdict: The verdict of the folder's page, or the reason why it is not tested.
      effect: (study, arm, metric): the arm minus the study's baseline. A fourth item names another
        arm to subtract instead of the baseline.
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
LARGE = "not here: needs pretrained models of 1.5 to 32 billion parameters"

CLAIMS = [
    Claim("PKPO", "sections 1, 5", "training for k = 8 gives a higher pass@16 than for k = 1",
          "default_job", "holds, in each of five seeds",
          ("default_job", "k = 8", "test/t1/pass@16_n16")),
    Claim("PKPO", "Figure 1", "the optimum moves towards risk as k grows", "toy", "reproduced"),
    Claim("PKPO", "Figure 2", "the weights of the sorted samples, from all alike at k = 1 to the "
          "best alone at k = n", "toy", "reproduced"),
    Claim("PKPO", "Figure 3", "k = 8, then 1: pass@1 recovers and pass@k stays", "annealing",
          "not reproduced: pass@1 nearly recovers, the gain in pass@64 goes",
          ("pkpo", "pass@8, then pass@1", PASS_64)),
    Claim("PKPO", "Figure 4", "order of the estimators' variances; `sloo_minus_one` lowest", "toy",
          "holds"),
    Claim("PKPO", "Figure 5", "effective rewards of the estimators", "toy", "reproduced"),
    Claim("PKPO", "Figure 6a", "a larger k_opt solves more training problems", "kopt_keval",
          "reproduced, but for k_opt = n", ("arithmetic", "k = 8", SOLVED)),
    Claim("PKPO", "Figure 6b", "a larger k_opt keeps entropy higher", "kopt_keval",
          "reproduced", ("arithmetic", "k = 8", "train/entropy")),
    Claim("PKPO", "Tables 1 to 4, 7, 8; Figure 7", "the best pass@k_eval is that of k_opt = k_eval "
          "(there MATH and code)", "kopt_keval", "reproduced up to neighbours",
          ("arithmetic", "k = 8", PASS_16)),
    Claim("PKPO", "Tables 1 to 4, 7, 8", "the same on another task, mazes", "kopt_keval",
          "reproduced up to neighbours", ("maze", "k = 8", PASS_16)),
    Claim("PKPO", "Tables 1 to 4, 7, 8; Figure 7", "TZSM, which is k_opt = n, is below k_opt = 8, "
          "even at pass@16", "kopt_keval", "reproduced",
          ("arithmetic", "k = 8", PASS_16, "k = 16")),
    Claim("PKPO", "Tables 1 to 4, 7, 8", "a bonus for entropy, its coefficient swept, is below "
          "k_opt = 8", "kopt_keval", "reproduced",
          ("arithmetic", "k = 8", PASS_16, "EntropyReg 0.1")),
    Claim("PKPO", "Figure 8", "on hard problems pass@1 training stalls, k_opt > 1 does not",
          "hard", "in part: more are ever solved, but k = 1 does not stall",
          ("arithmetic", "k = 8", SOLVED)),
    Claim("PKPO", "Tables 5, 6", "on hard problems k_opt > 1 solves more than k_opt = 1, TZSM and "
          "EntropyReg (there ARC-AGI-1)", "hard",
          "in part: more than k_opt = 1 and EntropyReg; TZSM solves more, at a lower pass@1",
          ("mazes", "k = 8", SOLVED)),
    Claim("PKPO", "Tables 5, 6", "the same on ARC-AGI-1's smallest tasks", "arc",
          "reproduced for k = 4: more pass@1 and pass@16; TZSM and EntropyReg below",
          ("arc", "k = 4", "train/t1/pass@16_n16")),
    Claim("PKT", "Figures 1, 2, 14 to 17", "overview, the method's diagram, examples of tasks",
          None, "nothing to test"),
    Claim("PKT", "Figure 3", "full sampling: pass@k training raises pass@k", "maze",
          "not reproduced: with four sets a problem it trains nothing",
          ("mazes", "full sampling", MAZE_8)),
    Claim("PKT", "Figure 3", "and does not lower pass@1", "maze",
          "not reproduced", ("mazes", "full sampling", MAZE_1)),
    Claim("PKT", "Figure 4", "bootstrap sampling beats full sampling of as many samples", "maze",
          "reproduced", ("mazes", "bootstrap", MAZE_8, "full sampling")),
    Claim("PKT", "Figure 5", "the analytical form beats bootstrap sampling", "maze",
          "in part: in the mean, not in each seed", ("mazes", "analytical", MAZE_8, "bootstrap")),
    Claim("PKT", "Figure 6a", "rewarding some failures (10, 30, 50%) makes pass@k worse", "maze",
          "reproduced in direction, the more the worse", ("mazes", "noise 30%", MAZE_8)),
    Claim("PKT", "Figure 6b", "entropy regularisation (0.001, 0.003, 0.005) does not do what "
          "pass@k training does", "maze",
          "in part: it changes nothing; no collapse",
          ("mazes", "analytical", MAZE_8, "entropy 0.003")),
    Claim("PKT", "Figure 7a", "pass@k training keeps wrong answers diverse", "maze",
          "reproduced", ("mazes", "analytical", "test/t1/wrong_answer_entropy_n32")),
    Claim("PKT", "Figure 7b", "and the policy's entropy high", "maze",
          "reproduced", ("mazes", "analytical", "train/entropy")),
    Claim("PKT", "Table 1", "what is learned carries over to other domains", None,
          "not here: a model that knows one task has no other domain; larger mazes are Table 7"),
    Claim("PKT", "Figure 8a, b", "any k does, a larger one more slowly", "maze",
          "reproduced", ("mazes", "k = 16", MAZE_1, "k = 4")),
    Claim("PKT", "Figure 8c, d", "a larger learning rate makes up for that", "maze",
          "not reproduced: a larger rate is worse", ("mazes", "rate x 4", MAZE_8, "analytical")),
    Claim("PKT", "Table 2", "pass@k training, then pass@1 training, beats pass@1 alone",
          "annealing", "in part: pass@1 as good, not better; repeated, pass@64 is higher",
          ("pkt", "pass@8, then pass@1", "test/t1/pass@1_n64")),
    Claim("PKT", "Tables 3, 5, 6", "the same with other models and tasks; in Table 5 twice", None,
          f"{LARGE}; `twice` is an arm of [annealing](annealing/README.md)"),
    Claim("PKT", "Figures 9, 18", "curves of the advantages, and η, their absolute sum", "toy",
          "reproduced"),
    Claim("PKT", "Figure 10", "pass@1 training without easy problems beats pass@1 training", "maze",
          "reproduced", ("mazes", "pass@1 w/o easy", MAZE_8)),
    Claim("PKT", "Figure 11", "exceeding pass@k training raises pass@k faster, pass@1 more slowly",
          "maze", "not reproduced: no difference", ("mazes", "exceeding", MAZE_1, "analytical")),
    Claim("PKT", "Figure 12", "combination beats pass@k training at pass@1 and pass@8", "maze",
          "not reproduced: no difference", ("mazes", "combination", MAZE_8, "analytical")),
    Claim("PKT", "Figure 13", "adaptive by entropy beats pass@1 and pass@k training", "maze",
          "not reproduced: no difference", ("mazes", "adaptive", MAZE_8, "analytical")),
    Claim("PKT", "Tables 4, 7", "mazes of sizes that were trained on, and beyond", "maze",
          "in part: the same order on sizes trained on, noise beyond",
          ("table7", "analytical", "7x7/t1/pass@32_n32")),
    Claim("PKR", "Figure 2", "a larger γ raises pass@K for large K", "arithmetic",
          "reproduced, for GRPO and for RFT", ("arithmetic", "GRPO γ = 4", PASS_64)),
    Claim("PKR", "Figure 4", "a larger γ keeps more different answers", "arithmetic",
          "reproduced", ("arithmetic", "GRPO γ = 4", "test/t1/distinct@64_n64")),
    Claim("PKR", "Figure 5", "so it is at other temperatures", "arithmetic",
          "reproduced; at 0.6 the gain is larger",
          ("arithmetic", "GRPO γ = 4", "test/t0.6/pass@64_n64")),
    Claim("PKR", "other tables and figures", "the same on mathematics benchmarks", None,
          "not here: needs pretrained models; the paper's text was not at hand"),
    Claim("AS", "Figures 1, 2, 5", "weights of the direct and of the shaped estimators", "toy",
          "reproduced"),
    Claim("AS", "Table 1; Figures 3, 4", "each advantage climbs its surrogate reward", "toy",
          "holds, exactly for the unbiased ones"),
    Claim("AS", "sections 4, 5", "GRPO_2 is skew-R as N grows", "surrogates",
          "holds: training cannot tell them apart at N = 16",
          ("surrogates", "GRPO_2", PASS_64, "skew-R")),
    Claim("AS", "section 6", "any surrogate reward gives an algorithm: here log(rate + 0.05)",
          "surrogates", "holds: more pass@64 at the same pass@1",
          ("surrogates", "log(rate + 0.05)", PASS_64)),
]  # fmt: skip
