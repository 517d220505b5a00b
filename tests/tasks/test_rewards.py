"""Own rewards: what functions may return, what is wrong with them, and functions that wait."""

import http.server
import json
import math
import pathlib
import re
import threading
import time

import numpy as np
import pytest

from passk_jax import tasks
from passk_jax.errors import ConfigError
from passk_jax.tasks import rewards
from passk_jax.tasks.reward_call import outcome
from passk_jax.tasks.rewards import Limits, Rewarded, RewardError

PAGE = pathlib.Path(__file__).parents[2] / "docs/tasks/your_own.md"
TASK = tasks.make("arithmetic", max_n=9, num_train=10, num_validation=2, num_test=2)
PROBLEMS = TASK.split("train")[:4]
RIGHT = [problem.worked_example for problem in PROBLEMS]

FUNCTIONS = """
import asyncio, time
import numpy as np
from passk_jax.tasks import Score

def brief(prompt, completion, row): return -len(completion) / 10
def wants_equals(prompt, completion, row): return "=" in completion
def numpys(prompt, completion, row): return np.float32(0.5)
def named(prompt, completion, row): return {"one": 1, "two": 2.0}
def judged(prompt, completion, row): return {"style": 0.5, "correct": row["id"].endswith("4")}
def only_correct(prompt, completion, row): return {"correct": True}
def a_score(prompt, completion, row): return Score(2.0, False, "mine", "why")
def sees(prompt, completion, row): return {prompt: 1.0, completion: 2.0, row["reference"]: 3.0}

def raises(prompt, completion, row): return row["nope"]
def nothing(prompt, completion, row): pass
def two_args(prompt, completion): return 1.0
def unlike(prompt, completion, row): return {"a" if "=" in completion else "b": 1.0}
def sleeps(prompt, completion, row):
    time.sleep(60 * ("hang" in completion))
    return 1.0

waiting, most = 0, 0
async def waits(prompt, completion, row):
    global waiting, most
    waiting += 1
    most = max(most, waiting)
    await asyncio.sleep(0.02)
    waiting -= 1
    return 1.0

calls = {}
async def twice(prompt, completion, row):
    calls[row["id"]] = calls.get(row["id"], 0) + 1
    if calls[row["id"]] < 2:
        raise ConnectionError("not now")
    return 0.5
async def never(prompt, completion, row): raise ConnectionError("the judge is gone")
async def hangs(prompt, completion, row): await asyncio.sleep(60)
async def half(prompt, completion, row):
    if completion == "lost":
        raise ConnectionError("gone")
    return {"half": 1.0, "correct": True}
async def loses_what_is_right(prompt, completion, row):
    if "=" in completion:
        raise ConnectionError("gone")
    return 1.0
async def no_number(prompt, completion, row): pass
not_callable = 3
"""


@pytest.fixture(scope="module", autouse=True)
def functions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_rewards.py").write_text(FUNCTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


def rewarded(*names, weights=None, **limits):
    places = [name if name == "task" else f"own_rewards:{name}" for name in names]
    return Rewarded(TASK, places[0] if len(places) == 1 else places, weights, Limits(**limits))


def test_the_reward_is_the_functions_and_correct_stays_the_tasks():
    scores = rewarded("brief").score(PROBLEMS, ["x", *RIGHT[1:]])
    lengths = [1, *map(len, RIGHT[1:])]
    assert [score.reward for score in scores] == [-length / 10 for length in lengths]
    assert [score.correct for score in scores] == [False, True, True, True]
    assert [score.final_answer for score in scores[1:]] == [p.reference for p in PROBLEMS[1:]]
    assert scores[0].parts == {"brief": -0.1}


def test_several_rewards_have_weights():
    task = rewarded("task", "wants_equals", "named", weights={"wants_equals": 0.25, "two": -1})
    (score,) = task.score(PROBLEMS[:1], RIGHT[:1])
    # 1 of the task, 0.25 * 1, 1 * 1, -1 * 2.
    assert score.reward == pytest.approx(0.25)
    assert score.parts == {"wants_equals": 1.0, "one": 1.0, "two": 2.0, "task": 1.0}
    assert not task.binary_rewards


def test_what_a_function_is_given():
    (score,) = rewarded("sees").score(PROBLEMS[:1], ["text"])
    assert score.parts == {PROBLEMS[0].prompt: 1.0, "text": 2.0, PROBLEMS[0].reference: 3.0}
    row = {"question": "?", "reference": "of the file"}
    problem = tasks.Problem("a/1", "ask", PROBLEMS[0].reference, row=row)
    (score,) = rewarded("sees").score([problem], ["text"])
    assert score.parts == {"ask": 1.0, "text": 2.0, "of the file": 3.0}


