"""The figures and tables of the first three notebooks, without Jupyter.

    python -m experiments.toy.run [--quick]

It writes PNGs and results.json beside this file, and prints the tables, in a minute on two cores.
"""

import argparse
import json
import pathlib
import tempfile

import numpy as np

from experiments.toy import advantage_curves as curves
from experiments.toy import estimator_variance as variance
from experiments.toy import surrogate_rewards as surrogates
from experiments.toy.drawing import markdown_table

HERE = pathlib.Path(__file__).parent


def make(quick):
    """Returns the figures by name, and the rows of the tables by name."""
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
    parser = argparse.ArgumentParser(prog="python -m experiments.toy.run")
    parser.add_argument("--output", type=pathlib.Path, help="folder of the results, not this one")
    parser.add_argument("--quick", action="store_true", help="few, in a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="toy-") as temporary:
        usual = pathlib.Path(temporary) if arguments.quick else HERE
        write(*make(arguments.quick), arguments.output or usual)


def write(figures, tables, output):
    """Writes the figures and tables of `make` to a folder, and prints the tables."""
    output.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(output / f"{name}.png")
    text = json.dumps(tables, indent=1, default=lambda x: np.asarray(x).tolist())
    (output / "results.json").write_text(text + "\n")
    printed = tables | {"variance": variance.final_table(tables["variance"])}
    for name, rows in printed.items():
        print(f"\n{name}\n{markdown_table(rows)}")


if __name__ == "__main__":
    main()
