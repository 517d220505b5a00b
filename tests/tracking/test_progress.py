"""Progress on a terminal and in a log file."""

import io

from passk_jax import tracking

ROW = {"train/pass@1_n8": 0.25, "train/pass@8_n8": 0.5, "train/cumulative_solve_rate": 0.125}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_lines_in_a_log_file():
    log = io.StringIO()
    with tracking.Progress(11, plain_every=5, stream=log, initial=2) as progress:
        for step in range(3, 12):
            progress.update(step, ROW)
        progress.note("saved")
    # Steps 5 and 10, and 11 as the last; no carriage returns.
    assert log.getvalue() == (
        "step 5/11: pass@1 0.250, pass@8 0.500, solved 0.125\n"
        "step 10/11: pass@1 0.250, pass@8 0.500, solved 0.125\n"
        "step 11/11: pass@1 0.250, pass@8 0.500, solved 0.125\n"
        "saved\n"
    )


def test_a_bar_on_a_terminal():
    terminal = Terminal()
    with tracking.Progress(11, stream=terminal, initial=2) as progress:
        for step in range(3, 12):
            progress.update(step, ROW)
        progress.note("saved")
    shown = terminal.getvalue().split("\r")
    assert "2/11" in shown[1]
    assert "11/11" in shown[-1]
    assert "pass@8 0.500" in shown[-1]
    assert "saved\n" in terminal.getvalue()


def test_held_out_figures_have_a_line_of_their_own():
    log = io.StringIO()
    with tracking.Progress(40, stream=log, plain_every=10) as progress:
        progress.update(0, {"eval/pass@1_n8": 0.5, "eval/pass@8_n8": 0.75, "eval/time_s": 1.0})
        progress.update(25, ROW | {"eval/pass@1_n8": 0.625, "eval/pass@8_n8": 1.0})
    assert log.getvalue() == (
        "step 0/40: held-out pass@1 0.500, pass@8 0.750\n"
        "step 25/40: held-out pass@1 0.625, pass@8 1.000\n"
    )


def test_about_twenty_lines_for_any_length():
    log = io.StringIO()
    progress = tracking.Progress(1000, stream=log)
    for step in range(1, 1001):
        progress.update(step, ROW)
    assert log.getvalue().count("\n") == 20
