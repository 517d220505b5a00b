"""The page of a run: its table, its pictures, and that nothing in a run can break it."""

import base64
import itertools
import json
import re

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import optimize

from passk_jax import tracking
from passk_jax.tracking import browser, figures, naming, plotting, report, runs, series
from tests.tracking.conftest import CONFIG


@pytest.fixture(scope="module")
def finished(tmp_path_factory, write_run):
    workdir = write_run(tmp_path_factory.mktemp("runs") / "k8", steps=60, eval_every=20)
    before = dict(matplotlib.rcParams)
    page = write_report(workdir)
    assert dict(matplotlib.rcParams) == before
    return workdir, page


@pytest.fixture(scope="module")
def compared(tmp_path_factory, write_run):
    folder = tmp_path_factory.mktemp("compared")
    for k in (8, 1):
        for seed in (0, 1):
            write_run(folder / f"k{k}_s{seed}", steps=40, eval_every=20, seed=seed, estimator__k=k)
    arms = tracking.read_arms(sorted(folder.iterdir(), reverse=True))
    return arms, tracking.write_report(arms, folder / "page.html").read_text(encoding="utf-8")


def write_report(workdir):
    path = tracking.write_report(tracking.read_arms([workdir]), workdir / "report.html")
    return path.read_bytes().decode("utf-8")


def asks_for_more(page):
    return re.search(r"https?://|<link|@import|url\(|fetch\(|src=\"(?!data:)|innerHTML", page)


