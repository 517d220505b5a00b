"""Every study, short: it ends and writes what its folder holds; and how results are computed."""

import dataclasses
import importlib
import json
import math
import os
import sys
from types import SimpleNamespace

import pytest

from experiments import pages, summary
from experiments.claims import CLAIMS, Claim
from experiments.results import Results, mean
from experiments.study import few_problems, main
from passk_jax.run.parts import build
from passk_jax.tracking.series import difference
from tests.tiny import ROOT, run

needs_data = pytest.mark.skipif("PASSK_DATA" not in os.environ, reason="PASSK_DATA is not set")
NAMES = sorted({p.parent.name for p in ROOT.glob("experiments/*/run.py")} - {"toy"})
FOLDERS = [pytest.param(name, marks=needs_data if name == "arc" else ()) for name in NAMES]


@pytest.mark.slow
@pytest.mark.parametrize("folder", FOLDERS)
def test_it_runs_and_writes_its_results(folder, tmp_path):
    before = {p: p.read_bytes() for p in (ROOT / "experiments" / folder).iterdir() if p.is_file()}
    command = [sys.executable, "-m", f"experiments.{folder}.run", "--quick"]
    command += ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "results")]
    done = run(command)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results" / "results.json").read_text())
    for study in results["studies"].values():
        assert len(study["seeds"]) == 2 and len(study["arms"]) == len(study["differences"]) + 1
    text = (tmp_path / "results" / "README.md").read_text()
    table = text[text.index(pages.BEGIN) : text.index(pages.END)]
    assert all(
        f"| {arm} |" in table for study in results["studies"].values() for arm in study["arms"]
    )
    assert list((tmp_path / "results").glob("*.png"))
    after = {p: p.read_bytes() for p in (ROOT / "experiments" / folder).iterdir() if p.is_file()}
    assert after == before  # what is committed stays as it is
    if folder == "annealing":  # two studies with one warm start
        assert len(list((tmp_path / "runs").glob("warm_start_*"))) == 1
        again = run(command)
        assert again.returncode == 0 and "1/" not in again.stdout  # nothing was trained twice


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_arm_in_full_is_a_job_that_can_begin(folder, tmp_path):
    for study in importlib.import_module(f"experiments.{folder}.run").studies():
        for each in dataclasses.replace(study, seeds=study.seeds[:1]).runs(tmp_path):
            each.config.init_from = None  # the warm start, which is not there
            each.config.task.options.update(few_problems(each.config.task.options))
            build(each.config)


def test_missing_data_is_one_line(monkeypatch, capsys):
    monkeypatch.delenv("PASSK_DATA", raising=False)
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))  # --quick would set it
    study = importlib.import_module("experiments.arc.run")
    with pytest.raises(SystemExit) as stopped:
        main(study.__file__, study.studies(), ["--quick"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: config.task: arc-agi-1/training is needed: say where")
    assert error.count("\n") == 1


def test_a_difference_is_paired_over_seeds():
    # differences 2, 2, 5: mean 3, standard error 1; t of 2 degrees at 97.5% is 4.303;
    # p = 1 - 3 / sqrt(3^2 + 2) for t = 3. Unpaired, the spread of 0, 100, 200 would drown it.
    found = difference([2.0, 102.0, 205.0], [0.0, 100.0, 200.0])
    assert found.mean == pytest.approx(3) and found.stderr == pytest.approx(1)
    assert found.low == pytest.approx(3 - 4.303, abs=1e-3)
    assert found.high == pytest.approx(3 + 4.303, abs=1e-3)
    assert found.p == pytest.approx(1 - 3 / 11**0.5)


def test_a_difference_from_one_for_all_seeds():
    assert difference([3.0], [1.0, 1.0, 4.0]) == difference([3.0] * 3, [1.0, 1.0, 4.0])
    assert difference([3.0, 4.0], [1.0]).mean == pytest.approx(2.5)


def test_one_seed_has_no_spread():
    assert math.isnan(mean([1.0]).stderr) and math.isnan(difference([2.0], [1.0]).low)


def test_tables_go_between_the_markers(tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"a\n{pages.BEGIN}\nold\n{pages.END}\nb\n")
    for text in ("new", r"new\1"):
        pages.replace_between_markers(page, text)
        assert page.read_text() == f"a\n{pages.BEGIN}\n{text}\n{pages.END}\nb\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="has no line <!-- begin results -->"):
        pages.replace_between_markers(page, "new")


def test_the_summary_reads_effects_from_results(tmp_path):
    claim = Claim("P", "Table 1", "More.", "a", "Holds", ("s", "k = 8", "test/t1/pass@8_n64"))
    link = "([a](a/README.md))"
    before = f"### P\n- Table 1: More. **Not run yet** {link}."
    assert summary.listing([claim], tmp_path) == before
    (tmp_path / "a").mkdir()
    seeds = {"k = 1": [0.5, 0.5, 0.5], "k = 4": [0.0, 0.0, 0.0], "k = 8": [0.7, 0.7, 1.0]}
    arms = {arm: {"test/t1/pass@8_n64": {"seeds": values}} for arm, values in seeds.items()}
    study = {"baseline": "k = 1", "arms": arms}
    (tmp_path / "a" / "results.json").write_text(json.dumps({"studies": {"s": study}}))
    item = summary.listing([claim], tmp_path).partition("\n")[2]
    # Differences 0.2, 0.2, 0.5: mean 0.3, standard error 0.1, and 4.303 of these to either side.
    found = f'**Holds** {link}; pass@8, "k = 8" minus "k = 1": +0.300 [-0.130, +0.730].'
    assert " ".join(item.split()) == f"- Table 1: More. {found}"
    claim = claim._replace(effect=(*claim.effect, "k = 4"))
    assert '"k = 8" minus "k = 4": +0.800 [' in " ".join(summary.listing([claim], tmp_path).split())


def test_the_summary_is_that_of_the_committed_results():
    page = (summary.HERE / "README.md").read_text()
    assert f"{pages.BEGIN}\n{summary.listing(CLAIMS, summary.HERE)}\n{pages.END}" in page


@pytest.mark.parametrize("folder", NAMES)
def test_the_tables_of_a_page_are_those_of_its_committed_results(folder):
    page = (summary.HERE / folder / "README.md").read_text()
    tables = summary.committed(summary.HERE / folder / "results.json")
    assert f"{pages.BEGIN}\n{tables}\n{pages.END}" in page


def test_a_wide_table_is_split():
    study = SimpleNamespace(table={f"column {i}": f"m{i}" for i in range(5)}, baseline="b")
    scores = {"an arm": [{f"m{i}": float(i) for i in range(5)}], "b": [{"m0": 9.0}]}
    text = pages.means_table(Results(study, scores, {}))
    assert text.count("| an arm | 0.000 | 1.000 | 2.000 | 3.000 | 4.000 |") == 1
    study.table = {f"column {i} {'-' * 40}": f"m{i}" for i in range(5)}
    lines = pages.means_table(Results(study, scores, {})).splitlines()
    assert max(map(len, lines)) <= 120
    # two columns fit: 0 and 1, 2 and 3, 4
    assert [line for line in lines if "an arm" in line] == [
        "| an arm | 0.000 | 1.000 |",
        "| an arm | 2.000 | 3.000 |",
        "| an arm | 4.000 |",
    ]