def test_a_function_may_say_what_is_correct():
    scores = rewarded("judged").score(PROBLEMS, RIGHT)
    assert [score.correct for score in scores] == [p.id.endswith("4") for p in PROBLEMS]
    assert [score.parts for score in scores] == [{"style": 0.5}] * 4
    (score,) = rewarded("a_score").score(PROBLEMS[:1], RIGHT[:1])
    assert (score.reward, score.correct, score.final_answer) == (2.0, False, "mine")
    assert score.error == "why"
    (score,) = rewarded("only_correct", "numpys").score(PROBLEMS[:1], ["wrong"])
    assert (score.reward, score.correct) == (0.5, True)
    with pytest.raises(RewardError, match=r"2 functions of .* say what is correct"):
        rewarded("judged", "a_score").score(PROBLEMS[:1], RIGHT[:1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("raises", r"problem 'arithmetic/.*return row\[.nope.\].*KeyError: 'nope'"),
        ("nothing", "it returned None: a finite number, a dict of them, or a Score is wanted"),
        ("no_number", "it returned None: a finite"),
        ("unlike", "gave b to one completion and a to another"),
        ("sleeps", r"failed for 1 of 2 completions; .*max_lost = 0.25 .*took longer than"),
    ],
)
def test_what_is_wrong_with_a_function(name, message):
    with pytest.raises(RewardError, match=re.compile(message, re.S)) as caught:
        rewarded(name, time_limit_s=0.5, retries=0).score(PROBLEMS[:2], ["x", "hang=1"])
    assert "own_rewards:" + name in str(caught.value) or name == "unlike"


def test_a_few_lost_completions_are_errors_that_are_counted():
    task = rewarded("sleeps", time_limit_s=0.5)
    scores = task.score(PROBLEMS, ["a", "b", "hang", "d"])
    assert [score.failed for score in scores] == [False, False, True, False]
    assert "took longer than" in scores[2].error and scores[2].parts is None
    assert [score.error_kind for score in scores] == [None, None, "timed_out", None]


@pytest.mark.parametrize(
    ("places", "weights", "message"),
    [
        ("own_rewards", None, "must be module:function"),
        (("task", 3), None, "reward = 3: must be module:function"),
        ((), None, "names no function"),
        (("task",), None, "names no function"),
        ("no_such_module:f", None, "there is no module 'no_such_module'"),
        ("own_rewards:breif", None, r"own_rewards.py has no 'breif' \(did you mean 'brief'\?\)"),
        ("own_rewards:not_callable", None, "must be a function of .*, not int"),
        ("own_rewards:two_args", None, "must be a function of .*: too many positional arguments"),
        (("own_rewards:brief", "math:brief"), None, "has no 'brief'"),
        (("own_rewards:brief", "own_rewards:brief"), None, "two rewards have one name"),
        ("own_rewards:brief", {"brief": "1"}, "reward_weights.brief = '1': must be a number"),
    ],
)
def test_what_is_wrong_with_the_config(places, weights, message):
    with pytest.raises((ConfigError, AttributeError), match=message):
        Rewarded(TASK, places, weights)


def test_an_error_inside_the_users_module_is_the_users_to_see(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "needs_more.py").write_text("import what_is_not_there\n")
    with pytest.raises(ModuleNotFoundError, match="what_is_not_there"):
        Rewarded(TASK, "needs_more:f")


def test_a_weight_of_no_reward_is_found_by_the_first_score():
    task = rewarded("named", weights={"too": 1.0})
    with pytest.raises(ConfigError, match=r"reward_weights.too: .*\(did you mean 'two'\?\)"):
        task.try_out(PROBLEMS[0])


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"time_limit_s": 0}, "time_limit_s = 0: must be a positive number"),
        ({"concurrency": 0}, "concurrency = 0: must be at least 1"),
        ({"retries": -1}, "retries = -1"),
        ({"max_lost": 1.5}, "max_lost = 1.5: must be between 0 and 1"),
    ],
)
def test_limits_in_range(limits, message):
    with pytest.raises(ConfigError, match=message):
        Limits(**limits)


def test_a_task_without_a_grader_needs_a_function_that_says_what_is_correct():
    class Open:
        binary_rewards, graded = False, False
        split = TASK.split

        def score(self, problems, completions):
            raise AssertionError("there is no grader")

    task = Rewarded(Open(), "own_rewards:only_correct")
    (score,) = task.score(PROBLEMS[:1], [" x\n"])
    assert score.correct and score.final_answer == "x"
    with pytest.raises(RewardError, match="the task has no grader, so a function of"):
        Rewarded(Open(), "own_rewards:brief").score(PROBLEMS[:1], ["x"])
    with pytest.raises(ConfigError, match="this task has no reward of its own"):
        Rewarded(Open(), ("task", "own_rewards:brief"))


