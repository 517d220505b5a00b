"""The parts of a run, one step on one page (`step`), the loop, and what a checkpoint holds."""
