"""The tables and figures of the four papers, and the experiment that tests each one.

An effect is read from the folder's results.json when `experiments.summary` writes the list; without
that file the list says "Not run yet". The verdict is a person's, from the folder's page.
"""

from typing import NamedTuple


class Claim(NamedTuple):
    """An item of experiments/README.md.

    Attributes:
      paper: The paper's short name.
      item: The table or figure.
      text: What the paper claims, as sentences.
      where: The folder of experiments/, or None for a claim that is not tested.
      verdict: The verdict of the folder's page, or why the claim is not tested.
      effect: (study, arm, metric): the arm minus its study's baseline. A fourth entry names another
        arm to subtract.
    """

    paper: str
    item: str
    text: str
    where: str | None
    verdict: str
    effect: tuple[str, ...] | None = None


PASS_16, PASS_64 = "test/t1/pass@16_n64", "test/t1/pass@64_n64"
MAZE_1, MAZE_8 = "test/t1/pass@1_n32", "test/t1/pass@8_n32"
SOLVED = "train/cumulative_solve_rate"

CLAIMS = [
    Claim("PKPO", "Sections 1, 5", "Training for k = 8 gives a higher pass@16 than training for "
          "k = 1.", "default_job", "Holds in each of five seeds",
          ("default_job", "k = 8", "test/t1/pass@16_n16")),
    Claim("PKPO", "Figure 1", "The optimum moves towards risk as k grows.", "toy", "Reproduced"),
    Claim("PKPO", "Figure 2", "The weights of the sorted samples go from all equal at k = 1 to "
          "only the best at k = n.", "toy", "Reproduced"),
    Claim("PKPO", "Figure 3", "With k = 8 first and k = 1 then, pass@1 recovers and pass@k stays.",
          "annealing", "Not reproduced, at another horizon: pass@1 nearly recovers, but the gain "
          "in pass@64 is lost",
          ("pkpo", "pass@8, then pass@1", PASS_64)),
    Claim("PKPO", "Figure 4", "The estimators' variances are in the figure's order, with "
          "`sloo_minus_one` lowest.", "toy", "Holds"),
    Claim("PKPO", "Figure 5", "The estimators' effective rewards.", "toy", "Reproduced"),
    Claim("PKPO", "Figure 6a", "A larger k_opt solves more training problems.", "kopt_keval",
          "Reproduced, except for k_opt = n", ("arithmetic", "k = 8", SOLVED)),
    Claim("PKPO", "Figure 6b", "A larger k_opt keeps the entropy higher.", "kopt_keval",
          "Reproduced", ("arithmetic", "k = 8", "train/entropy")),
    Claim("PKPO", "Tables 1 to 4, 7, 8; Figure 7", "Training with k_opt = k_eval gives the best "
          "pass@k_eval (in the paper on MATH and code).", "kopt_keval",
          "Reproduced up to neighbours", ("arithmetic", "k = 8", PASS_16)),
    Claim("PKPO", "Tables 1 to 4, 7, 8", "The same on another task, mazes.", "kopt_keval",
          "Reproduced up to neighbours", ("maze", "k = 8", PASS_16)),
    Claim("PKPO", "Tables 1 to 4, 7, 8; Figure 7", "TZSM, which is k_opt = n, is worse than "
          "k_opt = 8, even at pass@16.", "kopt_keval", "Reproduced",
          ("arithmetic", "k = 8", PASS_16, "k = 16")),
    Claim("PKPO", "Tables 1 to 4, 7, 8", "An entropy bonus, its coefficient swept, is worse than "
          "k_opt = 8.", "kopt_keval", "Reproduced",
          ("arithmetic", "k = 8", PASS_16, "EntropyReg 0.1")),
    Claim("PKPO", "Figure 8", "On hard problems pass@1 training stalls; k_opt > 1 does not.",
          "hard", "In part: k = 8 solves more at least once, but k = 1 does not stall",
          ("arithmetic", "k = 8", SOLVED)),
    Claim("PKPO", "Tables 5, 6", "On hard problems k_opt > 1 solves more than k_opt = 1, TZSM and "
          "EntropyReg (in the paper on ARC-AGI-1).", "hard",
          "In part: more than k_opt = 1 and EntropyReg; TZSM solves more, at a lower pass@1",
          ("mazes", "k = 8", SOLVED)),
    Claim("PKPO", "Tables 5, 6", "The same on the smallest tasks of ARC-AGI-1.", "arc",
          "Reproduced for k = 4: more pass@1 and pass@16, and TZSM and EntropyReg are worse",
          ("arc", "k = 4", "train/t1/pass@16_n16")),
    Claim("PKT", "Figure 1", "Its headline: after pass@k training, further training goes beyond "
          "other models on Enigmata.", None, "Not tested: it needs a model of 7 billion "
          "parameters"),
    Claim("PKT", "Figures 2, 14 to 17", "A diagram of the method, and examples of tasks.", None,
          "Nothing to test"),
    Claim("PKT", "Figure 3", "Pass@k training by full sampling raises pass@k.", "maze",
          "Not reproduced: with four sets for each problem it learns nothing",
          ("mazes", "full sampling", MAZE_8)),
    Claim("PKT", "Figure 3", "It does not lower pass@1.", "maze", "Not reproduced by full sampling",
          ("mazes", "full sampling", MAZE_1)),
    Claim("PKT", "Figures 3 to 5", "The same in analytical form, with the paper's k = 4.", "maze",
          "Reproduced: pass@1 does not suffer", ("mazes", "k = 4", MAZE_1)),
    Claim("PKT", "Figures 3 to 5", "There it raises pass@k.", "maze", "Reproduced",
          ("mazes", "k = 4", MAZE_8)),
    Claim("PKT", "Figure 4", "Bootstrap sampling beats full sampling with as many samples.", "maze",
          "Reproduced", ("mazes", "bootstrap", MAZE_8, "full sampling")),
    Claim("PKT", "Figure 5", "The analytical form beats bootstrap sampling.", "maze",
          "In part: in the mean, not in each seed", ("mazes", "analytical", MAZE_8, "bootstrap")),
    Claim("PKT", "Figure 6a", "Rewarding some failures (10, 30, 50%) lowers pass@k.", "maze",
          "Reproduced in direction: the more noise, the worse", ("mazes", "noise 30%", MAZE_8)),
    Claim("PKT", "Figure 6b", "Entropy regularisation (0.001, 0.003, 0.005) does not achieve what "
          "pass@k training does.", "maze", "In part: it changes nothing, and nothing collapses",
          ("mazes", "analytical", MAZE_8, "entropy 0.003")),
    Claim("PKT", "Figure 7a", "Pass@k training keeps wrong answers diverse (in the paper the share "
          "of different answers among the wrong ones, here their entropy).", "maze",
          "Reproduced", ("mazes", "analytical", "test/t1/wrong_answer_entropy_n32")),
    Claim("PKT", "Figure 7b", "It keeps the policy's entropy high.", "maze",
          "Reproduced", ("mazes", "analytical", "train/entropy")),
    Claim("PKT", "Table 1", "What is learned carries over to other domains.", None,
          "Not tested: a model that knows one task has no other domain; Table 7 has larger mazes"),
    Claim("PKT", "Figure 8a, b", "Any k works; a larger k learns more slowly.", "maze",
          "Reproduced", ("mazes", "k = 16", MAZE_1, "k = 4")),
    Claim("PKT", "Figure 8c, d", "A larger learning rate compensates for that.", "maze",
          "Not reproduced: a larger rate is worse", ("mazes", "rate x 4", MAZE_8, "analytical")),
    Claim("PKT", "Table 2", "Pass@k training, then pass@1 training, beats pass@1 training alone.",
          "annealing", "In part: pass@1 is as good, not better; if repeated, pass@64 is higher",
          ("pkt", "pass@8, then pass@1", "test/t1/pass@1_n64")),
    Claim("PKT", "Tables 3, 5, 6", "The same with other models and tasks; in Table 5 twice.", None,
          "Not tested: it needs pretrained models of 1.5 to 32 billion parameters. `twice` is an "
          "arm of [annealing](annealing/README.md)"),
    Claim("PKT", "Figures 9, 18", "Curves of the advantages and of η, the sum of their absolute "
          "values.", "toy", "Reproduced"),
    Claim("PKT", "Figure 10", "Pass@1 training without easy problems beats pass@1 training.",
          "maze", "Reproduced", ("mazes", "pass@1 w/o easy", MAZE_8)),
    Claim("PKT", "Figure 11", "Exceeding pass@k training raises pass@k faster and pass@1 more "
          "slowly.", "maze",
          "Not tested as the paper has it: the arm weighs pass@1 training, k = 1; no difference",
          ("mazes", "exceeding", MAZE_1, "analytical")),
    Claim("PKT", "Figure 12", "Combination beats pass@k training at pass@1 and pass@8.", "maze",
          "Not reproduced: no difference", ("mazes", "combination", MAZE_8, "analytical")),
    Claim("PKT", "Figure 13", "Adaptive training by entropy beats pass@1 and pass@k training.",
          "maze", "Not reproduced: no difference", ("mazes", "adaptive", MAZE_8, "analytical")),
    Claim("PKT", "Tables 4, 7", "What is learned on mazes carries over to other sizes.", "maze",
          "In part: the same order on the sizes trained on, noise beyond",
          ("table7", "analytical", "7x7/t1/pass@32_n32")),
    Claim("PKR", "Figure 2", "A larger γ raises pass@K for large K.", "arithmetic",
          "Reproduced, for GRPO and for RFT", ("arithmetic", "GRPO γ = 4", PASS_64)),
    Claim("PKR", "Figure 4", "A larger γ keeps more different answers.", "arithmetic",
          "Reproduced", ("arithmetic", "GRPO γ = 4", "test/t1/distinct@64_n64")),
    Claim("PKR", "Figure 5", "The same at other temperatures, with γ = 2 in the paper.",
          "arithmetic", "Reproduced with γ = 4; at 0.6 the gain is larger",
          ("arithmetic", "GRPO γ = 4", "test/t0.6/pass@64_n64")),
    Claim("PKR", "Figures 6, 7", "The same on arithmetic with a model of 1.5 billion parameters, "
          "and on MATH-500 with 3 billion.", None, "Not tested: it needs pretrained models"),
    Claim("AS", "Figures 1, 2, 5", "Effective weights of the direct and of the shaped "
          "estimators.", "toy", "Reproduced"),
    Claim("AS", "Table 1; Figures 3, 4", "Each advantage maximises its surrogate reward.", "toy",
          "Holds, exactly for the unbiased ones"),
    Claim("AS", "Sections 6.2, C.2", "GRPO_2 becomes skew-R as N grows.", "surrogates",
          "Holds: training cannot tell them apart at N = 16",
          ("surrogates", "GRPO_2", PASS_64, "skew-R")),
    Claim("AS", "Section 5.2", "Any surrogate reward gives an algorithm; here log(rate + 0.05).",
          "surrogates", "Holds: more pass@64 at the same pass@1",
          ("surrogates", "log(rate + 0.05)", PASS_64)),
]  # fmt: skip
