"""The figures and tables of the three notebooks, without Jupyter.

    python experiments/toy/run.py [--quick] [--out DIRECTORY]

Writes PNGs and results.json, by default beside this file, and prints the tables. A minute on two
cores.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent))

from experiments.toy import advantage_curves as curves  # noqa: E402
from experiments.toy import estimator_variance as variance  # noqa: E402
from experiments.toy import surrogate_rewards as surrogates  # noqa: E402
from experiments.toy.drawing import markdown_table  # noqa: E402


def make(quick):
    """Returns name -> figure, and name -> rows of a table."""
    v = variance.SETTINGS["quick" if quick else "full"]
    measured = [
        row
        for k in v["ks"]
        for row in variance.variance_by_n(k, v["theta"], v["ns"](k), v["num_estimates"])
    ]
    ratios = variance.centred_against_paper(
        v["n"], v["centred_ks"], v["thetas"], v["num_estimates"]
    )
    pass_at_k = variance.pass_at_k_variances(v["n"], v["ks"], v["rates"], 20 * v["num_estimates"])
    s = surrogates.SETTINGS["quick" if quick else "full"]
    trained = surrogates.train_all(**s["training"])
    figures = {
        "objective": variance.draw_objective(num_estimates=v["num_estimates"]),
        "weights": variance.draw_weights(),
        "variance": variance.draw_variance(measured),
        "effective_rewards": variance.draw_effective_rewards(),
        "centred": variance.draw_centred(ratios, v["centred_ks"], v["thetas"], v["n"]),
        "pass_at_k_variance": variance.draw_pass_at_k_variance(pass_at_k),
        "eta": curves.draw_eta(),
        "advantages": curves.draw_weights(curves.DIRECT),
        "shaped_advantages": curves.draw_weights(curves.SHAPED),
        "surrogates": surrogates.draw_surrogates(),
        "bandits": surrogates.draw_training(trained),
    }
    tables = {
        "variance": measured,
        "centred": variance.centred_table(ratios, v["centred_ks"], v["thetas"]),
        "pass_at_k_variance": pass_at_k,
        "eta": curves.peaks(16),
        "surrogates": surrogates.distances(s["ns"]),
        "bandits": surrogates.outcomes(trained),
    }
    return figures, tables


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few estimates, a few seconds")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="a directory")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    figures, tables = make(arguments.quick)
    for name, figure in figures.items():
        figure.savefig(arguments.out / f"{name}.png")
    text = json.dumps(tables, indent=1, default=lambda x: np.asarray(x).tolist())
    (arguments.out / "results.json").write_text(text + "\n")
    tables["variance"] = variance.final_table(tables["variance"])
    for name, rows in tables.items():
        print(f"\n{name}\n{markdown_table(rows)}")


if __name__ == "__main__":
    main()
