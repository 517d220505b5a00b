"""The page of a run: its table, its pictures, and that nothing in a run can break it."""

import base64
import json
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from passk_jax import tracking
from passk_jax.tracking import figures, plotting, report, summary


@pytest.fixture(scope="module")
def finished(tmp_path_factory, write_run):
    workdir = write_run(tmp_path_factory.mktemp("runs") / "k8", steps=60, eval_every=20)
    before = dict(matplotlib.rcParams)
    path = tracking.write_report(workdir)
    assert dict(matplotlib.rcParams) == before
    return workdir, path.read_text(encoding="utf-8")


def axes_of(name, rows):
    axes = Figure().add_subplot()
    figures.FIGURES[name][2](axes, rows)
    return axes


def test_every_picture_is_a_file_and_in_the_page(finished):
    workdir, page = finished
    embedded = re.findall(r'src="data:image/png;base64,([^"]+)" alt="([^"]+)"', page)
    assert len(embedded) == len(figures.FIGURES)
    for (name, (title, caption, _)), (data, alt) in zip(
        figures.FIGURES.items(), embedded, strict=True
    ):
        png = (workdir / "report" / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        assert int.from_bytes(png[16:20], "big") >= 1000  # pixels across
        assert base64.b64decode(data) == png
        assert alt == title
        assert caption.split(";")[0] in page


def test_page_needs_nothing_but_itself(finished):
    _, page = finished
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert '<meta name="viewport" content="width=device-width' in page


def test_page_states_the_run(finished):
    workdir, page = finished
    rows = tracking.read_rows(workdir / "metrics.jsonl")
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
    last = rows[-1]
    assert "held-out pass@16, n = 16" in text
    assert f"{last['eval/pass@16_n16']:.3f} ± {last['eval/pass@16_n16_stderr']:.3f}" in text
    assert f"training problems ever solved - {last['train/cumulative_solve_rate']:.3f} -" in text
    assert "estimator sloo_minus_one k 8 problems a step 32" in text
    assert "warm_start.learning_rate = 0.001" in text
    assert "sampling.top_k = None" in text
    assert "What is " in text


def test_a_run_that_was_stopped_says_so(tmp_path, write_run, monkeypatch):
    monkeypatch.setattr(figures, "draw_all", lambda rows: [])  # they take 3 s
    workdir = write_run(tmp_path, steps=3, eval_every=2)
    config = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps({**config, "steps": 300}))
    with (workdir / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 4, "tra')
    assert "3 of 300" in tracking.write_report(workdir).read_text(encoding="utf-8")


def test_hostile_text_stays_text(tmp_path):
    text = "</pre><script>alert(1)</script>\x1b[31m\x00\ud800" + "y" * 5000
    completion = {"text": text, "reward": 1.0, "weight": None, "final_answer": None}
    with tracking.Writer(tmp_path / "<b>&run") as writer:
        writer.write(0, {"train/loss": 1.0})
        row = {"problem": "<i>", "prompt": "<u>{{ 7 * 7 }}", "completions": [completion] * 3}
        writer.write_samples(0, [row])
    (tmp_path / "<b>&run" / "config.json").write_text('{"note": "<img src=x>"}')
    page = tracking.write_report(tmp_path / "<b>&run").read_bytes().decode("utf-8")
    assert not re.search(r"<script|<i>|<u>|<b>|<img src=x", page)
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert "␛[31m␀?y" in page
    assert "characters more)" in page
    assert "y" * 600 not in page


@pytest.mark.parametrize(
    "rows",
    [
        [{"step": 0}],
        [{"step": 0, "eval/pass@1_n1": 0.5, "eval/pass@1_n1_stderr": None}],
        [{"step": 1, "train/pass@1_n2": None, "train/entropy": None}],
        [{"step": 0, "warm_start/step": 1, "warm_start/loss": 2.0}],
        [{"step": 5, "train/entropy": 0.5, "train/k": 2, "eval/pass@1_n2": None}],
    ],
)
def test_a_run_with_next_to_nothing(tmp_path, rows):
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "passk_jax run" in tracking.write_report(tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.jsonl", "", "nothing to report: .*metrics.jsonl has no rows"),
        ("metrics.jsonl", "{\n", "metrics.jsonl, line 1: not JSON"),
        ("samples.jsonl", "3\n", "samples.jsonl, line 1: not a JSON object"),
        ("config.json", "{", "config.json: not JSON"),
        ("config.json", "[]", "config.json: not a JSON object"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        tracking.write_report(tmp_path)


def test_held_out_curves_and_bands():
    rows = [
        {"step": 0, "eval/pass@1_n4": 0.2, "eval/pass@1_n4_stderr": 0.05, "eval/pass@4_n4": 0.5},
        {"step": 5, "train/pass@1_n4": 0.9},
        {"step": 10, "eval/pass@1_n4": 0.3, "eval/pass@1_n4_stderr": 0.04, "eval/pass@4_n4": 0.6},
    ]
    axes = axes_of("held_out_pass_at_k", rows)
    assert [line.get_xydata().tolist() for line in axes.lines] == [
        [[0, 0.2], [10, 0.3]],
        [[0, 0.5], [10, 0.6]],
    ]
    band = axes.collections[0].get_paths()[0].vertices
    for step, low, high in [(0, 0.15, 0.25), (10, 0.26, 0.34)]:
        at_step = band[band[:, 0] == step][:, 1]
        assert at_step.min() == pytest.approx(low)
        assert at_step.max() == pytest.approx(high)
    assert axes.get_ylabel() == "pass@k (unbiased, n = 4)"
    assert [text.get_text() for text in axes.texts] == ["k = 1", "k = 4"]


def test_different_answers_are_those_of_the_largest_k():
    rows = [
        {"step": step, "train/distinct@4_n16": 3.0, "train/distinct@16_n16": 7.0 + step}
        for step in range(2)
    ]
    rows[1] |= {"eval/distinct@8_n8": 5.0, "eval/distinct@8_n8_stderr": 0.5}
    axes = axes_of("distinct_answers", rows)
    assert [line.get_xdata().tolist() for line in axes.lines] == [[0, 1], [1]]
    assert axes.lines[0].get_ydata()[0] > 6
    assert axes.get_ylabel() == "different answers among k = 8, 16"


def test_before_and_after_are_the_first_and_last_evaluation():
    rows = [
        {"step": step, "eval/pass@1_n2": 0.1 * step, "eval/pass@2_n2": 0.2 * step}
        for step in (0, 1, 3)
    ]
    axes = axes_of("before_after", rows)
    drawn = [container.lines[0].get_xydata().tolist() for container in axes.containers]
    assert drawn == [[[1, 0.0], [2, 0.0]], [[1, pytest.approx(0.3)], [2, pytest.approx(0.6)]]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["step 0", "step 3"]


def test_a_change_of_k_is_marked_where_it_happens():
    rows = [
        {"step": step, "train/pass@1_n2": 0.5, "train/k": 8 if step < 7 else 1}
        for step in range(1, 12)
    ]
    axes = axes_of("train_pass_at_k", rows)
    marks = [line for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert [mark.get_xdata()[0] for mark in marks] == [7]
    assert "k = 1 from here" in [text.get_text() for text in axes.texts]


def test_smooth_is_the_window_mean():
    values = np.random.default_rng(0).normal(size=90)
    means, errors = plotting.smooth(values)  # 90 // 30 = 3 on either side
    assert means[40] == pytest.approx(values[37:44].mean())
    assert errors[40] == pytest.approx(values[37:44].std(ddof=1) / np.sqrt(7))
    assert means[0] == pytest.approx(values[:4].mean())
    assert means[-1] == pytest.approx(values[-4:].mean())
    short, none = plotting.smooth(np.array([1.0, 5.0]))
    assert short.tolist() == [1.0, 5.0]
    assert np.isnan(none).all()
    flat, zero = plotting.smooth(np.full(90, 1e6))
    assert flat.tolist() == [1e6] * 90
    assert zero.tolist() == [0.0] * 90


def test_spread_keeps_the_order_and_the_gap():
    rng = np.random.default_rng(0)
    for _ in range(100):
        places = rng.choice([0.1, 0.4, 0.41, 0.8], size=5)
        moved = plotting.spread(places, gap=0.1)
        assert np.diff(np.sort(moved)).min() >= 0.1 - 1e-9
        assert moved.mean() == pytest.approx(places.mean())
        for i, j in np.argwhere(places[:, None] < places):
            assert moved[i] < moved[j]
    far = np.array([0.9, 0.1, 0.5])
    np.testing.assert_allclose(plotting.spread(far, gap=0.1), far)


def test_groups_with_both_outcomes_come_first_and_equal_samples_are_one_line():
    def row(name, rewards, step=8):
        samples = [
            {"text": f"{r} {i % 2}", "reward": r, "weight": r / 2, "final_answer": None}
            for i, r in enumerate(rewards)
        ]
        return {"step": step, "problem": name, "prompt": "?", "completions": samples}

    rows = [
        row("old", [0, 1], step=4),
        row("all wrong", [0] * 6),
        row("mixed", [0, 0, 1, 0]),
    ]
    groups = report._choose_groups(rows)
    assert [group["problem"] for group in groups] == ["mixed", "all wrong"]
    assert [(line["text"], line["count"]) for line in groups[0]["samples"]] == [
        ("1 0", 1),
        ("0 1", 2),
        ("0 0", 1),
    ]
    assert groups[0]["num_hidden"] == 0
    many = [
        {"text": str(i), "reward": float(i), "weight": None, "final_answer": None}
        for i in range(20)
    ]
    chosen = report._choose_samples(many)
    assert [line["reward"] for line in chosen["samples"]] == [19, 18, 17, 16, 3, 2, 1, 0]
    assert chosen["num_hidden"] == 12


def test_summary_takes_first_and_last_evaluation():
    rows = [
        {"step": 0, "warm_start/loss": 1.0},
        {"step": 0, "eval/pass@1_n2": 0.25, "eval/pass@1_n2_stderr": 0.1},
        {"step": 1, "train/cumulative_solve_rate": 0.1},
        {"step": 2, "eval/pass@1_n2": 0.9, "train/cumulative_solve_rate": 0.2},
        {"step": 4, "eval/pass@1_n2": 0.125, "eval/pass@1_n2_stderr": 0.1},
        {"step": 5, "train/cumulative_solve_rate": 0.3},
    ]
    assert tracking.summary_table(rows).splitlines() == [
        "                                      step 0         step 4  change",
        "held-out pass@1, n = 2         0.250 ± 0.100  0.125 ± 0.100  -0.125",
        "training problems ever solved              -          0.300       -",
    ]
    only = summary.summarise(rows[:2])
    assert [str(cell) for cell in only.lines[0][1:]] == ["-", "0.250 ± 0.100"]
    assert tracking.summary_table([]) == "no evaluation yet"
