"""Tracking: the metrics of a run, its files and its report."""

from passk_jax.tracking import solve_record
from passk_jax.tracking.metrics import (
    KS,
    Interval,
    bootstrap,
    bootstrap_pass_at_k,
    group_metrics,
    metrics_by_problem,
)
from passk_jax.tracking.progress import Progress
from passk_jax.tracking.report import ReportProcess, write_report
from passk_jax.tracking.rows import read_rows
from passk_jax.tracking.runs import Arm, Run, RunError, differences, flatten, read_arms
from passk_jax.tracking.solve_record import SolveRecord
from passk_jax.tracking.summary import summary_table
from passk_jax.tracking.writers import NoWriter, Writer

__all__ = [
    "KS",
    "Arm",
    "Interval",
    "NoWriter",
    "Progress",
    "ReportProcess",
    "Run",
    "RunError",
    "SolveRecord",
    "Writer",
    "bootstrap",
    "bootstrap_pass_at_k",
    "differences",
    "flatten",
    "group_metrics",
    "metrics_by_problem",
    "read_arms",
    "read_rows",
    "solve_record",
    "summary_table",
    "write_report",
]
