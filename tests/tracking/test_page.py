"""The page in a browser: nothing on the console, no broken picture, no sideways scrolling."""

import json
import re
import shutil
import subprocess

import pytest

from passk_jax import tracking
from tests.tracking.conftest import _write_run

CHROMIUM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]

# Shows the page in frames of three widths, searches in its samples, and says what it finds.
FRAMES = """<!doctype html><body><output></output><script>
const page = PAGE, found = {};
const widths = [1440, 500, 390];
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style.cssText = `width: ${width}px; height: 900px; border: 0`;
  frame.srcdoc = page;
  frame.onload = () => {
    const inside = frame.contentDocument, form = inside.getElementById("samples-form");
    const search = (values) => {
      form.reset();
      for (const [key, value] of Object.entries(values)) form.elements[key].value = value;
      form.dispatchEvent(new Event("input"));
      const badges = [...inside.querySelectorAll("#samples-list .badge")];
      return {
        count: inside.getElementById("samples-count").textContent,
        right: badges.filter((badge) => badge.classList.contains("right")).length,
        wrong: badges.filter((badge) => badge.classList.contains("wrong")).length,
      };
    };
    found[width] = {
      sideways: inside.documentElement.scrollWidth - inside.documentElement.clientWidth,
      broken: [...inside.images].filter((image) => !image.naturalWidth).length,
      pictures: inside.images.length,
      all: search({}),
      right: search({outcome: "right"}),
      weight: search({weight: "above"}),
      nothing: search({words: "no sample says this"}),
      words: search({words: "what is 1*2"}),
    };
    if (Object.keys(found).length === widths.length)
      document.querySelector("output").textContent = JSON.stringify(found);
  };
  document.body.append(frame);
}
</script>"""


def open_page(page, folder):
    """Returns what the frames found, by their width, and the console's messages."""
    file = folder / "frames.html"
    quoted = json.dumps(page).replace("<", "\\u003c")
    file.write_text(FRAMES.replace("PAGE", quoted, 1), encoding="utf-8")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    flags += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=60000"]
    done = subprocess.run(
        [CHROMIUM, *flags, file.as_uri()], capture_output=True, text=True, timeout=300
    )
    (found,) = re.findall(r"<output>(.*?)</output>", done.stdout, re.DOTALL)
    return json.loads(found), re.findall(r"CONSOLE.*", done.stderr)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    for i, rate in enumerate((1e-4, 2e-4, 3e-4, 4e-4, 5e-4)):
        for k in (8, 1):
            _write_run(
                folder / f"arm{i}_{k}",
                steps=4,
                eval_every=2,
                estimator__name="sloo_minus_one" if i % 2 else "passk_analytical",
                estimator__k=k,
                optimizer__learning_rate=rate,
            )
    return sorted(folder.iterdir())


@pytest.mark.parametrize("arms", [1, 10])
def test_a_page_is_whole_at_every_width(runs, tmp_path, arms):
    path = tracking.write_report(tracking.read_arms(runs[:arms]), tmp_path / "page.html")
    found, console = open_page(path.read_text(encoding="utf-8"), tmp_path)
    assert console == []
    written = [row for run in runs[:arms] for row in tracking.read_rows(run / "samples.jsonl")]
    samples = [sample for row in written for sample in row["completions"]]
    for width in ("1440", "500", "390"):
        seen = found[width]
        assert (seen["sideways"], seen["broken"]) == (0, 0), width
        assert seen["pictures"] > 10
        assert seen["all"]["count"] == f"{len(samples):,} samples of {len(written):,} groups"
        assert seen["all"]["right"] > 0 and seen["all"]["wrong"] > 0
        right = sum(sample["correct"] for sample in samples)
        assert seen["right"]["count"].startswith(f"{right:,} samples")
        assert seen["right"]["right"] > 0 and seen["right"]["wrong"] == 0
        above = sum((sample["weight"] or 0) > 0 for sample in samples)
        assert seen["weight"]["count"].startswith(f"{above:,} samples")
        assert seen["nothing"] == {"count": "0 samples of 0 groups", "right": 0, "wrong": 0}
        asked = sum(16 for row in written if "What is 1*2" in row["prompt"])
        assert seen["words"]["count"].startswith(f"{asked:,} samples") and asked > 0


def test_what_is_wrong_with_a_page_is_seen(runs, tmp_path):
    path = tracking.write_report(tracking.read_arms(runs[:1]), tmp_path / "page.html")
    wrong = '<img src="data:image/png;base64,AAAA"><p style="width: 2000px">wide</p>'
    page = path.read_text(encoding="utf-8") + wrong + "<script>console.warn('beware')</script>"
    found, console = open_page(page, tmp_path)
    assert found["390"]["sideways"] > 1000 and found["390"]["broken"] == 1
    assert "beware" in console[0]
