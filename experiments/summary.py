"""Writes the table of experiments/README.md from the committed results.

python -m experiments.summary
"""

import json
import pathlib

from experiments.claims import CLAIMS, Claim
from experiments.pages import replace_between_markers
from passk_jax.tracking.series import difference

HERE = pathlib.Path(__file__).parent


def table(claims: list[Claim], folder: pathlib.Path) -> str:
    """Returns the claims as a Markdown table.

    Args:
      claims: One claim for each row.
      folder: The folder that has the experiments' folders, with their results.json.
    """
    lines = [
        "| paper | table or figure | claim | where | verdict | effect |",
        "|---|---|---|---|---|---|",
    ]
    for claim in claims:
        where, results = "–", None
        if claim.where is not None:
            where = f"[{claim.where}]({claim.where}/README.md)"
            file = folder / claim.where / "results.json"
            results = json.loads(file.read_text()) if file.exists() else None
            if not (folder / claim.where / "README.md").exists():
                where = claim.where
        verdict = claim.verdict
        if claim.where is not None and results is None:
            verdict = "not run yet"
        cells = [claim.paper, claim.item, claim.text, where, verdict, effect(claim, results)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def effect(claim: Claim, results: dict | None) -> str:
    """Returns the difference that the claim names, paired over seeds, with its interval.

    Raises:
      KeyError: The results have no such study, arm or metric.
    """
    if claim.effect is None or results is None or "studies" not in results:
        return "–"
    study, arm, metric, *other = claim.effect
    results = results["studies"][study]
    other = other[0] if other else results["baseline"]
    one, another = (results["arms"][name][metric]["seeds"] for name in (arm, other))
    found = difference(one, another)
    name = metric.rpartition("/")[2].partition("_n")[0].replace("_", " ")
    return f"{name}, {arm} minus {other}: {found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


if __name__ == "__main__":
    replace_between_markers(HERE / "README.md", table(CLAIMS, HERE))
