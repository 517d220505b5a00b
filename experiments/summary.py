"""Writes the tables of all pages, and the list of experiments/README.md, from committed results.

python -m experiments.summary
"""

import importlib
import itertools
import json
import pathlib
import textwrap
from collections.abc import Sequence

from experiments.claims import CLAIMS, Claim
from experiments.pages import WIDTH, replace_between_markers, tables
from experiments.results import Results
from passk_jax.tracking.series import difference

HERE = pathlib.Path(__file__).parent


def listing(claims: Sequence[Claim], folder: pathlib.Path) -> str:
    """Returns the claims as Markdown: a heading for each paper, an item for each claim.

    Args:
      claims: Those of a paper follow each other.
      folder: The folder whose folders contain the results.json.
    """
    wrap = textwrap.TextWrapper(WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    parts = []
    for paper, group in itertools.groupby(claims, lambda claim: claim.paper):
        items = [wrap.fill(_item(claim, folder)) for claim in group]
        parts.append("\n".join([f"### {paper}", *items]))
    return "\n\n".join(parts)


def _item(claim: Claim, folder: pathlib.Path) -> str:
    if claim.where is None:
        return f"- {claim.item}: {claim.text} **{claim.verdict}.**"
    file = folder / claim.where / "results.json"
    results = json.loads(file.read_text()) if file.exists() else None
    verdict = claim.verdict if results else "Not run yet"
    parts = [f"**{verdict}** ([{claim.where}]({claim.where}/README.md))"]
    if claim.effect and results:
        parts.append(effect(claim, results))
    return f"- {claim.item}: {claim.text} {'; '.join(parts)}."


def effect(claim: Claim, results: dict) -> str:
    """Returns the difference that the claim names, paired over seeds, with its interval.

    Raises:
      KeyError: The results have no such study, arm or metric.
    """
    study, arm, metric, *other = claim.effect
    results = results["studies"][study]
    other = other[0] if other else results["baseline"]
    one, another = (results["arms"][name][metric]["seeds"] for name in (arm, other))
    found = difference(one, another)
    name = metric.rpartition("/")[2].partition("_n")[0].replace("_", " ")
    interval = f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
    return f'{name}, "{arm}" minus "{other}": {interval}'


def committed(file: pathlib.Path) -> str:
    """The tables of a folder's page, from its results.json."""
    written = json.loads(file.read_text())
    studies = importlib.import_module(f"experiments.{file.parent.name}.run").studies()
    found = {s.name: Results.from_json(s, written["studies"][s.name]) for s in studies}
    return tables(written["setup"], found)


if __name__ == "__main__":
    for page in sorted(HERE.glob("*/README.md")):
        if page.parent.name != "toy":  # whose page has no such tables
            replace_between_markers(page, committed(page.parent / "results.json"))
    replace_between_markers(HERE / "README.md", listing(CLAIMS, HERE))