def samples_of(page):
    """What the page's browser of samples reads."""
    (found,) = re.findall(r'id="samples-data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


def text_of(page):
    page = re.sub(r"<script.*?</script>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))


def arm_of(*rows_of_seeds, label="arm", **config):
    """One arm, a run for each list of rows."""
    config = dict(runs.flatten(CONFIG)) | config
    made = [
        tracking.Run(f"seed{seed}", config | {"seed": seed}, series.Table(rows), [], None)
        for seed, rows in enumerate(rows_of_seeds)
    ]
    return tracking.Arm(label, "#123456", tuple(made))


def axes_of(name, *arms):
    axes = Figure().add_subplot()
    figures.FIGURES[name][2](axes, arms)
    return axes


def lines_of(axes):
    return [line.get_xydata().tolist() for line in axes.lines]


def test_every_picture_is_a_file_and_in_the_page(finished):
    workdir, page = finished
    embedded = re.findall(r'src="data:image/png;base64,([^"]+)" alt="([^"]+)"', page)
    of_several_arms = {"held_out_pass_at_1", "held_out_pass_at_most"}
    drawn = [name for name in figures.FIGURES if name not in of_several_arms]
    assert len(embedded) == len(drawn)
    for name, (data, alt) in zip(drawn, embedded, strict=True):
        title, caption, _ = figures.FIGURES[name]
        png = (workdir / "report" / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        assert int.from_bytes(png[16:20], "big") >= 1000  # pixels across
        assert base64.b64decode(data) == png
        assert alt == title
        assert caption in page


def test_a_comparison_shows_each_arm_in_its_colour(compared):
    arms, page = compared
    text = text_of(page)
    assert [arm.label for arm in arms] == ["k = 8", "k = 1"]
    assert "2 arms, 4 runs" in text
    assert re.search(r"k = 8 0, 1 40 20,480 \S+ s \S+/k8_s0 \S+/k8_s1", text)
    assert "key k = 8 k = 1 estimator.k 8 1" in text  # the configs' differences
    assert "estimator.name = sloo_minus_one" in text  # what they have in common
    for arm in arms:
        assert f'style="background: {arm.colour}"></span>{arm.label}' in page
    titles = re.findall(r' alt="([^"]+)"', page)
    assert titles[:3] == [
        "Held-out pass@k, before and after",
        "Held-out pass@1",
        "Held-out pass@16",
    ]
    assert "Bars are 95% bootstrap intervals over problems and seeds." in text
    assert len(re.findall("<details open>", page)) == 2  # the first run of each arm
    assert not asks_for_more(page)


def test_page_needs_nothing_but_itself(finished):
    _, page = finished
    assert not asks_for_more(page)
    assert '<meta name="viewport" content="width=device-width' in page


def test_page_states_the_run(finished):
    workdir, page = finished
    rows = tracking.read_rows(workdir / "metrics.jsonl")
    text = text_of(page)
    last = rows[-1]
    assert "held-out pass@16, n = 16" in text
    assert f"{last['eval/pass@16_n16']:.3f} ± {last['eval/pass@16_n16_stderr']:.3f}" in text
    assert f"training problems ever solved - {last['train/cumulative_solve_rate']:.3f} -" in text
    assert "estimator sloo_minus_one k 8 problems a step 32" in text
    assert "warm_start.learning_rate = 0.001" in text
    assert "sampling.top_k = None" in text
    assert "What is " in text


def test_a_run_that_was_stopped_says_so(tmp_path, write_run, monkeypatch):
    monkeypatch.setattr(figures, "draw_all", lambda arms: [])  # they take 3 s
    workdir = write_run(tmp_path, steps=3, eval_every=2)
    assert "Unfinished" not in write_report(workdir)
    config = json.loads((workdir / "config.json").read_text())
    (workdir / "config.json").write_text(json.dumps({**config, "steps": 300}))
    with (workdir / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 4, "tra')
    assert "is at step 3 of 300" in text_of(write_report(workdir))


def test_problems_that_flipped(tmp_path, write_run, monkeypatch):
    monkeypatch.setattr(figures, "draw_all", lambda arms: [])
    workdir = write_run(tmp_path / "run", steps=3, eval_every=2)

    def row(step, problem, *right):
        samples = [
            {"text": f"{problem}{step}{r}", "reward": 0, "correct": r, "weight": None,
             "final_answer": None}
            for r in right
        ]  # fmt: skip
        return {"split": "validation", "problem": problem, "prompt": "?", "completions": samples}

    with tracking.Writer(workdir / "new", writers=()) as writer:
        for step in (0, 2):  # the middle one is of neither end
            writer.write_samples(step, [row(step, "a", False, False), row(step, "b", False, True)])
            writer.write_samples(step, [row(step, "c", True, True)])
        writer.write_samples(3, [row(3, "a", True, False), row(3, "b", True, True)])
        writer.write_samples(3, [row(3, "c", True, False)])
        writer.write_samples(3, [row(3, "d", True, True) | {"split": "train"}])
    (workdir / "new" / "samples.jsonl").replace(workdir / "samples.jsonl")
    text = text_of(write_report(workdir))
    assert "2 of 3 problems rose from step 0 to step 3" in text
    assert "a · right: 0 of 2, then 1 of 2 a0False before a3True after" in text
    assert "b · right: 1 of 2, then 2 of 2 b0False before b3True after" in text
    assert "c · right" not in text


def test_hostile_text_stays_text(tmp_path):
    text = "</pre><script>alert(1)</script>\x1b[31m\x00\ud800" + "y" * 5000
    completion = {"text": text, "reward": 1.0, "weight": None, "final_answer": None}
    with tracking.Writer(tmp_path / "<b>&run", writers=()) as writer:
        writer.write(0, {"eval/pass@1_n1": 1.0})
        row = {"problem": "<i>", "prompt": "<u>{{ 7 * 7 }}", "completions": [completion] * 3}
        writer.write_samples(0, [row])
    config = CONFIG | {"note": "<img src=x>"}
    (tmp_path / "<b>&run" / "config.json").write_text(json.dumps(config))
    page = write_report(tmp_path / "<b>&run")
    assert not re.search(r"<script>alert|<i>|<u>|<b>|<img src=x", page)
    assert page.count("<script") == page.count("</script>") == 2  # the samples, and their browser
    assert "&lt;script&gt;" in page
    assert "{{ 7 * 7 }}" in page
    assert r"␛[31m␀\ud800y" in page
    assert "characters more)" in page
    assert "y" * 600 not in re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    ((group,),) = [each["groups"] for each in samples_of(page)]
    shown = "</pre><script>alert(1)</script>␛[31m␀\\ud800" + "y" * 5000
    assert group == [0, "train", "<i>", "<u>{{ 7 * 7 }}", None, [[shown, 3, 1.0, True, None]]]


def test_the_browser_has_every_sample_the_latest_first(tmp_path, write_run, monkeypatch):
    monkeypatch.setattr(figures, "draw_all", lambda arms: [])
    workdir = write_run(tmp_path / "run", steps=3, eval_every=2)
    rows = tracking.read_rows(workdir / "samples.jsonl")
    (shown,) = samples_of(write_report(workdir))
    assert shown["left_out"] == 0
    assert [(g[0], g[1], g[2]) for g in shown["groups"]] == [
        (row["step"], row.get("split", "train"), row["problem"]) for row in reversed(rows)
    ]
    for row, (*_, reference, samples) in zip(reversed(rows), shown["groups"], strict=True):
        assert reference == row["reference"]
        written = sorted((s["text"], s["reward"], s["correct"]) for s in row["completions"])
        assert sorted((s[0], s[2], s[3]) for s in samples for _ in range(s[1])) == written
    arms = tracking.read_arms([workdir])
    room = len(json.dumps(shown["groups"][0])) + len(json.dumps(shown["groups"][1]))
    text, left_out = browser.samples(arms, most=room)
    (few,) = json.loads(text)
    assert few["groups"] == shown["groups"][:2]
    assert few["left_out"] == left_out["run"] == len(rows) - 2


def test_the_contents_lead_to_every_heading(finished, compared):
    for page in (finished[1], compared[1]):
        links = re.findall(r'<a href="#([^"]+)"', page)
        assert links == re.findall(r'<h2 id="([^"]+)"', page)
        assert len(links) == len(set(links)) == page.count("<h2")


def test_names_stand_at_the_curves_and_the_legend_is_there_once(compared):
    arms, page = compared
    assert [arm.short for arm in arms] == ["8", "1"]
    assert page.count('<ul class="legend">') == 1
    drawn = 0
    for name in figures.FIGURES:
        try:
            axes = axes_of(name, *arms)
        except plotting.Empty:
            continue
        texts = {(text.get_text(), text.get_color()) for text in axes.texts}
        assert texts >= {(arm.short, arm.colour) for arm in arms}, name
        drawn += 1
    assert drawn > 10


def test_ten_names_at_the_curves_do_not_overlap():
    figure = Figure(figsize=(5.6, 3.8), dpi=100)
    axes = figure.add_subplot()
    curves = [
        plotting.Curve(np.arange(2.0), np.full(2, 0.5 + i / 1e4), np.zeros(2), "black", f"arm {i}")
        for i in range(10)
    ]
    plotting.draw_curves(axes, curves, low=0.0, high=1.0)
    figure.canvas.draw()
    boxes = sorted((text.get_window_extent() for text in axes.texts), key=lambda box: box.y0)
    assert len(boxes) == 10
    assert all(one.y1 <= other.y0 + 1 for one, other in itertools.pairwise(boxes))


def test_no_two_arms_share_a_colour_or_a_short_name():
    colours = naming.colours(30)
    assert len({colour.lower() for colour in colours}) == 30
    labels = [f"name = an_estimator_with_a_long_name, k = {k}, learning_rate = 1e-0{r}"
              for k in (1, 8) for r in (3, 4, 5)]  # fmt: skip
    assert naming.short(labels) == [
        "1, 1e-03",
        "1, 1e-04",
        "1, 1e-05",
        "8, 1e-03",
        "8, 1e-04",
        "8, 1e-05",
    ]
    assert naming.short(["runs/a/x", "runs/b/x"]) == ["a/x", "b/x"]
    long = naming.short(["k = 1, " + "x" * 50, "k = 1, " + "x" * 49 + "y"])
    assert [each[:3] for each in long] == ["1: ", "2: "]
    assert max(map(len, long)) <= 28


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"eval/pass@1_n1_stderr": None},
        {"train/pass@1_n2": None, "train/entropy": None},
        {"warm_start/step": 1, "warm_start/loss": 2.0},
        {"train/entropy": 0.5, "train/k": 2, "eval/pass@2_n2": None},
    ],
)
def test_a_run_with_next_to_nothing(tmp_path, row):
    rows = [{"step": 0, "eval/pass@1_n1": 0.5}, {"step": 5, **row}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert "passk_jax run" in write_report(tmp_path)


def test_held_out_curves_and_bands():
    rows = [
        {"step": 0, "eval/pass@1_n4": 0.2, "eval/pass@1_n4_stderr": 0.05, "eval/pass@4_n4": 0.5},
        {"step": 5, "train/pass@1_n4": 0.9},
        {"step": 10, "eval/pass@1_n4": 0.3, "eval/pass@1_n4_stderr": 0.04, "eval/pass@4_n4": 0.6},
    ]
    axes = axes_of("held_out_pass_at_k", arm_of(rows))
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
    axes = axes_of("distinct_answers", arm_of(rows))
    assert [line.get_xdata().tolist() for line in axes.lines] == [[1], [0, 1]]
    assert axes.lines[1].get_ydata()[0] > 6


def test_before_and_after_are_the_first_and_last_evaluation():
    rows = [
        {"step": step, "eval/pass@1_n2": 0.1 * step, "eval/pass@2_n2": 0.2 * step}
        for step in (0, 1, 3)
    ]
    axes = Figure().add_subplot()
    caption = figures.FIGURES["pass_at_k"][2](axes, [arm_of(rows)])
    drawn = [container.lines[0].get_xydata().tolist() for container in axes.containers]
    assert drawn == [[[1, 0.0], [2, 0.0]], [[1, pytest.approx(0.3)], [2, pytest.approx(0.6)]]]
    assert caption.startswith("Solid: step 3; dashed: step 0.")


def test_curves_of_seeds_are_their_mean_at_the_steps_that_all_have():
    rows = [
        [{"step": step, "eval/pass@1_n2": value} for step, value in enumerate(values)]
        for values in ([0.1, 0.2, 0.9], [0.3, 0.6])
    ]
    axes = axes_of("held_out_pass_at_1", arm_of(*rows), arm_of(rows[1], label="other"))
    assert lines_of(axes) == [
        [[0, pytest.approx(0.2)], [1, pytest.approx(0.4)]],
        [[0, 0.3], [1, 0.6]],
    ]
    band = axes.collections[0].get_paths()[0].vertices
    at_step = band[band[:, 0] == 1][:, 1]  # sample deviation 0.4 / sqrt(2), over sqrt(2)
    assert (at_step.min(), at_step.max()) == (pytest.approx(0.2), pytest.approx(0.6))


def test_the_solve_rate_is_drawn_against_samples():
    rate = {"train/cumulative_solve_rate": 0.5}
    counted = arm_of([{"step": 2, **rate, "train/samples_drawn": 1500}])
    told = arm_of([{"step": 2, **rate}])  # 2 steps of 32 problems with 16 samples
    assert lines_of(axes_of("solve_rate", counted, told)) == [[[1500, 0.5]], [[1024, 0.5]]]


def test_weights_by_composition_are_of_the_last_phase():
    rows = [{"step": 0}]
    phases = {
        "estimator.name": [[0, "sloo_minus_one"], [9, "rloo"]],
        "estimator.k": [[0, 8], [9, None]],
    }
    axes = Figure().add_subplot()
    note = figures.FIGURES["weights"][2](axes, [arm_of(rows, samples_per_prompt=4, **phases)])
    right, wrong = (np.array(line.get_ydata()) for line in axes.lines[:2])
    np.testing.assert_allclose(right[1:], [1, 2 / 3, 1 / 3, 0], atol=1e-6)
    np.testing.assert_allclose(wrong[:-1], [0, -1 / 3, -2 / 3, -1], atol=1e-6)
    assert note == "arm: the last phase."


def test_an_estimator_that_is_not_known_leaves_the_others_drawn():
    axes = Figure().add_subplot()
    arms = [
        arm_of([{"step": 0}]),
        arm_of([{"step": 0}], label="mine", **{"estimator.name": "mine"}),
    ]
    assert "mine is not drawn" in figures.FIGURES["weights"][2](axes, arms)
    assert len(axes.lines) == 3


def test_a_change_of_k_is_marked_where_it_happens():
    rows = [
        {"step": step, "train/pass@1_n2": 0.5, "train/k": 8 if step < 7 else 1}
        for step in range(1, 12)
    ]
    axes = axes_of("train_pass_at_k", arm_of(rows))
    marks = [line for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert [mark.get_xdata()[0] for mark in marks] == [7]
    assert "k = 1 from here" in [text.get_text() for text in axes.texts]


def test_smooth_is_the_window_mean():
    values = np.random.default_rng(0).normal(size=90)
    means, errors = series.smooth(values)  # 90 // 30 = 3 on either side
    assert means[40] == pytest.approx(values[37:44].mean())
    assert errors[40] == pytest.approx(values[37:44].std(ddof=1) / np.sqrt(7))
    assert means[0] == pytest.approx(values[:4].mean())
    assert means[-1] == pytest.approx(values[-4:].mean())
    short, none = series.smooth(np.array([1.0, 5.0]))
    assert short.tolist() == [1.0, 5.0]
    assert np.isnan(none).all()
    flat, zero = series.smooth(np.full(90, 1e6))
    assert flat.tolist() == [1e6] * 90
    assert zero.tolist() == [0.0] * 90


def test_spread_is_the_least_move_that_keeps_the_order_and_the_gap():
    rng = np.random.default_rng(0)
    for _ in range(100):
        places = rng.choice([0.0, 0.1, 0.4, 0.41, 0.8, 1.0], size=5)
        order = np.argsort(places, kind="stable")
        limits = [
            {"type": "ineq", "fun": lambda x: np.diff(x) - 0.1},
            {"type": "ineq", "fun": lambda x: [x[0], 1 - x[-1]]},
        ]
        least = optimize.minimize(
            lambda x, places=places[order]: np.sum((x - places) ** 2),
            np.linspace(0.2, 0.8, 5),
            constraints=limits,
            method="SLSQP",
            options={"ftol": 1e-12},
        )
        assert least.success
        moved = plotting.spread(places, gap=0.1)
        np.testing.assert_allclose(moved[order], least.x, atol=1e-5)
        assert np.diff(np.sort(moved)).min() >= 0.1 - 1e-9
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
    run = tracking.Run("run", {}, series.Table([]), rows, None)
    groups = report._choose_groups(run)
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