# --- functions that wait ---


def test_many_calls_wait_at_once_but_no_more_than_allowed():
    import own_rewards

    scores = rewarded("waits", concurrency=3).score(PROBLEMS * 5, RIGHT * 5)
    assert [score.reward for score in scores] == [1.0] * 20
    assert own_rewards.most == 3


def test_a_call_that_raised_is_made_again(monkeypatch):
    slept = []

    async def at_once(seconds):
        slept.append(seconds)

    monkeypatch.setattr(rewards.asyncio, "sleep", at_once)
    scores = rewarded("twice", retries=1).score(PROBLEMS, RIGHT)
    assert [(score.reward, score.failed) for score in scores] == [(0.5, False)] * 4
    assert slept == [1.0] * 4
    slept.clear()
    with pytest.raises(
        RewardError, match=r"failed for 1 of 1.*is gone \(tried 8 times\)"
    ) as caught:
        rewarded("never", retries=7).score(PROBLEMS[:1], RIGHT[:1])
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert slept == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_call_that_hangs_is_given_up():
    start = time.monotonic()
    with pytest.raises(RewardError, match=r"TimeoutError: took longer than 0.2 s \(tried 1 times"):
        rewarded("hangs", time_limit_s=0.2, retries=0).score(PROBLEMS[:1], RIGHT[:1])
    assert time.monotonic() - start < 30


def test_lost_calls_are_errors_until_they_are_too_many():
    texts = ["lost", "a", "b", "c"]
    scores = rewarded("half", retries=0, max_lost=0.25).score(PROBLEMS, texts)
    assert [score.failed for score in scores] == [True, False, False, False]
    assert "ConnectionError: gone" in scores[0].error
    with pytest.raises(RewardError, match="failed for 1 of 4"):
        rewarded("half", retries=0, max_lost=0.24).score(PROBLEMS, texts)


def test_a_right_completion_whose_reward_is_lost_is_an_error_too():
    task = rewarded("loses_what_is_right", retries=0, max_lost=1.0)
    lost, wrong = task.score(PROBLEMS[:2], [RIGHT[0], "no"])
    assert (lost.correct, lost.reward, lost.error_kind) == (True, 0.0, "other")
    assert (wrong.correct, wrong.reward, wrong.error_kind) == (False, 1.0, None)


class Judge(http.server.BaseHTTPRequestHandler):
    """A server of chat completions: every third call fails, and it likes short answers."""

    calls, lock = 0, threading.Lock()

    def do_POST(self):
        with self.lock:
            type(self).calls += 1
            third = self.calls % 3 == 0
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if third:
            self.send_error(503)
            return
        question = body["messages"][0]["content"]
        text = f"I give it {9 if 'short' in question else 2} points."
        reply = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *args):
        pass


def test_the_judge_of_the_page(tmp_path, monkeypatch):
    pytest.importorskip("httpx")
    (block,) = re.findall(r"```python\n(import os.*?)```", PAGE.read_text(), re.S)
    (tmp_path / "judging.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("JUDGE", f"http://127.0.0.1:{server.server_port}/v1")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    try:
        task = Rewarded(TASK, ("task", "judging:judge"), {"judge": 0.5}, Limits(retries=4))
        texts = ["short", "long and winding", "short", RIGHT[3]]
        scores = task.score(PROBLEMS, texts)
        assert [score.parts["judge"] for score in scores] == [0.9, 0.2, 0.9, 0.2]
        assert scores[3].reward == pytest.approx(1 + 0.5 * 0.2) and scores[3].correct
        assert Judge.calls >= 5  # one was made again
        task.score(PROBLEMS, texts)  # the client lives on between two batches
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(RewardError, match="judging:judge' failed for 4 of 4 completions"):
        Rewarded(TASK, "judging:judge", limits=Limits(retries=0)).score(PROBLEMS, RIGHT)


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, "1", [1.0, 2.0], {}, {"a": None}, {3: 1.0}, {"a": 1.0, "correct": 0.5},
     np.array([2.0]), tasks.Score(math.nan, True, None)],
)  # fmt: skip
def test_what_is_no_reward(value):
    found = outcome("x", value)
    assert found.bug and found.failed and not found.rewards
    assert "a finite number, a dict of them, or a Score is wanted" in found.error


def test_values_of_numpy_are_numbers():
    assert outcome("x", np.float32(0.5)).rewards == {"x": 0.5}
    assert outcome("x", np.array(2)).rewards == {"x": 2.0}
    assert outcome("x", True).rewards == {"x": 1.0}
    assert outcome("x", np.bool_(True)).rewards == {"x": 1.0}
